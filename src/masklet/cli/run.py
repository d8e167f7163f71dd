"""`masklet run` and `masklet track`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from masklet.api import check_prompts, make_propagator, split_settings
from masklet.builtins import EXPORTS, FORMATS, QUERY_SYSTEMS, SYSTEMS
from masklet.cli.options import (
    AllowNetwork,
    Categories,
    Checkpoint,
    Compile,
    Dataset,
    DeviceName,
    DryRun,
    End,
    Exemplars,
    FailedOnly,
    Formats,
    Fps,
    From,
    HelpSettings,
    Jobs,
    ListFile,
    Log,
    MaxFrames,
    MaxSide,
    Memory,
    MetricsFile,
    Only,
    Out,
    Overlay,
    Overwrite,
    Predictions,
    PresetName,
    PromptTexts,
    PropagatorName,
    Ray,
    RayGpus,
    Retries,
    SegmenterName,
    Settings,
    Shard,
    Silent,
    Start,
    Strict,
    Stride,
    SystemName,
    Text,
    Timeout,
    Watch,
    Window,
)
from masklet.cli.settings import parse_settings
from masklet.core.annotations import VideoFrames
from masklet.core.budget import MemoryBudget, find_memory_budget, parse_memory
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.instances import Prompt
from masklet.core.limits import parse_whole_number
from masklet.core.part_facts import collect_parts
from masklet.core.result import VideoResult
from masklet.core.wording import name_argument
from masklet.io.output_folder import OutputFolder
from masklet.io.prompts import (
    PromptFile,
    add_prompts,
    compute_prompt_hash,
    read_dataset_prompts,
    read_exemplars,
    read_prompt_file,
    read_prompts,
)
from masklet.io.video.datasets import DatasetVideo, list_dataset_videos, list_prompted_videos
from masklet.io.video.frame_source import FrameSource
from masklet.io.video.selection import FrameSelection, is_choosing
from masklet.io.video.source_names import Source, describe_source
from masklet.io.video.sources import check_source_exists, group_video_sources, open_video, reopen_video
from masklet.parts import (
    choose_evaluation_settings,
    load_bystanders,
    make_encoder,
    refuse_part_settings,
    resolve_device,
)
from masklet.presets import GOOD, choose_track_parts
from masklet.registry import PartEntry
from masklet.run.batch import MASKLETS, Job, process_video
from masklet.run.batch_log import BatchLog
from masklet.run.outcome import FAILED, Outcome, count_states, format_summary, format_summary_table, read_last_states
from masklet.run.plan import RunOptions, RunParts, choose_join, hint_at_parts, plan_job, plan_jobs, plan_output_folders
from masklet.run.queue import HerePool, VideoQueue
from masklet.run.recipe import identify_files
from masklet.run.video_list import VideoEntry, choose_shard, list_dataset_entries, list_videos, name_videos
from masklet.run.workers import Crew, WorkerPool, clean_up
from masklet.systems.track import Prompts, Track
from masklet.systems.vos import VosTrack
from masklet.view.progress import BarReporter, JsonReporter, QuietReporter, Reporter
from masklet.weights.store import compute_hash

if TYPE_CHECKING:
    from masklet.run.ray_runner import RayPool

CHECKPOINT = 500  # frames
SOME = (VideoEntry("-"), VideoEntry("-"))  # where it is not known which videos there will be


def run_command(
    out: Out,
    source: Annotated[
        list[str] | None,
        typer.Argument(help="Video files, folders of frames, globs, or - for an image stream."),
    ] = None,
    system: SystemName = "sam2bmp",
    segmenter: SegmenterName = None,
    text: Text = "",
    exemplar: Exemplars = [],  # noqa: B006
    categories: Categories = "",
    propagator: PropagatorName = None,
    preset: PresetName = GOOD,
    device: DeviceName = "auto",
    memory: Memory = None,
    compile_: Compile = False,
    window: Window = None,
    set_: Settings = None,
    help_settings: HelpSettings = False,
    format: Formats = [],  # noqa: B006
    overlay: Overlay = True,
    start: Start = "0",
    end: End = None,
    stride: Stride = 1,
    fps: Fps = None,
    max_side: MaxSide = None,
    max_frames: MaxFrames = None,
    strict: Strict = False,
    allow_network: AllowNetwork = False,
    overwrite: Overwrite = False,
    list_: ListFile = None,
    dataset: Dataset = None,
    jobs: Jobs = 1,
    retries: Retries = 1,
    timeout: Timeout = None,
    checkpoint: Checkpoint = CHECKPOINT,
    watch: Watch = None,
    failed_only: FailedOnly = False,
    shard: Shard = None,
    ray: Ray = None,
    ray_gpus: RayGpus = 0.0,
    dry_run: DryRun = False,
    metrics_file: MetricsFile = None,
    quiet: Silent = False,
    json_log: Log = False,
) -> None:
    """Find, segment, track and complete every object of each video."""
    reporter = choose_reporter(quiet, json_log)
    reading: dict[str, Any] = dict(start=start, end=end, stride=stride, fps=fps, max_side=max_side)
    reading |= dict(max_frames=max_frames, strict=strict, allow_network=allow_network)
    selection = FrameSelection(start, end, stride, fps, max_side, max_frames)
    with exit_on_input_error(reporter):
        check_window(window, system)
        budget = parse_memory(memory) if memory else None if ray is not None else find_memory_budget()
        chosen = parse_settings(set_ or []) | ({} if window is None else {"window": window})
        chosen |= {"segmenter.categories": categories} if categories else {}
        chosen |= {"propagator.compile": True} if compile_ else {}
        crew = Crew(jobs, retries, check_timeout(timeout))
        if watch:
            is_more = bool(source or list_ or dataset or shard or failed_only or crew.is_needed or ray or dry_run)
            check_watch(watch, is_more)
        made: dict[str, Any] = dict(system=system, segmenter=segmenter, text=text, propagator=propagator)
        made |= dict(
            exemplars=read_exemplars(exemplar),
            preset=preset,
            device=device,
            settings=chosen,
            memory=budget and budget.divide(jobs),
        )
        made |= dict(formats=format, overlay=overlay, overwrite=overwrite, reading=reading, checkpoint=checkpoint)
        asked = RunOptions(out, SOME if watch else (), **made)
        options, parts = check_run(asked, selection, lambda: list_entries(dataset, source or (), list_))
        check_exemplars(options)
        if watch:
            watch_videos(options, parts, watch, reporter)
        options = replace(options, videos=choose_videos(options.videos, out, shard, failed_only))
        check_shared_sources(options.videos, crew, ray)
        if dry_run and options.videos:
            print_plan(out, plan_jobs(options, parts), jobs, reporter)
        log, queue = plan_batch(options, parts, retries, metrics_file, reporter)
        pool = choose_pool(options, crew, ray, ray_gpus, queue, log)
    run_batch(out, queue, pool, log)
    if any(o.is_there for o in log.outcomes) and (hint := hint_at_parts(options)):
        reporter.hint(hint)
    end_run(log.outcomes, reporter)


def plan_batch(
    options: RunOptions, parts: RunParts, retries: int, metrics_file: Path | None, reporter: Reporter
) -> tuple[BatchLog, VideoQueue]:
    """What hears of the outcomes of a run's videos, and the videos in their turn. Ends the command where there is
    nothing to be done.

    Args:
        options: of the run.
        parts: that all its videos share.
        retries: times that a video is tried again that has ended its worker.
        metrics_file: where counts are written for a monitor, if anywhere.
        reporter: hears how far it is.
    """
    if not options.videos:
        reporter.hint("nothing to be done: no video is in this shard, or none failed")
        raise typer.Exit()
    jobs = plan_jobs(options, parts)
    return BatchLog(options.out, len(jobs), reporter, metrics_file), VideoQueue(jobs, retries)


def check_run(
    asked: RunOptions, selection: FrameSelection, find: Callable[[], list[VideoEntry]]
) -> tuple[RunOptions, RunParts]:
    """The options of the run that is `asked` for, with the videos that `find` finds, unless it has some, and its
    parts. Raises one InputError for all that is wrong with formats, videos, parts and `selection`.
    """
    videos = list(asked.videos)

    def find_videos() -> None:
        videos.extend([] if videos else find())

    formats, _, parts, _ = collect_parts(
        lambda: check_formats(asked.formats),
        find_videos,
        lambda: RunParts(replace(asked, videos=videos or SOME)).check(),
        selection.check,
    )
    return replace(asked, videos=videos, formats=formats), parts


def check_exemplars(options: RunOptions) -> None:
    """Raises InputError for exemplars where there are several videos."""
    if options.exemplars and len(options.videos) > 1:
        raise InputError(
            f"--exemplar: shows what is in one video, and there are {len(options.videos)}; give one, or use --text"
        )


def watch_videos(options: RunOptions, parts: RunParts, folder: Path, reporter: Reporter) -> NoReturn:
    """Does the videos in a `folder` and those that appear in it, with the `options` and `parts` of a run, until
    Ctrl-C, and ends the command; the `reporter` hears how far it is.
    """
    from masklet.run.watch import WatchedNames, watch_folder

    reporter.hint(f"waiting for videos in {folder}; Ctrl-C ends")
    names, log = WatchedNames(), BatchLog(options.out, 1, reporter)
    for path in watch_folder(folder):
        name = names.choose(path)
        there = OutputFolder(options.out, name, options.overwrite)
        job = replace(plan_job(parts, VideoEntry(str(path), name), there), is_alone=False)
        log.note(process_video(job, reporter))
    if any(o.is_there for o in log.outcomes) and (hint := hint_at_parts(options)):
        reporter.hint(hint)
    end_run(log.outcomes, reporter)


def choose_pool(
    options: RunOptions, crew: Crew, address: str | None, gpus: float, queue: VideoQueue, log: BatchLog
) -> HerePool | WorkerPool | RayPool:
    """Who does the videos of the `queue` as `options` has it, and tells the `log`: this process, workers of the
    `crew`, or the actors of a Ray cluster at `address`, each with so many `gpus`.
    """
    if address is not None:
        from masklet.run.ray_runner import RayCrew, RayPool

        return RayPool(options, RayCrew(crew, address, gpus), queue, log)
    return WorkerPool(options, crew, queue, log) if crew.is_needed else HerePool(queue, log)


def run_batch(out: Path, queue: VideoQueue, pool: HerePool | WorkerPool | RayPool, log: BatchLog) -> None:
    """Has the `pool` do all videos of the `queue`, tells the `log` of it, and clears away what dead processes left in
    `out`.
    """
    clean_up(out)
    try:
        with log.reporter.batch(len(queue)):
            pool.run()
    finally:
        clean_up(out)
        log.write_metrics()


def choose_videos(videos: Sequence[VideoEntry], out: Path, shard: str | None, failed_only: bool) -> list[VideoEntry]:
    """Those of the `videos` that are asked for: of one `shard`, such as "1/8", or, with `failed_only`, that failed in
    `out`.
    """
    chosen = choose_shard(videos, shard) if shard else list(videos)
    if not failed_only:
        return chosen
    last = read_last_states(out)
    return [video for video in chosen if last.get(video.name) == FAILED]


def check_timeout(seconds: float | None) -> float | None:
    """Raises InputError for a time that is none."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"--timeout {seconds:g}: give seconds above 0")
    return seconds


