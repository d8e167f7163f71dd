"""`masklet run` and `masklet track`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from masklet.api import check_prompts, load, make_propagator, run_system, split_settings
from masklet.builtins import DEVICES, FORMATS, PROPAGATORS, QUERY_SYSTEMS, SEGMENTERS, SYSTEMS
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.io.output_folder import OutputFolder
from masklet.io.prompts import read_prompts
from masklet.io.video.sources import list_video_sources, make_unique_names, open_video
from masklet.outputs import write_outputs
from masklet.parts import load_bystanders, make_encoder, refuse_part_settings
from masklet.presets import GOOD, choose_run_parts, choose_track_parts
from masklet.registry import list_part_settings
from masklet.systems.track import Track
from masklet.view.progress import BarReporter, JsonReporter, QuietReporter, Reporter

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
    str, typer.Option("--device", metavar="|".join(DEVICES), help="Where networks run; cuda:1 is the second GPU.")
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


HelpSettings = Annotated[
    bool,
    typer.Option(
        "--help-settings", callback=show_settings, is_eager=True, help="Say all settings with their defaults, and end."
    ),
]


def run_command(
    source: Annotated[
        list[str],
        typer.Argument(help="Video files, folders of frames, globs, or - for an image stream."),
    ],
    out: Out,
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
    overwrite: Overwrite = False,
    quiet: Silent = False,
    json_log: Log = False,
) -> None:
    """Find, segment, track and complete every object of each video."""
    reporter = choose_reporter(quiet, json_log)
    with exit_on_input_error(reporter):
        formats = check_formats(format)
        chosen = parse_settings(set_ or []) | ({"window": window} if window else {})
        parts = choose_run_parts(preset)
        finder = segmenter or (None if text or system in QUERY_SYSTEMS else parts.segmenter)
        carrier = propagator or parts.propagator
        made = load(system, segmenter=finder, text=text, propagator=carrier, device=device, **chosen).system
        paths = [path for given in source for path in list_video_sources(given)]
        there = plan_output_folders(paths, out, overwrite, [segmenter] if segmenter else [])
    failures = 0
    for path, folder in zip(paths, there, strict=True):
        try:
            process_video(path, folder, lambda video: made, formats, overlay, reporter)
        except InputError as error:  # the other videos go on
            failures += 1
            reporter.error(str(error))
    if failures < len(paths) and not (segmenter or propagator or text or system in QUERY_SYSTEMS):
        reporter.hint(parts.hint)
    raise typer.Exit(2 if failures else 0)


def track_command(
    source: Annotated[str, typer.Argument(help="A video file, a folder or glob of frames, or -.")],
    out: Out,
    prompt: Annotated[
        list[str],
        typer.Option(
            metavar="FRAME:ID:WHAT",
            help="FRAME from 0, ID from 1, WHAT: mask.png, box=x0,y0,x1,y1, point=x,y or outside=x,y; repeatable.",
        ),
    ],
    propagator: PropagatorName = None,
    preset: PresetName = GOOD,
    device: DeviceName = "auto",
    set_: Settings = None,
    help_settings: HelpSettings = False,
    format: Formats = [],  # noqa: B006
    overlay: Overlay = True,
    overwrite: Overwrite = False,
    quiet: Silent = False,
    json_log: Log = False,
) -> None:
    """Propagate given objects both ways from the frames in which they are given."""
    reporter = choose_reporter(quiet, json_log)
    with exit_on_input_error(reporter):
        parts = choose_track_parts(preset)
        formats = check_formats(format)
        own, of_parts = split_settings(parse_settings(set_ or []))
        refuse_part_settings("track", "it", {**own, **of_parts["segmenter"]})
        prompts = read_prompts(prompt)
        carrier = make_propagator(propagator or parts.propagator, make_encoder(device), device, of_parts["propagator"])
        [folder] = plan_output_folders([source], out, overwrite, [text.split(":", 2)[2] for text in prompt])

        def made(video: Video) -> Track[Any, Any]:
            return Track(carrier, check_prompts(prompts, video), load_bystanders(carrier))

        process_video(source, folder, made, formats, overlay, reporter)
        if not propagator:
            reporter.hint(parts.hint)


def process_video(
    source: str,
    folder: OutputFolder,
    made: Callable[[Video], Any],
    formats: Sequence[str],
    overlay: bool,
    reporter: Reporter,
) -> None:
    """One video: read, run, write; its folder appears when everything is in it."""
    started = monotonic()
    with open_video(source) as video, reporter.video(folder.name, len(video)) as watch, folder as there:
        result = run_system(made(video), video, source, watch)
        failed = write_outputs(result, video, there, formats, overlay, watch)
    reporter.done(folder.path, result, monotonic() - started)
    if failed:
        raise InputError(f"{folder.path}: masklets.json is there, but not all formats: {'; '.join(failed)}")


@contextmanager
def exit_on_input_error(reporter: Reporter) -> Iterator[None]:
    """Ends the command with exit code 2 when the user's input cannot be used, after saying so."""
    try:
        yield
    except InputError as error:
        reporter.error(str(error))
        raise typer.Exit(2) from None


def plan_output_folders(paths: Sequence[str], out: Path, overwrite: bool, inputs: Sequence[str]) -> list[OutputFolder]:
    """The output folder of each video; refuses, before any work is done, those that are filled, and those that
    a source or another of the `inputs` lies in: they would be replaced with it.
    """
    names = make_unique_names(paths)
    given = [Path(p).resolve() for p in (*paths, *inputs) if p != "-"]
    needed = {folder for p in given for folder in (p, *p.parents)}
    for name in names:
        if (out / name).resolve() in needed:
            raise InputError(f"{out / name}: the results would replace what they are made from; choose another --out")
    return [OutputFolder(out, name, overwrite) for name in names]


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats of these `names`. Raises InputError where there is no such format."""
    return [FORMATS.find(name).name for name in names]


def choose_reporter(quiet: bool, json_log: bool) -> Reporter:
    return JsonReporter() if json_log else QuietReporter() if quiet else BarReporter()


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE with VALUE as JSON has it, none for null, or a plain word."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: write it as NAME=VALUE, such as --set conf=0.8")
        settings[name.replace("-", "_")] = parse_setting_value(value)
    return settings


def parse_setting_value(text: str) -> Any:
    """What a setting's text means."""
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
