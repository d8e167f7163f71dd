"""A result in numbers: how large, fast and long visible objects are, and where to look for mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

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


AREA_JUMP, PLACE_JUMP = 1.5, 1.0  # a factor; a share of the square root of the area
SMALLEST = 1 / 2000  # of the frame: masks below it flicker
EPISODE = 2  # frames: what is suspicious again so soon is the same event, told where it begins
LOOK_BACK = EPISODE + 2  # frames before a window that decide what is told in its first one


@dataclass(frozen=True)
class _Track:
    """What is measured once of every object."""

    masklet: Masklet
    frames: Sequence[int]
    times: Float[np.ndarray, " n"]  # seconds
    areas: Int64[np.ndarray, " n"]  # pixels
    centres: Float[np.ndarray, "n 2"]
    cut_off: Bool[np.ndarray, " n"]  # by the frame's edge
    scores: Float[np.ndarray, " n"]
    presences: Float[np.ndarray, " n"]


def compute_statistics(
    result: VideoResult, area_jump: float = AREA_JUMP, place_jump: float = PLACE_JUMP, overlap: float = 0.5
) -> ResultStatistics:
    """Objects, frames and suspicious places of a result.

    Args:
        result: whose numbers they are.
        area_jump: from this factor on, larger or smaller, an area that changes from one frame to the next is suspicious
            (reason "area", value the factor), but for objects that the frame's edge cuts off.
        place_jump: from this share of the square root of its area on, a middle that is not where the step before led
            is suspicious (reason "place", value the share): a camera that pans moves all alike.
        overlap: an object that appears where another one that ends was seen in the frame before, with this IoU or
            more, may be the same one (reason "switch", value the IoU; the id is the new one's).

    Returns:
        The numbers. Reason "presence": the propagator held it for absent in this frame (value the object score, 0 or
        below, where it says one). Jumps count of objects that cover a two-thousandth of the frame; what is suspicious
        for the same reason again within two frames is one event, told where it begins.
    """
    tracks = [_measure(result, m) for m in result.masklets]
    found = [s for track in tracks for s in _find_jumps(track, area_jump, place_jump, _find_smallest(result))]
    found += find_switches([(t.masklet, t.frames[0], t.frames[-1]) for t in tracks], overlap)
    objects = tuple(_summarize_object(result, track) for track in tracks)
    return ResultStatistics(objects, tuple(_summarize_frames(result.length, tracks)), tuple(sorted(found)))


def _measure(result: VideoResult, masklet: Masklet) -> _Track:
    frames = sorted(masklet.sightings)
    seen = [masklet.sightings[t] for t in frames]  # once: they may lie on the disk
    times = np.array([compute_frame_time(result, t) for t in frames])
    areas = np.array([s.mask.area for s in seen], np.int64)
    centres = np.array([compute_centroid(s.mask) for s in seen])
    cut_off = np.array([_is_cut_off(s.mask.box, result.size) for s in seen])
    scores, presences = np.array([(s.score, s.presence) for s in seen], np.float64).T
    return _Track(masklet, frames, times, areas, centres, cut_off, scores, presences)


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


def _is_cut_off(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = box
    return x0 == 0 or y0 == 0 or x1 == size[1] or y1 == size[0]


def _find_smallest(result: VideoResult) -> float:
    """Pixels that an object covers whose jumps count."""
    return SMALLEST * result.size[0] * result.size[1]


def _find_jumps(track: _Track, area_jump: float, place_jump: float, smallest: float) -> Iterator[SuspiciousFrame]:
    """The events of one object: jumps of area and of place from one frame to the next, and absence."""
    frames = np.asarray(track.frames, np.int64)
    large = np.maximum(track.areas[:-1], track.areas[1:])
    counts = (np.diff(frames) == 1) & (large >= smallest)
    whole = ~(track.cut_off[:-1] | track.cut_off[1:])
    factors = large / np.minimum(track.areas[:-1], track.areas[1:])
    moves = _measure_surprises(track) / np.sqrt(large)
    for reason, values, wrong, places in (
        ("area", factors, counts & whole & (factors >= area_jump), frames[1:]),
        ("place", moves, counts & (moves >= place_jump), frames[1:]),
        ("presence", track.presences, track.presences < 0, frames),
    ):
        begins = np.diff(places[wrong], prepend=-1 - EPISODE) > EPISODE
        for t, value in zip(places[wrong][begins].tolist(), values[wrong][begins].tolist(), strict=True):
            yield SuspiciousFrame(t, track.masklet.id, reason, value)


def _measure_surprises(track: _Track) -> Float[np.ndarray, " n"]:
    """By how many pixels the middle misses the place that the step before led to, for each step; after a gap, or at
    the beginning, how far it moves.
    """
    steps, steady = np.diff(track.centres, axis=0), np.diff(track.frames) == 1
    led = np.zeros_like(steps)
    led[1:] = np.where(steady[:-1, None], steps[:-1], 0.0)
    surprises: Float[np.ndarray, " n"] = np.hypot(*(steps - led).T)
    return surprises


def find_jumps(
    result: VideoResult, area_jump: float = AREA_JUMP, place_jump: float = PLACE_JUMP
) -> list[SuspiciousFrame]:
    """The suspicious frames of a result, or of a window of it, whose reason is area, place or presence; the arguments
    are those of `compute_statistics`. Of a window, the first `LOOK_BACK` frames only decide about those after them.
    """
    tracks = (_measure(result, m) for m in result.masklets)
    return [s for track in tracks for s in _find_jumps(track, area_jump, place_jump, _find_smallest(result))]


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
