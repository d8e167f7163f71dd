from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluate import vis_sets
from evaluate.vis_sets import square
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import vis as plain

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.vis import average_precision as vis
from masklet.evaluate.vis.tubes import Tube

NONE = Tube(np.zeros(2), np.zeros(1, np.int64))


def assessed(iou, truths, scores=None, ranges=vis.AREAS[:1], area=5.0, **more):
    """Verdicts at IoU 0.5 of predictions given best first: right, wrong or ignored by range."""
    found = [vis.PredictedObject(1, NONE, area, s, **more) for s in scores or np.linspace(1, 0, len(iou))]
    got = vis.assess_predictions(found, truths, np.array(iou, float).reshape(len(iou), len(truths)), ranges)
    return [
        "".join("RW."[0 if r else 1 if w else 2] for r, w in zip(*rows, strict=True))
        for rows in zip(got.right[:, 0], got.wrong[:, 0], strict=True)
    ], got


def truth(id=1, area=5.0, **more):
    return vis.TrueObject(id, 1, NONE, area, **more)


@pytest.mark.parametrize(
    "iou, verdicts",
    [
        ([[0.5]], "R"),  # the threshold itself is enough
        ([[0.49]], "W"),
        ([[0.6], [0.9]], "RW"),  # the better score comes first, not the better overlap
        ([[0.6, 0.9], [0.1, 0.9], [0.8, 0]], "RWR"),  # the first takes the second object
    ],
)
def test_a_prediction_takes_the_best_object_that_is_free(iou, verdicts):
    objects = [truth(n + 1) for n in range(len(iou[0]))]
    assert assessed(iou, objects)[0] == [verdicts]


def test_of_equal_objects_the_later_is_taken():
    partner = vis.match_predictions(np.array([[0.8, 0.8, 0.7]]), np.zeros((1, 3), bool), np.zeros(3, bool))
    assert partner[0, :, 0].tolist() == [1] * 7 + [3] * 3


def test_an_object_that_counts_goes_before_a_better_one_that_does_not():
    iou, ignored = np.array([[0.6, 0.9], [0.6, 0.9], [0.6, 0.9]]), np.array([[False, True]])
    assert vis.match_predictions(iou, ignored, np.array([False, False]))[0, 0].tolist() == [0, 1, 2]
    assert vis.match_predictions(iou, ignored, np.array([False, True]))[0, 0].tolist() == [0, 1, 1]  # a crowd takes all
    assert vis.match_predictions(iou, ignored, np.array([False, True]))[0, 4].tolist() == [
        1,
        1,
        1,
    ]  # 0.6 is not enough there


def test_an_object_of_id_zero_takes_its_prediction_and_is_missed():
    verdicts, got = assessed([[0.9], [0.9]], [truth(0)])
    assert verdicts == ["WW"] and got.positives.tolist() == [1]


def test_ignored_objects_and_crowds():
    assert assessed([[0.9], [0.9]], [truth(ignored=True)])[0] == [".W"]
    verdicts, got = assessed([[0.9], [0.9]], [truth(ignored=True, crowd=True)])
    assert verdicts == [".."] and got.positives.tolist() == [0]


def test_ranges_include_both_ends_and_excuse_unmatched_predictions_outside():
    edge = 128.0**2
    verdicts, got = assessed([[0.9], [0]], [truth(area=edge)], ranges=vis.AREAS, area=edge)
    assert verdicts == ["RW", "RW", "RW", ".."] and got.positives.tolist() == [1, 1, 1, 0]
    assert assessed([[0.9]], [truth(area=edge)], ranges=vis.AREAS, area=5.0)[0] == ["R", "R", "R", "."]


def test_unmatched_predictions_count_against_every_level_of_occlusion():
    heavy = [r for r in vis.OCCLUSIONS if not r.name or r.name.startswith("_")]
    verdicts, got = assessed([[0.9], [0]], [truth(occlusion=0.25)], ranges=heavy)
    assert verdicts == ["RW", "RW", "RW", ".W"] and got.positives.tolist() == [1, 1, 1, 0]


def test_an_excused_prediction_is_not_wrong_but_may_be_right():
    assert assessed([[0.9], [0]], [truth()], excused=True)[0] == ["R."]


