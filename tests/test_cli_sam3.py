"""SAM 3 on the command line, a slim one of drawn weights: every kind of prompt, and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call_masklet
from models.test_sam3_tracker import clip
from PIL import Image
from small_sam3 import SIDE, save_small_sam3

from masklet.core.result import VideoResult

FRAMES = 4
QUIET = ("--quiet", "--no-overlay", "--device", "cpu")
SCORES = ("--set", "segmenter.threshold=0.2", "--set", "conf=0.2")  # of drawn weights, low


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sam3(tmp_path_factory.mktemp("weights") / "sam3")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of frames, with a mask of the first blob beside it."""
    place = tmp_path_factory.mktemp("clip")
    (place / "frames").mkdir()
    for frame in clip(FRAMES):
        Image.fromarray(frame.image).save(place / "frames" / f"{frame.index:03}.png")
    mask = (clip(1)[0].image == (230, 60, 60)).all(2)
    Image.fromarray(mask.astype(np.uint8) * 255).save(place / "mask.png")
    return place / "frames"


def run(*words: object) -> dict[str, Any]:
    """The recipe of the one video that a command wrote, and its result."""
    done = call_masklet(*words, *QUIET)
    assert done.returncode == 0, done.stderr
    out = Path(str(words[words.index("--out") + 1]))
    [place] = [path.parent for path in out.glob("*/masklets.json")]
    return {
        "recipe": json.loads((place / "recipe.json").read_text()),
        "result": VideoResult.load(place / "masklets.json"),
    }


def test_prompts_of_objects(folder: Path, source: Path, tmp_path: Path) -> None:
    """A point, one outside, a box, a mask, an object that comes later, and a correction."""
    prompts = ("0:1:point=27,35", "0:1:outside=90,20", "0:2:box=66,60,99,90", f"0:3:{source.parent / 'mask.png'}")
    later = ("2:4:point=70,75", "3:1:point=45,36", "3:1:outside=100,100")
    told = [word for text in (*prompts, *later) for word in ("--prompt", text)]
    made = run("track", source, "--out", tmp_path, "--propagator", f"sam3:{folder}", *told)
    assert made["recipe"]["parts"]["propagator"].startswith(f"sam3, {SIDE} px")
    found = {m.id: m for m in made["result"].masklets}
    assert {*found} == {1, 2, 3, 4} and all(len(m.sightings) == FRAMES for m in found.values())
    given = np.array(Image.open(source.parent / "mask.png")) > 0
    assert np.array_equal(found[3].sightings[0].mask.decode().numpy(), given)


@pytest.mark.parametrize("name", ["sam2long:sam3", "dam:sam3", "samurai:sam3"])
def test_memories_by_name(folder: Path, source: Path, tmp_path: Path, name: str) -> None:
    words = ("--prompt", "0:1:point=27,35", "--propagator", f"{name}:{folder}")
    made = run("track", source, "--out", tmp_path, *words)
    assert f"sam3, {SIDE} px" in made["recipe"]["parts"]["propagator"]


@pytest.mark.parametrize(
    ("given", "categories"),
    [
        (("--exemplar", "0:blob:{mask}"), ("blob",)),
        (
            ("--text", "dog. red car.", "--exemplar", "2:dog:box=20,18,55,53", "--exemplar", "0:blob:{mask}"),
            ("dog", "red car", "blob"),
        ),
    ],
    ids=["shown", "named and shown"],
)
def test_prompts_of_kinds(
    folder: Path, source: Path, tmp_path: Path, given: tuple[str, ...], categories: tuple[str, ...]
) -> None:
    told = [word.format(mask=source.parent / "mask.png") for word in given]
    made = run("run", source, "--out", tmp_path, "--segmenter", f"sam3:{folder}", "--propagator", "still", *told, *SCORES)  # fmt: skip
    assert made["result"].categories == categories and made["result"].masklets
    assert ", ".join(categories) in made["recipe"]["parts"]["segmenter"]


def test_the_best_preset_takes_it(folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(folder.parent))
    made = run("run", source, "--out", tmp_path, "--preset", "best", "--text", "dog", *SCORES)
    parts = made["recipe"]["parts"]
    assert parts["segmenter"].startswith(f"sam3, {SIDE} px") and parts["propagator"].startswith(f"sam3, {SIDE} px")
    assert [*made["recipe"]["weights"]] == ["sam3/model.safetensors"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--exemplar", "0:box=1,2,3,4"), "write it as FRAME:NAME:box=x0,y0,x1,y1 or FRAME:NAME:mask.png"),
        (("--exemplar", "0:dog:box=1,2,3"), "4 numbers are needed after '='"),
        (("--exemplar", "0:dog:gone.png"), "--exemplar: gone.png"),
        (("--exemplar", "9:dog:box=1,2,30,40"), "exemplar of dog in frame 9"),
        (("--exemplar", "0:dog:box=1,2,30,40", "--segmenter", "nano"), "nano: cannot be shown what to find; take sam3"),
        ((), "say what to find, such as --text 'dog. red car.', or show it by --exemplar"),
    ],
    ids=["form", "numbers", "file", "frame", "other segmenter", "nothing"],
)
def test_what_is_said_of_bad_exemplars(
    folder: Path, source: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    segmenter = () if "--segmenter" in words else ("--segmenter", f"sam3:{folder}")
    done = call_masklet("run", source, "--out", tmp_path, *segmenter, "--propagator", "still", *words, *QUIET)
    assert done.returncode in (1, 2) and said in " ".join(done.stderr.split())


def test_an_exemplar_is_of_one_video(folder: Path, source: Path, tmp_path: Path) -> None:
    shown = ("--exemplar", "0:dog:box=1,2,30,40", "--segmenter", f"sam3:{folder}", "--propagator", "still")
    done = call_masklet("run", source, source.parent / "mask.png", "--out", tmp_path, *shown, *QUIET)
    assert done.returncode == 2 and "--exemplar: shows what is in one video, and there are 2" in done.stderr
