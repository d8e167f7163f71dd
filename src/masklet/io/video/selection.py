"""A part of a video's frames, or all of them smaller, as a video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import islice
from math import ceil, floor
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from masklet.core.errors import InputError
from masklet.core.frames import Frame, get_frame_names
from masklet.core.result import VideoResult
from masklet.io.video.frame_source import FrameSource, format_size, keep_uneven_times

Position = int | str  # a frame's number from 0, or a time: "2.5s", "1:30"


def read_position(given: Position) -> tuple[int | None, float | None]:
    """A frame number, or seconds. Raises InputError where it is neither.

    >>> read_position(7), read_position("12"), read_position("2.5s"), read_position("1:30")
    ((7, None), (12, None), (None, 2.5), (None, 90.0))
    """
    text = str(given).strip()
    try:
        if text.endswith("s") or ":" in text:
            parts = [float(part) for part in text.removesuffix("s").split(":")]
            seconds = sum(part * 60**n for n, part in enumerate(reversed(parts)))
            if 0 <= seconds < float("inf"):
                return None, seconds
        elif int(text) >= 0:
            return int(text), None
    except ValueError:
        pass
    raise InputError(
        f"{given!r} is no place in a video; give a frame from 0 such as 120, or a time such as 4.5s or 1:30"
    )


@dataclass(frozen=True)
class FrameSelection:
    """Which frames of a video are used, and how large.

    Attributes:
        start: the first frame, by number or time.
        end: the frame before which they end, by number or time; None is the video's end.
        stride: every so many-th frame from the first.
        fps: at most so many frames a second, evenly by their times; None takes all.
        max_side: pixels of the longer side, to which larger frames are reduced; None leaves them.
        max_frames: at most so many, the first ones; None takes all.
    """

    start: Position = 0
    end: Position | None = None
    stride: int = 1
    fps: float | None = None
    max_side: int | None = None
    max_frames: int | None = None

    def check(self) -> None:
        """Raises InputError where a value cannot be used."""
        read_position(self.start)
        read_position(0 if self.end is None else self.end)
        least = {"stride": self.stride, "max-side": self.max_side, "max-frames": self.max_frames}
        for name, value in least.items():
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: give a whole number from 1 on")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InputError(f"fps {self.fps}: give frames per second above 0")
        if self.fps is not None and self.stride != 1:
            raise InputError("stride and fps both thin the frames out; give one of them")

    @property
    def chosen(self) -> dict[str, Any]:
        """What is chosen otherwise than by default, as keyword arguments."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


KINDS: Mapping[str, tuple[type, ...]] = {"start": (int, str), "end": (int, str), "fps": (int, float)}  # others: int


def is_choosing(reading: Mapping[str, Any]) -> bool:
    """Whether `reading`, keyword arguments of `open_video`, choose frames, or how large they are."""
    names = {f.name for f in fields(FrameSelection)}
    told = {name: value for name, value in reading.items() if name in names}
    return bool(FrameSelection(**{**told, **({"start": 0} if str(told.get("start", 0)) == "0" else {})}).chosen)


def read_recorded_selection(result: VideoResult) -> dict[str, Any]:
    """Which frames of its video a `result` is of, by its provenance; nothing where that says nothing that can be."""
    told = result.provenance.settings.get("reading")
    if not isinstance(told, Mapping) or not {f.name for f in fields(FrameSelection)}.issuperset(told):
        return {}
    if not all(type(value) in KINDS.get(name, (int,)) for name, value in told.items()):
        return {}
    with suppress(InputError):
        FrameSelection(**told).check()
        return dict(told)
    return {}


class Timed(Protocol):
    """What is in a video at a place and a time."""

    @property
    def index(self) -> int:
        """Its place, counted from 0."""

    @property
    def time(self) -> float:
        """Seconds from the first."""


@dataclass(frozen=True)
class Moment:
    """Where a frame will be."""

    index: int
    time: float


T = TypeVar("T", bound=Timed)


