"""Boxes of one frame, as a detector gives them: x0, y0, x1, y1 in the frame's pixels, x1 and y1 one past the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """What was found in one frame, before anyone has made masks of it."""

    corners: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]  # 0 to 1
    labels: Int64[Tensor, " n"]  # index of the prompt

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Tensor) -> Boxes:
        """The boxes of some rows, given as indices or as a bool tensor."""
        return Boxes(self.corners[rows], self.scores[rows], self.labels[rows])

    def within(self, size: tuple[int, int]) -> Boxes:
        """Cut at the border of a frame of `size` (h, w); what lies outside is gone."""
        h, w = size
        cut = self.corners.clamp(min=0).minimum(self.corners.new_tensor([w, h, w, h]))
        there = (cut[:, 2:] > cut[:, :2]).all(1)
        return Boxes(cut, self.scores, self.labels)[there]


@runtime_checkable
class BoxDetector(Protocol):
    """Finds boxes of its own categories."""

    categories: tuple[str, ...]
    weights: Mapping[str, str]
    description: str

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        """The boxes of one image (RGB), in its pixels; labels are indices of `categories`."""
        ...


def convert_to_corners(centred: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Boxes given as centre and size (x, y, w, h) by their corners."""
    centre, half = centred[:, :2], centred[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def box_iou(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every pair; 0 where neither has an area."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clamp(min=0).prod(2)
    either = compute_box_areas(a)[:, None] + compute_box_areas(b)[None] - both
    return torch.where(either > 0, both / either, 0.0)


def compute_box_areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Of each box, in pixels."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def box_nms(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], iou: float) -> Int64[Tensor, " k"]:
    """Non-maximum suppression: a box goes when one of higher score that stays overlaps it by more than `iou`.

    `boxes` are x0, y0, x1, y1 in pixels, `scores` any numbers. Gives the rows that stay, in ascending order.
    """
    twins = box_iou(boxes, boxes) > iou
    free = torch.ones(len(boxes), dtype=torch.bool)
    kept: list[int] = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        if free[row]:
            kept.append(row)
            free &= ~twins[row]
    return torch.tensor(sorted(kept), dtype=torch.int64)