def test_average_precision_of_a_worked_example():
    # Right, wrong, right of two objects: precision 1 up to recall 0.5, then 2/3.
    right = np.array([[[True, False, True]]])
    got = vis.accumulate_curve([vis.GroupMatches(np.array([0.9, 0.8, 0.7]), right, ~right, np.array([2]))], None)
    assert got.ap[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert got.recall[0, 0] == 1
    first = vis.accumulate_curve([vis.GroupMatches(np.array([0.9, 0.8, 0.7]), right, ~right, np.array([2]))], 1)
    assert first.recall[0, 0] == 0.5 and first.ap[0, 0] == pytest.approx(51 / 101)


def test_nothing_to_be_found_and_nothing_found():
    empty = np.zeros((1, 1, 0), bool)
    assert vis.accumulate_curve([vis.GroupMatches(np.zeros(0), empty, empty, np.array([0]))], None).ap[0, 0] == -1
    missed = vis.accumulate_curve([vis.GroupMatches(np.zeros(0), empty, empty, np.array([3]))], None)
    assert missed.ap[0, 0] == missed.recall[0, 0] == 0
    assert vis.compute_defined_mean(np.array([-1.0, 0.5])) == 0.5 and vis.compute_defined_mean(np.array([-1.0])) is None


def test_equal_scores_stay_in_the_order_of_their_groups():
    yes, no = np.array([[[True]]]), np.array([[[False]]])
    good = vis.GroupMatches(np.array([0.5]), yes, no, np.array([1]))
    bad = vis.GroupMatches(np.array([0.5]), no, yes, np.array([0]))
    assert vis.accumulate_curve([good, bad], None).ap[0, 0] == pytest.approx(1)
    assert vis.accumulate_curve([bad, good], None).ap[0, 0] == pytest.approx(0.5)


@given(
    st.integers(1, 3).flatmap(
        lambda g: st.tuples(
            arrays(
                float, st.tuples(st.integers(0, 5), st.just(g)), elements=st.sampled_from([0.0, 0.5, 0.6, 0.8, 1.0])
            ),
            arrays(bool, g),
            arrays(bool, g),
        )
    )
)
def test_matching_is_the_definition(case):
    iou, crowd, small = case
    truths = [
        truth(n, 5.0 if s else 2e4, ignored=bool(c), crowd=bool(c))
        for n, (c, s) in enumerate(zip(crowd, small, strict=True))
    ]
    _, got = assessed(iou, truths, ranges=vis.AREAS)
    words = [{"id": t.id, "iscrowd": int(t.crowd), "areas": [t.area]} for t in truths]
    for r, bounds in enumerate(plain.AREAS):
        for t, threshold in enumerate(vis.THRESHOLDS):
            found = [{"score": s} for s in got.scores]
            verdicts, positives = plain.evaluate(words, found, iou, [5.0] * len(found), bounds, (0, 1), threshold)
            assert [v for _, v in verdicts] == [
                "tp" if a else "fp" if b else "ignored" for a, b in zip(got.right[r, t], got.wrong[r, t], strict=True)
            ]
            assert positives == got.positives[r]


def test_levels_of_occlusion():
    assert vis.compute_occlusion_score([0.25]) == 0.25
    assert vis.compute_occlusion_score([0.0, 0.75]) == 0.75
    assert vis.compute_occlusion_score([0.0, 0.0, 0.75, 0.25, 0.25]) == pytest.approx(1.25 / 3)


def test_mean_area_leaves_out_frames_without_any():
    assert (
        vis.compute_mean_area([4, 0, None, 6]) == 5
        and vis.compute_mean_area([None, 0]) == vis.compute_mean_area([]) == 0
    )


def result(*masklets, categories=("a", "b"), length=2):
    return VideoResult("clip", vis_sets.SIZE, length, 25.0, masklets, categories, Provenance("test"))


def masklet(id, *masks, label=0, score=0.0):
    seen = {t: Sighting(Rle.encode(torch.from_numpy(m)), Source.DETECTED) for t, m in enumerate(masks) if m is not None}
    return Masklet(id, seen, label, score)


LEFT, RIGHT = square(0, 6, 0, 6), square(6, 12, 8, 16)


def test_results_against_themselves_are_perfect_and_empty_ones_score_nothing():
    truths = [result(masklet(3, LEFT, None), masklet(7, RIGHT, RIGHT, label=1)), result(masklet(1, None, LEFT))]
    got = vis.compute_video_ap(truths, truths)
    assert [got[k] for k in ("AP", "AP50", "APs", "AR1")] == pytest.approx([1] * 4) and got["APl"] is None
    none = vis.compute_video_ap(truths, [result(), result()])
    assert none["AP"] == none["AR100"] == 0


def test_results_that_are_half_right():
    truths = [result(masklet(0, LEFT, LEFT), masklet(1, RIGHT, None, label=1))]
    found = [result(masklet(5, LEFT, LEFT, score=0.9), masklet(6, LEFT, None, label=1, score=0.5))]
    assert vis.compute_video_ap(truths, found)["AP"] == pytest.approx(0.5)  # the id does not matter here, nor does 0


def test_results_of_another_video_are_refused():
    for other in (result(length=3), result(categories=("b", "a"))):
        with pytest.raises(InputError, match="clip: size, length or categories are not those of the truth"):
            vis.compute_video_ap([result()], [other])


def test_of_several_crowds_the_best_is_taken_again_and_again_and_of_equal_ones_the_later():
    iou = np.array([[0.6, 0.9, 0.5], [0.7, 0.7, 0.6], [0.9, 0.6, 0.6]])
    crowds, ignored = np.array([True, True, False]), np.array([[True, True, False]])
    assert vis.match_predictions(iou, ignored, crowds)[0, 0].tolist() == [2, 1, 0]  # what counts goes first
    assert vis.match_predictions(iou[:, :2], ignored[:, :2], crowds[:2])[0, 0].tolist() == [1, 1, 0]
    turned = vis.match_predictions(iou[:, [1, 0]], ignored[:, :2], crowds[:2])[0, 0].tolist()
    assert turned == [0, 1, 1]
