"""Which slot of a frame continues which track: the assignment of least total (1 - cosine) between their queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int64
from torch import Tensor

from masklet.core.matching import solve_assignment
from masklet.core.slots import FrameSlots


@dataclass(frozen=True)
class TrackedSlots:
    """One frame's slots in the order of the tracks: slot n is the same object in every frame."""

    queries: Float[Tensor, "n c"]
    class_logits: Float[Tensor, "n k1"]  # of k classes, then of no object
    order: Int64[Tensor, " n"]  # the segmenter's slot that each one continues

    def __getitem__(self, rows: Sequence[int]) -> TrackedSlots:
        """Some of the tracks."""
        at = list(rows)
        return TrackedSlots(self.queries[at], self.class_logits[at], self.order[at])


Aligner = Callable[[Tensor, Tensor], Tensor]


def compute_cosine_distances(before: Float[Tensor, "n c"], now: Float[Tensor, "m c"]) -> Float[Tensor, "n m"]:
    """1 - cosine of every pair; 1 where a vector is zero, which MinVIS's program cannot match at all."""
    return 1 - nnf.normalize(before, eps=1e-6) @ nnf.normalize(now, eps=1e-6).T


def match_slots(before: Float[Tensor, "n c"], now: Float[Tensor, "n c"]) -> Int64[Tensor, " n"]:
    """For each track the slot of the frame that continues it (MinVIS, and DVIS's paper): `now[aligned(before, now)]`
    lines up with `before`.

    >>> match_slots(torch.eye(3), torch.eye(3)[[2, 0, 1]])
    tensor([1, 2, 0])
    """
    _, cols = solve_assignment(compute_cosine_distances(before, now).detach().float().cpu().numpy())
    return torch.from_numpy(cols).to(now.device)


def match_slots_as_released(before: Float[Tensor, "n c"], now: Float[Tensor, "n c"]) -> Int64[Tensor, " n"]:
    """The inverse permutation, with which DVIS's released weights were trained and have to be run: for each slot the
    track that it continues. It lines up with `before` only where objects swap in pairs or stay.

    >>> match_slots_as_released(torch.eye(3), torch.eye(3)[[2, 0, 1]])
    tensor([2, 0, 1])
    """
    _, cols = solve_assignment(compute_cosine_distances(before, now).detach().float().cpu().numpy().T)
    return torch.from_numpy(cols).to(now.device)


def select_frame_slots(slots: FrameSlots, t: int) -> FrameSlots:
    """One frame of a window (t = 1)."""
    one = slice(t, t + 1)
    return FrameSlots(
        slots.queries[one], slots.class_logits[one], slots.pixel_features[one], slots.mask_logits[one], slots.inside
    )
