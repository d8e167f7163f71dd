"""The fuzzer itself, and some of its inputs; `make fuzz` runs thousands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fuzz import kinds, mutators
from fuzz.driver import list_cases, run_fuzzer
from fuzz.names import KINDS

EACH = 8  # inputs of every kind


def test_every_kind_has_a_name() -> None:
    assert sorted(KINDS) == sorted(kinds.KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_damaged_is_taken(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the fuzzer would only ever see refusals."""
    for module in (kinds, mutators):
        for name in ("mutate_bytes", "mutate_header", "mutate_run_lengths", "damage_image"):
            monkeypatch.setattr(module, name, lambda data, draw: data, raising=False)
        monkeypatch.setattr(module, "mutate_json", lambda content, draw, names: content)
        monkeypatch.setattr(module, "mutate_text", lambda text, draw, names: text.encode())
    place = kinds.Place(tmp_path, tmp_path / "given", tmp_path / "out")
    place.given.mkdir()
    place.out.mkdir()
    steps = kinds.KINDS[kind](np.random.default_rng(0), place)
    next(steps)
    next(steps, None)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are those of Unix")
def test_damaged_inputs_are_taken_or_refused() -> None:
    cases: Sequence[tuple[str, int]] = [case for case in list_cases(KINDS, EACH * len(KINDS))]
    found = run_fuzzer(cases, seed=3)
    assert not found.findings, found.table()
    assert all(found.counts[kind].total() == EACH for kind in KINDS)
