from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import vos as plain

from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.vos import contours
from masklet.evaluate.vos import measures as vos
from masklet.evaluate.vos.label_maps import LabelFrame

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
    assert vos.compute_jaccard(*pair) == plain.jaccard(*pair)


@settings(max_examples=200)
@given(masks, st.sampled_from([0.008, 0.1, 0.2]))
def test_boundary_is_the_definition(pair, bound):
    assert vos.compute_boundary_f(*pair, bound) == pytest.approx(plain.boundary_f(*pair, bound), abs=1e-12)


@given(masks)
def test_contour_is_the_definition(pair):
    assert {tuple(p) for p in np.argwhere(vos.extract_contour(pair[0])).tolist()} == plain.contour(pair[0])


def test_jaccard_of_two_empty_masks_is_one():
    empty = square(0, 0, 0, 0)
    assert vos.compute_jaccard(empty, empty) == 1
    assert vos.compute_jaccard(empty, square(0, 5, 0, 5)) == 0
    assert vos.compute_jaccard(square(0, 4, 0, 4), square(0, 4, 2, 6)) == pytest.approx(8 / 24)


@pytest.mark.parametrize("shift, f", [(1, 1.0), (2, 0.5)])
def test_boundary_forgives_what_lies_within_the_radius(shift, f):
    # In 40 x 60 the radius is 1 pixel. Two pixels aside, only the horizontal edges still agree.
    aside = square(10, 20, 10 + shift, 20 + shift)
    assert vos.compute_boundary_f(aside, square(10, 20, 10, 20)) == pytest.approx(f, abs=0.1)


def test_boundary_where_there_is_no_contour():
    empty, full, some = square(0, 0, 0, 0), square(0, 40, 0, 60), square(3, 9, 3, 9)
    assert vos.compute_boundary_f(empty, empty) == 1
    assert vos.compute_boundary_f(full, empty) == 1  # as in DAVIS: the frame's edge is no contour
    assert (
        vos.compute_boundary_f(empty, some)
        == vos.compute_boundary_f(some, empty)
        == vos.compute_boundary_f(full, some)
        == 0
    )
    assert vos.compute_boundary_f(square(0, 3, 0, 3), square(30, 40, 40, 60)) == 0  # precision and recall 0


def test_boundary_of_a_mask_with_itself_is_one_anywhere_in_the_frame():
    for corner in [(0, 5, 0, 5), (35, 40, 55, 60), (0, 40, 20, 30), (39, 40, 59, 60)]:
        assert vos.compute_boundary_f(square(*corner), square(*corner)) == 1


def test_summary():
    got = vos.DavisStatistics.of([0.8, 0.6, 0.5, 0.2, 0.1])
    assert got.mean == pytest.approx(2.2 / 5)
    assert got.recall == pytest.approx(2 / 5)  # 0.5 itself is not above
    assert got.decay == pytest.approx(0.7 - 0.15)  # quarters [0, 1] and [3, 4]
    assert vos.DavisStatistics.of([0.4]).decay == 0


def test_decay_of_a_long_video_is_a_number():
    assert vos.DavisStatistics.of(np.linspace(1, 0, 400)).decay == pytest.approx(0.75, abs=0.01)


def test_object_score():
    right, wrong = square(5, 15, 5, 15), square(20, 30, 30, 40)
    score = vos.score_object_masks([right, wrong], [right, right])
    assert (score.j.mean, score.f.mean, score.jf) == (0.5, 0.5, 0.5)


def test_object_ids_leave_out_background_and_void():
    assert vos.list_object_ids(np.array([[0, 3], [255, 1]], dtype=np.uint8)) == (1, 3)


def test_best_masklet_counts_frames_without_it_as_empty():
    left, right, empty = square(0, 10, 0, 10), square(0, 10, 20, 40), square(0, 0, 0, 0)
    truth = {0: rle(left), 1: rle(left), 2: rle(empty), 3: rle(left)}
    often = masklet(7, {0: left, 1: left})  # 1 1 1 0
    always = masklet(8, {0: left, 1: right, 2: right, 3: left})  # 1 0 0 1
    assert vos.find_best_masklet([always, often], truth) == (7, 0.75)
    assert vos.find_best_masklet([], truth) == (None, 0.0)


