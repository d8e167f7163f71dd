from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import Place, ToyPropagator, World, moving, square, still

from masklet.core.errors import InputError
from masklet.core.instances import Box, Point
from masklet.core.protocols import VideoSystem
from masklet.core.result import VideoResult
from masklet.systems.track import Prompts, Track

PLACES: list[Place] = [moving(4, 0, 0, 1), moving(20, 24, 0, -1)]


def run(world: World, prompts: Prompts) -> VideoResult:
    return Track(ToyPropagator(), prompts).run(world, lambda *_: None)


@pytest.mark.parametrize("frame", [0, 7, 15])
def test_a_mask_is_propagated_both_ways_from_its_frame(frame: int) -> None:
    world = World(PLACES)
    result = run(world, {frame: {5: world.truth(frame)[1]}})
    [m] = result.masklets
    assert m.id == 5 and list(m.sightings) == list(range(16))
    assert all(torch.equal(s.mask.decode(), world.truth(t)[1]) for t, s in m.sightings.items())
    assert "".join(s.source.value[0] for s in m.sightings.values()) == "b" * frame + "p" + "f" * (15 - frame)


@pytest.mark.parametrize(("first", "times"), [(0, 1), (3, 2)])
def test_an_object_of_the_first_frame_is_told_once(first: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way back there is no frame before it in which to look for the object."""
    told: list[Prompts] = []
    prompt = ToyPropagator.prompt

    def count(self: ToyPropagator, *asked: Any) -> Any:
        told.append(asked[2])
        return prompt(self, *asked)

    monkeypatch.setattr(ToyPropagator, "prompt", count)
    run(World(PLACES), {first: {5: World(PLACES).truth(first)[1]}})
    assert len(told) == times


def test_objects_prompted_in_different_frames_keep_their_ids() -> None:
    world = World(PLACES)
    result = run(world, {12: {3: world.truth(12)[0]}, 4: {9: world.truth(4)[1]}})
    for m, o in zip(result.masklets, (0, 1), strict=True):
        assert m.id == (3, 9)[o]
        assert all(torch.equal(s.mask.decode(), world.truth(t)[o]) for t, s in m.sightings.items())
        assert len(m.sightings) == 16


@pytest.mark.parametrize("prompt", [Box(4, 4, 10, 10), Point(6, 6)])
def test_boxes_and_points(prompt: Box | Point) -> None:
    world = World([still(4, 4)])
    [m] = run(world, {3: {1: prompt}}).masklets
    assert all(torch.equal(s.mask.decode(), square(4, 4)) for s in m.sightings.values())
    assert len(m.sightings) == 16


def test_a_later_prompt_corrects_from_its_frame_on() -> None:
    world = World([still(4, 4), still(20, 20)])
    [m] = run(world, {0: {1: square(4, 4)}, 8: {1: square(20, 20)}}).masklets
    assert m.key_frames == {0, 8}
    assert torch.equal(m.sightings[8].mask.decode(), square(20, 20))
    assert torch.equal(m.sightings[7].mask.decode(), square(4, 4))


def test_a_prompt_beyond_the_end_is_refused_alone_and_noted_beside_others() -> None:
    world = World([still(4, 4)])
    with pytest.raises(InputError, match=r"prompt in frame 16, but toy has 16 frames \(0 to 15\)"):
        run(world, {16: {1: square(4, 4)}})
    result = run(world, {0: {1: square(4, 4)}, 40: {2: square(4, 4)}})
    assert [m.id for m in result.masklets] == [1] and "frame 40" in result.provenance.notes[0]


def test_the_provenance_names_the_prompts() -> None:
    system: VideoSystem = Track(ToyPropagator(), {3: {2: Point(6, 6)}, 0: {1: square(4, 4)}})
    result = system.run(World([still(4, 4)]), lambda *_: None)
    assert result.provenance.settings["prompts"] == ["0:1:mask", "3:2:Point(x=6, y=6, inside=True)"]


def test_an_object_that_is_lost_is_noted_with_its_frame() -> None:
    world = World([still(4, 4), lambda t: (20, 20) if t < 9 else None])
    result = run(world, {3: {1: world.truth(3)[0], 2: world.truth(3)[1]}})
    [note] = result.provenance.notes
    assert note.startswith("object 2: not found from frame 9 on")


def test_an_object_of_which_nothing_is_found_is_noted() -> None:
    class Blind(ToyPropagator):
        def mask(self, prompt, features):  # type: ignore[no-untyped-def]
            return torch.zeros(features.shape[:2], dtype=torch.bool)

    world = World([still(4, 4)], length=3)
    result = Track(Blind(), {1: {7: Point(6, 6)}}).run(world, lambda *_: None)
    assert result.masklets == () and "object 7" in result.provenance.notes[0]
