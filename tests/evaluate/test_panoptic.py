from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import panoptic as plain

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.panoptic import quality as panoptic
from masklet.evaluate.panoptic.quality import (
    WHOLE,
    WINDOWS,
    count_stq,
    count_window_matches,
    list_deva_windows,
    list_vipseg_windows,
)
from masklet.evaluate.panoptic.segments import FrameOverlap, ListedSegment, VideoTable, count_shared_pixels

CATEGORIES = 3
THINGS = np.array([True, False, True])


@st.composite
def videos(draw):
    """A few small frames; ids change category and crowd, lists are shuffled, areas lie, some true ids are unlisted."""
    seed, length = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 6))
    return random_video(np.random.default_rng(seed), length)


def random_video(rng, length):
    base = rng.integers(0, 4, (5, 6))
    frames = []
    for _ in range(length):
        true = np.where(rng.random((5, 6)) < 0.2, rng.integers(0, 5, (5, 6)), base)
        found = np.where(rng.random((5, 6)) < 0.3, rng.integers(0, 5, (5, 6)) * rng.choice([1, 70000]), true * 70000)
        listed = []
        for id in rng.permutation(np.unique(true[true > 0])).tolist():
            if rng.random() < 0.95:
                area = int((true == id).sum()) + (int(rng.integers(1, 4)) if rng.random() < 0.1 else 0)
                category = int(rng.integers(CATEGORIES)) if rng.random() < 0.15 else id % CATEGORIES
                listed.append((id, category, area, bool(rng.random() < 0.15)))
        others = [
            (id, (id // 70000 if rng.random() < 0.9 else id) % CATEGORIES)
            for id in np.unique(found[found > 0]).tolist()
        ]
        frames.append((true, found, listed, others))
    return frames


def table(frames):
    return VideoTable.of(
        [
            FrameOverlap(
                *count_shared_pixels(true.astype(np.int32), found.astype(np.int32)),
                {id: ListedSegment(category, area, crowd) for id, category, area, crowd in listed},
                {id: ListedSegment(category) for id, category in others},
            )
            for true, found, listed, others in frames
        ]
    )


@given(videos(), st.sampled_from(WINDOWS))
def test_vpq_is_the_definition(frames, k):
    wanted = plain.vpq(frames, k, CATEGORIES)
    got = count_window_matches(table(frames), list_deva_windows(len(frames), k), CATEGORIES)
    assert [*zip(got.tp.tolist(), got.fp.tolist(), got.fn.tolist(), strict=True)] == [
        tuple(r[1:]) for r in wanted.values()
    ]
    assert got.iou == pytest.approx([row[0] for row in wanted.values()], abs=1e-9)
    assert got.mean("pq") == (None if plain.pq(wanted) is None else pytest.approx(plain.pq(wanted), abs=1e-9))


@given(videos(), st.booleans())
def test_stq_is_the_definition(frames, first_is_crowd):
    got = count_stq(table(frames), THINGS, panoptic.FIRST if first_is_crowd else ())
    if not any(listed for _, _, listed, _ in frames):
        return
    assert (got.stq, got.aq, got.sq) == pytest.approx(plain.stq(frames, THINGS, first_is_crowd), abs=1e-9)


@given(videos(), st.integers(1, 5))
def test_counts_of_shifted_ids_are_the_same(frames, shift):
    moved = [
        (
            np.where(true > 0, true + shift, 0),
            np.where(found > 0, found * 3 + shift, 0),
            [(id + shift, *rest) for id, *rest in listed],
            [(id * 3 + shift, c) for id, c in others],
        )
        for true, found, listed, others in frames
    ]
    one, other = table(frames), table(moved)
    for k in (1, 2, WHOLE):
        counts = [count_window_matches(v, list_deva_windows(v.length, k), CATEGORIES) for v in (one, other)]
        assert all((getattr(counts[0], n) == getattr(counts[1], n)).all() for n in ("tp", "fp", "fn"))
    assert count_stq(one, THINGS).stq == pytest.approx(count_stq(other, THINGS).stq, abs=1e-12)


def test_windows_of_a_short_video():
    assert list_deva_windows(3, 4) == (range(1), 3)
    assert list_vipseg_windows(3, 4) == (range(0), 4)
    assert list_deva_windows(5, 4) == list_vipseg_windows(5, 4) == (range(2), 4)
    assert list_deva_windows(5, WHOLE) == (range(1), 5)


def test_the_order_of_the_list_changes_stq_but_not_its_definition():
    """A thing of 4 pixels found whole and one of 2 not found: whichever is listed first is left out of AQ."""
    true = np.array([[1, 1, 1, 1, 2, 2]])
    found = np.array([[9, 9, 9, 9, 0, 0]])
    for first, aq in ((1, 0.0), (2, 1.0)):
        listed = sorted([(1, 0, 4, False), (2, 0, 2, False)], key=lambda row: row[0] != first)
        video = table([(true, found, listed, [(9, 0)])])
        assert count_stq(video, THINGS).aq == aq
        assert count_stq(video, THINGS, crowds=()).aq == 0.5


def test_the_last_listed_crowd_of_a_category_excuses():
    """A prediction on two crowds of its category: only the one listed last excuses it."""
    true, found = np.array([[1, 1, 1, 2]]), np.array([[9, 9, 9, 9]])
    for last, fp in ((1, 0), (2, 1)):
        listed = sorted([(1, 0, 3, True), (2, 0, 1, True)], key=lambda row: row[0] == last)
        counts = count_window_matches(table([(true, found, listed, [(9, 0)])]), (range(1), 1), CATEGORIES)
        assert (counts.fp[0], counts.fn.sum(), counts.tp.sum()) == (fp, 0, 0)


def test_half_an_iou_is_no_match_and_half_on_void_no_excuse():
    true, found = np.array([[1, 1, 0, 0]]), np.array([[9, 0, 8, 0]])
    listed, others = [(1, 0, 2, False)], [(9, 0), (8, 0)]
    counts = count_window_matches(table([(true, found, listed, others)]), (range(1), 1), CATEGORIES)
    assert (counts.tp[0], counts.fp[0], counts.fn[0]) == (0, 1, 1)  # 9: IoU 1/2; 8: on void alone
    half = np.array([[0, 9, 9, 0]])
    counts = count_window_matches(table([(true, half, [(1, 1, 2, False)], [(9, 0)])]), (range(1), 1), CATEGORIES)
    assert counts.fp[0] == 1


def square(y, x, side=4, size=(12, 16)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


def result(*tracks, names=("cat", "dog"), length=5):
    """Tracks: (id, label, {frame: mask})."""
    masklets = tuple(
        Masklet(id, {t: Sighting(Rle.encode(m), Source.DETECTED) for t, m in masks.items()}, label)
        for id, label, masks in tracks
    )
    return VideoResult("clip", (12, 16), length, 10.0, masklets, names, Provenance("test"))


MOVING = {t: square(2, t) for t in range(5)}
STILL = {t: square(7, 9) for t in (0, 1, 4)}


def test_a_perfect_result_is_one_and_an_empty_one_zero():
    truth = result((4, 0, MOVING), (0, 1, STILL))
    again = result((11, 0, STILL), (3, 1, MOVING), names=("dog", "cat"))  # other ids, order and numbering of names
    assert set(panoptic.compute_vpq(truth, again).values()) == {1.0}
    assert panoptic.compute_stq(truth, again).stq == 1.0
    assert set(panoptic.compute_vpq(truth, result()).values()) == {0.0}
    assert panoptic.compute_stq(truth, result()).stq == 0.0
    assert set(panoptic.compute_vpq(result(), result()).values()) == {None}


def test_an_id_switch_costs_more_the_longer_the_window():
    truth = result((1, 0, MOVING))
    found = result((1, 0, {t: MOVING[t] for t in (0, 1)}), (2, 0, {t: MOVING[t] for t in (2, 3, 4)}))
    by_k = panoptic.compute_vpq(truth, found)
    assert by_k[1] == 1.0
    assert by_k[WHOLE] == pytest.approx(0.6 / 1.5)  # IoU 3/5 matches, the other tube is a false positive
    assert panoptic.compute_stq(truth, found).aq == pytest.approx((3 * 3 / 5 + 2 * 2 / 5) / 5)
    assert panoptic.compute_stq(truth, found).sq == 1.0


def test_another_name_is_another_category():
    assert panoptic.compute_vpq(result((1, 0, MOVING)), result((1, 1, MOVING)))[1] == 0.0


def test_results_of_different_videos_are_refused():
    with pytest.raises(InputError, match="not the same video"):
        panoptic.compute_vpq(result((1, 0, MOVING)), result((1, 0, MOVING), length=6))


def test_means():
    means = {1: 10.0, 2: 20.0, 4: 30.0, 6: 40.0, 8: 50.0, 10: 60.0, WHOLE: 15.0}
    assert panoptic.compute_vpq_bar(means) == (15 + 35) / 2
    assert panoptic.compute_window_mean(means, (1, 2, 4, 6)) == 25
    assert panoptic.compute_window_mean({**means, 2: None}, (1, 2)) is None
    assert panoptic.compute_vpq_bar({**means, WHOLE: None}) is None
