from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Place, ToyPropagator, World, moving, square

import masklet
from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Point
from masklet.core.limits import LARGEST_NUMBER
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Sighting, Source
from masklet.session.session import Session
from masklet.systems.track import Track

PLACES: list[Place] = [moving(4, 0, 0, 1), moving(20, 24, 0, -1)]


def begin(world: World, prompts: dict[int, list[int]] | None = None) -> Session:
    """A session over what `track` makes of objects (by number, ids from 1) that are prompted in some frames."""
    told = {t: {o + 1: world.truth(t)[o] for o in objects} for t, objects in (prompts or {0: [0, 1]}).items()}
    return Session(world, ToyPropagator(), Track(ToyPropagator(), told).run(world))


def spoil(result: VideoResult, id: int, frames: range, mask: torch.Tensor) -> VideoResult:
    """The result in which an object has a wrong mask in some frames."""
    wrong = {t: Sighting(Rle.encode(mask), Source.FORWARD, 0.9) for t in frames}
    return replace(
        result,
        masklets=tuple(replace(m, sightings={**m.sightings, **wrong}) if m.id == id else m for m in result.masklets),
    )


def masks(result: VideoResult, id: int) -> dict[int, Rle]:
    [masklet] = [m for m in result.masklets if m.id == id]
    return {t: s.mask for t, s in masklet.sightings.items()}


def truth(world: World, o: int) -> dict[int, Rle]:
    return {t: Rle.encode(world.truth(t)[o]) for t in range(len(world)) if o in world.truth(t)}


def test_a_session_says_what_it_is_of() -> None:
    world = World(PLACES)
    with begin(world) as session:
        assert (session.name, session.size, session.frames, session.rate) == ("toy", (32, 32), 16, 10.0)
        assert session.revision == 0 and [m.id for m in session.result.masklets] == [1, 2]
        assert (session.read_frame(7).image == world.frame(7).image).all() and session.read_frame(7).index == 7
        assert "toy" in repr(session)
        for frame in (-1, 16, 2.5):
            with pytest.raises(InputError, match="no frame"):
                session.read_frame(frame)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", [Box(7, 4, 13, 10), Point(9, 6), Clicks((Point(9, 6),)), "mask"])
def test_a_prompt_changes_one_object_in_one_frame(prompt: Box | Point | Clicks | str) -> None:
    world = World(PLACES)
    session = begin(world)
    before = session.result
    given = world.truth(7)[0] if prompt == "mask" else prompt
    answer = session.prompt(7, 2, given)  # type: ignore[arg-type]  # object 2 where object 1 is
    assert answer == truth(world, 0)[7]
    assert masks(session.result, 1) == masks(before, 1)
    assert masks(session.result, 2) == {**masks(before, 2), 7: answer}
    assert session.revision == 1 and session.list_anchors(2) == [0, 7]
    assert session.result.provenance.edits[-1].startswith("prompt 2 7 ")
    assert before.masklets[1].sightings[7].mask == truth(world, 1)[7]  # a value


def test_a_prompt_without_an_id_is_a_new_object() -> None:
    world = World(PLACES)
    session = Session(world, ToyPropagator())
    assert session.next_id == 1
    session.prompt(5, None, Point(6, 6))
    session.prompt(5, None, Point(20, 22))
    assert [m.id for m in session.result.masklets] == [1, 2] and session.next_id == 3
    session.propagate(1)
    assert masks(session.result, 1) == truth(world, 0) and list(masks(session.result, 2)) == [5]
    sources = "".join(s.source.value[0] for s in session.result.masklets[0].sightings.values())
    assert sources == "bbbbbpffffffffff"


