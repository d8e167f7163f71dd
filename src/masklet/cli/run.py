"""`masklet run` and `masklet track`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from masklet.api import check_prompts, collect_parts, make_propagator, split_settings
from masklet.builtins import DEVICES, FORMATS, PROPAGATORS, QUERY_SYSTEMS, SEGMENTERS, SYSTEMS
from masklet.cli.settings import parse_settings
from masklet.core.annotations import VideoFrames
from masklet.core.budget import find_memory_budget, parse_memory
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.instances import Prompt
from masklet.io.output_folder import OutputFolder
from masklet.io.prompts import (
    PromptFile,
    add_prompts,
    hash_prompts,
    read_dataset_prompts,
    read_prompt_file,
    read_prompts,
)
from masklet.io.video.datasets import DatasetVideo, describe_layouts, list_dataset_videos, list_prompted_videos
from masklet.io.video.selection import FrameSelection
from masklet.io.video.source_names import Source, describe_source
from masklet.io.video.sources import check_source_exists, group_video_sources, open_video
from masklet.parts import load_bystanders, make_encoder, refuse_part_settings
from masklet.presets import GOOD, choose_track_parts
from masklet.registry import list_part_settings
from masklet.run.batch import Job, process_video
from masklet.run.batch_log import BatchLog
from masklet.run.forecast import TO_DO, foresee_video, format_forecast
from masklet.run.outcome import FAILED, Outcome, count_states, format_summary, format_summary_table, read_last_states
from masklet.run.plan import RunOptions, RunParts, hint_at_parts, plan_job, plan_jobs, plan_output_folders
from masklet.run.queue import HerePool, VideoQueue
from masklet.run.ray_runner import RayCrew, RayPool
from masklet.run.recipe import identify_files
from masklet.run.video_list import VideoEntry, choose_shard, list_videos, name_videos
from masklet.run.watch import WatchedNames, watch_folder
from masklet.run.workers import Crew, WorkerPool, clean_up
from masklet.systems.track import Track
from masklet.view.progress import BarReporter, JsonReporter, QuietReporter, Reporter

CHECKPOINT = 500  # frames
SOME = (VideoEntry("-"), VideoEntry("-"))  # where it is not known which videos there will be

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results, one folder per video.")]
Formats = Annotated[
    list[str], typer.Option("--format", metavar="NAME", help=f"Further formats to write: {FORMATS.describe()}.")
]
Overlay = Annotated[bool, typer.Option("--overlay/--no-overlay", help="Write overlay.mp4.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there.")]
Silent = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Log = Annotated[bool, typer.Option("--json-log", help="Report on standard output, one JSON object a line.")]
PropagatorName = Annotated[
    str | None,
    typer.Option(
        "--propagator",
        metavar="NAME",
        help=f"{PROPAGATORS.describe()}; or a SAM 2 by hub id or folder.",
    ),
]
PresetName = Annotated[
    str,
    typer.Option(help="fast, good or best: the parts that are taken where none are named, by what is on this machine."),
]
DeviceName = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help=f"Where networks run: {', '.join(DEVICES)}, or cuda:1 and so on."),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="What may be held in memory, such as 4G; else by what is free."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the system, or segmenter.NAME, propagator.NAME of a part."
    ),
]


def show_settings(asked: bool) -> None:
    """Says every setting of the systems and parts that ship, where it is `asked` for, and ends."""
    if not asked:
        return
    for registry, prefix in ((SYSTEMS, ""), (SEGMENTERS, "segmenter."), (PROPAGATORS, "propagator.")):
        for name in registry.names:
            entry = registry.find(name)
            typer.echo(f"{registry.kind} {name}: {entry.help}")
            for setting in list_part_settings(entry).values():
                typer.echo(f"  --set {prefix}{setting.name}={setting.default}  {setting.meaning}".rstrip())
    raise typer.Exit()


Start = Annotated[
    str, typer.Option(metavar="FRAME|TIME", help="First frame that is used: 120, 4.5s or 1:30. Results count from it.")
]
End = Annotated[str | None, typer.Option(metavar="FRAME|TIME", help="The frame before which they end.")]
Stride = Annotated[int, typer.Option(help="Use every so many-th frame.")]
Fps = Annotated[float | None, typer.Option(help="Use at most so many frames a second.")]
MaxSide = Annotated[int | None, typer.Option(metavar="PIXELS", help="Reduce larger frames to this longer side.")]
MaxFrames = Annotated[int | None, typer.Option(help="Use at most so many frames.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:PART]",
        help=f"SOURCE is the root of a data set, whose videos are meant: {describe_layouts()} (docs/sources.md).",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a damaged source.")]
AllowNetwork = Annotated[
    bool, typer.Option("--allow-network", help="Let a playlist open the files and addresses that it names.")
]
ListFile = Annotated[
    Path | None, typer.Option("--list", metavar="FILE", help="A file with a source a line, besides those given.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes that share the videos.")]
Retries = Annotated[int, typer.Option(min=0, help="Times that a video is tried again that has ended its worker.")]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="End a video's worker after this time, which costs it a try.")
]
Checkpoint = Annotated[
    int,
    typer.Option(
        min=0, metavar="FRAMES", help="Save so often what a killed run needs to go on with the same command; 0: never."
    ),
]
Watch = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Take the videos in a folder, and those that appear, until Ctrl-C."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
FailedOnly = Annotated[
    bool, typer.Option("--failed-only", help="Do only what failed when it was last tried (by manifest.jsonl).")
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Do only every N-th video by name, from the I-th, as one of N runs.")
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Share the videos over a Ray cluster: auto, local, or where it is."),
]
RayGpus = Annotated[float, typer.Option(min=0, help="GPUs, or part of one, for each of the --jobs over --ray.")]
MetricsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep counts in this file, in Prometheus' text form.")
]
HelpSettings = Annotated[
    bool,
    typer.Option(
        "--help-settings", callback=show_settings, is_eager=True, help="Say all settings with their defaults, and end."
    ),
]


def run_command(
    out: Out,
    source: Annotated[
        list[str] | None,
        typer.Argument(help="Video files, folders of frames, globs, or - for an image stream."),
    ] = None,
    system: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join((*SYSTEMS.names, *QUERY_SYSTEMS))}.")
    ] = "sam2bmp",
    segmenter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{SEGMENTERS.describe()}; a Mask2Former; or detections of yours (json, PNGs).",
        ),
    ] = None,
    text: Annotated[
        str, typer.Option(metavar="WORDS", help="What to find: 'dog. red car.' (grounding-dino-tiny).")
    ] = "",
    propagator: PropagatorName = None,
    preset: PresetName = GOOD,
    device: DeviceName = "auto",
    memory: Memory = None,
    window: Annotated[int | None, typer.Option(help="Frames at once (minvis, dvis, dvis-offline, rocovis).")] = None,
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
    reading: dict[str, Any] = dict(
        start=start, end=end, stride=stride, fps=fps, max_side=max_side, max_frames=max_frames
    )
    reading |= dict(strict=strict, allow_network=allow_network)
    selection = FrameSelection(start, end, stride, fps, max_side, max_frames)
    with exit_on_input_error(reporter):
        budget = parse_memory(memory) if memory else None if ray is not None else find_memory_budget()
        chosen = parse_settings(set_ or []) | ({"window": window} if window else {})
        crew = Crew(jobs, retries, check_timeout(timeout))
        if watch:
            is_more = bool(source or list_ or dataset or shard or failed_only or crew.is_needed or ray or dry_run)
            check_watch(watch, is_more)
        asked = RunOptions(
            out,
            SOME if watch else (),
            system,
            segmenter,
            text,
            propagator,
            preset,
            device,
            chosen,
            format,
            overlay,
            overwrite,
            reading,
            checkpoint,
            budget and budget.divide(jobs),
        )
        options, parts = check_run(
            asked, selection, lambda: list_videos(list_given_sources(dataset, source or ()), list_)
        )
        if watch:
            watch_videos(options, parts, watch, reporter)
        options = replace(options, videos=choose_videos(options.videos, out, shard, failed_only))
        if not options.videos:
            reporter.hint("nothing to be done: no video is in this shard, or none failed")
            raise typer.Exit()
        check_shared_sources(options.videos, crew, ray)
        work = plan_jobs(options, parts)
        if dry_run:
            say_plan(out, work, jobs)
        log = BatchLog(out, len(work), reporter, metrics_file)
        queue = VideoQueue(work, retries)
        pool = choose_pool(options, crew, ray, ray_gpus, queue, log)
    run_batch(out, queue, pool, log)
    if any(o.is_there for o in log.outcomes) and (hint := hint_at_parts(options)):
        reporter.hint(hint)
    end_run(log.outcomes, reporter)


def check_run(
    asked: RunOptions, selection: FrameSelection, find: Callable[[], list[VideoEntry]]
) -> tuple[RunOptions, RunParts]:
    """The options of a run with the videos that `find` finds, unless it has some, and its parts. Raises one InputError
    for all that is wrong with formats, videos, parts and `selection`.
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


