"""NanoDet's boxes, the image predictor's masks, calibrated chances."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from masklet.core.frames import Frame
from masklet.core.protocols import RegionSegmenter, ScoringSegmenter
from masklet.models.boxes import Boxes
from masklet.models.nano.image_predictor import load_image_predictor
from masklet.models.nano.segmenter import Calibration, NanoSegmenter, load_nano_segmenter


def test_a_chance_by_hand() -> None:
    calibration = Calibration(bias=-1.0, box=2.0, mask=0.5)
    box, mask = torch.tensor([0.5, 0.9]), torch.tensor([0.5, 0.8])
    logits = [-1.0, -1 + 2 * np.log(9) + 0.5 * np.log(4)]
    assert calibration.estimate(box, mask).tolist() == pytest.approx([1 / (1 + np.exp(-x)) for x in logits], abs=1e-6)


def test_a_chance_grows_with_both_and_stays_between_0_and_1() -> None:
    calibration, ends = load_nano_segmenter().calibration, torch.tensor([0.01, 0.05, 0.5, 0.95, 0.99])
    for of in (calibration.estimate(ends, torch.full((5,), 0.7)), calibration.estimate(torch.full((5,), 0.4), ends)):
        assert (of.diff() > 0).all() and (of > 0).all() and (of < 1).all()


class Boxed:
    """A detector that gives the same boxes in every image."""

    categories = ("cat", "dog")
    weights: Mapping[str, str] = {"boxes": "sha"}
    description = "boxed"

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes

    def detect(self, image: np.ndarray) -> Boxes:
        return self.boxes


def disks() -> np.ndarray:
    """Two disks before a dark ground, 96 x 160."""
    ys, xs = np.mgrid[:96, :160]
    image = np.full((96, 160, 3), (30, 60, 50), np.uint8)
    image[(ys - 40) ** 2 + (xs - 40) ** 2 < 22**2] = 220, 60, 40
    image[(ys - 50) ** 2 + (xs - 115) ** 2 < 22**2] = 230, 230, 90
    return image


LEFT, RIGHT = [18.0, 18, 62, 62], [93.0, 28, 137, 72]


def test_boxes_become_masks_the_likeliest_first() -> None:
    corners = torch.tensor([RIGHT, LEFT])
    boxes = Boxes(corners, torch.tensor([0.4, 0.7]), torch.tensor([0, 1]))
    segmenter = NanoSegmenter(Boxed(boxes), load_image_predictor())
    assert (
        isinstance(segmenter, ScoringSegmenter)
        and isinstance(segmenter, RegionSegmenter)
        and segmenter.categories == ("cat", "dog")
    )
    assert set(segmenter.weights) == {"boxes", "nano-image-predictor", "nanodet"}
    [found], _ = segmenter.segment(None, [Frame(0, disks())], [])
    assert found.labels.tolist() == [1, 0]
    for mask, (x0, y0, x1, y1) in zip(found.masks, (LEFT, RIGHT), strict=True):
        assert 0.6 < float(mask.sum()) / ((x1 - x0) * (y1 - y0)) < 0.95  # a disk fills 0.785 of its box


def test_a_thing_of_two_names_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    near = [LEFT[0], LEFT[1], LEFT[2], LEFT[3] + 2]  # IoU 0.957; moved by 4 pixels more it is 0.88
    far = [LEFT[0], LEFT[1], LEFT[2], LEFT[3] + 6]
    corners = torch.tensor([near, RIGHT, LEFT, far])
    boxes = Boxes(corners, torch.tensor([0.5, 0.6, 0.7, 0.4]), torch.tensor([0, 0, 1, 0]))
    predictor, drawn = load_image_predictor(), []
    predict = predictor.predict_boxes

    def count(image: np.ndarray, corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        drawn.extend(corners.tolist())
        return predict(image, corners)

    monkeypatch.setattr(predictor, "predict_boxes", count)
    found = NanoSegmenter(Boxed(boxes), predictor).find(Frame(0, disks()))
    assert drawn == [RIGHT, LEFT, far]
    assert found.labels.tolist() == [1, 0, 0, 0] and found.scores.tolist() == sorted(found.scores, reverse=True)
    left = [mask for mask in found.masks if mask[40, 40]]
    assert len(left) == 3 and torch.equal(left[0], left[1]) and found.masks[:, 50, 115].sum() == 1


@pytest.mark.parametrize("reach", [0, 30])
def test_in_a_region_all_is_found_that_has_a_pixel_there(reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = Boxes(torch.tensor([RIGHT, LEFT]), torch.tensor([0.7, 0.7]), torch.tensor([0, 1]))
    predictor, drawn = load_image_predictor(), []
    segmenter, predict = NanoSegmenter(Boxed(boxes), predictor), predictor.predict_boxes

    def count(image: np.ndarray, corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        drawn.append(len(corners))
        return predict(image, corners)

    whole = segmenter.find(Frame(0, disks()))
    monkeypatch.setattr(predictor, "predict_boxes", count)
    region = torch.zeros(96, 160, dtype=torch.bool)
    region[:, : 62 + reach] = True  # up to the left disk's box, and to the margin of the right one's
    found = segmenter.segment_region(Frame(0, disks()), region, 0.3)
    rows = [row for row, mask in enumerate(whole.masks) if reach or mask[40, 40]]
    assert drawn == [len(rows)] and torch.equal(found.masks, whole.masks[rows])
    assert torch.allclose(found.scores, whole.scores[rows])


def test_no_box_no_mask() -> None:
    nothing = Boxes(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    segmenter = NanoSegmenter(Boxed(nothing), load_image_predictor())
    [found], _ = segmenter.segment(None, [Frame(0, disks())], [])
    assert len(found) == 0 and found.masks.shape == (0, 96, 160)
