"""Nano's image predictor: where crops lie, what the network is shown, what becomes of its answers; files; and, loosely,
how good the packaged one is.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Point
from masklet.core.part_facts import CPU
from masklet.models.encoder import DEEP, MOBILENET
from masklet.models.nano.image_predictor import (
    CAREFUL,
    KIND,
    OUTSIDE,
    PACKAGED,
    RADIUS,
    REDRAWN,
    SIDE,
    SURE,
    Crop,
    ImagePredictor,
    MaskHypotheses,
    apply_clicks,
    create_prompt_network,
    draw_prompt_maps,
    load_image_predictor,
    load_quick_redrawer,
    make_empty_hypotheses,
    read_prompt_network,
    save_prompt_network,
)
from masklet.models.nano.nanodet import load_nanodet_network
from masklet.nn.mobilenet import DeepMobileNet, MobileNetV2
from masklet.nn.nanodet import NanoDetNetwork
from masklet.nn.prompt_network import ANSWERS, FIXED, CropFeatures, PromptNetwork
from masklet.weights.store import ZOO, read_packaged

H, W = 60, 90


def outside(x: float, y: float) -> Point:
    return Point(x, y, inside=False)


def disk(x: float, y: float, radius: float, size: tuple[int, int] = (H, W)) -> np.ndarray:
    ys, xs = np.mgrid[: size[0], : size[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 < radius**2


def picture_of(*masks: np.ndarray, size: tuple[int, int] = (H, W)) -> np.ndarray:
    """Bright things on dark noise."""
    image = np.random.default_rng(0).integers(20, 60, (*size, 3)).astype(np.uint8)
    for mask in masks:
        image[mask] = [230, 190, 60]
    return image


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def mask_of(answer: MaskHypotheses) -> np.ndarray:
    return answer.logits[0].numpy() > 0


# -- crops

CROPS = {
    "inside": Crop(20, 10, 40),
    "left": Crop(-15, 10, 40),
    "right": Crop(65, 10, 40),
    "top": Crop(20, -15, 40),
    "bottom": Crop(20, 35, 40),
    "larger than the picture": Crop(-20, -30, 130),
    "made smaller": Crop(-5, -20, 96),
}


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS.keys())
def test_what_is_cut_is_pasted_where_it_was(crop: Crop) -> None:
    ys, xs = np.mgrid[:H, :W].astype(np.float32)
    ramp = 0.3 * xs - 0.2 * ys + 1
    back = crop.paste(crop.cut(ramp, 96, 0.0), (H, W))
    seen = (xs >= crop.x) & (xs < crop.x + crop.side) & (ys >= crop.y) & (ys < crop.y + crop.side)
    assert (back[~seen] == OUTSIDE).all()
    well_within = seen & (xs > max(crop.x, 0) + 2) & (xs < min(crop.x + crop.side, W) - 3)
    well_within &= (ys > max(crop.y, 0) + 2) & (ys < min(crop.y + crop.side, H) - 3)
    assert well_within.sum() > 300
    assert np.abs(back - ramp)[well_within].max() < 0.05


def test_what_is_beside_the_picture_has_the_border() -> None:
    crop = Crop(-15, 35, 40)
    cut = crop.cut(picture_of(), 80, (1, 2, 3))
    assert cut.shape == (80, 80, 3)
    assert (cut[:, :29] == [1, 2, 3]).all() and (cut[51:] == [1, 2, 3]).all()
    assert (cut[:48, 32:] >= 20).all()
    far = Crop(500, 0, 40)
    assert (far.cut(picture_of(), 16, (1, 2, 3)) == [1, 2, 3]).all() and far.cut(np.ones((H, W)), 16, 0.0).sum() == 0
    for away in (far, Crop(-500, 0, 40), Crop(0, -41, 40)):
        assert (away.paste(np.ones((96, 96), np.float32), (H, W)) == OUTSIDE).all()


def test_a_picture_of_one_pixel() -> None:
    one = np.full((1, 1, 3), 77, np.uint8)
    assert (Crop(0, 0, 1).cut(one, SIDE, (0, 0, 0)) == 77).all()
    wide = Crop(-4, -4, 8)
    assert wide.cut(one, 8, (0, 0, 0)).sum() == 3 * 77
    logits = np.full((96, 96), -3.0, np.float32)
    logits[48:60, 48:60] = 5  # pixel (0, 0) in this view
    assert wide.paste(logits, (1, 1)).tolist() == [[5.0]]


def test_a_crop_around_a_box_has_its_middle_and_a_least_side() -> None:
    assert Crop.around(10, 20, 30, 30, 1.5) == Crop(5, 10, 30)
    assert Crop.around(10, 20, 11, 21, 1.5) == Crop(6, 16, 8)


PLACES = [
    (crop, x, y)
    for crop in CROPS.values()
    for x, y in ((0, 40), (25, 0), (33, 27), (70, 40), (89, 59))
    if 0 <= x - crop.x < crop.side and 0 <= y - crop.y < crop.side
]


@pytest.mark.parametrize(("crop", "x", "y"), PLACES)
def test_a_bright_pixel_is_where_see_says(crop: Crop, x: int, y: int) -> None:
    image = np.zeros((H, W), np.float32)
    image[y, x] = 1
    light = crop.cut(image, SIDE, 0.0)
    seen = crop.see(Point(x, y), SIDE)
    ys, xs = np.mgrid[:SIDE, :SIDE] + 0.5  # places count from the corner of the first pixel
    scale = SIDE / crop.side
    if all(2 * scale < v < SIDE - 2 * scale for v in (seen.x, seen.y)):  # none of its light is cut off
        assert ((light * xs).sum() / light.sum(), (light * ys).sum() / light.sum()) == pytest.approx(
            (seen.x, seen.y), abs=0.05
        )
    brightest = np.unravel_index(light.argmax(), light.shape)
    assert abs(brightest[1] + 0.5 - seen.x) <= scale / 2 + 0.5 and abs(brightest[0] + 0.5 - seen.y) <= scale / 2 + 0.5


def test_a_box_is_seen_as_its_corners_are() -> None:
    crop = Crop(-10, 5, 48)
    box = crop.see_box(Box(2, 8, 20, 29), SIDE)
    first, last = crop.see(Point(2, 8), SIDE), crop.see(Point(19, 28), SIDE)
    half = SIDE / 48 / 2  # of a pixel
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(
        (first.x - half, first.y - half, last.x + half, last.y + half)
    )
    assert not crop.see(outside(3, 3), SIDE).inside


# -- prompts as the network sees them


def test_prompts_are_drawn_as_maps() -> None:
    earlier = np.full((32, 32), 0.25, np.float32)
    maps = draw_prompt_maps([Point(8.5, 20.5), outside(28.5, 4.5)], Box(2.2, 3.8, 30.7, 40), earlier, 32)
    assert maps.shape == (4, 32, 32) and maps.dtype == np.float32
    for one, (x, y) in zip(maps[:2], ((8, 20), (28, 4)), strict=True):
        ys, xs = np.nonzero(one)
        assert one[y, x] == 1 and set(one.flat) == {0, 1}
        assert (xs.min(), xs.max()) == (x - RADIUS, min(x + RADIUS, 31))
        assert (ys.min(), ys.max()) == (y - RADIUS, y + RADIUS)
        assert (np.hypot(xs - x, ys - y) < RADIUS + 0.5).all()
    assert maps[2].sum() == 29 * 28 and maps[2, 4:, 2:31].all()
    assert (maps[3] == -0.5).all()


def test_what_is_not_said_is_zero() -> None:
    assert not draw_prompt_maps([], None, None, 16).any()
    assert not draw_prompt_maps([], Box(-9, -9, -2, -2), None, 16).any()
    assert (
        draw_prompt_maps([], None, np.zeros((16, 16), np.float32), 16)[3].max() == -1
    )  # that nothing was there is said


# -- what becomes of answers


@pytest.mark.parametrize("inside", [True, False])
def test_a_click_that_the_answer_contradicts_is_obeyed(inside: bool) -> None:
    wrong = np.full((20, 30), -2.0 if inside else 2.0, np.float32)
    out = apply_clicks(wrong, [Point(12, 7, inside)])
    assert (out[7, 12] > 0) == inside and (wrong == wrong[0, 0]).all()  # the answer itself stays as it was
    changed = np.argwhere(out != wrong)
    assert 20 < len(changed) < 70 and np.abs(changed - [7, 12]).max() <= RADIUS


def test_a_click_that_is_met_changes_nothing() -> None:
    logits = np.where(disk(10, 10, 5, (20, 30)), 3, -3).astype(np.float32)
    assert (apply_clicks(logits, [Point(10, 10), outside(20, 10)]) == logits).all()


def test_a_place_between_pixels_counts_for_the_nearest_one() -> None:
    logits = np.full((4, 6), 3.0, np.float32)
    logits[2, 3] = -3
    assert (
        apply_clicks(logits, [Point(2.75, 1.9)])[2, 3] > 0
    )  # as of a frame of twice the size, whose pixels are 2 and 3
    assert (apply_clicks(logits, [outside(2.75, 1.9)]) == logits).all()
    assert apply_clicks(logits, [Point(5.4, 3.4), Point(-0.4, -0.4)]).shape == (4, 6)


@pytest.mark.parametrize("apart", [1, 2, 3, 5])
@pytest.mark.parametrize("value", [-3.0, 3.0])
def test_clicks_that_say_otherwise_near_by_are_both_obeyed(apart: int, value: float) -> None:
    for first in (True, False):
        points = [Point(10, 10, first), Point(10 + apart, 10, not first)]
        out = apply_clicks(np.full((20, 30), value, np.float32), points)
        assert [out[10, int(p.x)] > 0 for p in points] == [p.inside for p in points]


class Scripted(PromptNetwork):
    """Answers with the same disk each time, the hypotheses smaller ones, and notes what it was shown."""

    def __init__(self, *quality: float) -> None:
        super().__init__()
        self.quality = torch.tensor(quality or (0.0, 1.0, 3.0, 2.0))
        self.shown: list[Tensor] = []
        self.hinted: list[Any] = []

    def look(self, image: Tensor, detector: Any = None) -> CropFeatures:
        self.hinted.append(detector)
        b, s = len(image), image.shape[2]
        return CropFeatures(torch.zeros(b, 32, s // 2, s // 2), torch.zeros(b, 24, s // 4, s // 4))

    def forward(self, crops: CropFeatures, maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.draw(crops, maps)[0], self.quality.expand(len(maps), -1)

    def draw(self, crops: CropFeatures, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.shown.append(maps)
        b, s = len(maps), maps.shape[2] // 2
        scale = min(s / 96, 1)  # in crops that are redrawn smaller, the disks are smaller, too
        far = torch.stack([torch.from_numpy(disk(s / 2, s / 2, scale * r, (s, s))) for r in (30, 20, 16, 12)])
        return torch.where(far, 4.0, -4.0).expand(b, -1, -1, -1), torch.zeros(b, 1, 1, 1), torch.zeros(b, 1)


def scripted() -> tuple[ImagePredictor, Scripted]:
    net = Scripted()
    return ImagePredictor(net), net


def test_one_click_gives_three_hypotheses_the_best_first() -> None:
    predictor, net = scripted()
    answer = predictor.predict(np.zeros((600, 900, 3), np.uint8), Clicks((Point(450, 300),)))
    assert answer.logits.shape == (3, 600, 900)
    assert answer.quality.tolist() == pytest.approx(torch.tensor([3.0, 2.0, 1.0]).sigmoid().tolist())
    areas = (answer.logits > 0).sum((1, 2)).tolist()
    assert areas[2] > areas[0] > areas[1]  # of 16, 12 and 20 pixels
    assert len(net.shown) == 3  # the answer fills little of the picture: it is looked at from near by, and once more
    assert not net.shown[0][0, 3].any()
    assert all((shown[0, 3] > 0.9).any() for shown in net.shown[1:])  # which see the answer before


def test_a_detector_is_seen_beside_prompts_and_boxes_and_loaded_at_the_first() -> None:
    net, detector, loads = Scripted(), NanoDetNetwork(), []
    predictor = ImagePredictor(net, load_detector=lambda: loads.append(1) or detector)
    picture = picture_of(disk(45, 30, 12))
    believed = torch.where(torch.from_numpy(disk(45, 30, 12)), 4.0, -4.0)[None]
    predictor.redraw(picture, believed)
    list(predictor.predict_points(picture, [Point(45, 30)], 0.1))
    assert not loads and not any(net.hinted)
    net.hinted.clear()
    for clicks in (Clicks((Point(45, 30),)), Clicks((), Box(30, 15, 60, 45)), Clicks((Point(45, 30), outside(5, 5)))):
        predictor.predict(picture, clicks)
    predictor.predict_boxes(picture, torch.tensor([[30.0, 15, 60, 45]]))
    assert len(loads) == 1 and net.hinted and all(seen is detector for seen in net.hinted)


def test_anything_more_leaves_no_doubt() -> None:
    picture, click = picture_of(), Point(45, 30)
    for clicks in (
        Clicks((click, Point(50, 30))),
        Clicks((click, outside(5, 5))),
        Clicks((), Box(20, 10, 60, 50)),
        Clicks((outside(45, 30),), None, torch.from_numpy(disk(45, 30, 9))),
    ):
        predictor, _ = scripted()
        answer = predictor.predict(picture, clicks)
        assert answer.logits.shape == (1, H, W) and answer.quality.tolist() == [0.5]


def test_clicks_are_answered_in_turn_each_with_the_answer_before() -> None:
    predictor, net = scripted()
    predictor.predict(picture_of(), Clicks((outside(5, 5), Point(45, 30), Point(50, 30))))
    discs = [[int((one[0, n] > 0).sum() > 0) + int((one[0, n] > 0).sum() > 70) for n in (0, 1)] for one in net.shown]
    # The first click inside begins: whole, near and again; each further one is looked at twice.
    assert discs == [[1, 0], [1, 0], [1, 0], [1, 1], [1, 1], [2, 1], [2, 1]]
    assert all((one[0, 3] > 0).any() for one in net.shown[1:])


def test_only_what_lies_in_the_view_is_ever_asked() -> None:
    predictor, net = scripted()
    predictor.predict(picture_of(), Clicks((Point(2, 2), Point(87, 57))))
    assert all((one[0, 0] > 0).sum() > 20 for one in net.shown)
    box = net.shown
    predictor.predict(picture_of(), Clicks((Point(88, 58),), Box(0, 0, 20, 20)))
    assert (box[-1][0, 0] > 0).sum() > 20 and (box[-1][0, 2] > 0).sum() > 200


def test_what_is_drawn_already_is_not_asked_again_for_a_click_that_it_obeys() -> None:
    mask = torch.from_numpy(disk(30, 30, 8))
    for clicks, looks in (
        ((Point(30, 30), outside(70, 30)), 0),
        ((outside(70, 30), Point(50, 30)), 1),
        ((Point(50, 30),), 1),
    ):
        predictor, net = scripted()
        answer = predictor.predict(picture_of(), Clicks(clicks, None, mask))
        assert len(net.shown) == looks
        assert bool((mask_of(answer) == mask.numpy()).all()) == (looks == 0)
    assert net.shown[0][0, 1].sum() == 0
    predictor, net = scripted()
    predictor.predict(picture_of(), Clicks((Point(45, 30),), Box(20, 5, 70, 55)))
    assert len(net.shown) == 2  # both of the box
    predictor, net = scripted()
    predictor.predict(picture_of(), Clicks((outside(70, 30), outside(30, 30)), None, mask))
    [shown] = net.shown
    assert (shown[0, 1] > 0).sum() > 80  # it is shown with the others when there is something to ask


def test_a_further_click_is_answered_by_the_mean_of_two_looks() -> None:
    predictor, net = scripted()
    levels = [1.0, 1.0, -2.0, 4.0]  # of all that a look sees: two of the first click, which fills the view, two more

    def draw(crops: CropFeatures, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        net.shown.append(maps)
        level = levels[len(net.shown) - 1]
        return torch.full((len(maps), 4, *crops.low.shape[2:]), level), torch.zeros(0), torch.zeros(0)

    net.draw = draw  # type: ignore[method-assign]
    answer = predictor.predict(picture_of(), Clicks((Point(45, 30), Point(60, 30))))
    assert answer.logits[0, 30, 60] == pytest.approx((-2 + 4) / 2)


def test_a_click_that_is_added_is_all_that_is_looked_at() -> None:
    picture, given = picture_of(), torch.from_numpy(disk(30, 30, 8))
    a, b, c, box = Point(45, 30), Point(60, 30), outside(5, 5), Box(20, 5, 40, 55)
    for asked, more, looks in (
        (Clicks((a,)), Clicks((a, b)), 2),
        (Clicks((a, b)), Clicks((a, b)), 0),
        (Clicks((a,)), Clicks((c, a)), 2),  # the one inside comes first, whatever was clicked before
        (Clicks((), box), Clicks((b,), box), 1),
        (Clicks((b,), None, given), Clicks((b, a), None, given), 1),
        (Clicks((a, b)), Clicks((b, a)), 5),  # these begin anew:
        (Clicks((a, b)), Clicks((a,)), 3),
        (Clicks((), box), Clicks((), Box(20, 5, 41, 55)), 2),
        (Clicks((b,), None, given), Clicks((b,), None, torch.from_numpy(disk(30, 30, 9))), 1),
    ):
        predictor, net = scripted()
        predictor.predict(picture, asked)
        before = len(net.shown)
        found = predictor.predict(picture, more)
        assert len(net.shown) - before == looks, (asked, more)
        anew = scripted()[0].predict(picture, more)
        assert torch.equal(found.logits, anew.logits) and torch.equal(found.quality, anew.quality)


def test_another_picture_is_looked_at_anew_and_an_answer_that_was_given_is_the_askers_own() -> None:
    predictor, net = scripted()
    picture = picture_of()
    first = predictor.predict(picture, Clicks((Point(45, 30),)))
    first.logits.fill_(-1)
    again = predictor.predict(picture, Clicks((Point(45, 30),)))
    assert len(net.shown) == 3 and (again.logits > 0).any()
    picture[0, 0] = 9  # the same array
    predictor.predict(picture, Clicks((Point(45, 30),)))
    assert len(net.shown) == 6


def test_a_box_is_looked_at_again_with_the_answer() -> None:
    predictor, net = scripted()
    predictor.predict(picture_of(), Clicks((), Box(20, 5, 70, 55)))
    first, second = net.shown
    assert not first[:, 3].any() and (second[:, 3] > 0.9).any()  # what was drawn
    assert torch.equal(first[:, 2], second[:, 2]) and (first[0, 2] > 0).any()  # the box, both times


def test_clicks_outside_alone_describe_nothing() -> None:
    predictor, net = scripted()
    for earlier in (None, np.full((H, W), -3, np.float32)):
        answer = predictor.predict(picture_of(), Clicks((outside(45, 30),)), earlier)
        assert answer.logits.shape == (1, H, W) and not mask_of(answer).any() and answer.quality.tolist() == [0]
    assert not net.shown
    assert make_empty_hypotheses((3, 4)).logits.shape == (1, 3, 4)


def test_a_mask_counts_in_the_place_of_an_earlier_answer() -> None:
    predictor, net = scripted()
    mask, earlier = disk(30, 30, 8), np.where(disk(70, 30, 8), 5, -5).astype(np.float32)
    predictor.predict(picture_of(), Clicks((outside(33, 30),), None, torch.from_numpy(mask)), earlier)
    [shown] = net.shown
    assert (shown[0, 3] > 0.9).sum() / CAREFUL**2 == pytest.approx(np.pi * 8**2 / (1.6 * 16) ** 2, rel=0.15)
    kept = predictor.predict(picture_of(), Clicks((), None, torch.from_numpy(mask)))
    assert (mask_of(kept) == mask).all() and kept.quality.tolist() == [1]
    plain = predictor.predict(picture_of(), Clicks(()), earlier)
    assert torch.equal(plain.logits[0], torch.from_numpy(earlier))


def test_every_hypothesis_obeys_the_click() -> None:
    predictor, _ = scripted()
    answer = predictor.predict(picture_of(), Clicks((Point(2, 2),)))
    assert (answer.logits[:, 2, 2] > 0).all()
    corrected = predictor.predict(picture_of(), Clicks((Point(45, 30), outside(46, 30))))
    assert corrected.logits[0, 30, 45] > 0 and corrected.logits[0, 30, 46] < 0


BOXES = torch.tensor([[20.0, 10, 60, 50], [5, 5, 12, 9], [-9, 30, 30, 70], [70, 0, 90, 60], [44.3, 29.2, 44.9, 30.1]])


def test_answers_to_boxes_lie_within_them_and_a_margin() -> None:
    predictor, _ = scripted()
    for box in BOXES.tolist():
        found = mask_of(predictor.predict(picture_of(), Clicks((), Box(*box))))
        ys, xs = np.nonzero(found)
        x0, y0, x1, y1 = box
        x, y = 0.05 * (x1 - x0) + 0.51, 0.05 * (y1 - y0) + 0.51  # to whole pixels
        assert not len(xs) or (xs.min() >= x0 - x and xs.max() + 1 <= x1 + x)
        assert not len(ys) or (ys.min() >= y0 - y and ys.max() + 1 <= y1 + y)
    high = mask_of(predictor.predict(picture_of(), Clicks((), Box(38, 10, 46, 50))))
    assert 100 < high.sum() <= 9 * 44  # the disk would be wider
    clicked = mask_of(predictor.predict(picture_of(), Clicks((Point(60, 30),), Box(38, 10, 46, 50))))
    assert clicked[30, 60]  # what was clicked counts also where the box does not reach


def test_boxes_together_are_about_boxes_alone() -> None:
    """Alone they are looked at twice, more sharply and in a mirror; which boxes go together does not matter."""
    predictor, picture = packaged(), picture_of(disk(40, 30, 18), disk(80, 30, 7))
    small = ImagePredictor(predictor.net, at_once=2, load_detector=load_nanodet_network)
    masks, quality = small.predict_boxes(picture, BOXES)
    assert masks.shape == (5, H, W) and quality.shape == (5,)
    off = []
    for box, mask, expected in zip(BOXES.tolist(), masks, quality, strict=True):
        alone = predictor.predict(picture, Clicks((), Box(*box)))
        assert (mask.numpy() == mask_of(alone)).mean() > 0.85
        off.append(abs(float(alone.quality[0]) - float(expected)))
    assert np.mean(off) < 0.15
    others, _ = predictor.predict_boxes(picture, BOXES)
    assert (masks == others).float().mean() > 0.999


def test_no_boxes_and_boxes_beside_the_picture() -> None:
    masks, quality = packaged().predict_boxes(picture_of(), torch.zeros(0, 4))
    assert masks.shape == (0, H, W) and masks.dtype == torch.bool and quality.shape == (0,)
    masks, quality = packaged().predict_boxes(picture_of(), torch.tensor([[300.0, 10, 340, 50], [-90, -90, -60, -60]]))
    assert masks.shape == (2, H, W) and not masks.any() and quality.shape == (2,)


# -- the packaged one; it is judged on real pictures by benchmarks/prompts.py


@cache
def packaged() -> ImagePredictor:
    return load_image_predictor()


def test_the_packaged_one_says_which_weights_it_has() -> None:
    assert packaged().weights == {ZOO[name].name: ZOO[name].sha256 for name in (PACKAGED, "nanodet")}
    assert not any(parameter.requires_grad for parameter in packaged().net.parameters())
    assert load_image_predictor() is packaged()


def test_a_bright_disk_is_found_by_a_click_and_by_a_box() -> None:
    size = (120, 160)
    truth = disk(70, 60, 32, size)
    picture = picture_of(truth, size=size)
    clicked = packaged().predict(picture, Clicks((Point(70, 60),)))
    assert clicked.quality.tolist() == sorted(clicked.quality.tolist(), reverse=True)
    assert ((clicked.quality > 0) & (clicked.quality < 1)).all()
    assert iou(mask_of(clicked), truth) > 0.5
    assert iou(mask_of(packaged().predict(picture, Clicks((), Box(38, 28, 103, 93)))), truth) > 0.6
    assert iou(mask_of(packaged().predict(picture, Clicks((Point(60, 55), Point(80, 70))))), truth) > 0.5


def test_a_click_outside_takes_away_what_was_too_much() -> None:
    truth, other = disk(25, 30, 16), disk(70, 30, 14)
    picture = picture_of(truth, other)
    earlier = np.where(truth | other, 4, -4).astype(np.float32)
    answer = mask_of(packaged().predict(picture, Clicks((outside(70, 30),)), earlier))
    assert not answer[30, 70] and answer[truth].mean() > 0.5
    assert iou(answer, truth) > iou(truth | other, truth)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (8, 600), (600, 8)])
def test_very_small_and_very_long_pictures(size: tuple[int, int]) -> None:
    h, w = size
    picture = picture_of(size=size)
    for clicks in (
        Clicks((Point(w - 1, h - 1),)),
        Clicks((), Box(0, 0, w, h)),
        Clicks((Point(0, 0), outside(w - 1, h - 1))),
    ):
        answer = packaged().predict(picture, clicks)
        assert answer.logits.shape[1:] == size and answer.logits.isfinite().all()
    assert answer.logits[0, 0, 0] > 0 or size == (1, 1)


# -- the network's beginning, and files


def test_training_begins_with_the_blocks_of_imagenet() -> None:
    net, plain, deep = create_prompt_network(), MobileNetV2(), DeepMobileNet()
    plain.load_state_dict({name: value.float() for name, value in read_packaged(ZOO[MOBILENET]).items()})
    held = {**read_packaged(ZOO[MOBILENET]), **read_packaged(ZOO[DEEP])}
    named = {
        name.removeprefix("blocks.").partition(".")[::2]: value.float()
        for name, value in held.items()
        if "blocks" in name
    }
    deep.load_state_dict({f"blocks.{int(n) - 6}.{rest}": value for (n, rest), value in named.items() if int(n) >= 6})
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    kept: dict[int, Tensor] = {}
    for number in (6, 13, 17):
        net.blocks[number - FIXED - 1].register_forward_hook(
            lambda _, __, out, number=number: kept.update({number: out.clone()})
        )
    with torch.no_grad():
        crops = net.look(image)
        net(crops, torch.rand(1, 4, 64, 64))
        three, six, _ = plain(image)
        thirteen, last = deep(six.clone())
    for own, of in ((crops.low, three), (kept[6], six), (kept[13], thirteen), (kept[17], last)):
        assert torch.allclose(own, of, atol=1e-4)


def test_the_same_seed_is_the_same_network() -> None:
    one, same, other = (create_prompt_network(seed).first.weight for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_prompt_network(path, create_prompt_network(1))
    return path


def test_a_file_holds_the_network(file: Path) -> None:
    net, found = create_prompt_network(1), read_prompt_network(file)
    for (name, own), (_, read_back) in zip(net.named_parameters(), found.named_parameters(), strict=True):
        assert torch.equal(own.half().float(), read_back), name
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_other_files_are_refused_by_name(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other, {"kind": "nano-propagator"})
    plain = tmp_path / "plain.safetensors"
    save_file({"x": torch.zeros(1)}, plain)
    for path in (other, plain):
        with pytest.raises(InputError, match=rf"{path.name}: not weights of nano's image predictor"):
            read_prompt_network(path)


def test_damaged_files_are_refused_by_name(file: Path, tmp_path: Path) -> None:
    cut, text, lacking, narrow = (tmp_path / f"{name}.safetensors" for name in ("cut", "text", "lacking", "narrow"))
    cut.write_bytes(file.read_bytes()[:5000])
    text.write_text("no weights")
    save_file({"x": torch.zeros(1)}, lacking, {"kind": KIND})
    state = create_prompt_network(1).state_dict()
    save_file(
        {**{k: v.contiguous() for k, v in state.items()}, "coarse.bias": torch.zeros(ANSWERS + 1)},
        narrow,
        {"kind": KIND},
    )
    for path in (cut, text, lacking, narrow, tmp_path / "gone.safetensors"):
        with pytest.raises(InputError, match=rf"{path.name}: (damaged or cut off|not the weights of nano)"):
            read_prompt_network(path)


def test_logits_of_a_given_mask_are_sure() -> None:
    mask = torch.from_numpy(disk(30, 30, 8))
    logits = packaged().predict(picture_of(), Clicks((), None, mask)).logits[0]
    assert logits.unique().tolist() == [-SURE, SURE]


# -- redrawing


def believed(*masks: np.ndarray, sure: float = 8.0) -> Tensor:
    return torch.from_numpy(np.stack([np.where(mask, sure, -sure) for mask in masks]).astype(np.float32))


def test_a_mask_that_is_redrawn_is_the_mean_of_both() -> None:
    predictor, net = scripted()
    before = believed(disk(45, 30, 10))
    after = predictor.redraw(picture_of(), before)
    assert sorted({round(float(v), 3) for v in after.flatten() if abs(abs(float(v)) - 8) > 1e-3}) != []
    assert after[0, 30, 45] == pytest.approx((8 + 4) / 2) and after[0, 0, 0] == -8  # there nothing was drawn
    [maps] = net.shown
    assert (maps[0, 2] > 0).any() and (maps[0, 3] > 0.9).any()  # its box, and the mask itself


@pytest.mark.parametrize(
    "mask", [disk(45, 30, 3), np.zeros((H, W), bool), disk(45, 30, 4) | disk(80, 30, 4)], ids=["small", "none", "apart"]
)
def test_a_mask_with_which_the_network_does_not_agree_stays(mask: np.ndarray) -> None:
    predictor, _ = scripted()
    before = believed(mask)
    assert predictor.redraw(picture_of(), before).equal(before)


def test_any_number_of_masks_is_redrawn_each_for_itself() -> None:
    predictor, _ = scripted()
    masks = [disk(20 + 5 * n, 30, 6 + 5 * (n % 5)) for n in range(11)]
    together = predictor.redraw(picture_of(), believed(*masks))
    for n, mask in enumerate(masks):
        torch.testing.assert_close(together[n : n + 1], predictor.redraw(picture_of(), believed(mask)))
    assert predictor.redraw(picture_of(), torch.zeros(0, H, W)).shape == (0, H, W)
    assert not together.equal(believed(*masks))


@pytest.mark.parametrize(("radius", "side"), [(7, 96), (16, 96), (18, 128), (22, 128), (25, 160), (36, 192), (90, 192)])
def test_what_is_redrawn_is_seen_twice_as_large_or_in_the_largest_crop(radius: int, side: int) -> None:
    predictor, net = scripted()
    predictor.redraw(picture_of(size=(200, 300)), believed(disk(150, 100, radius, (200, 300))))
    [maps] = net.shown
    assert maps.shape[2:] == (side, side)
    view = math.ceil(1.4 * (2 * radius - 1))  # the square around the disk
    assert side >= 2 * view or side == max(REDRAWN)
    assert all(other < 2 * view for other in REDRAWN if other < side)
    assert (maps[0, 2] > 0).float().mean() ** 0.5 == pytest.approx(1 / 1.4, abs=0.03)  # the box fills its share of it


def test_the_packaged_one_mends_the_border_of_a_mask() -> None:
    true = disk(45, 30, 18)
    frayed = true & ~disk(61, 30, 8)
    before = iou(frayed, true)
    after = load_image_predictor().redraw(picture_of(true), believed(frayed, sure=2.0))
    assert iou(after[0].numpy() > 0, true) > before + 0.02


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU that has no bfloat16")
def test_many_masks_are_redrawn_in_bfloat16_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    true, plain = disk(45, 30, 18), load_image_predictor()
    picture, frayed = picture_of(true), believed(true & ~disk(61, 30, 8), sure=2.0)
    load = load_quick_redrawer.__wrapped__  # not the one that is kept for others
    monkeypatch.setattr("masklet.models.nano.image_predictor.has_bfloat16_matrices", lambda: False)
    assert load(CPU) is plain
    monkeypatch.setattr("masklet.models.nano.image_predictor.has_bfloat16_matrices", lambda: True)
    quick = load(CPU)
    assert {p.dtype for p in quick.net.parameters()} == {torch.bfloat16} and quick.weights == plain.weights
    assert {p.dtype for p in plain.net.parameters()} == {torch.float32}
    expected, got = plain.redraw(picture, frayed), quick.redraw(picture, frayed)
    assert got.dtype == torch.float32 and not got.equal(expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=0.15)
    assert iou(got[0].numpy() > 0, expected[0].numpy() > 0) > 0.98
