"""Reports side by side, as files and as tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.errors import InputError
from masklet.evaluate.comparison import bootstrap_difference, compare_reports
from masklet.evaluate.report import Curve, Report
from masklet.evaluate.report_files import escape_latex, read_report, write_report
from masklet.evaluate.report_tables import ReportTable, split_table_columns


def report(values: list[float], metric: str = "davis") -> Report:
    rows = {f"v{n}": {"J&F": value, "missed": n} for n, value in enumerate(values)}
    return Report(
        metric,
        "a protocol, with 100 % of it",
        {"J&F": float(np.mean(values)), "AP": None},
        {"class a_b": {"AP": 0.25}},
        rows,
        {"v0/1": {"J&F": 0.5}},
        ("one warning",),
        events={"v0, frame 3": {"frame": 3, "before": 1, "after": 2}},
        curves={"HOTA": Curve("alpha", (0.5, 0.95), (0.8, 0.25))},
    )


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = report([0.1, 0.7])
    write_report(made, tmp_path / "r.json", "1")
    assert read_report(tmp_path / "r.json") == made


def test_csv_has_every_number_of_every_table(tmp_path: Path) -> None:
    write_report(report([0.125, 0.7]), tmp_path / "r.csv", "1")
    rows = list(csv.reader((tmp_path / "r.csv").read_text().splitlines()))
    assert rows[0] == ["table", "name", "number", "value"] and ["scores", "all", "AP", ""] in rows
    assert ["videos", "v0", "J&F", "0.125"] in rows and ["events", "v0, frame 3", "after", "2"] in rows
    assert len(rows) == 1 + 2 + 1 + 4 + 1 + 3


def test_markdown_and_latex_hold_all_tables_and_escape(tmp_path: Path) -> None:
    for suffix in ("md", "tex"):
        write_report(report([0.125, 0.7]), tmp_path / f"r.{suffix}", "1")
    text = (tmp_path / "r.md").read_text()
    assert "| v1 | 0.7 | 1 |" in text and "## events" in text and "one warning" in text
    tex = (tmp_path / "r.tex").read_text()
    assert r"class a\_b & 0.25 \\" in tex and r"J\&F" in tex and tex.count(r"\toprule") == 5
    assert escape_latex("50%") == r"50\%"


@pytest.mark.parametrize("content", ["[]", "{}", '{"metric": "a", "protocol": "b", "scores": {"x": "y"}}', "{"])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=r"r\.json"):
        read_report(tmp_path / "r.json")


def test_an_interval_covers_what_is_there_and_shrinks_with_videos() -> None:
    rng = np.random.default_rng(0)
    few, many = (rng.normal(0.1, 0.1, n) for n in (20, 2000))
    first, second = (bootstrap_difference(np.zeros(len(d)), d) for d in (few, many))
    assert first.low < 0.1 < first.high and second.high - second.low < (first.high - first.low) / 5
    spread = few.std() / np.sqrt(20)
    assert first.high - first.low == pytest.approx(3.92 * spread, rel=0.15)  # as the normal interval of a mean
    assert bootstrap_difference(few, few).better == 0.0


def test_videos_are_paired_so_that_their_own_spread_does_not_matter() -> None:
    hard = np.linspace(0, 0.9, 30)
    found = bootstrap_difference(hard, hard + 0.01)
    assert found.low == pytest.approx(0.01) and found.high == pytest.approx(0.01) and found.better == 1


def test_runs_are_compared_with_the_first() -> None:
    tables = compare_reports(["old", "new"], [report([0.1, 0.2, 0.3]), report([0.2, 0.3, 0.4])])
    assert tables[0].rows["J&F"] == {"old": pytest.approx(0.2), "new": pytest.approx(0.3)}
    row = tables[1].rows["J&F"]
    assert row["difference"] == pytest.approx(0.1) and row["videos"] == 3 and "new - old" in tables[1].title


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="davis and sav"):
        compare_reports(["a", "b"], [report([0.1]), report([0.1], "sav")])
    other = Report("davis", "p", {}, videos={"elsewhere": {"J&F": 1.0}})
    with pytest.raises(InputError, match="no video of the same name"):
        compare_reports(["a", "b"], [report([0.1]), other])


def test_the_command_compares_files_within_eighty_columns(tmp_path: Path) -> None:
    for name, values in (("old", [0.1, 0.2, 0.3]), ("new", [0.2, 0.3, 0.4])):
        write_report(report(values), tmp_path / f"{name}.json", "1")
    words = [str(tmp_path / "old.json"), str(tmp_path / "new.json"), "-o", str(tmp_path / "c.csv")]
    done = CliRunner().invoke(app, ["compare", *words])
    assert done.exit_code == 0 and "new - old" in done.output and max(map(len, done.output.splitlines())) <= 80
    assert "difference" in (tmp_path / "c.csv").read_text()
    for bad, said in ((words[:1], "one report alone"), ([*words[:3], "x.pdf"], "x.pdf: tables are written as")):
        done = CliRunner().invoke(app, ["compare", *bad])
        assert done.exit_code == 2 and said in done.output and "Traceback" not in done.output


def test_a_wide_table_is_split_and_nothing_is_lost() -> None:
    table = ReportTable("t", {"a row": {f"column {n}": float(n) for n in range(20)}})
    parts = split_table_columns(table, 80)
    assert [c for part in parts for c in part.columns] == list(table.columns)
    assert all(sum(max(len(c), 7) + 2 for c in part.columns) <= 75 for part in parts) and "(1 of " in parts[0].title
    assert json.dumps(parts[0].rows)
