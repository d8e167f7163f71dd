"""Which frame an annotation means: the one place where this is decided, for detections, labels, prompts and truth.

A frame is meant by its number from 0, by its name, or by a number that counts from 0 or from 1; an annotation may say
which video it is of. What meets no frame is counted, and refused where nothing meets any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from masklet.core.errors import InputError
from masklet.core.rle import Rle

Size = tuple[int, int]  # h, w


@dataclass(frozen=True)
class FramePlace:
    """Where an annotation says that it belongs; what it does not say is None."""

    video: str | None = None  # the name of its video
    index: int | None = None  # a frame's number, counted from 0
    number: int | None = None  # a frame's number, counted from 0 or from 1
    name: str | None = None  # the name of a frame's file, with or without folder and suffix
    is_id: bool = False  # whether the number is an image's id, of which no convention says from where it counts

    def __str__(self) -> str:
        said = {"video": self.video, "frame": self.index, "number": self.number, "file": self.name}
        return ", ".join(f"{what} {value}" for what, value in said.items() if value is not None) or "no frame"


@dataclass(frozen=True)
class VideoFrames:
    """What is known of a video's frames before they are read."""

    name: str  # of the video
    length: int = 0  # 0: not known
    names: Sequence[str] | None = None  # the frames' own names without suffix
    used: Sequence[int] = ()  # their numbers in the video that they were chosen of, where they were
    whole: int = 0  # frames of that video; 0: not known

    @staticmethod
    def of(video: Any) -> VideoFrames:
        """Those of a `core.frames.Video`."""
        return VideoFrames(video.name, len(video), getattr(video, "frame_names", None))

    @cached_property
    def by_name(self) -> Mapping[str, int]:
        """A frame's number by its name."""
        return {name: n for n, name in enumerate(self.names or ())}

    @cached_property
    def by_number(self) -> Mapping[int, int]:
        """A frame's number by the last number in its name, where these differ."""
        numbers = [find_last_number(name) for name in self.names or ()]
        return {} if None in numbers or len(set(numbers)) < len(numbers) else {m: n for n, m in enumerate(numbers)}  # type: ignore[misc]

    def __str__(self) -> str:
        names = f", {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.name} ({self.length or 'an unknown number of'} frames{names})"


def find_last_number(name: str) -> int | None:
    """The last whole number in a name.

    >>> find_last_number("cam2_00012"), find_last_number("left")
    (12, None)
    """
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


def drop_suffix(name: str) -> str:
    """A file's name without folder and suffix.

    >>> drop_suffix("clip/00003.jpg")
    '00003'
    """
    return PurePosixPath(name).stem


