"""`masklet train image-predictor`: from stills to weights, and what it says of anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.instances import Clicks, Point
from masklet.models.nano.image_predictor import (
    ImagePredictor,
    create_prompt_network,
    load_image_predictor,
    read_prompt_network,
    save_prompt_network,
)
from masklet.train.data.prompt_crops import PromptCropSampling
from masklet.training import RECIPES, TUNED, choose_training

TINY = ("--steps", "2", "--batch", "2", "--seed", "3")
TINIEST = ("--steps", "1", "--batch", "1", "--seed", "3")


@pytest.fixture(scope="module", autouse=True)
def few_held_out() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("masklet.training.PROMPTED", 1)
        yield


def called(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", "image-predictor", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def write_stills(folder: Path, side: int = 40) -> Path:
    """Two pictures with a bright square each, in COCO's form."""
    (folder / "images").mkdir(parents=True)
    noise = np.random.default_rng(0)
    images, annotations = [], []
    for n in range(2):
        picture = noise.integers(0, 80, (80, 100, 3), dtype=np.uint8)
        picture[20 : 20 + side, 30 : 30 + side] = (220, 200, 40)
        Image.fromarray(picture).save(folder / "images" / f"{n}.jpg")
        images.append({"id": n, "file_name": f"{n}.jpg", "height": 80, "width": 100})
        outline = [30.0, 20, 30 + side, 20, 30 + side, 20 + side, 30, 20 + side]
        annotations.append({"id": n + 1, "image_id": n, "category_id": 7, "segmentation": [outline], "iscrowd": 0})
    told = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "a"}]}
    (folder / "annotations.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stills(tmp_path_factory.mktemp("sets") / "stills")


def test_it_writes_a_network_that_draws_masks(stills: Path, tmp_path: Path) -> None:
    code, said = called("--data", stills, "--out", tmp_path / "run", *TINY)
    assert code == 0, said
    assert "2 steps are done" in said and f"validation: on {stills}, which is trained on, too" in said
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "run.json", "log.jsonl", "checkpoint.pt", "weights.safetensors", "curve.png",
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    scores = [line["validation"] for line in lines if "validation" in line]
    assert [*scores[-1]] == ["box", "1 click", "3 clicks"] and all(0 <= v <= 1 for v in scores[-1].values())
    assert {"mask", "hypotheses", "quality"} <= lines[0].keys()
    predictor = ImagePredictor(read_prompt_network(tmp_path / "run/weights.safetensors"))
    answer = predictor.predict(np.zeros((30, 40, 3), np.uint8), Clicks((Point(20, 15),)))
    assert answer.logits.shape == (3, 30, 40)


def test_several_folders_and_a_validation_of_its_own(stills: Path, tmp_path: Path) -> None:
    other = write_stills(tmp_path / "other")
    code, said = called("--data", stills, "--data", other, "--val", other, "--out", tmp_path / "run", *TINIEST)
    assert code == 0 and "which is trained on, too" not in said and "last validation: box" in said
    assert json.loads((tmp_path / "run/run.json").read_text())["val"] == [str(other)]


def test_it_goes_on_from_a_file_or_from_the_packaged_one(stills: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    net = create_prompt_network(9)
    save_prompt_network(start, net)
    for given, begun in ((start, net), ("nano", load_image_predictor().net)):
        out = tmp_path / Path(given).stem
        code, said = called("--data", stills, "--from", given, "--out", out, "--lr", "1e-6", *TINIEST)
        assert code == 0, said
        after = read_prompt_network(out / "weights.safetensors")
        for (name, one), (_, other) in zip(begun.named_parameters(), after.named_parameters(), strict=True):
            assert torch.allclose(one, other, atol=2e-3), name  # files are float16
        moved = [
            not torch.equal(a.half().float(), b) for a, b in zip(begun.parameters(), after.parameters(), strict=True)
        ]
        assert any(moved)
    assert not any(p.requires_grad for p in load_image_predictor().net.parameters())  # what others use stays as it was


def test_what_was_trained_before_is_trained_on_gently() -> None:
    assert choose_training("image-predictor", "") is RECIPES["image-predictor"]
    assert choose_training("image-predictor", "nano") is TUNED
    assert TUNED.lr < RECIPES["image-predictor"].lr and TUNED.steps < RECIPES["image-predictor"].steps


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--data", "synthetic"),
            "--data synthetic: these are generated clips, and the image predictor learns from stills",
        ),
        (("--data", "synthetic:heavy"), "--data synthetic:heavy: these are generated clips"),
        (
            ("--data", "nowhere"),
            "--data nowhere: no such folder, and the image predictor learns from stills; give a folder",
        ),
        (("--size", "96x160"), "--size 96x160: the image predictor looks at crops of 192x192; leave it out"),
        (("--frames", "4"), "--frames 4: the image predictor looks at single images; leave it out"),
        (("--from", "gone.safetensors"), "--from gone.safetensors: no such file; give nano, or weights"),
        (("--set", "row=masks"), "image-predictor has no setting 'row'; there are: weight_decay, clip_norm"),
        (("--val", "synthetic"), "--val synthetic: these are generated clips"),
        (("--val", "nowhere"), "--val nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], said: str, stills: Path, tmp_path: Path) -> None:
    data = () if "--data" in arguments else ("--data", stills)
    code, output = called(*data, *arguments, "--out", tmp_path / "run")
    assert code == 2 and f"masklet: {said}" in output and output.count("masklet:") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("folder", "said"),
    [("JPEGImages", "these are videos"), ("panomasksRGB", "these are videos"), ("", "no images/ in it")],
)
def test_folders_of_something_else(folder: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "data" / folder).mkdir(parents=True)
    code, output = called("--data", tmp_path / "data", "--out", tmp_path / "run")
    assert code == 2 and f"masklet: --data {tmp_path}/data: {said}, and the image predictor learns" in output


def test_stills_of_small_things_alone(tmp_path: Path) -> None:
    small = write_stills(tmp_path / "small", 15)
    code, output = called("--data", small, "--out", tmp_path / "run", *TINY)
    assert code == 2 and f"masklet: --data {small}: no object of {PromptCropSampling().least} pixels or more" in output


def test_what_can_be_trained_but_is_too_small_to_validate_on(tmp_path: Path) -> None:
    code, output = called("--data", write_stills(tmp_path / "small", 30), "--out", tmp_path / "run", *TINIEST)
    assert code == 0 and "last validation: nothing to validate on" in output


def test_weights_of_something_else(stills: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.safetensors"
    file.write_text("no weights")
    code, output = called("--data", stills, "--from", file, "--out", tmp_path / "run")
    assert code == 2 and f"masklet: {file}: damaged" in output


def test_the_size_that_it_has_may_be_said(stills: Path, tmp_path: Path) -> None:
    code, said = called(
        "--data", stills, "--size", "192x192", "--out", tmp_path / "run", "--steps", "1", "--batch", "1"
    )
    assert code == 0, said
