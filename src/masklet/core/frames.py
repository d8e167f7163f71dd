"""Frames, and the orders in which they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)  # compared by identity: two frames are the same when they are one object
class Frame:
    """One picture of a video."""

    index: int  # position in the source, never in a window
    image: UInt8[np.ndarray, "h w 3"]  # RGB
    time: float = 0.0  # seconds from the start of the source

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


@runtime_checkable
class Video(Protocol):
    """A source that can be read more than once, a window at a time.

    `len()` is the container's word until the frames have been read once, then what was really there.
    `damage` says, after reading, why the frames ended early; None where they did not.
    """

    name: str
    size: tuple[int, int]  # h, w
    rate: float  # frames per second
    damage: str | None

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def read(self, start: int, stop: int) -> list[Frame]: ...


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