def test_only_what_is_wrong_is_done_anew_and_others_stay_equal() -> None:
    world = World([moving(4, 0, 0, 1), moving(20, 24, 0, -1)], length=40)
    session = begin(world)
    wrong = spoil(session.result, 1, range(15, 25), square(26, 0))
    session = Session(world, ToyPropagator(), wrong)
    session.prompt(20, 1, Point(22, 6))
    told: list[tuple[str, int, int | None, int]] = []
    done = session.propagate(1, watch=lambda *said: told.append(said))
    assert done.is_complete and masks(session.result, 1) == truth(world, 0)
    assert set(range(15, 25)) - {20} <= set(done.frames) <= set(range(11, 29)), "not the whole video"
    assert session.result.masklets[1] is wrong.masklets[1]
    assert [said[:2] for said in told] == [("backward", n) for n in range(1, 9)] + [
        ("forward", n) for n in range(21, 28)
    ]
    assert session.result.provenance.edits[-1] == f"propagate 1 {min(done.frames)} {max(done.frames) + 1}"


def test_a_range_is_done_anew_and_nothing_else() -> None:
    world = World(PLACES, length=30)
    wrong = spoil(begin(world).result, 2, range(5, 30), square(26, 0))
    session = Session(world, ToyPropagator(), wrong)
    session.confirm(0, 1)
    session.prompt(12, 2, world.truth(12)[1])
    done = session.propagate(2, 10, 20)
    assert set(done.frames) == set(range(10, 20)) - {12}
    expected = {**masks(wrong, 2), **{t: truth(world, 1)[t] for t in range(10, 20)}}
    assert masks(session.result, 2) == expected
    again = session.propagate(2, 5, 9)  # no anchor inside: from those beside
    assert set(again.frames) == set(range(5, 9))


def test_undo_and_redo() -> None:
    world = World(PLACES)
    session = begin(world)
    states = [session.result]
    session.prompt(3, None, Point(2, 30))
    states.append(session.result)
    session.edit("rename", id=1, name="cat")
    states.append(session.result)
    assert session.undo() and session.result is states[1]
    assert session.undo() and session.result is states[0] and not session.undo() and session.anchors == {}
    assert session.redo() and session.redo() and session.result is states[2] and not session.redo()
    assert session.revision == 6
    session.undo()
    session.confirm(0, 1)
    assert not session.redo()


def test_a_mask_is_painted_and_erased() -> None:
    world = World(PLACES)
    session = begin(world)
    drawn = Rle.encode(square(1, 1))
    session.paint(4, 1, drawn)
    assert masks(session.result, 1)[4] == drawn
    session.paint(4, 1, Rle.encode_pixels(np.zeros((32, 32), bool)))
    assert 4 not in masks(session.result, 1) and session.list_anchors(1) == [0, 4]
    with pytest.raises(InputError, match="a mask of 3x2"):
        session.paint(4, 1, Rle.encode_pixels(np.zeros((2, 3), bool)))


def test_a_mask_is_painted_as_an_array_too() -> None:
    sessions = begin(World(PLACES)), begin(World(PLACES))
    for session, drawn in zip(sessions, (Rle.encode(square(9, 9)), square(9, 9).numpy()), strict=True):
        session.paint(4, 1, drawn)
    assert sessions[0].result == sessions[1].result and masks(sessions[0].result, 1)[4].area == 36


@pytest.mark.parametrize("categories", [(), ("person", "car")])
def test_a_prompt_names_nothing(categories: tuple[str, ...], tmp_path: Path) -> None:
    """A result without names, as a video has in which nothing is marked, could be saved, and not read again."""
    session = Session(
        World(PLACES), ToyPropagator(), replace(begin(World(PLACES)).result, masklets=(), categories=categories)
    )
    session.prompt(0, 1, Box(7, 4, 13, 10))
    session.propagate(1)
    [found] = session.result.masklets
    assert {found.label, *(seen.label for seen in found.sightings.values())} == {-1}
    session.save(tmp_path)
    assert VideoResult.load(tmp_path / "masklets.json") == session.result


@pytest.mark.parametrize("id", [0, LARGEST_NUMBER])
def test_objects_of_other_programs_are_corrected_whatever_their_ids(id: int, tmp_path: Path) -> None:
    world = World(PLACES)
    tracked = begin(world).result
    given = replace(tracked, masklets=tuple(replace(m, id=id) if m.id == 1 else m for m in tracked.masklets))
    session = Session(world, ToyPropagator(), given)
    session.edit("split", id=id, frame=8)
    session.prompt(3, id, square(1, 1))
    session.propagate(id)
    session.prompt(3, None, square(9, 9))
    assert session.list_anchors(id) == [0, 3] and len({m.id for m in session.result.masklets}) == 4
    session.save(tmp_path)
    assert VideoResult.load(tmp_path / "masklets.json") == session.result


