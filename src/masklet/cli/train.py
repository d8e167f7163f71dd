"""The command line: `masklet train`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from masklet.builtins import TRAININGS
from masklet.cli.settings import parse_settings
from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.view.training import format_training_scores, show_training_bar

SMALLEST, LARGEST = 32, 2048  # pixels of a side
STOPPED = 1  # exit code of a run that was asked to stop


def check_training(name: str) -> str:
    """The name of a training that there is."""
    try:
        return check_choice("training", name, TRAININGS.names)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


Training = Annotated[str, typer.Argument(help=f"What to train: {TRAININGS.describe()}.", callback=check_training)]
Data = Annotated[
    list[str],
    typer.Option(
        metavar="DATA",
        help="synthetic; synthetic:light, :moderate or :heavy (occlusion); a folder of COCO stills "
        "(annotations.json, images/) or of videos in YouTube-VIS's form (a json, JPEGImages/) or VIPSeg's; the "
        "folder of YouTube-VIS, OVIS or COCO as it unpacks. Repeatable.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run. One that was stopped goes on.")]
Val = Annotated[list[str] | None, typer.Option(metavar="DATA", help="Validate on this; else on --data.")]
ClipSize = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Pixels of the clips: all alike. Without it as the weights below were trained: short sides 240, 360, "
        "480 over official ones with a ResNet; else 96x160. An image predictor has a size.",
    ),
]
ClipFrames = Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the optimiser.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Clips of a step.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed is the same run.")]
Start = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="WEIGHTS",
        help="Weights to begin with: nano is the packaged segmenter, propagator or image predictor; of a tracker "
        "and a refiner, the tracker that goes on or is refined (trained here, or DVIS's official files); of a "
        "propagator, SAM 2 by name (sam2.1-tiny@512), hub id, folder or file; of a segmenter, any Mask2Former or "
        "EoMT; of rocovis, a file of one, or with row=queries GenVIS's official ones.",
    ),
]
SegmenterBelow = Annotated[
    str,
    typer.Option(
        metavar="WEIGHTS",
        help="The Mask2Former or EoMT below a tracker and a refiner, or that rocovis starts from; @480 behind it is "
        "the size at which a Mask2Former looks at frames.",
    ),
]
TrainingSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="How it is trained: short=240,360,480 (one is drawn for each clip), crop, ratio=1,0.75 (of several "
        "--data), reverse, milestones=0.7, weight_decay, clip_norm, warm_up, accumulate, precision, workers. "
        "tracker and refiner: layers, given, labels, over; tracker: begin=random, initial, attention; rocovis: row "
        "(row=queries is genvis); SAM 2: encoder=trained. docs/training.md has all.",
    ),
]
Categories = Annotated[
    str,
    typer.Option(
        metavar="NAMES", help="Names of the classes of official weights: of a data set such as ovis, or a file."
    ),
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write the log for TensorBoard, too.")]
DeviceName = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Silent = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


def train_command(
    what: Training,
    data: Data,
    out: Out,
    val: Val = None,
    size: ClipSize = None,
    frames: ClipFrames = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: LearningRate = None,
    seed: Seed = 0,
    start: Start = "",
    segmenter: SegmenterBelow = "",
    set_: TrainingSettings = None,
    categories: Categories = "",
    tensorboard: TensorBoard = False,
    device: DeviceName = "auto",
    quiet: Silent = False,
) -> None:
    """Train a part on clips with masks: generated ones, annotated stills or annotated videos.

    The folder gets the weights (weights.safetensors), log.jsonl, curve.png, and what is needed to go on after any
    interruption with the same result: give the same command again.
    """
    told = make_training_console(quiet)
    try:
        done, wanted = run_training(
            what,
            out,
            told,
            data=tuple(data),
            val=tuple(val or ()),
            size=parse_clip_size(size),
            seed=seed,
            start=start,
            segmenter=segmenter,
            settings=parse_training_settings(set_ or []),
            categories=categories,
            device=device,
            events=tensorboard,
            frames=frames,
            steps=steps,
            batch=batch,
            lr=check_learning_rate(lr),
        )
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
    if done < wanted:
        typer.echo(f"masklet: stopped after step {done} of {wanted}; the same command goes on from there", err=True)
        raise typer.Exit(STOPPED)
    told.print(f"{done} steps are done; the weights and curve.png are in {out}")


def make_training_console(quiet: bool) -> Console:
    """Where a training tells how it goes: on stderr, or `quiet`."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True, quiet=quiet)


def run_training(
    what: str, out: Path, told: Console, *, device: str, events: bool = False, **wishes: object
) -> tuple[int, int]:
    """Runs a training; the steps that are done, and those that were wanted."""
    from masklet.parts import resolve_device
    from masklet.train.loop.loop import train
    from masklet.train.loop.processes import find_own_gpu, find_processes, join_processes, leave_processes
    from masklet.train.loop.run_folder import read_last_scores
    from masklet.training import choose_training, find_shared_data, prepare_training
    from masklet.training_request import TrainingRequest

    processes, kind = find_processes(), choose_training(what, str(wishes["start"]))
    told.quiet = told.quiet or not processes.is_first
    for name, value in wishes.items():
        if value is None:
            wishes[name] = getattr(kind, name)
    own = find_own_gpu() if processes.count > 1 and device in ("auto", "cuda") else device
    wish = TrainingRequest(device=resolve_device(own), processes=processes, **wishes)  # type: ignore[arg-type]
    made = prepare_training(what, wish)
    if both := find_shared_data(wish):
        told.print(f"validation: on {', '.join(both)}, which is trained on, too; --val names data to judge it by")
    for note in made.notes:
        told.print(note)
    join_processes(processes, wish.device)
    try:
        with show_training_bar(told, what) as bar:
            done = train(made.task, out, made.plan, made.about, bar, processes, events)
    finally:
        leave_processes()
    if done == made.plan.steps and processes.is_first:
        told.print(f"last validation: {format_training_scores(read_last_scores(out))}")
    return done, made.plan.steps


def parse_clip_size(text: str | None) -> tuple[int, int] | None:
    """Height and width, where they are given.

    >>> parse_clip_size("96x160")
    (96, 160)
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    h, w = (int(side) for side in found.groups()) if found else (0, 0)
    if not all(SMALLEST <= side <= LARGEST for side in (h, w)):
        raise InputError(f"--size {text}: give height x width, {SMALLEST} to {LARGEST} pixels each, such as 96x160")
    return h, w


def parse_training_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings by name.

    >>> parse_training_settings(["row=queries", "crop=0.5", "short=240,360"])
    {'row': 'queries', 'crop': 0.5, 'short': '240,360'}
    """
    wrong = next((pair for pair in pairs if "=" not in pair), None)
    if wrong is not None:
        raise InputError(f"--set {wrong}: write it as NAME=VALUE, such as --set row=queries")
    return parse_settings(pairs)


def check_learning_rate(lr: float | None) -> float | None:
    """A learning rate that can be one."""
    if lr is not None and not 0 < lr < math.inf:
        raise InputError(f"--lr {lr:g}: give a learning rate above 0, such as 0.0001")
    return lr
