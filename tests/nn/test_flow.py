"""Optical flow and the camera's motion, on motions made by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from masklet.nn.flow import (
    compute_dense_flow,
    compute_planar_flow,
    compute_weighted_median,
    estimate_camera_motion,
    measure_unexplained_variance,
    pad_for_flow,
)

MOTION = np.array([1.0, 0.5, -0.3, -2.0, 0.2, 0.4, 0.3, -0.2])


def texture(size: tuple[int, int]) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, size).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 2)
    return (120 + 45 * blobs / blobs.std()).clip(0, 255).astype(np.uint8)


def window(y: int, x: int) -> np.ndarray:
    return np.ascontiguousarray(texture((140, 180))[y : y + 120, x : x + 160])


def test_a_shift_is_measured() -> None:
    flow = compute_dense_flow(window(10, 10), window(8, 7))
    assert np.abs(np.median(flow, axis=(0, 1)) - (3, 2)).max() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (2, 640), (1, 854), (640, 2), (12, 300), (160, 640)])
def test_pictures_that_are_small_or_wide_have_a_flow_too(size: tuple[int, int]) -> None:
    """OpenCV's ends the process on some of them."""
    start, end = texture((size[0], size[1] + 1))[:, :-1], texture((size[0], size[1] + 1))[:, 1:]
    flow = compute_dense_flow(np.ascontiguousarray(start), np.ascontiguousarray(end))
    assert flow.shape == (*size, 2) and np.isfinite(flow).all()
    if min(size) >= 12:
        assert np.abs(np.median(flow, axis=(0, 1)) - (-1, 0)).max() < 0.1


def test_what_is_large_enough_is_not_padded() -> None:
    picture = window(10, 10)
    assert pad_for_flow(picture) is picture
    assert pad_for_flow(texture((10, 90))).shape == (30, 90) and pad_for_flow(texture((90, 10))).shape == (90, 24)


def test_the_planes_motion_is_found_under_a_large_object_and_noise() -> None:
    flow = compute_planar_flow(MOTION, 40, 71)
    flow += np.random.default_rng(1).normal(0, 0.1, flow.shape).astype(np.float32)
    flow[8:36, 12:60] += (9, -4)  # 47 % of the picture
    motion, scale = estimate_camera_motion(flow)
    assert np.abs(compute_planar_flow(motion, 40, 71) - compute_planar_flow(MOTION, 40, 71)).max() < 0.1
    assert 0.1 <= scale < 0.5


def test_a_planes_flow_is_the_same_on_every_grid() -> None:
    fine, coarse = compute_planar_flow(MOTION, 60, 90), compute_planar_flow(MOTION, 20, 30)
    assert np.allclose(fine[1::3, 1::3], coarse, atol=1e-5)


def test_a_cut_is_unexplained_and_a_shift_is_not() -> None:
    start, shifted, other = window(10, 10), window(8, 7), window(10, 10)[::-1, ::-1]
    assert measure_unexplained_variance(start, shifted, compute_dense_flow(start, shifted)) < 0.1
    still = np.zeros((120, 160, 2), np.float32)
    assert measure_unexplained_variance(start, np.ascontiguousarray(other), still) > 1
    flat = np.full((120, 160), 7, np.uint8)
    assert measure_unexplained_variance(flat, flat, still) == 0


def test_weights_move_the_median() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert compute_weighted_median(values, np.ones(4)) == 2
    assert compute_weighted_median(values, np.array([0.0, 0.0, 1.0, 3.0])) == 4
