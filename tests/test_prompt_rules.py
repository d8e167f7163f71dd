"""What prompts may be, and what they do: on the command line, in the library, and in each propagator."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Point
from masklet.core.result import VideoResult
from masklet.systems.prompts import check_prompts

H, W, FRAMES = 96, 128, 4
PROPAGATORS = ("affinity", "nano", "sam2long:nano")


def disk(x: float, y: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[:H, :W]
    return (ys - y) ** 2 + (xs - x) ** 2 < radius**2


def red(t: int) -> np.ndarray:
    """What the user means."""
    return disk(38 + 2 * t, 50, 20)


def blue(t: int) -> np.ndarray:
    """What touches it and moves along."""
    return disk(74 + 2 * t, 50, 15) & ~red(t)


@cache
def clip() -> np.ndarray:
    ground = np.random.default_rng(0).integers(60, 120, (H // 4, W // 4, 3)).repeat(4, 0).repeat(4, 1)
    frames = np.stack([ground.astype(np.uint8)] * FRAMES)
    for t, frame in enumerate(frames):
        frame[red(t)], frame[blue(t)] = (220, 40, 40), (40, 60, 220)
    return frames


def outside(x: float, y: float) -> Point:
    return Point(x, y, inside=False)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def mask_at(result: VideoResult, t: int, id: int = 1) -> np.ndarray:
    """An object's mask in a frame, empty where it is not seen."""
    [found] = [m for m in result.masklets if m.id == id]
    return np.asarray(found.sightings[t].mask.decode()) if t in found.sightings else np.zeros((H, W), bool)


@cache
def load_model(propagator: str) -> masklet.Model:
    return masklet.load(propagator=propagator, device="cpu")


def track(prompts: dict[int, dict[int, Any]], propagator: str = "affinity") -> VideoResult:
    return load_model(propagator).track(clip(), prompts)


