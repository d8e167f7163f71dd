"""DVIS's referring tracker (Zhang et al. 2023, 3.2): takes the queries of each frame to where the tracks were.

Layer by layer, referring cross-attention looks at the frame's queries with the tracks' last outputs, but adds what it
finds to the frame's own, matched queries: association is treated as taking the noise out of a matching. Parameters
have the released weights' names and shapes. Where paper and program differ: docs/dvis.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from masklet.core.alignment import Aligner, TrackedSlots, match_slots, match_slots_as_released
from masklet.core.slots import FrameSlots
from masklet.nn.query_layers import (
    CrossAttention,
    FeedForward,
    Mlp,
    SelfAttention,
    infer_dvis_settings,
    initialize_xavier,
    load_dvis_weights,
)


@dataclass(frozen=True)
class TrackerSettings:
    """What a tracker is built of. The kind of weights decides `matching`: official ones need "released"."""

    classes: int
    width: int = 256
    heads: int = 8
    hidden: int = 2048  # of the feed-forward layers
    layers: int = 6
    mask_width: int = 256  # channels of the segmenter's pixel features
    matching: Literal["paper", "released"] = "paper"  # released: the inverse permutation
    initial: Literal["matched", "unmatched", "previous", "zero"] = "matched"  # what is denoised (Table 6)
    attention: Literal["referring", "standard"] = "referring"  # Table 7


@dataclass(frozen=True)
class TrackerMemory:
    """All that the next frame needs of the frames before it."""

    matched: Float[Tensor, "n c"]  # the segmenter's queries of the last frame, in the tracks' order
    output: Float[Tensor, "n c"]  # the tracker's of the last frame, before the last norm


class ReferringCrossAttention(CrossAttention):
    """DVIS eq. 2: looks with one set of vectors, and adds what it finds to another."""

    def forward(  # type: ignore[override]  # three roles where attention has two
        self, identity: Float[Tensor, "*b n c"], reference: Float[Tensor, "*b n c"], frame: Float[Tensor, "*b m c"]
    ) -> Float[Tensor, "*b n c"]:
        """`identity` is kept, `reference` looks, at `frame`."""
        normed: Tensor = self.norm(identity + self.multihead_attn(reference, frame, frame, need_weights=False)[0])
        return normed


class StandardCrossAttention(ReferringCrossAttention):
    """The ablation of Table 7: what looks is also what is kept, and that are the tracks' last outputs."""

    def forward(  # type: ignore[override]
        self, identity: Float[Tensor, "*b n c"], reference: Float[Tensor, "*b n c"], frame: Float[Tensor, "*b m c"]
    ) -> Float[Tensor, "*b n c"]:
        """`reference` looks at `frame` and is kept; `identity` is not used."""
        return super().forward(reference, reference, frame)


Disturbance = Callable[[Tensor], Tensor]  # of the matched queries (n c) of a frame
ALIGNERS: Mapping[str, Aligner] = {"paper": match_slots, "released": match_slots_as_released}
ATTENTIONS = {"referring": ReferringCrossAttention, "standard": StandardCrossAttention}
INITIALS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "matched": lambda frame, matched, output: matched,
    "unmatched": lambda frame, matched, output: frame,
    "previous": lambda frame, matched, output: output,
    "zero": lambda frame, matched, output: torch.zeros_like(matched),
}


