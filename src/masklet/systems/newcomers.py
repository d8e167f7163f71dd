"""Newcomers: what is detected and no object yet. In a crowd much is seen in one frame and not in the next; each such
thing would be looked for in every later frame, and take pixels from others. So a thing is to be seen in several frames
before it is an object; until then nothing is propagated of it, and those frames are given back to it when it is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from jaxtyping import Float

from masklet.core.matching import match
from masklet.core.tracks import Sighting

BUFFER = 0.5  # of a box's width and height, by which it grows on each side: boxes of what moves fast meet then
NEAR = 0.4  # IoU of such boxes above which two detections may be of one thing


@dataclass(frozen=True)
class Newcomer:
    """A thing that was seen and is no object yet."""

    sightings: Mapping[int, Sighting]  # by frame, frames rising

    @property
    def last(self) -> Sighting:
        """How it was seen last."""
        return self.sightings[max(self.sightings)]

    def add(self, frame: int, sighting: Sighting) -> Newcomer:
        """With one more frame."""
        return Newcomer({**self.sightings, frame: sighting})

    def forget_before(self, frame: int) -> Newcomer:
        """Without what is older than `frame`."""
        return Newcomer({t: sighting for t, sighting in self.sightings.items() if t >= frame})


def follow_newcomers(
    waiting: Sequence[Newcomer], found: Sequence[Sighting], frame: int, frames: int
) -> tuple[dict[int, Newcomer], tuple[Newcomer, ...]]:
    """What is `found` in a `frame` and of no object, as one more sighting of the newcomers that are `waiting`, or as
    the first of new ones.

    Args:
        waiting: newcomers of the frames before.
        found: detections of this frame.
        frame: its index.
        frames: in how many a newcomer has to be seen, of 2 `frames` - 1 that follow each other: in most of them.

    Returns:
        Which of those `found`, by index, are objects from now on, and the newcomers that wait on.
    """
    recent = [one.forget_before(frame - 2 * frames + 2) for one in waiting]
    recent = [one for one in recent if one.sightings]
    links = match(measure_nearness([one.last for one in recent], found), NEAR)
    seen = {column: recent[row].add(frame, found[column]) for row, column in links.pairs}
    seen |= {column: Newcomer({frame: found[column]}) for column in links.free_cols}
    confirmed = {column: one for column, one in sorted(seen.items()) if len(one.sightings) >= frames}
    unseen = [recent[row] for row in links.free_rows]
    return confirmed, (*unseen, *(one for column, one in sorted(seen.items()) if column not in confirmed))


def measure_nearness(a: Sequence[Sighting], b: Sequence[Sighting]) -> Float[np.ndarray, "n m"]:
    """How near detections are to each other: IoU of their boxes, each grown by `BUFFER` (C-BIoU, Yang et al. 2023)."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = grow_boxes(a).T[:, :, None], grow_boxes(b).T[:, None]
    across = np.minimum(x1, u1) - np.maximum(x0, u0)
    both = across.clip(0) * (np.minimum(y1, v1) - np.maximum(y0, v0)).clip(0)
    iou: Float[np.ndarray, "n m"] = both / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - both)
    return iou


def grow_boxes(sightings: Sequence[Sighting]) -> Float[np.ndarray, "n 4"]:
    """The box of each mask, x0, y0, x1, y1, grown by `BUFFER` of its sides."""
    boxes = np.array([s.mask.box for s in sightings], np.float64).reshape(-1, 4)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    grown: Float[np.ndarray, "n 4"] = boxes + BUFFER * sides * np.array([-1, -1, 1, 1])
    return grown


def list_earlier_sightings(newcomer: Newcomer, frame: int) -> dict[int, Sighting]:
    """Those of the frames directly before `frame`, without a gap: what lies before a gap, completion finds."""
    run = takewhile(lambda t: t in newcomer.sightings, range(frame - 1, -1, -1))
    return {t: newcomer.sightings[t] for t in reversed(list(run))}


def list_seen_throughout(waiting: Iterable[Newcomer], length: int) -> list[Newcomer]:
    """Which newcomers are objects of a video that ended after `length` frames: those that are in all of it, for it was
    too short for as many frames as it takes.
    """
    return [one for one in waiting if len(one.sightings) == length]