def check_shared_sources(videos: Sequence[VideoEntry], crew: Crew, ray: str | None) -> None:
    """Raises InputError where only this process can read the source of one of the `videos`, and worker processes of
    the `crew` or of a `ray` cluster would have to.
    """
    own = [v.source for v in videos if v.source == "-" or str(v.source).startswith(("/dev/fd/", "/proc/self/fd/"))]
    if own and (crew.is_needed or ray is not None):
        raise InputError(
            f"{own[0]}: worker processes cannot read it; leave out --jobs, --timeout and --ray, or give a file"
        )


def track_command(
    source: Annotated[list[str], typer.Argument(help="A video file, a folder, glob or list of frames, or -.")],
    out: Out,
    prompt: PromptTexts = [],  # noqa: B006
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A json of prompts (docs/prompts.md).")] = None,
    dataset: Dataset = None,
    predictions: Predictions = None,
    from_: From = None,
    only: Only = None,
    propagator: PropagatorName = None,
    preset: PresetName = GOOD,
    device: DeviceName = "auto",
    memory: Memory = None,
    compile_: Compile = False,
    set_: Settings = None,
    help_settings: HelpSettings = False,
    format: Formats = [],  # noqa: B006
    overlay: Overlay = True,
    start: Start = "0",
    end: End = None,
    stride: Stride = 1,
    fps: Fps = None,
    max_side: MaxSide = None,
    max_frames: MaxFrames = None,
    strict: Strict = False,
    allow_network: AllowNetwork = False,
    overwrite: Overwrite = False,
    checkpoint: Checkpoint = CHECKPOINT,
    quiet: Silent = False,
    json_log: Log = False,
) -> None:
    """Propagate given objects both ways from the frames in which they are given; of a --dataset as its own programs
    do, forward only.
    """
    reporter = choose_reporter(quiet, json_log)
    reading: dict[str, Any] = dict(start=start, end=end, stride=stride, fps=fps, max_side=max_side)
    reading |= dict(max_frames=max_frames, strict=strict, allow_network=allow_network)
    with exit_on_input_error(reporter):
        parts = choose_track_parts(preset)
        budget = parse_memory(memory) if memory else find_memory_budget()
        own, of_parts = split_settings(parse_settings(set_ or []))
        refuse_part_settings("track", "it", {**own, **of_parts["segmenter"]})
        name = propagator or parts.propagator
        settings = {**(choose_evaluation_settings(name) if dataset else {}), **of_parts["propagator"]}
        settings |= {"compile": True} if compile_ else {}
        check_predictions_folder(predictions, dataset, reading)
        formats, marked, carrier, begun, _ = collect_parts(
            lambda: check_formats(format),
            lambda: list_marked_videos(dataset, source, prompt, prompts),
            lambda: make_propagator(name, make_encoder(device), device, settings),
            lambda: read_begun_result(from_, only, dataset),
            FrameSelection(start, end, stride, fps, max_side, max_frames).check,
        )
        inputs = [text.rsplit(":", 1)[-1] for text in prompt] + [str(from_)] * (from_ is not None)
        named = name_videos([VideoEntry(video.source, video.name, video.name) for video in marked])

        asked = TrackOptions(carrier, begun, reading, str(resolve_device(device)), formats, overlay, checkpoint, budget)
        folders = plan_output_folders(named, out, overwrite, inputs)
        jobs = [asked.plan_job(v, folder, len(marked) == 1) for v, folder in zip(marked, folders, strict=True)]
    log, queue = BatchLog(out, len(jobs), reporter), VideoQueue(jobs)
    run_batch(out, queue, HerePool(queue, log), log)
    if any(o.is_there for o in log.outcomes) and not propagator:
        reporter.hint(parts.hint)
    if predictions:
        there = {o.video for o in log.outcomes if o.is_there}
        videos = {e.name: v.video for e, v in zip(named, marked, strict=True) if v.video and e.name in there}
        write_predictions(out, videos, predictions, reporter)
    end_run(log.outcomes, reporter)


