"""Framing of clips, sources in turn, and random numbers that depend on the step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from masklet.core.errors import InputError
from masklet.core.masks import resolve_overlaps_by_area
from masklet.core.rle import Rle
from masklet.train.data.clips import ClipSource, TrainingClip, seed_item_generator
from masklet.train.data.framing import (
    ClipView,
    FixedFraming,
    Framing,
    ShortSideFraming,
    apply_mirroring,
    build_clip,
    draw_clip_with_objects,
    join_affines,
    make_rotation,
    paint_id_map,
    transform_ids,
    transform_image,
)
from masklet.train.data.mixture import ClipMixture

UNIT = np.array([[1.0, 0, 0], [0, 1, 0]])


def picture(h=20, w=30):
    return np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)


def test_draws_depend_on_seed_step_and_item():
    values = {seed_item_generator(*key).integers(2**62) for key in ((0, 0), (0, 1), (1, 0), (0, 0, 1))}
    assert len(values) == 4
    assert seed_item_generator(3, 4).integers(2**62) == seed_item_generator(3, 4).integers(2**62)


# --- views


def test_the_unit_view_changes_nothing():
    shown = transform_image(picture(), ClipView((20, 30), UNIT))
    assert np.array_equal(shown, picture())


def test_a_view_crops_and_mirrors_pixel_for_pixel():
    affine = apply_mirroring(np.array([[1.0, 0, -4], [0, 1, -2]]), 10, True)
    assert np.array_equal(transform_image(picture(), ClipView((6, 10), affine)), picture()[2:8, 4:14][:, ::-1])
    ids = np.arange(600).reshape(20, 30).astype(np.uint16)
    assert np.array_equal(transform_ids(ids, ClipView((6, 10), affine)), ids[2:8, 4:14][:, ::-1])


def test_picture_and_objects_stay_together():
    ids = np.zeros((40, 60), np.uint16)
    ids[10:30, 20:35] = 3
    shown = np.repeat((ids > 0)[..., None], 3, axis=2).astype(np.uint8) * 200
    for n in range(6):
        view = FixedFraming((32, 48), (0.3, 2.0)).view(seed_item_generator(0, n), (40, 60))
        spun = ClipView(view.size, join_affines(view.affine, make_rotation(10.0, (20.0, 12.0))))
        bright = transform_image(np.where(shown > 0, shown, 1).astype(np.uint8), spun)[..., 0]
        inside = transform_ids(ids, spun) == 3
        assert (bright[inside] > 90).mean() > 0.95
        assert ((bright > 190) & ~inside).mean() < 0.01


def test_shrinking_is_smooth():
    shown = transform_image(picture(64, 64), ClipView((8, 8), UNIT / 8))
    means = picture(64, 64).reshape(8, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(shown - means).max() <= 1


def test_turning_keeps_the_centre():
    affine = make_rotation(90.0, (5.0, 7.0))
    assert affine @ [5, 7, 1] == pytest.approx([5, 7])
    assert affine @ [6, 7, 1] == pytest.approx([5, 8])  # x turns towards y


def test_fixed_framing_covers_the_view():
    framing = FixedFraming((32, 48), (1.0, 2.0), flip=0.5)
    assert isinstance(framing, Framing)
    flips = set()
    for n in range(30):
        view = framing.view(seed_item_generator(1, n), (100, 90))
        assert view.size == (32, 48)
        corners = view.affine @ np.array([[0, 90, 0, 90], [0, 0, 100, 100], [1, 1, 1, 1]])
        assert corners[0].min() <= 1e-9 and corners[0].max() >= 48 - 1e-9
        assert corners[1].min() <= 1e-9 and corners[1].max() >= 32 - 1e-9
        flips.add(bool(view.affine[0, 0] < 0))
    assert flips == {True, False}


def test_short_sides_are_those_of_the_list():
    framing = ShortSideFraming((24, 36), longest=60, crop=0.0)
    sizes = {framing.view(seed_item_generator(2, n), (100, 150)).size for n in range(20)}
    assert sizes == {(24, 36), (36, 54)}
    assert {framing.view(seed_item_generator(2, n), (30, 150)).size for n in range(9)} == {
        (12, 60)
    }  # the long side decides


def test_crops_are_parts_of_the_resized_picture():
    framing = ShortSideFraming((24,), longest=1000, crop=1.0, crop_short=(50,), crop_side=(30, 40), flip=0.0)
    for n in range(20):
        view = framing.view(seed_item_generator(3, n), (100, 160))
        sy, sx = view.affine[1, 1], view.affine[0, 0]
        part = view.size[0] / sy, view.size[1] / sx
        assert all(60 - 1 <= side <= 80 + 1 for side in part)  # 30 to 40 pixels at half the size
        x, y = -view.affine[0, 2] / sx, -view.affine[1, 2] / sy
        assert -1e-9 <= x <= 160 - part[1] + 1e-9 and -1e-9 <= y <= 100 - part[0] + 1e-9
        assert min(view.size) == 24


def test_crops_are_no_larger_than_the_picture():
    framing = ShortSideFraming(crop=1.0)
    view = framing.view(seed_item_generator(0, 0), (100, 110))
    assert min(view.size) in framing.short


# --- objects


def test_overlaps_are_painted_as_elsewhere():
    masks = torch.zeros(3, 8, 9, dtype=torch.bool)
    masks[0, 1:7, 1:8], masks[1, 2:5, 2:5], masks[2, 2:5, 4:7] = True, True, True  # the last two are as large
    ids = paint_id_map([Rle.encode(m) for m in masks], [1, 2, 3], (8, 9))
    assert np.array_equal(resolve_overlaps_by_area(masks).numpy(), ids == np.array([1, 2, 3])[:, None, None])


def test_objects_keep_their_numbers_and_labels():
    ids = [np.zeros((4, 5), np.uint16) for _ in range(2)]
    ids[0][0, 0], ids[1][2, 2], ids[1][3, 3] = 3, 3, 1
    known = np.array([[False, True], [True, False], [True, True]])
    clip = build_clip([picture(4, 5)] * 2, ids, [7, 8, 9], known)
    assert clip.labels.tolist() == [7, 9]  # the second has no pixel
    assert clip.masks.flatten(2).sum(2).tolist() == [[0, 1], [1, 1]]
    assert clip.present.tolist() == [[False, True], [True, True]]


def clip_of(label, objects=1):
    return TrainingClip(
        torch.zeros(1, 3, 4, 5, dtype=torch.uint8),
        torch.ones(objects, 1, 4, 5, dtype=torch.bool),
        torch.ones(objects, 1, dtype=torch.bool),
        torch.full((objects,), label, dtype=torch.int64),
    )


def test_clips_without_an_object_are_drawn_again():
    found = iter([clip_of(0, 0), clip_of(1, 0), clip_of(2)])
    assert draw_clip_with_objects(lambda: next(found)).labels.tolist() == [2]
    assert len(draw_clip_with_objects(lambda: clip_of(0, 0)).labels) == 0


# --- sources in turn


class Named:
    def __init__(self, label, categories=("a", "b")):
        self.label, self.categories = label, categories

    def clip(self, random, frames):
        return clip_of(self.label)


def test_mixed_draws_as_the_ratios_say():
    mixed = ClipMixture([Named(0), Named(1)], [1, 0.25])
    assert isinstance(mixed, ClipSource)
    labels = [int(mixed.clip(seed_item_generator(0, n), 1).labels[0]) for n in range(400)]
    assert np.mean(labels) == pytest.approx(0.2, abs=0.05)
    assert labels[:20] == [int(mixed.clip(seed_item_generator(0, n), 1).labels[0]) for n in range(20)]


@pytest.mark.parametrize(
    ("sources", "ratios", "words"),
    [
        ([Named(0)], [1, 1], "2 ratios for 1 sources"),
        ([], [], "0 ratios for 0 sources"),
        ([Named(0), Named(1)], [1, 0], "above 0"),
        ([Named(0), Named(1, ("b", "a"))], [1, 1], "different categories"),
    ],
)
def test_sources_that_do_not_go_together(sources, ratios, words):
    with pytest.raises(InputError, match=words):
        ClipMixture(sources, ratios)