def test_union_of_all_masklets():
    left, right = square(0, 10, 0, 10), square(0, 10, 20, 30)
    truth = {0: rle(left | right), 1: rle(left)}
    assert vos.compute_union_jaccard([masklet(1, {0: left, 1: left}), masklet(2, {0: right, 1: right})], truth) == 0.75
    assert vos.compute_union_jaccard([], truth) == 0
    assert vos.compute_union_jaccard([], {0: rle(square(0, 0, 0, 0))}) == 1


def test_pixels_of_an_absent_masklet_are_none():
    seen = masklet(1, {0: square(0, 2, 0, 2)})
    assert vos.get_masklet_mask(seen, 0, (40, 60)).sum() == 4
    assert not vos.get_masklet_mask(seen, 1, (40, 60)).any()
    assert not vos.get_masklet_mask(None, 0, (40, 60)).any()


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
    got = vos.score_given_objects(
        result(masklet(1, {0: wrong, 1: one, 2: wrong, 3: one, 4: wrong}), masklet(2, {4: wrong})), truth
    )
    assert got.keys() == {1, 3}
    assert got[1].j.mean == pytest.approx(2 / 3)
    assert got[3].jf == 0  # no masklet of this id
    swapped = result(masklet(3, {t: one for t in truth}), masklet(1, {t: two for t in truth}))
    assert [score.jf for score in vos.score_given_objects(swapped, truth).values()] == [0, 0]
    right = result(masklet(3, {t: two for t in truth}), masklet(1, {t: one for t in truth}))
    assert [score.jf for score in vos.score_given_objects(right, truth).values()] == [1, 1]


def test_track_scores_count_from_the_first_frame_with_an_object():
    page, one = labels((1, square(0, 10, 0, 10))), square(0, 10, 0, 10)
    truth = {0: labels(), 1: page, 2: page, 3: page}
    assert vos.find_given_objects(truth) == (1, (1,))
    assert vos.score_given_objects(result(masklet(1, {2: one})), truth)[1].jf == 1


def test_discovery():
    one, two, void = square(0, 10, 0, 10), square(20, 30, 30, 50), square(35, 40, 0, 60)
    truth = {t: labels((1, one), (2, two), (vos.VOID, void)) for t in range(2)}
    found = vos.measure_discovery(result(masklet(4, {0: one, 1: one}), masklet(9, {0: one | two})), truth)
    assert found.best[1] == (4, 1.0)
    assert found.best[2] == (9, pytest.approx(200 / 300 / 2))
    assert found.union == pytest.approx((1 + 100 / 300) / 2)


maps = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.tuples(*[arrays(np.uint8, size, elements=st.sampled_from([0, 0, 1, 1, 2]))] * 2)
)


@settings(max_examples=200)
@given(maps)
def test_a_frames_objects_are_scored_as_their_masks_are(pair):
    found, truth = pair
    got = vos.score_frame_objects(LabelFrame(found), LabelFrame(truth), (1, 2, 3))
    for i, (j, f) in got.items():
        assert j == plain.jaccard(found == i, truth == i)
        assert f == pytest.approx(plain.boundary_f(found == i, truth == i), abs=1e-12)


CORNERS = [
    square(0, 1, 0, 1),
    square(39, 40, 59, 60),
    square(0, 40, 0, 1),
    square(39, 40, 0, 60),
    square(0, 40, 0, 60),
    square(0, 0, 0, 0),
    square(12, 13, 30, 31),
    square(14, 15, 30, 31),
    square(0, 40, 30, 60),
    square(0, 40, 0, 60) & ~square(20, 21, 20, 21),
]


@pytest.mark.parametrize("found", CORNERS)
@pytest.mark.parametrize("truth", CORNERS)
def test_borders_and_single_pixels_and_empty_and_full(found, truth):
    scores = vos.score_label_pair(LabelFrame(found.view(np.uint8)), 1, LabelFrame(truth.view(np.uint8)), 1)
    assert scores == (vos.compute_jaccard(found, truth), vos.compute_boundary_f(found, truth))
    assert scores == pytest.approx((plain.jaccard(found, truth), plain.boundary_f(found, truth)), abs=1e-12)


@settings(max_examples=200)
@given(masks, st.sampled_from([0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.6, 2.0, 2.3, 2.56, 3.0]))
def test_every_disk_is_the_definition(pair, radius):
    got = contours.compute_contour_scores(*(contours.extract_contour(m) for m in pair), [contours.build_disk(radius)])
    if any(any(row) for row in plain.disk(radius)):
        assert got == [pytest.approx(plain.boundary_f_of(*pair, radius), abs=1e-12)]


