"""What the command line builds: frames that follow each other, short sides, sets of data together, schedules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.ytvis import write_ytvis_truth
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.train.data.category_maps import map_categories
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.loop import loop
from masklet.weights.categories import OVIS, YTVIS19, YTVIS21

FRAMES, STEP = 40, 6  # of a video; grey levels from one to the next
NAMES = ("person", "car")


class Built(Exception):
    """Carries what would be trained."""


@pytest.fixture(scope="module", autouse=True)
def caught() -> Iterator[None]:
    def stop(*arguments: Any) -> int:
        raise Built(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "train", stop)
        yield


def build(*arguments: object) -> tuple[Any, Any, Any]:
    """The task, the plan and what is told of the run that the command builds."""
    result = CliRunner().invoke(app, ["train", *map(str, arguments), "-o", "out", "--set", "val_clips=1"])
    assert isinstance(result.exception, Built), result.output
    task, _, plan, about, *_ = result.exception.args
    return task, plan, about


def refuse(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["train", *map(str, arguments), "-o", "out"])
    assert result.exit_code == 2, result.exception
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def folder(caught: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose grey says which frame it is, stills, a segmenter, a tracker over it."""
    at = tmp_path_factory.mktemp("sets")
    (at / "videos/JPEGImages/v").mkdir(parents=True)
    mask = np.zeros((48, 80), bool)
    mask[8:40, 8:72] = True
    files = [f"v/{t:05d}.png" for t in range(FRAMES)]
    for t, file in enumerate(files):
        Image.fromarray(np.full((48, 80, 3), t * STEP, np.uint8)).save(at / "videos/JPEGImages" / file)
    seen = {t: Sighting(Rle.encode(torch.from_numpy(mask)), Source.DETECTED, 1.0, 0) for t in range(FRAMES)}
    truth = VideoResult("v", (48, 80), FRAMES, 6.0, (Masklet(1, seen, 0, 1.0),), NAMES, Provenance("truth"))
    write_ytvis_truth([truth], at / "videos/train.json", {"v": [Path(file).stem for file in files]})
    told = json.loads((at / "videos/train.json").read_text())
    told["videos"][0]["file_names"] = files
    (at / "videos/train.json").write_text(json.dumps(told))
    (at / "stills/annotations").mkdir(parents=True)  # as COCO unpacks
    (at / "stills/train2017").mkdir()
    Image.fromarray(np.full((48, 80, 3), 255, np.uint8)).save(at / "stills/train2017/a.jpg")
    box = {"image_id": 1, "segmentation": [[5.0, 5, 70, 5, 70, 40, 5, 40]], "area": 2275, "iscrowd": 0}
    categories = [{"id": 1, "name": "cup"}, {"id": 3, "name": "car"}]
    annotations = [{"id": n, "category_id": c, "bbox": [5, 5, 65, 35], **box} for n, c in ((1, 1), (2, 3))]
    images = [{"id": 1, "file_name": "a.jpg", "height": 48, "width": 80}]
    (at / "stills/annotations/instances_train2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    sizes = SmallMask2FormerSettings(32, 1, 2, 6, 2, 32, 32)
    save_small(at / "small.safetensors", create_small_mask2former(sizes, NAMES), sizes, (32, 64))
    made, _, _ = build("tracker", "--data", at / "videos", "--segmenter", at / "small.safetensors")
    made.save(at / "tracker.safetensors")
    return at


@pytest.fixture
def over(folder: Path) -> tuple[object, ...]:
    return ("--data", folder / "videos", "--segmenter", folder / "small.safetensors")


def numbers(clip: TrainingClip) -> list[int]:
    """Which frame of the video each is, by its grey: the most frequent level in the object."""
    found = []
    for image, mask in zip(clip.images[:, 0], clip.masks[0], strict=True):
        found.append(round(float(image[mask].float().median()) / STEP))
    return found


def draws(task: Any, count: int) -> list[TrainingClip]:
    return [task.draw(seed_item_generator(3, n)) for n in range(count)]


def test_a_tracker_sees_five_frames_that_follow_each_other(over: tuple[object, ...]) -> None:
    task, plan, _ = build("tracker", *over)
    seen = [numbers(clip) for clip in draws(task, 12)]
    assert all(np.diff(one).tolist() == [1] * 4 for one in seen) and len({one[0] for one in seen}) > 5
    assert (plan.clip_norm, plan.weight_decay, plan.milestones, plan.lr) == (0.01, 0.05, (2800,), 1e-4)


def test_a_refiner_sees_twenty_one_half_of_them_backward(folder: Path, over: tuple[object, ...]) -> None:
    task, *_ = build("refiner", *over, "--from", folder / "tracker.safetensors")
    steps = [set(np.diff(numbers(clip)).tolist()) for clip in draws(task, 16)]
    assert all(one in ({1}, {-1}) for one in steps) and 3 <= sum(one == {-1} for one in steps) <= 13
    assert len(numbers(draws(task, 1)[0])) == 21
    task, *_ = build("refiner", *over, "--from", folder / "tracker.safetensors", "--set", "reverse=0", "--frames", "8")
    assert all(np.diff(numbers(clip)).tolist() == [1] * 7 for clip in draws(task, 4))


def test_sam2_sees_frames_that_follow_each_other(folder: Path) -> None:
    task, *_ = build("propagator", "--data", folder / "videos", "--frames", "6", "--size", "48x80", "--device", "cpu")
    clip = task.source.clip(seed_item_generator(1, 0), 6)
    assert set(np.diff(numbers(clip)).tolist()) == {1}


def test_frames_of_a_reach_are_drawn_around_one(over: tuple[object, ...]) -> None:
    task, *_ = build("rocovis", *over, "--set", "reach=6")
    seen = [numbers(task.source.clip(seed_item_generator(3, n), 5)) for n in range(8)]
    assert all(one == sorted(one) and one[-1] - one[0] <= 12 for one in seen)
    assert any(np.diff(one).tolist() != [1] * 4 for one in seen)


# -- sizes


def test_the_size_of_the_weights_is_taken(over: tuple[object, ...]) -> None:
    task, _, about = build("tracker", *over)
    assert {tuple(clip.images.shape[2:]) for clip in draws(task, 4)} == {(32, 64)} and task.origin.side == 32
    assert about["size"] is None and [len(sha) for sha in about["weights"].values()] == [64]


def test_short_sides_are_drawn_for_each_clip(over: tuple[object, ...]) -> None:
    task, *_ = build("tracker", *over, "--set", "short=24,36,48", "--set", "crop=0")
    sizes = {tuple(clip.images.shape[2:]) for clip in draws(task, 12)}
    assert sizes == {(24, 40), (36, 60), (48, 80)} and task.origin.side == 36
    assert all(clip.images.shape[2:] == (36, 60) for clip in task.held_out)
    losses = [task.loss(0, seed_item_generator(3, n)) for n in range(2)]  # the segmenter looks at each in its own size
    assert all(loss.isfinite() for one in losses for loss in one.values())
    task, *_ = build("tracker", *over[:3], f"{over[3]}@64")
    assert {min(clip.images.shape[2:]) for clip in draws(task, 3)} == {64} and task.origin.side == 64


def test_a_batch_of_several_sizes_is_padded(folder: Path) -> None:
    at = ("segmenter", "--data", folder / "videos", "--from", folder / "small.safetensors", "--batch", 3)
    task, *_ = build(*at, "--set", "short=24,36,48", "--set", "crop=0")
    drawn = task.draw(seed_item_generator(0, 0))
    assert len({clip.images.shape[2] for clip in drawn}) > 1
    assert all(loss.isfinite() for loss in task.loss_of(0, drawn, seed_item_generator(0, 1)).values())


def test_one_size_and_short_sides_are_not_both(over: tuple[object, ...]) -> None:
    assert "--set short: is of clips whose short side is drawn" in refuse(
        "tracker", *over, "--size", "32x64", "--set", "short=24"
    )
    assert "--set crop: is of clips" in refuse("tracker", *over, "--set", "crop=0.5")
    below = ("tracker", "--data", "synthetic", "--segmenter", over[3])
    assert "have one size: give --size, height and width" in refuse(*below, "--set", "short=24,36")


# -- settings


def test_all_of_the_schedule_can_be_set(over: tuple[object, ...]) -> None:
    wanted = ("milestones=0.5,15", "weight_decay=0.1", "clip_norm=2", "warm_up=3", "validate_every=7", "workers=2")
    _, plan, _ = build("tracker", *over, "--steps", 20, *(w for s in wanted for w in ("--set", s)))
    assert (plan.milestones, plan.weight_decay, plan.clip_norm) == ((10, 15), 0.1, 2)
    assert (plan.warm_up, plan.validate_every, plan.workers) == (3, 7, 2)
    assert "there are 20 steps" in refuse("tracker", *over, "--steps", 20, "--set", "milestones=30")


def test_a_tracker_is_built_as_it_is_told(folder: Path, over: tuple[object, ...]) -> None:
    task, *_ = build("tracker", *over, "--set", "layers=3", "--set", "initial=zero", "--set", "attention=standard")
    at = task.module.settings
    assert (at.layers, at.initial, at.attention, at.width) == (3, "zero", "standard", 32)
    start = ("--from", folder / "tracker.safetensors", "--set", "layers=3")
    assert f"--set layers=3: --from {folder / 'tracker.safetensors'} has" in refuse("tracker", *over, *start)
    assert "tracker has no setting 'width'" in refuse("tracker", *over, "--set", "width=64")
    assert "setting layers = 'x' must be a whole number" in refuse("tracker", *over, "--set", "layers=x")


def test_a_batch_in_parts(folder: Path) -> None:
    """A batch of four in two parts: two items of two clips, whose gradients are one step's."""
    at = ("segmenter", "--data", folder / "videos", "--from", folder / "small.safetensors", "--batch", 4)
    task, plan, _ = build(*at, "--set", "accumulate=2")
    assert plan.batch == 2 and len(task.draw(seed_item_generator(0, 0))) == 2
    assert "the batch must be a multiple of accumulate" in refuse(*at, "--set", "accumulate=3")


def test_heads_are_computed_in_bfloat16_where_it_is_asked_for(over: tuple[object, ...]) -> None:
    task, plan, _ = build("tracker", *over, "--set", "precision=bfloat16")
    assert plan.precision == task.settings.precision == "bfloat16"
    kinds = set[torch.dtype]()
    task.module.class_embed.register_forward_hook(lambda module, seen, out: kinds.add(out.dtype))
    for step in (0, 3999):
        losses = task.loss(step, seed_item_generator(3, 0))
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert kinds == {torch.bfloat16}


# -- several sets


def test_stills_beside_videos_are_of_their_categories(folder: Path, over: tuple[object, ...]) -> None:
    """COCO's form as it unpacks; the cup is nothing; three of four clips are of stills."""
    task, *_ = build("tracker", "--data", folder / "stills", *over, "--set", "ratio=1,0.33")
    clips = draws(task, 24)
    white = [clip for clip in clips if clip.images.max() == 255]
    assert 12 <= len(white) <= 23 and all(clip.labels.tolist() == [1] for clip in white)
    assert all(clip.labels.tolist() == [0] for clip in clips if clip.images.max() < 255)
    assert "3 ratios for 2 sources" in refuse("tracker", "--data", folder / "stills", *over, "--set", "ratio=1,1,1")


COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "frisbee", "skis", "snowboard", "skateboard", "surfboard",
    "tennis racket", "cup", "mouse", "keyboard",
)  # fmt: skip


@pytest.mark.parametrize(
    ("target", "pairs", "left_out"),
    [
        (OVIS, {"person": "Person", "bus": "Vehical", "car": "Vehical", "motorcycle": "Motorcycle"}, {"cup", "skis"}),
        (YTVIS19, {"car": "sedan", "bicycle": "motorbike", "tennis racket": "tennis_racket"}, {"mouse", "bird", "bus"}),
        (YTVIS21, {"frisbee": "flying_disc", "car": "car", "bird": "bird", "skis": "snowboard"}, {"mouse", "sheep"}),
    ],
)
def test_categories_of_coco(target: tuple[str, ...], pairs: dict[str, str], left_out: set[str]) -> None:
    """A computer's mouse is no animal; several of COCO's are one."""
    found = map_categories(COCO, target)
    assert pairs.items() <= found.items() and not left_out & found.keys()
    assert set(found.values()) <= set(target)
    assert map_categories(("mouse",), target).get("mouse") == ("mouse" if "mouse" in target else None)
