from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from masklet.core import features as store_module
from masklet.core.features import SPARED, FeatureStore, count_tensor_bytes


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


def test_a_full_disk_means_computing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with FeatureStore[Fake](0, 1000) as store:
        monkeypatch.setattr(store_module.pickle, "dump", full)
        store.keep(0, fake(0))
        assert store.get(0) is None


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
