"""Several worker processes over one list of videos; one that dies, or is too slow, costs its video a try."""

from __future__ import annotations

import os
import pickle
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any, cast

from masklet.core.cores import count_usable_cores
from masklet.core.progress import Watch, discard_progress
from masklet.core.scratch import remove_dead_folders
from masklet.core.wording import get_reader
from masklet.io.output_folder import remove_dead_partials, remove_partials
from masklet.run.batch import Job
from masklet.run.batch_log import BatchLog
from masklet.run.claims import release_claims, release_dead_claims, remove_empty_folder
from masklet.run.outcome import Outcome
from masklet.run.plan import RunOptions
from masklet.run.queue import VideoQueue, describe_delay
from masklet.run.worker_process import CLOSED, ERROR, GRACE, HINT, MOVED, NOTICE, OPENED, OUTCOME, READY, SHOWN
from masklet.view.progress import Reporter

POLL = 0.2  # seconds
FALSE_STARTS = 3  # workers that die before their first video, after which no more are started
THREADS = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")  # of torch, and of OpenCV


@dataclass(frozen=True)
class Crew:
    """How videos are shared out.

    Attributes:
        count: worker processes.
        retries: times that a video is tried again that has ended its worker.
        timeout: seconds after which a video's worker is ended; None: never.
    """

    count: int = 1
    retries: int = 1
    timeout: float | None = None

    @property
    def is_needed(self) -> bool:
        """Whether there must be processes of their own."""
        return self.count > 1 or self.timeout is not None


class Worker:
    """One worker process, as the one that started it sees it."""

    def __init__(self, options: RunOptions, threads: int) -> None:
        """For a run with these `options`; it may use so many `threads`, unless the environment says how many."""
        self.pipe, theirs = Pipe()
        env = {**{name: str(threads) for name in THREADS}, **os.environ}
        command = [sys.executable, "-m", "masklet.run.worker_process", str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        theirs.close()
        self.job: Job | None = None
        self.is_ready = self.is_late = False
        self.since, self._shown = 0.0, ExitStack()
        self._watch: Watch = discard_progress
        self._send((options, get_reader()))

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a video."""
        return self.is_ready and self.job is None

    def assign(self, job: Job) -> None:
        """Has it do a job."""
        self.job, self.since = job, monotonic()
        self._send(job.name)

    def dismiss(self) -> None:
        """Tells it that there is no more to do; one that is still loading need not go on."""
        if self.is_ready:
            self._send(None)
        else:
            self.process.terminate()

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, which is seen when it is heard
            self.pipe.send_bytes(pickle.dumps(message))  # torch would have tensors shared

    def follow(self, kind: int, told: Sequence[Any], reporter: Reporter) -> Outcome | None:
        """Hands on to the `reporter` what the worker has `told`; returns the outcome of its job where it is done."""
        if kind == OUTCOME:
            outcome: Outcome = told[0]
            return outcome
        if kind == READY:
            self.is_ready = True
        elif kind == OPENED:
            self._watch = self._shown.enter_context(reporter.video(*told))
        elif kind == MOVED:
            self._watch(*told)
        elif kind == CLOSED:
            self.hide()
        else:
            hear = {SHOWN: reporter.show, ERROR: reporter.error, NOTICE: reporter.notice, HINT: reporter.hint}
            cast(Callable[..., None], hear[kind])(*told)
        return None

    def hide(self) -> None:
        """Ends what is shown of its video."""
        self._shown.close()

    def kill_if_late(self, timeout: float | None) -> None:
        """Ends it where its video takes more than `timeout` seconds; it is heard to have died then."""
        if timeout is not None and self.job is not None and monotonic() - self.since > timeout:
            self.is_late = True
            self.process.kill()

    def explain_end(self, timeout: float | None) -> str:
        """Why its video was not done."""
        if self.is_late:
            return describe_delay(timeout)
        status = self.process.wait()
        if status >= 0:
            return f"its process ended with exit status {status}"
        name = signal.Signals(-status).name
        more = "; it may need more memory than there is" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{more}"

    def end(self, deadline: float) -> None:
        """Waits until it has ended; one that has not by the `deadline`, as `monotonic` has it, is killed."""
        try:
            self.process.wait(max(deadline - monotonic(), 0))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.hide()
        self.pipe.close()


class WorkerPool:
    """Workers over one queue of videos."""

    def __init__(self, options: RunOptions, crew: Crew, queue: VideoQueue, log: BatchLog) -> None:
        """For a run with these `options`; the `log` hears how far each video is, and of its outcome."""
        self.options, self.crew, self.queue, self.log = options, crew, queue, log
        self.workers: list[Worker] = []
        self._false_starts = 0

    def run(self) -> None:
        """Does all videos of the queue, with as many workers as are of use."""
        try:
            while True:
                self._hand_out()
                if not (self.queue or any(worker.job for worker in self.workers)):
                    break
                self._listen()
            for worker in self.workers:
                worker.dismiss()
        except BaseException:
            for worker in self.workers:
                worker.process.terminate()
            raise
        finally:
            deadline = monotonic() + GRACE
            for worker in self.workers:
                worker.end(deadline)

    def _hand_out(self) -> None:
        """Gives idle workers their next videos; starts as many as are of use."""
        for worker in self.workers:
            if worker.is_idle and (job := self.queue.take()):
                worker.assign(job)
        starting = sum(not w.is_ready for w in self.workers)
        threads = max(count_usable_cores() // self.crew.count, 1)
        while starting < len(self.queue) and len(self.workers) < self.crew.count:
            self.workers.append(Worker(self.options, threads))
            starting += 1

    def _listen(self) -> None:
        """Waits a moment for what workers say, and for those that die or are late."""
        speaking = wait([worker.pipe for worker in self.workers], POLL)
        for worker in list(self.workers):
            if worker.pipe in speaking:
                self._hear(worker)
            elif worker.process.poll() is not None:
                self._bury(worker)
        for worker in self.workers:
            worker.kill_if_late(self.crew.timeout)

    def _hear(self, worker: Worker) -> None:
        """Takes in a message; that of an end is an outcome, or puts the video back."""
        try:
            kind, told = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        outcome, job = worker.follow(kind, told, self.log.reporter), worker.job
        if outcome is not None and job is not None:
            worker.job = None
            settled = self.queue.settle(job, outcome)
            if settled is not None:
                self.log.note(settled)

    def _bury(self, worker: Worker) -> None:
        """Clears away what a worker that died has left, and records the videos that are given up by that."""
        self.workers.remove(worker)
        worker.end(monotonic() + GRACE)
        release_claims(self.options.out, platform.node(), worker.process.pid)
        remove_partials(self.options.out, platform.node(), worker.process.pid)
        reason = worker.explain_end(self.crew.timeout)
        if worker.job is not None:
            outcome = self.queue.fail(worker.job, reason, monotonic() - worker.since)
            given_up = [outcome] if outcome else []
        else:
            self._false_starts += 1
            is_hopeless = self._false_starts >= FALSE_STARTS
            given_up = self.queue.give_up(f"no worker can be started: {reason}") if is_hopeless else []
        for outcome in given_up:
            self.log.record(outcome)


def clean_up(out: Path) -> None:
    """Removes what dead processes of this machine have left: claims, unfinished folders, temporary files."""
    if out.is_dir():
        release_dead_claims(out)
        remove_dead_partials(out)
        remove_empty_folder(out)
    remove_dead_folders(Path(tempfile.gettempdir()))
