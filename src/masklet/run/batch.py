"""The unit that every run is made of: one video, claimed, done or left as it is, and what became of it.

Any failure costs one video. Its masklets are there before, and survive, everything that comes after them.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from time import monotonic
from typing import Any, cast

from masklet.api import run_system
from masklet.core.budget import MemoryBudget, find_memory_budget
from masklet.core.checkpoint import Checkpoints
from masklet.core.errors import InputError, Interruption
from masklet.core.files import explain_write_error, write_atomically
from masklet.core.frames import Video, check_before_reading
from masklet.core.progress import Watch
from masklet.core.protocols import ResumableSystem
from masklet.core.result import VideoResult
from masklet.core.wording import name_argument
from masklet.io.disk_room import check_disk_room
from masklet.io.output_folder import OutputFolder, advise_overwriting, explain_write_errors, remove_path
from masklet.io.video.source_names import Source, describe_source
from masklet.outputs import write_format, write_overlay
from masklet.run.checkpoint import get_checkpoint_folder, open_checkpoints, remove_checkpoints
from masklet.run.claims import Claim, ClaimedError
from masklet.run.less_memory import is_out_of_memory, run_with_halved_batches
from masklet.run.outcome import (
    CLAIMED,
    DONE,
    FAILED,
    FAILURES,
    KEPT,
    MANIFEST,
    REFUSED,
    Outcome,
    append_to_manifest,
)
from masklet.run.recipe import FILE, UNKNOWN, compare_recipes, compute_recipe_hash, describe_recipe, list_source_files
from masklet.run.usage import measure_peak_device_memory, measure_peak_memory, reset_peak_memory
from masklet.systems.memory import fit_system
from masklet.view.progress import Reporter

MASKLETS, OVERLAY = "masklets.json", "overlay.mp4"
PARTIAL_FORMAT = ".partial-format"  # where a format is until it is whole
MOST = 3  # differences between recipes that are told


@dataclass(frozen=True)
class Job:
    """One video to be done.

    Attributes:
        source: as the user wrote it.
        folder: of its results.
        open: opens the source.
        make: gives the system for the opened video.
        plan: gives the system as far as it is known before the video is opened, for the recipe.
        more: what else decides the result, for the recipe.
        formats: to write besides masklets.json, which do not change it.
        overlay: whether to write overlay.mp4.
        checkpoint: frames from one checkpoint to the next; 0: none are written.
        title: what the result is called, in place of its source's name.
        memory: that this process may hold; None: a share of what is free.
        is_alone: whether it is the run's only one, whose outcome needs no manifest.
    """

    source: Source
    folder: OutputFolder
    open: Callable[[Source], AbstractContextManager[Video]]
    make: Callable[[Video], Any]
    plan: Callable[[], Any]
    more: Mapping[str, Any] = field(default_factory=dict)
    formats: Sequence[str] = ()
    overlay: bool = True
    checkpoint: int = 0
    title: str = ""
    memory: MemoryBudget | None = None
    is_alone: bool = False

    @property
    def out(self) -> Path:
        """The output folder of the whole run."""
        return self.folder.path.parent

    @property
    def name(self) -> str:
        """The name of the video's folder in the output."""
        return self.folder.name

    def end(self, state: str, reason: str = "", **more: Any) -> Outcome:
        """What became of the job, as a line of the manifest."""
        return Outcome(self.name, describe_source(self.source), state, reason, **more)

    def describe(self) -> dict[str, Any]:
        """The recipe of its result, which says whether one that is there is this one."""
        return describe_recipe(list_source_files(self.source), self.plan(), self.more)


def advise_less_memory() -> str:
    """What to do where memory does not suffice."""
    size, jobs = name_argument("max_side"), name_argument("count", option="jobs")
    return f"; take a smaller size ({size}), a part of the video, or fewer processes ({jobs})"


def process_video(job: Job, reporter: Reporter) -> Outcome:
    """Does one video, unless it is done or somebody else is at it, and writes into the manifest what became of it.

    The `reporter` hears how far the video is; who called tells it of the outcome.
    """
    started = monotonic()
    reset_peak_memory()
    outcome = attempt_video(job, reporter)
    if outcome.state == CLAIMED:  # which somebody else writes down
        return outcome
    outcome = replace(
        outcome,
        seconds=round(monotonic() - started, 3),
        memory=measure_peak_memory(),
        device_memory=measure_peak_device_memory(),
    )
    note_in_manifest(job.out, outcome, reporter, job.is_alone)
    return outcome


def attempt_video(job: Job, reporter: Reporter) -> Outcome:
    """Does one video; whatever goes wrong is an outcome."""
    try:
        return claim_video(job, reporter)
    except InputError as error:
        return job.end(FAILED, str(error))
    except (BrokenPipeError, Interruption):  # nobody reads the log any more
        raise
    except (Exception, SystemExit) as error:  # whatever it is, it costs this video alone
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
        log = write_failure_log(job.out, job.name, traceback.format_exc())
        advice = advise_less_memory() if is_out_of_memory(error) else ""
        return job.end(FAILED, f"{describe_source(job.source)}: {said}{log}{advice}", foreseen=False)


