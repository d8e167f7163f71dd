"""Segmenter `auto`: named things, moving or not, and what moves and has no name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from masklet.core.ahead import start_beside
from masklet.core.frames import Frame
from masklet.core.instances import NAMELESS, Detections
from masklet.core.masks import mask_iou
from masklet.core.part_facts import collect_part_weights, describe_part, find_device
from masklet.core.protocols import ScoringSegmenter, SelectiveSegmenter

N = TypeVar("N")
U = TypeVar("U")

LIKELY = 0.5  # chance above which a named mask holds its pixels: it is more likely right than not
COVERED = 0.5  # share of a nameless mask that named ones hold, from which it is theirs
SAME = 0.5  # mask IoU above which a nameless mask is the same thing as a named one, and has its name


@dataclass(frozen=True)
class AutoMemory(Generic[N, U]):
    """What both remember."""

    named: N
    nameless: U


class AutoSegmenter(Generic[N, U]):
    """Two segmenters as one: what the second finds counts where the first finds nothing."""

    advice: ClassVar[Mapping[str, float]] = {
        "max_lost": 30,  # frames: of many found objects, those of earlier scenes would be looked for in every frame
        "confirm": 3,  # frames: of a crowd, much is found in one frame and not in the next
        "twin_join": 0.5,  # and in a crowd much is lost and found again
    }

    def __init__(self, named: ScoringSegmenter[N], nameless: ScoringSegmenter[U]) -> None:
        """
        Args:
            named: finds things by name.
            nameless: finds things of any kind, such as `motion`.
        """
        self.named, self.nameless = named, nameless
        self.categories = (*named.categories, NAMELESS)
        self.look_ahead = max(named.look_ahead, nameless.look_ahead)
        self.conf, self.low_conf = named.conf, named.low_conf
        self.weights: Mapping[str, str] = {**collect_part_weights(named), **collect_part_weights(nameless)}
        self.device = find_device(named)
        self.description = f"auto: {describe_part(named)}; {describe_part(nameless)}"

    def empty(self) -> AutoMemory[N, U]:
        """What both know before the first frame."""
        return AutoMemory(self.named.empty(), self.nameless.empty())

    def segment(
        self, memory: AutoMemory[N, U], frames: Sequence[Frame], future: Sequence[Frame]
    ) -> tuple[list[Detections], AutoMemory[N, U]]:
        """Named things first, then what is left of the nameless ones; each of them the likeliest first.

        Both segmenters are asked about `frames`, with their own part of `memory` and as much of `future` as they look
        ahead. Gives one `Detections` a frame, and the memory after them.
        """
        return self.segment_above(memory, frames, future, -math.inf)

    def segment_above(
        self, memory: AutoMemory[N, U], frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], AutoMemory[N, U]]:
        """As `segment`; named things are drawn that score `least`, or hold their pixels. Both look at a time where a
        core is idle.
        """
        beside = future[: self.nameless.look_ahead]
        find_nameless = start_beside(lambda: self.nameless.segment(memory.nameless, frames, beside))
        ahead = future[: self.named.look_ahead]
        if isinstance(self.named, SelectiveSegmenter):
            first, named = self.named.segment_above(memory.named, frames, ahead, min(least, LIKELY))
        else:
            first, named = self.named.segment(memory.named, frames, ahead)
        second, nameless = find_nameless()
        found = [self.join(*both) for both in zip(first, second, strict=True)]
        return found, AutoMemory(named, nameless)

    def join(self, named: Detections, nameless: Detections) -> Detections:
        """One frame's detections: of the nameless ones those that are sure and no named one's thing, where likely named
        ones hold little of them.
        """
        nameless = nameless[nameless.scores > self.nameless.conf]
        held = named.masks[named.scores > LIKELY].any(0)
        share = (nameless.masks & held).flatten(1).sum(1) / nameless.masks.flatten(1).sum(1).clamp(min=1)
        same = (mask_iou(nameless.masks, named.masks[named.scores > self.named.conf]) > SAME).any(1)
        rest = nameless[(share < COVERED) & ~same]
        masks = torch.cat([named.masks, rest.masks & ~held])
        labels = torch.cat([named.labels, torch.full_like(rest.labels, len(self.categories) - 1)])
        return Detections(masks, torch.cat([named.scores, rest.scores]), labels, named.left_out)
