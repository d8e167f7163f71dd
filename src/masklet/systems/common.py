"""What all systems have in common: how they answer frame by frame, and what a result says beside its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from masklet.core.ahead import has_idle_cores, iterate_ahead
from masklet.core.frames import (
    Frame,
    Gap,
    Video,
    get_frame_times,
    get_gaps,
    get_pixel_aspect,
    list_lost_frames,
    list_video_notes,
)
from masklet.core.instances import Detections, FrameMasks
from masklet.core.protocols import BatchingPropagator, PreparingPropagator, Propagator, Segmenter, SelectiveSegmenter
from masklet.core.result import Provenance, VideoResult
from masklet.core.tracks import Masklet, Source

S = TypeVar("S", covariant=True)  # a state
T = TypeVar("T")
F = TypeVar("F")
M = TypeVar("M")


class StatefulStep(Protocol[S]):
    """One frame of a loop, and what it leaves."""

    @property
    def state(self) -> S: ...


L = TypeVar("L", bound=StatefulStep[Any])


class FrameStream(Generic[L, T]):
    """Every frame's objects while frames arrive, and after each frame the state of all that is remembered."""

    def __init__(self, steps: Iterator[L], show: Callable[[L], FrameMasks], state: T | None) -> None:
        """
        Args:
            steps: of a system's loop, a frame each.
            show: gives what a step answers.
            state: before the first frame; None begins a video.
        """
        self.state = state
        self._steps, self._show = steps, show

    def __iter__(self) -> FrameStream[L, T]:
        return self

    def __next__(self) -> FrameMasks:
        step = next(self._steps)
        self.state = step.state
        return self._show(step)


def encode_frames(propagator: Propagator[F, Any], frames: Iterable[Frame]) -> Iterator[tuple[Frame, F]]:
    """Each of the `frames` with its features."""
    return ((frame, propagator.encode([frame])[0]) for frame in frames)


def encode_batches(propagator: Propagator[F, Any], frames: Iterable[Frame]) -> Iterator[tuple[Frame, F]]:
    """The same for frames that need not be waited for: as many go through the network together as the propagator is
    good at.
    """
    size = propagator.encode_at_once if isinstance(propagator, BatchingPropagator) else 1
    rest = iter(frames)
    while batch := list(islice(rest, size)):
        yield from zip(batch, propagator.encode(batch), strict=True)


def prepare_ahead(propagator: Propagator[F, Any], items: Iterable[T], get_features: Callable[[T], F]) -> Iterator[T]:
    """The `items`, made ahead of their use on a thread of their own, and there the `propagator` does of each one's
    features what it can without its memory.
    """

    def prepare(item: T) -> T:
        if isinstance(propagator, PreparingPropagator):
            propagator.prepare(get_features(item))
        return item

    return iterate_ahead(map(prepare, items) if has_idle_cores() else items)


def build_video_result(
    video: Video,
    masklets: tuple[Masklet, ...],
    categories: tuple[str, ...],
    system: str,
    settings: Mapping[str, Any],
    notes: Sequence[str],
) -> VideoResult:
    """The result of a `system` with `settings` for `video`: its `masklets`, named by `categories`, with `notes` on what
    its reader must know; what was damaged comes first. In frames that could not be read no object is seen.
    """
    provenance = Provenance(system, dict(settings), notes=(*list_video_notes(video), *notes))
    seen = drop_sightings_in_gaps(masklets, get_gaps(video))
    length, times, aspect = len(video), get_frame_times(video), get_pixel_aspect(video)
    if len(times) != length:  # of a video that was not read to its end
        times = ()
    return VideoResult(video.name, video.size, length, video.rate, seen, categories, provenance, times, aspect)


def find_detections(
    segmenter: Segmenter[M], memory: M, frame: Frame, future: Sequence[Frame], least: float
) -> tuple[Detections, M]:
    """One frame's detections that score `least` or more, and perhaps others, and the segmenter's next `memory`;
    `future` frames directly follow and are only looked at.
    """
    if isinstance(segmenter, SelectiveSegmenter):
        [found], memory = segmenter.segment_above(memory, [frame], future, least)
    else:
        [found], memory = segmenter.segment(memory, [frame], future)
    return found, memory


def drop_sightings_in_gaps(masklets: tuple[Masklet, ...], gaps: Sequence[Gap]) -> tuple[Masklet, ...]:
    """The `masklets` without what was said of them in `gaps`, where a copy of another frame was looked at; what the
    user gave there stays. One that is seen nowhere else goes.
    """
    lost = list_lost_frames(gaps)
    if not lost:
        return masklets
    kept = (
        replace(m, sightings={t: s for t, s in m.sightings.items() if t not in lost or s.source is Source.PROMPTED})
        for m in masklets
    )
    return tuple(m for m in kept if m.sightings)


def describe_lost_objects(masklets: Sequence[Masklet], length: int, most: int = 5) -> list[str]:
    """What a result says of objects that are not found to its end: a sentence each, above `most` one for all.

    Args:
        masklets: the objects.
        length: frames of the video.
        most: objects that are told of one by one.
    """
    ends = {m.id: max(m.sightings) + 1 for m in masklets}
    lost = {id: end for id, end in ends.items() if end < length}
    if len(lost) <= most:
        return [f"object {id}: not found from frame {t} on; it left, or the scene changed" for id, t in lost.items()]
    first = min(lost, key=lambda id: lost[id])
    return [f"{len(lost)} objects: not found to the end, the first of them object {first}, from frame {lost[first]} on"]
