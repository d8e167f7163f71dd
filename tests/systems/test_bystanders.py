"""Bystanders: what is found beside prompted objects is tracked along and never seen in the result."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from toys import Place, ToyPropagator, ToySegmenter, World, square, still

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.result import VideoResult
from masklet.systems.bystanders import BystanderFinder, measure_distance
from masklet.systems.common import find_detections
from masklet.systems.track import Prompts, Track

SIDE = 6  # of a square, pixels
NEAR, FAR = (4, 12), (24, 28)
PLACES: list[Place] = [still(4, 4), still(*NEAR), still(*FAR)]


@dataclass
class Recording(ToyPropagator):
    """Remembers which ids it was asked for, and which it had in each call of `predict`."""

    prompted: list[tuple[int, ...]] = field(default_factory=list)
    had: list[set[int]] = field(default_factory=list)

    def prompt(self, memory, features, prompts):  # type: ignore[no-untyped-def]
        self.prompted.append(tuple(prompts))
        return super().prompt(memory, features, prompts)

    def predict(self, memory, features):  # type: ignore[no-untyped-def]
        self.had.append(set(memory.anchors))
        return super().predict(memory, features)


def finder(**settings) -> BystanderFinder:  # type: ignore[no-untyped-def]
    return BystanderFinder(ToySegmenter(), **{"least": 4, "reach": 1.0, **settings})


def run(prompts: Prompts, bystanders: BystanderFinder | None) -> tuple[VideoResult, Recording]:
    propagator = Recording()
    return Track(propagator, prompts, bystanders).run(World(PLACES, length=6), lambda *_: None), propagator


def found(asked: Tensor, known: Tensor | None = None, **settings) -> list[Tensor]:  # type: ignore[no-untyped-def]
    frame = Frame(0, next(iter(World(PLACES, length=1))).image)
    return finder(**settings).find(frame, asked[None], asked if known is None else known)


def test_what_is_beside_an_object_is_found_and_what_is_far_is_not() -> None:
    [mask] = found(square(4, 4))
    assert torch.equal(mask, square(*NEAR))
    assert len(found(square(4, 4), reach=9.0)) == 2
    assert len(found(square(4, 4), reach=9.0, most=1)) == 1
    assert found(square(4, 4), chance=1.5) == [] and found(square(4, 4), least=SIDE * SIDE + 1) == []


def test_what_is_known_is_no_bystander_and_keeps_its_pixels() -> None:
    near = square(*NEAR)
    assert found(square(4, 4), square(4, 4) | near) == []
    corner = torch.zeros_like(near)
    corner[near.nonzero()[0, 0], :] = near[near.nonzero()[0, 0], :]  # one row of it: a sixth
    [mask] = found(square(4, 4), square(4, 4) | corner)
    assert torch.equal(mask, near & ~corner)


def test_nothing_is_beside_an_object_that_is_not_there() -> None:
    assert found(torch.zeros_like(square(4, 4))) == []


def test_a_bystander_is_tracked_along_and_left_out_of_the_result() -> None:
    result, propagator = run({2: {7: square(4, 4)}}, finder())
    assert [m.id for m in result.masklets] == [7] and not result.provenance.notes
    assert propagator.prompted[:2] == [(7,), (-1,)]
    assert {7, -1} in propagator.had
    plain, without = run({2: {7: square(4, 4)}}, None)
    assert plain.masklets == result.masklets and all(id > 0 for had in without.had for id in had)


def test_both_contend_backward_too() -> None:
    _, propagator = run({5: {7: square(4, 4)}}, finder())
    assert sum({7, -1} == had for had in propagator.had) == 5


@pytest.mark.parametrize("frame", [0, 3])
def test_a_bystander_that_is_prompted_is_no_bystander_any_more(frame: int) -> None:
    result, propagator = run({0: {7: square(4, 4)}, 3: {8: square(*NEAR)}}, finder())
    assert [m.id for m in result.masklets] == [7, 8]
    assert propagator.had[4] == {7, 8}
    assert len(result.masklets[1].sightings) == 6


def test_more_bystanders_of_later_prompts_get_ids_of_their_own() -> None:
    _, propagator = run({0: {7: square(4, 4)}, 3: {8: square(*FAR)}}, finder(reach=4.0, most=1))
    assert (-1,) in propagator.prompted and len({i for ids in propagator.prompted for i in ids if i < 0}) == 1


def test_progress_counts_what_was_asked_for() -> None:
    told: list[int] = []
    world = World(PLACES, length=4)
    Track(ToyPropagator(), {0: {7: square(4, 4)}}, finder()).run(world, lambda phase, n, of, count: told.append(count))
    assert set(told) == {1}


def test_a_frame_is_told_before_anything_is_looked_for_beside_its_objects() -> None:
    happened: list[str] = []

    class Listed(ToySegmenter):
        def segment(self, memory, frames, future):  # type: ignore[no-untyped-def]
            happened.append("looked")
            return super().segment(memory, frames, future)

    track = Track(ToyPropagator(), {1: {7: square(4, 4)}}, BystanderFinder(Listed(), least=4))
    track.run(World(PLACES, length=3), lambda phase, n, of, count: happened.append(f"{phase} {n}"))
    assert [what for what in happened if "backward" not in what] == ["forward 1", "forward 2", "looked", "forward 3"]
    happened.clear()
    for masks in track.stream(World(PLACES, length=3)):
        happened.append(f"{masks.index}: {masks.ids}")
    assert happened == ["0: ()", "1: (7,)", "looked", "2: (7,)"]


def test_a_segmenter_that_can_look_near_by_is_asked_for_no_more() -> None:
    regions = []

    class Looking(ToySegmenter):
        def segment_region(self, frame: Frame, region: Tensor, least: float) -> Detections:
            regions.append(region)
            return find_detections(self, self.empty(), frame, (), least)[0]

    frame, asked = Frame(0, next(iter(World(PLACES, length=1))).image), square(4, 4)
    [mask] = BystanderFinder(Looking(), least=4).find(frame, asked[None], asked)
    assert torch.equal(mask, square(*NEAR))
    assert torch.equal(regions[0], measure_distance(asked) <= SIDE) and not regions[0].all()
