"""benchmarks/matrix.py: one row in small, and the page that is made of the rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import matrix  # noqa: E402
from matrix import Case  # noqa: E402


@pytest.mark.parametrize("system", ["track, affinity", "run, affinity"])
def test_a_row_has_its_stages_and_their_bounds(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # of the other tests
    monkeypatch.setattr(matrix, "measure_speed", lambda: 1e9)
    with torch.no_grad():
        row = matrix.measure_case(Case(system, 2, 96, 3))
    assert row["stages"]["encode"] > 0 and row["stages"]["predict"] > 0
    assert sum(row["stages"].values()) == pytest.approx(row["s a frame"], rel=1e-6)
    assert 0.1 < row["bounds"]["encode"] < 10  # operations, in billions


def test_nested_calls_are_counted_once() -> None:
    class Part:
        """Encodes by predicting."""

        def encode(self) -> int:
            return self.predict() + 1

        def predict(self) -> int:
            return 1

    clock = matrix.StageClock()
    part = clock.watch(Part())
    assert part.encode() == 2 and set(clock.spent) == {"encode"}


def test_rows_are_chosen_by_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Case]()
    monkeypatch.setattr(matrix, "measure_alone", lambda case: asked.append(case) or {"left out": "asked"})
    out = tmp_path / "performance.json"
    words = [
        "matrix.py",
        "--all",
        "--systems",
        "run, nano; deva",
        "--objects",
        "5",
        "--height",
        "480",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert matrix.main() == 0
    assert {case.system for case in asked} == {"run, nano", "deva"} and {case.frames for case in asked} == {
        *matrix.FRAMES
    }
    assert len(json.loads(out.read_text())["rows"]) == len(asked)
    asked.clear()
    monkeypatch.setattr(sys, "argv", [*words, "--minutes", "0"])
    assert matrix.main() == 0 and not asked
    assert len(json.loads(out.read_text())["rows"]) == 2 * len(matrix.FRAMES)  # as they were


def test_the_page_says_what_was_measured() -> None:
    found = json.loads((ROOT / "docs/performance.json").read_text())
    page = (ROOT / "docs/performance.md").read_text()
    table = page.split(matrix.MARKS[0])[1].split(matrix.MARKS[1])[0].strip()
    assert table == matrix.build_table(found) and found["machine"]["processor"] in table
