"""Polygons, boxes and lists of runs from outside: as pycocotools has them, and safe where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from masklet.core.rle import Rle, encode_box, encode_polygons

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 50))
NEAR = st.floats(-60, 110, allow_nan=False) | st.integers(-60, 110)


def draw_by_coco(polygons: list[list[float]], size: tuple[int, int]) -> Rle:
    return Rle(size, coco.merge(coco.frPyObjects(polygons, *size))["counts"])


@given(
    SIZES, st.lists(st.lists(NEAR, min_size=6, max_size=14).filter(lambda p: len(p) % 2 == 0), min_size=1, max_size=3)
)
def test_polygons_that_lead_not_far_are_pycocotools_own(size: tuple[int, int], polygons: list[list[float]]) -> None:
    far = max(size)
    near = [[min(max(v, -far), far + min(size)) for v in p] for p in polygons]
    assert encode_polygons(near, size) == draw_by_coco(near, size)


@given(SIZES, st.tuples(NEAR, NEAR, st.floats(0, 200), st.floats(0, 200)))
def test_boxes_are_pycocotools_own(size: tuple[int, int], box: tuple[float, ...]) -> None:
    x, y, w, h = map(float, box)
    expected = draw_by_coco([[x, y, x + w, y, x + w, y + h, x, y + h]], size)
    assert encode_box(list(box), size).decode_pixels().tolist() == expected.decode_pixels().tolist()


@given(st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=6))
def test_a_triangle_that_leads_far_is_right_within_the_frame(points: list[float]) -> None:
    """But for the pixels along its edges, whose ends are moved by a fifth of a pixel at most."""
    size = (20, 30)
    corners = np.array(points).reshape(3, 2)
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    sides, distances = [], []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side = (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
        sides.append(side)
        distances.append(np.abs(side) / max(np.hypot(*(b - a)), 1e-9))
    inside = np.all([s > 0 for s in sides], axis=0) | np.all([s < 0 for s in sides], axis=0)
    clear = np.min(distances, axis=0) > 1.5
    assert (encode_polygons([points], size).decode_pixels() == inside)[clear].all()


@pytest.mark.parametrize("box", [[0, 0, 1e8, 1e8], [-1e300, -1e300, 2e300, 2e300], [-5, -5, 10**30, 10**30]])
def test_a_box_larger_than_the_frame_is_the_frame(box: list[float]) -> None:
    assert encode_box(box, (7, 9)).area == 63


@pytest.mark.parametrize("box", [[1e8, 1e8, 5, 5], [-9, 0, 3, 3], [2, 2, 0, 0], [9, 7, 1, 1]])
def test_a_box_beside_the_frame_or_of_no_size_is_empty(box: list[float]) -> None:
    assert encode_box(box, (7, 9)).area == 0


@pytest.mark.parametrize(
    "polygons",
    [
        *([], None, "text", 5, [None], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[[1, 2]] * 6], [[1, 2, 3, 4, 5, "6"]]),
        *([[1, 2, 3, 4, 5, v]] for v in (float("nan"), float("inf"), True, 10**400)),
    ],
)
def test_what_is_no_polygon(polygons: Any) -> None:
    with pytest.raises(ValueError, match="polygon"):
        encode_polygons(polygons, (9, 9))


@pytest.mark.parametrize("box", [None, [1, 2, 3], "text", [1, 2, -3, 4], [1, 2, float("nan"), 4], [1, 2, 3, True], {}])
def test_what_is_no_box(box: Any) -> None:
    with pytest.raises(ValueError, match="box"):
        encode_box(box, (9, 9))


def test_edges_without_end_are_refused() -> None:
    zigzag = np.random.default_rng(0).integers(0, 30_000, 2 * 1000).tolist()
    with pytest.raises(ValueError, match="edges are longer"):
        encode_polygons([zigzag], (30_000, 4_000))


@pytest.mark.parametrize("size", [(65_536, 65_536), (0, 5), (-1, 4), (30_000, 30_000)])
def test_masks_of_no_size_that_is_taken(size: tuple[int, int]) -> None:
    for encode, given_ in ((encode_box, [0, 0, 1, 1]), (encode_polygons, [[0, 0, 1, 0, 1, 1]]), (Rle.from_counts, [1])):
        with pytest.raises(ValueError, match="pixels"):
            encode(given_, size)
    with pytest.raises(ValueError, match="pixels"):
        Rle.checked(size, b"0")


def test_lists_of_runs() -> None:
    assert Rle.from_counts([0, 2, 2, 2], (2, 3)) == Rle.encode_pixels(np.array([[1, 0, 1], [1, 0, 1]], bool))
    for counts in ([5], [7, -1], [6.0], [True] * 6, "6", None, [10**30], [2**32 + 6]):
        with pytest.raises(ValueError, match="run lengths"):
            Rle.from_counts(counts, (2, 3))


def test_empty_runs_are_taken_out_before_pycocotools_merges_them() -> None:
    """It makes room for a run a pixel, and would write beyond it."""
    padded = Rle.checked((2, 2), b"1" + b"0" * 5000 + b"3")
    assert padded == Rle.encode_pixels(np.array([[0, 1], [1, 1]], bool))
    assert padded.overlap(padded) == padded.area == 3