@pytest.mark.parametrize("id", [-1, "2", 2.0, True])
def test_an_id_that_no_result_can_have_is_refused(id: object) -> None:
    session = begin(World(PLACES))
    for act in (
        lambda: session.paint(4, id, square(1, 1)),  # type: ignore[arg-type]
        lambda: session.prompt(4, id, square(1, 1)),  # type: ignore[arg-type]
        lambda: session.confirm(4, id),  # type: ignore[arg-type]
        lambda: session.propagate(id),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="no object"):
            act()
    assert session.revision == 0


def test_propagation_is_stopped_and_keeps_what_was_done() -> None:
    world = World(PLACES, length=30)
    session = Session(world, ToyPropagator())
    session.prompt(0, 1, world.truth(0)[0])
    done = session.propagate(1, watch=lambda phase, n, total, objects: session.stop() if n == 5 else None)
    assert not done.is_complete and done.frames == (1, 2, 3, 4, 5)
    assert masks(session.result, 1) == {t: truth(world, 0)[t] for t in range(6)}
    rest = session.propagate(1)
    assert rest.is_complete and len(rest.frames) > 5 and masks(session.result, 1) == truth(world, 0)


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("paint", {}, "there is no such verb"),
        ("merge", {}, "'ids' is missing"),
        ("merge", {"ids": [1, "2"]}, "must be a list of ids"),
        ("split", {"id": 1, "frame": True}, "must be a whole number"),
        ("split", {"id": 1, "frame": 3, "at": 2}, "no argument 'at'"),
        ("rename", {"id": 9, "name": "x"}, "no object 9"),
    ],
)
def test_edits_are_checked(verb: str, arguments: dict[str, object], message: str) -> None:
    session = begin(World(PLACES))
    with pytest.raises(InputError, match=message):
        session.edit(verb, **arguments)
    assert session.revision == 0


def test_every_edit_is_a_verb() -> None:
    session = begin(World(PLACES))
    session.edit("smooth", radius=1, ids=[1])
    session.edit("smooth")
    session.edit("fill_gaps", longest=2)
    session.edit("split", id=1, frame=8)
    session.edit("trim", start=0, stop=12, ids=[2])
    session.edit("relabel", old="object", new="cat")
    session.edit("merge", ids=[1, 3])
    session.edit("filter", min_frames=13, labels=["cat"])
    session.edit("drop", ids=[1])
    assert session.result.masklets == ()
    assert [line.split()[0] for line in session.result.provenance.edits] == (
        ["smooth", "smooth", "fill-gaps", "split", "trim", "relabel", "merge", "filter", "drop"]
    )


def test_the_library_opens_a_session(tmp_path: Path) -> None:
    world = World(PLACES)
    frames = [world.frame(t).image for t in range(16)]
    with masklet.open(frames, propagator=ToyPropagator(), name="clip", rate=5.0) as session:
        session.prompt(3, None, masklet.Point(4, 5))
        session.propagate(1)
        session.result.save(tmp_path / "masklets.json")
    assert (session.name, session.rate) == ("clip", 5.0) and masks(session.result, 1) == truth(world, 0)
    model = masklet.load(system=Track(ToyPropagator(), {}), propagator=ToyPropagator())
    with model.open(frames, result=tmp_path / "masklets.json") as again:
        assert again.result.masklets == session.result.masklets and again.list_anchors(1) == [3]
    own = World(PLACES)
    with masklet.open(own, propagator=ToyPropagator()) as third:
        assert third.name == "toy" and third.result.provenance.version
    with pytest.raises(InputError, match="its own name"):
        masklet.open(frames, propagator=ToyPropagator(), result=session.result, name="other")
    with pytest.raises(InputError, match="it has 16 frames, frames 9"):
        masklet.open(frames[:9], propagator=ToyPropagator(), result=session.result)
