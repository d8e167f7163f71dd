"""A run that ends at any frame goes on from its last checkpoint with the equal result, in every system."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from slot_toys import Clip, ToySlots
from test_dvis import online, refined
from test_rocovis import Toy as SlotModelToy
from toys import ToyPropagator, ToySegmenter, World, moving, square, still

import masklet
from masklet.core.checkpoint import STATE, Checkpoints
from masklet.core.frames import Video
from masklet.core.instances import Box
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Fork, Sighting, Source
from masklet.io.video.images import FramesInMemory
from masklet.systems.deva.online import Deva, DevaSettings
from masklet.systems.minvis import MinvisSettings, build_minvis_system
from masklet.systems.rocovis import RocovisSystemSettings, build_rocovis_system
from masklet.systems.sam2bmp import Sam2Bmp
from masklet.systems.sam2long import MemoryTree
from masklet.systems.track import Track

FRAMES = 8
PLACES = [moving(4, 0, 0, 2), moving(20, 24, 0, -1, first=3), still(26, 2)]


class Killed(Exception):
    """Stands for the end of a process."""


def make_world() -> World:
    return World(PLACES, length=FRAMES)


@cache
def draw_clip() -> list[np.ndarray]:
    """Two textured squares on a textured ground, the second from frame 3 on: real parts see something there."""
    noise = np.random.default_rng(0)
    ground, *things = (cv2.blur(noise.integers(0, 255, (96, 128, 3), np.uint8), (3, 3)) for _ in range(3))
    frames = []
    for t in range(FRAMES):
        frame = ground.copy()
        for thing, (y, x) in zip(things, ((12, 8 + 4 * t), (52, 84 - 3 * t))[: 1 + (t >= 3)], strict=False):
            frame[y : y + 32, x : x + 32] = thing[:32, :32] // 2 + 100
        frames.append(frame)
    return frames


def make_clip() -> Video:
    return FramesInMemory(draw_clip(), "clip", 10.0)


@cache
def load_part(name: str) -> Any:
    return masklet.load("sam2bmp", segmenter="motion", propagator=name, device="cpu").system


def build(name: str) -> tuple[Any, Callable[[], Video]]:
    """A system by name, and its video."""
    toys = ToySegmenter(blind=lambda t, o: (t + o) % 4 == 0), ToyPropagator()
    if name == "track":
        return Track(ToyPropagator(), {4: {1: square(4, 8)}, 6: {2: Box(21, 20, 27, 26)}}), make_world
    if name == "sam2bmp":
        return Sam2Bmp(*toys), make_world
    if name == "sam2bmp over sam2long":
        return Sam2Bmp(toys[0], MemoryTree(toys[1])), make_world
    if name == "deva":
        return Deva(*toys, DevaSettings(every=3)), make_world
    system = load_part(name.split()[-1])
    if name.startswith("track"):
        return Track(system.propagator, {3: {1: Box(20, 12, 52, 44)}, 5: {2: Box(69, 52, 101, 84)}}), make_clip
    return (Deva(system.segmenter, system.propagator) if "deva" in name else system), make_clip


NAMES = ("track", "sam2bmp", "sam2bmp over sam2long", "deva")


def write(result: VideoResult, folder: Path) -> bytes:
    result.save(folder / "result.json")
    return (folder / "result.json").read_bytes()


def run_to(system: Any, video: Video, folder: Path, steps: int, every: int = 1) -> None:
    """Runs until so many frames of both phases together were told of, and no further."""
    left = steps

    def watch(*_: object) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    with pytest.raises(Killed):
        system.run_with_checkpoints(video, watch, Checkpoints(folder, every))


def run_whole(system: Any, video: Video, folder: Path) -> tuple[bytes, list[str]]:
    """The result of an undisturbed run, and the phase of each of its steps."""
    told: list[str] = []
    return write(system.run(video, lambda phase, *_: told.append(phase)), folder), told


@pytest.mark.parametrize("name", NAMES)
def test_a_run_cut_at_any_frame_goes_on_with_the_equal_result(name: str, tmp_path: Path) -> None:
    system, make = build(name)
    whole, steps = run_whole(system, make(), tmp_path)
    assert set(steps) == {"forward", "backward"}
    phases = set()
    for cut in range(1, len(steps)):
        run_to(system, make(), tmp_path / str(cut), cut)
        again = Checkpoints(tmp_path / str(cut), 1)
        phases.add(again.saved.phase if again.saved else "")
        assert write(system.run_with_checkpoints(make(), lambda *_: None, again), tmp_path) == whole, cut
    assert phases >= {"forward", "backward"}


@pytest.mark.parametrize(("name", "cut"), [("sam2bmp affinity", 5), ("track sam2long:nano", -1)])
def test_real_parts_whose_last_digit_depends_on_how_they_are_computed(name: str, cut: int, tmp_path: Path) -> None:
    """One in each phase."""
    system, make = build(name)
    whole, steps = run_whole(system, make(), tmp_path)
    run_to(system, make(), tmp_path / "c", cut % len(steps))
    again = Checkpoints(tmp_path / "c", 1)
    assert again.saved and again.saved.phase == ("backward" if cut < 0 else "forward")
    assert write(system.run_with_checkpoints(make(), lambda *_: None, again), tmp_path) == whole


SLOTS = {
    "minvis": lambda: build_minvis_system(ToySlots()),
    "minvis in windows": lambda: build_minvis_system(ToySlots(), MinvisSettings(window=3)),
    "dvis": online,
    "dvis in clips": lambda: refined(clip=2),
    "rocovis": lambda: build_rocovis_system(SlotModelToy(), RocovisSystemSettings(window=2)),
}


@pytest.mark.parametrize("name", SLOTS)
def test_systems_of_slots_go_on_within_their_first_pass(name: str, tmp_path: Path) -> None:
    system = SLOTS[name]()
    whole, steps = run_whole(system, Clip(), tmp_path)
    gone_on = 0
    for cut in range(1, len(steps)):
        run_to(system, Clip(), tmp_path / str(cut), cut)
        again = Checkpoints(tmp_path / str(cut), 1)
        gone_on += again.saved is not None
        windows = system.settings.window or 1  # which must be cut as before, for the last digit
        assert again.saved is None or again.saved.frame % windows == 0
        assert write(system.run_with_checkpoints(Clip(), lambda *_: None, again), tmp_path) == whole, cut
    assert gone_on > len(steps) / 2


def test_a_refiner_of_the_whole_video_says_that_it_writes_none(tmp_path: Path) -> None:
    told: list[str] = []
    refined().run_with_checkpoints(Clip(), lambda *_: None, Checkpoints(tmp_path / "c", 1, told.append))
    assert told == [
        "no checkpoints are written: the refiner looks at the whole video at once; set clip, such as clip=30"
    ]


def test_a_run_that_is_cut_again_and_again_loses_nothing(tmp_path: Path) -> None:
    system, make = build("sam2bmp")
    whole, done = write(system.run(make()), tmp_path), []
    for _ in range(20):
        again = Checkpoints(tmp_path / "c", 2)
        done.append((again.saved.phase, again.saved.frame) if again.saved else None)
        try:
            run_to(system, make(), tmp_path / "c", 3, every=2)
        except pytest.fail.Exception:
            break
    assert done[:5] == [None, ("forward", 2), ("forward", 4), ("forward", 6), ("forward", 8)]
    assert (
        write(system.run_with_checkpoints(make(), lambda *_: None, Checkpoints(tmp_path / "c", 2)), tmp_path) == whole
    )


@pytest.mark.parametrize(
    "harm", ["state cut", "state flipped", "book cut", "book flipped", "book gone", "another value"]
)
def test_a_damaged_checkpoint_is_passed_over_in_a_sentence(harm: str, tmp_path: Path) -> None:
    system, make = build("sam2bmp")
    whole, folder = write(system.run(make()), tmp_path), tmp_path / "c"
    run_to(system, make(), folder, 8)
    path = folder / (STATE if "state" in harm else "book")
    data = path.read_bytes()
    if "cut" in harm:
        path.write_bytes(data[: len(data) // 2])
    elif "flipped" in harm:
        path.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    elif "gone" in harm:
        path.unlink()
    else:
        masklet.core.memory.save_memory({"x": 1}, folder / STATE)
    told: list[str] = []
    again = Checkpoints(folder, 1, told.append)
    assert again.saved is None
    [sentence] = told
    assert sentence.startswith("the checkpoint cannot be used (") and sentence.endswith("; the video is begun anew")
    assert write(system.run_with_checkpoints(make(), lambda *_: None, again), tmp_path) == whole


def test_what_is_not_decided_between_pathways_is_saved_along(tmp_path: Path) -> None:
    """The winner of the last frame was second in the frames before the checkpoint."""
    masks = [Rle.encode(square(2 * n, 4)) for n in range(6)]
    seen = [Sighting(mask, Source.FORWARD, n / 10) for n, mask in enumerate(masks)]
    first = [Fork(0, (seen[0], seen[1]), (0, 0)), Fork(1, (seen[2], seen[3]), (0, 1))]
    last = Fork(2, (seen[4], seen[5]), (1, 0))
    checkpoints = Checkpoints(tmp_path / "c", 1)
    book = checkpoints.open_book()
    for fork in first:
        book.branch(1, fork)
    checkpoints.save("forward", 2, None)
    again = Checkpoints(tmp_path / "c", 1).open_book()
    again.branch(1, last)
    again.settle()
    assert [again.pages[1][t] for t in range(3)] == [seen[1], seen[3], seen[4]]


def test_what_was_written_after_the_checkpoint_does_not_count(tmp_path: Path) -> None:
    """The book goes on growing between checkpoints; a kill may leave half a record."""
    system, make = build("sam2bmp")
    whole, folder = write(system.run(make()), tmp_path), tmp_path / "c"
    run_to(system, make(), folder, 6)
    with (folder / "book").open("ab") as file:
        file.write(b"half a record")
    assert write(system.run_with_checkpoints(make(), lambda *_: None, Checkpoints(folder, 1)), tmp_path) == whole


def test_a_memory_that_cannot_be_saved_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    class Own(ToyPropagator):
        def empty(self) -> Any:
            return Untagged()

    class Untagged(type(ToyPropagator().empty())):  # type: ignore[misc]
        pass

    told: list[str] = []
    system = Sam2Bmp(ToySegmenter(), Own())
    checkpoints = Checkpoints(tmp_path / "c", 1, told.append)
    result = system.run_with_checkpoints(World([], length=4), lambda *_: None, checkpoints)
    assert result.length == 4
    [sentence] = told
    assert sentence.startswith("no checkpoints are written: a memory cannot hold ")


def test_a_disk_that_is_full_costs_the_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    system, make = build("sam2bmp")
    whole, told = write(system.run(make()), tmp_path), list[str]()
    checkpoints = Checkpoints(tmp_path / "c", 5, told.append)
    monkeypatch.setattr("os.fsync", full)
    result = system.run_with_checkpoints(make(), lambda *_: None, checkpoints)
    monkeypatch.undo()
    assert write(result, tmp_path) == whole
    assert told and all(t.startswith("no checkpoint was written at frame ") and "No space left" in t for t in told)


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    system, make = build("track")
    assert isinstance(system, masklet.core.protocols.ResumableSystem)
    system.run_with_checkpoints(make(), lambda *_: None, Checkpoints())
    assert not list(tmp_path.iterdir())


def test_tensors_come_back_as_they_lay_in_memory(tmp_path: Path) -> None:
    """The order of the axes decides which routine computes with them, and so the last digit."""
    value = (torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.randn(3, 4).T, torch.randn(6)[::2])
    masklet.core.memory.save_memory(value, tmp_path / "m")
    back = masklet.core.memory.load_memory(tmp_path / "m", device=None)
    assert all(torch.equal(a, b) for a, b in zip(value, back, strict=True))
    assert [b.stride() for b in back[:2]] == [a.stride() for a in value[:2]]
