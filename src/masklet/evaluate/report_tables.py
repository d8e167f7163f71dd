"""A report as tables that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from masklet.evaluate.report import Report, Scores

NUMBER = 7  # characters of a number as a terminal shows it
GAP = 2  # characters between two columns
LONGEST_NAME = 26  # characters of a row's name, beyond which it goes on in the next line


class ReportTable(NamedTuple):
    """Numbers by row and column."""

    title: str
    rows: Mapping[str, Scores]

    @property
    def columns(self) -> Sequence[str]:
        """In the order in which rows bring them up."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


def build_full_tables(report: Report) -> list[ReportTable]:
    """Everything that a report counts: headline, parts, videos, objects, events; those that it has."""
    tables = {
        "scores": {"all": report.scores},
        "parts": report.parts,
        "videos": report.videos,
        "objects": report.objects,
        "events": report.events,
    }
    return [part for title, rows in tables.items() for part in part_by_columns(ReportTable(title, rows))]


def part_by_columns(table: ReportTable) -> list[ReportTable]:
    """A table as several in which every row has the same columns; none where it has no row.

    >>> rows = {"a": {"AP": 0.5}, "b": {"count": 3.0}, "c": {"AP": 0.25}}
    >>> [list(part.rows) for part in part_by_columns(ReportTable("t", rows))]
    [['a', 'c'], ['b']]
    """
    parts: dict[tuple[str, ...], dict[str, Scores]] = {}
    for name, row in table.rows.items():
        parts.setdefault(tuple(row), {})[name] = row
    return [ReportTable(table.title, rows) for rows in parts.values()]


def split_table_columns(table: ReportTable, width: int) -> list[ReportTable]:
    """A table as several, side by side columns becoming one below the other, so that each is at most `width` wide.

    >>> rows = {"a": {"one": 1.0, "two": 2.0, "three": 3.0}}
    >>> [part.columns for part in split_table_columns(ReportTable("t", rows), 22)]
    [['one', 'two'], ['three']]
    """
    room = width - min(LONGEST_NAME, max(map(len, table.rows), default=0)) - GAP
    blocks: list[list[str]] = []
    left = 0
    for column in table.columns:
        needed = max(len(column), NUMBER) + GAP
        if not blocks or needed > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= needed
    return [_select_columns(table, block, n, len(blocks)) for n, block in enumerate(blocks, start=1)]


def _select_columns(table: ReportTable, columns: Sequence[str], number: int, count: int) -> ReportTable:
    title = f"{table.title} ({number} of {count})" if count > 1 else table.title
    return ReportTable(title, {name: {c: row.get(c) for c in columns} for name, row in table.rows.items()})


def build_report_tables(report: Report, worst: int) -> Iterator[ReportTable]:
    """The parts of a report, its events, and of its videos and objects the `worst` ones by their first number."""
    yield from part_by_columns(ReportTable("parts", report.parts))
    yield from part_by_columns(ReportTable("events", report.events))
    for title, rows in (("videos", report.videos), ("objects", report.objects)):
        if worst and rows:
            yield ReportTable(
                f"{title}, worst first", dict(sorted(rows.items(), key=lambda row: rank_worst_first(row[1]))[:worst])
            )


def rank_worst_first(row: Scores) -> tuple[bool, float]:
    """Sorts the lowest first number to the front, undefined ones to the end."""
    first = next(iter(row.values()), None)
    return first is None, first or 0.0


def format_number(value: float | None) -> str:
    """A number as a reader wants it: counts whole, rates to five digits.

    >>> format_number(0.123456), format_number(12.0), format_number(None)
    ('0.12346', '12', '-')
    """
    if value is None:
        return "-"
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.5g}"
