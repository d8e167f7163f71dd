"""SAMURAI's memory for SAM 2 (Yang et al. 2024, arXiv:2411.11922): what fits how the object moves.

A Kalman filter follows the box of each object. Of the hypotheses of a frame the one counts more that lies where the
filter expects it, and only frames in which the answer was sure, the object in sight and its place likely are
remembered. Over SAM 2, EdgeTAM and SAM 3; nothing is trained. Written from the paper's equations; open points:
docs/sam2.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.part_request import PartRequest, parse_part_name
from masklet.core.protocols import Propagator
from masklet.models.boxes import box_iou
from masklet.models.sam2.memory import (
    SPATIAL,
    BoxMotion,
    MemoryBank,
    MemoryEntry,
    MemoryReading,
    ReliableFrames,
)
from masklet.models.sam2.propagator import Sam2

STEADY = 1 / 20  # standard deviation of a place from one frame to the next, in heights of the box, as in DeepSORT
CHANGE = 1 / 160  # likewise of a velocity


@dataclass(frozen=True)
class MotionAwareFrames(ReliableFrames):
    """SAMURAI: the latest frames that were sure and fit the motion, by rank; the last frame always."""

    quality: float = 0.5  # predicted mask IoU above which a frame is remembered
    motion: float = 0.15  # how much the motion counts where a hypothesis is chosen, 0 to 1
    settled: int = 15  # frames in a row in which the object was surely seen, before the motion counts

    def read(self, bank: MemoryBank) -> MemoryReading:
        """The prompts, and what is remembered by rank; no keys are weighed."""
        valid = self.valid(bank)
        nearest, followers = valid[-SPATIAL:], valid[::-1][: self.pointers - 1]
        distances = [float(bank.now - e.time) for e in bank.prompted] + [n + 1.0 for n in range(len(followers))]
        return MemoryReading(
            [*bank.prompted, *nearest],
            [0] * len(bank.prompted) + list(range(len(nearest), 0, -1)),
            [*bank.prompted, *followers],
            [d / (self.pointers - 1) for d in distances],
        )

    def weigh(
        self, bank: MemoryBank, hypotheses: Float[Tensor, "k h w"], quality: Float[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """The `quality` of each of some `hypotheses`, mask logits, with how well it fits the motion."""
        last = find_motion(bank)
        if last is None or last.seen < self.settled:
            return quality
        return (1 - self.motion) * quality + self.motion * self.score(last, hypotheses > 0)

    def score(self, last: BoxMotion, masks: Bool[Tensor, "k h w"]) -> Float[Tensor, " k"]:
        """Box IoU of each mask with where the filter expects the object; 0 of an empty one."""
        expected = convert_to_box(predict_motion(last).mean[:4])[None]
        boxes = [find_mask_corners(mask) for mask in masks]
        scores = [0.0 if box is None else float(box_iou(expected, box[None])) for box in boxes]
        return torch.tensor(scores)

    def mark(self, bank: MemoryBank, entry: MemoryEntry, hypotheses: Float[Tensor, "k h w"]) -> MemoryEntry:
        """The `entry` to come in the `bank` with its motion, and with its mask's own quality, where the motion counted;
        `hypotheses` are mask logits of its frame, the chosen one first.
        """
        last, mask = find_motion(bank), hypotheses[0].cpu() > 0
        fit = 1.0 if last is None else float(self.score(last, mask[None]))
        quality = entry.quality
        if last is not None and last.seen >= self.settled:
            quality = (quality - self.motion * fit) / (1 - self.motion)
        box = find_mask_corners(mask) if entry.presence > 0 and quality > self.quality else None
        if box is None:
            motion = None if last is None else replace(predict_motion(last), seen=0)
        else:
            place = convert_from_box(box)
            motion = correct_motion(predict_motion(last), place, last.seen + 1) if last else start_motion(place)
        return replace(entry, quality=quality, fit=fit, motion=motion)

    def is_reliable(self, entry: MemoryEntry) -> bool:
        """Seen, seen well, and where it may be."""
        return super().is_reliable(entry) and entry.fit > 0


def find_motion(bank: MemoryBank) -> BoxMotion | None:
    """How the object of a `bank` moved when it was last seen; None after a prompt, with which that begins anew."""
    last = bank.recent[-1] if bank.recent else None
    is_prompted = last is not None and any(e.time > last.time for e in bank.prompted)
    return None if last is None or is_prompted else last.motion


# -- a Kalman filter of constant velocity over middle x and y, width and height


def start_motion(place: Float64[Tensor, " 4"]) -> BoxMotion:
    """What is known of a box that was seen once, at rest."""
    mean = torch.cat([place, torch.zeros_like(place)])
    spread = torch.cat([(2 * STEADY * measure_scale(place)).expand(4), (10 * CHANGE * measure_scale(place)).expand(4)])
    return BoxMotion(mean, torch.diag(spread**2), 1)


def predict_motion(motion: BoxMotion) -> BoxMotion:
    """The same a frame later, nothing having been seen."""
    step = torch.eye(8, dtype=torch.float64)
    step[:4, 4:] = torch.eye(4, dtype=torch.float64)
    scale = measure_scale(motion.mean)
    noise = torch.cat([(STEADY * scale).expand(4), (CHANGE * scale).expand(4)]) ** 2
    return BoxMotion(step @ motion.mean, step @ motion.covariance @ step.T + torch.diag(noise), motion.seen)


def correct_motion(expected: BoxMotion, place: Float64[Tensor, " 4"], seen: int) -> BoxMotion:
    """What was `expected` of a frame, once the box is seen in its `place`, for so many frames in a row."""
    noise = torch.eye(4, dtype=torch.float64) * (STEADY * measure_scale(expected.mean)) ** 2
    gain = torch.linalg.solve(expected.covariance[:4, :4] + noise, expected.covariance[:4]).T
    mean = expected.mean + gain @ (place - expected.mean[:4])
    return BoxMotion(mean, expected.covariance - gain @ expected.covariance[:4], seen)


def measure_scale(place: Float64[Tensor, " n"]) -> Float64[Tensor, ""]:
    """The height of a box, at least a pixel."""
    return place[3].clamp(min=1)


def find_mask_corners(mask: Bool[Tensor, "h w"]) -> Float64[Tensor, " 4"] | None:
    """x0, y0, x1, y1 of a mask, x1 and y1 one past the last; None of an empty one.

    >>> find_mask_corners(torch.tensor([[False, True, True], [False, False, False]])).tolist()
    [1.0, 0.0, 3.0, 1.0]
    """
    ys, xs = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(ys):
        return None
    return torch.stack([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]).double()


def convert_from_box(box: Float64[Tensor, " 4"]) -> Float64[Tensor, " 4"]:
    """Middle x and y, width and height of a box x0, y0, x1, y1."""
    return torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def convert_to_box(place: Float64[Tensor, " 4"]) -> Float64[Tensor, " 4"]:
    """x0, y0, x1, y1 of a box with this middle, width and height."""
    half = place[2:].clamp(min=0) / 2
    return torch.cat([place[:2] - half, place[:2] + half])


def load_motion_aware(request: PartRequest) -> Propagator[Any, Any]:
    """SAM 2, EdgeTAM or SAM 3, with this memory: "samurai:NAME". Raises InputError over one that has another memory, or
    one hypothesis alone.
    """
    policy = MotionAwareFrames(**request.settings)
    found: Propagator[Any, Any] = request.load_below(parse_part_name(request.name.below), policy)
    if not isinstance(found, Sam2):
        raise InputError(f"{request.name.text}: {request.name.below} is no SAM 2; write samurai:sam2.1-tiny")
    return found
