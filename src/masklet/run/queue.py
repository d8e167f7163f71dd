"""The videos of a batch that are left to do, and how often each was tried."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable

from masklet.core.wording import name_argument
from masklet.run.batch import Job, process_video
from masklet.run.batch_log import BatchLog
from masklet.run.outcome import CLAIMED, FAILED, Outcome


class VideoQueue:
    """Hands out jobs. One that ended its worker is tried again, one that another run is at is looked at once more when
    all others are done.
    """

    def __init__(self, jobs: Iterable[Job], retries: int = 0) -> None:
        """The `jobs` in their order; each may end its worker `retries` times more than once."""
        self.retries = retries
        self._left = deque(jobs)
        self._tries: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._claimed = deque[Job]()
        self._is_second_look = False

    def __len__(self) -> int:
        return len(self._left) + len(self._claimed)

    def take(self) -> Job | None:
        """The next job; None where there is none now."""
        if not self._left and not self._is_second_look:
            self._left, self._claimed, self._is_second_look = self._claimed, deque(), True
        return self._left.popleft() if self._left else None

    def settle(self, job: Job, outcome: Outcome) -> Outcome | None:
        """The `outcome` of a `job`; None where that is not the last word, and the job will be handed out again."""
        if outcome.state != CLAIMED or self._is_second_look:
            return outcome
        self._claimed.append(job)
        return None

    def fail(self, job: Job, reason: str, seconds: float) -> Outcome | None:
        """The outcome of a `job` that ended its worker after so many `seconds`, for a `reason`; None where it will be
        handed out again.
        """
        self._tries[job.name] += 1
        self._seconds[job.name] += seconds
        if self._tries[job.name] <= self.retries:
            self._left.append(job)
            return None
        times = f", {self._tries[job.name]} times" if self.retries else ""
        seconds = round(self._seconds[job.name], 3)
        return job.end(FAILED, f"{job.name}: {reason}{times}", seconds=seconds, foreseen=False)

    def give_up(self, reason: str) -> list[Outcome]:
        """The outcomes of all that are left, where no more can be done."""
        left = [*self._left, *self._claimed]
        self._left, self._claimed = deque(), deque()
        return [job.end(FAILED, f"{job.name}: {reason}", foreseen=False) for job in left]


def describe_delay(timeout: float | None) -> str:
    """Why a video was given up that took more than `timeout` seconds."""
    return f"not done within {timeout:g} s ({name_argument('timeout')})"


class HerePool:
    """This process over a queue of videos, one after the other."""

    def __init__(self, queue: VideoQueue, log: BatchLog) -> None:
        """The `log` hears how far each video of the `queue` is, and of its outcome."""
        self.queue, self.log = queue, log

    def run(self) -> None:
        """Does all videos of the queue in their turn."""
        while job := self.queue.take():
            outcome = self.queue.settle(job, process_video(job, self.log.reporter))
            if outcome is not None:
                self.log.note(outcome)