def watch_videos(options: RunOptions, parts: RunParts, folder: Path, reporter: Reporter) -> NoReturn:
    """Does the videos in a `folder` and those that appear in it, until Ctrl-C, and ends the command."""
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
    """Who does the videos: this process, workers of the `crew`, or the actors of a Ray cluster at `address`, each with
    so many `gpus`.
    """
    if address is not None:
        return RayPool(options, RayCrew(crew, address, gpus), queue, log)
    return WorkerPool(options, crew, queue, log) if crew.is_needed else HerePool(queue, log)


def run_batch(out: Path, queue: VideoQueue, pool: HerePool | WorkerPool | RayPool, log: BatchLog) -> None:
    """Has the `pool` do all videos of the `queue`, and clears away what dead processes left in `out`."""
    clean_up(out)
    try:
        with log.reporter.batch(len(queue)):
            pool.run()
    finally:
        clean_up(out)
        log.write_metrics()


def choose_videos(videos: Sequence[VideoEntry], out: Path, shard: str | None, failed_only: bool) -> list[VideoEntry]:
    """Those of the `videos` that are asked for: of one shard, or that failed in `out`."""
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
    """Raises InputError for a source that only this process can read, where worker processes would have to."""
    own = [v.source for v in videos if v.source == "-" or str(v.source).startswith(("/dev/fd/", "/proc/self/fd/"))]
    if own and (crew.is_needed or ray is not None):
        raise InputError(
            f"{own[0]}: worker processes cannot read it; leave out --jobs, --timeout and --ray, or give a file"
        )


