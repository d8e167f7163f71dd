from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from masklet.core.masks import mask_iou
from masklet.systems.deva.consensus import (
    DetectedSegment,
    MergeRules,
    VotedTrack,
    find_best_selection,
    find_consensus,
    measure_support,
    merge_detections,
    resolve_overlaps,
)

SIZE = (10, 12)


def box(y: int, x: int, h: int, w: int) -> torch.Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[y : y + h, x : x + w] = True
    return mask


boxes = st.builds(box, st.integers(0, 3), st.integers(0, 3), st.integers(0, 6), st.integers(1, 6))
proposals = st.lists(st.tuples(boxes, st.integers(0, 3), st.sampled_from([None, True, False, None])), max_size=12)


def arranged(rows) -> tuple[torch.Tensor, list[int], list[bool | None]]:
    masks = torch.stack([m for m, *_ in rows]) if rows else torch.zeros(0, *SIZE, dtype=torch.bool)
    return masks, [f for _, f, _ in rows], [t for *_, t in rows]


def plain_support(masks, frames, things) -> np.ndarray:
    out = np.zeros((len(masks), len(masks)))
    for i in range(len(masks)):
        for j in range(len(masks)):
            both, either = int((masks[i] & masks[j]).sum()), int((masks[i] | masks[j]).sum())
            if frames[i] != frames[j] and things[i] is things[j] and 2 * both > either:
                out[i, j] = both / either
    return out


def brute_force(gain, linked, order) -> list[int]:
    """Of all allowed selections the best; among equals the one that takes the earliest where they part."""
    allowed = [
        s
        for k in range(len(order) + 1)
        for s in combinations(range(len(order)), k)
        if not any(linked[order[a], order[b]] for a, b in combinations(s, 2))
    ]
    most = max(sum(gain[order[a]] for a in s) for s in allowed)
    equal = [s for s in allowed if sum(gain[order[a]] for a in s) > most - 1e-9]
    first = max(equal, key=lambda s: [a in s for a in range(len(order))])
    return sorted(order[a] for a in first if gain[order[a]] > 0)