def write_predictions(out: Path, videos: Mapping[str, DatasetVideo], folder: Path, reporter: Reporter) -> None:
    """Writes the results in `out` of some `videos`, by the names of their folders, into `folder` as their data set has
    its predictions; ends with what `reporter` says where one does not fit.
    """
    from masklet.io.formats.vos_folder import write_vos_video

    with exit_on_input_error(reporter):
        for name, video in videos.items():
            write_vos_video(VideoResult.load(out / name / MASKLETS), video, folder)


def check_predictions_folder(folder: Path | None, dataset: str | None, reading: Mapping[str, Any]) -> None:
    """Raises InputError where predictions are to be written that no data set asks for, over others, or of some frames
    alone, or of smaller ones, as `reading` has it: who scores them needs those of the data set.
    """
    if folder is not None and is_choosing(reading):
        raise InputError(
            "--predictions are masks of a data set's own frames; leave out --start, --end, --stride, --fps, --max-side "
            "and --max-frames"
        )
    if folder is not None and dataset is None:
        raise InputError("--predictions writes masks as a data set has them; say which one by --dataset")
    if folder is not None and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--predictions {folder}: is not empty; give a new folder")


@dataclass(frozen=True)
class MarkedVideo:
    """A video whose objects somebody has marked.

    Attributes:
        source: the video.
        select: gives the prompts by frame and object, for its frames.
        identity: what tells these prompts from others.
        make: the system of a propagator and prompts.
        name: of the video, where it is one of a data set.
        video: likewise.
    """

    source: Source
    select: Callable[[VideoFrames], dict[int, dict[int, Prompt]]]
    identity: str
    make: Callable[[Any, Prompts], Any]
    name: str = ""
    video: DatasetVideo | None = None


