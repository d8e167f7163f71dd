from __future__ import annotations

import pytest
import torch
from toys import World, still

from masklet.core.errors import InputError
from masklet.core.features import FeatureStore
from masklet.session.caches import WINDOW, FrameCache, RecentFeatures

IMAGE = 3 * 32 * 32


@pytest.mark.parametrize("most", [1, 2 * IMAGE, 100 * IMAGE])
def test_frames_are_exact_and_few_are_held(most: int) -> None:
    world = World([still(4, 4)], length=20)
    cache = FrameCache(world, most)
    for index in (7, 8, 19, 0, 7):
        assert cache.read(index).index == index
        assert len(cache._frames) <= max(most // IMAGE, 1)
    assert cache.read(7) is cache.read(7)


def test_frames_beside_are_read_together() -> None:
    world = World([still(4, 4)], length=40)
    cache = FrameCache(world)
    for index in range(WINDOW):
        cache.read(index)
    assert world.reads == WINDOW


def test_a_frame_that_is_not_there_is_told() -> None:
    class Short(World):
        def read(self, start, stop):  # type: ignore[no-untyped-def]
            return super().read(start, min(stop, 5))

    with pytest.raises(InputError, match="frame 6 cannot be read"):
        FrameCache(Short([still(4, 4)])).read(6)


def make(n: int) -> torch.Tensor:
    return torch.full((10,), float(n))  # 40 bytes


def test_features_are_made_once_and_the_last_ones_are_kept() -> None:
    made: list[int] = []

    def get(cache: RecentFeatures[torch.Tensor], n: int) -> None:
        assert torch.equal(cache.get(n, lambda: (made.append(n), make(n))[1]), make(n))  # type: ignore[func-returns-value]

    with FeatureStore[torch.Tensor](memory=80, disk=80) as store:
        cache = RecentFeatures(store)
        for n in (0, 1, 2, 3, 0, 4, 0, 2, 1):
            get(cache, n)
        assert made == [0, 1, 2, 3, 4, 1], "1 was asked for longest ago when 4 came"
        assert sum(n in store for n in range(5)) == 4


def test_features_larger_than_all_room_are_made_again() -> None:
    with FeatureStore[torch.Tensor](memory=10, disk=10) as store:
        cache = RecentFeatures(store)
        assert [float(cache.get(0, lambda n=n: make(n))[0]) for n in (1, 2)] == [1.0, 2.0]  # type: ignore[misc]


def test_dropped_features_make_room() -> None:
    with FeatureStore[torch.Tensor](memory=40, disk=40) as store:
        for n in range(3):
            store.keep(n, make(n))
        assert [n in store for n in range(3)] == [True, True, False]
        for n in (0, 1, 9):
            store.drop(n)
        for n in (3, 4, 5):
            store.keep(n, make(n))
        assert [n in store for n in range(6)] == [False, False, False, True, True, False]
        assert torch.equal(store.get(4), make(4))  # type: ignore[arg-type]
