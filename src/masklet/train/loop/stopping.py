"""Being asked to stop, at a place where it does no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def detect_stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT (Ctrl-C) or SIGTERM has come. The first is only noted; the second does what it did before."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # no other thread may handle signals
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        restore()
