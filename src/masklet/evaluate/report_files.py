"""Reports as files: JSON with all of it, and its tables as CSV, Markdown and LaTeX; and JSON read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.evaluate.report import Curve, Report, Scores
from masklet.evaluate.report_tables import ReportTable, build_full_tables, format_number
from masklet.io.formats.json_entry import JsonEntry, read_json_object

TEX_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\^{}"}
TABLES = ("parts", "videos", "objects", "events")


def check_report_path(path: Path) -> None:
    """Raises InputError where the suffix of `path` is none that a report is written as."""
    known = (".json", *WRITERS)
    if path.suffix.lower() not in known:
        raise InputError(f"{path}: a report is written as {', '.join(known)}; end the file's name in one of these")


def write_report(report: Report, path: Path, version: str) -> None:
    """Writes a report in the form that the suffix of `path` says: json, csv, md or tex.

    Args:
        report: what to write, all videos, objects and parts of it.
        path: of the file, which is replaced.
        version: of masklet, which the JSON names.

    Raises:
        InputError: the suffix is another one.
    """
    check_report_path(path)
    if path.suffix.lower() == ".json":
        report.save(path, version)
        return
    write_tables(build_full_tables(report), path, (report.protocol, *report.warnings))


def write_tables(tables: Sequence[ReportTable], path: Path, words: Sequence[str] = ()) -> None:
    """Writes tables as the suffix of `path` says, csv, md or tex; `words` are said at the end where there is room.

    Raises InputError where the suffix is another one.
    """
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"{path}: tables are written as {', '.join(WRITERS)}; end the file's name in one of these")
    with write_atomically(path) as file:
        file.write(WRITERS[path.suffix.lower()](tables, words).encode())


def format_csv(tables: Sequence[ReportTable], words: Sequence[str]) -> str:
    """One line a number: its table, row and column, and the number; undefined ones are empty. `words` have no room."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("table", "name", "number", "value"))
    for table in tables:
        for name, row in table.rows.items():
            lines.writerows((table.title, name, column, "" if v is None else repr(v)) for column, v in row.items())
    return text.getvalue()


def format_markdown(tables: Sequence[ReportTable], words: Sequence[str]) -> str:
    """The tables in Markdown, and `words` as paragraphs after them."""
    return "\n".join([*map(_format_markdown_table, tables), *(f"{sentence}\n" for sentence in words)])


def _format_markdown_table(table: ReportTable) -> str:
    lines = [["", *table.columns], ["---"] + ["---:"] * len(table.columns)]
    lines += [[name, *(format_number(row.get(c)) for c in table.columns)] for name, row in table.rows.items()]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"## {table.title}\n\n{body}\n"


def format_latex(tables: Sequence[ReportTable], words: Sequence[str]) -> str:
    """The tables as LaTeX tabulars, which want the package booktabs; `words` are comments."""
    return "\n".join([*map(_format_latex_table, tables), *(f"% {sentence}\n" for sentence in words)])


def _format_latex_table(table: ReportTable) -> str:
    lines = [["", *table.columns]]
    lines += [[name, *(format_number(row.get(c)) for c in table.columns)] for name, row in table.rows.items()]
    first, *body = [" & ".join(map(escape_latex, line)) + r" \\" for line in lines]
    return "\n".join(
        [
            f"% {table.title}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            first,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    r"""A text in which LaTeX sees only letters.

    >>> escape_latex("J&F of a_b")
    'J\\&F of a\\_b'
    """
    return "".join(TEX_SPECIAL.get(c, c) for c in text)


WRITERS: Mapping[str, Callable[[Sequence[ReportTable], Sequence[str]], str]] = {
    ".csv": format_csv,
    ".md": format_markdown,
    ".tex": format_latex,
}


def read_report(path: Path) -> Report:
    """A report that `write_report` wrote as JSON. Raises InputError naming what is missing or malformed."""
    content = read_json_object(path, "a report of `masklet eval -o report.json`", "metric", "protocol", "scores")
    tables = {key: _read_rows(content.entry(key)) if key in content else {} for key in TABLES}
    curves = content.entry("curves") if "curves" in content else JsonEntry(str(path), {})
    return Report(
        content.text("metric"),
        content.text("protocol"),
        _read_row(content.entry("scores")),
        tables["parts"],
        tables["videos"],
        tables["objects"],
        tuple(content.texts("warnings")) if "warnings" in content else (),
        events=tables["events"],
        curves={name: _read_curve(curves.entry(name)) for name in curves},
    )


def _read_rows(table: JsonEntry) -> dict[str, Scores]:
    return {name: _read_row(table.entry(name)) for name in table}


def _read_row(row: JsonEntry) -> Scores:
    return {name: None if row.get(name) is None else row.number(name) for name in row}


def _read_curve(entry: JsonEntry) -> Curve:
    return Curve(entry.text("across"), *(_read_numbers(entry, key) for key in "xy"))


def _read_numbers(entry: JsonEntry, key: str) -> tuple[float, ...]:
    values: list[Any] = entry.items(key)
    if not all(type(value) in (int, float) for value in values):
        raise entry.wrong(f"{key!r} must be a list of numbers")
    return tuple(map(float, values))
