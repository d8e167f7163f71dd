"""Tables of numbers on the terminal, never wider than it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from masklet.core.errors import escape_control_characters
from masklet.evaluate.report_tables import LONGEST_NAME, ReportTable, format_number, split_table_columns


def print_table(say: Console, table: ReportTable) -> None:
    """One table, in several parts where the terminal is narrower; a single row is turned."""
    if len(table.rows) == 1:
        [(name, row)] = table.rows.items()
        turned = ReportTable(table.title, {column: {name: value} for column, value in row.items()})
        print_grid(say, turned, header=False)
        return
    for part in split_table_columns(table, say.width):
        print_grid(say, part, header=True)


def print_grid(say: Console, table: ReportTable, header: bool) -> None:
    """A table that is no wider than the terminal."""
    grid = Grid(box=box.SIMPLE_HEAD, show_header=header, padding=(0, 1), pad_edge=False)
    grid.add_column(overflow="fold", max_width=LONGEST_NAME if header else None)
    for column in table.columns:
        grid.add_column(column, justify="right", no_wrap=True)
    for name, row in table.rows.items():
        grid.add_row(escape_control_characters(name), *(format_number(row.get(c)) for c in table.columns))
    say.print(table.title, grid, sep="")
