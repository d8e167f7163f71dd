"""Results as csv, for spreadsheets and statistics programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from masklet.core.statistics import FrameStatistics, ObjectStatistics, SuspiciousFrame, compute_statistics
from masklet.core.tables import TableRow, list_rows
from masklet.io.exports.exported_results import ExportedResults


def write_tables(results: ExportedResults, folder: Path) -> None:
    """Writes csv files of all results: sightings.csv, a row an object and frame (`core.tables.TableRow`); objects.csv,
    frames.csv and suspicious.csv, the statistics (`core.statistics`).
    """
    _write_csv(folder / "sightings.csv", TableRow, (row for r in results for row in list_rows(r)))
    measured = []
    for result in results:
        measured.append((result.name, compute_statistics(result)))
        results.watch(result.name, result.length, result.length, len(result.masklets))
    for kind, file in ((ObjectStatistics, "objects"), (FrameStatistics, "frames"), (SuspiciousFrame, "suspicious")):
        rows = ((name, *row) for name, found in measured for row in getattr(found, file))
        _write_csv(folder / f"{file}.csv", kind, rows, "video")


def _write_csv(path: Path, kind: type[NamedTuple], rows: Iterable[Iterable[Any]], *before: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*before, *kind._fields])
        writer.writerows(rows)