@dataclass(frozen=True)
class BegunResult:
    """A result that is gone on with.

    Attributes:
        result: as it is.
        start, stop: the frames that are done anew; None: as far as anything changes.
        identity: what tells it, and these frames, from others, for the recipe.
    """

    result: VideoResult
    start: int | None
    stop: int | None
    identity: Mapping[str, str]

    def open_video(self, source: Any, **reading: Any) -> FrameSource:
        """Its video at `source`: the frames that it is of, unless `reading` chooses some (`reopen_video`)."""
        return reopen_video(self.result, source, reading)

    def correct(self, carrier: Any, prompts: Mapping[int, Mapping[int, Prompt]]) -> Any:
        """The system that goes on from it with `prompts`, which a `carrier` propagates."""
        from masklet.session.correction import Correction  # and scipy, of which tracking needs nothing

        return Correction(carrier, prompts, self.result, self.start, self.stop, load_bystanders(carrier))


@dataclass(frozen=True)
class TrackOptions:
    """What `masklet track` was asked for, for all of its videos.

    Attributes:
        carrier: the propagator.
        begun: the result that is gone on with, or none.
        reading: what of a source is used, as `open_video` takes it.
        device: where videos are decoded, if they can be there.
        formats: to write besides masklets.json.
        overlay: whether to write overlay.mp4.
        checkpoint: frames from one checkpoint of a video to the next; 0: none are written.
        memory: that may be held.
    """

    carrier: Any
    begun: BegunResult | None
    reading: Mapping[str, Any]
    device: str
    formats: Sequence[str]
    overlay: bool
    checkpoint: int
    memory: MemoryBudget

    def plan_job(self, marked: MarkedVideo, folder: OutputFolder, is_alone: bool) -> Job:
        """The job of a `marked` video, whose results go into `folder`; `is_alone` where there is no other video."""
        begun = self.begun
        return Job(
            marked.source,
            folder,
            partial(begun.open_video if begun else open_video, **self.reading, device=self.device),
            partial(self.make_system, marked),
            partial(begun.correct if begun else marked.make, self.carrier, {}),
            {"reading": self.reading, "prompts": marked.identity, **(begun.identity if begun else {})},
            self.formats,
            self.overlay,
            self.checkpoint,
            marked.name,
            memory=self.memory,
            is_alone=is_alone,
        )

    def make_system(self, marked: MarkedVideo, video: Video) -> Any:
        """The system that tracks what is `marked` in a `video` that was opened."""
        told = marked.select(VideoFrames.of(video))
        if self.begun:
            return self.begun.correct(self.carrier, told)
        return marked.make(self.carrier, check_prompts(told, video))


