from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from reference import vis as plain

from masklet.core.rle import decode_rle_counts
from masklet.evaluate.vis import boundary as edge
from masklet.evaluate.vis import tubes

videos = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(arrays(bool, shape), min_size=1, max_size=4)
)


def counts(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))["counts"]


def held(video):
    """Tubes of dense masks [t h w]; null and an empty mask by turns where there is no pixel."""
    lists = [
        [counts(m) if m.any() or (n + t) % 2 else None for t, m in enumerate(masks)] for n, masks in enumerate(video)
    ]
    return tubes.decode_tubes(lists, video[0][0].size)


def dense(tube, shape):
    """Pixels [t h w] of a tube."""
    frames, height, width = shape
    flat = np.zeros(frames * height * width + 1, int)
    np.add.at(flat, tube.edges[::2].astype(int), 1)
    np.add.at(flat, tube.edges[1::2].astype(int), -1)
    return flat.cumsum()[:-1].reshape(frames, width, height).transpose(0, 2, 1).astype(bool)


@given(videos)
def test_iou_of_run_lengths_is_that_of_pixels(video):
    got = tubes.compute_tube_ious(held(video), held(video))
    for i, a in enumerate(video):
        for j, b in enumerate(video):
            assert got[i, j] == ((a & b).sum() / (a | b).sum() if (a | b).any() else 0)


@given(videos)
def test_a_tube_is_its_pixels(video):
    for tube, masks in zip(held(video), video, strict=True):
        assert (dense(tube, masks.shape) == masks).all()
        assert (tube.areas == masks.sum((1, 2))).all()


@given(videos, st.integers(1, 3))
def test_the_longer_list_is_cut(video, frames):
    full, cut = held(video), held([masks[:frames] for masks in video])
    np.testing.assert_array_equal(tubes.compute_tube_ious(full, cut), tubes.compute_tube_ious(cut, cut))
    np.testing.assert_array_equal(tubes.compute_tube_ious(cut, full), tubes.compute_tube_ious(cut, cut))


def test_absent_on_one_side_adds_to_the_union():
    left, none = np.ones((1, 2, 3), bool), np.zeros((1, 2, 3), bool)
    a, b = held([np.concatenate([left, left]), np.concatenate([left, none])])
    assert tubes.compute_tube_ious([a], [b])[0, 0] == 0.5
    assert tubes.compute_tube_ious([], [a]).shape == (0, 1)


@given(st.lists(arrays(bool, (7, 5)), min_size=1, max_size=6))
def test_many_masks_decode_as_each_alone(masks):
    frames = np.random.default_rng(len(masks)).integers(0, 9, len(masks))
    edges, firsts, pixels = tubes.decode_wide_runs([counts(m) for m in masks], frames, 35)
    for n, mask in enumerate(masks):
        runs = decode_rle_counts(counts(mask))
        ours = np.diff(edges[2 * firsts[n] : 2 * firsts[n + 1]] - 35 * frames[n], prepend=0)
        assert ours[: len(runs)].tolist() == runs.tolist() and not ours[len(runs) :].any()
        assert pixels[n] == mask.sum()


def test_long_runs():
    mask = np.zeros((2000, 3000), bool)
    mask[1, 2999] = mask[0, 0] = True
    edges, _, pixels = tubes.decode_wide_runs([counts(mask)], np.array([0]), mask.size)
    assert edges.tolist() == [0, 1, 2999 * 2000 + 1, 2999 * 2000 + 2] + [mask.size] * 2 and pixels.tolist() == [2]


# The last bad one says 5, -2, 33.
GOOD = counts(np.eye(6, dtype=bool))


@pytest.mark.parametrize(
    "bad", [b"", b"\x20", GOOD[:-1], GOOD + b"1", GOOD + b"p", b"P", b"PPPPPPPP1", b"o0", b"nn", GOOD + b"`", b"5NQ1"]
)
def test_damaged_run_lengths_are_refused(bad):
    for counts_ in ([GOOD, bad, GOOD], [bad], [bad, GOOD], [GOOD, bad]):
        with pytest.raises(ValueError):
            tubes.decode_wide_runs(counts_, np.arange(len(counts_)), 36)
    with pytest.raises(ValueError):
        tubes.decode_wide_runs([GOOD], np.array([0]), 35)


@given(videos)
def test_the_boundary_is_the_definition(video):
    size = video[0].shape[1:]
    for tube, masks in zip(held(video), video, strict=True):
        got = edge.extract_tube_boundary(tube, size)
        wanted = [coco.decode(plain.boundary(coco.encode(np.asfortranarray(m, np.uint8)))) for m in masks]
        assert (dense(got, masks.shape) == wanted).all()
        assert (got.areas == np.sum(wanted, (1, 2))).all()


@pytest.mark.parametrize("canvas", [1, 300 * 400, 1 << 30])
def test_wide_boundaries_however_many_frames_are_drawn_at_once(canvas, monkeypatch):
    monkeypatch.setattr(edge, "CANVAS", canvas)
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 300, 400), bool)  # boundaries of 10 pixels
    masks[0, 40:200, 380:] = masks[1, 40:200, :30] = masks[2] = True  # side by side, the first two touch
    masks[3, 5:280, 5:380] = rng.random((275, 375)) < 0.999
    got = dense(edge.extract_tube_boundary(held([masks])[0], (300, 400)), masks.shape)
    for t, mask in enumerate(masks):
        assert (got[t] == coco.decode(plain.boundary(coco.encode(np.asfortranarray(mask, np.uint8))))).all()


def test_the_frame_s_border_is_boundary():
    got = dense(edge.extract_tube_boundary(held([np.ones((1, 90, 80), bool)])[0], (90, 80)), (1, 90, 80))
    inner = np.pad(np.zeros((86, 76), bool), 2, constant_values=True)
    assert edge.compute_boundary_width((90, 80)) == 2 and (got[0] == inner).all()


def test_depth_is_rounded_half_to_even_and_at_least_one():
    assert (
        edge.compute_boundary_width((3, 4)) == 1
        and edge.compute_boundary_width((75, 100)) == 2
        and edge.compute_boundary_width((105, 140)) == 4
    )  # 2.5 and 3.5
