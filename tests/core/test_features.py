from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from masklet.core import features as store_module
from masklet.core.feature_bytes import read_tensors, take_tensors, write_tensors
from masklet.core.features import BEHIND, SPARED, FeatureStore, count_tensor_bytes


@dataclass(frozen=True)
class Fake:
    keys: torch.Tensor
    size: tuple[int, int] = (4, 4)


def fake(t: int) -> Fake:
    return Fake(torch.full((10,), float(t)))  # 40 bytes


def test_bytes_of_nested_values() -> None:
    assert count_tensor_bytes(Fake(torch.zeros(3, dtype=torch.float16))) == 6
    assert count_tensor_bytes({"a": [torch.zeros(2)], "b": (torch.zeros(1), "text", 3)}) == 12


@pytest.mark.parametrize(("memory", "disk", "found"), [(1000, 0, 5), (0, 1000, 5), (80, 40, 3), (0, 0, 0)])
def test_what_fits_is_found_again_and_the_rest_is_none(memory: int, disk: int, found: int) -> None:
    with FeatureStore[Fake](memory, disk) as store:
        for t in range(5):
            store.keep(t, fake(t))
        got = [store.get(t) for t in range(5)]
    assert [x is not None for x in got] == [True] * found + [False] * (5 - found)
    assert all(torch.equal(x.keys, fake(t).keys) for t, x in enumerate(got) if x)


def test_the_folder_goes_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), FeatureStore[Fake](0, 1000) as store:
        store.keep(0, fake(0))
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_full_disk_means_computing_the_next_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said to be kept is kept, in memory; no more is promised."""

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_tensors", full)
    with FeatureStore[Fake](0, 1000) as store:
        for t in range(6):
            store.keep(t, fake(t))
        kept = [t for t in range(6) if t in store]
        assert kept == [0, 1][: len(kept)] and kept  # as many as wait to be written, at most
        got = [store.get(t) for t in kept]
        assert all(torch.equal(x.keys, fake(t).keys) for t, x in zip(kept, got, strict=True) if x)
        store.drop(0)
        assert 0 not in store and store.get(0) is None


def test_without_a_folder_for_them_features_are_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with FeatureStore[torch.Tensor](0, 10**6) as store:
        store.keep(0, torch.ones(4))
        assert store.get(0) is None


def test_a_disk_that_is_nearly_full_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=SPARED + 3999))
    with FeatureStore[torch.Tensor](0, 10**6) as store:
        store.keep(0, torch.zeros(1000))  # 4000 bytes
        assert 0 not in store
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=SPARED + 4000))
    with FeatureStore[torch.Tensor](0, 10**6) as store:
        store.keep(0, torch.zeros(1000))
        assert 0 in store


# -- the disk


@dataclass(frozen=True)
class Maps:
    """As a propagator's features may be."""

    fine: torch.Tensor
    rest: dict[str, Any]
    pair: tuple[torch.Tensor, str]


def maps(t: int) -> Maps:
    draw = torch.Generator().manual_seed(t)
    halves = torch.randn(2, 3, 4, 5, generator=draw).bfloat16().contiguous(memory_format=torch.channels_last)
    counts = torch.randint(0, 255, (7,), dtype=torch.uint8, generator=draw)
    rest = {"halves": [halves, t], "none": torch.zeros(0, 3), "flag": torch.tensor(t % 2 == 0)}
    return Maps(torch.randn(3, 5, generator=draw).T, rest, (counts, "text"))


def same(a: Any, b: Any) -> bool:
    """Whether two features are equal to the last bit, in the same order of memory."""
    (rest, tensors), (other, others) = take_tensors(a), take_tensors(b)
    pairs = list(zip(tensors, others, strict=True))
    alike = all(x.dtype == y.dtype and torch.equal(x, y) and x.stride() == y.stride() for x, y in pairs)
    return bool(rest == other) and alike


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), [3, 0, 7, 7, 2, 1, 5]])
def test_what_comes_from_the_disk_is_equal_to_the_last_bit_in_whatever_order(order: Sequence[int]) -> None:
    with FeatureStore[Maps](0, 10**6) as store:
        for t in range(8):
            store.keep(t, maps(t))
        assert all(same(store.get(t), maps(t)) for t in order)


def test_of_what_is_part_of_something_larger_the_part_alone_is_kept() -> None:
    batch = torch.randn(4, 1000)
    with FeatureStore[torch.Tensor](4000, 4000) as store:
        for t in range(2):
            store.keep(t, batch[t])
        held, read = store.get(0), store.get(1)
    assert held is not None and held.untyped_storage().nbytes() == 4000 and torch.equal(held, batch[0])
    assert read is not None and read.untyped_storage().nbytes() == 4000 and torch.equal(read, batch[1])


