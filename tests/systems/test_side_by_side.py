"""Encoding, finding and tracking side by side: the same result, on threads where torch may use several."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from toys import ToyPropagator, ToySegmenter, World, moving

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.progress import discard_progress
from masklet.core.protocols import PreparingPropagator
from masklet.systems.deva.online import Deva
from masklet.systems.sam2bmp import Sam2Bmp
from masklet.systems.track import Track

TWO = [moving(2, 0, 0, 1), moving(20, 24, 0, -1)]
Calls = defaultdict[str, list[tuple[int, int]]]  # frame and thread of each call


@dataclass
class WatchedPropagator(ToyPropagator):
    """Notes which thread does what."""

    calls: Calls = field(default_factory=lambda: defaultdict(list))

    def encode(self, frames: Sequence[Frame]) -> list[Tensor]:
        self.calls["encode"] += [(frame.index, threading.get_ident()) for frame in frames]
        return super().encode(frames)

    def prepare(self, features: Tensor) -> None:
        self.calls["prepare"].append((len(self.calls["prepare"]), threading.get_ident()))


@dataclass
class WatchedSegmenter(ToySegmenter):
    """Looks one frame ahead, and notes which thread asks."""

    calls: Calls = field(default_factory=lambda: defaultdict(list))
    look_ahead: int = 1

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        self.calls["segment"] += [(frame.index, threading.get_ident()) for frame in frames]
        return super().segment(memory, frames, future)


def build_sam2bmp(calls: Calls) -> Sam2Bmp:
    return Sam2Bmp(WatchedSegmenter(calls=calls), WatchedPropagator(calls=calls))


def build_deva(calls: Calls) -> Deva:
    return Deva(WatchedSegmenter(calls=calls), WatchedPropagator(calls=calls))


def build_track(calls: Calls) -> Track:
    return Track(WatchedPropagator(calls=calls), {0: {1: World(TWO).truth(0)[0]}})


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("build", [build_sam2bmp, build_deva, build_track])
def test_stages_have_threads_of_their_own_where_there_are_cores(
    build: Callable[[Calls], Sam2Bmp | Deva | Track], threads: int
) -> None:
    calls: Calls = defaultdict(list)
    world, system = World(TWO, length=12), build(calls)
    assert isinstance(system.propagator, PreparingPropagator)
    result = system.run(world, discard_progress)
    by_stage = {stage: {thread for _, thread in told} for stage, told in calls.items()}
    assert [frame for frame, _ in calls["encode"]] == list(range(12)), "every frame once, in order"
    if threads == 1:
        assert "prepare" not in by_stage, "what is not ahead gains nothing by being prepared"
        assert set().union(*by_stage.values()) == {threading.get_ident()}
    else:
        assert len(calls["prepare"]) >= 12
        used = [*by_stage.values()]
        assert all(threading.get_ident() not in stage for stage in used)
        assert by_stage["encode"].isdisjoint(by_stage.get("segment", set()))
    assert torch.get_num_threads() == threads
    for masklet in result.masklets:
        alike = [world.truth(t) for t in masklet.sightings]
        for truth, sighting in zip(alike, masklet.sightings.values(), strict=True):
            assert any(torch.equal(mask, sighting.mask.decode()) for mask in truth.values())
    assert len(result.masklets) == (1 if isinstance(system, Track) else 2)


@dataclass
class BatchingPropagator(WatchedPropagator):
    """Is good at four frames together, as SAM 2 is on a GPU."""

    encode_at_once: int = 4
    batches: list[int] = field(default_factory=list)

    def encode(self, frames: Sequence[Frame]) -> list[Tensor]:
        self.batches.append(len(frames))
        return super().encode(frames)


@pytest.mark.parametrize("build", [build_sam2bmp, build_deva, build_track])
def test_frames_that_need_not_be_waited_for_are_encoded_together(
    build: Callable[[Calls], Sam2Bmp | Deva | Track], threads: int
) -> None:
    """Not in a stream, whose next frame may be long in coming."""
    world, system = World(TWO, length=10), build(defaultdict(list))
    want = system.run(world, discard_progress).masklets
    together = BatchingPropagator(calls=defaultdict(list))
    assert replace(system, propagator=together).run(world, discard_progress).masklets == want
    assert together.batches == [4, 4, 2] and [t for t, _ in together.calls["encode"]] == list(range(10))
    alone = BatchingPropagator(calls=defaultdict(list))
    assert len(list(replace(system, propagator=alone).stream(world))) == 10 and alone.batches == [1] * 10
