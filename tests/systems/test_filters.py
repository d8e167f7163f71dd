from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import square

from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.systems.filters import drop_twins, join_twins, keep_supported, name_masklet


def masklet(
    id: int,
    frames: range,
    keys: range = range(0),
    at: tuple[int, int] = (4, 4),
    label: int = 0,
    score: float = 0.9,
) -> Masklet:
    mask = Rle.encode(square(*at))
    sight = {
        t: Sighting(mask, Source.DETECTED, score, label) if t in keys else Sighting(mask, Source.FORWARD, 0.5)
        for t in frames
    }
    return Masklet(id, sight)


def ids(masklets: tuple[Masklet, ...]) -> list[int]:
    return [m.id for m in masklets]


def test_one_key_frame_in_ten_is_enough_and_one_in_eleven_is_not() -> None:
    assert ids(keep_supported([masklet(1, range(10), range(1)), masklet(2, range(11), range(1))], 0.1)) == [1]


def test_a_ratio_of_zero_keeps_all() -> None:
    assert ids(keep_supported([masklet(1, range(9))], 0.0)) == [1]


def test_the_twin_with_fewer_key_frames_goes() -> None:
    weak, strong = masklet(1, range(20), range(3)), masklet(2, range(20), range(9))
    assert ids(drop_twins([weak, strong])) == [2]
    assert ids(drop_twins([masklet(1, range(20), range(9)), strong])) == [1]  # on a tie the older stays


def test_five_frames_of_agreement_are_no_twins_and_six_are() -> None:
    long = masklet(1, range(40), range(9))
    for frames, want in ((5, [1, 2]), (6, [1])):
        here, there = range(frames), range(frames, 40)
        other = {**masklet(2, here).sightings, **masklet(2, there, at=(20, 20)).sightings}
        assert ids(drop_twins([long, Masklet(2, other)])) == want


def lost_and_found(lost: int = 10) -> list[Masklet]:
    """An object of 20 frames, detected up to frame `lost` and then propagated astray; and the same found again, detected
    from frame 14 on and completed backward to frame 0.
    """
    astray = masklet(1, range(lost), range(lost)).sightings | masklet(1, range(lost, 20), at=(20, 20)).sightings
    return [Masklet(1, astray), masklet(2, range(20), range(14, 20))]


def test_an_object_that_was_lost_and_found_again_is_one() -> None:
    """As published it ends where it was lost; joined, each frame's mask is that of the nearest detection."""
    [dropped] = drop_twins(lost_and_found())
    assert dropped == lost_and_found()[0]
    [joined] = drop_twins(lost_and_found(), join=0.5)
    there, away = Rle.encode(square(4, 4)), Rle.encode(square(20, 20))
    # The last key frame before is 9 and the first after is 14: up to frame 11 the first is nearer.
    assert [s.mask for s in joined.sightings.values()] == [there] * 10 + [away] * 2 + [there] * 8
    assert joined.id == 1 and joined.key_frames == {*range(10), *range(14, 20)}


@pytest.mark.parametrize(("join", "keys"), [(0.5, 16), (0.51, 10)])
def test_twins_that_agree_in_too_few_frames_are_not_joined(join: float, keys: int) -> None:
    assert [len(m.key_frames) for m in drop_twins(lost_and_found(), join=join)] == [keys]


@given(
    st.lists(st.dictionaries(st.integers(0, 15), st.booleans(), min_size=1, max_size=12), min_size=1, max_size=3),
)
def test_joined_twins_keep_every_detection_and_take_each_frame_from_the_nearest(pages: list[dict[int, bool]]) -> None:
    """A slow twin of the rule, over masklets with any frames (True: detected), each with masks of its own."""
    masklets = [
        Masklet(
            n,
            {
                t: Sighting(Rle.encode(square(4 * n, t)), Source.DETECTED if key else Source.FORWARD)
                for t, key in sorted(page.items())
            },
        )
        for n, page in enumerate(pages)
    ]
    joined = join_twins(masklets[0], masklets[1:])
    assert list(joined.sightings) == sorted({t for page in pages for t in page})
    assert joined.key_frames == {t for m in masklets for t in m.key_frames}
    for t, sighting in joined.sightings.items():
        seen = [m for m in masklets if t in m.sightings]
        away = [min((abs(t - key) for key in m.key_frames), default=99) for m in seen]
        assert sighting == seen[away.index(min(away))].sightings[t]


