"""benchmarks/peers.py, in small: what it says of peers that are there, and of those that are not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import peers


def run_peers(monkeypatch: pytest.MonkeyPatch, out: Path, *words: str) -> dict[str, dict[str, float | str]]:
    """Runs the benchmark in this process; the rows that it wrote."""
    monkeypatch.setattr(sys, "argv", ["peers.py", "--small", "--out", str(out), *words])
    assert peers.main() == 0
    return json.loads(out.read_text())["rows"]  # type: ignore[no-any-return]


def test_pairs_take_turns_and_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = replace(peers.PEERS["rf-sam-2"], module="a_module_that_nobody_has")
    monkeypatch.setitem(peers.PEERS, "rf-sam-2", absent)
    rows = run_peers(monkeypatch, tmp_path / "peers.json", "--only", "sam2,map")
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in rows)
    left_out = [row["left out"] for row in rows.values() if "left out" in row]
    assert any(str(row).startswith("rf-sam-2 is not installed: pip install") for row in left_out)
    measured = [row for row in rows.values() if "left out" not in row]
    assert len(measured) >= 2  # transformers' session and pycocotools
    assert all(row["ratio"] > 0 and row["theirs, CPU s"] > 0 for row in measured)  # type: ignore[operator]


def test_a_turn_that_says_something_else_is_an_error() -> None:
    from peers_metrics import repeat

    assert next(repeat(lambda: 0.5, lambda: 0.5 + 1e-9)) is None
    with pytest.raises(AssertionError):
        next(repeat(lambda: 0.5, lambda: 0.6))