def test_a_fraction_makes_a_disk_lopsided():
    assert contours.build_disk(0.8) == contours.Disk(1, (((0,), (0,)),))  # a pixel
    assert contours.build_disk(1.0).runs == (((0,), (-1, 1)), ((-1, 1), (0,)))
    assert contours.build_disk(1.2).runs == (
        ((-1, 0), (-1, 0)),
    )  # of three rows and columns, the middle is not the centre
    assert contours.build_disk(0.4).runs == (((-1,), (-1,)),)  # an empty element: OpenCV takes its first pixel


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9))
def test_decay_lies_between_the_quarters(values):
    score = vos.ObjectScore.of(values)
    assert score.j == vos.DavisStatistics.of([j for j, _ in values]) and score.f == vos.DavisStatistics.of(
        [f for _, f in values]
    )
    assert -1 <= score.j.decay <= 1


def test_perfect_is_one_and_nothing_is_zero():
    truth = LabelFrame(labels((1, square(0, 10, 0, 10)), (2, square(20, 30, 30, 50))))
    empty = LabelFrame(labels())
    assert set(vos.score_frame_objects(truth, truth, (1, 2, 3)).values()) == {(1.0, 1.0)}
    assert vos.score_frame_objects(empty, truth, (1, 2, 3)) == {1: (0, 0), 2: (0, 0), 3: (1, 1)}


def frames(*pages):
    return [LabelFrame(p) for p in pages]


def test_proposals_are_assigned_by_mean_j_and_f():
    one, two = square(0, 10, 0, 10), square(20, 30, 30, 50)
    truth, found = labels((1, one), (2, two)), labels((4, one), (2, two & square(0, 40, 0, 45)))
    got = vos.match_proposals([vos.ProposalScores.of(*frames(found, truth), 2)] * 2)
    assert list(got) == [(2, 2), (4, 1)]  # in the order of the proposals
    assert got[4, 1] == [(1, 1)] * 2
    assert got[2, 2][0][0] == 0.75


def test_assignment_weighs_j_and_f_alike():
    truth, holes, small = square(5, 35, 5, 35), square(5, 35, 5, 35), square(6, 34, 6, 34)
    holes[8:34:5, 8:34:5] = False  # J 0.96 and a contour too many; the other one has J 0.87 and F 1
    found = [labels((1, holes)), labels((2, small))]
    scores = [vos.score_label_pair(LabelFrame(p), n, LabelFrame(labels((1, truth))), 1) for n, p in enumerate(found, 1)]
    assert scores[0][0] > scores[1][0] and sum(scores[0]) < sum(scores[1])
    seen = [vos.ProposalScores.of(*frames(p, labels((1, truth))), 1) for p in found]
    both = vos.ProposalScores(2, {**seen[0].scores, **seen[1].scores}, seen[0].absent)
    assert list(vos.match_proposals([both])) == [(2, 1)]


def test_an_id_that_never_occurs_is_an_empty_proposal():
    one, void = square(0, 10, 0, 10), square(30, 40, 0, 60)
    there, away = labels((1, one), (255, void)), labels((255, void))
    wrong = labels((3, square(15, 25, 30, 50)))
    got = vos.match_proposals([vos.ProposalScores.of(*frames(wrong, t), 1) for t in (there, away, away)])
    assert got == {(1, 1): [(0, 0), (1, 1), (1, 1)]}
    filled = vos.match_proposals([vos.ProposalScores.of(*frames(labels(), np.ones((40, 60), np.uint8)), 1)])
    assert filled == {(1, 1): [(0, 1)]}  # what fills the frame has no contour


def test_void_counts_for_nobody():
    one, void = square(0, 10, 0, 10), square(0, 10, 10, 60)
    truth = labels((1, one), (255, void))
    assert vos.match_proposals([vos.ProposalScores.of(*frames(labels((1, one | void)), truth), 1)]) == {
        (1, 1): [(1, 1)]
    }


def test_assigned_scores():
    one, two = square(0, 10, 0, 10), square(20, 30, 30, 50)
    truth = {t: labels((1, one), (2, two)) for t in (0, 2)}
    got = vos.score_assigned_objects(result(masklet(7, {0: two, 2: two}), masklet(9, {0: one})), truth)
    assert [(i, score.j.mean, score.f.mean) for i, score in got.items()] == [(1, 0.5, 0.5), (2, 1.0, 1.0)]