@settings(deadline=None, max_examples=150)
@given(proposals)
def test_consensus_is_what_brute_force_finds(rows) -> None:
    masks, frames, things = arranged(rows)
    iou = plain_support(masks, frames, things)
    np.testing.assert_array_equal(measure_support(masks, frames, things), iou)
    order = sorted(range(len(masks)), key=lambda p: (frames[p], p))
    got = find_consensus(masks, frames, things)
    assert list(got.selected) == brute_force(iou.sum(1) - 0.5, iou > 0, order)
    assert not any(iou[a, b] for a, b in combinations(got.selected, 2))
    assert all(set(m) == {p, *np.flatnonzero(iou[p])} for p, m in zip(got.selected, got.members, strict=True))
    assert (got.masks.sum(0) <= 1).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_any_graph(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    linked = np.triu(rng.random((n, n)) < rng.random(), 1)
    linked |= linked.T
    gain = rng.integers(1, 4, n).astype(float)  # small integers: many ties
    order = rng.permutation(n).tolist()
    assert sorted(find_best_selection(gain, linked, order)) == brute_force(gain, linked, order)


def test_a_pair_ties_and_the_earlier_frame_has_it() -> None:
    masks = torch.stack([box(0, 0, 4, 5), box(0, 0, 4, 4), box(6, 6, 2, 2)])
    got = find_consensus(masks, [1, 0, 0], [None] * 3)
    assert got.selected == (1,) and got.members == ((1, 0),)
    assert got.objective == 16 / 20 - 0.5


def test_of_equally_good_selections_the_order_of_the_list_decides() -> None:
    """A chain of four, of which each supports the next: its two ends are of one frame, and {first, third} is as good as
    {second, last}.
    """
    masks = torch.zeros(4, 1, 19, dtype=torch.bool)
    for row, start in enumerate((0, 9, 3, 6)):
        masks[row, :, start : start + 10] = True
    assert find_consensus(masks, [0, 0, 1, 2], [None] * 4).selected == (0, 3)
    assert find_consensus(masks[[1, 0, 2, 3]], [0, 0, 1, 2], [None] * 4).selected == (0, 2)


def test_exactly_half_is_no_support() -> None:
    assert find_consensus(torch.stack([box(0, 0, 4, 4), box(0, 0, 4, 2)]), [0, 1], [None] * 2).selected == ()


def test_things_and_stuff_neither_support_nor_exclude() -> None:
    masks = torch.stack([box(0, 0, 4, 4)] * 4)
    assert find_consensus(masks, [0, 1, 0, 1], [True, True, False, False]).selected == (0, 2)
    assert find_consensus(masks[:2], [0, 1], [True, None]).selected == ()


def test_small_ones_lie_in_front_and_of_equal_ones_the_last() -> None:
    small, large, other = box(0, 0, 2, 2), box(0, 0, 4, 4), box(0, 1, 2, 2)
    painted = resolve_overlaps(torch.stack([small, large, other]))
    assert torch.equal(painted[2], other)
    assert torch.equal(painted[0], small & ~other)
    assert torch.equal(painted[1], large & ~small & ~other)


RULES = MergeRules()


def labelled(canvas: torch.Tensor, kinds) -> list[DetectedSegment]:
    """The segments of a label map."""
    return [DetectedSegment(canvas == v, (v,), (v / 10,), kinds[v % 3]) for v in range(1, int(canvas.max()) + 1)]


maps = st.lists(st.integers(0, 5), min_size=120, max_size=120).map(lambda v: torch.tensor(v).view(SIZE))
kinds = st.sampled_from([(None, None, None), (True, False, None)])


def outcome(done) -> dict[tuple, tuple]:
    """What was merged, by the pixels: which do not depend on ids."""
    names = {i: tuple(map(tuple, m.nonzero().tolist())) for i, m in done.masks.items()}
    return {names[i]: (t.votes, round(t.score_sum, 9), t.missed, t.thing) for i, t in done.tracks.items()}


def coarse(canvas: torch.Tensor, step: int) -> torch.Tensor:
    """Segments large enough to be found again."""
    return canvas[::step, ::step].repeat_interleave(step, 0).repeat_interleave(step, 1)[: SIZE[0], : SIZE[1]]


def scattered(rng: np.random.Generator, corners: np.ndarray) -> torch.Tensor:
    """Rectangles about given corners, painted over each other."""
    canvas = torch.zeros(60, 80, dtype=torch.int64)
    for n, (y, x, h, w) in enumerate(corners + rng.integers(-2, 3, corners.shape), start=1):
        canvas[max(y, 0) : y + h, max(x, 0) : x + w] = n
    return canvas


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), kinds, st.permutations(range(6)))
def test_the_order_of_detections_changes_ids_only(seed, kinds, order) -> None:
    rng = np.random.default_rng(seed)
    corners = np.stack(
        [rng.integers(0, 45, 6), rng.integers(0, 65, 6), rng.integers(4, 30, 6), rng.integers(4, 30, 6)], 1
    )
    before, after = scattered(rng, corners), scattered(rng, corners)
    tracks, own = {}, {}
    for n, s in enumerate(labelled(before, kinds), start=1):
        tracks[n], own[n] = VotedTrack({}, thing=s.thing), s.mask
    found = [s for s in labelled(after, kinds) if s.mask.any()]
    masks = [*own.values(), *(s.mask for s in found)]
    unions = [
        int((o | s.mask).sum()) for o in own.values() for s in found if float(mask_iou(o[None], s.mask[None])) > 0.5
    ]
    areas = [int(m.sum()) for m in masks if m.any()] + unions
    assume(len(set(areas)) == len(areas))  # between equal areas the order of the list decides, as in the official code
    shuffled = [found[o] for o in order if o < len(found)]
    a, b = (
        merge_detections(tracks, own, found, (60, 80), 9, RULES),
        merge_detections(tracks, own, shuffled, (60, 80), 9, RULES),
    )
    assert outcome(a) == outcome(b) and a.new == b.new
    assert sorted(a.matched) == sorted(b.matched)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(maps.map(lambda c: coarse(c, 5)), min_size=2, max_size=6),
    st.integers(0, 2),
    st.sampled_from(["at", "beyond"]),
)
def test_deleted_ids_never_come_back_and_no_pixel_is_twice(frames, limit, delete) -> None:
    tracks, own, born, gone = {}, {}, 0, set()
    for canvas in frames:
        done = merge_detections(tracks, own, labelled(canvas, (None,) * 3), SIZE, born, MergeRules(limit, delete))
        assert list(done.new) == list(range(born + 1, born + 1 + len(done.new)))
        born += len(done.new)
        gone |= set(done.deleted)
        assert not gone & done.tracks.keys() and done.masks.keys() == done.tracks.keys()
        assert all(t.missed <= limit for t in done.tracks.values())
        if done.masks:
            assert (torch.stack(list(done.masks.values())).sum(0) <= 1).all()
        tracks, own = done.tracks, done.masks


