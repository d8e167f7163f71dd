"""SAM 2's memory encoder (Ravi et al. 2024, section 4): a frame's features and an object's mask become its memory.

Names and shapes of parameters are those of transformers' `Sam2VideoMemoryEncoder`.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.sam2_layers import ChannelNorm

STEPS = (1, 4, 16, 64, 256)  # channels of a mask, each at half the resolution of the one before
FUSERS = 2


class MaskHalving(nn.Module):
    """A mask at half its resolution, in four times the channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, 2, 1)
        self.layer_norm = ChannelNorm(out)

    def forward(self, x: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b d h w"]:
        """Halves height and width."""
        return nnf.gelu(self.layer_norm(self.conv(x)))


class MaskDownsampler(nn.Module):
    """A mask as `width` channels at a sixteenth of its resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MaskHalving(a, b) for a, b in pairwise(STEPS))
        self.final_conv = nn.Conv2d(STEPS[-1], width, 1)

    def forward(self, mask: Float[Tensor, "b 1 h16 w16"]) -> Float[Tensor, "b c h w"]:
        """What of each mask is added to the frame's features."""
        for layer in self.layers:
            mask = layer(mask)
        out: Tensor = self.final_conv(mask)
        return out


class FuserBlock(nn.Module):
    """A block of ConvNeXt (Liu et al. 2022)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.layer_norm = ChannelNorm(width)
        self.pointwise_conv1, self.pointwise_conv2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The map and what the block makes of it."""
        hidden = self.layer_norm(self.depthwise_conv(x)).permute(0, 2, 3, 1)
        hidden = self.scale * self.pointwise_conv2(nnf.gelu(self.pointwise_conv1(hidden)))
        out: Tensor = x + hidden.permute(0, 3, 1, 2)
        return out


class MemoryFuser(nn.Module):
    """Features and masks, mixed."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock(width, hidden) for _ in range(FUSERS))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Applies one block after the other."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """The parts, which `Sam2Core` runs: `width` channels of features, `hidden` ones inside of the fuser, `out` of a
    memory.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(width)
        self.feature_projection = nn.Conv2d(width, width, 1)
        self.memory_fuser = MemoryFuser(width, hidden)
        self.projection = nn.Conv2d(width, out, 1)


def encode_grid(channels: int, height: int, width: int) -> Float[Tensor, "p c"]:
    """Encodes where each cell of a grid is, row by row, in sines and cosines (Vaswani et al. 2017): `channels` are
    half for y, half for x.

    >>> encode_grid(8, 2, 3).shape
    torch.Size([6, 8])
    """
    steps = torch.arange(channels // 2, dtype=torch.float32)
    periods = 10000 ** (2 * torch.div(steps, 2, rounding_mode="floor") / (channels // 2))
    y, x = (
        _interleave(torch.arange(1, n + 1) / (n + 1e-6) * 2 * math.pi / periods[:, None]).T for n in (height, width)
    )
    grid = y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)
    return torch.cat(grid, dim=2).flatten(0, 1)


def _interleave(angles: Float[Tensor, "c n"]) -> Float[Tensor, "c n"]:
    """Sines of the even rows, cosines of the odd ones."""
    return torch.stack([angles[::2].sin(), angles[1::2].cos()], dim=1).flatten(0, 1)
