"""Bystanders: things beside prompted objects, which nobody asked for. They are tracked along and left out of the
result, so that their pixels are contended for: an object that is tracked alone swallows what passes close to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.protocols import RegionSegmenter, Segmenter
from masklet.systems.common import find_detections

Mask = Bool[Tensor, "h w"]


@dataclass(frozen=True)
class BystanderFinder:
    """Finds bystanders in a frame in which objects are prompted."""

    segmenter: Segmenter[Any]  # one without a memory
    chance: float = 0.3  # score above which a detection counts
    reach: float = 1.0  # how far from an object they matter, in sides of the square of the smallest object's area
    overlap: float = 0.3  # share of a detection above which it is a part of what is known
    least: int = 64  # pixels
    most: int = 4  # of a frame

    def find(self, frame: Frame, asked: Bool[Tensor, "n h w"], known: Mask) -> list[Mask]:
        """Masks of what is in `frame` near the masks that are `asked` for and in nothing that is `known`, at most
        `most`, in the segmenter's order.
        """
        asked = asked[asked.flatten(1).any(1)]
        if not len(asked):
            return []
        reach = self.reach * float(asked.flatten(1).sum(1).min()) ** 0.5
        near = measure_distance(asked.any(0)) <= reach
        found = self._look(frame, near)
        kept: list[Mask] = []
        for mask in found.masks[found.scores >= self.chance]:
            rest = mask & ~known
            if rest.sum() >= max(self.least, (1 - self.overlap) * float(mask.sum())) and (rest & near).any():
                kept.append(rest)
                known = known | rest
        return kept[: self.most]

    def _look(self, frame: Frame, near: Mask) -> Detections:
        """What is found in a `frame`, and at least all of it that is `near`."""
        if isinstance(self.segmenter, RegionSegmenter):
            return self.segmenter.segment_region(frame, near, self.chance)
        return find_detections(self.segmenter, self.segmenter.empty(), frame, (), self.chance)[0]

    def tell_asked(self, bystanders: Bool[Tensor, "n h w"], asked: Bool[Tensor, "m h w"]) -> Bool[Tensor, " n"]:
        """Which bystanders somebody asks for by now."""
        inside = (bystanders & asked.any(0)).flatten(1).sum(1)
        return inside > self.overlap * bystanders.flatten(1).sum(1)


def is_bystander(id: int) -> bool:
    """Bystanders have ids below 0, what is asked for has ids from 1."""
    return id < 0


def count_asked(ids: Iterable[int]) -> int:
    """How many objects there are but for bystanders."""
    return sum(not is_bystander(id) for id in ids)


def measure_distance(mask: Mask) -> Tensor:
    """Each pixel's distance from a mask."""
    return torch.from_numpy(cv2.distanceTransform((~mask).numpy().astype(np.uint8), cv2.DIST_L2, 3))
