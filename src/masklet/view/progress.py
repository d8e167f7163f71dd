"""How a run tells how far it is: bars for people, JSON lines for programs, or nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from masklet.core.errors import escape_control_characters
from masklet.core.progress import Watch
from masklet.core.result import VideoResult


@dataclass(frozen=True)
class FinishedVideo:
    """What is told of a video that is done."""

    name: str
    folder: str
    objects: int
    frames: int
    seconds: float
    parts: str
    notes: Sequence[str]

    @staticmethod
    def describe(folder: Path, result: VideoResult, seconds: float) -> FinishedVideo:
        """Of a `result` in its `folder` that took so many `seconds`."""
        parts, notes = format_used_parts(result), tuple(result.provenance.notes)
        return FinishedVideo(folder.name, str(folder), len(result.masklets), result.length, seconds, parts, notes)


class BatchProgress:
    """How far a batch is: videos, frames, and the time that is left at the pace of those that were done so far."""

    def __init__(self, videos: int, clock: Callable[[], float] = monotonic) -> None:
        """Of so many `videos`; `clock` tells seconds."""
        self.videos, self.clock, self.since = videos, clock, clock()
        self.ended = self.worked = self.frames = 0

    def count(self, frames: int, is_new: bool) -> None:
        """One more video is through, of so many `frames`; `is_new`: it was worked on, and not there before."""
        self.ended, self.worked, self.frames = self.ended + 1, self.worked + is_new, self.frames + frames

    @property
    def seconds_left(self) -> float | None:
        """None before the first video that was worked on."""
        if not self.worked:
            return None
        return (self.clock() - self.since) * (self.videos - self.ended) / self.worked


class Reporter(Protocol):
    """What the command line tells of its work."""

    def batch(self, videos: int) -> AbstractContextManager[None]: ...
    def video(self, name: str, frames: int) -> AbstractContextManager[Watch]: ...
    def done(self, folder: Path, result: VideoResult, seconds: float) -> None: ...
    def show(self, finished: FinishedVideo) -> None: ...
    def count(self, name: str, state: str, frames: int, is_new: bool) -> None: ...
    def summary(self, table: str, counts: Mapping[str, int]) -> None: ...
    def plan(self, sentence: str, video: str = "") -> None: ...
    def hint(self, sentence: str) -> None: ...
    def notice(self, video: str, sentence: str) -> None: ...
    def error(self, message: str, video: str = "") -> None: ...


class QuietReporter:
    """Says nothing but errors."""

    @contextmanager
    def batch(self, videos: int) -> Iterator[None]:
        """The time in which all `videos` are done; nothing is said of it."""
        yield

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Watch]:
        """A watcher that says nothing."""
        yield lambda phase, done, total, objects: None

    def done(self, folder: Path, result: VideoResult, seconds: float) -> None:
        """Says of the `result` in `folder`, which took so many `seconds`, what `show` says of it."""
        self.show(FinishedVideo.describe(folder, result, seconds))

    def show(self, finished: FinishedVideo) -> None:
        """Says nothing of a video that is done."""

    def count(self, name: str, state: str, frames: int, is_new: bool) -> None:
        """Says nothing of how far the batch is."""

    def summary(self, table: str, counts: Mapping[str, int]) -> None:
        """Says nothing of the whole batch."""

    def plan(self, sentence: str, video: str = "") -> None:
        """What would become of a `video`, or of all, on standard output: that is what was asked for."""
        sys.stdout.write(escape_control_characters(f"{video}: {sentence}" if video else sentence) + "\n")

    def hint(self, sentence: str) -> None:
        """Drops the `sentence`: who asked for quiet wants no hints."""

    def notice(self, video: str, sentence: str) -> None:
        """Drops what happened to a `video` while it was made, in a `sentence`."""

    def error(self, message: str, video: str = "") -> None:
        """One sentence on standard error; it names the `video` by itself."""
        sys.stderr.write(f"masklet: {message}\n")


class BarReporter(QuietReporter):
    """Bars on standard error. Of one video a bar a phase; of a batch one for all of it, and one for each video that is
    being worked on.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, markup=False, emoji=False)  # names are shown as they are
        self._bars: Progress | None = None  # of a batch
        self._batch = BatchProgress(0)
        self._total = TaskID(0)

    @contextmanager
    def batch(self, videos: int) -> Iterator[None]:
        """Shows how many of several `videos` are done, as long as the context is open."""
        if videos < 2:
            yield
            return
        name, figures = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[figures]}")
        with Progress(name, BarColumn(), MofNCompleteColumn(), figures, console=self.console) as self._bars:
            self._batch = BatchProgress(videos)
            self._total = self._bars.add_task("videos", total=videos, figures="")
            try:
                yield
            finally:
                self._bars = None

    def count(self, name: str, state: str, frames: int, is_new: bool) -> None:
        """One more video, of so many `frames`, is through: moves the batch's bar."""
        if self._bars is not None:
            self._batch.count(frames, is_new)
            figures = f"{self._batch.frames:,} frames{format_time_left(self._batch.seconds_left)}"
            self._bars.update(self._total, completed=self._batch.ended, figures=figures)

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Watch]:
        """Shows bars for the video `name`, one a phase, or in a batch one that goes when the video is done, as long as
        the context is open; the watcher moves them.
        """
        if self._bars is not None:
            with show_video_bar(self._bars, name) as watch:
                yield watch
            return
        with show_progress_bars(
            self.console, name, "{task.fields[rate]:.1f} frames/s, {task.fields[objects]} objects,"
        ) as watch:
            yield watch

    def show(self, finished: FinishedVideo) -> None:
        """Says what was found, in how many seconds and by which parts it was made, its folder and notes."""
        lines = [
            f"{finished.name}: {format_result_summary(finished)}",
            f"  {finished.folder}",
            f"  by {finished.parts}" * bool(finished.parts),
        ]
        for line in (*lines, *(f"  note: {note}" for note in finished.notes)):
            if line:
                self.console.print(escape_control_characters(line), highlight=False, soft_wrap=True)

    def summary(self, table: str, counts: Mapping[str, int]) -> None:
        """The whole batch as a `table`."""
        for line in table.splitlines():
            self.console.print(escape_control_characters(line), highlight=False, soft_wrap=True)

    def notice(self, video: str, sentence: str) -> None:
        """What happened to a `video` while it was made."""
        said = escape_control_characters(f"{video}: {sentence}")
        self.console.print(said, highlight=False, soft_wrap=True)

    def hint(self, sentence: str) -> None:
        """What the reader could do next, once all is done."""
        self.console.print(sentence, highlight=False, soft_wrap=True)


