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
from masklet.models.sam2.propagator import Sam2, Sam2Features
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
        windows = compute_rotary_encodings(SimpleNamespace(rotary_emb=net.rotary_emb, position_ids=net.position_ids_k))
        self.memory_rotations = torch.cat([windows.new_ones(whole, windows.shape[1]), windows])

    def _thinks(self, layer: Any, x: Float[Tensor, "b p c"]) -> Float[Tensor, "b p c"]:
        """As in SAM 2, under another name."""
        out: Tensor = layer.mlp(x)
        return out


class EdgeTam(Sam2):
    """EdgeTAM; `net` is an `EdgeTamVideoModel`, of `build_edgetam`. All else is SAM 2's.

    Of the network's changes one more than SAM 2's: its batch norms are folded, so that it loses the hub's names.
    """

    @property
    def description(self) -> str:
        """Names the propagator and its settings in one line, which is written into a result's provenance."""
        return f"edgetam, {self.side} px, {self.policy}"

    def _attention(self) -> MemoryAttention:
        return LatentAttention(self.net.memory_attention, self.net.spatial_perceiver.num_latents_1d)

    def _constants(self) -> None:
        super()._constants()
        net, perceiver = self.net, self.net.spatial_perceiver
        self._windows = round(perceiver.num_latents_2d**0.5)  # in a row
        if self.side % (STRIDE * self._windows):
            raise InputError(
                f"EdgeTAM cannot see squares of {self.side} pixels: its memory divides them into "
                f"{self._windows} x {self._windows} windows; use a multiple of {STRIDE * self._windows}"
            )
        grid = net.backbone_feature_sizes[-1]
        merge_batch_norms(net.vision_encoder.backbone)
        self._spatial = self._tokens(net.memory_encoder.position_encoding((1, net.mem_dim, *grid), *self._at()))
        around = perceiver.positional_encoding((1, net.mem_dim, self._windows, self._windows), *self._at())
        self._spatial_positions = torch.cat([torch.zeros_like(perceiver.latents_1d), self._tokens(around)[0]])
        self.renew()

    def _at(self) -> tuple[torch.device, torch.dtype]:
        return self.device, self.dtype

    @staticmethod
    def _tokens(grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "b p d"]:
        return grid.flatten(2).transpose(1, 2)

    def _remembered(self, features: Sam2Features, answer: Prediction, binary: bool) -> BFloat16[Tensor, "b l d"]:
        """The 2D spatial perceiver: memories summed up in latents of the whole frame, then one for each window."""
        tokens = self._memorised(features, answer, binary)
        perceiver, b = self.net.spatial_perceiver, len(tokens)
        windows = split_windows(tokens, self._windows)
        whole, parts = perceiver.latents_1d.expand(b, -1, -1), perceiver.latents_2d.repeat(b, 1)[:, None]
        for layer in perceiver.layers:
            whole, parts = layer(whole, tokens, self._spatial.expand(b, -1, -1)), layer(parts, windows)
        latents: Tensor = perceiver.layer_norm(torch.cat([whole, parts.view(b, -1, parts.shape[2])], dim=1))
        return latents.to(torch.bfloat16)


def split_windows(tokens: Float[Tensor, "b p d"], count: int) -> Float[Tensor, "bn s d"]:
    """A square's tokens in `count` x `count` square windows, row by row."""
    side = round(tokens.shape[1] ** 0.5) // count
    grid = tokens.reshape(len(tokens), count, side, count, side, -1)
    return grid.transpose(2, 3).flatten(3, 4).flatten(0, 2)
