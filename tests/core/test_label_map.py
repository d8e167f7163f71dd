"""Masks in fast forms, packed and as label maps, against their plain twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import masks as plain

from masklet.core.instances import Detections, Prediction
from masklet.core.label_map import LabelMap, paint_in_front, rank_small_in_front
from masklet.core.masks import (
    compute_mutual_mask_iou,
    mask_iou,
    mask_nms,
    resize_above_zero,
    resize_bilinear,
    resolve_overlaps_by_area,
)
from masklet.core.rle import Rle, encode_label_image


def scatter(seed: int, most: int = 9) -> torch.Tensor:
    """Rectangles and noise, of which some are empty, equal, or wider than a word."""
    rng = np.random.default_rng(seed)
    h, w = int(rng.integers(1, 30)), int(rng.choice([1, 7, 63, 64, 65, 130, 200]))
    masks = np.zeros((int(rng.integers(0, most)), h, w), bool)
    for mask in masks:
        y, x = rng.integers(0, h), rng.integers(0, w)
        mask[y : y + rng.integers(0, h + 1), x : x + rng.integers(0, w + 1)] = True
        mask &= rng.random((h, w)) < rng.choice([0.5, 1.0])
    if len(masks) > 2:
        masks[-1] = masks[0]
    return torch.from_numpy(masks)


seeds = st.integers(0, 2**32 - 1)


@given(seeds, seeds)
def test_packed_iou_is_the_dense_one_to_the_bit(seed: int, other: int) -> None:
    a, b = scatter(seed), scatter(other)
    assert torch.equal(compute_mutual_mask_iou(a, range(len(a))), plain.mask_iou(a, a))
    assert torch.equal(mask_iou(a, a[1:]), plain.mask_iou(a, a[1:]))
    wide = torch.zeros(len(b), *a.shape[1:], dtype=torch.bool)
    h, w = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    wide[:, :h, :w] = b[:, :h, :w]
    assert torch.equal(mask_iou(a, wide), plain.mask_iou(a, wide))
    turned = a.transpose(1, 2)  # not contiguous
    assert torch.equal(mask_iou(turned, turned), plain.mask_iou(turned, turned))


@given(seeds, st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.floats(0, 1))
def test_what_scores_too_little_may_be_dropped_before_or_after_suppression(seed: int, iou: float, least: float) -> None:
    masks = scatter(seed)
    scores = torch.from_numpy(np.random.default_rng(seed).integers(0, 5, len(masks)) / 4).float()
    after = [row for row in plain.mask_nms(masks, scores, iou) if scores[row] >= least]
    assert mask_nms(masks, scores, iou, scores >= least).tolist() == after
    assert mask_nms(masks, scores, iou).tolist() == plain.mask_nms(masks, scores, iou)


@given(seeds)
def test_a_label_map_holds_the_masks_that_were_painted(seed: int) -> None:
    masks = scatter(seed, 12)
    resolved = resolve_overlaps_by_area(masks)
    assert torch.equal(resolved, plain.resolve_overlaps_by_area(masks) if len(masks) else masks)
    painted = LabelMap.paint(masks, range(len(masks)), rank_small_in_front)
    assert torch.equal(painted.stack(), resolved) and painted.areas.tolist() == resolved.flatten(1).sum(1).tolist()
    assert all(torch.equal(painted[row], mask) for row, mask in enumerate(resolved))
    assert painted.encode() == {row: Rle.encode(mask) for row, mask in enumerate(resolved)}
    other = LabelMap.paint(masks.flip(2), range(len(masks)), rank_small_in_front)
    common = [[int((a & b).sum()) for b in other.stack()] for a in resolved]
    assert painted.count_common(other).tolist() == common


@given(seeds)
def test_relabelled_maps_hold_the_masks_asked_for(seed: int) -> None:
    painted = LabelMap.paint(scatter(seed), range(len(scatter(seed))), rank_small_in_front)
    ids = [99, *reversed(painted.ids)][: len(painted)]
    some = painted.relabel(ids)
    assert list(some) == ids and all(id in some for id in ids) and -1 not in some
    for id, mask in some.items():
        assert torch.equal(mask, painted[id] if id in painted else torch.zeros(painted.size, dtype=torch.bool))
    assert torch.equal(painted.renumber(5).stack(), painted.stack()) and 5 + len(painted) not in painted.renumber(5)


@given(seeds)
def test_the_greatest_number_lies_in_front(seed: int) -> None:
    masks = scatter(seed)
    numbers = np.random.default_rng(seed).permutation(len(masks)).tolist()  # one of them 0: not painted
    layers = [(LabelMap.paint(masks, [row], rank_small_in_front), [numbers[row]]) for row in range(len(masks))]
    expected = (masks * torch.tensor(numbers, dtype=torch.int64)[:, None, None]).amax(0) if len(masks) else None
    canvas = paint_in_front(layers, (masks.shape[1], masks.shape[2]))
    assert (torch.from_numpy(canvas) == (0 if expected is None else expected)).all()


@settings(max_examples=25)
@given(seeds)
def test_windows_hold_all_of_a_resized_map_that_is_above_0_to_the_bit(seed: int) -> None:
    rng, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    old, new = (tuple(rng.integers(1, 60, 2).tolist()) for _ in range(2))
    new = old if seed % 5 == 0 else new
    maps = torch.randn(4, *old, generator=draw) * 5 - float(rng.choice([0, 5, 9]))
    rest = plain.resize(maps, new)
    for row, window, values in resize_above_zero(list(maps), new):
        torch.testing.assert_close(values, rest[row][window], atol=1e-5, rtol=1e-6)
        assert torch.equal(values > 0, rest[row][window] > 0)
        rest[row][window] = -1
    assert not (rest > 0).any()


@settings(max_examples=25)
@given(seeds, st.integers(1, 3))
def test_what_is_drawn_of_a_belief_is_what_is_drawn_plainly(seed: int, k: int) -> None:
    draw, size = torch.Generator().manual_seed(seed), (37, 50)
    logits = resize_bilinear(torch.randn(5 * k, 4, 6, generator=draw) * 4 - 1, (20, 31)).view(5, k, 20, 31)
    belief = Prediction(
        (3, 1, 4, 5, 9), logits, torch.rand(5, k, generator=draw), torch.randn(5, k, generator=draw) + 0.5
    )
    best = belief.pick(belief.quality.argmax(1))
    there = best.presence[:, 0] > 0
    masks = (plain.resize(best.logits[:, 0], size) > 0) & there[:, None, None]
    assert torch.equal(belief.masks(size), masks)
    assert torch.equal(belief.label_map(size).stack(), plain.exclude(best.logits[:, 0], there, size))
    assert belief.label_map(size).ids == belief.ids


def test_an_image_of_numbers_ends_in_runs_of_every_kind() -> None:
    for numbers in ([[1]], [[0]], [[1, 0], [0, 1]], [[2, 2], [2, 2]], [[0, 1], [0, 1]]):
        image = np.array(numbers, np.int32)
        assert encode_label_image(image, 3) == [Rle.encode_pixels(image == n) for n in (1, 2, 3)]


def test_detections_that_are_all_asked_for_are_not_copied() -> None:
    found = Detections(torch.ones(2, 3, 4, dtype=torch.bool), torch.tensor([0.5, 0.7]), torch.tensor([0, 1]))
    assert found[found.scores > 0.1] is found and len(found[found.scores > 0.6]) == 1
    left = Detections(found.masks, found.scores, found.labels, torch.tensor([0.1]))
    assert left.all_scores.tolist() == pytest.approx([0.5, 0.7, 0.1])
