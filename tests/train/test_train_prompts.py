"""Training the image predictor: what is drawn of stills, clicks on errors, losses, and that it learns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from elsewhere import GPU, Elsewhere, WithGpu
from PIL import Image
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Point
from masklet.core.rle import Rle
from masklet.models.nano.image_predictor import ImagePredictor, create_prompt_network, save_prompt_network
from masklet.nn.nanodet import NanoDetNetwork
from masklet.nn.prompt_network import PromptNetwork
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.framing import ClipView, join_affines
from masklet.train.data.prompt_crops import (
    PromptCrop,
    PromptCrops,
    PromptCropSampling,
    StillsShare,
    apply_image_degradation,
    compute_inverse_affine,
    crop_object,
    draw_click,
    draw_correction,
    draw_mistaken_mask,
    draw_near_view,
    draw_shaken_box,
    draw_wide_view,
    find_deepest_pixel,
    make_near_crop,
    measure_depth,
)
from masklet.train.data.stills import Stills
from masklet.train.loop.loop import TrainingPlan, train
from masklet.train.prompt_scores import (
    PromptedObject,
    click_on_error,
    measure_best_iou,
    read_objects,
    score_prompts,
    select_objects,
)
from masklet.train.tasks.prompts import (
    PromptTask,
    choose_shown_hypothesis,
    compute_hypothesis_iou,
    compute_hypothesis_losses,
    compute_prompt_losses,
    sample_wide_logits,
)

H, W = 120, 160
SMALL = PromptCropSampling(side=96, least=400, boxes=0.45, corrections=0.15, whole=0.4, pasted=0.25)
DEPTHS = PromptCropSampling().depths


def ellipse(x: int, y: int, a: int, b: int, angle: int = 0, size: tuple[int, int] = (H, W)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (x, y), (a, b), angle, 0, 360, 1, cv2.FILLED)
    return mask.view(bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of two bright things each, one of them small, one picture of a thing that is too small."""
    folder = tmp_path_factory.mktemp("stills")
    (folder / "images").mkdir()
    images, annotations = [], []
    shapes = [(ellipse(50 + 8 * n, 60, 32, 22, 30 * n), ellipse(125, 30 + 10 * n, 12, 14)) for n in range(3)]
    shapes.append((ellipse(40, 40, 5, 5), ellipse(100, 80, 6, 6)))
    for n, masks in enumerate(shapes):
        image = np.random.default_rng(n).integers(0, 70, (H, W, 3), dtype=np.uint8)
        for k, mask in enumerate(masks):
            image[mask] = (230, 190 - 60 * n, 60 + 150 * k)
            code = {"size": [H, W], "counts": Rle.encode(torch.from_numpy(mask)).counts.decode()}
            one = {"id": 10 * n + k + 1, "image_id": n + 1, "category_id": k + 1, "iscrowd": 0, "segmentation": code}
            annotations.append(one)
        Image.fromarray(image).save(folder / "images" / f"{n}.png")
        images.append({"id": n + 1, "file_name": f"{n}.png", "height": H, "width": W})
    told = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "egg"}, {"id": 2, "name": "part"}],
    }
    (folder / "annotations.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def stills(folder: Path) -> Stills:
    return Stills(folder)


def crops_of(stills: Stills, sampling: PromptCropSampling = SMALL, left_out: tuple[str, ...] = ()) -> PromptCrops:
    return PromptCrops([StillsShare(stills, 1.0, left_out)], sampling)


def drawn(crops: PromptCrops, count: int, seed: int = 0) -> list[PromptCrop]:
    return [crops.crop(seed_item_generator(seed, n)) for n in range(count)]


def value_at(mask: np.ndarray, point: Point) -> float:
    """The mask where a point lies; places count from the corner of the first pixel."""
    return float(mask[int(point.y), int(point.x)])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


# -- what is drawn


def test_every_prompt_is_of_the_object_that_is_to_be_drawn(stills: Stills) -> None:
    kinds = {"box": 0, "wrong": 0, "whole": 0, "near": 0}
    for crop in drawn(crops_of(stills), 80):
        assert crop.image.shape == (96, 96, 3) and crop.mask.shape == (96, 96)
        assert crop.mask.min() >= 0 and crop.mask.max() <= 1 and (crop.mask > 0.5).any()
        if crop.box:
            kinds["box"] += 1
            assert not crop.points and crop.earlier is None and crop.wide is None
            ys, xs = np.nonzero(crop.mask > 0.5)
            own, told = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]), crop.box
            wrong = np.abs(np.array([told.x0, told.y0, told.x1, told.y1]) - own)
            assert (wrong <= 2 * SMALL.jitter * np.tile(own[2:] - own[:2], 2) + 1e-3).all()
            continue
        [point] = crop.points
        if crop.earlier is not None:
            kinds["wrong"] += 1
            assert (value_at(crop.mask, point) > 0.5) == point.inside
            assert crop.earlier.dtype == np.float32 and crop.earlier.min() >= 0 and crop.earlier.max() < 1.001
            continue
        assert point.inside
        if crop.wide is None:
            kinds["whole"] += 1
            assert value_at(crop.mask, point) > 0.5
        else:
            kinds["near"] += 1
            assert value_at(crop.wide.mask, crop.wide.points[0]) > 0.5
            y, x = int(point.y), int(point.x)  # a pixel of the wide view is several here
            assert crop.mask[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].max() > 0.5
    assert all(count >= 5 for count in kinds.values()), kinds