def test_a_match_is_the_union_and_new_ids_follow_the_area() -> None:
    tracks, own = {1: VotedTrack()}, {1: box(0, 0, 4, 4)}
    found = [
        DetectedSegment(box(8, 8, 1, 1)),
        DetectedSegment(box(0, 1, 4, 4), (7,), (0.5,)),
        DetectedSegment(box(6, 0, 2, 6)),
    ]
    done = merge_detections(tracks, own, found, SIZE, 1, RULES)
    assert torch.equal(done.masks[1], box(0, 0, 4, 5)) and done.matched == (1,) and done.tracks[1].votes == {7: 1}
    assert torch.equal(done.masks[2], found[2].mask) and torch.equal(done.masks[3], found[0].mask)


def test_things_cover_stuff_whatever_their_size() -> None:
    stuff, thing = DetectedSegment(box(0, 0, 2, 2), thing=False), DetectedSegment(box(0, 0, 4, 4), thing=True)
    done = merge_detections({}, {}, [stuff, thing], SIZE, 0, RULES)
    assert torch.equal(done.masks[2], thing.mask) and not done.masks[1].any()


def test_a_track_takes_no_segment_of_another_kind() -> None:
    """Things, stuff and segments of unknown kind: one on the very pixels of a track begins an object, if not of its own."""
    mask = box(0, 0, 4, 4)
    for own in (True, False, None):
        for other in (True, False, None):
            found = [DetectedSegment(mask, thing=other)]
            done = merge_detections({1: VotedTrack(thing=own)}, {1: mask}, found, SIZE, 1, RULES)
            assert (done.matched, done.new) == (((1,), ()) if own is other else ((), (2,)))


def test_a_match_is_above_half() -> None:
    """Exactly half is none."""
    tracks, own = {1: VotedTrack()}, {1: box(0, 0, 4, 4)}
    for width, matched in ((2, ()), (3, (1,))):
        done = merge_detections(tracks, own, [DetectedSegment(box(0, 0, 4, width))], SIZE, 1, RULES)
        assert done.matched == matched


def test_within_a_kind_small_covers_large() -> None:
    small, large = box(0, 0, 2, 2), box(0, 0, 4, 4)
    for order in ((small, large), (large, small)):
        done = merge_detections({}, {}, [DetectedSegment(m, thing=True) for m in order], SIZE, 0, RULES)
        assert torch.equal(done.masks[1], large & ~small) and torch.equal(done.masks[2], small)


def test_a_segment_without_pixels() -> None:
    nothing = [DetectedSegment(box(0, 0, 0, 0))]
    assert not merge_detections({}, {}, nothing, SIZE, 0, RULES).tracks
    assert list(merge_detections({}, {}, nothing, SIZE, 0, MergeRules(empty_born=True)).tracks) == [1]


def test_room_for_the_largest_and_for_known_objects() -> None:
    tracks, own = {1: VotedTrack()}, {1: box(0, 0, 4, 4)}
    found = [DetectedSegment(box(8, 0, 1, 1)), DetectedSegment(box(0, 0, 4, 4)), DetectedSegment(box(6, 0, 2, 6))]
    done = merge_detections(tracks, own, found, SIZE, 1, MergeRules(max_objects=2))
    assert done.matched == (1,) and torch.equal(done.masks[2], found[2].mask) and done.refused == 1
    released = merge_detections(tracks, own, found, SIZE, 1, MergeRules(max_objects=2, overflow="all"))
    assert list(released.tracks) == [1] and released.tracks[1].missed == 1 and released.refused == 3


def test_only_unseen_objects_miss_in_incremental_merging() -> None:
    tracks = {1: VotedTrack(missed=2), 2: VotedTrack(missed=2)}
    own = {1: box(0, 0, 2, 2), 2: box(0, 0, 0, 0)}
    done = merge_detections(tracks, own, [], SIZE, 2, MergeRules(count="invisible"))
    assert [t.missed for t in done.tracks.values()] == [0, 3]


def test_the_vote_is_the_most_frequent_label_and_the_smallest_on_a_tie() -> None:
    track = VotedTrack().seen(DetectedSegment(box(0, 0, 1, 1), (4, 2), (0.5, 1.0)))
    assert (track.label, track.score) == (2, 0.75)
    assert track.seen(DetectedSegment(box(0, 0, 1, 1), (4,), ())).label == 4
    assert (VotedTrack().label, VotedTrack().score) == (-1, 0.0)
