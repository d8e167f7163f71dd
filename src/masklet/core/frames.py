"""Frames, and the orders in which they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)  # compared by identity: two frames are the same when they are one object
class Frame:
    """One image of a video."""

    index: int  # position in the source, never in a window
    image: UInt8[np.ndarray, "h w 3"]  # RGB
    time: float = 0.0  # seconds from the start of the source
    name: str = ""  # the image file's stem; "" where frames have no names

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Gap:
    """Frames [start, stop) of a video that could not be read; copies of a neighbour stand in for them."""

    start: int
    stop: int
    cause: str  # in words

    def describe(self) -> str:
        """A sentence for people.

        >>> Gap(5, 7, "00005.jpg: image file is truncated").describe()[:60]
        'frames 5 to 6 could not be read (00005.jpg: image file is tr'
        """
        if self.stop - self.start == 1:
            stand_in = "a copy of one beside it was used, without objects"
            return f"frame {self.start} could not be read ({self.cause}); {stand_in}"
        stand_in = "copies of one beside them were used, without objects"
        return f"frames {self.start} to {self.stop - 1} could not be read ({self.cause}); {stand_in}"


@runtime_checkable
class Video(Protocol):
    """A source that can be read more than once, a window at a time.

    `len()` is the container's word until the frames have been read once, then what was really there.
    `damage` says, after reading, why the frames ended early; None where they did not.

    A video may also have, once it has been read: `notes` (sentences for the result's reader), `times` (seconds of each
    frame from the first; empty where the rate is constant), `gaps` (of `Gap`), `pixel_aspect` (width of a pixel over
    its height), `frame_names`, `recorded_size` (h, w before frames were reduced), `used` and `source_length` (the
    frames' numbers in what they were chosen of, and how many that has, 0 where nobody knows), `most_frames` (where
    their number is not known), `origin` (what `open_video` opens its source by, "" where nothing does), `reading`
    (which frames of its source it has, as keyword arguments of `open_video`), and `check_before_reading`, which looks
    at all that can be known of frames before any is read. The functions below use them and do without.
    """

    name: str
    size: tuple[int, int]  # h, w
    rate: float  # frames per second
    damage: str | None

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def read(self, start: int, stop: int) -> list[Frame]: ...


def check_before_reading(video: Video) -> None:
    """Looks at all that can be known of the frames of a `video` before any is read, such as the sizes of its images.
    Raises InputError where they cannot be used.
    """
    check: Any = getattr(video, "check_before_reading", None)
    if check is not None:
        check()


def get_source_notes(video: Video) -> tuple[str, ...]:
    """What a `video` says of how it was read; nothing where it has no `notes`."""
    return tuple(getattr(video, "notes", ()))


def get_frame_times(video: Video) -> tuple[float, ...]:
    """Seconds of each frame of a `video` from its first; empty where the rate is constant or it has no `times`."""
    return tuple(getattr(video, "times", ()))


def get_gaps(video: Video) -> tuple[Gap, ...]:
    """The frames of a `video` that could not be read, in order; none where it has no `gaps`."""
    return tuple(getattr(video, "gaps", ()))


def list_video_notes(video: Video) -> tuple[str, ...]:
    """What the reader of a result must know of its `video`, as far as that has been read: damage first."""
    damage = [video.damage] if video.damage else []
    return (*damage, *describe_gaps(get_gaps(video)), *get_source_notes(video))


def describe_gaps(gaps: Sequence[Gap], most: int = 5) -> list[str]:
    """A sentence for each of the `gaps`, for at most `most` of them, and how many more there are."""
    more = len(gaps) - most
    rest = f"and {more} more gaps, {sum(g.stop - g.start for g in gaps[most:])} frames, that could not be read"
    return [gap.describe() for gap in gaps[:most]] + ([rest] if more > 0 else [])


def list_lost_frames(gaps: Sequence[Gap]) -> set[int]:
    """The frames that lie in `gaps`."""
    return {t for gap in gaps for t in range(gap.start, gap.stop)}


def get_pixel_aspect(video: Video) -> float:
    """Width of a pixel of a `video` over its height; 1 where it does not say."""
    return float(getattr(video, "pixel_aspect", 1.0))


def get_most_frames(video: Video) -> int:
    """How many frames a `video` has, or at most has where it does not say how many; 0 where nothing is known."""
    return len(video) or int(getattr(video, "most_frames", 0))


def get_recorded_size(video: Video) -> tuple[int, int]:
    """Height and width of the frames of a `video` before they were reduced, its own size where they were not."""
    h, w = getattr(video, "recorded_size", video.size)
    return h, w


def get_chosen_frames(video: Video) -> tuple[Sequence[int], int]:
    """The numbers that the frames of a `video` have in what they were chosen of, and how many frames that has, 0 where
    nobody knows; no numbers where none was left out.
    """
    used: Sequence[int] = getattr(video, "used", ())
    whole = int(getattr(video, "source_length", 0))
    return ((), 0) if list(used) == list(range(whole)) else (used, whole)


def get_frame_names(video: Video) -> tuple[str, ...]:
    """The names of a `video`'s frames, one each; none where frames have no names."""
    names: Any = getattr(video, "frame_names", None)
    return tuple(names or ())


def get_origin(video: Video) -> str:
    """What `open_video` opens the source of a `video` by again; "" where nothing does, such as of frames in memory."""
    return str(getattr(video, "origin", ""))


def describe_reading(video: Video) -> dict[str, Any]:
    """Which frames of its source a `video` has, and how large, as keyword arguments of `open_video` under "reading";
    nothing where it has all of them as they are.
    """
    chosen = dict(getattr(video, "reading", {}))
    return {"reading": chosen} if chosen else {}


def iterate_frames_from(video: Video, first: int) -> Iterator[Frame]:
    """The frames of a `video` from the `first` on. Those before it are read, too, for only then the video knows its
    times, gaps and damage.
    """
    return (frame for frame in video if frame.index >= first)


def read_through(video: Video) -> None:
    """Reads a `video` to its end, so that it knows its length, times, gaps and damage."""
    for _ in video:
        pass


def iterate_with_future(items: Iterable[T], n: int) -> Iterator[tuple[T, tuple[T, ...]]]:
    """Each item with up to n that follow it; at most n + 1 are ever held.

    >>> list(iterate_with_future("abc", 1))
    [('a', ('b',)), ('b', ('c',)), ('c', ())]
    """
    held: deque[T] = deque()
    for item in items:
        held.append(item)
        if len(held) > n:
            yield held[0], tuple(held)[1:]
            held.popleft()
    while held:
        yield held[0], tuple(held)[1:]
        held.popleft()


def iterate_windows_backward(start: int, stop: int, window: int) -> Iterator[range]:
    """Windows of `window` frames, the last maybe fewer, that cover [start, stop) from its end to its beginning.

    >>> list(iterate_windows_backward(0, 5, 2))
    [range(3, 5), range(1, 3), range(0, 1)]
    """
    for end in range(stop, start, -window):
        yield range(max(end - window, start), end)