def test_the_picture_shows_what_the_mask_says(stills: Stills) -> None:
    plain = replace(SMALL, light=0.0, worse=0.0, pasted=0.0)
    for crop in drawn(crops_of(stills, plain), 20):
        bright = crop.image[..., 0] > 150  # both objects are
        if crop.mask.sum() > 1000:
            assert bright[crop.mask > 0.9].mean() > 0.97
            dark = crop.image.max(2) <= 90
            assert not dark[crop.mask > 0.9].any()


def test_objects_too_small_or_left_out_are_never_asked_for(stills: Stills) -> None:
    share = StillsShare(stills, 1.0)
    assert [share.large_objects(n, 400) for n in range(4)] == [[0, 1], [0, 1], [0, 1], []]
    assert [share.large_objects(n, 100) for n in range(4)][3] == [1]
    crops = crops_of(stills, replace(SMALL, boxes=1.0, corrections=0.0, pasted=0.0), ("part",))
    for crop in drawn(crops, 12):  # the eggs are the larger ones, and no blue
        assert crop.image[crop.mask > 0.9][:, 2].mean() < 140


def test_a_set_without_a_large_object_is_refused_by_name(stills: Stills) -> None:
    with pytest.raises(InputError, match="mine: no object of 400 pixels or more"):
        PromptCrops([StillsShare(stills, 1.0), StillsShare(stills, 1.0, ("egg", "part"), "mine")], SMALL)
    with pytest.raises(InputError, match="no object of 90000 pixels"):
        crops_of(stills, replace(SMALL, least=90000))


def test_sets_are_drawn_in_their_shares(stills: Stills) -> None:
    few = Stills(Path(stills._listed[0].path).parent.parent, wanted=lambda image: image["id"] == 1)
    crops = PromptCrops([StillsShare(stills, 1.0), StillsShare(few, 3.0)], SMALL)
    random = seed_item_generator(0, 0)
    first = few.image(0)
    share = np.mean([np.array_equal(crops._object(random)[0], first) for _ in range(200)])
    assert 0.72 < share < 0.93  # all of the second one's and a third of the first one's


def test_the_generator_alone_decides(stills: Stills) -> None:
    task = PromptTask(small_network(), crops_of(stills), dict, lambda path: None, crops=4)
    one, same, other = (task.draw(seed_item_generator(seed, 0)) for seed in (1, 1, 2))
    assert one.rounds == same.rounds and len(one.crops) == 4
    for a, b in zip(one.crops, same.crops, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
        assert (a.points, a.box, a.wide is None) == (b.points, b.box, b.wide is None)
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(one.crops, other.crops, strict=True))


def test_as_many_rounds_as_their_chances_say(stills: Stills) -> None:
    always = crops_of(stills, replace(SMALL, rounds=(0.0, 0.0, 1.0)))
    task = PromptTask(small_network(), always, dict, lambda path: None, crops=1)
    assert {task.draw(seed_item_generator(n, 0)).rounds for n in range(5)} == {2}


