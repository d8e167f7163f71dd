"""Results as rows, arrays, polygons and numbers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1] / "io"))

from forms import bits, drafts, made, masklet, masks, video

from masklet.core.errors import InputError
from masklet.core.outlines import join_polygons, trace_polygons
from masklet.core.rle import Rle, encode_polygons
from masklet.core.tables import compute_centroid, list_rows

RING = np.array([[0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1]], bool)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(SIZES.flatmap(masks))
@example(RING)
@example(np.array([[1, 0], [0, 1]], bool))
@example(np.array([[0, 1], [1, 0]], bool))
@settings(max_examples=80)
def test_polygons_are_the_mask_to_the_pixel(pixels):
    mask = Rle.encode_pixels(pixels)
    polygons = trace_polygons(mask)
    assert encode_polygons([p.ravel().tolist() for p in polygons], mask.size) == mask
    assert encode_polygons([join_polygons(polygons).ravel().tolist()], mask.size) == mask
    assert len(polygons) == count_parts(pixels)


def count_parts(pixels):
    from scipy.ndimage import label

    return label(pixels)[1]


def test_polygons_by_hand_and_simpler_ones():
    [outer, dot] = trace_polygons(Rle.encode_pixels(RING))
    assert dot.tolist() == [[4, 3], [5, 3], [5, 4], [4, 4]]
    assert outer.tolist()[:3] == [[1, 0], [2, 1], [3, 1]]  # in by a cut to the hole
    y, x = np.mgrid[:80, :80]
    disc = Rle.encode_pixels((y - 40) ** 2 + (x - 40) ** 2 < 900)
    [exact], [simple] = trace_polygons(disc), trace_polygons(disc, 1.0)
    assert len(simple) < len(exact) / 4
    assert encode_polygons([simple.ravel().tolist()], (80, 80)).iou(disc) > 0.95
    assert trace_polygons(Rle.encode_pixels(np.zeros((3, 3), bool))) == []


@given(SIZES.flatmap(masks), st.floats(0, 30))
@settings(max_examples=50)
def test_no_tolerance_loses_a_part(pixels, tolerance):
    """Objects of a few pixels were missing in LabelMe's and Ultralytics' files, parts of others in COCO's."""
    polygons = trace_polygons(Rle.encode_pixels(pixels), tolerance)
    assert len(polygons) == count_parts(pixels) and all(len(polygon) >= 3 for polygon in polygons)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none(tolerance):
    with pytest.raises(InputError, match="the tolerance must be a number of pixels from 0 on"):
        video(masklet(1, {0: "111 000"}, 0)).polygons(0, tolerance)


@given(SIZES.flatmap(masks))
@settings(max_examples=50)
def test_centroid(pixels):
    y, x = np.nonzero(pixels)
    assert compute_centroid(Rle.encode_pixels(pixels)) == pytest.approx((x.mean() + 0.5, y.mean() + 0.5))


@given(drafts())
@settings(max_examples=20)
def test_rows_and_arrays_say_the_same(draft):
    result = made(draft)
    rows = list(list_rows(result))
    assert len(rows) == sum(len(m.sightings) for m in result.masklets)
    for t in range(result.length):
        seen, boxes, stack = [r for r in rows if r.frame == t], result.boxes(t), result.to_numpy(t)
        assert [[r.x0, r.y0, r.x1, r.y1] for r in seen] == boxes.tolist()
        assert stack.shape == (len(seen), *result.size)
        assert stack.sum(axis=(1, 2)).tolist() == [r.area for r in seen]
        assert list(result.polygons(t)) == [r.id for r in seen]
    assert {id: path[:, 0].tolist() for id, path in result.tracks().items()} == {
        m.id: sorted(m.sightings) for m in result.masklets
    }
    stats = result.statistics()
    assert [o.frames for o in stats.objects] == [len(m.sightings) for m in result.masklets]
    assert [f.covered for f in stats.frames] == [
        sum(r.area for r in rows if r.frame == t) for t in range(result.length)
    ]


def test_a_frame_that_is_not_there():
    for ask in (video().boxes, video().to_numpy, video().polygons):
        with pytest.raises(InputError, match="no frame 3"):
            ask(3)


