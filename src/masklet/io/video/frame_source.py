"""What all sources of frames have in common: a name, one size, a length that is learned, and damage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

from masklet.core.errors import InputError
from masklet.core.frames import Frame


class DamagedSourceError(Exception):
    """The rest of a source cannot be read. The message says why."""


class FrameSource(ABC):
    """A `Video`, made of a way to get its frames and a way to get a window of them.

    `len()` is what the source says of itself until its frames have been read to the end once, then what was really
    there; 0 where a stream says nothing. `damage` is None, or one sentence on why the frames ended early.
    """

    def __init__(self, label: str, name: str, rate: float) -> None:
        self.label, self.name, self.rate = label, name, rate
        self.size = (0, 0)  # h, w; set by the one who has seen the first frame
        self.damage: str | None = None
        self._length: int | None = None

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """All frames from the first on; raises DamagedSourceError where they end early."""

    @abstractmethod
    def said(self) -> int:
        """How many frames the source claims to have; 0: it does not say."""

    @abstractmethod
    def read(self, start: int, stop: int) -> list[Frame]:
        """The frames [start, stop) again, pixel for pixel; fewer where the source ends before."""

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Releases what the source holds, such as its temporary folder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.said() if self._length is None else self._length

    def __iter__(self) -> Iterator[Frame]:
        done = 0
        try:
            for frame in self.frames():
                self.check(frame)
                done += 1
                yield frame
        except DamagedSourceError as reason:
            self.damage = self._sentence(done, str(reason))
        self._length = done

    def _sentence(self, done: int, reason: str) -> str:
        of = f" of {self.said()}" if self.said() else ""
        return f"{self.label}: damaged after frame {done}{of} ({reason}); the frames before it were used"

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


def format_size(size: tuple[int, int]) -> str:
    """A size (h, w) as people write it.

    >>> format_size((272, 640))
    '640x272'
    """
    return f"{size[1]}x{size[0]}"
