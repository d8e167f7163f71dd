"""What all sources of frames have in common: a name, one size, a length that is learned, gaps, times and damage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import UInt8

from masklet.core.errors import InputError
from masklet.core.frames import Frame, Gap
from masklet.core.limits import LARGEST_ASPECT, check_frame_count, check_frame_rate, check_frame_size
from masklet.core.wording import name_argument

STEADY = 0.002  # seconds that times may be off those of a constant rate: containers round to thousandths


class DamagedSourceError(Exception):
    """The rest of a source cannot be read. The message says why."""


class FrameSource(ABC):
    """A `Video`, made of a way to get its frames and a way to get a window of them.

    `len()` is what the source says of itself until its frames have been read to the end once, then what was really
    there; 0 where a stream says nothing. `damage` is None, or one sentence on why the frames ended early. Frames that
    could not be read are copies of one beside them, and in `gaps`. `notes` are sentences on what was done to the
    frames; `times` are seconds of each frame from the first once all have been read, empty where the rate is constant.
    With `strict`, damage and gaps are an InputError.
    """

    def __init__(self, label: str, name: str, rate: float) -> None:
        self.label, self.name, self.rate = label, name, rate
        self.size = (0, 0)  # h, w; set by the one who has seen the first frame
        self.pixel_aspect = 1.0  # width of a pixel over its height
        self.damage: str | None = None
        self.notes: list[str] = []
        self.times: tuple[float, ...] = ()
        self.strict = False
        self.lost: dict[int, str] = {}  # why, of the frames that others stand in for
        self._length: int | None = None

    @property
    def origin(self) -> str:
        """What `open_video` opens it by again, all of it; "" where nothing does."""
        return ""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """All frames from the first on, those in gaps entered in `lost`; raises DamagedSourceError where they end
        early.
        """

    @abstractmethod
    def said(self) -> int:
        """How many frames the source claims to have; 0: it does not say."""

    @abstractmethod
    def read(self, start: int, stop: int) -> list[Frame]:
        """The frames [start, stop) again, pixel for pixel; fewer where the source ends before."""

    def foresee_times(self) -> Sequence[float]:
        """Seconds of each frame, where they are known before any is read; else nothing."""
        return [n / self.rate for n in range(self.said())]

    def check_before_reading(self) -> None:  # noqa: B027  (most know it when they are opened, or never)
        """Looks at all that can be known of every frame before any is read; who asks for frames does it, too. Raises
        InputError where they cannot be used.
        """

    def read_frames(self, indices: Sequence[int]) -> list[Frame]:
        """The frames of these `indices`, which rise and are all there."""
        return [frame for n in indices for frame in self.read(n, n + 1)]

    def frames_from(self, first: int) -> Iterator[Frame]:
        """As `frames`, without those before the `first`."""
        return islice(self.frames(), first, None)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The frames that could not be read, those beside one another together where their cause is the same."""
        gaps: list[Gap] = []
        for n, cause in sorted(self.lost.items()):
            follows = gaps and gaps[-1].stop == n and gaps[-1].cause == cause
            begin = gaps.pop().start if follows else n
            gaps.append(Gap(begin, n + 1, cause))
        return tuple(gaps)

    @property
    def is_known(self) -> bool:
        """Whether it is sure which frames there are."""
        return self._length is not None

    def note(self, sentence: str) -> None:
        """Adds a sentence to the notes, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Releases what the source holds, such as its temporary folder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.said() if self._length is None else self._length

    def __iter__(self) -> Iterator[Frame]:
        times: list[float] = []
        try:
            for frame in self.frames():
                self.check(frame)
                if self.strict and self.lost:
                    raise InputError(self.refuse_gap())
                times.append(frame.time)
                check_frame_count(self.label, len(times))
                yield frame
        except DamagedSourceError as reason:
            self.damage = self._explain_damage(len(times), str(reason))
            if self.strict:
                raise InputError(
                    f"{self.damage}; give an intact copy, or leave {name_argument('strict')} out"
                ) from None
        self._length = len(times)
        self.times = keep_uneven_times(times, self.rate)

    def refuse_gap(self) -> str:
        """The sentence with which `strict` refuses a frame that cannot be read."""
        n, cause = min(self.lost.items())
        told = f"frame {n} cannot be read ({cause}); give an intact copy, or leave {name_argument('strict')} out"
        return f"{self.label}: {told}"

    def _explain_damage(self, done: int, reason: str) -> str:
        of = f" of {self.said()}" if self.said() else ""
        return f"{self.label}: damaged after frame {done}{of} ({reason}); the frames before it were used"

    def check_limits(self) -> None:
        """Raises InputError where what the source says of itself is more than a result can hold."""
        check_frame_size(self.label, *self.size)
        check_frame_rate(self.label, self.rate)
        if not 1 / LARGEST_ASPECT <= self.pixel_aspect <= LARGEST_ASPECT:
            self.note(f"pixels {self.pixel_aspect:g} times as wide as high are none that a camera has: taken as square")
            self.pixel_aspect = 1.0

    def check(self, frame: Frame) -> None:
        """Raises InputError where a `frame` differs in size from the first."""
        if frame.size != self.size:
            raise InputError(
                f"{self.label}: frame {frame.index} is {format_size(frame.size)}, "
                f"the first one {format_size(self.size)}; "
                "give frames of one size"
            )

    def start(self) -> None:
        """Takes the size from the first frame. Raises InputError where there is none."""
        frames = self.frames()
        try:
            first = next(frames, None)
        except DamagedSourceError as reason:
            raise InputError(f"{self.label}: damaged before its first frame ({reason}); give an intact copy") from None
        if first is None:
            raise InputError(f"{self.label}: holds no frame; give a video with at least one")
        self.size = first.size


class ReadFrame(NamedTuple):
    """What came of reading a frame."""

    image: UInt8[np.ndarray, "h w 3"] | str  # the pixels, or why there are none, in words
    time: float  # seconds from the start of the source
    name: str = ""


def fill_gaps(items: Iterable[ReadFrame], lost: dict[int, str]) -> Iterator[Frame]:
    """Frames in which a copy stands in for what could not be read: of the last good one, at the beginning of the
    first. Raises DamagedSourceError where none is good.

    Args:
        items: what came of reading each frame.
        lost: where frames that could not be read are entered with their cause.
    """
    image = None
    waiting: list[tuple[int, ReadFrame]] = []
    for n, item in enumerate(items):
        if isinstance(item.image, str):
            lost[n] = item.image
        else:
            image = item.image
        if image is None:
            waiting.append((n, item))
            continue
        for m, one in waiting:
            yield Frame(m, image, one.time, one.name)
        waiting.clear()
        yield Frame(n, image, item.time, item.name)
    if waiting:
        raise DamagedSourceError(waiting[0][1].image)


def keep_uneven_times(times: Sequence[float], rate: float) -> tuple[float, ...]:
    """Seconds of each frame from the first; nothing where they are those of a constant `rate` in frames per second.

    >>> keep_uneven_times([5.0, 5.1, 5.2], 10.0), keep_uneven_times([0.0, 0.1, 0.4], 10.0)
    ((), (0.0, 0.1, 0.4))
    """
    since = np.asarray(times, float) - (times[0] if len(times) else 0.0)
    if len(since) == 0 or np.abs(since - np.arange(len(since)) / rate).max() <= STEADY:
        return ()
    return tuple(np.round(np.maximum.accumulate(since), 6).tolist())


def format_size(size: tuple[int, int]) -> str:
    """A size (h, w) as people write it.

    >>> format_size((272, 640))
    '640x272'
    """
    return f"{size[1]}x{size[0]}"
