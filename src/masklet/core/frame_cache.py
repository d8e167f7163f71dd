"""What was computed of the frame at hand, for those who ask again of the very same things. No state: a value that is
not kept is computed anew, and is the same.
"""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class FrameCache(Generic[V]):
    """One value with what it was computed of, compared by identity; the next value takes its place.

    >>> cache, frame, other = FrameCache[int](), [1], [1]
    >>> cache.keep(5, frame), cache.find(frame), cache.find(other)
    (5, 5, None)
    """

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._value: V | None = None

    def keep(self, value: V, *of: object) -> V:
        """Keeps `value`, which was computed of the things in `of`, in place of the one before; returns it."""
        self._value, self._of = value, of
        return value

    def find(self, *of: object) -> V | None:
        """The value, where it was computed of these very things; else None."""
        same = len(of) == len(self._of) and all(a is b for a, b in zip(of, self._of, strict=True))
        return self._value if same else None
