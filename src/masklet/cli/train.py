"""The command line: `masklet train`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from masklet.builtins import TRAININGS
from masklet.core.errors import InputError
from masklet.registry import check_choice
from masklet.view.training import format_training_scores, show_training_bar

SMALLEST, LARGEST = 32, 2048  # pixels of a side
STOPPED = 1  # exit code of a run that was asked to stop


def check_training(name: str) -> str:
    """The name of a training that there is."""
    try:
        return check_choice("training", name, TRAININGS.names)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def train_command(
    what: Annotated[str, typer.Argument(help=f"What to train: {TRAININGS.describe()}.", callback=check_training)],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="DATA",
            help="synthetic; synthetic:light, :moderate or :heavy (occlusion); a folder of COCO stills "
            "(annotations.json, images/) or of videos in YouTube-VIS's form (a json, JPEGImages/) or VIPSeg's. "
            "Repeatable.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run. One that was stopped goes on.")],
    val: Annotated[list[str] | None, typer.Option(metavar="DATA", help="Validate on this; else on --data.")] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Pixels of the clips; 96x160 by default. An image predictor has a size."),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimiser.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Clips of a step.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed is the same run.")] = 0,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help="Weights to begin with: nano is the packaged segmenter, propagator or image predictor; of a refiner, "
            "the tracker that it refines; of a propagator, SAM 2 by name (sam2.1-tiny@512), hub id, folder or file; of "
            "a segmenter, any Mask2Former.",
        ),
    ] = "",
    segmenter: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS", help="The Mask2Former below a tracker and a refiner, or that rocovis starts from."
        ),
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="rocovis: row; tracker and refiner: given, labels; SAM 2: encoder=trained.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Train a part on clips with masks: generated ones, annotated stills or annotated videos.

    The folder gets the weights (weights.safetensors), log.jsonl, curve.png, and what is needed to go on after any
    interruption with the same result: give the same command again.
    """
    told = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True, quiet=quiet)
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
            device=device,
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


def run_training(what: str, out: Path, told: Console, *, device: str, **wishes: object) -> tuple[int, int]:
    """Runs a training; the steps that are done, and those that were wanted."""
    from masklet.parts import resolve_device
    from masklet.train.loop.loop import train
    from masklet.train.loop.run_folder import read_last_scores
    from masklet.training import TrainingRequest, choose_training, find_shared_data, prepare_training

    kind = choose_training(what, str(wishes["start"]))
    for name, value in wishes.items():
        if value is None:
            wishes[name] = getattr(kind, name)
    wish = TrainingRequest(device=resolve_device(device), **wishes)  # type: ignore[arg-type]
    task, plan, about = prepare_training(what, wish)
    if both := find_shared_data(wish):
        told.print(f"validation: on {', '.join(both)}, which is trained on, too; --val names data to judge it by")
    with show_training_bar(told, what) as bar:
        done = train(task, out, plan, about, bar)
    if done == plan.steps:
        told.print(f"last validation: {format_training_scores(read_last_scores(out))}")
    return done, plan.steps


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


def parse_training_settings(pairs: Sequence[str]) -> dict[str, str]:
    """Settings by name.

    >>> parse_training_settings(["row=queries"])
    {'row': 'queries'}
    """
    wrong = next((pair for pair in pairs if "=" not in pair), None)
    if wrong is not None:
        raise InputError(f"--set {wrong}: write it as NAME=VALUE, such as --set row=queries")
    return dict(pair.split("=", 1) for pair in pairs)


def check_learning_rate(lr: float | None) -> float | None:
    """A learning rate that can be one."""
    if lr is not None and not 0 < lr < math.inf:
        raise InputError(f"--lr {lr:g}: give a learning rate above 0, such as 0.0001")
    return lr
