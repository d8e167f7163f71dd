"""The unit that every run is made of: one video, claimed, done or left as it is, and what became of it.

Any failure costs one video. Its masklets are there before, and survive, everything that comes after them.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from masklet.api import run_system
from masklet.core.checkpoint import Checkpoints
from masklet.core.errors import InputError
from masklet.core.files import explain_write_error, write_atomically
from masklet.core.frames import Video
from masklet.core.protocols import ResumableSystem
from masklet.core.result import VideoResult
from masklet.io.disk_room import check_disk_room
from masklet.io.output_folder import OutputFolder
from masklet.io.video.source_names import Source, describe_source
from masklet.outputs import write_formats, write_overlay
from masklet.run.checkpoint import get_checkpoint_folder, open_checkpoints, remove_checkpoints
from masklet.run.claims import Claim, ClaimedError, get_claim_path, is_claim_alive, read_claim
from masklet.run.outcome import (
    CLAIMED,
    DONE,
    FAILED,
    KEPT,
    REFUSED,
    Outcome,
    append_to_manifest,
    list_failures,
    read_manifest,
)
from masklet.run.recipe import FILE, UNKNOWN, compare_recipes, describe_recipe, hash_recipe, list_source_files
from masklet.run.workers import get_worker_number, is_given_up, order_for_worker
from masklet.view.progress import Reporter

MASKLETS, OVERLAY = "masklets.json", "overlay.mp4"
MOST = 3  # differences between recipes that are told


@dataclass(frozen=True)
class Job:
    """One video to be done.

    Attributes:
        source: as the user wrote it.
        folder: of its results.
        open: opens the source.
        make: gives the system for the opened video.
        plan: the system as far as it is known before the video is opened, for the recipe.
        more: what else decides the result, for the recipe.
        formats: to write besides masklets.json.
        overlay: whether to write overlay.mp4.
        checkpoint: frames from one checkpoint to the next; 0: none are written.
    """

    source: Source
    folder: OutputFolder
    open: Callable[[Source], AbstractContextManager[Video]]
    make: Callable[[Video], Any]
    plan: Any
    more: Mapping[str, Any] = field(default_factory=dict)
    formats: Sequence[str] = ()
    overlay: bool = True
    checkpoint: int = 0

    @property
    def out(self) -> Path:
        """The output folder of the whole run."""
        return self.folder.path.parent

    def describe(self) -> dict[str, Any]:
        """Its recipe."""
        more = {**self.more, "formats": sorted(self.formats)}
        return describe_recipe(list_source_files(self.source), self.plan, more)


def process_video(job: Job, reporter: Reporter) -> Outcome:
    """Does one video, unless it is done; tells the `reporter` and the manifest what became of it."""
    started, name = monotonic(), job.folder.name
    try:
        with Claim(job.out, name):
            outcome = finish_video(job, reporter)
    except ClaimedError as error:
        outcome = Outcome(name, describe_source(job.source), CLAIMED, str(error))
    except InputError as error:
        outcome = Outcome(name, describe_source(job.source), FAILED, str(error))
    except BrokenPipeError:  # nobody reads the log any more
        raise
    except Exception as error:  # whatever it is, it costs this video alone
        log = write_failure_log(job.out, name, traceback.format_exc())
        said = " ".join(str(error).split())[:200]
        reason = f"{describe_source(job.source)}: {type(error).__name__}: {said}; see {log}"
        outcome = Outcome(name, describe_source(job.source), FAILED, reason, foreseen=False)
    if outcome.state in (CLAIMED, KEPT) and get_worker_number() is not None:
        return outcome  # most often by another worker of this run
    outcome = replace(outcome, seconds=round(monotonic() - started, 3))
    if job.out.is_dir():
        append_to_manifest(job.out, outcome)
    if outcome.reason:
        reporter.error(outcome.reason)
    return outcome


def process_videos(jobs: Sequence[Job], reporter: Reporter, worker: int | None) -> list[Outcome]:
    """Does the videos one after the other; as a `worker`, from a place of its own on, without those that others do."""
    if worker is None:
        return [process_video(job, reporter) for job in jobs]
    by_name = {job.folder.name: job for job in jobs}
    mine = [by_name[name] for name in order_for_worker(list(by_name), worker)]
    return [process_video(job, reporter) for job in mine if is_left(job)]


def is_left(job: Job) -> bool:
    """Whether nobody does a video, or has given it up, for all that can be seen now."""
    claimed = read_claim(path := get_claim_path(job.out, job.folder.name))
    out, name = job.out, job.folder.name
    tried = is_given_up(out, name) or name in list_failures(out)
    return not tried and (claimed is None or not is_claim_alive(path, claimed))


def collect_outcomes(out: Path, jobs: Sequence[Job]) -> list[Outcome]:
    """What became of videos that workers did: those whose results are not there by their last line in the manifest of
    `out`.
    """
    last, failed = {str(line.get("video")): line for line in read_manifest(out)}, list_failures(out)
    outcomes = []
    for job in jobs:
        name, told = job.folder.name, last.get(job.folder.name, {})
        there = name not in failed and read_earlier_recipe(job.folder.path) is not None
        state = DONE if there else str(told.get("state") or FAILED)
        reason = "" if there else str(told.get("reason") or f"{name}: nothing was made of it")
        outcomes.append(Outcome(name, describe_source(job.source), state, reason))
    return outcomes


def write_failure_log(out: Path, name: str, text: str) -> Path:
    """Keeps the traceback of a failure that nobody foresaw."""
    path = out / "failed" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def finish_video(job: Job, reporter: Reporter) -> Outcome:
    """Makes what is missing of a video's results: all of them, the overlay, or nothing. Raises InputError where it
    cannot be made.
    """
    recipe = job.describe()
    outcome = Outcome(job.folder.name, describe_source(job.source), DONE, recipe=hash_recipe(recipe))
    before = None if job.folder.overwrite else read_earlier_recipe(job.folder.path)
    if before is not None:
        return keep_earlier(job, reporter, before, recipe, outcome)
    job.folder.check_free()
    started = monotonic()
    with job.open(job.source) as video, reporter.video(job.folder.name, len(video)) as watch:
        if warning := check_disk_room(job.folder.path, video, job.formats, job.overlay):
            reporter.hint(warning)
        with job.folder as there:
            checkpoints = find_checkpoints(job, video, recipe, reporter)
            result = run_system(job.make(video), video, job.source, watch, checkpoints)
            result = replace(result, provenance=replace(result.provenance, recipe=outcome.recipe))
            result.save(there / MASKLETS)
            failed = write_formats(result, video, there, job.formats)
            with write_atomically(there / FILE) as file:
                file.write(json.dumps(recipe, indent=1, default=str).encode())
        remove_checkpoints(job.out, job.folder.name)
        if job.overlay:
            add_overlay(result, video, job.folder.path, watch)
    reporter.done(job.folder.path, result, monotonic() - started)
    outcome = replace(outcome, frames=result.length, objects=len(result.masklets))
    if failed:
        reason = f"{job.folder.path}: masklets.json is there, but not all formats: {'; '.join(failed)}"
        return replace(outcome, state=FAILED, reason=reason)
    return outcome


def find_checkpoints(job: Job, video: Video, recipe: Mapping[str, Any], reporter: Reporter) -> Checkpoints | None:
    """Where the run of a job over its `video` by this `recipe` is saved; says from where it goes on. None where it is
    not: the video is short, the source cannot be read again, or the system has no state that can be saved.
    """
    name, every = job.folder.name, job.checkpoint
    is_short = 0 < len(video) <= every and not get_checkpoint_folder(job.out, name).exists()
    if not every or is_short or recipe["source"] == UNKNOWN:
        return None
    if not isinstance(job.plan, ResumableSystem):
        reporter.notice(name, f"no checkpoints are written: {type(job.plan).__name__} writes none")
        return None
    found = open_checkpoints(job.out, name, hash_recipe(recipe), every, lambda told: reporter.notice(name, told))
    if found.saved:
        reporter.notice(name, f"goes on from frame {found.saved.frame} ({found.saved.phase})")
    return found


def keep_earlier(
    job: Job, reporter: Reporter, before: Mapping[str, Any], recipe: Mapping[str, Any], outcome: Outcome
) -> Outcome:
    """The `outcome` of a video whose results are there, made by the recipe `before`: they are kept where that is this
    one's `recipe`, and get the overlay that they lack; else the job is refused.
    """
    result = VideoResult.open(job.folder.path / MASKLETS)
    outcome = replace(outcome, state=KEPT, frames=result.length, objects=len(result.masklets))
    different = ["the source, which cannot be told"] if recipe["source"] == UNKNOWN else compare_recipes(before, recipe)
    if different:
        reason = f"{job.folder.path}: there are results already ({'; '.join(different[:MOST])})"
        return replace(outcome, state=REFUSED, reason=f"{reason}; add --overwrite to replace them")
    if job.overlay and not (job.folder.path / OVERLAY).exists():
        with job.open(job.source) as video, reporter.video(job.folder.name, len(video)) as watch:
            add_overlay(result, video, job.folder.path, watch)
        return replace(outcome, state=DONE)
    return outcome


def read_earlier_recipe(folder: Path) -> dict[str, Any] | None:
    """By what the results that are there were made; None where there are none, or nothing says it."""
    try:
        told = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and "source" in told and (folder / MASKLETS).is_file() else None


def add_overlay(result: VideoResult, video: Video, folder: Path, watch: Any) -> None:
    """Writes overlay.mp4 beside masklets that are there, whole or not at all."""
    partial = folder / f".partial-{OVERLAY}"
    try:
        write_overlay(result, video, partial, watch)
        partial.replace(folder / OVERLAY)
    except OSError as error:
        raise explain_write_error(folder / OVERLAY, error) from None
    finally:
        partial.unlink(missing_ok=True)