def test_frames_asked_for_in_order_are_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def read(path: Path, *args: Any, **more: Any) -> Any:
        asked.append(int(path.name))
        return read_tensors(path, *args, **more)

    monkeypatch.setattr(store_module, "read_tensors", read)
    with FeatureStore[Fake](0, 10**6) as store:
        for t in range(9):
            store.keep(t, fake(t))
        for t in (6, 5):
            store.get(t)
        while len(asked) < 4:  # two more come without being asked for
            time.sleep(0.001)
        assert asked == [6, 5, 4, 3]
        for t in (4, 3, 2, 1, 0):
            got = store.get(t)
            assert got is not None and torch.equal(got.keys, fake(t).keys)
    assert asked == [6, 5, 4, 3, 2, 1, 0]  # each once


def test_few_frames_wait_to_be_written_however_slow_the_disk_is(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def slow(*args: Any) -> None:
        time.sleep(0.01)
        write_tensors(*args)

    monkeypatch.setattr(store_module, "write_tensors", slow)
    with FeatureStore[Fake](0, 10**6) as store:
        for t in range(8):
            one = fake(t)
            alive.append(weakref.ref(one.keys))
            store.keep(t, one)
            del one
            assert sum(ref() is not None for ref in alive) <= BEHIND + 1  # and the one in work
        last = store.get(7)  # not written yet
        assert last is not None and torch.equal(last.keys, fake(7).keys)


def test_what_is_dropped_leaves_no_file_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with FeatureStore[Fake](0, 80) as store:
        for t in range(3):
            store.keep(t, fake(t))
        assert [t in store for t in range(3)] == [True, True, False]
        store.drop(1)
        store.keep(2, fake(2))
        assert [t in store for t in range(3)] == [True, False, True]
        got = store.get(2)
        assert got is not None and torch.equal(got.keys, fake(2).keys)
    assert not list(tmp_path.iterdir())


# -- an accelerator, played by the CPU


class LateCopies:
    """Copies that are whole only when they were waited for."""

    def __init__(self) -> None:
        self.made: list[tuple[torch.Tensor, torch.Tensor]] = []

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        copy = torch.full_like(tensor, 77)
        self.made.append((copy, tensor.clone()))
        return copy

    def record(self) -> Callable[[], object]:
        due = list(self.made)

        def wait() -> None:
            for copy, whole in due:
                copy.copy_(whole)

        return wait


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> LateCopies:
    """The CPU counts as a device on which 400 bytes are free, of which a quarter may be used: two frames."""
    copies = LateCopies()
    monkeypatch.setattr(store_module, "is_accelerator", lambda device: True)
    monkeypatch.setattr(store_module, "count_free_bytes", lambda device: 400)
    monkeypatch.setattr(store_module, "copy_to_host", copies.copy)
    monkeypatch.setattr(store_module, "record_event", copies.record)

    def read(path: Path, forms: Any, *, pinned: bool) -> list[torch.Tensor]:
        assert pinned
        return read_tensors(path, forms)

    monkeypatch.setattr(store_module, "read_tensors", read)
    return copies


def test_first_on_the_device_then_on_the_host_then_on_disk(accelerated: LateCopies) -> None:
    kept = [fake(t) for t in range(7)]
    with FeatureStore[Fake](memory=80, disk=80) as store:
        for t, one in enumerate(kept):
            store.keep(t, one)
        assert [t in store for t in range(7)] == [True] * 6 + [False]
        assert len(accelerated.made) == 4  # two of each other place
        got = [store.get(t) for t in range(6)]
        assert [x is one for x, one in zip(got, kept, strict=False)] == [True, True, False, False, False, False]
        assert all(x is not None and torch.equal(x.keys, fake(t).keys) for t, x in enumerate(got))
        store.drop(0)
        store.keep(6, kept[6])
        assert store.get(6) is kept[6]


def test_less_of_the_device_where_the_budget_says_so(accelerated: LateCopies) -> None:
    with FeatureStore[Fake](memory=80, disk=0, device=79) as store:
        for t in range(5):
            store.keep(t, fake(t))
        assert [t in store for t in range(5)] == [True, True, True, False, False] and len(accelerated.made) == 2


def test_what_is_on_the_host_in_part_does_not_fill_it_unbounded(
    accelerated: LateCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two tensors the first is on the device: they are kept together, within the host's budget."""
    turns = cycle([True, False])
    monkeypatch.setattr(store_module, "is_accelerator", lambda device: next(turns))
    with FeatureStore[tuple[torch.Tensor, torch.Tensor]](memory=160, disk=0) as store:
        for t in range(3):
            store.keep(t, (fake(t).keys, fake(t + 10).keys))
        assert [t in store for t in range(3)] == [True, True, False]
        got = store.get(1)
    assert got is not None and torch.equal(got[0], fake(1).keys) and torch.equal(got[1], fake(11).keys)
    assert len(accelerated.made) == 2
