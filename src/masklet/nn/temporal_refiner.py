"""DVIS's temporal refiner (Zhang et al. 2023, 3.3): looks at each track over a whole clip and names it once.

Every layer: attention over time of each object, a short convolution over time, attention among the objects of each
frame, cross-attention to what the tracker makes of that frame alone, feed-forward. Parameters have the released
weights' names and shapes; their order is that of the program (the paper's figure has the convolution first).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.core.alignment import TrackedSlots
from masklet.nn.query_layers import (
    CrossAttention,
    FeedForward,
    Mlp,
    SelfAttention,
    apply_in_place,
    infer_dvis_settings,
    initialize_xavier,
    load_dvis_weights,
)

FRAMES, OBJECTS = 32, 8  # treated at once by what is per frame, and by what is per object


@dataclass(frozen=True)
class RefinerSettings:
    """What a refiner is built of."""

    classes: int
    width: int = 256
    heads: int = 8
    hidden: int = 2048  # of the feed-forward layers
    layers: int = 6
    mask_width: int = 256  # channels of the segmenter's pixel features
    removed: Literal["", "long", "short", "context"] = ""  # what a block does without (Table 8)


def build_temporal_aggregation(width: int) -> nn.Sequential:
    """The short-term aggregation over time: two convolutions, which repeat the first and the last frame."""
    padded = {"padding": "same", "padding_mode": "replicate"}
    return nn.Sequential(
        nn.Conv1d(width, width, 5, **padded),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Conv1d(width, width, 3, **padded),  # type: ignore[arg-type]
    )


class TemporalRefiner(nn.Module):
    """The network."""

    def __init__(self, settings: RefinerSettings) -> None:
        super().__init__()
        at = self.settings = settings
        times = range(at.layers)
        self.transformer_obj_self_attention_layers = nn.ModuleList(SelfAttention(at.width, at.heads) for _ in times)
        self.transformer_time_self_attention_layers = nn.ModuleList(SelfAttention(at.width, at.heads) for _ in times)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttention(at.width, at.heads) for _ in times)
        self.transformer_ffn_layers = nn.ModuleList(FeedForward(at.width, at.hidden) for _ in times)
        self.conv_short_aggregate_layers = nn.ModuleList(build_temporal_aggregation(at.width) for _ in times)
        initialize_xavier(self)
        self.conv_norms = nn.ModuleList(nn.LayerNorm(at.width) for _ in times)
        self.decoder_norm = nn.LayerNorm(at.width)
        self.class_embed = nn.Linear(at.width, at.classes + 1)
        self.mask_embed = Mlp(at.width, at.mask_width)
        self.activation_proj = nn.Linear(at.width, 1)

    def forward(
        self, tracks: Float[Tensor, "t n c"], context: Float[Tensor, "t n c"]
    ) -> Iterator[Float[Tensor, "t n c"]]:
        """Each layer's output, normed, for training.

        `tracks` are the tracker's normed outputs of a clip, `context` is its `alone` of the same frames.
        """
        x = tracks
        for layer in range(self.settings.layers):
            x = self.refine_in_frames(layer, self.refine_over_time(layer, x.transpose(0, 1)).transpose(0, 1), context)
            yield self.decoder_norm(x)

    def refine_over_time(self, n: int, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        """What layer `n` does to each object by itself: long-term attention, then short-term convolution."""
        if self.settings.removed != "long":
            x = self.transformer_time_self_attention_layers[n](x)
        if self.settings.removed == "short":
            return x
        nearby = self.conv_short_aggregate_layers[n](x.transpose(1, 2)).transpose(1, 2)
        normed: Tensor = self.conv_norms[n](x + nearby)
        return normed

    def refine_in_frames(
        self, n: int, x: Float[Tensor, "t n c"], context: Float[Tensor, "t n c"]
    ) -> Float[Tensor, "t n c"]:
        """What layer `n` does to each frame by itself: attention among objects and to the context, feed-forward."""
        x = self.transformer_obj_self_attention_layers[n](x)
        if self.settings.removed != "context":
            x = self.transformer_cross_attention_layers[n](x, context)
        out: Tensor = self.transformer_ffn_layers[n](x)
        return out

    def weights(self, normed: Float[Tensor, "t n c"]) -> Float[Tensor, "t n"]:
        """How much each frame says of what an object is; sums to 1 over time."""
        activation: Tensor = self.activation_proj(normed)
        return activation[..., 0].softmax(0)

    def classify(self, normed: Float[Tensor, "t n c"]) -> Float[Tensor, "n k1"]:
        """Class logits of each object over the whole clip, the last class being no object."""
        logits: Tensor = self.class_embed(torch.einsum("tn,tnc->nc", self.weights(normed), normed))
        return logits

    def predict_masks(
        self, normed: Float[Tensor, "n c"], pixel_features: Float[Tensor, "d h w"]
    ) -> Float[Tensor, "n h w"]:
        """Mask logits of one frame's normed outputs."""
        return torch.einsum("nd,dhw->nhw", self.mask_embed(normed), pixel_features)

    @torch.no_grad()
    def refine(
        self, tracks: Float[Tensor, "t n c"], context: Float[Tensor, "t n c"]
    ) -> tuple[Float[Tensor, "t n c"], Float[Tensor, "n k1"]]:
        """The last layer's output of a clip, normed, and its class logits, on the device of the weights."""
        on = self.class_embed.weight.device
        x, context = tracks.to(on, copy=True), context.to(on)
        for n in range(self.settings.layers):
            apply_in_place(partial(self.refine_over_time, n), x.transpose(0, 1), size=OBJECTS)
            apply_in_place(partial(self.refine_in_frames, n), x, context, size=FRAMES)
        apply_in_place(self.decoder_norm, x, size=FRAMES)
        return x, self.classify(x)

    @torch.no_grad()
    def masks(self, tracked: TrackedSlots, dense: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of tracks in one frame, of which `dense` are the pixel features."""
        on = self.class_embed.weight.device
        return self.predict_masks(tracked.queries.to(on), dense.to(on))


def build_released_refiner(state: Mapping[str, Tensor], heads: int = 8) -> TemporalRefiner:
    """The refiner of an official offline checkpoint.

    Args:
        state: its weights, by their names within the refiner; empty in a checkpoint that is for online use only.
        heads: of attention, which weights do not tell.

    Raises InputError where they are not a refiner's.
    """
    settings = RefinerSettings(**infer_dvis_settings(state, "refiner"), heads=heads)
    return load_dvis_weights(TemporalRefiner(settings), state, "refiner")