def read_begun_result(path: Path | None, only: str | None, dataset: str | None) -> BegunResult | None:
    """The result of --from at a `path`, with the frames of --only; None where there is none. Raises InputError where it
    cannot be read, the frames are none, or it is asked for with a `dataset`.
    """
    if path is None:
        if only is not None:
            raise InputError(f"--only {only}: says which frames of a result are done anew; give that by --from")
        return None
    if dataset is not None:
        raise InputError("--from is one result, of one video; leave out --dataset")
    from masklet.cli.edit import find_one_result  # and scipy, of which tracking needs nothing

    file = find_one_result(path)
    start, stop = parse_frame_range(only) if only is not None else (None, None)
    identity = {"from": compute_hash(file).sha256, "only": only or ""}
    return BegunResult(VideoResult.open(file), start, stop, identity)


def parse_frame_range(text: str) -> tuple[int, int | None]:
    """The frames that START:STOP means, from 0 on and to the end where one is left out. Raises InputError where it
    means none.

    >>> parse_frame_range("40:90"), parse_frame_range(":90"), parse_frame_range("40:")
    ((40, 90), (0, 90), (40, None))
    """
    first, colon, last = (part.strip() for part in text.partition(":"))
    start, stop = parse_whole_number(first or "0"), parse_whole_number(last) if last else None
    if not colon or start is None or (last and (stop is None or stop <= start)) or not (first or last):
        raise InputError(f"--only {text}: write it as START:STOP, such as 40:90, frames from 0; 40: is to the end")
    return start, stop


