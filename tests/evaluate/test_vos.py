from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import vos as plain

from masklet.core.masks import Rle
from masklet.core.result import Provenance, VideoResult
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate import vos

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.tuples(arrays(bool, size), arrays(bool, size))
)


def square(y0, y1, x0, x1, size=(40, 60)):
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rle(mask):
    return Rle.encode(torch.from_numpy(mask))


def masklet(id, masks):
    return Masklet(id, {t: Sighting(rle(m), Source.DETECTED) for t, m in masks.items()})


@given(masks)
def test_jaccard_is_the_definition(pair):
    assert vos.jaccard(*pair) == plain.jaccard(*pair)


@settings(max_examples=200)
@given(masks, st.sampled_from([0.008, 0.1, 0.2]))
def test_boundary_is_the_definition(pair, bound):
    assert vos.boundary_f(*pair, bound) == pytest.approx(plain.boundary_f(*pair, bound), abs=1e-12)


@given(masks)
def test_contour_is_the_definition(pair):
    assert {tuple(p) for p in np.argwhere(vos.contour(pair[0])).tolist()} == plain.contour(pair[0])


def test_jaccard_of_two_empty_masks_is_one():
    empty = square(0, 0, 0, 0)
    assert vos.jaccard(empty, empty) == 1
    assert vos.jaccard(empty, square(0, 5, 0, 5)) == 0
    assert vos.jaccard(square(0, 4, 0, 4), square(0, 4, 2, 6)) == pytest.approx(8 / 24)


@pytest.mark.parametrize("shift, f", [(1, 1.0), (2, 0.5)])
def test_boundary_forgives_what_lies_within_the_radius(shift, f):
    # In 40 x 60 the radius is 1 pixel. Two pixels aside, only the horizontal edges still agree.
    aside = square(10, 20, 10 + shift, 20 + shift)
    assert vos.boundary_f(aside, square(10, 20, 10, 20)) == pytest.approx(f, abs=0.1)


def test_boundary_where_there_is_no_contour():
    empty, full, some = square(0, 0, 0, 0), square(0, 40, 0, 60), square(3, 9, 3, 9)
    assert vos.boundary_f(empty, empty) == 1
    assert vos.boundary_f(full, empty) == 1  # as in DAVIS: the frame's edge is no contour
    assert vos.boundary_f(empty, some) == vos.boundary_f(some, empty) == vos.boundary_f(full, some) == 0
    assert vos.boundary_f(square(0, 3, 0, 3), square(30, 40, 40, 60)) == 0  # precision and recall 0


def test_boundary_of_a_mask_with_itself_is_one_anywhere_in_the_frame():
    for corner in [(0, 5, 0, 5), (35, 40, 55, 60), (0, 40, 20, 30), (39, 40, 59, 60)]:
        assert vos.boundary_f(square(*corner), square(*corner)) == 1


def test_summary():
    got = vos.Summary.of([0.8, 0.6, 0.5, 0.2, 0.1])
    assert got.mean == pytest.approx(2.2 / 5)
    assert got.recall == pytest.approx(2 / 5)  # 0.5 itself is not above
    assert got.decay == pytest.approx(0.7 - 0.15)  # quarters [0, 1] and [3, 4]
    assert vos.Summary.of([0.4]).decay == 0


def test_decay_of_a_long_video_is_a_number():
    assert vos.Summary.of(np.linspace(1, 0, 400)).decay == pytest.approx(0.75, abs=0.01)


def test_object_score():
    right, wrong = square(5, 15, 5, 15), square(20, 30, 30, 40)
    score = vos.object_score([right, wrong], [right, right])
    assert (score.j.mean, score.f.mean, score.jf) == (0.5, 0.5, 0.5)


def test_object_ids_leave_out_background_and_void():
    assert vos.object_ids(np.array([[0, 3], [255, 1]], dtype=np.uint8)) == (1, 3)


def test_best_masklet_counts_frames_without_it_as_empty():
    left, right, empty = square(0, 10, 0, 10), square(0, 10, 20, 40), square(0, 0, 0, 0)
    truth = {0: rle(left), 1: rle(left), 2: rle(empty), 3: rle(left)}
    often = masklet(7, {0: left, 1: left})  # 1 1 1 0
    always = masklet(8, {0: left, 1: right, 2: right, 3: left})  # 1 0 0 1
    assert vos.best_masklet([always, often], truth) == (7, 0.75)
    assert vos.best_masklet([], truth) == (None, 0.0)


def test_union_of_all_masklets():
    left, right = square(0, 10, 0, 10), square(0, 10, 20, 30)
    truth = {0: rle(left | right), 1: rle(left)}
    assert vos.union_jaccard([masklet(1, {0: left, 1: left}), masklet(2, {0: right, 1: right})], truth) == 0.75
    assert vos.union_jaccard([], truth) == 0
    assert vos.union_jaccard([], {0: rle(square(0, 0, 0, 0))}) == 1


def test_pixels_of_an_absent_masklet_are_none():
    seen = masklet(1, {0: square(0, 2, 0, 2)})
    assert vos.pixels(seen, 0, (40, 60)).sum() == 4
    assert not vos.pixels(seen, 1, (40, 60)).any()
    assert not vos.pixels(None, 0, (40, 60)).any()


def labels(*objects):
    """A label map of (id, mask) pairs."""
    page = np.zeros((40, 60), dtype=np.uint8)
    for id, mask in objects:
        page[mask] = id
    return page


def result(*masklets):
    return VideoResult("clip", (40, 60), 5, 25.0, masklets, ("object",), Provenance("test"))


def test_track_scores_leave_out_the_first_and_last_frame_and_later_objects():
    one, two = square(0, 10, 0, 10), square(20, 30, 30, 50)
    page = labels((1, one), (3, two))
    truth = {0: page, 1: page, 2: page, 3: page, 4: page | labels((2, square(35, 39, 0, 5)))}
    wrong = square(30, 40, 0, 5)
    got = vos.track_scores(
        result(masklet(1, {0: wrong, 1: one, 2: wrong, 3: one, 4: wrong}), masklet(2, {4: wrong})), truth
    )
    assert got.keys() == {1, 3}
    assert got[1].j.mean == pytest.approx(2 / 3)
    assert got[3].jf == 0  # no masklet of this id
    swapped = result(masklet(3, {t: one for t in truth}), masklet(1, {t: two for t in truth}))
    assert [score.jf for score in vos.track_scores(swapped, truth).values()] == [0, 0]
    right = result(masklet(3, {t: two for t in truth}), masklet(1, {t: one for t in truth}))
    assert [score.jf for score in vos.track_scores(right, truth).values()] == [1, 1]


def test_track_scores_count_from_the_first_frame_with_an_object():
    page, one = labels((1, square(0, 10, 0, 10))), square(0, 10, 0, 10)
    truth = {0: labels(), 1: page, 2: page, 3: page}
    assert vos.given_objects(truth) == (1, (1,))
    assert vos.track_scores(result(masklet(1, {2: one})), truth)[1].jf == 1


def test_discovery():
    one, two, void = square(0, 10, 0, 10), square(20, 30, 30, 50), square(35, 40, 0, 60)
    truth = {t: labels((1, one), (2, two), (vos.VOID, void)) for t in range(2)}
    found = vos.discovery(result(masklet(4, {0: one, 1: one}), masklet(9, {0: one | two})), truth)
    assert found.best[1] == (4, 1.0)
    assert found.best[2] == (9, pytest.approx(200 / 300 / 2))
    assert found.union == pytest.approx((1 + 100 / 300) / 2)