class FrameMatcher:
    """Finds the frames that the annotations of one file mean in one video."""

    def __init__(self, label: str, listed: Sequence[FramePlace], video: VideoFrames) -> None:
        """
        Args:
            label: what the file is called, for errors and notes.
            listed: every place that the file lists, annotated or not: they say how it counts.
            video: whose frames are meant.

        Raises:
            InputError: the file is of several videos, none of which has the name of this one, or it cannot be told
                whether it counts frames from 0 or from 1.
        """
        self.label, self.video = label, video
        self.notes: list[str] = []
        self.is_named = True  # whether the video has the name that the file says
        self._of = self._choose_video({place.video for place in listed if place.video is not None})
        self._order = [place for place in listed if self._is_meant(place)]
        self._numbers = [n for place in self._order if (n := self._read_number(place)) is not None]
        self._are_in_names = self._find_numbers_in_names()
        self._chosen = self._find_chosen()
        self._first = self._find_first_number()
        self._by_order = self._find_order()

    def _choose_video(self, videos: set[str]) -> str | None:
        """The one of the file's `videos` that is meant; None where it names none."""
        if not videos:
            return None
        same = {v for v in videos if self.video.name in (v, PurePosixPath(v).name, drop_suffix(v))}
        same = same or {v for v in videos if v == PurePosixPath(self.video.name).name}  # set/clip, as some forms say it
        if len(same) == 1:
            return same.pop()
        if len(videos) == 1:
            [only] = videos
            self.is_named = False
            self.notes.append(f"{self.label}: is of a video called {only}, and was used for {self.video.name}")
            return only
        some = ", ".join(sorted(videos)[:3]) + (", ..." if len(videos) > 3 else "")
        raise InputError(
            f"{self.label}: is of {len(videos)} videos ({some}), none of them {self.video.name}; give the video the "
            "name that it has there"
        )

    def _is_meant(self, place: FramePlace) -> bool:
        return place.video is None or place.video == self._of

    def _find_numbers_in_names(self) -> bool:
        """Whether the file calls frames by the numbers in their own names, which do not count from 0."""
        known = self.video.by_number
        if not self._numbers or min(known, default=0) == 0 or not known.keys() >= set(self._numbers):
            return False
        told = f"{min(known)} to {max(known)}"
        self.notes.append(f"{self.label}: its numbers of frames were taken for those in the frames' names, {told}")
        return True

    def _find_chosen(self) -> Mapping[int, int]:
        """The frames by their numbers in the video that they were chosen of, where the file counts all of that: it goes
        beyond those that were chosen; else nothing.
        """
        indices = [place.index for place in self._order if place.index is not None]
        goes_beyond = max([*indices, *(n - 1 for n in self._numbers)], default=-1) >= self.video.length
        if not self.video.used or not self.video.length or self._are_in_names or not goes_beyond:
            return {}
        self.notes.append(f"{self.label}: its numbers of frames were taken for those of the whole video")
        return {n: t for t, n in enumerate(self.video.used)}

    def _find_first_number(self) -> int:
        """0 or 1: what the file calls the first frame. Raises InputError where ids of images may be either."""
        numbers, length = self._numbers, self.video.whole if self._chosen else self.video.length
        if not numbers or self._are_in_names or min(numbers) == 0:
            return 0
        low, high = min(numbers), max(numbers)
        if high == (length or len(set(self._order))) and (length or low == 1):
            self.notes.append(f"{self.label}: its numbers of frames were taken to count from 1, for none is 0")
            return 1
        if length and high < length and any(p.is_id and not self._is_named(p) for p in self._order):
            raise InputError(
                f"{self.label}: its image ids, {low} to {high} for {length} frames, may count from 0 or from 1; say "
                "which frame each is with 'frame', from 0, or with 'images' that have their file names"
            )
        if not length or high < length:
            self.notes.append(f"{self.label}: its numbers of frames were taken to count from 0, though none is 0")
        return 0

    def _read_number(self, place: FramePlace) -> int | None:
        """The number by which frames are counted; a name counts where the frames have none of their own."""
        if place.index is not None:
            return None
        if place.number is not None and not self._is_named(place):
            return place.number
        return find_last_number(drop_suffix(place.name)) if place.name and not self.video.names else None

    def _is_named(self, place: FramePlace) -> bool:
        return bool(place.name and self.video.names)

    def _find_order(self) -> Mapping[FramePlace, int]:
        """The frames by the order of the list, where it has as many names as there are frames and their numbers fit
        none; else nothing.
        """
        listed = list(dict.fromkeys(self._order))
        fits = all(0 <= n - self._first < self.video.length for n in self._numbers)
        told = any(place.name is None or self._find_by_name(place) is not None for place in listed)
        if len(listed) != self.video.length or told or (self._numbers and fits):
            return {}
        self.notes.append(f"{self.label}: its frames were taken in their order: their names are not the video's")
        return {place: n for n, place in enumerate(listed)}

    def find(self, place: FramePlace) -> int | None:
        """The number of the frame that is meant, from 0; None where it is none of this video."""
        if not self._is_meant(place):
            return None
        if self._by_order:
            return self._by_order.get(place)
        found = self._find_by_name(place) if place.index is None else None
        if found is None and (number := self._count_frame(place)) is not None:
            found = self._chosen.get(number) if self._chosen else number
        inside = found is not None and found >= 0 and not (self.video.length and found >= self.video.length)
        return found if inside else None

    def _count_frame(self, place: FramePlace) -> int | None:
        """The number of the frame that is meant, from 0, as the file counts them; None where it says none."""
        number = self._read_number(place)
        if place.index is not None or number is None:
            return place.index
        return self.video.by_number.get(number) if self._are_in_names else number - self._first

    def _is_left_out(self, place: FramePlace) -> bool:
        """Whether it is of a frame of the whole video that was not chosen."""
        number = self._count_frame(place) if self._chosen else None
        return number is not None and 0 <= number < self.video.whole and number not in self._chosen

    def _find_by_name(self, place: FramePlace) -> int | None:
        """By the frame's own name, else by the number in it."""
        if not self._is_named(place):
            return None
        name = drop_suffix(str(place.name))
        number = find_last_number(name)
        return self.video.by_name.get(name, None if number is None else self.video.by_number.get(number))

    def group(self, places: Iterable[FramePlace]) -> dict[int, list[int]]:
        """The positions of `places` by the frames that they mean. What meets none is noted; places of other videos are
        passed over. Raises InputError where all of them meet none.
        """
        frames: dict[int, list[int]] = {}
        missed, n = [], 0
        for n, place in enumerate(places):
            frame = self.find(place)
            if frame is not None:
                frames.setdefault(frame, []).append(n)
            elif self._is_meant(place) and not self._is_left_out(place):
                missed.append(place)
        if missed and not frames:
            raise InputError(
                f"{self.label}: none of its {len(missed)} annotations is of a frame of {self.video}; the first is of "
                f"{missed[0]}: give what was made of this video"
            )
        if missed:
            self.notes.append(
                f"{self.label}: {len(missed)} of {n + 1} annotations met no frame of {self.video}, the first of them "
                f"{missed[0]}"
            )
        return frames


class FoundObject(NamedTuple):
    """One object in one frame, as a file has it: a mask, or a box alone."""

    score: float  # 0 to 1
    label: int  # index into the categories
    mask: Rle | None
    box: tuple[float, float, float, float] | None = None  # x, y, w, h in pixels


class FrameEntry(NamedTuple):
    """What a file says of one frame, read when it is asked for."""

    place: FramePlace
    read: Callable[[Size], Sequence[FoundObject]]  # raises InputError where it does not fit a frame of this size
    measure: Callable[[], Size] | None = None  # of the frame that it was made of, where it says; raises InputError


@dataclass(frozen=True)
class DetectionSet:
    """All that a file or folder of detections says."""

    label: str
    categories: tuple[str, ...]
    entries: Sequence[FrameEntry]
    listed: Sequence[FramePlace]  # every frame that it lists, with detections or without
    hashes: Mapping[str, str]  # sha256 by file name
    stuff: tuple[str, ...] = ()  # names of the categories that are no things

    @property
    def names_videos(self) -> bool:
        """Whether it says which videos its frames are of."""
        return any(place.video is not None for place in self.listed)