def test_statistics_by_hand():
    one = masklet(1, {0: "1100 0000", 1: "0110 0000", 3: "0011 0000"}, 0, 0.5)
    result = video(one, size=(2, 4), length=5)
    [told] = result.statistics().objects
    assert (told.id, told.name, told.score, told.first, told.last, told.frames) == (1, "cat", 0.5, 0, 3, 3)
    assert (told.visibility, told.mean_area, told.smallest_area, told.largest_area) == (0.75, 2.0, 2, 2)
    assert (told.path, told.mean_speed, told.top_speed) == (2.0, 25.0, 25.0)  # 1 pixel in 1/25 s; the gap counts not
    assert told.mean_confidence == pytest.approx(0.3)
    timed = replace(result, times=(0.0, 0.5, 0.6, 0.7, 0.8))
    assert timed.statistics().objects[0].mean_speed == 2.0


def boxes(id, places, presence=0.0):
    """An object that is a square at each frame's (x, y, side)."""
    base = replace(masklet(1, {0: "1"}).sightings[0], presence=presence)
    seen = {}
    for t, (x, y, side) in places.items():
        pixels = np.zeros((60, 90), bool)
        pixels[y : y + side, x : x + side] = True
        seen[t] = replace(base, mask=Rle.encode_pixels(pixels))
    return replace(masklet(id, {}), sightings=seen)


def suspect(*masklets):
    found = video(*masklets, size=(60, 90), length=12).statistics().suspicious
    return [(s.frame, s.id, s.reason, round(s.value, 2)) for s in found]


def test_jumps_of_area():
    still = {t: (30, 20, 10) for t in range(9)}
    assert suspect(boxes(1, still | {4: (30, 20, 12)})) == []  # by 1.44
    assert suspect(boxes(1, still | {4: (30, 20, 13)})) == [(4, 1, "area", 1.69)]  # and back in the next: one event
    assert suspect(boxes(1, still | {3: (30, 20, 13), 8: (30, 20, 5)})) == [(3, 1, "area", 1.69), (8, 1, "area", 4.0)]
    assert suspect(boxes(1, {t: (30, 20, 1) for t in range(9)})) == []
    assert suspect(boxes(1, {0: (30, 20, 1), 1: (30, 21, 1), 2: (34, 20, 1)})) == []  # too small to look at
    assert suspect(boxes(1, {t: (0, 20, 10 if t < 4 else 20) for t in range(9)})) == []  # it comes in
    assert suspect(boxes(1, {0: (30, 20, 10), 2: (30, 20, 20)})) == []  # it was not seen between


def test_jumps_of_place():
    assert suspect(boxes(1, {t: (2 + 9 * t, 20, 6) for t in range(9)})) == [
        (1, 1, "place", 1.5)
    ]  # only where it begins
    leap = {t: (10 if t < 5 else 40, 20, 10) for t in range(9)}
    assert suspect(boxes(1, leap)) == [(5, 1, "place", 3.0)]
    assert suspect(boxes(1, {0: (10, 20, 10), 1: (10, 20, 10), 3: (40, 20, 10), 4: (40, 20, 10)})) == []


def test_switches_and_absence():
    ends, begins = boxes(3, {0: (30, 20, 10)}), boxes(4, {1: (30, 20, 10)})
    absent = boxes(5, {2: (60, 40, 10), 4: (60, 40, 10), 9: (60, 40, 10)}, presence=-1.5)
    assert suspect(ends, begins, absent) == [(1, 4, "switch", 1.0), (2, 5, "presence", -1.5), (9, 5, "presence", -1.5)]


def test_tables_with_and_without_pandas(monkeypatch):
    result = video(masklet(1, {0: "111 000"}))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs pandas, which is not installed: pip install pandas"):
        result.to_dataframe()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    table = result.to_dataframe()
    assert isinstance(table, pandas.DataFrame) and table["area"].tolist() == [3] and len(table.columns) == 14


def test_repr_is_short_whatever_is_in_it():
    many = tuple(masklet(n, {0: "1"}, 0) for n in range(1, 400))
    result = video(*many, name="n" * 5000, size=(1, 1), categories=("c" * 10_000,))
    assert len(repr(result)) < 1000 and "389 more" in repr(result)
    assert (
        repr(video(masklet(7, {0: "111 000", 2: "111 000"}, 1)))
        == "<VideoResult clip: 3x2, 3 frames, objects: dog 7 (2 frames)>"
    )
    assert bits("1").area == 1