class SelectedFrames(FrameSource):
    """Frames of another source, counted from 0 by themselves; times are from the first of them."""

    def __init__(self, source: FrameSource, selection: FrameSelection) -> None:
        """The frames of a `source` that a `selection` names; raises InputError where it names none."""
        selection.check()
        super().__init__(source.label, source.name, source.rate)
        self.source, self.selection = source, selection
        self.rate = min(selection.fps or source.rate, source.rate) / selection.stride
        self.strict, self.pixel_aspect, self.reading = source.strict, source.pixel_aspect, selection.chosen
        self.recorded_size = source.size
        self._used: list[int] = []  # frames of the source
        self._times: list[float] = []
        self._scale = min(1.0, (selection.max_side or max(source.size)) / max(source.size))
        self._take_first()
        self.notes = source.notes  # one list: what is found on the way is told by either
        self._describe()

    def _take_first(self) -> None:
        frame = next(self.frames(), None)
        if frame is None:
            first, last = self.selection.start, self.selection.end
            span = f"from {first} on" if last is None else f"from {first} to {last}"
            known = f", of {len(self.source)}" if len(self.source) else ""
            raise InputError(f"{self.label}: has no frame {span}{known}; take others")
        self.size = frame.size

    def _describe(self) -> None:
        chosen, first = self.selection, self._used[0]
        if first or chosen.end is not None or chosen.stride > 1 or chosen.fps or chosen.max_frames:
            every = (
                f", one in {chosen.stride}"
                if chosen.stride > 1
                else f", at most {chosen.fps:g} a second"
                if chosen.fps
                else ""
            )
            end = "" if chosen.end is None else f" up to {chosen.end}"
            most = f", at most {chosen.max_frames}" if chosen.max_frames else ""
            self.note(f"frames were chosen: frame 0 here is its frame {first}{end}{every}{most}")
        if self._scale < 1:
            self.note(f"frames were reduced from {format_size(self.source.size)} to {format_size(self.size)}")

    @property
    def origin(self) -> str:
        """What `open_video` opens their source by again."""
        return self.source.origin

    @property
    def used(self) -> tuple[int, ...]:
        """The numbers that the frames have in the source, as far as they can be told."""
        return tuple(self._plan() if self._length is None else self._used)

    @property
    def source_length(self) -> int:
        """How many frames the source has; 0 where nobody knows."""
        return len(self.source)

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The names of the frames that are used; none where they have no names."""
        names = get_frame_names(self.source) or ()
        return tuple(names[n] for n in self.used if n < len(names))

    def _plan(self) -> list[int]:
        """The frames of the source that will be used, as far as that can be told before they are read."""
        step = self.source.rate / self.rate
        return [self._used[0] + ceil(n * step - 1e-6) for n in range(self.said())]

    def said(self) -> int:
        chosen, whole, rate = self.selection, len(self.source), self.source.rate
        stop, seconds = (whole, None) if chosen.end is None else read_position(chosen.end)
        stop = min(whole, ceil((seconds or 0.0) * rate) if stop is None else stop)
        count = ceil(max(stop - self._used[0], 0) * self.rate / rate - 1e-6)
        return min(count, chosen.max_frames or count)

    @property
    def most_frames(self) -> int:
        """How many frames are used at most, whatever the source has; 0 where nothing says it."""
        end = None if self.selection.end is None else read_position(self.selection.end)[0]
        counts = [self.selection.max_frames, None if end is None else end - self._used[0]]
        return min((n for n in counts if n is not None), default=0)

    def frames(self) -> Iterator[Frame]:
        first = read_position(self.selection.start)[0] or 0
        for used, frame in enumerate(self._choose(self.source.frames_from(first))):
            if used == len(self._used):
                self._used.append(frame.index)
                self._times.append(frame.time)
            if frame.index in self.source.lost:
                self.lost[used] = self.source.lost[frame.index]
            yield self._convert(used, frame)

    def foresee(self, times: Sequence[float]) -> None:
        """Knows from now on which frames are used, and when they are, where `times` are those of the source's frames,
        all of them, in seconds from its first.
        """
        first = read_position(self.selection.start)[0] or 0
        found = list(self._choose(Moment(n, times[n]) for n in range(first, len(times))))
        self._used, self._times = [one.index for one in found], [one.time for one in found]
        self._length, self.times = len(found), keep_uneven_times(self._times, self.rate)

    def _choose(self, frames: Iterable[T]) -> Iterator[T]:
        """Those of the source's `frames` that are used."""
        return islice(self._choose_all(frames), self.selection.max_frames)

    def _choose_all(self, frames: Iterable[T]) -> Iterator[T]:
        chosen = self.selection
        seconds = read_position(chosen.start)[1] or 0.0
        end, end_seconds = (None, None) if chosen.end is None else read_position(chosen.end)
        ticks = -1
        begin: tuple[int, float] | None = None
        for frame in frames:
            if (end is not None and frame.index >= end) or (end_seconds is not None and frame.time >= end_seconds):
                return
            if frame.time < seconds:
                continue
            begin = begin or (frame.index, frame.time)
            tick = floor((frame.time - begin[1]) * chosen.fps + 1e-6) if chosen.fps else ticks + 1
            if (frame.index - begin[0]) % chosen.stride == 0 and tick > ticks:
                ticks = tick
                yield frame

    def _convert(self, n: int, frame: Frame) -> Frame:
        return Frame(n, self._resize(frame.image), frame.time - self._times[0], frame.name)

    def _resize(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
        if self._scale == 1:
            return image
        h, w = (max(round(n * self._scale), 1) for n in image.shape[:2])
        return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)

    def read(self, start: int, stop: int) -> list[Frame]:
        if len(self._used) < stop and self._length is None:
            for frame in self.frames():
                if frame.index + 1 >= stop:
                    break
        wanted = self._used[start : min(stop, len(self)) if self.is_known else stop]
        found = self.source.read_frames(wanted)
        self.lost |= {start + n: self.source.lost[t] for n, t in enumerate(wanted) if t in self.source.lost}
        return [self._convert(start + n, frame) for n, frame in enumerate(found)]

    def close(self) -> None:
        self.source.close()
