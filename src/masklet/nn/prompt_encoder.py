"""SAM 2's prompt encoder (Kirillov et al. 2023, section 3): points and masks become tokens of the mask decoder.

Names and shapes of parameters are those of transformers' `Sam2VideoPromptEncoder`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int
from torch import Tensor, nn

from masklet.nn.sam2_layers import ChannelNorm

KINDS = 4  # of points: outside, inside, a box's first and second corner
STRIDE = 16  # pixels of the network's input to a cell


class PlaceEncoding(nn.Module):
    """Places as sines and cosines of random projections (Tancik et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Buffer(torch.randn(2, width // 2))

    def forward(self, places: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b c"]:
        """Encodes x and y from 0 to 1."""
        angles = 2 * math.pi * ((2 * places - 1) @ self.positional_embedding)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class MaskEmbedding(nn.Module):
    """Mask prompts of four times the cells' resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 2, 2), nn.Conv2d(4, 16, 2, 2)
        self.conv3 = nn.Conv2d(16, width, 1)
        self.layer_norm1, self.layer_norm2 = ChannelNorm(4), ChannelNorm(16)

    def forward(self, masks: Float[Tensor, "b 1 h4 w4"]) -> Float[Tensor, "b c h w"]:
        """Dense tokens of mask logits."""
        x = nnf.gelu(self.layer_norm1(self.conv1(masks)))
        dense: Tensor = self.conv3(nnf.gelu(self.layer_norm2(self.conv2(x))))
        return dense


class PromptEncoder(nn.Module):
    """Tokens of `width` channels, of prompts in a square of `side` pixels."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.shared_embedding = PlaceEncoding(width)
        self.mask_embed = MaskEmbedding(width)
        self.no_mask_embed = nn.Embedding(1, width)
        self.point_embed = nn.Embedding(KINDS, width)
        self.not_a_point_embed = nn.Embedding(1, width)

    def forward(
        self, points: Float[Tensor, "b 1 k 2"], labels: Int[Tensor, "b 1 k"], boxes: None, masks: None
    ) -> tuple[Float[Tensor, "b 1 s c"], Float[Tensor, "b c h w"]]:
        """Sparse and dense tokens of points without a mask; one that is no point comes behind them.

        Args:
            points: x and y in pixels.
            labels: 1 inside, 0 outside, 2 and 3 a box's corners, -1 no point.
            boxes: none, as they are points.
            masks: none: `mask_embed` encodes them.
        """
        points = nnf.pad((points + 0.5) / self.side, (0, 0, 0, 1))
        labels = nnf.pad(labels, (0, 1), value=-1)
        told = self.shared_embedding(points) + self.point_embed(labels.clamp(min=0))
        sparse = torch.where(labels[..., None] < 0, self.not_a_point_embed.weight, told)
        dense = self.no_mask_embed.weight.view(1, -1, 1, 1)
        return sparse, dense.expand(len(points), -1, self.side // STRIDE, self.side // STRIDE)
