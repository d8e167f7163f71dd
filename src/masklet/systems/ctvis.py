"""A memory bank for the slots of any query segmenter, after CTVIS (Ying et al. 2023, "CTVIS: Consistent Training for
Online Video Instance Segmentation"), as it runs: nothing is trained for it here.

MinVIS compares a frame with the last one, so a track whose object is hidden goes on as what happens to be left over.
Here every track has the average of its embedding over time, which stays as it is while the object is away; a new
embedding moves it the more, the more it is like the last ones (similarity-aware momentum); and pairs are scored by how
well each is the other's best (bi-directional softmax).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.alignment import TrackedSlots, compute_cosine_distances
from masklet.core.errors import InputError
from masklet.core.matching import solve_assignment
from masklet.core.protocols import SlotSegmenter
from masklet.core.slots import FrameSlots
from masklet.systems.minvis import MinvisSettings, QueryMatching
from masklet.systems.query.loop import OnlineSystem

SHARPNESS = 10.0  # of the softmax over cosines; the paper's embeddings are not normed, and need none


@dataclass(frozen=True)
class CtvisSettings(MinvisSettings):
    """As MinVIS answers, with a memory bank for the matching."""

    remembered: int = 5  # last embeddings of a track that a new one is compared with
    present: float = 0.5  # a slot that is an object by less than this leaves its track's memory as it is

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remembered < 1:
            raise InputError(f"remembered = {self.remembered}: it counts embeddings, from 1 on")
        if not 0 <= self.present <= 1:
            raise InputError(f"present = {self.present:g}: it is a probability, 0 to 1")


@dataclass(frozen=True)
class EmbeddingBank:
    """The memory: a value of one size."""

    average: Float[Tensor, "n c"]  # of each track
    last: Float[Tensor, "t n c"]  # its last embeddings, up to `remembered`


class BankMatching(QueryMatching):
    """The tracker: each track goes on in the slot that fits its average best, all together."""

    def __init__(self, remembered: int = 5, present: float = 0.5) -> None:
        """`remembered` and `present` are as in `CtvisSettings`."""
        self.remembered, self.present = remembered, present

    def follow(self, memory: EmbeddingBank | None, slots: FrameSlots) -> tuple[TrackedSlots, EmbeddingBank]:  # type: ignore[override]  # another memory
        """One frame (t = 1). The first frame's slots are the tracks."""
        queries, logits = slots.queries[0], slots.class_logits[0]
        if memory is None:
            order = torch.arange(len(queries), device=queries.device)
            return TrackedSlots(queries, logits, order), EmbeddingBank(queries, queries[None])
        likely = score_both_ways(memory.average, queries)
        _, cols = solve_assignment(-likely.detach().cpu().numpy())
        order = torch.from_numpy(cols).to(queries.device)
        tracked = TrackedSlots(queries[order], logits[order], order)
        there = 1 - tracked.class_logits.softmax(1)[:, -1] >= self.present
        return tracked, update_bank(memory, tracked.queries, there, self.remembered)


def score_both_ways(tracks: Float[Tensor, "n c"], slots: Float[Tensor, "m c"]) -> Float[Tensor, "n m"]:
    """How likely each pair is, seen from the track and from the slot (bi-directional softmax), 0 to 1.

    >>> score_both_ways(torch.eye(2), torch.eye(2)).round(decimals=3)
    tensor([[1., 0.],
            [0., 1.]])
    """
    alike = SHARPNESS * (1 - compute_cosine_distances(tracks, slots))
    return (alike.softmax(0) + alike.softmax(1)) / 2


def update_bank(
    memory: EmbeddingBank, now: Float[Tensor, "n c"], there: Bool[Tensor, " n"], remembered: int
) -> EmbeddingBank:
    """The `memory` with the embeddings of one more frame, `now`, of the tracks that are `there`.

    The average moves by the mean cosine with the last ones, and not at all where that is negative. Of a track's last
    embeddings `remembered` stay.
    """
    share = nnf.cosine_similarity(memory.last, now[None], dim=2).mean(0).clamp(min=0)
    share = torch.where(there, share, 0)[:, None]
    newest = torch.where(there[:, None], now, memory.last[-1])
    return EmbeddingBank(
        (1 - share) * memory.average + share * now, torch.cat([memory.last, newest[None]])[-remembered:]
    )


def build_ctvis_system(
    segmenter: SlotSegmenter, settings: CtvisSettings = CtvisSettings()
) -> OnlineSystem[EmbeddingBank]:
    """The slots of `segmenter`, matched with a memory bank; `settings` say how, and what is answered."""
    return OnlineSystem("ctvis", segmenter, BankMatching(settings.remembered, settings.present), settings)
