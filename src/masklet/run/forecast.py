"""What a run would do, and what that would take, by what the manifest says of earlier videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from masklet.core.errors import InputError
from masklet.io.disk_room import format_decimal_bytes
from masklet.io.output_folder import advise_overwriting
from masklet.run.batch import MOST, Job, compare_with_earlier, list_lacking, read_earlier_recipe
from masklet.run.outcome import DONE, MANIFEST, format_duration, read_manifest

THERE, TO_DO = "there", "to be done"


@dataclass(frozen=True)
class Pace:
    """What videos took, by the median of those that were done."""

    videos: int
    seconds: float  # a frame
    disk: float  # bytes a frame


@dataclass(frozen=True)
class ForeseenVideo:
    """What would become of a video: there, to be done, or why it would be refused or fail.

    Attributes:
        told: that.
        frames: of one that is to be done, as far as it says so itself; else 0.
    """

    told: str
    frames: int = 0


def foresee_video(job: Job) -> ForeseenVideo:
    """What would become of a video, which is opened for that if it is to be done."""
    told = foresee_results(job)
    if told or job.source == "-":
        return ForeseenVideo(told or TO_DO)
    try:
        with job.open(job.source) as video:
            return ForeseenVideo(TO_DO, len(video))
    except InputError as error:
        return ForeseenVideo(f"would fail: {error}")


def foresee_results(job: Job) -> str:
    """Of a video whose results are there, whether they are those, or why it would be refused; else nothing."""
    before = None if job.folder.overwrite else read_earlier_recipe(job.folder.path)
    try:
        if before is None:
            job.folder.check_free()
            return ""
        different = compare_with_earlier(before, job.describe())
    except InputError as error:
        return f"refused: {error}"
    if different:
        return f"refused: there are results already ({'; '.join(different[:MOST])}); {advise_overwriting()}"
    lacking = list_lacking(job, before)
    return f"{THERE}, but for {', '.join(lacking)}" if lacking else THERE


def measure_pace(out: Path) -> Pace | None:
    """What the videos took of which the manifest in `out` says that they were done; None where it says it of none."""
    done = [told for told in read_manifest(out) if told.get("state") == DONE and told.get("frames")]
    if not done:
        return None
    per_frame = [[told.get(key, 0) / told["frames"] for told in done] for key in ("seconds", "disk")]
    return Pace(len(done), *map(median, per_frame))


def format_forecast(out: Path, videos: Sequence[ForeseenVideo], workers: int) -> str:
    """What it would take to do those of the `videos` that are to be done into `out` with so many `workers`, in a
    sentence.
    """
    jobs = [video for video in videos if video.told == TO_DO]
    if not jobs:
        return "nothing to be done"
    frames, silent = sum(video.frames for video in jobs), sum(not video.frames for video in jobs)
    others = "1 video that does" if silent == 1 else f"{silent} videos that do"
    unknown = f" and those of {others} not say how many they have" if silent else ""
    amount = f"{len(jobs)} to be done, {frames:,} frames{unknown}"
    pace = measure_pace(out)
    if pace is None:
        return f"{amount}; how long they take and how much room is not known before {out / MANIFEST} has a video"
    time = format_duration(frames * pace.seconds / min(workers, len(jobs)))
    room = format_decimal_bytes(frames * pace.disk)
    return f"{amount}: about {time} and {room}, at {pace.seconds:.3g} s a frame as in {pace.videos} done before"
