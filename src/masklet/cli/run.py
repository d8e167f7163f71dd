"""`masklet run` and `masklet track`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from masklet.api import check_prompts, collect_parts, load, make_propagator, share_detections, split_settings
from masklet.builtins import DEVICES, FORMATS, PROPAGATORS, QUERY_SYSTEMS, SEGMENTERS, SYSTEMS
from masklet.cli.settings import parse_settings
from masklet.core.annotations import VideoFrames
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
from masklet.io.video.sources import check_source_exists, group_video_sources, make_unique_names, open_video
from masklet.parts import load_bystanders, make_encoder, refuse_part_settings
from masklet.presets import GOOD, choose_run_parts, choose_track_parts
from masklet.registry import list_part_settings
from masklet.run.batch import Job, collect_outcomes, process_video, process_videos
from masklet.run.outcome import Outcome, format_summary
from masklet.run.recipe import identify_files
from masklet.run.watch import WatchedNames, watch_folder
from masklet.run.workers import get_worker_number, run_workers
from masklet.systems.track import Track
from masklet.view.progress import BarReporter, JsonReporter, QuietReporter, Reporter

CHECKPOINT = 500  # frames

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
    checkpoint: Checkpoint = CHECKPOINT,
    watch: Watch = None,
    dry_run: DryRun = False,
    quiet: Silent = False,
    json_log: Log = False,
) -> None:
    """Find, segment, track and complete every object of each video."""
    reporter = choose_reporter(quiet or get_worker_number() is not None, json_log)
    reading: dict[str, Any] = dict(
        start=start, end=end, stride=stride, fps=fps, max_side=max_side, max_frames=max_frames
    )
    reading |= dict(strict=strict, allow_network=allow_network)
    with exit_on_input_error(reporter):
        chosen = parse_settings(set_ or []) | ({"window": window} if window else {})
        parts = choose_run_parts(preset)
        finder = segmenter or (None if text or system in QUERY_SYSTEMS else parts.segmenter)
        carrier = propagator or parts.propagator
        if watch:
            check_watch(watch, bool(source or list_ or dataset), jobs, dry_run)
        formats, made, paths, _ = collect_parts(
            lambda: check_formats(format),
            lambda: load(system, segmenter=finder, text=text, propagator=carrier, device=device, **chosen).system,
            lambda: [] if watch else find_sources(dataset, source or (), list_),
            FrameSelection(start, end, stride, fps, max_side, max_frames).check,
        )
        made = share_detections(made, 2 if watch else len(paths))
        there = plan_output_folders(paths, out, overwrite, [segmenter] if segmenter else [])
    if dry_run:
        say_plan(out, there)
    opened = partial(open_video, **reading)

    def plan_job(path: Source, folder: OutputFolder) -> Job:
        return Job(path, folder, opened, lambda video: made, made, {"reading": reading}, formats, overlay, checkpoint)

    work = [plan_job(path, folder) for path, folder in zip(paths, there, strict=True)]
    if watch:
        reporter.hint(f"waiting for videos in {watch}; Ctrl-C ends")
        names = WatchedNames()
        came = ((str(path), OutputFolder(out, names.choose(path), overwrite)) for path in watch_folder(watch))
        with exit_on_input_error(reporter):
            outcomes = [process_video(plan_job(path, folder), reporter) for path, folder in came]
    elif jobs > 1 and get_worker_number() is None:
        run_workers(out, jobs, retries, sys.argv[1:])
        outcomes = collect_outcomes(out, work)
    else:
        outcomes = process_videos(work, reporter, get_worker_number())
    if any(o.is_there for o in outcomes) and not (segmenter or propagator or text or system in QUERY_SYSTEMS):
        reporter.hint(parts.hint)
    end_run(outcomes, reporter)


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
        own, of_parts = split_settings(parse_settings(set_ or []))
        refuse_part_settings("track", "it", {**own, **of_parts["segmenter"]})
        name, settings = propagator or parts.propagator, of_parts["propagator"]
        formats, marked, carrier, _ = collect_parts(
            lambda: check_formats(format),
            lambda: list_marked_videos(dataset, source, prompt, prompts),
            lambda: make_propagator(name, make_encoder(device), device, settings),
            FrameSelection(start, end, stride, fps, max_side, max_frames).check,
        )
        sources, inputs = [video.source for video in marked], [text.rsplit(":", 1)[-1] for text in prompt]

        def made(marked: MarkedVideo, video: Video) -> Track[Any, Any]:
            told = marked.select(VideoFrames.of(video))
            return Track(carrier, check_prompts(told, video), load_bystanders(carrier))

        jobs = [
            Job(
                video.source,
                folder,
                partial(open_video, **reading),
                partial(made, video),
                Track(carrier, {}),
                {"reading": reading, "prompts": video.identity},
                formats,
                overlay,
                checkpoint,
            )
            for video, folder in zip(marked, plan_output_folders(sources, out, overwrite, inputs), strict=True)
        ]
    outcomes = [process_video(job, reporter) for job in jobs]
    if any(o.is_there for o in outcomes) and not propagator:
        reporter.hint(parts.hint)
    end_run(outcomes, reporter)


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


def check_watch(folder: Path, given: bool, jobs: int, dry_run: bool) -> None:
    """Raises InputError where a folder cannot be watched, or what else is asked for does not go with it, such as
    sources that are `given`.
    """
    if given or jobs > 1 or dry_run:
        raise InputError("--watch takes the videos of its folder one by one; leave sources, --jobs and --dry-run out")
    if not folder.is_dir():
        raise InputError(f"--watch {folder}: there is no such folder; make it first")


def read_source_list(path: Path | None) -> list[str]:
    """The sources in a file, one a line; none where there is no file. Raises InputError where it cannot be read."""
    if path is None:
        return []
    try:
        found = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--list {path}: cannot be read ({error}); give a text with a source a line") from None
    if not found:
        raise InputError(f"--list {path}: holds no source; give one a line")
    return found


def find_sources(dataset: str | None, sources: Sequence[str], listed: Path | None) -> list[Source]:
    """The videos of the command line and of a file in which they are `listed`, as they are or in the roots of a
    `dataset`. Raises InputError where there is none, or the only one is not there.
    """
    given = [*list_given_sources(dataset, sources), *read_source_list(listed)]
    if not given:
        raise InputError("no source; give a video file, a folder of frames, a glob or -, or --list FILE")
    paths = group_video_sources(given)
    if len(paths) == 1 and isinstance(paths[0], str):  # of several one that is missing costs no more than itself
        check_source_exists(paths[0])
    return paths


def say_plan(out: Path, folders: Sequence[OutputFolder]) -> None:
    """Says of each video whether its results are there, and ends the command."""
    for folder in folders:
        there = (folder.path / "masklets.json").exists()
        typer.echo(f"{folder.name}: {'there' if there and not folder.overwrite else 'to be done'}")
    raise typer.Exit()


def end_run(outcomes: Sequence[Outcome], reporter: Reporter) -> None:
    """Says what became of several videos, and ends the command: 0 where all results are there; 2 where there was one
    video that could not be used, or was not to be replaced; else 1.
    """
    missing = [o for o in outcomes if not o.is_there]
    if len(outcomes) > 1:
        reporter.hint(format_summary(list(outcomes)))
    alone = len(outcomes) == 1 and all(o.foreseen for o in missing)
    raise typer.Exit((2 if alone else 1) if missing else 0)


def choose_one_video(arguments: Sequence[str]) -> Source:
    """The video that all `arguments` mean together. Raises InputError where they mean several."""
    videos = find_sources(None, arguments, None)
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


def plan_output_folders(
    paths: Sequence[Source], out: Path, overwrite: bool, inputs: Sequence[str]
) -> list[OutputFolder]:
    """The output folder of each video; refuses, before any work is done, those that are filled, and those that
    a source or another of the `inputs` lies in: they would be replaced with it.
    """
    names = make_unique_names(paths)
    files = [p for path in paths for p in ([path] if isinstance(path, str) else path[:1])]
    given = [Path(p).resolve() for p in (*files, *inputs) if p != "-"]
    needed = {folder for p in given for folder in (p, *p.parents)}
    for name in names:
        if (out / name).resolve() in needed:
            raise InputError(f"{out / name}: the results would replace what they are made from; choose another --out")
    return [OutputFolder(out, name, overwrite) for name in names]


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats of these `names`. Raises InputError where there is no such format, for all at once."""
    return [found.name for found in collect_parts(*(partial(FORMATS.find, name) for name in names))]


def choose_reporter(quiet: bool, json_log: bool) -> Reporter:
    return JsonReporter() if json_log else QuietReporter() if quiet else BarReporter()
