"""`masklet track --from`: a result gone on with, by the function and by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from toys import ToyPropagator, World, moving, square
from typer.testing import CliRunner

import masklet.cli.run as run
from masklet.cli import app
from masklet.core.errors import InputError
from masklet.core.instances import Point
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Sighting, Source
from masklet.session.changed_masklets import change_masklet
from masklet.session.correction import Correction
from masklet.systems.track import Track

WORLD = World([moving(4, 0, 0, 1), moving(20, 24, 0, -1)], length=12)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "toy"
    folder.mkdir()
    for t in range(len(WORLD)):
        Image.fromarray(WORLD.frame(t).image).save(folder / f"{t:03d}.png")
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result in which object 1 is wrong from frame 5 on."""
    result = Track(ToyPropagator(), {0: {1: WORLD.truth(0)[0], 2: WORLD.truth(0)[1]}}).run(WORLD)
    wrong = {t: Sighting(Rle.encode(square(26, 20)), Source.FORWARD, 0.9) for t in range(5, 12)}
    folder = tmp_path_factory.mktemp("results") / "toy"
    folder.mkdir()
    change_masklet(result, 1, wrong).save(folder / "masklets.json")
    return folder


def go_on(monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str]:
    monkeypatch.setattr(run, "make_propagator", lambda *given: ToyPropagator())
    got = CliRunner().invoke(app, ["track", *map(str, args), "--no-overlay", "--quiet"])
    return got.exit_code, got.output


def is_true(result: VideoResult, id: int, frames: range) -> bool:
    [masklet] = [m for m in result.masklets if m.id == id]
    return all(torch.equal(masklet.sightings[t].mask.decode(), WORLD.truth(t)[id - 1]) for t in frames)