def claim_video(job: Job, reporter: Reporter) -> Outcome:
    """Does one video, unless somebody else is at it. Raises InputError where it cannot be made."""
    if job.source == "-" and sys.stdin and not sys.stdin.isatty():
        cast(BufferedReader, sys.stdin.buffer).peek(1)  # whoever is given frames first has the claim
    with ExitStack() as stack:
        try:
            stack.enter_context(Claim(job.out, job.name))
        except InputError as error:  # somebody else has it, or the disk takes none
            if is_whole(job):
                return job.end(KEPT)
            if isinstance(error, ClaimedError):
                return job.end(CLAIMED, str(error))
            raise
        return finish_video(job, reporter)


def is_whole(job: Job) -> bool:
    """Whether all that a job would make is there, so that whoever has the claim only looks at it, too."""
    before = None if job.folder.overwrite else read_earlier_recipe(job.folder.path)
    return before is not None and not list_lacking(job, before) and not compare_with_earlier(before, job.describe())


def list_lacking(job: Job, before: Mapping[str, Any]) -> list[str]:
    """What a job would add to the masklets that are there, made by the recipe `before`: formats and the overlay."""
    written, there = list_written_formats(before), job.folder.path
    whole = {name for name, made in written.items() if all((there / one).exists() for one in made)}
    formats = [name for name in job.formats if name not in whole]
    return [*formats, *([OVERLAY] if job.overlay and not (job.folder.path / OVERLAY).exists() else [])]


