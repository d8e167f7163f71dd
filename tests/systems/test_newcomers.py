"""A thing is an object when it was seen in most of a few frames; those frames are given back to it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import call_masklet
from hypothesis import given
from hypothesis import strategies as st
from toys import ToyPropagator, ToySegmenter, World, moving, square, still

from masklet.core.memory import load_memory, save_memory
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.systems.newcomers import Newcomer, follow_newcomers
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings

LENGTH = 12


def find(frames: Collection[int], world: World, confirm: int, **settings: object) -> tuple[Masklet, ...]:
    """The masklets of a world whose only object is detected in some frames."""
    segmenter = ToySegmenter(blind=lambda t, o: o == 0 and t not in frames)
    wanted = Sam2BmpSettings(confirm=confirm, key_ratio=0.0, **settings)  # type: ignore[arg-type]
    return Sam2Bmp(segmenter, ToyPropagator(), wanted).run(world).masklets


def list_detected(masklet: Masklet) -> list[int]:
    return [t for t, s in sorted(masklet.sightings.items()) if s.source is Source.DETECTED]


def make_sighting(y: int, x: int) -> Sighting:
    return Sighting(Rle.encode(square(y, x)), Source.DETECTED, 0.9, 0, 1.0)


@pytest.mark.parametrize(
    ("frames", "detected"),
    [
        ([2, 3, 4], [2, 3, 4]),
        ([2, 4, 6], [6]),  # what lies before a gap is completed backward, as everything before an object's first frame
        ([2, 5, 6], [5, 6]),
        ([2, 3, 7], None),  # three of six frames are not most of five
        ([2, 6, 7, 8], [6, 7, 8]),  # any five frames count, not those from the first
        ([2, 3], None),
    ],
)
def test_three_of_five_frames_make_an_object(frames: list[int], detected: list[int] | None) -> None:
    """The worked example: it is there in all frames, and then found in all of them."""
    found = find(frames, World([moving(4, 2, 0, 1)], length=LENGTH), confirm=3)
    assert [list_detected(m) for m in found] == ([] if detected is None else [detected])
    assert all(sorted(m.sightings) == list(range(LENGTH)) for m in found)


@given(st.sets(st.integers(0, LENGTH - 1)), st.integers(1, 4), st.integers(1, LENGTH))
def test_an_object_was_seen_in_most_frames_of_some_stretch(frames: set[int], confirm: int, length: int) -> None:
    world = World([moving(4, 2, 0, 1)], length=length)
    seen = [t in frames for t in range(length)]
    stretches = [sum(seen[max(t - 2 * confirm + 2, 0) : t + 1]) for t in range(length)]
    expected = max(stretches) >= confirm or (length < confirm and all(seen))
    found = find(frames, world, confirm)
    assert len(found) == expected
    for masklet in found:
        for t, sighting in masklet.sightings.items():
            assert torch.equal(sighting.mask.decode(), world.truth(t)[0])
        first = list_detected(masklet)[0]
        assert first in frames and set(list_detected(masklet)) == {t for t in frames if first <= t < length}


@given(st.integers(0, 2**32 - 1))
def test_permuting_detections_permutes_ids_only(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)

    class Shuffled(ToySegmenter):
        def one(self, frame):  # type: ignore[no-untyped-def]
            found = super().one(frame)
            return found[torch.randperm(len(found), generator=g)]

    def run(segmenter: ToySegmenter) -> dict[int, dict[int, Sighting]]:
        world = World([moving(8, 0, 0, 2), moving(9, 26, 0, -2), still(24, 24)], length=LENGTH)
        system = Sam2Bmp(segmenter, ToyPropagator(), Sam2BmpSettings(confirm=3))
        return {m.label: dict(m.sightings) for m in system.run(world).masklets}

    assert run(Shuffled()) == run(ToySegmenter()) != {}


def test_at_once_is_the_paper() -> None:
    world = World([still(4, 4)], length=LENGTH)
    assert [list_detected(m) for m in find({7}, world, confirm=1)] == [[7]]
    assert Sam2BmpSettings().confirm == 1


def test_a_result_without_an_object_says_what_was_asked_of_one() -> None:
    segmenter = ToySegmenter(blind=lambda t, o: t % 4 > 0)
    at = Sam2BmpSettings(confirm=3)
    result = Sam2Bmp(segmenter, ToyPropagator(), at).run(World([still(4, 4)], length=LENGTH))
    [note] = result.provenance.notes
    assert "3 of 3 detections" in note and "found in 3 of 5 frames" in note and "lower confirm" in note


def test_nothing_is_propagated_of_what_waits() -> None:
    """A false alarm in each frame at another place: without confirmation each is looked for from then on."""
    alarms = [(t, square(4 + 20 * (t % 2), 2 + 3 * t, 2), 0.99, 1) for t in range(8)]
    world = World([still(14, 14)], length=8)

    def count(confirm: int) -> int:
        at = Sam2BmpSettings(confirm=confirm)
        steps = list(Sam2Bmp(ToySegmenter(alarms=alarms), ToyPropagator(), at).forward(world))
        assert all(len(step.state.waiting) <= 2 * (2 * confirm - 1) for step in steps)
        return len(steps[-1].state.tallies)

    assert count(3) == 1 < count(1)


def test_a_stream_shows_an_object_when_it_is_confirmed_and_goes_on_from_a_file(tmp_path: Path) -> None:
    world = World([still(4, 4), moving(20, 24, 0, -1, first=3)], length=LENGTH)
    system = Sam2Bmp(ToySegmenter(), ToyPropagator(), Sam2BmpSettings(confirm=3))
    whole = [shown.ids for shown in system.stream(world)]
    assert whole == [()] * 2 + [(1,)] * 3 + [(1, 2)] * 7
    for cut in (1, 4):
        begun = system.stream(list(world)[:cut])
        assert [shown.ids for shown in begun] == whole[:cut] and len(begun.state.waiting) == 1
        save_memory(begun.state, tmp_path / "state")
        rest = system.stream(list(world)[cut:], load_memory(tmp_path / "state"))
        assert [shown.ids for shown in rest] == whole[cut:]


def test_votes_and_key_frames_of_the_frames_before_count() -> None:
    world = World([still(4, 4)], length=4)
    *_, last = Sam2Bmp(ToySegmenter(), ToyPropagator(), Sam2BmpSettings(confirm=3)).forward(world)
    assert (last.state.tallies[1].keys, last.state.tallies[1].masks) == (4, 4)
    assert last.state.tallies[1].votes == {0: pytest.approx(4 * 0.99)}


@pytest.mark.parametrize(("step", "same"), [(0, True), (5, True), (20, False)])
def test_what_moves_fast_is_one_newcomer_and_what_is_elsewhere_another(step: int, same: bool) -> None:
    """Masks that are 6 pixels wide and 5 apart hardly meet; boxes that grow by half their sides do."""
    waiting = (Newcomer({4: make_sighting(4, 2)}),)
    confirmed, rest = follow_newcomers(waiting, [make_sighting(4, 2 + step)], 5, frames=2)
    assert (sorted(confirmed), len(rest)) == (([0], 0) if same else ([], 2))


def test_neighbours_keep_to_themselves() -> None:
    left, right = make_sighting(4, 2), make_sighting(4, 8)
    confirmed, rest = follow_newcomers((Newcomer({0: left}), Newcomer({0: right})), [right, left], 1, frames=2)
    assert rest == () and {c: list(one.sightings.values()) for c, one in confirmed.items()} == {
        0: [right, right],
        1: [left, left],
    }


def test_on_the_command_line(tmp_path: Path) -> None:
    """Two squares, one found in all of five frames and one in a single frame: with `confirm=2` that one is no object."""
    clip, found = tmp_path / "clip", []
    clip.mkdir()
    for t in range(5):
        image = np.full((48, 64, 3), 90, np.uint8)
        image[8:24, 8:24], image[28:44, 40:56] = (200, 40, 40), (40, 200, 40)
        cv2.imwrite(str(clip / f"{t:05d}.png"), image)
        outlines = [[8, 8, 24, 8, 24, 24, 8, 24]] + ([[40, 28, 56, 28, 56, 44, 40, 44]] if t == 2 else [])
        found += [{"image_id": t, "category_id": 1, "segmentation": [line], "score": 0.99} for line in outlines]
    (tmp_path / "found.json").write_text(json.dumps(found))

    def count(out: str, *more: str) -> int:
        told = ("--segmenter", tmp_path / "found.json", "--propagator", "still", "--out", tmp_path / out, *more)
        done = call_masklet("run", clip, *told)
        assert done.returncode == 0, done.stderr
        [result] = (tmp_path / out).rglob("masklets.json")
        return len(VideoResult.load(result).masklets)

    assert (count("plain"), count("confirmed", "--set", "confirm=2")) == (2, 1)


def test_joined_on_the_command_line_what_was_lost_is_found(tmp_path: Path) -> None:
    """A square that jumps: masks that stay where they were lose it, and it is found again as an object of its own. The two
    are twins where `twin_iou` says so; one is dropped with its key frames, or they are joined with all of them.
    """
    clip, found = tmp_path / "clip", []
    clip.mkdir()
    for t in range(16):
        cv2.imwrite(str(clip / f"{t:05d}.png"), np.full((48, 64, 3), 90, np.uint8))
        x = 8 if t < 10 else 14  # 10 of 22 pixels in common
        if t < 8 or t >= 10:
            outline = [x, 8, x + 16, 8, x + 16, 24, x, 24]
            found.append({"image_id": t, "category_id": 1, "segmentation": [outline], "score": 0.99})
    (tmp_path / "found.json").write_text(json.dumps(found))

    def read(out: str, *more: str) -> list[int]:
        told = ("--segmenter", tmp_path / "found.json", "--propagator", "still", "--out", tmp_path / out)
        done = call_masklet("run", clip, *told, "--set", "twin_iou=0.4", *more)
        assert done.returncode == 0, done.stderr
        [result] = (tmp_path / out).rglob("masklets.json")
        return [len(m.key_frames) for m in VideoResult.load(result).masklets]

    assert (read("dropped"), read("joined", "--set", "twin_join=0.5")) == ([8], [14])
