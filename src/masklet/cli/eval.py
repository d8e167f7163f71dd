"""The command line: `masklet eval`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from masklet.builtins import METRICS
from masklet.cli.tables import print_table
from masklet.core.errors import InputError, escape_control_characters
from masklet.core.files import path_exists, read_text
from masklet.evaluate.ground_truth import check_ground_truth, check_predictions
from masklet.evaluate.prediction_form import convert_predictions
from masklet.evaluate.report import Report
from masklet.evaluate.report_files import check_report_path, write_report
from masklet.evaluate.report_tables import ReportTable, build_report_tables
from masklet.version import __version__
from masklet.view.charts import draw_bars, draw_curves
from masklet.view.progress import show_progress_bars

WORST = 10  # videos and objects that --per-video shows


def eval_command(
    metric: Annotated[str, typer.Argument(help=f"Whose definition: {METRICS.describe()}.")],
    gt: Annotated[Path, typer.Option(help="Ground truth, in the benchmark's own form.")],
    pred: Annotated[Path, typer.Option(help="Predictions, as they are handed in or as masklet run wrote them.")],
    out: Annotated[
        list[Path],
        typer.Option("--out", "-o", help="Write everything: FILE.json, .csv, .md or .tex; may be given again."),
    ] = [],  # noqa: B006
    charts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw curves, and a bar for every video, as PNG.")
    ] = None,
    videos: Annotated[
        str, typer.Option(metavar="LIST", help="Only these: names with commas, or a file with one a line.")
    ] = "",
    unseen: Annotated[str, typer.Option(metavar="LIST", help="lvos: the videos of unseen kinds of object.")] = "",
    per_video: Annotated[bool, typer.Option("--per-video", help=f"Show the {WORST} worst videos and objects.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
) -> None:
    """Score predictions as the benchmark's own program does: same numbers, one video in memory at a time."""
    told = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True, quiet=quiet)
    try:
        entry = METRICS.find(metric)
        options = collect_metric_options(metric, videos, unseen)
        for path in out:
            check_report_path(path)
        for path, what in ((gt, "--gt"), (pred, "--pred")):
            if not path_exists(path):
                raise InputError(f"{what} {path}: there is no such file or folder")
        check_ground_truth(metric, gt)
        check_predictions(metric, pred)
        # A metric of another package reads masklet's results itself.
        with convert_predictions(metric, gt, pred) if entry in METRICS.builtins else nullcontext(pred) as read:
            with show_progress_bars(told, metric, "{task.fields[objects]} objects,") as watch:
                report = replace(entry.load()(gt, read, watch=watch, **options), metric=metric)
            if not quiet:  # before files are written: that may fail, and scores take long
                show_report(report, per_video, told)
            for path in out:
                write_report(report, path, __version__)
            drawn = draw_report(report, charts) if charts is not None else []
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
    if drawn:
        told.print(f"{len(drawn)} charts in {charts}")


def show_report(report: Report, per_video: bool, told: Console) -> None:
    """Shows a `report`, with its worst videos and objects where they are asked for (`per_video`), and tells by what
    protocol it came to be, and what to heed.
    """
    print_report(report, WORST if per_video else 0)
    told.print(report.protocol)
    for warning in report.warnings:
        told.print(escape_control_characters(f"warning: {warning}"))


def collect_metric_options(metric: str, videos: str, unseen: str) -> dict[str, Any]:
    """The options that are for this metric."""
    if bool(unseen) != (metric == "lvos"):
        raise InputError("lvos needs --unseen, the list of videos of unseen kinds of object; no other metric takes it")
    return {"videos": read_name_list("--videos", videos)} | (
        {"unseen": read_name_list("--unseen", unseen)} if unseen else {}
    )


def read_name_list(option: str, text: str) -> Sequence[str] | None:
    """Names from a file, one a line, or with commas between them."""
    if not text:
        return None
    path = Path(text)
    found = read_text(path, "one name a line").splitlines() if path_exists(path) and path.is_file() else text.split(",")
    names = [name.strip() for name in found if name.strip()]
    if not names:
        raise InputError(f"{option} {text}: holds no name; give one a line")
    return names


def draw_report(report: Report, folder: Path) -> list[Path]:
    """Draws a report's curves into one chart for each thing that they are drawn across, and its videos' first number.

    Returns the files, in `folder`, which is made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for across in dict.fromkeys(curve.across for curve in report.curves.values()):
        made.append(folder / f"{report.metric}-{across}.png")
        lines = {name: (c.x, c.y) for name, c in report.curves.items() if c.across == across}
        draw_curves(report.metric, across, lines, made[-1])
    number = next((n for row in report.videos.values() for n in row), None)
    if number is not None:
        bars = {name: value for name, row in report.videos.items() if (value := row.get(number)) is not None}
        made += draw_bars(f"{report.metric}: {number} of each video", bars, folder, f"{report.metric}-videos")
    return made


def print_report(report: Report, worst: int) -> None:
    """The numbers as tables on standard output."""
    say = Console(markup=False, emoji=False, highlight=False)
    print_table(say, ReportTable(report.metric, {"": report.scores}))
    for table in build_report_tables(report, worst):
        print_table(say, table)
