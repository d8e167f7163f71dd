"""The videos of a batch over the actors of a Ray cluster. Ray is imported when it is used (`masklet[ray]`).

Only options, names and outcomes pass through Ray's object store: sources, frames and results stay on the disk that all
machines share.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from time import monotonic
from types import ModuleType
from typing import Any

from masklet.core.errors import InputError
from masklet.core.wording import Reader, get_reader, name_argument, write_messages_for
from masklet.io.output_folder import remove_partials
from masklet.run.batch import Job, process_video
from masklet.run.batch_log import BatchLog
from masklet.run.claims import release_claims
from masklet.run.outcome import Outcome
from masklet.run.plan import RunOptions, plan_jobs
from masklet.run.queue import VideoQueue, describe_delay
from masklet.run.worker_process import GRACE
from masklet.run.workers import FALSE_STARTS, POLL, Crew
from masklet.view.progress import QuietReporter

LOCAL = "local"  # the address of a cluster that is started on this machine for the run


@dataclass(frozen=True)
class RayCrew:
    """How videos are shared out over a cluster.

    Attributes:
        crew: how many actors, and what becomes of a video that ends its actor.
        address: of the cluster: "auto" is that of this machine, "local" one that is started here for the run.
        gpus: that each actor takes, which may be a part of one.
    """

    crew: Crew
    address: str
    gpus: float = 0.0


class VideoActor:
    """Loads the models once, and does the videos that it is told to do, in a process somewhere in the cluster."""

    def __init__(self, options: RunOptions, folder: str, reader: Reader) -> None:
        """For a run with these `options`, whose paths count from `folder`; messages are for the `reader`."""
        os.chdir(folder)
        self.reader: Reader = reader
        with write_messages_for(reader):
            self.jobs = {job.name: job for job in plan_jobs(options)}

    def identify(self) -> tuple[str, int]:
        """Where it is: the host, as claims name it, and the process."""
        return platform.node(), os.getpid()

    def process(self, name: str) -> Outcome:
        """Does one video."""
        with write_messages_for(self.reader):
            return process_video(self.jobs[name], QuietReporter())


class Seat:
    """One actor, as the one that started it sees it: it is starting, idle, or at a job."""

    def __init__(self, actor: Any) -> None:
        """Of an `actor` that has just been asked for."""
        self.actor, self.answer = actor, actor.identify.remote()
        self.place: tuple[str, int] | None = None
        self.job: Job | None = None
        self.since = monotonic()
        self.is_late = False

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a video."""
        return self.place is not None and self.job is None

    def assign(self, job: Job) -> None:
        """Has it do a job."""
        self.job, self.since, self.answer = job, monotonic(), self.actor.process.remote(job.name)


class RayPool:
    """Actors over one queue of videos."""

    def __init__(self, options: RunOptions, crew: RayCrew, queue: VideoQueue, log: BatchLog) -> None:
        """For a run with these `options`; the `log` hears of each outcome. Raises InputError where there is no Ray, or
        no cluster at the address.
        """
        self.options, self.crew, self.queue, self.log = options, crew, queue, log
        self.ray = import_ray()
        self.seats: list[Seat] = []
        self._false_starts = 0
        try:
            self.ray.init(address=crew.address, log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = str(error).partition("\n")[0]
            where = name_argument("address", crew.address, option="ray")
            raise InputError(f"{where}: no cluster is there ({said}); start one, or take local") from None

    def run(self) -> None:
        """Does all videos."""
        try:
            while True:
                self._hand_out()
                if not (self.queue or any(seat.job for seat in self.seats)):
                    break  # though an actor may wait for a machine that is no more
                self._listen()
        finally:
            for seat in self.seats:
                self.ray.kill(seat.actor)
            for seat in self.seats:
                if seat.job is not None:
                    self.ray.wait([seat.answer], timeout=GRACE)  # until it is dead
                self._clear_away(seat)

    def _hand_out(self) -> None:
        """Gives idle actors their next videos; asks for as many actors as are of use."""
        for seat in self.seats:
            if seat.is_idle and (job := self.queue.take()):
                seat.assign(job)
        starting = sum(seat.place is None for seat in self.seats)
        while starting < len(self.queue) and len(self.seats) < self.crew.crew.count:
            actor = self.ray.remote(VideoActor).options(num_cpus=1, num_gpus=self.crew.gpus)
            self.seats.append(Seat(actor.remote(self.options, os.getcwd(), get_reader())))
            starting += 1

    def _listen(self) -> None:
        """Waits a moment for answers, and for actors that die or are late."""
        busy = {seat.answer: seat for seat in self.seats if not seat.is_idle}
        for answer in self.ray.wait(list(busy), timeout=POLL)[0]:
            try:
                self._hear(busy[answer], self.ray.get(answer))
            except self.ray.exceptions.RayError as error:  # it died, with its machine or alone, or could not start
                self._bury(busy[answer], error)
        timeout = self.crew.crew.timeout
        for seat in self.seats:
            if timeout is not None and seat.job is not None and monotonic() - seat.since > timeout:
                seat.is_late = True
                self.ray.kill(seat.actor)

    def _hear(self, seat: Seat, answer: Any) -> None:
        """Takes in where an actor is, or the outcome of its job."""
        if seat.job is None:
            seat.place = answer
            return
        settled = self.queue.settle(seat.job, answer)
        seat.job = None
        if settled is not None:
            self.log.note(settled)

    def _bury(self, seat: Seat, error: Exception) -> None:
        """Clears away what an actor that died has left, and records the videos that are given up by that."""
        self.seats.remove(seat)
        self._clear_away(seat)
        if seat.job is not None:
            late = describe_delay(self.crew.crew.timeout) if seat.is_late else ""
            reason = late or f"its process or machine went away ({type(error).__name__})"
            outcome = self.queue.fail(seat.job, reason, monotonic() - seat.since)
            given_up = [outcome] if outcome else []
        else:
            self._false_starts += 1
            is_hopeless = self._false_starts >= FALSE_STARTS
            said = " ".join(str(error).split())[-300:]
            given_up = self.queue.give_up(f"no actor can be started: {said}") if is_hopeless else []
        for outcome in given_up:
            self.log.record(outcome)

    def _clear_away(self, seat: Seat) -> None:
        """Frees the videos of an actor that is no more, and removes its unfinished folders."""
        if seat.place is not None:
            release_claims(self.options.out, *seat.place)
            remove_partials(self.options.out, *seat.place)


def import_ray() -> ModuleType:
    """Ray. Raises InputError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise InputError(
            f"{name_argument('address', option='ray')}: Ray is not installed; pip install 'masklet[ray]'"
        ) from None
    found: ModuleType = ray
    return found