@contextmanager
def show_video_bar(bars: Progress, name: str) -> Iterator[Watch]:
    """One line of `bars` for the video `name`, which goes when the context ends; it starts anew with each phase."""
    shown, phases = escape_control_characters(name), dict[str, float]()
    task = bars.add_task(shown, total=None, figures="")

    def watch(phase: str, done: int, total: int | None, objects: int) -> None:
        passed = monotonic() - phases.setdefault(phase, monotonic())
        rate = (done - 1) / passed if passed and done > 1 else 0.0
        left = (total - done) / rate if total and rate else None
        figures = f"{rate:.1f} frames/s, {objects} objects{format_time_left(left)}"
        bars.update(task, description=f"{shown} {phase}", completed=done, total=total, figures=figures)

    try:
        yield watch
    finally:
        bars.remove_task(task)


def format_time_left(seconds: float | None) -> str:
    """The end of a line that says how long something will take; nothing where nobody knows.

    >>> format_time_left(75.3)
    ', 0:01:15 left'
    """
    return "" if seconds is None else f", {timedelta(seconds=round(seconds))} left"


@contextmanager
def show_progress_bars(console: Console, name: str, figures: str) -> Iterator[Watch]:
    """One bar per phase on `console`, `name` before it; `figures` is a format of `rate` and `objects`."""
    columns = (
        TextColumn("{task.fields[name]} {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(figures),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    tasks: dict[str, tuple[TaskID, float, int]] = {}  # and when, and at which frame, it began
    with Progress(*columns, console=console, disable=console.quiet) as progress:

        def watch(phase: str, done: int, total: int | None, objects: int) -> None:
            if phase not in tasks:
                shown = escape_control_characters(name)
                task = progress.add_task(phase, name=shown, rate=0.0, objects=0, completed=done - 1)
                tasks[phase] = task, monotonic(), done - 1
            task, since, first = tasks[phase]
            rate = (done - first) / max(monotonic() - since, 1e-9) if done - first > 1 else 0.0
            progress.update(task, completed=done, total=total, rate=rate, objects=objects)

        yield watch


def format_result_summary(finished: FinishedVideo) -> str:
    """The result in half a line."""
    n, frames, seconds = finished.objects, finished.frames, finished.seconds
    objects = "1 object" if n == 1 else f"{n or 'no'} objects"
    return f"{objects} in {frames} frames, {seconds:.1f} s ({frames / max(seconds, 1e-9):.1f} frames/s)"


def format_used_parts(result: VideoResult) -> str:
    """The parts that a result was made with, as its provenance calls them."""
    settings = result.provenance.settings
    return "; ".join(str(settings[part]) for part in ("segmenter", "propagator") if settings.get(part))


class JsonReporter(QuietReporter):
    """One JSON object a line on standard output; progress of each video at most once a second."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._batch: BatchProgress | None = None

    def say(self, event: str, **facts: object) -> None:
        """Writes one JSON line to standard output: the name of an `event` and the `facts` that belong to it."""
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()

    @contextmanager
    def batch(self, videos: int) -> Iterator[None]:
        """Events of several `videos` say how far all of them are, as long as the context is open."""
        self._batch = BatchProgress(videos, self.clock) if videos > 1 else None
        yield

    def count(self, name: str, state: str, frames: int, is_new: bool) -> None:
        """In a batch, tells that the video `name` ended in a `state`, and how many videos and frames that makes."""
        if self._batch is not None:
            self._batch.count(frames, is_new)
            left = self._batch.seconds_left
            facts = {"videos_ended": self._batch.ended, "videos": self._batch.videos, "frames": self._batch.frames}
            self.say("end", video=name, state=state, **facts, seconds_left=None if left is None else round(left, 1))

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Watch]:
        """Progress lines for one video."""
        self.say("start", video=name, frames=frames or None)
        started: dict[str, tuple[float, int]] = {}  # when, and at which frame, a phase began
        told = 0.0

        def watch(phase: str, done: int, total: int | None, objects: int) -> None:
            nonlocal told
            now = self.clock()
            since, first = started.setdefault(phase, (now, done))
            if now - told < 1 and done != total:
                return
            told, rate = now, (done - first) / (now - since) if now > since else 0.0
            left = (total - done) / rate if total and rate else None
            facts = {"frame": done, "frames": total, "fps": round(rate, 2), "objects": objects}
            self.say("progress", video=name, phase=phase, **facts, seconds_left=left and round(left, 1))

        yield watch

    def show(self, finished: FinishedVideo) -> None:
        """Tells of a video's end: numbers and notes of its result, the folder that holds it, the seconds."""
        facts: dict[str, object] = {
            "objects": finished.objects,
            "frames": finished.frames,
            "seconds": round(finished.seconds, 2),
        }
        facts |= {"parts": finished.parts, "folder": finished.folder, "notes": list(finished.notes)}
        self.say("done", video=finished.name, **facts)

    def summary(self, table: str, counts: Mapping[str, int]) -> None:
        """How many videos of the batch ended in each state."""
        self.say("summary", **counts)

    def plan(self, sentence: str, video: str = "") -> None:
        """What would become of a `video`, or of all."""
        self.say("plan", **({"video": video} if video else {}), message=sentence)

    def notice(self, video: str, sentence: str) -> None:
        """What happened to a `video` while it was made."""
        self.say("notice", video=video, message=sentence)

    def error(self, message: str, video: str = "") -> None:
        """What went wrong, and with which `video`, if it is one's."""
        self.say("error", **({"video": video} if video else {}), message=message)