def list_marked_videos(
    dataset: str | None, source: Sequence[str], prompt: Sequence[str], prompts: Path | None
) -> list[MarkedVideo]:
    """The videos that `masklet track` is given: `source` with the texts `prompt` and those of the file `prompts`, or
    those in the roots of a `dataset` with its own prompts. Raises InputError where prompts are missing, of all videos
    at once, or given twice.
    """
    if dataset is not None:
        if prompt or prompts:
            raise InputError("--dataset brings the prompts of its videos; leave out --prompt and --prompts")
        return [mark_dataset_video(video) for root in source for video in list_prompted_videos(dataset, Path(root))]
    if not prompt and prompts is None:
        raise InputError("no prompt; give --prompt FRAME:ID:WHAT for each object, or --prompts FILE")
    written = read_prompt_file(prompts) if prompts else PromptFile("", ())
    typed = read_prompts(prompt)

    def select(frames: VideoFrames) -> dict[int, dict[int, Prompt]]:
        told = written.select(frames)
        for frame, marks in typed.items():
            add_prompts("--prompt", told, frame, marks)
        return told

    identity = compute_prompt_hash([*written.prompts, *typed.items()])
    return [MarkedVideo(choose_one_video(source), select, identity, make_both_ways)]


def make_both_ways(carrier: Any, prompts: Prompts) -> Track[Any, Any]:
    """The system that tracks `prompts` with the propagator `carrier` forward and back, beside what stands there."""
    return Track(carrier, prompts, load_bystanders(carrier) if prompts else None)


def mark_dataset_video(video: DatasetVideo) -> MarkedVideo:
    """A video of a data set with what that says of its objects, which is read when it is its turn."""
    identity = identify_files([path for path, _ in video.given])
    return MarkedVideo(
        video.source,
        lambda frames: read_dataset_prompts(video).select(frames),
        identity,
        partial(VosTrack, join=choose_join(video)),
        video.name,
        video,
    )


