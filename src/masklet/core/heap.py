"""What a process holds of memory that it has freed."""

from __future__ import annotations

import ctypes
from functools import cache
from time import monotonic
from typing import Any

REST = 2.0  # seconds from one time to the next: what is given back and needed again costs a fault for each page
_last_times = [0.0]


def return_freed_memory() -> None:
    """Gives freed memory back to the system, where its C library can (glibc), unless it has just been done: many arrays
    of some 100 kB, made and freed in turn with others that stay, leave holes between these that are kept for what may
    never come.
    """
    trim = _find_trim()
    if trim and monotonic() - _last_times[0] > REST:
        trim(0)
        _last_times[0] = monotonic()


@cache
def _find_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
