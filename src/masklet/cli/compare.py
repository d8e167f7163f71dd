"""The command line: `masklet compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from masklet.cli.tables import print_grid
from masklet.core.errors import InputError
from masklet.evaluate.comparison import compare_reports
from masklet.evaluate.report_files import read_report, write_tables
from masklet.evaluate.report_tables import split_table_columns


def compare_command(
    reports: Annotated[
        list[Path], typer.Argument(help="Reports of `masklet eval -o FILE.json`, the first to compare with.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the tables: FILE.md, .csv or .tex.")] = None,
) -> None:
    """Compare runs over one set: their numbers, and 95 % intervals of the differences over videos."""
    try:
        if len(reports) < 2:
            raise InputError(f"{reports[0]}: one report alone; give two or more")
        names = name_reports(reports)
        tables = compare_reports(names, [read_report(path) for path in reports])
        if out is not None:
            write_tables(tables, out)
    except InputError as error:
        typer.echo(f"masklet: {error}", err=True)
        raise typer.Exit(2) from None
    say = Console(markup=False, emoji=False, highlight=False)
    for table in tables:
        for part in split_table_columns(table, say.width):
            print_grid(say, part, header=True)


def name_reports(paths: Sequence[Path]) -> list[str]:
    """What reports are called: their files' names, with the folder where that is not enough.

    >>> name_reports([Path("a/x.json"), Path("b/x.json")])
    ['a/x', 'b/x']
    """
    names = [path.stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path.with_suffix("")) for path in paths]
