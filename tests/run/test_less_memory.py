"""What is done when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.run.less_memory import is_out_of_memory, run_with_halved_batches


class Masker:
    """Takes as many objects at once as it is told, and runs out of memory above what there is room for."""

    def __init__(self, at_once: int, room: int, error: Exception) -> None:
        self.at_once, self.room, self.error = at_once, room, error

    def work(self) -> int:
        if self.at_once > self.room:
            raise self.error
        return self.at_once


@dataclass(frozen=True)
class Wrapped:
    masker: Masker


@dataclass(frozen=True)
class System:
    segmenter: Any


OUT = [
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", OUT, ids=lambda error: type(error).__name__)
def test_what_goes_together_is_halved_until_it_fits(error: Exception) -> None:
    masker = Masker(64, 20, error)
    found, notes = run_with_halved_batches(masker.work, System(Wrapped(masker)))
    assert found == masker.at_once == 16
    assert notes == [f"memory ran out: Masker went on with {n} at once" for n in (32, 16)]


def test_where_nothing_can_be_halved_it_is_raised_and_so_is_all_else() -> None:
    masker = Masker(4, 0, MemoryError())
    with pytest.raises(MemoryError):
        run_with_halved_batches(masker.work, System(masker))
    assert masker.at_once == 1
    other = Masker(4, 2, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes"):
        run_with_halved_batches(other.work, System(other))
    assert other.at_once == 4 and not is_out_of_memory(other.error)


def test_parts_that_ship_say_how_much_they_take_at_once() -> None:
    system = masklet.load(segmenter="nano", propagator="affinity").system
    full = RuntimeError("can't allocate memory")
    seen = []

    def work() -> None:
        seen.append(1)
        if len(seen) < 2:
            raise full

    _, notes = run_with_halved_batches(work, system)
    assert notes == ["memory ran out: ImagePredictor went on with 4 at once"]


def test_a_result_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import odd

    odd.write_clip(Path("a"))
    whole, masker = odd.Odd.segment, Masker(2, 1, MemoryError())
    monkeypatch.setattr(odd.Odd, "segment", lambda self, *told: masker.work() and whole(self, *told))
    words = ["run", "a", "-o", "out", "--segmenter", "odd", "--propagator", "still", "--no-overlay", "-q"]
    done = CliRunner().invoke(app, words)
    assert (
        done.exit_code == 1 and "a: MemoryError; see out/failed/a.log; take a smaller size (--max-side)" in done.output
    )
    monkeypatch.setattr(odd.Odd, "masker", masker, raising=False)
    monkeypatch.setattr(odd.Odd, "__init__", lambda self: self.__dict__.update(masker=masker))
    assert CliRunner().invoke(app, words).exit_code == 0
    notes = masklet.VideoResult.load("out/a/masklets.json").provenance.notes
    assert "memory ran out: Masker went on with 1 at once" in notes
