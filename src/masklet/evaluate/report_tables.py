"""A report as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from masklet.evaluate.report import Report, Scores


class ReportTable(NamedTuple):
    """Numbers by row and column."""

    title: str
    rows: Mapping[str, Scores]

    @property
    def columns(self) -> Sequence[str]:
        """In the order in which rows bring them up."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


def build_report_tables(report: Report, worst: int) -> Iterator[ReportTable]:
    """The parts of a report, and of its videos and objects the `worst` ones by their first number."""
    if report.parts:
        yield ReportTable("parts", report.parts)
    for title, rows in (("videos", report.videos), ("objects", report.objects)):
        if worst and rows:
            yield ReportTable(
                f"{title}, worst first", dict(sorted(rows.items(), key=lambda row: rank_worst_first(row[1]))[:worst])
            )


def rank_worst_first(row: Scores) -> tuple[bool, float]:
    """Sorts the lowest first number to the front, undefined ones to the end."""
    first = next(iter(row.values()), None)
    return first is None, first or 0.0