def list_entries(dataset: str | None, given: Sequence[str], path: Path | None) -> list[VideoEntry]:
    """The videos of the command line: the sources that are `given`, or those in the roots of a `dataset`, and those
    that the file `path` lists.
    """
    if dataset is None:
        return list_videos(given, path)
    found = list_dataset_entries([video for root in given for video in list_dataset_videos(dataset, Path(root))])
    more = list_videos([], path) if path or not found else []
    return name_videos([*found, *(replace(entry, name=entry.title) for entry in more)])


def check_window(window: int | None, system: str) -> None:
    """Raises InputError where a `window` is asked for of a `system` that sees one frame after the other."""
    if window is not None and system in SYSTEMS.names:
        raise InputError(
            f"{name_argument('window', window)}: {system} sees one frame after the other; leave it out, or take "
            f"{name_argument('system')} {', '.join(QUERY_SYSTEMS)}"
        )


def check_watch(folder: Path, is_more: bool) -> None:
    """Raises InputError where a folder cannot be watched, or there is more that does not go with it."""
    if is_more:
        raise InputError(
            "--watch takes the videos of its folder one by one; leave out sources, --jobs and --dry-run, and what else "
            "chooses or shares videos"
        )
    if not folder.is_dir():
        raise InputError(f"--watch {folder}: there is no such folder; make it first")


def print_plan(out: Path, jobs: Sequence[Job], workers: int, reporter: Reporter) -> NoReturn:
    """Has the `reporter` say of the video of each of the `jobs` what would become of it in `out`, and what all that
    would take with so many `workers`, and ends the command.
    """
    from masklet.run.forecast import foresee_video, format_forecast

    foreseen = [foresee_video(job) for job in jobs]
    for job, one in zip(jobs, foreseen, strict=True):
        reporter.plan(one.told, job.name)
    reporter.plan(format_forecast(out, foreseen, workers))
    raise typer.Exit()


def end_run(outcomes: Sequence[Outcome], reporter: Reporter) -> NoReturn:
    """Says what became of several videos, and ends the command: 0 where all results are there; 2 where there was one
    video that could not be used, or was not to be replaced; else 1.
    """
    missing = [o for o in outcomes if not o.is_there]
    if len(outcomes) > 1:
        reporter.summary(format_summary(outcomes) + "\n" + format_summary_table(outcomes), count_states(outcomes))
    alone = len(outcomes) == 1 and all(o.foreseen for o in missing)
    raise typer.Exit((2 if alone else 1) if missing else 0)


def choose_one_video(arguments: Sequence[str]) -> Source:
    """The video that all `arguments` mean together. Raises InputError where they mean several."""
    videos = group_video_sources(arguments)
    if len(videos) == 1 and isinstance(videos[0], str):
        check_source_exists(videos[0])
    if len(videos) > 1:
        raise InputError(
            f"{describe_source(videos[0])} and {len(videos) - 1} more videos: prompts are for one; give one"
        )
    return videos[0]


@contextmanager
def exit_on_input_error(reporter: Reporter) -> Iterator[None]:
    """Ends the command with exit code 2 when the user's input cannot be used, after saying so."""
    try:
        yield
    except InputError as error:
        reporter.error(str(error))
        raise typer.Exit(2) from None


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats of these `names`. Raises InputError where there is no such format, for all at once."""
    return [found.name for found in collect_parts(*(partial(find_format, name) for name in names))]


def find_format(name: str) -> PartEntry:
    """The format of a name. Raises InputError where there is none, and for what is made of results that are there."""
    if name in EXPORTS.names and name not in FORMATS.names:
        raise InputError(f"--format {name}: is made of results; run first, then `masklet export {name}`")
    return FORMATS.find(name)


def choose_reporter(quiet: bool, json_log: bool) -> Reporter:
    return JsonReporter() if json_log else QuietReporter() if quiet else BarReporter()