def test_in_a_short_video_half_of_the_meetings_are_enough_and_one_is_needed() -> None:
    a = masklet(1, range(4), range(4))
    half = Masklet(2, {**masklet(2, range(2)).sightings, **masklet(2, range(2, 4), at=(20, 20)).sightings})
    less = Masklet(2, {**masklet(2, range(1)).sightings, **masklet(2, range(1, 4), at=(20, 20)).sightings})
    assert ids(drop_twins([a, half])) == [1]
    assert ids(drop_twins([a, less])) == [1, 2]
    assert ids(drop_twins([a, masklet(2, range(3, 6))])) == [1]  # they meet once, and agree
    assert ids(drop_twins([a, masklet(2, range(4, 8))])) == [1, 2]  # they never meet


def test_iou_of_exactly_the_limit_does_not_agree() -> None:
    left, right = torch.zeros(2, 32, 32, dtype=torch.bool)
    left[0, :3], right[0, 1:4] = True, True  # 2 of 4
    a, b = (Masklet(i, {0: Sighting(Rle.encode(m), Source.DETECTED, 0.9, 0)}) for i, m in ((1, left), (2, right)))
    assert ids(drop_twins([a, b], iou=0.5)) == [1, 2]
    assert ids(drop_twins([a, b], iou=0.49)) == [1]


boxes = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 9), st.integers(1, 8))


@given(st.lists(boxes, max_size=6))
def test_no_twins_are_left_and_only_twins_go(places: list[tuple[int, int, int, int]]) -> None:
    book = [masklet(i, range(t, t + n), range(t, t + n // 2), (y, x)) for i, (y, x, t, n) in enumerate(places, 1)]
    kept = drop_twins(book)
    assert all(drop_twins([a, b]) == (a, b) for a in kept for b in kept if a.id < b.id)
    gone = [m for m in book if m not in kept]
    assert all(any(drop_twins(sorted([m, k], key=lambda x: x.id)) == (k,) for k in kept) for m in gone)
    assert drop_twins(kept) == kept


def test_the_category_is_the_one_with_the_greatest_sum_of_scores() -> None:
    votes = [(0, 0.7), (0, 0.7), (1, 0.99), (2, 0.6)]
    mask = Rle.encode(square(0, 0))
    m = Masklet(1, {t: Sighting(mask, Source.DETECTED, s, k) for t, (k, s) in enumerate(votes)})
    assert name_masklet(m).label == 0
    assert name_masklet(m).score == pytest.approx(0.7)


def test_gamma_makes_support_count() -> None:
    m = masklet(1, range(10), range(5), score=0.8)
    assert name_masklet(m).score == pytest.approx(0.8)
    assert name_masklet(m, gamma=1.0).score == pytest.approx(0.4)


def test_without_key_frames_the_proposals_name_it_and_it_scores_nothing() -> None:
    mask = Rle.encode(square(0, 0))
    m = name_masklet(Masklet(1, {0: Sighting(mask, Source.FORWARD, 0.6, 2), 1: Sighting(mask, Source.FORWARD, 0.9)}))
    assert (m.label, m.score) == (2, 0.0)


def test_a_ratio_reached_exactly_is_enough_whatever_the_number() -> None:
    assert ids(keep_supported([masklet(1, range(100), range(7))], 0.07)) == [1]  # 0.07 * 100 > 7 in floating point


def test_no_frame_of_agreement_is_never_enough() -> None:
    apart = [masklet(1, range(4)), masklet(2, range(4), at=(20, 20))]
    assert ids(drop_twins(apart, frames=0)) == [1, 2]


def test_the_ratio_is_of_frames_in_which_it_is_seen_not_of_the_span() -> None:
    """One key frame in eight sightings is enough, though they lie sixteen frames apart; in the span it were not."""
    gaps = masklet(1, range(0, 16, 2), range(1))
    assert len(gaps.sightings) == 8 and max(gaps.sightings) - min(gaps.sightings) + 1 == 15
    assert ids(keep_supported([gaps], 0.1)) == [1] and ids(keep_supported([gaps], 0.126)) == []
