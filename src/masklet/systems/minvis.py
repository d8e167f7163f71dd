"""MinVIS (Huang et al. 2022): the slots of consecutive frames are matched by the cosine of their queries; that is all.

The baseline that query systems compare with: no video is needed to train it, nothing but the last frame remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.alignment import TrackedSlots, match_slots
from masklet.core.protocols import SlotSegmenter
from masklet.core.slots import FrameSlots
from masklet.systems.query import answers as slot_answers
from masklet.systems.query.loop import OnlineSystem


@dataclass(frozen=True)
class MinvisSettings(slot_answers.SlotSettings):
    """As released: ten pairs of slot and category a video, whatever the data set."""

    top: int = 10


@dataclass(frozen=True)
class LastFrameMemory:
    """The memory: the queries of the last frame, in the tracks' order."""

    queries: Float[Tensor, "n c"]


class QueryMatching:
    """The tracker: each track goes on in the slot that the assignment of least total (1 - cosine) gives it."""

    def follow(self, memory: LastFrameMemory | None, slots: FrameSlots) -> tuple[TrackedSlots, LastFrameMemory]:
        """One frame (t = 1). The first frame's slots are the tracks."""
        queries = slots.queries[0]
        order = match_slots(memory.queries if memory else queries, queries)
        tracked = TrackedSlots(queries, slots.class_logits[0], torch.arange(len(queries), device=order.device))
        tracked = TrackedSlots(queries[order], slots.class_logits[0, order], order) if memory else tracked
        return tracked, LastFrameMemory(tracked.queries)

    def dense(self, slots: FrameSlots) -> Float[Tensor, "t n h w"]:
        """The segmenter's own mask logits."""
        return slots.mask_logits

    def masks(self, tracked: TrackedSlots, dense: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Those of the slots that the tracks continue."""
        return dense[tracked.order.to(dense.device)]


def build_minvis_system(
    segmenter: SlotSegmenter, settings: MinvisSettings = MinvisSettings()
) -> OnlineSystem[LastFrameMemory]:
    """MinVIS: the slots of `segmenter`, matched frame by frame; `settings` say what is answered."""
    return OnlineSystem("minvis", segmenter, QueryMatching(), settings)
