"""What was computed of the frame at hand, for those who ask again of the very same things. No state: a value that is
not kept is computed anew, and is the same.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

V = TypeVar("V")


class IdentityCache(Generic[V]):
    """The last values, with what each was computed of, compared by identity.

    >>> cache, frame, other = IdentityCache[int](), [1], [1]
    >>> cache.keep(5, frame), cache.find(frame), cache.find(other)
    (5, 5, None)
    """

    def __init__(self, most: int = 1) -> None:
        """`most`: values that are kept; the next one takes the place of the oldest."""
        self._kept: deque[tuple[tuple[object, ...], V]] = deque(maxlen=most)

    def keep(self, value: V, *of: object) -> V:
        """Keeps `value`, which was computed of the things in `of`; returns it."""
        self._kept.append((of, value))
        return value

    def find(self, *of: object) -> V | None:
        """The value that was computed of these very things; None where none was, or it is kept no more."""
        for known, value in tuple(self._kept):  # another thread may keep one meanwhile
            if len(of) == len(known) and all(a is b for a, b in zip(of, known, strict=True)):
                return value
        return None

    def get_latest(self) -> V | None:
        """The value that was kept last; None where none was."""
        kept = tuple(self._kept)
        return kept[-1][1] if kept else None
