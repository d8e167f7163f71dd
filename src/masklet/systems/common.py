"""What all systems have in common: how they answer frame by frame, and what a result says beside its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from masklet.core.frames import Video
from masklet.core.instances import FrameMasks
from masklet.core.result import Provenance, VideoResult
from masklet.core.tracks import Masklet

S = TypeVar("S", covariant=True)  # a state
T = TypeVar("T")


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


def build_video_result(
    video: Video,
    masklets: tuple[Masklet, ...],
    categories: tuple[str, ...],
    system: str,
    settings: Mapping[str, Any],
    notes: Sequence[str],
) -> VideoResult:
    """The result of a `system` with `settings` for `video`: its `masklets`, named by `categories`, with `notes` on what
    its reader must know; what was damaged comes first.
    """
    told = (video.damage, *notes) if video.damage else tuple(notes)
    provenance = Provenance(system, dict(settings), notes=told)
    return VideoResult(video.name, video.size, len(video), video.rate, masklets, categories, provenance)


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
