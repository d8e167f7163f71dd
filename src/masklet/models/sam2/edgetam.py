"""EdgeTAM (Zhou et al. 2025, arXiv:2501.07256) as a propagator, over the networks of transformers, without timm.

It is SAM 2 with a convolutional image encoder, and with a memory of few tokens: a perceiver sums each frame's spatial
memory up in latents that look at all of it and latents that look at one window each.
"""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.instances import Prediction
from masklet.models.sam2.core import Sam2Core, Sam2Features
from masklet.models.sam2.propagator import Sam2
from masklet.nn.memory_attention import MemoryAttention, compute_rotary_encodings
from masklet.nn.repvit import RepVit, merge_batch_norms

if TYPE_CHECKING:
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

STRIDE = 16  # pixels of the network's input to a token


class RepVitBackbone(nn.Module):
    """RepViT where transformers looks for timm's: under its name, and with its answer."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.timm_model = RepVit(channels)

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.timm_model(pixel_values), hidden_states=None)


def build_edgetam(config: EdgeTamVideoConfig) -> EdgeTamVideoModel:
    """transformers' `EdgeTamVideoModel`, with our RepViT for timm's; its parameters have the hub's names.

    The config's `backbone_config` is not read: EdgeTAM's is always RepViT-M1, of the neck's channels.
    """
    from transformers import EdgeTamVideoModel, ResNetConfig

    config = deepcopy(config)
    vision: Any = config.vision_config
    timm = vision.backbone_config
    # transformers makes the backbone itself, and timm's it cannot: it makes the smallest of another kind.
    vision.backbone_config = ResNetConfig(embedding_size=1, hidden_sizes=[4], depths=[1])
    net = EdgeTamVideoModel(config)
    net.vision_encoder.backbone = RepVitBackbone(tuple(vision.backbone_channel_list[::-1]))
    vision.backbone_config = timm
    return net


class LatentAttention(MemoryAttention):
    """EdgeTAM's: keys of latents that look at a window are rotated as that window, the others are not rotated."""

    def __init__(self, net: Any, whole: int) -> None:
        """`whole` is the number of a frame's latents that look at all of it; they come first."""
        super().__init__(net)
        windows = compute_rotary_encodings(net.position_ids_k, net.rotary_emb.inv_freq)
        self.memory_rotations = torch.cat([windows.new_ones(whole, windows.shape[1]), windows])

    def _thinks(self, layer: Any, x: Float[Tensor, "b p c"]) -> Float[Tensor, "b p c"]:
        """As in SAM 2, under another name."""
        out: Tensor = layer.mlp(x)
        return out


class EdgeTamCore(Sam2Core):
    """What EdgeTAM computes: SAM 2's core, but for what a memory consists of.

    `net` is an `EdgeTamVideoModel`, of `build_edgetam`. Of the network's changes one more than SAM 2's: its batch norms
    are folded, so that it loses the hub's names.
    """

    def __init__(self, net: Any, *, postprocess: bool = True, gradients: bool = False) -> None:
        """Arguments as for `Sam2Core`. Raises InputError where windows do not divide the network's square."""
        self.windows = count_windows(net)
        super().__init__(net, postprocess=postprocess, gradients=gradients)
        merge_batch_norms(net.vision_encoder.backbone)
        with torch.no_grad():
            self._cell_positions = super().encode_token_positions()

    def build_attention(self) -> MemoryAttention:
        """The network's memory attention over latents."""
        return LatentAttention(self.net.memory_attention, self.net.spatial_perceiver.num_latents_1d)

    def encode_token_positions(self) -> Float[Tensor, "l d"]:
        """Where in its frame each latent is: those that look at all of it are nowhere."""
        perceiver, shape = self.net.spatial_perceiver, (1, self.net.mem_dim, self.windows, self.windows)
        around: Tensor = perceiver.positional_encoding(shape, self.device, self.dtype)
        return torch.cat([torch.zeros_like(perceiver.latents_1d), around[0].flatten(1).T])

    def encode_memories(self, features: Sam2Features, answer: Prediction, binary: bool) -> BFloat16[Tensor, "b l d"]:
        """The 2D spatial perceiver: SAM 2's spatial memories (arguments as there), summed up in latents of the whole
        frame, then one for each window.
        """
        tokens = self.encode_frame_memories(features, answer, binary)
        perceiver, b = self.net.spatial_perceiver, len(tokens)
        windows, positions = split_windows(tokens, self.windows), self._cell_positions.expand(b, -1, -1)
        whole, parts = perceiver.latents_1d.expand(b, -1, -1), perceiver.latents_2d.repeat(b, 1)[:, None]
        for layer in perceiver.layers:
            whole, parts = layer(whole, tokens, positions), layer(parts, windows)
        latents: Tensor = perceiver.layer_norm(torch.cat([whole, parts.view(b, -1, parts.shape[2])], dim=1))
        return latents.to(torch.bfloat16)


class EdgeTam(Sam2):
    """EdgeTAM as a propagator: SAM 2's, over a core and a network of its own."""

    name = "edgetam"
    core_type = EdgeTamCore


def count_windows(net: Any) -> int:
    """Windows in a row of those that the network's perceiver looks at. Raises InputError where they do not divide its
    square.
    """
    windows: int = round(net.spatial_perceiver.num_latents_2d**0.5)
    if net.image_size % (STRIDE * windows):
        raise InputError(
            f"EdgeTAM cannot see squares of {net.image_size} pixels: its memory divides them into "
            f"{windows} x {windows} windows; use a multiple of {STRIDE * windows}"
        )
    return windows


def split_windows(tokens: Float[Tensor, "b p d"], count: int) -> Float[Tensor, "bn s d"]:
    """A square's tokens in `count` x `count` square windows, row by row."""
    side = round(tokens.shape[1] ** 0.5) // count
    grid = tokens.reshape(len(tokens), count, side, count, side, -1)
    return grid.transpose(2, 3).flatten(3, 4).flatten(0, 2)
