"""`masklet train`: from data to weights that `masklet run` loads, and what it says of bad input."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from masklet.builtins import TRAININGS
from masklet.cli import app
from masklet.core.frames import Frame
from masklet.io.formats.panoptic import write_panoptic
from masklet.models.mask2former.segmenter import load_mask2former
from masklet.models.query_video.heads import load_refiner, load_tracker
from masklet.models.query_video.slot_weights import load_slot_model
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.dataset_writer import make_clip_result, write_dataset, write_frames
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.loop import loop
from masklet.train.tasks.segmenter import draw_held_out_clips
from masklet.training import RECIPES

TINY = ("--size", "32x64", "--steps", "2", "--batch", "2", "--seed", "3")


@pytest.fixture(scope="module", autouse=True)
def few_held_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "masklet.training.draw_held_out_clips", lambda source, clips, frames: draw_held_out_clips(source, 2, frames)
        )
        yield


def called(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with a square each, in COCO's form."""
    folder = tmp_path_factory.mktemp("stills")
    (folder / "images").mkdir()
    noise = np.random.default_rng(0)
    images, annotations = [], []
    for n in range(2):
        Image.fromarray(noise.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / "images" / f"{n}.jpg")
        images.append({"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 50})
        box = [5.0, 5, 25, 5, 25, 25, 5, 25]
        one = {"id": n + 1, "image_id": n, "category_id": n + 7, "segmentation": [box], "area": 400, "iscrowd": 0}
        annotations.append({**one, "bbox": [5, 5, 20, 20]})
    told = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "a"}, {"id": 8, "name": "b"}],
    }
    (folder / "annotations.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "videos"
    write_dataset(SyntheticClips(SyntheticSettings(size=(32, 64))), folder, 2, 3, 0)
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("segmenter") / "run"
    code, said = called("segmenter", "--data", "synthetic", "--out", out, *TINY)
    assert code == 0 and "2 steps are done" in said and "last validation: AP" in said
    return out / "weights.safetensors"


# -- what it trains


def test_the_names_are_those_of_the_trainings() -> None:
    assert TRAININGS.names == tuple(RECIPES)
    assert all(TRAININGS[name]("") is RECIPES[name] for name in RECIPES)


def test_a_segmenter_is_one_that_run_loads(segmenter: Path) -> None:
    loaded = load_mask2former(str(segmenter), torch.device("cpu"))
    assert loaded.categories == SyntheticClips().categories and loaded.shortest == 32
    frame = Frame(0, np.zeros((32, 64, 3), np.uint8))
    assert len(loaded.segment(None, [frame], [])[0]) == 1
    assert {p.name for p in segmenter.parent.iterdir()} == {
        "run.json", "log.jsonl", "checkpoint.pt", "weights.safetensors", "curve.png",
    }  # fmt: skip


@pytest.fixture(scope="module")
def vipseg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One generated video in VIPSeg's form."""
    folder = tmp_path_factory.mktemp("vipseg")
    clip = SyntheticClips(SyntheticSettings(size=(32, 64))).clip(seed_item_generator(0, 0), 3)
    write_panoptic([make_clip_result(clip, "v", SyntheticClips().categories)], folder / "written")
    write_frames(clip, folder / "images" / "v")
    (folder / "written" / "pred.json").rename(folder / "panoptic_gt_VIPSeg_train.json")
    (folder / "written" / "pan_pred").rename(folder / "panomasksRGB")
    return folder


@pytest.mark.parametrize("form", ["stills", "videos", "vipseg"])
def test_a_segmenter_of_a_folder(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    code, said = called("segmenter", "--data", request.getfixturevalue(form), "--out", tmp_path / "run", *TINY)
    assert code == 0, said


def test_a_tracker_and_a_refiner_over_it(segmenter: Path, tmp_path: Path, videos: Path) -> None:
    over = ("--segmenter", segmenter, "--frames", 2, *TINY)
    code, said = called("tracker", "--data", videos, "--data", "synthetic", "--out", tmp_path / "tracker", *over)
    assert code == 0, said
    file = tmp_path / "tracker" / "weights.safetensors"
    assert load_tracker(file)[0].settings.width == 64
    code, said = called("refiner", "--data", "synthetic", "--out", tmp_path / "refiner", "--from", file, *over)
    assert code == 0, said
    assert load_refiner(tmp_path / "refiner" / "weights.safetensors")[1] == SyntheticClips().categories


def test_rocovis_of_a_row(segmenter: Path, tmp_path: Path) -> None:
    over = ("--segmenter", segmenter, "--frames", 2, *TINY)
    code, said = called("rocovis", "--data", "synthetic", "--out", tmp_path / "run", "--set", "row=direct", *over)
    assert code == 0, said
    model = load_slot_model(tmp_path / "run" / "weights.safetensors", "rocovis", torch.device("cpu"))
    assert model.categories == SyntheticClips().categories


def test_other_categories_get_a_head_of_their_own(segmenter: Path, stills: Path, tmp_path: Path) -> None:
    code, said = called("segmenter", "--data", stills, "--from", segmenter, "--out", tmp_path / "run", *TINY)
    assert code == 0, said
    assert load_mask2former(str(tmp_path / "run/weights.safetensors"), torch.device("cpu")).categories == ("a", "b")


def test_it_goes_on_and_says_when_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("segmenter", "--data", "synthetic", "--out", tmp_path / "run", *TINY)
    with monkeypatch.context() as patched:
        real = loop.take_training_step

        def one_step(*arguments: object) -> object:
            signal.raise_signal(signal.SIGTERM)
            return real(*arguments)  # type: ignore[arg-type]

        patched.setattr(loop, "take_training_step", one_step)
        code, said = called(*command)
    assert code == 1 and "stopped after step 1 of 2; the same command goes on from there" in said
    code, said = called(*command)
    assert code == 0 and "2 steps are done" in said
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]


def test_quiet_says_nothing(tmp_path: Path) -> None:
    assert called("segmenter", "--data", "synthetic", "--out", tmp_path / "run", *TINY, "--quiet") == (0, "")


def test_the_help_names_the_settings() -> None:
    _, said = called("--help")
    for setting in ("begin=", "row=queries", "genvis", "short=240,360,480", "ratio=", "over", "clip_norm"):
        assert setting in said, setting


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("segmenter", "--data", "nowhere"), "--data nowhere: no such folder; give one, or synthetic"),
        (("segmenter", "--data", "synthetic:dense"), "--data synthetic:dense: no such folder; give one, or synthetic"),
        (("segmenter", "--data", "synthetic", "--size", "96"), "--size 96: give height x width"),
        (("segmenter", "--data", "synthetic", "--size", "16x64"), "--size 16x64: give height x width"),
        (("segmenter", "--data", "synthetic", "--lr", "-1"), "--lr -1: give a learning rate above 0"),
        (("segmenter", "--data", "synthetic", "--lr", "nan"), "--lr nan: give a learning rate above 0"),
        (("segmenter", "--data", "synthetic", "--device", "tpu"), "no device 'tpu'"),
        (("segmenter", "--data", "synthetic", "--from", "gone.safetensors"), "gone.safetensors: no such file"),
        (("tracker", "--data", "synthetic"), "this is trained over a segmenter: give --segmenter, a file"),
        (("rocovis", "--data", "synthetic"), "this is trained over a segmenter: give --segmenter, a file"),
        (("rocovis", "--data", "synthetic", "--set", "row"), "--set row: write it as NAME=VALUE"),
        (
            ("rocovis", "--data", "synthetic", "--set", "row=5"),
            "setting row = 5 must be one of uvla++, masks, direct, queries",
        ),
        (
            ("tracker", "--data", "synthetic", "--set", "row=5"),
            "tracker has no setting 'row'; there are: given, labels, over, begin, noise",
        ),
        (("refiner", "--data", "synthetic"), "a refiner needs the tracker that it refines: give --from, a file"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, output = called(*arguments, "--out", tmp_path / "run")
    assert code == 2 and f"masklet: {said}" in output
    assert not (tmp_path / "run").exists()


def test_a_folder_of_neither_form(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    code, output = called("segmenter", "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 2 and "has videos, but none of annotations.json" in output
    (tmp_path / "JPEGImages").rmdir()
    code, output = called("segmenter", "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 2 and "neither a set of stills" in output


def test_categories_must_go_together(stills: Path, segmenter: Path, tmp_path: Path) -> None:
    code, output = called("segmenter", "--data", stills, "--val", "synthetic", "--out", tmp_path / "run", *TINY)
    assert code == 2 and "--val: has other categories than --data (a, b, ...)" in output
    code, output = called("tracker", "--data", stills, "--segmenter", segmenter, "--out", tmp_path / "run", *TINY)
    assert code == 2 and "train with a segmenter of these categories" in output


def test_another_run_in_the_folder_is_kept(segmenter: Path) -> None:
    before = segmenter.read_bytes()
    code, output = called("segmenter", "--data", "synthetic:heavy", "--out", segmenter.parent, *TINY)
    assert code == 2 and "holds a run with data ['synthetic'], not ['synthetic:heavy']" in output
    code, output = called("segmenter", "--data", "synthetic", "--out", segmenter.parent, *TINY, "--batch", "3")
    assert code == 2 and "holds a run with clips 2, not 3" in output
    assert segmenter.read_bytes() == before
