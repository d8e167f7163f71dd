"""A result in numbers: how large, fast and long visible objects are, and where to look for mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from masklet.core.result import VideoResult
from masklet.core.tables import compute_centroid, compute_frame_time
from masklet.core.tracks import Masklet


class ObjectStatistics(NamedTuple):
    """One object in numbers."""

    id: int
    name: str
    score: float  # 0 to 1
    first: int  # frames
    last: int
    frames: int  # in which it is seen
    visibility: float  # share of the frames from the first to the last in which it is seen
    mean_area: float  # pixels
    smallest_area: int
    largest_area: int
    path: float  # pixels that its middle has moved from sighting to sighting
    mean_speed: float  # pixels a second, between frames that follow one another
    top_speed: float
    mean_confidence: float  # of its masks, 0 to 1


class FrameStatistics(NamedTuple):
    """One frame in numbers."""

    frame: int
    objects: int
    covered: int  # pixels of all masks together
    confidence: float  # mean over the masks, 0 to 1; 0 where there are none


class SuspiciousFrame(NamedTuple):
    """A place where it is worth looking."""

    frame: int
    id: int
    reason: str  # area, place, switch or presence
    value: float  # how much, in the reason's own unit


@dataclass(frozen=True)
class ResultStatistics:
    """A result in numbers."""

    objects: tuple[ObjectStatistics, ...]
    frames: tuple[FrameStatistics, ...]
    suspicious: tuple[SuspiciousFrame, ...]


@dataclass(frozen=True)
class _Track:
    """What is measured once of every object."""

    masklet: Masklet
    frames: Sequence[int]
    times: Float[np.ndarray, " n"]  # seconds
    areas: Int64[np.ndarray, " n"]  # pixels
    centres: Float[np.ndarray, "n 2"]
    scores: Float[np.ndarray, " n"]
    presences: Float[np.ndarray, " n"]


def compute_statistics(
    result: VideoResult, area_jump: float = 2.0, place_jump: float = 1.0, overlap: float = 0.5
) -> ResultStatistics:
    """Objects, frames and suspicious places of a result.

    Args:
        result: whose numbers they are.
        area_jump: from this factor on, larger or smaller, an area that changes from one frame to the next is suspicious
            (reason "area", value the factor).
        place_jump: from this share of the square root of its area on, a middle that moves from one frame to the next
            is suspicious (reason "place", value the share).
        overlap: an object that appears where another one that ends was seen in the frame before, with this IoU or
            more, may be the same one (reason "switch", value the IoU; the id is the new one's).

    Returns:
        The numbers. Reason "presence": the propagator held it for absent in this frame (value the object score, 0 or
        below, where it says one).
    """
    tracks = [_measure(result, m) for m in result.masklets]
    found = [s for track in tracks for s in _find_jumps(track, area_jump, place_jump)]
    found += find_switches([(t.masklet, t.frames[0], t.frames[-1]) for t in tracks], overlap)
    objects = tuple(_summarize_object(result, track) for track in tracks)
    return ResultStatistics(objects, tuple(_summarize_frames(result.length, tracks)), tuple(sorted(found)))


def _measure(result: VideoResult, masklet: Masklet) -> _Track:
    frames = sorted(masklet.sightings)
    seen = [masklet.sightings[t] for t in frames]  # once: they may lie on the disk
    times = np.array([compute_frame_time(result, t) for t in frames])
    areas = np.array([s.mask.area for s in seen], np.int64)
    centres = np.array([compute_centroid(s.mask) for s in seen])
    scores, presences = np.array([(s.score, s.presence) for s in seen], np.float64).T
    return _Track(masklet, frames, times, areas, centres, scores, presences)


def _summarize_object(result: VideoResult, track: _Track) -> ObjectStatistics:
    m, frames, areas = track.masklet, track.frames, track.areas
    steps = np.hypot(*np.diff(track.centres, axis=0).T)
    next_to = (np.diff(frames) == 1) & (np.diff(track.times) > 0)
    speeds = steps[next_to] / np.diff(track.times)[next_to]
    span = frames[-1] - frames[0] + 1
    seen = frames[0], frames[-1], len(frames), len(frames) / span
    sizes = float(areas.mean()), int(areas.min()), int(areas.max())
    moves = float(steps.sum()), float(speeds.mean()) if len(speeds) else 0.0, float(speeds.max(initial=0.0))
    return ObjectStatistics(m.id, result.name_of(m), m.score, *seen, *sizes, *moves, float(track.scores.mean()))


def _summarize_frames(length: int, tracks: Sequence[_Track]) -> Iterator[FrameStatistics]:
    objects, covered, scores = np.zeros(length, int), np.zeros(length, int), np.zeros(length)
    for track in tracks:
        objects[track.frames] += 1
        covered[track.frames] += track.areas
        scores[track.frames] += track.scores
    confidence = scores / objects.clip(min=1)
    for t in range(length):
        yield FrameStatistics(t, int(objects[t]), int(covered[t]), float(confidence[t]))


def _find_jumps(track: _Track, area_jump: float, place_jump: float) -> Iterator[SuspiciousFrame]:
    id = track.masklet.id
    for n, (a, b) in enumerate(pairwise(track.frames)):
        if b != a + 1:
            continue
        small, large = sorted(map(int, track.areas[n : n + 2]))
        if large >= area_jump * small:
            yield SuspiciousFrame(b, id, "area", large / small)
        moved = float(np.hypot(*(track.centres[n + 1] - track.centres[n]))) / large**0.5
        if moved >= place_jump:
            yield SuspiciousFrame(b, id, "place", moved)
    for t, presence in zip(track.frames, track.presences.tolist(), strict=True):
        if presence < 0:
            yield SuspiciousFrame(t, id, "presence", presence)


def find_jumps(result: VideoResult, area_jump: float = 2.0, place_jump: float = 1.0) -> list[SuspiciousFrame]:
    """The suspicious frames of a result, or of a window of it, whose reason is area, place or presence; the arguments
    are those of `compute_statistics`. Of a window, the first frame is only what the second is compared with.
    """
    return [s for m in result.masklets for s in _find_jumps(_measure(result, m), area_jump, place_jump)]


def find_switches(spans: Sequence[tuple[Masklet, int, int]], overlap: float = 0.5) -> Iterator[SuspiciousFrame]:
    """Objects that begin where another one has just ended, with an IoU of `overlap` or more; `spans` are all objects,
    with the first and the last frame of each.
    """
    ends: dict[int, list[Masklet]] = {}
    for masklet, _, last in spans:
        ends.setdefault(last, []).append(masklet)
    for m, first, _ in spans:
        for other in ends.get(first - 1, []):
            iou = m.sightings[first].mask.iou(other.sightings[first - 1].mask)
            if iou >= overlap:
                yield SuspiciousFrame(first, m.id, "switch", iou)
