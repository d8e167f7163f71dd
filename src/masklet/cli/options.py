"""The options of `masklet run`, `track` and `stream`, in the groups in which `--help` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masklet.builtins import DEVICES, FORMATS, PROPAGATORS, QUERY_SYSTEMS, SEGMENTERS, SYSTEMS
from masklet.io.video.datasets import describe_layouts
from masklet.registry import list_part_settings

PARTS = "What finds and follows objects"
FRAMES = "Which frames are used"
RESULTS = "What is written"
VIDEOS = "Many videos, long videos"
REPORTS = "What is said"

From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RESULT",
        help="Go on from this result, a masklets.json or its folder: prompts of its objects correct them, others are "
        "added, all else stays.",
        rich_help_panel=PARTS,
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="START:STOP",
        help="With --from: do these frames anew, [START, STOP), and no others; else as far as prompts change anything.",
        rich_help_panel=FRAMES,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Folder for the results, one folder per video.",
        rich_help_panel=RESULTS,
    ),
]
Formats = Annotated[
    list[str],
    typer.Option(
        "--format", metavar="NAME", help=f"Further formats to write: {FORMATS.describe()}.", rich_help_panel=RESULTS
    ),
]
Overlay = Annotated[
    bool,
    typer.Option(
        "--overlay/--no-overlay",
        help="Write overlay.mp4.",
        rich_help_panel=RESULTS,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace results that are already there.",
        rich_help_panel=RESULTS,
    ),
]
Silent = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Say nothing but errors.",
        rich_help_panel=REPORTS,
    ),
]
Log = Annotated[
    bool,
    typer.Option(
        "--json-log",
        help="Report on standard output, one JSON object a line.",
        rich_help_panel=REPORTS,
    ),
]
PropagatorName = Annotated[
    str | None,
    typer.Option(
        "--propagator",
        metavar="NAME",
        help=f"{PROPAGATORS.describe()}; or a SAM 2 by hub id or folder.",
        rich_help_panel=PARTS,
    ),
]
PresetName = Annotated[
    str,
    typer.Option(
        help="fast, good or best: the parts that are taken where none are named, by what is on this machine.",
        rich_help_panel=PARTS,
    ),
]
DeviceName = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help=f"Where networks run: {', '.join(DEVICES)}, or cuda:1 and so on.",
        rich_help_panel=PARTS,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="What may be held in memory, such as 4G; else by what is free.",
        rich_help_panel=PARTS,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the propagator's networks (SAM 2 and those over it): the first frames take long.",
        rich_help_panel=PARTS,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting of the system, or segmenter.NAME, propagator.NAME of a part.",
        rich_help_panel=PARTS,
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
                value = entry.usual.get(setting.name, setting.default)
                typer.echo(f"  --set {prefix}{setting.name}={value}  {setting.meaning}".rstrip())
            for key in (key for key in entry.usual if key.startswith("segmenter")):
                typer.echo(f"  --{'set ' if '.' in key else ''}{key}={entry.usual[key]}  where nothing else is named")
    raise typer.Exit()


Start = Annotated[
    str,
    typer.Option(
        metavar="FRAME|TIME",
        help="First frame that is used: 120, 4.5s or 1:30. Results count from it.",
        rich_help_panel=FRAMES,
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        metavar="FRAME|TIME",
        help="The frame before which they end.",
        rich_help_panel=FRAMES,
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        help="Use every so many-th frame.",
        rich_help_panel=FRAMES,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        help="Use at most so many frames a second.",
        rich_help_panel=FRAMES,
    ),
]
MaxSide = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Reduce larger frames to this longer side.",
        rich_help_panel=FRAMES,
    ),
]
MaxFrames = Annotated[
    int | None,
    typer.Option(
        help="Use at most so many frames.",
        rich_help_panel=FRAMES,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:PART]",
        help=f"SOURCE is the root of a data set, whose videos are meant: {describe_layouts()} (docs/sources.md).",
        rich_help_panel=VIDEOS,
    ),
]
PromptTexts = Annotated[
    list[str],
    typer.Option(
        metavar="FRAME:ID:WHAT",
        help="FRAME from 0, ID from 1, WHAT: mask.png, box=x0,y0,x1,y1, point=x,y or outside=x,y; or "
        "FRAME:labels.png, an object for each value; repeatable.",
    ),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="With --dataset: also write masks as its evaluation and its server read them.",
        rich_help_panel=RESULTS,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse a damaged source.",
        rich_help_panel=FRAMES,
    ),
]
AllowNetwork = Annotated[
    bool,
    typer.Option(
        "--allow-network", help="Let a playlist open the files and addresses that it names.", rich_help_panel=FRAMES
    ),
]
ListFile = Annotated[
    Path | None,
    typer.Option(
        "--list", metavar="FILE", help="A file with a source a line, besides those given.", rich_help_panel=VIDEOS
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        min=1,
        help="Worker processes that share the videos.",
        rich_help_panel=VIDEOS,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        min=0,
        help="Times that a video is tried again that has ended its worker.",
        rich_help_panel=VIDEOS,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="End a video's worker after this time, which costs it a try.", rich_help_panel=VIDEOS
    ),
]
Checkpoint = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="FRAMES",
        help="Save so often what a killed run needs to go on with the same command; 0: never.",
        rich_help_panel=VIDEOS,
    ),
]
Watch = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Take the videos in a folder, and those that appear, until Ctrl-C.",
        rich_help_panel=VIDEOS,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what would be done, and do nothing.",
        rich_help_panel=VIDEOS,
    ),
]
FailedOnly = Annotated[
    bool,
    typer.Option(
        "--failed-only", help="Do only what failed when it was last tried (by manifest.jsonl).", rich_help_panel=VIDEOS
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N", help="Do only every N-th video by name, from the I-th, as one of N runs.", rich_help_panel=VIDEOS
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Share the videos over a Ray cluster: auto, local, or where it is.",
        rich_help_panel=VIDEOS,
    ),
]
RayGpus = Annotated[
    float,
    typer.Option(
        min=0,
        help="GPUs, or part of one, for each of the --jobs over --ray.",
        rich_help_panel=VIDEOS,
    ),
]
MetricsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep counts in this file, in Prometheus' text form.",
        rich_help_panel=REPORTS,
    ),
]
HelpSettings = Annotated[
    bool,
    typer.Option(
        "--help-settings",
        callback=show_settings,
        is_eager=True,
        help="Say all settings with their defaults, and end.",
        rich_help_panel=PARTS,
    ),
]


SystemName = Annotated[
    str,
    typer.Option(
        "--system", metavar="NAME", help=f"{', '.join((*SYSTEMS.names, *QUERY_SYSTEMS))}.", rich_help_panel=PARTS
    ),
]
SegmenterName = Annotated[
    str | None,
    typer.Option(
        "--segmenter",
        metavar="NAME",
        help=f"{SEGMENTERS.describe()}; a Mask2Former; or detections of yours (json, PNGs).",
        rich_help_panel=PARTS,
    ),
]
Text = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        help="What to find: 'dog. red car.' (grounding-dino-tiny).",
        rich_help_panel=PARTS,
    ),
]
Exemplars = Annotated[
    list[str],
    typer.Option(
        "--exemplar",
        metavar="FRAME:NAME:WHAT",
        help="Show what to find (sam3): '0:red car:box=10,20,60,80' or '0:red car:mask.png'; may be given several "
        "times.",
        rich_help_panel=PARTS,
    ),
]
Categories = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="What the classes of official weights are called: ytvis19, ytvis21, ovis, vipseg, or a file of names.",
        rich_help_panel=PARTS,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        help="Frames at once (minvis, dvis, dvis-offline, rocovis).",
        rich_help_panel=PARTS,
    ),
]