class ReferringTracker(nn.Module):
    """The network; with `follow`, `dense` and `masks` it is a SlotTracker, its memory a TrackerMemory."""

    def __init__(self, settings: TrackerSettings) -> None:
        super().__init__()
        at = self.settings = settings
        self._align, self.initialize = ALIGNERS[at.matching], INITIALS[at.initial]
        times, cross = range(at.layers), ATTENTIONS[at.attention]
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttention(at.width, at.heads) for _ in times)
        self.transformer_cross_attention_layers = nn.ModuleList(cross(at.width, at.heads) for _ in times)
        self.transformer_ffn_layers = nn.ModuleList(FeedForward(at.width, at.hidden) for _ in times)
        initialize_xavier(self)
        self.decoder_norm = nn.LayerNorm(at.width)
        self.class_embed = nn.Linear(at.width, at.classes + 1)
        self.mask_embed = Mlp(at.width, at.mask_width)

    def forward(
        self, queries: Float[Tensor, "t n c"], memory: TrackerMemory | None = None, disturb: Disturbance | None = None
    ) -> tuple[Float[Tensor, "l t n c"], Int64[Tensor, "t n"], TrackerMemory]:
        """The tracks through a clip: each layer's normed output, the slots that they continue, and the memory.

        `disturb` makes matched queries noisy before they are denoised, in training.
        """
        outputs, orders = [], []
        for frame in queries:
            output, order, memory = self.step(memory, frame, disturb)
            outputs.append(output)
            orders.append(order)
        assert memory is not None  # a clip has a frame
        normed: Tensor = self.decoder_norm(torch.stack(outputs, 1))
        return normed, torch.stack(orders), memory

    def step(
        self, memory: TrackerMemory | None, queries: Float[Tensor, "n c"], disturb: Disturbance | None = None
    ) -> tuple[Float[Tensor, "l n c"], Int64[Tensor, " n"], TrackerMemory]:
        """One frame: each layer's output before the norm, the slots that the tracks continue, and the memory. `disturb`
        is as in `forward`; what is remembered is never disturbed.
        """
        if memory is None:
            order, outputs = torch.arange(len(queries), device=queries.device), self.denoise(queries, None, queries)
        else:
            order = self._align(memory.matched, queries)
            matched = queries[order] if disturb is None else disturb(queries[order])
            start = self.initialize(queries, matched, memory.output)
            outputs = self.denoise(start, memory.output, queries)
        return torch.stack(outputs), order, TrackerMemory(queries[order], outputs[-1])

    def alone(self, queries: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Every frame as if it were a video's first, in the segmenter's order: what the refiner looks at."""
        normed: Tensor = self.decoder_norm(self.denoise(queries, None, queries)[-1])
        return normed

    def denoise(
        self,
        x: Float[Tensor, "*b n c"],
        reference: Float[Tensor, "*b n c"] | None,
        frame: Float[Tensor, "*b m c"],
    ) -> list[Float[Tensor, "*b n c"]]:
        """Each layer's output, before the norm.

        Args:
            x: the initial values of the tracks.
            reference: the tracks' last outputs; None where there is no frame before: they are their own reference.
            frame: the queries of the frame, in the segmenter's order.
        """
        outputs = []
        layers = (
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
        )
        for cross, own, feed in zip(*layers, strict=True):
            x = feed(own(cross(x, x if reference is None else reference, frame)))
            outputs.append(x)
        return outputs

    def classify(self, normed: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n k1"]:
        """Class logits of normed outputs, the last class being no object."""
        logits: Tensor = self.class_embed(normed)
        return logits

    def predict_masks(
        self, normed: Float[Tensor, "n c"], pixel_features: Float[Tensor, "d h w"]
    ) -> Float[Tensor, "n h w"]:
        """Mask logits of one frame's normed outputs."""
        return torch.einsum("nd,dhw->nhw", self.mask_embed(normed), pixel_features)

    @torch.no_grad()
    def follow(self, memory: TrackerMemory | None, slots: FrameSlots) -> tuple[TrackedSlots, TrackerMemory]:
        """One frame of a video (t = 1)."""
        outputs, order, memory = self.step(memory, slots.queries[0])
        normed = self.decoder_norm(outputs[-1])
        return TrackedSlots(normed, self.classify(normed), order), memory

    @torch.no_grad()
    def context(self, slots: FrameSlots) -> Float[Tensor, "t n c"]:
        """What the refiner looks at in each frame."""
        return self.alone(slots.queries)

    def dense(self, slots: FrameSlots) -> Float[Tensor, "t d h w"]:
        """The pixel features of the frames, which `masks` needs."""
        return slots.pixel_features

    @torch.no_grad()
    def masks(self, tracked: TrackedSlots, dense: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of tracks in one frame."""
        on = self.class_embed.weight.device
        return self.predict_masks(tracked.queries.to(on), dense.to(on))


def build_released_tracker(state: Mapping[str, Tensor], heads: int = 8) -> ReferringTracker:
    """The tracker of an official checkpoint, with the matching that its weights were trained with.

    Args:
        state: its weights, by their names within the tracker.
        heads: of attention, which weights do not tell.

    Raises InputError where they are not a tracker's.
    """
    settings = TrackerSettings(heads=heads, matching="released", **infer_dvis_settings(state, "tracker"))
    return load_dvis_weights(ReferringTracker(settings), state, "tracker")