def test_an_object_of_another_picture_may_lie_over_it(stills: Stills) -> None:
    crops = crops_of(stills, replace(SMALL, pasted=1.0))
    picture, masks, n = crops._object(seed_item_generator(0, 0))
    changed = 0
    for seed in range(8):
        mixed, left = crops._pasted(seed_item_generator(0, seed, 7), np.zeros_like(picture), masks, n)
        over = mixed.any(2)
        changed += bool(over.any())
        gone = masks[n] & ~left[n]
        assert mixed.dtype == np.uint8 and left[n].sum() >= 0.5 * masks[n].sum()
        assert over[gone].mean() > 0.9 if gone.any() else True
    assert changed >= 5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pictures_are_worsened_as_often_as_said(share: float) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for seed in range(9):
        worse = apply_image_degradation(seed_item_generator(0, seed), picture, share)
        assert worse.shape == picture.shape and worse.dtype == np.uint8
        assert np.array_equal(worse, picture) == (share == 0)


# -- views


def views_of(mask: np.ndarray, seed: int) -> tuple[ClipView, ClipView]:
    random = seed_item_generator(3, seed)
    return draw_near_view(random, mask, SMALL), draw_wide_view(random, mask.shape, mask, SMALL)


@pytest.mark.parametrize("seed", range(8))
def test_a_near_view_holds_the_object_and_a_wide_one_most_of_the_picture(seed: int) -> None:
    mask = ellipse(50, 60, 32, 22, 20)
    near, wide = views_of(mask, seed)
    shown = crop_object(np.zeros((H, W, 3), np.uint8), mask, near)[1].sum() / np.linalg.det(near.affine[:, :2])
    assert abs(shown) / mask.sum() > 0.97
    whole = np.abs(1 / np.linalg.det(wide.affine[:, :2])) * 96**2
    assert 0.6**2 <= whole / W**2 <= 1.06**2


