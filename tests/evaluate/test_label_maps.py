from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from vos_folders import page, save

from masklet.core.errors import InputError
from masklet.evaluate.vos.label_maps import (
    LabelFrame,
    compute_joint_window,
    find_label_boxes,
    measure_box_gap,
    read_labels,
    read_mask_frame,
    read_plain_png,
)

maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 1, 2, 255]))
)


@given(maps)
def test_boxes_hold_their_values_and_no_row_more(labels):
    found = find_label_boxes(labels)
    assert found.keys() == {int(v) for v in np.unique(labels) if v}
    for value, (top, bottom, left, right) in found.items():
        ys, xs = np.nonzero(labels == value)
        assert (top, bottom) == (ys.min(), ys.max() + 1)
        assert left <= xs.min() and right > xs.max()
        assert (left, right) in ((xs.min(), xs.max() + 1), (0, labels.shape[1]))


def test_only_what_touches_both_sides_has_a_wider_box():
    assert find_label_boxes(page((1, 3, 9, 4, 9), (2, 0, 5, 20, 32))) == {1: (3, 9, 4, 9), 2: (0, 5, 20, 32)}


@given(maps, maps)
def test_a_window_leaves_nothing_out_and_stays_inside(a, b):
    a, b = (np.resize(x, (7, 8)) for x in (a, b))
    rows, cols = compute_joint_window(find_label_boxes(a).get(1), find_label_boxes(b).get(1), (7, 8))
    outside = (a == 1) | (b == 1)
    outside[rows, cols] = False
    assert not outside.any()
    assert 0 <= (rows.start or 0) <= rows.stop <= 7 and 0 <= (cols.start or 0) <= cols.stop <= 8


def test_how_far_boxes_are_apart():
    assert measure_box_gap((0, 2, 0, 2), (4, 5, 0, 9)) == measure_box_gap((4, 5, 0, 9), (0, 2, 0, 2)) == 2
    assert measure_box_gap((0, 2, 0, 2), (0, 2, 7, 9)) == 5
    assert measure_box_gap((0, 2, 0, 2), (2, 3, 1, 2)) == 0
    assert measure_box_gap((0, 4, 0, 4), (1, 2, 1, 2)) < 0


def test_void_is_no_highest_id():
    assert LabelFrame(page((3, 0, 2, 0, 2), (255, 5, 9, 0, 3))).highest == 3
    assert LabelFrame(page()).highest == 0


@pytest.mark.parametrize("mode", ["P", "L"])
def test_ids_are_the_values(tmp_path, mode):
    labels = page((3, 0, 2, 0, 2), (255, 5, 9, 0, 3))
    save(tmp_path / "a.png", labels, mode)
    assert (read_labels(tmp_path / "a.png").labels == labels).all()
    assert (read_plain_png(tmp_path / "a.png") is not None) == (mode == "P")  # Pillow stores grey rows as differences


def test_what_is_not_a_plain_png_is_left_to_pillow(tmp_path):
    labels = np.arange(24 * 32, dtype=np.uint32).reshape(24, 32).astype(np.uint8)  # rows are stored as differences
    Image.fromarray(labels).save(tmp_path / "differences.png")
    few = Image.fromarray(page((1, 2, 9, 3, 8)))
    few.putpalette([0, 0, 0, 255, 0, 0])
    few.save(tmp_path / "bits.png", bits=1)
    assert read_plain_png(tmp_path / "bits.png") is None and read_plain_png(tmp_path / "differences.png") is None
    assert (read_labels(tmp_path / "differences.png").labels == labels).all()
    assert (read_labels(tmp_path / "bits.png").labels == page((1, 2, 9, 3, 8))).all()


@pytest.mark.parametrize("cut", [0, 7, 20, 60, -30, -6])
def test_a_damaged_png_is_named(tmp_path, cut):
    save(tmp_path / "a.png", page((1, 2, 9, 3, 8)), "L")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:cut] if cut != -6 else data[:-30] + bytes(18) + data[-12:])
    with pytest.raises(InputError, match=r"a\.png: not an image that can be read"):
        read_labels(tmp_path / "a.png")


def test_colours_are_no_ids_and_sizes_must_agree(tmp_path):
    save(tmp_path / "rgb.png", page((1, 2, 9, 3, 8)), "RGB")
    save(tmp_path / "a.png", page((1, 2, 9, 3, 8)))
    with pytest.raises(InputError, match=r"rgb\.png: an image of mode RGB; give palette images"):
        read_labels(tmp_path / "rgb.png")
    for read in (read_labels, read_mask_frame):
        with pytest.raises(InputError, match=r"a\.png: .*the video has"):
            read(tmp_path / "a.png", (24, 31))


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_mask_is_whatever_is_not_black(tmp_path, mode):
    save(tmp_path / "a.png", page((255, 2, 9, 3, 8)), mode)
    frame = read_mask_frame(tmp_path / "a.png")
    assert (frame.labels == page((1, 2, 9, 3, 8))).all() and not frame.mixed


def test_a_mask_of_several_values_is_noticed(tmp_path):
    save(tmp_path / "a.png", page((255, 2, 9, 3, 8), (7, 0, 1, 0, 1)), "L")
    assert read_mask_frame(tmp_path / "a.png").mixed
