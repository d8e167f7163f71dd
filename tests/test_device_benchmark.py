"""benchmarks/device.py, in small on the CPU: what it prints when a GPU is lent must not be the first it ever printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import device


@pytest.mark.parametrize("minutes", ["8", "0"])
def test_every_row_is_measured_or_says_why_not(
    minutes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "device.json"
    monkeypatch.setattr(
        sys, "argv", ["device.py", "--device", "cpu", "--small", "--minutes", minutes, "--out", str(out)]
    )
    device.main()
    rows = json.loads(out.read_text())["rows"]
    assert {"SAM 2 slim, 1 objects", "SAM2Long over it, 1 object", "nano, 3 objects"} < rows.keys()
    if minutes == "0":
        assert {row["left out"] for row in rows.values()} == {"no time left"}
        return
    table = capsys.readouterr().out
    for name, row in rows.items():
        assert row["frames/s"] > 0 and f"| {name} |" in table
