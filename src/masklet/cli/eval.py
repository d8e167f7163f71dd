"""The command line: `masklet eval`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from masklet.builtins import METRICS
from masklet.core.errors import InputError, escape_control_characters
from masklet.core.files import path_exists, read_text
from masklet.evaluate.prediction_form import convert_predictions
from masklet.evaluate.report import Report
from masklet.evaluate.report_tables import ReportTable, build_report_tables
from masklet.version import __version__
from masklet.view.progress import show_progress_bars

WORST = 10  # videos and objects that --per-video shows


def eval_command(
    metric: Annotated[str, typer.Argument(help=f"Whose definition: {METRICS.describe()}.")],
    gt: Annotated[Path, typer.Option(help="Ground truth, in the benchmark's own form.")],
    pred: Annotated[Path, typer.Option(help="Predictions, as they are handed in or as masklet run wrote them.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write everything as JSON.")] = None,
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
        for path, what in ((gt, "--gt"), (pred, "--pred")):
            if not path_exists(path):
                raise InputError(f"{what} {path}: there is no such file or folder")
        with (
            # A metric of another package reads masklet's results itself.
            convert_predictions(metric, gt, pred) if entry in METRICS.builtins else nullcontext(pred) as read,
            show_progress_bars(told, metric, "{task.fields[objects]} objects,") as watch,
        ):
            report = replace(entry.load()(gt, read, watch=watch, **options), metric=metric)
            if out is not None:
                report.save(out, __version__)
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
    if not quiet:
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


def print_report(report: Report, worst: int) -> None:
    """The numbers as tables on standard output."""
    say = Console(markup=False, emoji=False, highlight=False)
    print_table(say, ReportTable(report.metric, {"": report.scores}))
    for table in build_report_tables(report, worst):
        print_table(say, table)


def print_table(say: Console, table: ReportTable) -> None:
    """One table; a single row is turned, so that nothing is cut off where the terminal is narrow."""
    grid = Grid(box=box.SIMPLE_HEAD, show_header=len(table.rows) > 1)
    if len(table.rows) == 1:
        rows: list[tuple[str, Sequence[float | None]]] = [(k, [v]) for k, v in next(iter(table.rows.values())).items()]
        columns: Sequence[str] = [""]
    else:
        columns = table.columns
        rows = [(name, [row.get(c) for c in columns]) for name, row in table.rows.items()]
    grid.add_column(overflow="fold")
    for column in columns:
        grid.add_column(column, justify="right")
    for name, values in rows:
        grid.add_row(escape_control_characters(name), *(format_number(v) for v in values))
    say.print(table.title, grid, sep="")


def format_number(value: float | None) -> str:
    """A number as a reader wants it: counts whole, rates to five digits."""
    if value is None:
        return "-"
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.5g}"