def list_written_formats(recipe: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """What was written of each format beside the masklets that were made by the `recipe`: names of files and folders.
    An earlier recipe says which formats those are, and not what each has written.
    """
    told = recipe.get("formats", {})
    return dict(told) if isinstance(told, dict) else dict.fromkeys(told, ())


def note_in_manifest(out: Path, outcome: Outcome, reporter: Reporter, is_alone: bool) -> None:
    """Adds a line for the `outcome`, or tells the `reporter` why not; of a video that `is_alone` only where there is a
    manifest. A disk that takes none costs the line alone.
    """
    try:
        if (out / MANIFEST).exists() or (out.is_dir() and not is_alone):
            append_to_manifest(out, outcome)
    except OSError as error:
        reporter.error(str(explain_write_error(out / MANIFEST, error)), outcome.video)


def write_failure_log(out: Path, name: str, text: str) -> str:
    """Keeps the traceback `text` of a failure that nobody foresaw, of the video `name`, under `out`; returns the end of
    a sentence that says where.
    """
    path = out / FAILURES / f"{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError:  # a full disk, which most likely is what the sentence tells
        return ""
    return f"; see {path}"


def finish_video(job: Job, reporter: Reporter) -> Outcome:
    """Makes what is missing of a video's results: all of them, the overlay, or nothing. Raises InputError where it
    cannot be made.
    """
    recipe = job.describe()
    outcome = job.end(DONE, recipe=compute_recipe_hash(recipe))
    before = None if job.folder.overwrite else read_earlier_recipe(job.folder.path)
    if before is not None:
        return keep_earlier(job, reporter, before, recipe, outcome)
    job.folder.check_free()
    started = monotonic()
    with job.open(job.source) as video, reporter.video(job.folder.name, len(video)) as watch:
        check_before_reading(video)
        if warning := check_disk_room(job.folder.path, video, job.formats, job.overlay):
            reporter.hint(warning)
        with job.folder as there:
            system = fit_system(job.make(video), video, job.memory or find_memory_budget(), reporter.hint)

            def run() -> VideoResult:
                return run_system(system, video, job.source, watch, find_checkpoints(job, video, recipe, reporter))

            result, halved = run_with_halved_batches(run, system)
            notes = (*result.provenance.notes, *halved)
            provenance = replace(result.provenance, recipe=outcome.recipe, notes=notes)
            result = replace(result, name=job.title or result.name, provenance=provenance)
            result.save(there / MASKLETS)
            save_recipe(there, recipe)
        remove_checkpoints(job.out, job.folder.name)
        failed = complete_results(job, result, video, recipe, watch)
    reporter.done(job.folder.path, result, monotonic() - started)
    return end_completed(job, result, failed, outcome)


def complete_results(
    job: Job, result: VideoResult, video: Video, recipe: Mapping[str, Any], watch: Watch
) -> Sequence[str]:
    """Adds to the masklets that are there, a `result` by the `recipe`, what the job lacks beside them: formats, then
    the overlay of the `video`; `watch` is told how far that is. Returns what formats cannot say of this result, or
    what else kept them from being written.
    """
    failed, written = [], list_written_formats(recipe)
    for name in list_lacking(job, recipe):
        if name == OVERLAY:
            add_overlay(result, video, job.folder.path, watch)
            continue
        try:
            written[name] = add_format(result, video, job.folder.path, name)
            save_recipe(job.folder.path, {**recipe, "formats": written})
        except InputError as error:  # the result itself is not lost by that
            failed.append(f"{name}: {error}")
    return failed


def end_completed(job: Job, result: VideoResult, failed: Sequence[str], outcome: Outcome) -> Outcome:
    """The `outcome` of a job whose `result` is there, and whose formats are but for those that `failed`."""
    outcome = replace(outcome, **measure_result(result, job.folder.path))
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
    plan = job.plan()
    if not isinstance(plan, ResumableSystem):
        reporter.notice(name, f"no checkpoints are written: {type(plan).__name__} writes none")
        return None
    found = open_checkpoints(
        job.out, name, compute_recipe_hash(recipe), every, lambda told: reporter.notice(name, told)
    )
    if found.saved:
        reporter.notice(name, f"goes on from frame {found.saved.frame} ({found.saved.phase})")
    return found


def keep_earlier(
    job: Job, reporter: Reporter, before: Mapping[str, Any], recipe: Mapping[str, Any], outcome: Outcome
) -> Outcome:
    """The `outcome` of a video whose results are there, made by the recipe `before`: they are kept where that is this
    one's `recipe`, and get the formats and the overlay that they lack; else the job is refused.
    """
    get_partial_overlay(job.folder.path).unlink(missing_ok=True)  # of one that was killed
    remove_path(job.folder.path / PARTIAL_FORMAT)  # likewise
    different = compare_with_earlier(before, recipe)
    if different:
        reason = f"{job.folder.path}: there are results already ({'; '.join(different[:MOST])})"
        return replace(outcome, state=REFUSED, reason=f"{reason}; {advise_overwriting()}")
    try:
        result = VideoResult.open(job.folder.path / MASKLETS)
    except InputError as error:
        raise InputError(f"{error}; {advise_overwriting()}") from None
    if not list_lacking(job, before):
        return replace(outcome, state=KEPT)
    with job.open(job.source) as video, reporter.video(job.folder.name, len(video)) as watch:
        failed = complete_results(job, result, video, before, watch)
    return end_completed(job, result, failed, outcome)


def compare_with_earlier(before: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """By what a video's `recipe` differs from that by which the results that are there were made; a phrase each."""
    decided = {key: value for key, value in before.items() if key != "formats"}
    return ["the source, which cannot be told"] if recipe["source"] == UNKNOWN else compare_recipes(decided, recipe)


def measure_result(result: VideoResult, folder: Path) -> dict[str, Any]:
    """What an outcome says of a `result` in its `folder`."""
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    device = str(result.provenance.settings.get("device", ""))
    return {"frames": result.length, "objects": len(result.masklets), "disk": disk, "device": device}


def read_earlier_recipe(folder: Path) -> dict[str, Any] | None:
    """By what the results that are there were made; None where there are none, or nothing says it."""
    try:
        told = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and "source" in told and (folder / MASKLETS).is_file() else None


def save_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Writes into the `folder` of a video's results by what `recipe` they were made, and which "formats" are there.
    Raises InputError where it cannot be written.
    """
    with write_atomically(folder / FILE) as file:
        file.write(json.dumps(recipe, indent=1, default=str).encode())


def add_format(result: VideoResult, video: Video, folder: Path, name: str) -> list[str]:
    """Writes the format `name` of a `result` and its `video` into the `folder` of masklets that are there, whole or
    not at all; returns the names of what it wrote. Raises InputError where it cannot say this result, or cannot be
    written.
    """
    partial = folder / PARTIAL_FORMAT
    try:
        with explain_write_errors(folder / name):
            partial.mkdir()
            write_format(result, video, partial, name)
            written = sorted(partial.iterdir())
            for made in written:
                remove_path(folder / made.name)
                made.replace(folder / made.name)
    finally:
        remove_path(partial)
    return [made.name for made in written]


def add_overlay(result: VideoResult, video: Video, folder: Path, watch: Any) -> None:
    """Writes overlay.mp4 of a `result` and its `video` into the `folder` of masklets that are there, whole or not at
    all; `watch` is told how far it is.
    """
    partial = get_partial_overlay(folder)
    try:
        write_overlay(result, video, partial, watch)
        partial.replace(folder / OVERLAY)
    except OSError as error:
        raise explain_write_error(folder / OVERLAY, error) from None
    finally:
        partial.unlink(missing_ok=True)


def get_partial_overlay(folder: Path) -> Path:
    """Where an overlay is until it is whole."""
    return folder / f".partial-{OVERLAY}"
