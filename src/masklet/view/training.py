"""How a training tells how far it is: a bar, and a line for each validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SMOOTH = 0.95  # of the loss that is shown: what the last value keeps


class TrainingBar:
    """A `Watch` of the training loop."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._loss: float | None = None

    def stepped(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        """Moves the bar to `step` of `total`; shows a moving average of "loss", which `losses` has to hold."""
        loss = losses["loss"]
        self._loss = loss if self._loss is None else SMOOTH * self._loss + (1 - SMOOTH) * loss
        self._progress.update(self._task, completed=step, total=total, loss=f"{self._loss:.3g}")

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """One line above the bar."""
        self._progress.console.print(f"step {step}: {format_training_scores(scores)}", highlight=False, soft_wrap=True)


@contextmanager
def show_training_bar(console: Console, name: str) -> Iterator[TrainingBar]:
    """A bar while a training runs."""
    columns = (
        TextColumn(name, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]},"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, disable=console.quiet) as progress:
        yield TrainingBar(progress, progress.add_task(name, total=None, loss="-"))


def format_training_scores(scores: Mapping[str, float]) -> str:
    """Scores in a line, without those of parts.

    >>> format_training_scores({"AP": 31.25, "found": 60.0, "AP/dog": 12.0}), format_training_scores({})
    ('AP 31.25, found 60', 'nothing to validate on')
    """
    return ", ".join(f"{k} {v:.4g}" for k, v in scores.items() if "/" not in k) or "nothing to validate on"
