"""Where the large part of a frame is kept between the passes; a device is played by the CPU."""

from __future__ import annotations

import pytest
import torch

from masklet.core import features as tiers
from masklet.systems.query.dense_store import DenseFeatures, DenseStore

BYTES = 2 * 4 * 5 * 6  # of a frame in bfloat16


def frame(n: int) -> DenseFeatures:
    return DenseFeatures(torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(n)), (20, 24))


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU counts as a device with room for twelve frames, of which a quarter may be used."""
    monkeypatch.setattr(tiers, "is_accelerator", lambda device: True)
    monkeypatch.setattr(tiers, "count_free_bytes", lambda device: 12 * BYTES)
    monkeypatch.setattr(tiers, "copy_to_host", torch.Tensor.clone)
    monkeypatch.setattr(tiers, "record_event", lambda: lambda: None)


def test_on_a_cpu_nothing_changes() -> None:
    with DenseStore(device=10**9) as store:
        store.keep(0, frame(0))
        kept = store.get(0)
    assert kept is not None and kept.inside == (20, 24) and torch.equal(kept.maps, frame(0).maps)


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize(("most", "near"), [(10**9, 3), (2 * BYTES + 1, 2), (0, 0)])
def test_the_first_frames_stay_near_and_the_others_on_the_host_all_in_half_the_bytes(most: int, near: int) -> None:
    with DenseStore(memory=2 * BYTES, disk=0, device=most) as store:
        for n in range(6):
            store.keep(n, frame(n))
        assert [n in store for n in range(6)] == [n < near + 2 for n in range(6)]
        for n in range(near + 2):
            kept = store.get(n)
            assert kept is not None and kept.maps.dtype == torch.float32
            assert torch.equal(kept.maps, frame(n).maps.bfloat16().float())


@pytest.mark.usefixtures("accelerated")
def test_what_is_dropped_makes_room_where_it_was() -> None:
    with DenseStore(memory=BYTES, disk=0, device=2 * BYTES) as store:
        for n in range(4):
            store.keep(n, frame(n))
        assert [n in store for n in range(4)] == [True, True, True, False]
        for gone, new in ((0, 4), (2, 5)):
            store.drop(gone)
            store.keep(new, frame(new))
        assert [n in store for n in range(6)] == [False, True, False, False, True, True]
        near, far = store.get(4), store.get(5)
    assert near is not None and torch.equal(near.maps, frame(4).maps.bfloat16().float())
    assert far is not None and torch.equal(far.maps, frame(5).maps.bfloat16().float())
