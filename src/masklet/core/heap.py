"""What a process holds of memory that it has freed."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def return_freed_memory() -> None:
    """Gives freed memory back to the system, where its C library can (glibc): many arrays of some 100 kB, made and
    freed in turn with others that stay, leave holes between these that are kept for what may never come.
    """
    trim = _find_trim()
    if trim:
        trim(0)


@cache
def _find_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
