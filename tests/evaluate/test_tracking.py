from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import tracking as plain

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.tracking.measures import (
    ALPHAS,
    IOUS,
    HotaCounts,
    TrackFrame,
    compute_hota,
    compute_track_ap,
    count_hota,
    match_tracks,
)

seeds = st.integers(0, 2**32 - 1)


def random_frames(rng, tracks=4):
    frames = []
    for _ in range(rng.integers(1, 6)):
        true, found = (rng.permutation(tracks)[: rng.integers(0, tracks + 1)].tolist() for _ in range(2))
        similarity = rng.random((len(true), len(found))) * (rng.random((len(true), len(found))) < 0.7)
        frames.append((true, found, similarity.tolist()))
    return frames


def typed(frames):
    return [
        TrackFrame(np.array(t, np.int64), np.array(f, np.int64), np.array(s, float).reshape(len(t), len(f)))
        for t, f, s in frames
    ]


@given(seeds)
def test_hota_is_the_definition(seed):
    frames = random_frames(np.random.default_rng(seed))
    got, wanted = count_hota(typed(frames)).rates, plain.hota(frames)
    assert got.keys() == wanted.keys()
    for name in wanted:
        assert got[name] == pytest.approx(wanted[name], abs=1e-9), name


@given(seeds)
def test_names_of_tracks_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    frames, (a, b) = random_frames(rng), (rng.permutation(9)[:4].tolist() for _ in range(2))
    moved = [([a[i] for i in t], [b[i] for i in f], s) for t, f, s in frames]
    one, other = count_hota(typed(frames)), count_hota(typed(moved))
    assert one.tp.tolist() == other.tp.tolist()
    assert one.means == pytest.approx(other.means, abs=1e-12)


@given(seeds)
def test_ap_of_tracks_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    videos = []
    for _ in range(rng.integers(1, 4)):
        iou = rng.choice([0, 0.4, 0.5, 0.61, 0.75, 0.9, 1.0], (rng.integers(0, 4), rng.integers(1, 4)))
        videos.append((iou, rng.choice([0.2, 0.5, 0.5, 0.9], len(iou))))
    got = compute_track_ap([match_tracks(iou, scores) for iou, scores in videos])
    rows = [(iou.tolist(), scores.tolist(), iou.shape[1]) for iou, scores in videos]
    assert got == pytest.approx([plain.track_ap(rows, min(least, 1 - 1e-10)) for least in IOUS], abs=1e-9)


def test_a_worked_example():
    """Two frames of one object; the second is found under another id, half as alike."""
    frames = [([0], [0], [[1.0]]), ([0], [1], [[0.5]])]
    rates = count_hota(typed(frames)).rates
    low, high = ALPHAS < 0.5 + 1e-9, ALPHAS > 0.5 + 1e-9
    assert rates["DetA"][low].tolist() == [1.0] * 10
    assert rates["DetA"][high] == pytest.approx([1 / 3] * 9)
    assert rates["AssA"] == pytest.approx([0.5] * 19)  # each pair is together in one of two frames
    assert rates["HOTA"][0] == pytest.approx(0.5**0.5)
    assert rates["OWTA"][-1] == pytest.approx((0.5 * 0.5) ** 0.5)
    assert rates["LocA"][[0, -1]].tolist() == [0.75, 1.0]


def test_false_positives_cost_hota_but_not_owta():
    frames = [([0], [0], [[1.0]]), ([0], [0, 1], [[1.0, 0.0]])]
    means = count_hota(typed(frames)).means
    assert means["OWTA"] == 1.0
    assert means["HOTA"] == pytest.approx((2 / 3) ** 0.5)


def test_nothing():
    assert count_hota([]).means["HOTA"] == 0
    only_true, only_found = count_hota(typed([([0, 1], [], [[], []])])), count_hota(typed([([], [0], [])]))
    assert only_true.fn.tolist() == [2.0] * 19
    assert only_found.fp.tolist() == [1.0] * 19
    assert only_true.means["LocA"] == 1.0
    both = only_true + only_found + HotaCounts.none()
    assert (both.tp.sum(), both.fn[0], both.fp[0]) == (0, 2, 1)


def test_of_equal_ious_the_last_true_track_is_taken():
    """The first prediction takes the second true track, so the second, which only overlaps that one, has none."""
    matches = match_tracks(np.array([[0.8, 0.8], [0.0, 0.8]]), np.array([0.9, 0.5]))
    assert matches.tp[0].tolist() == [True, False]
    assert match_tracks(np.array([[0.8, 0.7], [0.0, 0.8]]), np.array([0.9, 0.5])).tp[0].tolist() == [True, True]


def test_a_fleeting_track_leaves_the_true_one_free():
    iou, scores = np.array([[0.9], [0.8]]), np.array([0.9, 0.5])
    assert match_tracks(iou, scores).tp[0].tolist() == [True, False]
    assert match_tracks(iou, scores, fleeting=[0]).tp[0].tolist() == [True, True]


def test_what_is_not_labelled_exhaustively_is_no_false_positive():
    iou, scores = np.array([[0.0], [0.9]]), np.array([0.9, 0.5])
    assert compute_track_ap([match_tracks(iou, scores)])[0] == pytest.approx(0.5)
    assert compute_track_ap([match_tracks(iou, scores, exhaustive=False)])[0] == pytest.approx(1.0)
    assert compute_track_ap([match_tracks(np.zeros((2, 0)), scores)]) is None


def result(*tracks, length=4):
    masklets = []
    for id, places in tracks:
        sightings = {}
        for t, (y, x) in places.items():
            mask = torch.zeros(12, 16, dtype=torch.bool)
            mask[y : y + 4, x : x + 4] = True
            sightings[t] = Sighting(Rle.encode(mask), Source.DETECTED)
        masklets.append(Masklet(id, sightings))
    return VideoResult("clip", (12, 16), length, 10.0, tuple(masklets), (), Provenance("test"))


def test_results():
    truth = result((7, {0: (0, 0), 1: (0, 1), 3: (0, 3)}), (2, {1: (7, 7)}))
    perfect = result((1, {1: (7, 7)}), (5, {0: (0, 0), 1: (0, 1), 3: (0, 3)}))
    assert compute_hota(truth, perfect).means == dict.fromkeys(compute_hota(truth, perfect).means, 1.0)
    assert compute_hota(truth, result()).means["HOTA"] == 0
    half = result((1, {0: (0, 0), 1: (0, 1)}))  # all right, half of it missing
    assert compute_hota(truth, half).means["DetRe"] == 0.5
    assert compute_hota(truth, half).means["DetPr"] == 1.0
    shifted = result((1, {0: (0, 2)}))  # shares 8 of 24 pixels
    assert compute_hota(truth, shifted).tp.tolist() == (ALPHAS <= 1 / 3).astype(float).tolist()
    with pytest.raises(InputError, match="not the same video"):
        compute_hota(truth, result(length=5))
