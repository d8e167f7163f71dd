"""kill -9 at any moment: the next run gives what an undisturbed one gives, and nothing is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import odd
import pytest
from kills import find_leftovers, hash_results, run_in_child
from typer.testing import CliRunner

from masklet.cli import app
from masklet.run.outcome import read_last_states

EVERY = 2  # changes to files between two kills
WORDS = ["run", "a", "--segmenter", "odd", "--propagator", "still", "-o", "out", "-q"]


def run_all() -> int:
    return CliRunner().invoke(app, WORDS).exit_code


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_run_that_was_killed_anywhere_is_finished_by_the_next(place: Path) -> None:
    odd.write_clip(Path("a"), length=2)
    out = Path("out")
    assert run_all() == 0
    whole = hash_results(out)
    shutil.rmtree(out)
    changes = run_in_child(run_all, 0)
    assert hash_results(out) == whole
    assert len(whole) == 3 and changes > 15 and find_leftovers(out) == []
    partly, left = 0, 0
    for moment in range(1, changes + 1, EVERY):
        shutil.rmtree(out)
        assert run_in_child(run_all, moment) == 0
        there = hash_results(out) if out.exists() else {}
        assert {k: v for k, v in there.items() if "partial" not in k}.items() <= whole.items(), moment
        partly, left = partly + (0 < len(there) < 3), left + (out.exists() and find_leftovers(out) != [])
        assert run_all() == 0, moment
        assert hash_results(out) == whole and find_leftovers(out) == [], moment
        assert set(read_last_states(out).values()) <= {"done", "kept"}
    assert partly and left > 2  # or the kills were not where they count


def test_a_partial_overlay_goes_though_none_is_asked_for_now(place: Path) -> None:
    odd.write_clip(Path("a"), length=2)
    assert CliRunner().invoke(app, [*WORDS, "--no-overlay"]).exit_code == 0
    Path("out/a/.partial-overlay.mp4").write_bytes(b"cut off")
    assert CliRunner().invoke(app, [*WORDS, "--no-overlay"]).exit_code == 0
    assert find_leftovers(Path("out")) == []
