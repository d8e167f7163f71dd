"""A worker: a process that loads the models once and does the videos that it is told to do, one after the other.

`python -m masklet.run.worker_process HANDLE` is started by `masklet.run.workers`, with the open end of a pipe.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from masklet.core.errors import end_on_signal
from masklet.core.progress import Watch
from masklet.core.wording import write_messages_for
from masklet.run.batch import process_video
from masklet.run.plan import plan_jobs
from masklet.view.progress import FinishedVideo, QuietReporter

READY, OUTCOME, OPENED, MOVED, CLOSED, SHOWN, ERROR, NOTICE, HINT = range(9)  # what a worker's messages are
PAUSE = 0.1  # seconds between two messages of how far a video is
GRACE = 10.0  # seconds in which a process that was asked to end has to


class PipeReporter(QuietReporter):
    """Tells the process that started this one."""

    def __init__(self, pipe: Any) -> None:
        """Through a `pipe`."""
        self.pipe = pipe

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Watch]:
        """How far a video is, by and by."""
        self.pipe.send((OPENED, (name, frames)))
        told = 0.0

        def watch(phase: str, done: int, total: int | None, objects: int) -> None:
            nonlocal told
            if time.monotonic() - told >= PAUSE or done in (1, total):
                told = time.monotonic()
                self.pipe.send((MOVED, (phase, done, total, objects)))

        try:
            yield watch
        finally:
            self.pipe.send((CLOSED, ()))

    def show(self, finished: FinishedVideo) -> None:
        """A video that is done."""
        self.pipe.send((SHOWN, (finished,)))

    def notice(self, video: str, sentence: str) -> None:
        """What happened to a `video`."""
        self.pipe.send((NOTICE, (video, sentence)))

    def hint(self, sentence: str) -> None:
        """What the reader should know."""
        self.pipe.send((HINT, (sentence,)))

    def error(self, message: str, video: str = "") -> None:
        """What went wrong, and with which `video`."""
        self.pipe.send((ERROR, (message, video)))


def end_with_parent(parent: int) -> None:
    """Ends this process when its `parent` is no more: nobody would hear of what it does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PAUSE)
        os.kill(os.getpid(), signal.SIGTERM)  # so that unfinished folders are removed
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def serve(pipe: Any) -> None:
    """Does what comes through the `pipe` until it says that nothing more will."""
    options, reader = pickle.loads(pipe.recv_bytes())
    with write_messages_for(reader):
        jobs = {job.name: job for job in plan_jobs(options)}
        pipe.send((READY, ()))
        while (name := pickle.loads(pipe.recv_bytes())) is not None:
            pipe.send((OUTCOME, (process_video(jobs[name], PipeReporter(pipe)),)))


def main() -> None:
    """Signals end the process as they end the command: what is unfinished is removed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_on_signal)
    end_with_parent(os.getppid())
    try:
        serve(Connection(int(sys.argv[1])))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the other end is gone
        sys.exit(1)


if __name__ == "__main__":
    main()
