"""How much memory a run may take, and what fits."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.budget import (
    LEAST,
    MemoryBudget,
    estimate_need,
    find_memory_budget,
    parse_memory,
    read_free_memory,
    read_group_room,
)
from masklet.core.errors import InputError
from masklet.systems.memory import check_prompted_objects, fit_system
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings

VIDEO: Any = SimpleNamespace(name="clip", size=(480, 854))


@dataclass(frozen=True)
class Sized:
    """A propagator of which nothing but an object's size is known."""

    each: int

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        return self.each

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: None


@given(st.integers(1, 2000), st.integers(1, 10**8))
def test_what_is_said_to_be_needed_is_enough_and_little_more(objects: int, each: int) -> None:
    need = estimate_need(objects, each)
    assert need.count_objects(each) >= objects
    assert MemoryBudget(need.total - 2 * 2**20 - 2 * each).count_objects(each) < objects


@pytest.mark.parametrize("text", ["", "4X", "-1G", "1e9", "G", "4 G B", "100M", "0"])
def test_what_is_no_size_or_too_small_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="memory="):
        parse_memory(text)


def test_the_machine_and_its_control_group_say_what_is_free(tmp_path, monkeypatch) -> None:
    free, limit, used = (tmp_path / name for name in ("meminfo", "max", "current"))
    free.write_text("MemTotal: 99 kB\nMemAvailable:   2048 kB\n")
    assert read_free_memory(free) == 2048 * 1024 and read_free_memory(tmp_path / "none") is None
    limit.write_text("max\n")
    used.write_text("5\n")
    assert read_group_room(limit, used) is None
    limit.write_text("105\n")
    assert read_group_room(limit, used) == 100 and read_group_room(tmp_path / "none", used) is None
    monkeypatch.setattr("masklet.core.budget.MEMINFO", free)
    monkeypatch.setattr("masklet.core.budget.GROUPS", ((limit, used),))
    assert find_memory_budget() == MemoryBudget(80)


def test_no_more_objects_are_tracked_than_fit_and_it_is_said_beforehand() -> None:
    told: list[str] = []
    system: Any = Sam2Bmp(Sized(1), Sized(10 * 2**20), Sam2BmpSettings())
    small = fit_system(system, VIDEO, MemoryBudget(LEAST), told.append)
    assert small.settings.max_objects == MemoryBudget(LEAST).count_objects(10 * 2**20) == 44
    assert small.settings.feature_memory == 64 * 2**20
    [sentence] = told
    assert (
        sentence
        == "clip: 1.00 GB hold 44 objects at once at 854x480, more begin no object; all 256 take 3.20 GB (`budget`)"
    )
    assert fit_system(system, VIDEO, parse_memory("8G"), told.append) is system and len(told) == 1
    assert fit_system("other", VIDEO, MemoryBudget(LEAST), told.append) == "other"
    with pytest.raises(InputError, match="hold no object"):
        fit_system(Sam2Bmp(Sized(1), Sized(2**40), Sam2BmpSettings()), VIDEO, MemoryBudget(LEAST), told.append)


def test_prompted_objects_that_do_not_fit_are_refused_with_the_number() -> None:
    check_prompted_objects(Sized(20 * 2**20), VIDEO, 22, MemoryBudget(LEAST))
    check_prompted_objects("says nothing", VIDEO, 10**6, MemoryBudget(LEAST))
    with pytest.raises(InputError, match=r"60 objects at 854x480 take about 1\.78 GB.* 1\.00 GB"):
        check_prompted_objects(Sized(20 * 2**20), VIDEO, 60, MemoryBudget(LEAST))
