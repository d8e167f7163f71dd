"""The detector nanodet: what it keeps of the cells' boxes, frames of all sizes, and its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.boxes import Boxes, box_iou
from masklet.models.nano.dense import read_dense
from masklet.models.nano.nanodet import (
    COCO_NAMES,
    NanoDet,
    NanoDetSettings,
    apply_category_nms,
    choose_candidates,
    compute_input_size,
    find_label,
    load_nanodet,
    normalize_bgr,
)
from masklet.models.segmenters.text import TextDetector
from masklet.weights.store import ZOO

MANY = NanoDetSettings(threshold=0.01)  # boxes also where there is nothing to see
TABLE = "000000397133.jpg"  # a kitchen, of COCO's validation part


@cache
def detector(settings: NanoDetSettings = MANY) -> NanoDet:
    return load_nanodet(settings)


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Coloured rectangles on noise."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 90, (h, w, 3), dtype=np.uint8)
    for _ in range(8):
        y, x = draw.integers(0, h), draw.integers(0, w)
        image[y : y + h // 3, x : x + w // 4] = draw.integers(0, 256, 3)
    return image


def boxes(rows: list[list[float]], scores: list[float], labels: list[int]) -> Boxes:
    return Boxes(torch.tensor(rows).view(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def lie_within(corners: Tensor, size: tuple[int, int]) -> bool:
    h, w = size
    low, high = corners[:, :2], corners[:, 2:]
    return bool((low >= 0).all() and (high <= torch.tensor([w, h])).all() and (high > low).all())


# -- what it finds


def test_finds_what_is_in_a_photograph(data: Path) -> None:
    if not (folder := data / "stills" / "coco80").is_dir():
        pytest.skip(f"{folder} is not here")
    truth = json.loads((folder / "annotations.json").read_bytes())
    image = next(image for image in truth["images"] if image["file_name"] == TABLE)
    with Image.open(folder / "images" / TABLE) as opened:
        found = detector(NanoDetSettings()).detect(np.array(opened.convert("RGB")))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    people = [
        one["bbox"]
        for one in truth["annotations"]
        if one["image_id"] == image["id"] and names[one["category_id"]] == "person"
    ]
    x, y, w, h = torch.tensor(max(people, key=lambda box: box[2] * box[3]))
    assert COCO_NAMES[found.labels[0]] == "person" and found.scores[0] > 0.7
    assert box_iou(found.corners[:1], torch.stack([x, y, x + w, y + h])[None]) > 0.75
    assert {"person", "bowl", "dining table"} <= {COCO_NAMES[label] for label in found.labels}


def test_names_are_those_of_the_segmenter() -> None:
    assert read_dense(ZOO["nano-segmenter"].path).categories == COCO_NAMES


@pytest.mark.parametrize("size", [(480, 640), (333, 217), (64, 48)])
def test_answers_by_score_within_the_frame_and_without_twins(size: tuple[int, int]) -> None:
    found = detector().detect(picture(*size))
    assert 5 < len(found) <= 100
    assert lie_within(found.corners, size)
    assert bool((found.scores > 0.01).all()) and found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    twins = box_iou(found.corners, found.corners).fill_diagonal_(0)
    assert twins[found.labels[:, None] == found.labels].max() < 0.6 + 1e-4


def test_the_same_frame_twice_or_three_times_as_large() -> None:
    """Halved or cut to thirds by the resizing it is the same image again."""
    image = picture(320, 416, seed=3)
    found = detector().detect(image)
    for times in (2, 3):
        larger = detector().detect(image.repeat(times, 0).repeat(times, 1))
        assert torch.equal(larger.labels, found.labels)
        torch.testing.assert_close(larger.corners, times * found.corners, rtol=1e-3, atol=0.05)
        torch.testing.assert_close(larger.scores, found.scores, rtol=1e-3, atol=1e-4)


def test_a_larger_image_costs_accuracy_of_places_only_a_little(data: Path) -> None:
    """Half a photograph's size: what is sure is found again where it was."""
    if not (path := data / "stills" / "coco80" / "images" / TABLE).is_file():
        pytest.skip(f"{path} is not here")
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    whole = detector(NanoDetSettings(threshold=0.4)).detect(np.array(image))
    half = detector(NanoDetSettings()).detect(np.array(image.resize((image.width // 2, image.height // 2))))
    overlap = box_iou(whole.corners / 2, half.corners)
    assert len(whole) >= 2 and bool((torch.where(whole.labels[:, None] == half.labels, overlap, 0) > 0.7).any(1).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2), (31, 33), (7, 7)])
def test_frames_of_odd_sizes(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(1)
    found = detector().detect(draw.integers(0, 256, (*size, 3), dtype=np.uint8))
    assert lie_within(found.corners, size)
    assert found.corners.isfinite().all() and len(found) <= 100


def test_a_view_is_as_good_as_a_copy() -> None:
    image = picture(96, 128)[:, ::-1]
    assert torch.equal(detector().detect(image).corners, detector().detect(image.copy()).corners)


def test_at_most_so_many() -> None:
    every, few = (detector(replace(MANY, max_boxes=most)).detect(picture(320, 416)) for most in (100, 3))
    assert len(few) == 3
    assert torch.equal(few.corners, every.corners[:3])


def test_the_threshold_only_takes_away() -> None:
    every, some_ = (detector(replace(MANY, threshold=t, max_boxes=1000)).detect(picture(320, 416)) for t in (0.05, 0.1))
    assert 0 < len(some_) < len(every)
    assert torch.equal(some_.corners, every.corners[every.scores > 0.1])


# -- before the network


@given(some.integers(1, 5000), some.integers(1, 5000), some.sampled_from([256, 320, 416, 512]))
def test_input_sizes_are_multiples_of_32_and_as_long_as_asked(h: int, w: int, long_side: int) -> None:
    rows, columns = compute_input_size((h, w), long_side)
    assert rows % 32 == columns % 32 == 0 and min(rows, columns) >= 32
    assert max(rows, columns) == (rows if h >= w else columns) == long_side
    scale = long_side / max(h, w)
    assert abs(rows - h * scale) <= 16 or rows == 32
    assert abs(columns - w * scale) <= 16 or columns == 32


def test_a_pixel_as_the_network_takes_it() -> None:
    red, green, blue = normalize_bgr(np.array([[[200, 100, 50]]], dtype=np.uint8))[0, :, 0, 0].flip(0).tolist()
    assert red == pytest.approx((200 - 123.675) / 58.395)
    assert green == pytest.approx((100 - 116.28) / 57.12)
    assert blue == pytest.approx((50 - 103.53) / 57.375)


# -- after it


def test_a_cell_may_be_of_two_categories() -> None:
    scores = torch.zeros(3, 80)
    scores[0, 5], scores[2, 5], scores[2, 9], scores[1, 1] = 0.3, 0.6, 0.4, 0.05
    places = torch.arange(12.0).view(3, 4)
    found = choose_candidates(scores, places, NanoDetSettings())
    assert list(zip(found.labels.tolist(), found.corners.tolist(), strict=True)) == [
        (5, [8, 9, 10, 11]),
        (9, [8, 9, 10, 11]),
        (5, [0, 1, 2, 3]),
    ]
    best = choose_candidates(scores, places, NanoDetSettings(max_candidates=2))
    assert best.scores.tolist() == pytest.approx([0.6, 0.4])


def test_twins_of_one_category_go_and_others_stay() -> None:
    """The second overlaps the first by 9 / 11 and is of its category; the third is of another; the fourth overlaps the
    first by exactly 6 / 10, which is not more than 0.6.
    """
    rows = [[0.0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [0, 0, 10, 6]]
    kept = apply_category_nms(boxes(rows, [0.5, 0.9, 0.4, 0.3], [3, 3, 8, 3]), 0.6)
    assert sorted(zip(kept.labels.tolist(), kept.scores.tolist(), strict=True)) == [
        (3, pytest.approx(0.3)),
        (3, pytest.approx(0.9)),
        (8, pytest.approx(0.4)),
    ]
    assert len(apply_category_nms(boxes([], [], []), 0.6)) == 0


@given(some.integers(0, 30), some.integers(0, 2**16))
def test_what_stays_overlaps_little_and_what_goes_overlaps_a_better_one(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    low = draw.integers(0, 20, (count, 2))
    corners = np.concatenate([low, low + draw.integers(1, 20, (count, 2))], axis=1).astype(np.float32)
    scores = draw.permutation(count).astype(np.float32)  # each its own
    given_ = Boxes(*(torch.from_numpy(x) for x in (corners, scores, draw.integers(0, 3, count))))
    kept = apply_category_nms(given_, 0.6)
    alike = (box_iou(given_.corners, kept.corners) > 0.6) & (given_.labels[:, None] == kept.labels)
    better = alike & (given_.scores[:, None] < kept.scores)
    stays = torch.isin(given_.scores, kept.scores)
    assert torch.equal(better.any(1), ~stays)
    assert torch.equal(alike[stays].sum(1), torch.ones(len(kept), dtype=torch.int64))  # itself


# -- as a detector of what is named


def test_is_a_detector_of_coco_names() -> None:
    assert isinstance(detector(), TextDetector)
    assert detector().threshold == 0.01 and detector().weights == {"nanodet": ZOO["nanodet"].sha256}
    assert detector().query(["toothbrush", "person"]).tolist() == [79, 0]


def test_finds_only_what_is_asked_under_the_prompts_numbers() -> None:
    frame = Frame(0, picture(320, 416))
    every = detector().detect(frame.image)
    first, second = every.labels.unique().tolist()[:2]
    found = detector().find(frame, torch.tensor([second, first]))
    wanted = [(1, n) if label == first else (0, n) for n, label in enumerate(every.labels) if label in (first, second)]
    assert found.labels.tolist() == [prompt for prompt, _ in wanted]
    assert torch.equal(found.corners, every.corners[[n for _, n in wanted]])
    assert len(detector().find(frame, torch.tensor([], dtype=torch.int64))) == 0


@pytest.mark.parametrize("name, hint", [("dogs", "did you mean 'dog'"), ("spaceship", "they are: person, bicycle")])
def test_other_names_are_refused(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=rf"nanodet: '{name}' is none of the 80 .*{hint}"):
        find_label(name)


# -- the weights


def test_damaged_weights_are_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(ZOO["nanodet"].path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"weights nanodet: .*other\.safetensors has sha256"):
        load_nanodet(file=replace(ZOO["nanodet"], path=other))
    with pytest.raises(InputError, match=r"weights nanodet: cannot read .*gone"):
        load_nanodet(file=replace(ZOO["nanodet"], path=tmp_path / "gone"))


def test_the_network_does_not_learn_and_is_in_float32() -> None:
    network = detector().network
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_licence_lies_beside_the_weights() -> None:
    text = ZOO["nanodet"].path.with_suffix(".LICENSE").read_text()
    assert "Vladimir Mandic" in text and "Permission is hereby granted" in text
