"""Assignment of queries: worked examples, and the slow twin that tries everything."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import assignment as slow

from masklet.train.assignment import (
    ClipTargets,
    collect_targets,
    compute_bce_costs,
    compute_dice_costs,
    compute_query_costs,
    find_cheapest_pairs,
    fit_clip_to_input,
    keep_held_masks,
    list_visible_queries,
    mark_all_queries,
    mark_held_queries,
    mark_unused_queries,
    match_by_uvla,
    match_first_appearance,
    match_whole_clip,
    take_last_frame_labels,
)
from masklet.train.data.clips import TrainingClip
from masklet.train.losses import LossSettings, bce_loss, dice_loss, stack_clip_frames

AT = LossSettings(points=24)
SEEDS = st.integers(0, 2**31)


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def repeated(seed):
    """Random numbers that are the same in every call of one shape: costs can be computed beside the assignment."""
    return lambda *shape: torch.rand(*shape, generator=drawn(seed))


def scene(seed, queries=4, objects=3, frames=3):
    """Predictions and targets of nothing in particular; every object is seen."""
    g = drawn(seed)
    logits, masks = torch.randn(frames, queries, 4, generator=g), torch.randn(frames, queries, 3, 4, generator=g) * 3
    inside = (torch.rand(objects, frames, 6, 8, generator=g) > 0.5).float()
    visible = torch.rand(objects, frames, generator=g) > 0.5
    visible[torch.arange(objects), torch.randint(frames, (objects,), generator=g)] = True
    labels = torch.randint(3, (objects,), generator=g)
    return logits, masks, ClipTargets(inside * visible[..., None, None], visible, labels)


def table(seed, logits, masks, labels, inside, points):
    """Costs by the twin."""
    points = repeated(seed)(1, points, 2)[0].tolist()
    found, wanted = ([[slow.bilinear(m, *p) for p in points] for m in maps.tolist()] for maps in (masks, inside))
    return [
        [slow.cost(row, f, label, w, (2, 5, 5)) for label, w in zip(labels.tolist(), wanted, strict=True)]
        for row, f in zip(logits.tolist(), found, strict=True)
    ]


def as_dict(pairs):
    return dict(zip(pairs.objects.tolist(), pairs.queries.tolist(), strict=True))


@given(SEEDS)
def test_costs_are_the_twins(seed):
    logits, masks, targets = scene(seed)
    got = compute_query_costs(logits[0], masks[0], targets.labels, targets.masks[:, 0], 24, repeated(seed), AT)
    want = table(seed, logits[0], masks[0], targets.labels, targets.masks[:, 0], 24)
    torch.testing.assert_close(got, torch.tensor(want), atol=1e-4, rtol=1e-4)


@given(SEEDS)
def test_costs_are_the_losses_of_every_pair(seed):
    found, wanted = torch.randn(3, 9, generator=drawn(seed)), torch.rand(2, 9, generator=drawn(seed + 1)).round()
    for table_of, loss in ((compute_bce_costs, bce_loss), (compute_dice_costs, dice_loss)):
        pairs = torch.stack([loss(found, w.expand(3, -1)) for w in wanted], 1)
        torch.testing.assert_close(table_of(found, wanted), pairs)


@given(SEEDS, st.integers(1, 5), st.integers(0, 4))
def test_assignment_is_the_best_of_all(seed, queries, objects):
    cost = torch.rand(queries, objects, generator=drawn(seed))
    free = torch.rand(queries, generator=drawn(seed + 1)) > 0.3
    want = slow.best(cost.tolist(), free.nonzero()[:, 0].tolist())
    assert as_dict(find_cheapest_pairs(cost, free)) == want


def test_more_objects_than_queries():
    pairs = find_cheapest_pairs(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([True]))
    assert as_dict(pairs) == {1: 0}
    assert len(find_cheapest_pairs(torch.rand(2, 3), torch.tensor([False, False])).queries) == 0


def test_where_no_cost_can_be_told_the_others_are_still_matched():
    """So that a step whose loss is not finite ends in the loop, which skips it, and not here."""
    cost = torch.tensor([[0.0, 1.0], [torch.nan, 0.5], [torch.inf, torch.nan]])
    assert as_dict(find_cheapest_pairs(cost, torch.ones(3, dtype=torch.bool))) == {0: 0, 1: 1}
    assert len(find_cheapest_pairs(cost * torch.nan, torch.ones(3, dtype=torch.bool)).queries) == 2


@given(SEEDS, st.integers(2, 5))
def test_first_appearance_is_the_twins(seed, queries):
    logits, masks, targets = scene(seed, queries)
    tables = [table(seed, logits[t], masks[t], targets.labels, targets.masks[:, t], 24) for t in range(len(logits))]
    got = match_first_appearance(logits, masks, targets, repeated(seed), AT)
    assert as_dict(got) == slow.first_appearance(tables, targets.visible.tolist(), queries)
    assert len(set(got.queries.tolist())) == len(got.queries) == min(queries, 3)


def look(inside):
    """Mask logits of a query that sees exactly this."""
    return (torch.as_tensor(inside).float() - 0.5) * 40


def newcomer():
    """Object 0 in frame 0 alone, object 1 from frame 1 on; query 0 would fit both best, query 1 object 1 next."""
    inside = torch.zeros(2, 2, 4, 4)
    inside[0, 0, :2] = 1
    inside[1, 1, 2:] = 1
    masks = torch.full((2, 3, 4, 4), -20.0)
    masks[0, 0], masks[1, 0] = look(inside[0, 0]), look(inside[1, 1])
    masks[1, 1, 2] = 20
    targets = ClipTargets(inside, inside.flatten(2).any(2), torch.zeros(2, dtype=torch.int64))
    return torch.zeros(2, 3, 2), masks, targets


def test_a_query_is_given_once():
    assert as_dict(match_first_appearance(*newcomer(), repeated(0), AT)) == {0: 0, 1: 1}


def test_the_released_program_gives_it_twice():
    assert as_dict(match_first_appearance(*newcomer(), repeated(0), AT, mark_all_queries)) == {0: 0, 1: 0}


def test_no_object():
    logits, masks, targets = scene(0)
    none = ClipTargets(targets.masks[:0], targets.visible[:0], targets.labels[:0])
    assert as_dict(match_first_appearance(logits, masks, none, repeated(0), AT)) == {}
    assert as_dict(match_whole_clip(logits[0], masks.transpose(0, 1), none, repeated(0), AT)) == {}


@given(SEEDS)
def test_whole_clip_is_the_best_of_all(seed):
    logits, masks, targets = scene(seed)
    masks = masks.transpose(0, 1)
    tall = stack_clip_frames(masks), targets.labels, stack_clip_frames(targets.masks)
    want = slow.best(table(seed, logits[0], *tall, 3 * 24), range(4))
    assert as_dict(match_whole_clip(logits[0], masks, targets, repeated(seed), AT)) == want


def clips_of(targets):
    for t in range(targets.masks.shape[1]):
        one = slice(t, t + 1)
        yield ClipTargets(targets.masks[:, one], targets.visible[:, one], targets.labels)


@given(SEEDS, st.integers(3, 5))
def test_uvla_plus_is_the_twins(seed, queries):
    logits, masks, targets = scene(seed, queries)
    tables = [table(seed, logits[t], masks[t], targets.labels, targets.masks[:, t], 24) for t in range(len(logits))]
    wanted = slow.unified(tables, targets.visible.tolist(), queries)
    known = torch.full((3,), -1)
    for t, (clip, want) in enumerate(zip(clips_of(targets), wanted, strict=True)):
        known = match_by_uvla(logits[t], masks[t][:, None], clip, known, repeated(seed), AT)
        assert known.tolist() == [want.get(g, -1) for g in range(3)]


@given(SEEDS)
def test_uvla_plus_never_gives_an_occupied_query_away(seed):
    """Also where there are more objects than queries; and what an object has it keeps."""
    logits, masks, targets = scene(seed, queries=3, objects=5, frames=4)
    known = torch.full((5,), -1)
    for t, clip in enumerate(clips_of(targets)):
        after = match_by_uvla(logits[t], masks[t][:, None], clip, known, repeated(seed), AT)
        assert torch.equal(after[known >= 0], known[known >= 0])
        given_to = after[after >= 0].tolist()
        assert len(set(given_to)) == len(given_to)
        known = after


def test_uvla_as_released_gives_away_the_query_of_who_is_absent():
    logits, masks, targets = newcomer()
    for occupied, want in (({}, [0, 1]), ({"occupied": list_visible_queries}, [0, 0])):
        known = torch.tensor([-1, -1])
        for t, clip in enumerate(clips_of(targets)):
            known = match_by_uvla(logits[t], masks[t][:, None], clip, known, repeated(0), AT, **occupied)
        assert known.tolist() == want


def test_uvla_leaves_what_it_is_given():
    logits, masks, targets = newcomer()
    known = torch.tensor([-1, -1])
    match_by_uvla(logits[0], masks[0][:, None], next(clips_of(targets)), known, repeated(0), AT)
    assert known.tolist() == [-1, -1]


def test_masks_of_queries_that_are_no_object_are_zero():
    known = torch.tensor([2, -1, 0])
    assert mark_held_queries(known, 4).tolist() == [True, False, True, False]
    assert keep_held_masks(torch.ones(4, 1, 1), known).flatten().tolist() == [1, 0, 1, 0]


def test_unused():
    assert mark_unused_queries(3, torch.tensor([1])).tolist() == [True, False, True]


def clip():
    """Object 0 is annotated and never seen, 1 only in frame 0, 2 is annotated in both but has pixels in frame 1 alone."""
    present = torch.tensor([[True, True], [True, False], [True, True]])
    masks = torch.zeros(3, 2, 2, 2, dtype=torch.bool)
    masks[1, 0, 0] = masks[2, 1, 1] = True
    return TrainingClip(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), masks, present, torch.tensor([4, 5, 6]))


def test_targets_are_what_is_seen():
    made = collect_targets(clip(), 7)
    assert made.visible.tolist() == [[True, False], [False, True]]
    assert made.labels.tolist() == [5, 6]
    assert made.first.tolist() == [0, 1]
    assert made.masks.sum().item() == 4


def test_masks_as_a_network_sees_them():
    """Padded on the right and below; where the network looks at another size, each pixel as its nearest one."""
    padded = fit_clip_to_input(clip(), (2, 2), (4, 6)).masks
    assert torch.equal(padded[..., :2, :2], clip().masks) and padded.sum() == clip().masks.sum()
    twice = fit_clip_to_input(clip(), (4, 4), (4, 4)).masks
    assert torch.equal(twice, clip().masks.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_nobody_in_a_clip_is_seen_as_nobody():
    nobody = TrainingClip(clip().images, clip().masks[:0], clip().present[:0], clip().labels[:0])
    assert fit_clip_to_input(nobody, (4, 4), (8, 8)).masks.shape == (0, 2, 8, 8)


def test_labels_of_the_last_frame():
    assert collect_targets(clip(), 7, take_last_frame_labels).labels.tolist() == [7, 6]