def test_a_prompt_corrects_one_object_and_leaves_the_others(
    clip: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = VideoResult.load(begun / "masklets.json")
    code, told = go_on(monkeypatch, clip, "-o", tmp_path, "--from", begun, "--prompt", "8:1:point=9,6")
    assert code == 0, told
    after = VideoResult.load(tmp_path / "toy" / "masklets.json")
    assert is_true(after, 1, range(12)) and after.masklets[1] == before.masklets[1]
    assert after.provenance.edits == ("prompt 1 8 point=9,6", "propagate 1 5 12")
    assert after.provenance.system == "track" and after.provenance.settings["corrected_by"] == "toypropagator"
    recipe = json.loads((tmp_path / "toy" / "recipe.json").read_text())
    assert recipe["system"] == "Correction" and len(recipe["from"]) == 64
    again, _ = go_on(monkeypatch, clip, "-o", tmp_path, "--from", begun, "--prompt", "8:1:point=9,6")
    assert again == 0, "the same is there already"
    other, told = go_on(monkeypatch, clip, "-o", tmp_path, "--from", begun, "--prompt", "8:1:point=9,6", "--only", "7:")
    assert other == 2 and "only was" in told


def test_only_some_frames_and_a_new_object(
    clip: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = VideoResult.load(begun / "masklets.json")
    prompts = "--prompt", "8:1:point=9,6", "--prompt", "7:5:point=18,22"
    code, told = go_on(monkeypatch, clip, "-o", tmp_path, "--from", begun, *prompts, "--only", "7:10")
    assert code == 0, told
    after = VideoResult.load(tmp_path / "toy" / "masklets.json")
    assert [m.id for m in after.masklets] == [1, 2, 5] and list(after.masklets[2].sightings) == [7, 8, 9]
    assert is_true(after, 1, range(7, 10))
    kept = {t: s for t, s in after.masklets[0].sightings.items() if not 7 <= t < 10}
    assert kept == {t: s for t, s in before.masklets[0].sightings.items() if not 7 <= t < 10}


def test_a_result_of_chosen_frames_is_gone_on_with_over_these(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = "--stride", "2", "--start", "2", "--max-side", "40"
    code, told = go_on(monkeypatch, clip, "-o", tmp_path / "a", *chosen, "--prompt", "0:1:point=4,4")
    assert code == 0, told
    first, told = go_on(monkeypatch, clip, "-o", tmp_path / "b", "--from", tmp_path / "a", "--prompt", "4:7:point=2,9")
    assert first == 0, told
    again, told = go_on(
        monkeypatch, clip, "-o", tmp_path / "c", "--from", tmp_path / "a", *chosen, "--prompt", "4:7:point=2,9"
    )
    assert again == 0, told
    before, after, same = (VideoResult.load(tmp_path / f"{name}/toy/masklets.json") for name in "abc")
    assert (before.length, [m.id for m in after.masklets]) == (5, [1, 7])
    assert after.masklets == same.masklets and after.masklets[0] == before.masklets[0]


def test_a_result_of_run_is_gone_on_with(tmp_path: Path) -> None:
    """Through `masklet run`, whose objects no prompt has made."""
    folder = tmp_path / "street"
    folder.mkdir()
    rng = np.random.default_rng(0)
    back = cv2.resize(rng.integers(40, 120, (12, 16, 3), np.uint8), (128, 96), interpolation=cv2.INTER_NEAREST)
    tile = cv2.resize(rng.integers(140, 255, (8, 8, 3), np.uint8), (32, 32), interpolation=cv2.INTER_NEAREST)
    for t in range(5):
        image = back.copy()
        image[30:62, 10 + 5 * t : 42 + 5 * t] = tile
        Image.fromarray(image).save(folder / f"{t:03d}.png")
    found = tmp_path / "found"
    quiet = "--no-overlay", "--quiet"
    first = ["run", folder, "-o", found, "--segmenter", "motion", "--propagator", "affinity", *quiet]
    assert CliRunner().invoke(app, list(map(str, first))).exit_code == 0
    before = VideoResult.load(found / "street" / "masklets.json")
    new = max((m.id for m in before.masklets), default=0) + 1
    prompt = f"2:{new}:box=20,30,52,62"
    more = ["track", folder, "-o", tmp_path / "out", "--from", found, "--propagator", "affinity", "--prompt", prompt]
    got = CliRunner().invoke(app, [*map(str, more), *quiet])
    assert got.exit_code == 0, got.output
    after = VideoResult.load(tmp_path / "out" / "street" / "masklets.json")
    assert after.masklets[:-1] == before.masklets and after.masklets[-1].id == new
    assert len(after.masklets[-1].sightings) == 5 and after.provenance.system == before.provenance.system
    assert set(before.provenance.weights) <= set(after.provenance.weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "3:9", "--prompt", "4:1:point=3,3"], "give that by --from"),
        (["--from", "{begun}", "--only", "9:3", "--prompt", "4:1:point=3,3"], "START:STOP"),
        (["--from", "{begun}", "--only", ":", "--prompt", "4:1:point=3,3"], "START:STOP"),
        (["--from", "{begun}", "--only", "6:9", "--prompt", "4:1:point=3,3"], "frames 6 to 8"),
        (["--from", "{begun}", "--prompt", "40:1:point=3,3"], "no frame 40"),
        (["--from", "{begun}", "--prompt", "4:9:outside=3,3"], "points outside alone"),
        (["--from", "{begun}"], "no prompt"),
        (["--from", "{begun}", "--end", "9", "--prompt", "4:1:point=3,3"], "it has 12 frames, toy 9"),
        (["--from", "{begun}/none.json", "--prompt", "4:1:point=3,3"], "none.json"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(
    options: list[str], words: str, clip: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = go_on(monkeypatch, clip, "-o", tmp_path / "out", *(o.format(begun=begun) for o in options))
    assert code == 2 and words in " ".join(told.split()), told
    assert not (tmp_path / "out" / "toy").exists()


def test_results_are_not_replaced_by_what_is_made_of_them(
    clip: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = go_on(
        monkeypatch, clip, "-o", begun.parent, "--from", begun, "--prompt", "8:1:point=9,6", "--overwrite"
    )
    assert code == 2 and "choose another folder" in " ".join(told.split())


def test_the_function_refuses_prompts_in_other_frames(begun: Path) -> None:
    result = VideoResult.load(begun / "masklets.json")
    with pytest.raises(InputError, match="not among the frames 3 to 5"):
        Correction(ToyPropagator(), {8: {1: Point(9, 6)}}, result, 3, 6).run(WORLD)
