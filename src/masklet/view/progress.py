"""How a run tells how far it is: bars for people, JSON lines for programs, or nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from masklet.core.errors import escape_control_characters
from masklet.core.progress import Watch
from masklet.core.result import VideoResult


class Reporter(Protocol):
    """What the command line tells of its work."""

    def video(self, name: str, frames: int) -> AbstractContextManager[Watch]: ...
    def done(self, folder: Path, result: VideoResult, seconds: float) -> None: ...
    def hint(self, sentence: str) -> None: ...
    def notice(self, video: str, sentence: str) -> None: ...
    def error(self, message: str) -> None: ...


class QuietReporter:
    """Says nothing but errors."""

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Watch]:
        """A watcher that says nothing."""
        yield lambda phase, done, total, objects: None

    def done(self, folder: Path, result: VideoResult, seconds: float) -> None:
        """Says nothing of the `result` in `folder` and of the `seconds` that it took."""

    def hint(self, sentence: str) -> None:
        """Drops the `sentence`: who asked for quiet wants no hints."""

    def notice(self, video: str, sentence: str) -> None:
        """Drops what happened to a `video` while it was made, in a `sentence`."""

    def error(self, message: str) -> None:
        """One sentence on standard error."""
        sys.stderr.write(f"masklet: {message}\n")


class BarReporter(QuietReporter):
    """One bar per phase on standard error: frames, frames per second, objects, time left."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, markup=False, emoji=False)  # names are shown as they are

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Watch]:
        """Shows bars for the video `name`, one a phase, as long as the context is open; the watcher moves them."""
        with show_progress_bars(
            self.console, name, "{task.fields[rate]:.1f} frames/s, {task.fields[objects]} objects,"
        ) as watch:
            yield watch

    def done(self, folder: Path, result: VideoResult, seconds: float) -> None:
        """Says what `result` holds, in how many `seconds` and by which parts it was made, its `folder` and notes."""
        parts = format_used_parts(result)
        lines = [
            f"{result.name}: {format_result_summary(result, seconds)}",
            f"  {folder}",
            f"  by {parts}" * bool(parts),
        ]
        for line in (*lines, *(f"  note: {note}" for note in result.provenance.notes)):
            if line:
                self.console.print(escape_control_characters(line), highlight=False, soft_wrap=True)

    def notice(self, video: str, sentence: str) -> None:
        """What happened to a `video` while it was made."""
        said = escape_control_characters(f"{video}: {sentence}")
        self.console.print(said, highlight=False, soft_wrap=True)

    def hint(self, sentence: str) -> None:
        """What the reader could do next, once all is done."""
        self.console.print(sentence, highlight=False, soft_wrap=True)


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


def format_result_summary(result: VideoResult, seconds: float) -> str:
    """The result in half a line."""
    n = len(result.masklets)
    objects = "1 object" if n == 1 else f"{n or 'no'} objects"
    return f"{objects} in {result.length} frames, {seconds:.1f} s ({result.length / seconds:.1f} frames/s)"


def format_used_parts(result: VideoResult) -> str:
    """The parts that a result was made with, as its provenance calls them."""
    settings = result.provenance.settings
    return "; ".join(str(settings[part]) for part in ("segmenter", "propagator") if settings.get(part))


class JsonReporter(QuietReporter):
    """One JSON object a line on standard output; progress at most once a second."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock

    def say(self, event: str, **facts: object) -> None:
        """Writes one JSON line to standard output: the name of an `event` and the `facts` that belong to it."""
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()

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

    def done(self, folder: Path, result: VideoResult, seconds: float) -> None:
        """Tells of a video's end: numbers and notes of its `result`, the `folder` that holds it, the `seconds`."""
        facts: dict[str, object] = {
            "objects": len(result.masklets),
            "frames": result.length,
            "seconds": round(seconds, 2),
        }
        facts |= {"parts": format_used_parts(result), "folder": str(folder), "notes": list(result.provenance.notes)}
        self.say("done", video=result.name, **facts)

    def notice(self, video: str, sentence: str) -> None:
        """What happened to a `video` while it was made."""
        self.say("notice", video=video, message=sentence)

    def error(self, message: str) -> None:
        """A video that could not be done."""
        self.say("error", message=message)
