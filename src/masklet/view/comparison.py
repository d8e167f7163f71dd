"""Two results of one video, object by object and frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet

MOST = 2_000  # frames that are compared, evenly chosen where a video has more


@dataclass(frozen=True)
class PairedObject:
    """One object in both results."""

    here: int  # its id
    there: int
    iou: float  # over space and time
    frames: tuple[float | None, ...]  # IoU in each frame that is compared; None where it is in neither


@dataclass(frozen=True)
class FrameComparison:
    """What two results of one video have in common."""

    frames: tuple[int, ...]  # that are compared
    pairs: tuple[PairedObject, ...]
    only_here: tuple[int, ...]
    only_there: tuple[int, ...]


def compare_frames(
    result: VideoResult, other: VideoResult, most: int = MOST, watch: Watch = discard_progress
) -> FrameComparison:
    """Pairs the objects of two results and measures them in each frame.

    Args:
        result: the one that is looked at.
        other: another one of the same video, or the ground truth.
        most: so many frames are compared, evenly chosen where there are more.
        watch: is told how far the work is.

    Returns:
        The pairs in the order of `VideoResult.compare`, of the frames that are compared alone.

    Raises:
        InputError: the videos' sizes or lengths differ.
    """
    frames = choose_frames(result.length, most)
    watch("compare", 0, len(frames), 0)
    here, there = (_keep_frames(one, frames) for one in (result, other))
    found = here.compare(there)
    own, others = ({m.id: m for m in one.masklets} for one in (here, there))
    pairs = []
    for n, (a, b, iou) in enumerate(found.pairs):
        pairs.append(PairedObject(a, b, iou, tuple(measure_frame_iou(own[a], others[b], t) for t in frames)))
        watch("compare", len(frames) * (n + 1) // len(found.pairs), len(frames), n + 1)
    return FrameComparison(tuple(frames), tuple(pairs), found.only_here, found.only_there)


def choose_frames(length: int, most: int) -> Sequence[int]:
    """At most so many frames of a video, evenly chosen.

    >>> choose_frames(3, 5), choose_frames(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    return sorted({round(float(t)) for t in np.linspace(0, length - 1, min(length, most))})


def measure_frame_iou(one: Masklet, other: Masklet, frame: int) -> float | None:
    """The IoU of two objects in a frame; 0 where only one is seen, None where neither is."""
    a, b = one.sightings.get(frame), other.sightings.get(frame)
    if a is None or b is None:
        return None if a is b else 0.0
    return a.mask.iou(b.mask)


def _keep_frames(result: VideoResult, frames: Sequence[int]) -> VideoResult:
    """The result in these frames alone, in memory."""
    kept = (replace(m, sightings={t: m.sightings[t] for t in frames if t in m.sightings}) for m in result.masklets)
    return replace(result, masklets=tuple(m for m in kept if m.sightings))
