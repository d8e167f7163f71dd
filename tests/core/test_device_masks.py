"""Masks that become run lengths on another device: the same masks, and one copy that comes back."""

from __future__ import annotations

import numpy as np
import torch
from elsewhere import FETCHED, GPU, WithGpu
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from masklet.core.device_masks import encode_mask_edges, encode_masks, fetch_masks, find_mask_edges, paint_maps
from masklet.core.instances import Prediction
from masklet.core.rle import Rle


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_edges_are_the_run_lengths(pixels: np.ndarray) -> None:
    mask = torch.from_numpy(pixels)
    edges = find_mask_edges(mask[None])
    size = int(mask.shape[0]), int(mask.shape[1])
    assert edges[:, 0].eq(0).all() and encode_mask_edges(edges[:, 1].numpy(), size) == Rle.encode(mask)


@given(st.integers(0, 2**32), st.integers(0, 5))
def test_elsewhere_they_are_those_of_here(seed: int, count: int) -> None:
    drawn = np.random.default_rng(seed).random((count, 7, 11)) < 0.4
    masks = torch.from_numpy(drawn)
    with WithGpu():
        there = masks.to(GPU)
        FETCHED.clear()
        found, fetched = encode_masks(there), len(FETCHED)
        came_back = fetch_masks(there)
    assert fetched == 1 and found == [Rle.encode(mask) for mask in masks]
    assert came_back.equal(masks) and came_back.device.type == "cpu"


def draw_prediction(seed: int) -> Prediction:
    """Three hypotheses of five objects, of which some are absent."""
    torch.manual_seed(seed)
    return Prediction((3, 1, 4, 5, 9), torch.randn(5, 3, 6, 8), torch.rand(5, 3), torch.randn(5, 3))


@given(st.integers(0, 1000))
def test_a_belief_elsewhere_has_the_masks_that_it_has_here(seed: int) -> None:
    belief, size = draw_prediction(seed), (17, 25)
    masks, painted = belief.masks(size), belief.label_map(size)
    with WithGpu():
        there = Prediction(belief.ids, belief.logits.to(GPU), belief.quality, belief.presence)
        assert there.masks(size).equal(masks)
        FETCHED.clear()
        assert there.encode(size) == belief.encode(size) == [Rle.encode(mask) for mask in masks]
        assert len(FETCHED) == 1
        label_map = there.label_map(size)
        assert len(FETCHED) == 2
    for id in belief.ids:
        assert (id in label_map) == (id in painted)
    np.testing.assert_array_equal(label_map.areas, painted.areas)


def test_nobody_is_painted_nowhere() -> None:
    assert not paint_maps(torch.zeros(2, 3, 4), [0, 1], (5, 6)).any()
    assert not paint_maps(torch.ones(2, 3, 4), [], (5, 6)).any()