# -- what is refused, and what is not


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({0: {1: outside(9, 9)}}, "object 1 in frame 0: its first prompt has points outside alone, which mark nothing"),
        ({0: {1: Clicks((outside(9, 9), outside(5, 5)))}}, "object 1 in frame 0: its first prompt has points outside"),
        ({2: {1: Point(40, 50)}, 1: {1: outside(9, 9)}}, "object 1 in frame 1: its first prompt has points outside"),
        ({0: {2: Point(40, 50)}, 1: {1: outside(9, 9)}}, "object 1 in frame 1: its first prompt"),
        ({0: {1: Clicks(())}}, "object 1 in frame 0: no point, box or mask in it"),
        ({0: {1: Clicks((), Box(1, 1, 9, 9), torch.ones(H, W, dtype=torch.bool))}}, "a box and a mask both say where"),
        ({0: {1: Clicks((Point(500, 5),))}}, r"Point\(x=500, y=5, inside=True\) lies outside the 128x96 video"),
        ({0: {1: Clicks((outside(5, 500), Point(5, 5)))}}, "lies outside the 128x96 video"),
        ({0: {1: Clicks((), Box(200, 5, 300, 9))}}, "needs x0 < x1"),
        ({0: {1: Clicks((Point(5, 5),), None, torch.ones(9, 9, dtype=torch.bool))}}, "the mask is 9x9"),
        ({0: {1: Clicks((Point(5, 5),), None, torch.zeros(H, W, dtype=torch.bool))}}, "the mask is empty"),
    ],
)
def test_the_library_refuses(prompts: dict[int, dict[int, Any]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        track(prompts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as a folder, and masks."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "clip").mkdir()
    for t, frame in enumerate(clip()):
        Image.fromarray(frame).save(folder / "clip" / f"{t:05d}.png")
    Image.fromarray((red(0) | blue(0)).astype(np.uint8) * 255).save(folder / "both.png")
    Image.fromarray(red(0).astype(np.uint8) * 255).save(folder / "red.png")
    return folder


def command(folder: Path, out: Path, *prompts: str) -> tuple[int, str]:
    given = [word for prompt in prompts for word in ("--prompt", prompt.format(folder=folder))]
    arguments = [folder / "clip", "-o", out, "--propagator", "affinity", "--no-overlay", *given]
    result = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (("0:1:outside=9,9",), "masklet: prompt for object 1 in frame 0: its first prompt has points outside alone"),
        (("0:1:outside=9,9", "0:1:outside=5,5"), "prompt for object 1 in frame 0: its first prompt has points outside"),
        (("1:1:outside=9,9", "2:1:point=40,50"), "prompt for object 1 in frame 1: its first prompt has points outside"),
        (("0:1:box=1,1,9,9", "0:1:box=2,2,9,9"), "the object has a box in this frame already; give one of them"),
        (("0:1:{folder}/red.png", "0:1:{folder}/both.png"), "the object has a mask in this frame already; give one"),
        (("0:1:box=1,1,9,9", "0:1:{folder}/red.png"), "the object has a box in this frame already; give one"),
    ],
)
def test_the_command_refuses(prompts: tuple[str, ...], said: str, folder: Path, tmp_path: Path) -> None:
    code, output = command(folder, tmp_path / "out", *prompts)
    assert code == 2 and said in output and output.count("masklet: ") == 1
    assert not (tmp_path / "out" / "clip").exists()


def test_a_mask_is_one_however_it_is_given(folder: Path, tmp_path: Path) -> None:
    """In a file of prompts and among clicks without clicks it is believed as it is, as an option's mask is."""
    (tmp_path / "prompts.json").write_text(json.dumps([{"frame": 0, "id": 1, "mask": str(folder / "red.png")}]))
    given = {"option": ["--prompt", f"0:1:{folder / 'red.png'}"], "file": ["--prompts", str(tmp_path / "prompts.json")]}
    masks = []
    for name, words in given.items():
        common = [
            "track",
            str(folder / "clip"),
            "-o",
            str(tmp_path / name),
            "--no-overlay",
            "-q",
            "--propagator",
            "still",
        ]
        done = CliRunner().invoke(app, [*common, *words])
        assert done.exit_code == 0, done.output
        masks.append(mask_at(VideoResult.load(tmp_path / name / "clip" / "masklets.json"), 1))
    mask = torch.from_numpy(red(0))
    told = masklet.track(clip(), {0: {1: Clicks((), None, mask)}}, propagator="still")
    assert all((one == red(0)).all() for one in (*masks, mask_at(told, 1)))


def test_the_command_takes_a_mask_that_points_correct(folder: Path, tmp_path: Path) -> None:
    prompts = (
        "0:1:{folder}/both.png",
        "0:1:outside=80,50",
        "0:2:box=18,30,59,71",
        "0:2:point=38,50",
        "2:2:outside=9,9",
    )
    code, output = command(folder, tmp_path / "out", *prompts)
    assert code == 0, output
    result = VideoResult.load(tmp_path / "out" / "clip" / "masklets.json")
    assert [m.id for m in result.masklets] == [1, 2]
    assert not mask_at(result, 0)[50, 80] and mask_at(result, 0)[red(0)].mean() > 0.5
    assert mask_at(result, 0, 2)[50, 38] and iou(mask_at(result, 0, 2), red(0)) > 0.4
    said = " ".join(result.provenance.settings["prompts"])
    assert "0:1:mask Point(x=80.0, y=50.0, inside=False)" in said and "0:2:Box(x0=18.0" in said


# -- what they do


def test_the_order_in_which_prompts_are_written_decides_nothing() -> None:
    box, click = Box(1, 1, 3, 3), Point(2, 2)
    told = check_prompts({3: {2: box}, 0: {9: box, 1: click}}, masklet.open_video(clip()))
    assert [(t, list(marks)) for t, marks in told.items()] == [(0, [1, 9]), (3, [2])]


@cache
def corrected(propagator: str) -> VideoResult:
    """The user marks too much in the first frame, and in the second clicks on what is too much."""
    return track({0: {1: red(0) | blue(0)}, 1: {1: outside(80, 50)}}, propagator)


@pytest.mark.parametrize("propagator", PROPAGATORS)
def test_a_click_outside_takes_away_what_is_there(propagator: str) -> None:
    found = mask_at(corrected(propagator), 1)
    assert not found[50, 80]
    assert iou(found, red(1)) > iou(red(1) | blue(1), red(1)) - 0.05
    before = mask_at(corrected(propagator), 0)
    assert iou(before, red(0) | blue(0)) > 0.97  # it corrects from its frame on


@pytest.mark.parametrize("propagator", PROPAGATORS)
def test_what_was_taken_away_stays_away(propagator: str) -> None:
    """The place moves on with the clip."""
    for t in (2, 3):
        found = mask_at(corrected(propagator), t)
        assert not found[50, 80 + 2 * (t - 1)]
        assert iou(found, red(t)) > iou(red(t) | blue(t), red(t)) - 0.05


@pytest.mark.parametrize("propagator", PROPAGATORS)
def test_a_mask_that_corrects_is_learnt(propagator: str) -> None:
    result = track({0: {1: red(0) | blue(0)}, 1: {1: red(1)}}, propagator)
    assert (mask_at(result, 1) == red(1)).all()
    assert min(iou(mask_at(result, t), red(t)) for t in (2, 3)) > 0.85


@pytest.mark.parametrize("propagator", PROPAGATORS)
def test_clicks_outside_on_what_is_right_change_nothing(propagator: str) -> None:
    result = track({0: {1: red(0)}, 1: {1: Clicks((outside(80, 50), outside(110, 20)))}}, propagator)
    for t in range(FRAMES):
        assert iou(mask_at(result, t), red(t)) > 0.95
    assert result.masklets[0].key_frames == {0, 1}


def test_an_object_that_others_are_marked_beside_is_left_alone() -> None:
    result = track({0: {1: red(0), 2: blue(0)}, 1: {2: outside(9, 9)}})
    assert min(iou(mask_at(result, t), red(t)) for t in range(FRAMES)) > 0.95
    assert min(iou(mask_at(result, t, 2), blue(t)) for t in range(FRAMES)) > 0.9
