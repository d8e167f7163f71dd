"""Outlines, on pictures of two colours."""

from __future__ import annotations

import cv2
import numpy as np

from masklet.nn.outline import (
    BINS,
    CHROMA,
    compute_colour_histogram,
    fit_guided_filter,
    quantize_colours,
    refine_mask_by_colour,
)

SIZE = (60, 80)


def disc(size: tuple[int, int] = SIZE) -> np.ndarray:
    y, x = np.indices(size)
    return (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < (size[0] / 4) ** 2


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 6, (*size, 3))
    colours = np.where(disc(size)[..., None], (200, 60, 60), (60, 90, 160))
    return (colours + noise).clip(0, 255).astype(np.uint8)


def rough() -> np.ndarray:
    """The disc, shifted and blurred: what motion says of it."""
    return cv2.GaussianBlur(np.roll(disc().astype(np.float32), 4, axis=1), (0, 0), 4)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_colour_puts_a_shifted_outline_right() -> None:
    near = np.ones(SIZE, bool)
    soft = refine_mask_by_colour(picture(), rough(), near)
    assert iou(rough() > 0.5, disc()) < 0.8
    assert iou(soft > 0.5, disc()) > 0.97


def test_nothing_is_found_away_from_where_it_is_looked_for() -> None:
    near = np.ones(SIZE, bool)
    near[:, 40:] = False
    assert (refine_mask_by_colour(picture(), rough(), near)[:, 40:] == 0).all()


def test_one_colour_says_nothing() -> None:
    image = np.full((*SIZE, 3), 99, np.uint8)
    soft = refine_mask_by_colour(image, np.full(SIZE, 0.7, np.float32), np.ones(SIZE, bool))
    assert np.allclose(soft, 0.7, atol=1e-4)


def test_the_guided_filter_follows_edges_and_keeps_constants() -> None:
    lines = fit_guided_filter(picture(), rough(), radius=8)
    assert iou(lines.at(picture()) > 0.5, disc()) > iou(rough() > 0.5, disc())
    level = np.full(SIZE, 0.3, np.float32)
    assert np.allclose(fit_guided_filter(picture(), level).at(picture()), 0.3, atol=1e-3)


def test_lines_are_read_at_a_finer_size() -> None:
    lines = fit_guided_filter(picture(), disc().astype(np.float32), radius=8)
    fine = lines.at(picture((120, 160)))
    assert fine.shape == (120, 160)
    assert iou(fine > 0.5, disc((120, 160))) > 0.95


def test_a_bin_is_the_place_of_a_colour_in_lab() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int64)
    chroma = ((lab[..., 1:] - 128) * CHROMA + 128).clip(0, 255).astype(np.int64) * BINS // 256
    bins = quantize_colours(image)
    assert bins.dtype == np.int32
    np.testing.assert_array_equal(bins, (lab[..., 0] * BINS // 256 * BINS + chroma[..., 0]) * BINS + chroma[..., 1])


def test_a_histogram_is_shares_of_neighbouring_colours() -> None:
    bins = quantize_colours(np.full((4, 4, 3), 128, np.uint8))
    shares = compute_colour_histogram(bins, np.ones((4, 4), np.float32))
    assert shares.shape == (BINS**3,)
    assert np.isclose(shares.sum(), 1) and np.isclose(shares[bins[0, 0]], 1 / 8)
    assert (compute_colour_histogram(bins, np.zeros((4, 4), np.float32)) == 0).all()
