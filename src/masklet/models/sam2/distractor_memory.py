"""DAM4SAM's memory for SAM 2 (Videnovic et al. 2025, arXiv:2411.17576): what looks alike is remembered on purpose.

Half of what is read is recent looks, taken now and then while the object is in sight; the other half, without an
encoding of time, is the prompts and the frames in which the network's hypotheses told of something that looks alike
while the answer was reliable. Over SAM 2, EdgeTAM and nano; nothing is trained. Open points: docs/sam2.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.part_request import PartRequest, parse_part_name
from masklet.core.protocols import Propagator
from masklet.models.sam2.memory import (
    POINTERS,
    MemoryBank,
    MemoryEntry,
    MemoryReading,
    RecentFrames,
    drop_old_spatial_entries,
)


@dataclass(frozen=True)
class DistractorAwareFrames:
    """The prompts and the last anchors as conditioning frames, the latest samples as recent ones."""

    samples: int = 3  # recent looks that are read, the last frame among them
    anchors: int = 2  # frames with a distractor that are read besides the prompts
    every: int = 5  # frames from one sample to the next, and from one anchor to the next
    distractor: float = 0.7  # share of the joint box that the mask's own box is, below which there is a distractor
    quality: float = 0.8  # predicted mask IoU above which an answer is reliable
    steady: float = 0.2  # by how much its area may differ from the median
    remembered: int = 10  # frames whose areas count for the median

    def mark(self, bank: MemoryBank, entry: MemoryEntry, hypotheses: Float[Tensor, "k h w"]) -> MemoryEntry:
        """The `entry` to come in the `bank`, with what it will be read as; `hypotheses` are mask logits of its frame,
        the chosen one first.
        """
        masks = (hypotheses > 0).cpu().numpy()
        area = int(masks[0].sum())
        if entry.presence <= 0 or not area:
            return entry
        last = max((e.time for e in bank.recent if e.is_sample), default=entry.time - self.every)
        marked = replace(entry, area=area, is_sample=entry.time - last >= self.every)
        is_anchor = self.is_reliable(bank, marked) and measure_box_share(masks) < self.distractor
        return replace(marked, is_anchor=is_anchor)

    def is_reliable(self, bank: MemoryBank, entry: MemoryEntry) -> bool:
        """Whether an answer is sure, as large as those before it, and not too soon after the last anchor or prompt."""
        anchors = [e.time for e in (*bank.prompted, *bank.recent) if e.is_anchor or e in bank.prompted]
        lately = [e.area for e in bank.recent if entry.time - e.time < POINTERS]
        areas = [area for area in lately if area][-self.remembered :]
        usual = median(areas) if areas else entry.area
        soon = bool(anchors) and entry.time - max(anchors) < self.every
        return entry.quality > self.quality and abs(entry.area - usual) <= self.steady * usual and not soon

    def read(self, bank: MemoryBank) -> MemoryReading:
        """Anchors count as conditioning frames, samples by their rank; pointers are SAM 2's."""
        plain = RecentFrames().read(bank)
        anchors = self.select_anchors(bank, self.anchors)
        recent = [e for e in self.select_samples(bank, self.samples) if e not in anchors]
        frames = [*bank.prompted, *anchors, *recent]
        ranks = [0] * (len(frames) - len(recent)) + list(range(len(recent), 0, -1))
        return MemoryReading(frames, ranks, plain.pointers, plain.distances)

    def keep(self, bank: MemoryBank) -> MemoryBank:
        """One more of each than is read: a prompt may ask for the frame just seen again."""
        seen = [e for e in bank.recent if e.area]
        read = [*self.select_anchors(bank, self.anchors + 1), *self.select_samples(bank, self.samples + 1), *seen[-2:]]
        recent = [e for e in bank.recent if e in read or bank.now - e.time <= POINTERS]
        return replace(bank, recent=drop_old_spatial_entries(recent, lambda e: e not in read))

    def select_anchors(self, bank: MemoryBank, most: int) -> Sequence[MemoryEntry]:
        """The last `most` anchors, oldest first."""
        return [e for e in bank.recent if e.is_anchor][-most:]

    def select_samples(self, bank: MemoryBank, most: int) -> Sequence[MemoryEntry]:
        """The last `most` samples, oldest first; the last frame in which the object was seen is one."""
        seen = [e for e in bank.recent if e.area]
        return [e for e in seen if e.is_sample or e is seen[-1]][-most:]


def measure_box_share(masks: Bool[np.ndarray, "k h w"]) -> float:
    """How much of the box that holds the first mask and the largest part of another one is the first's own: least over
    the others, 0 to 1; 1 where there are none. The first is not empty.

    >>> masks = np.zeros((2, 4, 8), bool)
    >>> masks[0, :, :2] = masks[1, :, 6:] = True
    >>> measure_box_share(masks)
    0.25
    """
    own = find_box(masks[0])
    others = [find_box(keep_largest_part(m)) for m in masks[1:] if m.any()]
    joint = [(*map(min, own[:2], o[:2]), *map(max, own[2:], o[2:])) for o in others]
    return min((measure_box(own) / measure_box(box) for box in joint), default=1.0)


def find_box(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask that is not empty, x1 and y1 one past the last."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def measure_box(box: Sequence[int]) -> int:
    """The area of a box, in pixels."""
    return int((box[2] - box[0]) * (box[3] - box[1]))


def keep_largest_part(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest connected part of a mask."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest: Bool[np.ndarray, "h w"] = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return largest


def load_distractor_aware(request: PartRequest) -> Propagator[Any, Any]:
    """SAM 2, EdgeTAM or nano, with this memory: "dam:NAME". Raises InputError over one that has another memory."""
    policy = DistractorAwareFrames(**request.settings)
    found: Propagator[Any, Any] = request.load_below(parse_part_name(request.name.below), policy)
    if getattr(found, "policy", None) is not policy:
        raise InputError(f"{request.name.text}: {request.name.below} does not remember as SAM 2 does; write dam:nano")
    return found