def track_command(
    source: Annotated[list[str], typer.Argument(help="A video file, a folder, glob or list of frames, or -.")],
    out: Out,
    prompt: Annotated[
        list[str],
        typer.Option(
            metavar="FRAME:ID:WHAT",
            help="FRAME from 0, ID from 1, WHAT: mask.png, box=x0,y0,x1,y1, point=x,y or outside=x,y; or "
            "FRAME:labels.png, an object for each value; repeatable.",
        ),
    ] = [],  # noqa: B006
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A json of prompts (docs/prompts.md).")] = None,
    dataset: Dataset = None,
    propagator: PropagatorName = None,
    preset: PresetName = GOOD,
    device: DeviceName = "auto",
    memory: Memory = None,
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
    """Propagate given objects both ways from the frames in which they are given."""
    reporter = choose_reporter(quiet, json_log)
    reading: dict[str, Any] = dict(
        start=start, end=end, stride=stride, fps=fps, max_side=max_side, max_frames=max_frames
    )
    reading |= dict(strict=strict, allow_network=allow_network)
    with exit_on_input_error(reporter):
        parts = choose_track_parts(preset)
        budget = parse_memory(memory) if memory else find_memory_budget()
        own, of_parts = split_settings(parse_settings(set_ or []))
        refuse_part_settings("track", "it", {**own, **of_parts["segmenter"]})
        name, settings = propagator or parts.propagator, of_parts["propagator"]
        formats, marked, carrier, _ = collect_parts(
            lambda: check_formats(format),
            lambda: list_marked_videos(dataset, source, prompt, prompts),
            lambda: make_propagator(name, make_encoder(device), device, settings),
            FrameSelection(start, end, stride, fps, max_side, max_frames).check,
        )
        inputs = [text.rsplit(":", 1)[-1] for text in prompt]
        named = name_videos([VideoEntry(video.source) for video in marked])

        def made(marked: MarkedVideo, video: Video) -> Track[Any, Any]:
            told = check_prompts(marked.select(VideoFrames.of(video)), video)
            return Track(carrier, told, load_bystanders(carrier))

        jobs = [
            Job(
                video.source,
                folder,
                partial(open_video, **reading),
                partial(made, video),
                lambda: Track(carrier, {}),
                {"reading": reading, "prompts": video.identity},
                formats,
                overlay,
                checkpoint,
                memory=budget,
                is_alone=len(marked) == 1,
            )
            for video, folder in zip(marked, plan_output_folders(named, out, overwrite, inputs), strict=True)
        ]
    log, queue = BatchLog(out, len(jobs), reporter), VideoQueue(jobs)
    run_batch(out, queue, HerePool(queue, log), log)
    if any(o.is_there for o in log.outcomes) and not propagator:
        reporter.hint(parts.hint)
    end_run(log.outcomes, reporter)


@dataclass(frozen=True)
class MarkedVideo:
    """A video whose objects somebody has marked.

    Attributes:
        source: the video.
        select: gives the prompts by frame and object, for its frames.
        identity: what tells these prompts from others.
    """

    source: Source
    select: Callable[[VideoFrames], dict[int, dict[int, Prompt]]]
    identity: str


def list_marked_videos(
    dataset: str | None, source: Sequence[str], prompt: Sequence[str], prompts: Path | None
) -> list[MarkedVideo]:
    """The videos that `masklet track` is given: one with the prompts of its options, or those of the roots of a
    `dataset` with its own. Raises InputError where prompts are missing, of all videos at once, or given twice.
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

    return [MarkedVideo(choose_one_video(source), select, hash_prompts([*typed.items(), *written.prompts]))]


def mark_dataset_video(video: DatasetVideo) -> MarkedVideo:
    """A video of a data set with what that says of its objects, which is read when it is its turn."""
    identity = identify_files([path for path, _ in video.given])
    return MarkedVideo(video.source, lambda frames: read_dataset_prompts(video).select(frames), identity)


def list_given_sources(dataset: str | None, given: Sequence[str]) -> list[str]:
    """The sources of the command line: as they are, or the videos in the roots of a `dataset`."""
    if dataset is None:
        return list(given)
    return [video.source for root in given for video in list_dataset_videos(dataset, Path(root))]


def check_watch(folder: Path, is_more: bool) -> None:
    """Raises InputError where a folder cannot be watched, or there is more that does not go with it."""
    if is_more:
        raise InputError(
            "--watch takes the videos of its folder one by one; leave out sources, --jobs and --dry-run, and what else "
            "chooses or shares videos"
        )
    if not folder.is_dir():
        raise InputError(f"--watch {folder}: there is no such folder; make it first")


def say_plan(out: Path, jobs: Sequence[Job], workers: int) -> None:
    """Says of each video what would become of it, and what all that would take, and ends the command."""
    foreseen = [(job, foresee_video(job)) for job in jobs]
    for job, told in foreseen:
        typer.echo(f"{job.name}: {told}")
    typer.echo(format_forecast(out, [job for job, told in foreseen if told == TO_DO], workers))
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
    return [found.name for found in collect_parts(*(partial(FORMATS.find, name) for name in names))]


def choose_reporter(quiet: bool, json_log: bool) -> Reporter:
    return JsonReporter() if json_log else QuietReporter() if quiet else BarReporter()
