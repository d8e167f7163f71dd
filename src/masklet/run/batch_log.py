"""What a whole batch has come to: told to the reporter, the manifest, and a file for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from masklet.core.files import write_atomically
from masklet.run.batch import note_in_manifest
from masklet.run.outcome import CLAIMED, KEPT, Outcome, count_states
from masklet.view.progress import Reporter

PAUSE = 1.0  # seconds between two writings of the metrics file


class BatchLog:
    """Hears of every outcome of a batch."""

    def __init__(self, out: Path, videos: int, reporter: Reporter, metrics: Path | None = None) -> None:
        """Of so many `videos` in the output folder `out`; `metrics` is the file for Prometheus. Raises InputError where
        that cannot be written.
        """
        self.out, self.videos, self.reporter, self.metrics = out, videos, reporter, metrics
        self.outcomes: list[Outcome] = []
        self._since = monotonic()
        self._written = 0.0
        self.write_metrics()

    def note(self, outcome: Outcome) -> None:
        """Of a video that `process_video` did."""
        if outcome.state == CLAIMED:
            note_in_manifest(self.out, outcome, self.reporter, self.videos == 1)
        self.outcomes.append(outcome)
        if outcome.reason:
            self.reporter.error(outcome.reason, outcome.video)
        elif outcome.state == KEPT and self.videos == 1:  # of a batch the summary says it
            self.reporter.notice(outcome.video, "was done before, in the same way; kept as it is")
        self.reporter.count(outcome.video, outcome.state, outcome.frames, outcome.state != KEPT)
        if monotonic() - self._written > PAUSE:
            self.write_metrics()

    def record(self, outcome: Outcome) -> None:
        """Of a video whose worker could not say it."""
        note_in_manifest(self.out, outcome, self.reporter, self.videos == 1)
        self.note(outcome)

    def write_metrics(self) -> None:
        """Writes the file for Prometheus, if one is asked for."""
        self._written = monotonic()
        if self.metrics is not None:
            with write_atomically(self.metrics) as file:
                file.write(format_metrics(self.outcomes, self.videos, monotonic() - self._since).encode())


def format_metrics(outcomes: Sequence[Outcome], videos: int, seconds: float) -> str:
    """A batch in Prometheus' text form.

    Args:
        outcomes: of the videos that are through.
        videos: how many there are in all.
        seconds: since the run began.
    """
    states = {**count_states(outcomes), "waiting": videos - len(outcomes)}
    by_state = {f'{{state="{state}"}}': n for state, n in states.items()}
    return "".join(
        f"# HELP {name} {meaning}\n# TYPE {name} gauge\n" + "".join(f"{name}{label} {n}\n" for label, n in values)
        for name, meaning, values in (
            ("masklet_videos", "Videos of the run by state.", by_state.items()),
            ("masklet_frames", "Frames of the videos that this run did.", [("", sum(o.frames for o in outcomes))]),
            ("masklet_objects", "Objects found in them.", [("", sum(o.objects for o in outcomes))]),
            ("masklet_video_seconds", "Seconds spent on videos.", [("", round(sum(o.seconds for o in outcomes), 3))]),
            ("masklet_run_seconds", "Seconds since the run began.", [("", round(seconds, 3))]),
        )
    )