def test_an_affine_taken_back_is_none() -> None:
    for seed in range(4):
        near, _ = views_of(ellipse(50, 60, 32, 22), seed)
        assert np.allclose(join_affines(near.affine, compute_inverse_affine(near.affine)), [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("seed", range(12))
def test_beside_a_wide_view_the_click_is_on_the_same_content(seed: int) -> None:
    mask = ellipse(50, 60, 32, 22, 20)
    ys, xs = np.mgrid[:H, :W].astype(np.float32)
    picture = np.stack([xs, ys, np.zeros_like(xs)], 2).astype(np.uint8)  # every pixel says where it is
    near_view, wide_view = views_of(mask, seed)
    wide = PromptCrop(*crop_object(picture, mask, wide_view), (), None, None)
    if not (wide.mask > 0.5).any():
        return
    click = draw_click(seed_item_generator(0, seed), wide.mask > 0.5, DEPTHS)
    near = make_near_crop(
        replace(wide, points=(click,)),
        PromptCrop(*crop_object(picture, mask, near_view), (), None, None),
        near_view,
        wide_view,
    )
    assert near is not None and near.wide is not None and near.to_wide is not None
    [point] = near.points
    here, there = near.image[int(point.y), int(point.x)], near.wide.image[int(click.y), int(click.x)]
    assert np.abs(here.astype(int) - there)[:2].max() <= 2  # pixels of the picture
    back = near.to_wide[:, :2] @ [point.x, point.y] + near.to_wide[:, 2]
    assert back == pytest.approx([click.x, click.y])


def test_a_click_that_the_near_view_does_not_show_is_no_prompt() -> None:
    wide = PromptCrop(np.zeros((96, 96, 3), np.uint8), np.ones((96, 96), np.float32), (Point(90, 90),), None, None)
    near = replace(wide, points=())
    identity = ClipView((96, 96), np.array([[1.0, 0, 0], [0, 1, 0]]))
    moved = ClipView((96, 96), np.array([[2.0, 0, 0], [0, 2, 0]]))
    assert make_near_crop(wide, near, identity, identity) is not None
    assert make_near_crop(wide, near, moved, identity) is None
    assert make_near_crop(wide, replace(near, mask=np.zeros((96, 96), np.float32)), identity, identity) is None


def test_a_wide_answer_lies_in_the_near_view_where_the_object_is(stills: Stills) -> None:
    crops = crops_of(stills, replace(SMALL, boxes=0.0, corrections=0.0, whole=0.0))
    found = []
    for crop in drawn(crops, 25):
        assert crop.wide is not None
        soft = torch.from_numpy(cv2.resize(crop.wide.mask, (48, 48), interpolation=cv2.INTER_AREA))  # stride 2
        moved = sample_wide_logits(soft, crop)
        assert moved.shape == (96, 96)
        if (crop.wide.mask > 0.5).sum() > 100:
            found.append(iou(moved.numpy() > 0.5, crop.mask > 0.5))
    assert len(found) > 15 and min(found) > 0.6, found


def test_where_the_wide_view_does_not_reach_there_is_no_answer() -> None:
    shifted = np.array([[1.0, 0, -24], [0, 1, 0]])
    crop = PromptCrop(np.zeros((96, 96, 3), np.uint8), np.ones((96, 96), np.float32), (), None, None, None, shifted)
    moved = sample_wide_logits(torch.ones(48, 48), crop)
    assert (moved[:, :23] == 0).all() and (moved[2:-2, 26:-2] == 1).all()


# -- prompts


def test_depth_counts_from_the_border_of_region_and_picture() -> None:
    region = np.zeros((12, 12), bool)
    region[2:7, :5] = True
    depth = measure_depth(region)
    assert (depth > 0).tolist() == region.tolist()
    assert depth[2, 2] == depth[4, 0] == pytest.approx(1, abs=0.1) and depth[4, 2] == pytest.approx(3, abs=0.2)
    assert find_deepest_pixel(region) == Point(2.5, 4.5)


@pytest.mark.parametrize("region", ["pixel", "line", "whole", "ring"])
def test_a_click_lies_in_the_region(region: str) -> None:
    mask = np.zeros((40, 40), bool)
    if region == "ring":
        mask = ellipse(20, 20, 15, 15, size=(40, 40)) & ~ellipse(20, 20, 8, 8, size=(40, 40))
    else:
        mask[{"pixel": (7, 30), "line": (7, slice(5, 30)), "whole": ...}[region]] = True
    for seed in range(20):
        assert mask[int((p := draw_click(seed_item_generator(0, seed), mask, DEPTHS)).y), int(p.x)] and p.inside


def test_a_shaken_box_is_wrong_by_little() -> None:
    boxes = [draw_shaken_box(seed_item_generator(0, n), (10, 20, 50, 40), 0.1) for n in range(50)]
    wrong = np.array([[b.x0 - 10, b.x1 - 50, b.y0 - 20, b.y1 - 40] for b in boxes]) / [40, 40, 20, 20]
    assert np.abs(wrong).max() <= 0.2 and 0.06 < wrong.std() < 0.12
    assert draw_shaken_box(seed_item_generator(0, 0), (1, 2, 5, 9), 0.0) == Box(1, 2, 5, 9)


def oval(x: int, y: int, a: int, b: int) -> np.ndarray:
    """In a crop."""
    return ellipse(x, y, a, b, size=(128, 128))


def test_corrections_lie_in_the_error_and_say_which_it_is() -> None:
    true = oval(50, 60, 32, 22)
    founds = {
        "moved": np.roll(true, 9, 1),
        "more": true | oval(110, 60, 15, 15),
        "less": true & ~oval(40, 60, 15, 15),
        "none": np.zeros_like(true),
    }
    for name, found in founds.items():
        signs = set()
        for seed in range(30):
            point = draw_correction(seed_item_generator(0, seed), found, true, DEPTHS)
            assert point is not None
            at = int(point.y), int(point.x)
            assert true[at] != found[at] and bool(true[at]) == point.inside
            signs.add(point.inside)
        assert signs == {"moved": {True, False}, "more": {False}, "less": {True}, "none": {True}}[name]
    assert draw_correction(seed_item_generator(0, 0), true, true, DEPTHS) is None


def test_the_larger_error_is_corrected_more_often() -> None:
    true = oval(50, 60, 32, 22)
    found = (true & ~oval(50, 60, 20, 15)) | oval(110, 60, 5, 5)
    points = [draw_correction(seed_item_generator(0, seed), found, true, DEPTHS) for seed in range(60)]
    assert 0.85 < np.mean([point is not None and point.inside for point in points]) < 1


def test_masks_are_mistaken_in_five_ways_and_none_crashes() -> None:
    one, whole, thin = np.zeros((48, 48), bool), np.ones((48, 48), bool), np.zeros((48, 48), bool)
    one[20, 30], thin[5] = True, True
    plain = ellipse(24, 20, 12, 8, size=(48, 48))
    for true in (one, whole, thin, plain):
        for others in ([true], [true, whole], [one, plain]):
            for seed in range(40):
                wrong = draw_mistaken_mask(seed_item_generator(0, seed), true, others)
                assert wrong.dtype == bool and wrong.shape == true.shape
    wrongs = [draw_mistaken_mask(seed_item_generator(1, seed), plain, [plain]) for seed in range(60)]
    assert np.mean([not np.array_equal(wrong, plain) for wrong in wrongs]) > 0.7
    assert any((wrong & ~plain).any() for wrong in wrongs) and any((plain & ~wrong).any() for wrong in wrongs)
    assert 0.4 < np.mean([iou(wrong, plain) for wrong in wrongs]) < 0.95


# -- losses


def square(*at: int, side: int = 16) -> Tensor:
    mask = torch.zeros(side, side)
    mask[at[0] : at[1], at[2] : at[3]] = 1
    return mask


def test_iou_of_answers() -> None:
    truth = torch.stack([square(0, 4, 0, 4), square(0, 0, 0, 0)])
    logits = torch.stack([torch.stack([square(0, 4, 0, 4), square(2, 6, 0, 4)]), torch.zeros(2, 16, 16)]) - 0.5
    assert compute_hypothesis_iou(logits, truth).tolist() == [[1, pytest.approx(8 / 24)], [0, 0]]


def test_the_right_mask_costs_least() -> None:
    truth = square(4, 12, 4, 12)[None]
    tried = torch.stack([truth[0], square(6, 14, 4, 12), square(0, 4, 0, 4), 1 - truth[0]])
    costs = compute_hypothesis_losses(8 * tried[None] - 4, truth)[0]
    assert costs.tolist() == sorted(costs.tolist()) and costs[0] < 0.1 < costs[1] and costs[3] > 4
    by_hand = np.log(1 + np.exp(-4)) + 1 - (2 * 64 * 0.982014 + 1) / (64 * 0.982014 + 192 * 0.017986 + 64 + 1)
    assert float(costs[0]) == pytest.approx(by_hand, abs=1e-4)


def test_losses_ask_the_first_answer_always_and_of_the_others_the_best() -> None:
    truth = square(4, 12, 4, 12)[None]
    right, wrong = 8 * truth - 4, 4 - 8 * truth
    cheap, dear = (float(compute_hypothesis_losses(one[None], truth)) for one in (right, wrong))
    logits = torch.cat([right, wrong, right, wrong])[None]
    exact = torch.logit(compute_hypothesis_iou(logits, truth), eps=1e-6)
    sure, doubtful = (compute_prompt_losses(logits, exact, truth, torch.tensor([doubt])) for doubt in (False, True))
    for found, weight in ((sure, 0.1), (doubtful, 1.0)):
        assert float(found["mask"]) == pytest.approx(cheap)
        assert float(found["hypotheses"]) == pytest.approx(weight * (cheap + 0.1 * (cheap + 2 * dear) / 3), rel=1e-4)
        assert float(found["quality"]) == pytest.approx(0, abs=1e-6)
    worse = compute_prompt_losses(torch.cat([wrong] * 4)[None], exact, truth, torch.tensor([True]))
    assert worse["mask"] > doubtful["mask"] and worse["hypotheses"] > doubtful["hypotheses"]
    assert worse["quality"] > 0.1


def test_the_answer_that_is_shown() -> None:
    logits = torch.arange(8.0).view(2, 4, 1, 1)
    quality = torch.tensor([[9.0, 1, 3, 2], [9, 1, 3, 2]])
    assert choose_shown_hypothesis(logits, quality, torch.tensor([True, False])).flatten().tolist() == [2, 4]


# -- the task


def small_network(seed: int = 0) -> PromptNetwork:
    return create_prompt_network(seed)


def task_of(stills: Stills, sampling: PromptCropSampling = SMALL, crops: int = 2) -> PromptTask:
    net = small_network()
    return PromptTask(net, crops_of(stills, sampling), dict, lambda path: save_prompt_network(path, net), crops)


def test_what_the_network_is_shown(stills: Stills) -> None:
    """A box or a click in the first round, its own answer and one more click in every other one."""
    task = task_of(stills, replace(SMALL, rounds=(0.0, 0.0, 1.0), again=0.0), crops=6)
    shown: list[Tensor] = []
    task.module.register_forward_pre_hook(lambda _, told: shown.append(told[1].clone()))
    batch = task.draw(seed_item_generator(4, 0))
    task.loss_of(0, batch, seed_item_generator(4, 1))
    *wide, first, second, third = shown
    assert len(wide) == any(crop.wide for crop in batch.crops)
    for n, crop in enumerate(batch.crops):
        assert bool(first[n, 2].any()) == (crop.box is not None)
        assert bool(first[n, 3].any()) == (crop.earlier is not None or crop.wide is not None)
        assert torch.equal(first[n, 2], second[n, 2]) and torch.equal(first[n, 2], third[n, 2])
    clicks = [maps[:, :2].sum((1, 2, 3)) for maps in (first, second, third)]
    assert (clicks[0] < clicks[1]).all() and (clicks[1] <= clicks[2]).all() and (clicks[1] < clicks[2]).any()
    assert all(second[n, 3].any() and third[n, 3].any() for n in range(6))


@pytest.mark.parametrize("again", [0.0, 1.0])
def test_a_box_is_looked_at_again_without_a_click_as_often_as_said(stills: Stills, again: float) -> None:
    task = task_of(stills, replace(SMALL, boxes=1.0, corrections=0.0, again=again), crops=4)
    crops = task.draw(np.random.default_rng(0)).crops
    answers = torch.full((4, SMALL.side // 2, SMALL.side // 2), -3.0)
    found, maps = task._corrected(crops, answers, np.random.default_rng(1))
    assert [len(crop.points) for crop in found] == [round(1 - again)] * 4
    assert all(crop.earlier is not None and crop.box for crop in found)
    assert (maps[:, 3] < -0.8).all()  # it sees the answer
    clicked, _ = task._corrected(
        [replace(one, points=(Point(3, 3),)) for one in crops], answers, np.random.default_rng(1)
    )
    assert [len(crop.points) for crop in clicked] == [2] * 4


def test_a_few_steps_on_one_picture_lower_the_loss(stills: Stills, tmp_path: Path) -> None:
    one = Stills(Path(stills._listed[0].path).parent.parent, wanted=lambda image: image["id"] == 1)
    sampling = replace(SMALL, side=64, boxes=1.0, corrections=0.0, rounds=(1.0,), worse=0.0, pasted=0.0)
    task = task_of(one, sampling, crops=3)
    before = {name: value.clone() for name, value in task.module.state_dict().items()}
    train(task, tmp_path / "run", TrainingPlan(16, lr=3e-3, warm_up=2, factors=(("blocks.", 0.25),)), {"task": "test"})
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    masks = [line["mask"] for line in lines if "mask" in line]
    assert np.mean(masks[-4:]) < 0.6 * np.mean(masks[:4]), masks
    for name, value in task.module.state_dict().items():
        # No detector is there, whose maps could be learnt from.
        assert torch.equal(value, before[name]) == name.startswith(("stem.", "fixed.", "advise.")), name
    assert (tmp_path / "run/weights.safetensors").stat().st_size > 1e6


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_batches_sees_a_detectors_maps(stills: Stills, share: float) -> None:
    detector = NanoDetNetwork().requires_grad_(False).eval()
    sampling = replace(SMALL, side=64, hinted=share)
    task = PromptTask(small_network(), crops_of(stills, sampling), dict, lambda path: None, 2, detector)
    drawn = [task.draw(seed_item_generator(n, 0)) for n in range(4)]
    assert {batch.hinted for batch in drawn} == {bool(share)}
    torch.stack([*task.loss_of(0, drawn[0], seed_item_generator(0, 1)).values()]).sum().backward()
    learnt = [p.grad is not None and bool(p.grad.any()) for p in task.module.advise.parameters()]
    assert all(learnt) if share else not any(learnt)
    assert all(p.grad is None for p in detector.parameters())


def test_the_same_seed_is_the_same_loss(stills: Stills) -> None:
    one, same, other = (
        task_of(stills, replace(SMALL, side=64)).loss(0, seed_item_generator(seed, 0)) for seed in (5, 5, 6)
    )
    assert all(torch.equal(loss, same[name]) for name, loss in one.items())
    assert not torch.equal(one["mask"], other["mask"])


def test_losses_and_gradients_are_finite_in_mixed_precision(stills: Stills) -> None:
    task = task_of(stills, replace(SMALL, side=64, rounds=(0.0, 1.0)), crops=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.loss(0, seed_item_generator(4, 0))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())
    torch.stack([*found.values()]).sum().backward()
    assert all(p.grad.isfinite().all() for p in task.module.parameters() if p.grad is not None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", lambda *how, **more: nullcontext())
    with WithGpu(), torch.no_grad():
        yield


def test_nothing_is_on_the_wrong_device(stills: Stills, gpu: None) -> None:
    net: Any = small_network().to(GPU)
    assert all(isinstance(p, Elsewhere) for p in net.parameters())
    task = PromptTask(net, crops_of(stills, replace(SMALL, rounds=(0.0, 1.0))), dict, lambda path: None, crops=4)
    batch = task.draw(seed_item_generator(4, 0))
    assert any(crop.wide for crop in batch.crops)
    assert all(torch.isfinite(loss.cpu()) for loss in task.loss_of(0, batch, seed_item_generator(4, 1)).values())
    answer = ImagePredictor(net).predict(stills.image(0), Clicks((Point(50, 60),)))
    assert answer.logits.device.type == "cpu"


# -- scores


def test_objects_are_selected_by_size_and_number(stills: Stills) -> None:
    assert [(n, k) for _, n, k in select_objects([stills])] == [(0, 0), (1, 0), (2, 0)]  # of 1024 pixels or more
    assert len(select_objects([stills], least=100)) == 7 and len(select_objects([stills, stills], least=400)) == 12
    few = select_objects([stills], 3, least=100)
    assert few == select_objects([stills], 3, least=100) and len(few) == 3
    [asked] = read_objects(select_objects([stills])[:1])
    assert np.array_equal(asked.mask, ellipse(50, 60, 32, 22)) and asked.box == Box(18, 38, 83, 83)


def test_clicks_go_to_the_middle_of_the_larger_error() -> None:
    true = np.zeros((20, 30), bool)
    true[5:14, 5:14] = True
    assert click_on_error(np.zeros_like(true), true) == Point(9, 9)
    more = true.copy()
    more[2:15, 16:29] = True
    assert click_on_error(more, true) == Point(22, 8, inside=False)


class Obedient(ImagePredictor):
    """Draws the box, or a square around each click inside without those outside."""

    def __init__(self) -> None:
        super().__init__(small_network())

    def predict(self, picture: Any, clicks: Clicks, earlier: Any = None) -> Any:
        from masklet.models.nano.image_predictor import MaskHypotheses

        out = np.full(picture.shape[:2], -1, np.float32)
        parts = [(clicks.box.x0, clicks.box.y0, clicks.box.x1, clicks.box.y1, 1)] if clicks.box else []
        parts += [(p.x - 2, p.y - 2, p.x + 3, p.y + 3, 1 if p.inside else -1) for p in clicks.points]
        for x0, y0, x1, y1, value in parts:
            out[int(y0) : int(y1), int(x0) : int(x1)] = value
        return MaskHypotheses(torch.from_numpy(out)[None], torch.tensor([0.75]))


def test_scores_by_hand() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:15] = True  # two squares of 5
    picture = np.zeros((20, 30, 3), np.uint8)
    both, small = PromptedObject(picture, mask, Box(5, 5, 15, 10)), mask.copy()
    small[:, 10:] = False
    loose = PromptedObject(picture, small, Box(5, 5, 15, 10))
    found = score_prompts(Obedient(), [both, loose], clicks=3)
    assert found["objects"] == 2 and found["box"] == pytest.approx(0.75)  # 1 and a half
    assert found["box expected IoU error"] == pytest.approx(0.25)
    assert found["1 click"] == pytest.approx((0.5 + 1) / 2)
    assert found["3 clicks"] >= found["2 clicks"] > found["1 click"] and found["worse by a click"] == 0
    assert score_prompts(Obedient(), [], 3) == {}
    assert "worse by a click" not in score_prompts(Obedient(), [both], 1)


def test_iou_is_that_of_the_best_hypothesis() -> None:
    true = np.zeros((2, 4), bool)
    true[0] = True
    logits = torch.stack([torch.from_numpy(true).float() - 0.5, torch.ones(2, 4)])
    assert measure_best_iou(logits, true) == 1 and measure_best_iou(logits.flip(0), true) == 0.5
