"""Losses of queries: worked examples, and the slow twin on full grids."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import assignment as slow

from masklet.train.data.clips import seed_item_generator
from masklet.train.losses import (
    LossSettings,
    QueryPairs,
    bce_loss,
    build_class_targets,
    compute_class_loss,
    compute_clip_losses,
    compute_frame_losses,
    compute_mask_losses,
    compute_uvla_losses,
    dice_loss,
    draw_uncertain_points,
    make_uniform_sampler,
    sample_at_points,
    stack_clip_frames,
)

H, W = 3, 4
ONCE = LossSettings(points=H * W, oversample=1, importance=1)  # all points are candidates, and all are taken
SEEDS = st.integers(0, 2**31)


def grid(h, w):
    """The pixel centres, whatever is asked for."""
    x, y = (torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)
    return lambda m, p, two: points[:p].expand(m, -1, -1)


def torch_rand(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.rand(*shape, generator=generator)


def scene(seed, *, frames=2, queries=4, objects=3):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, queries, 4, generator=g)
    masks = torch.randn(frames, queries, H, W, generator=g) * 3
    inside = torch.rand(objects, frames, H, W, generator=g).round()
    pairs = QueryPairs(torch.randperm(queries, generator=g)[:2], torch.randperm(objects, generator=g)[:2])
    return logits, masks, inside, torch.randint(3, (objects,), generator=g), pairs


@given(SEEDS)
def test_sampling_is_the_twins(seed):
    rand = torch_rand(seed)
    maps, points = rand(2, 3, 5), rand(2, 7, 2) * 1.2 - 0.1
    want = [[slow.bilinear(m, *p) for p in some] for m, some in zip(maps.tolist(), points.tolist(), strict=True)]
    torch.testing.assert_close(sample_at_points(maps, points), torch.tensor(want), atol=1e-5, rtol=1e-5)


@given(SEEDS)
def test_single_losses_are_the_twins(seed):
    g = torch.Generator().manual_seed(seed)
    found, wanted = torch.randn(3, 8, generator=g) * 4, torch.rand(3, 8, generator=g)
    for fast, twin in ((bce_loss, slow.bce), (dice_loss, slow.dice)):
        want = [twin(f, w) for f, w in zip(found.tolist(), wanted.tolist(), strict=True)]
        torch.testing.assert_close(fast(found, wanted), torch.tensor(want), atol=1e-5, rtol=1e-5)


@given(SEEDS)
def test_class_loss_is_the_twins(seed):
    g = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(2, 3, 4, generator=g), torch.randint(4, (2, 3), generator=g)
    want = slow.cross_entropy(logits.flatten(0, 1).tolist(), labels.flatten().tolist(), 0.1)
    assert compute_class_loss(logits, labels).item() == pytest.approx(want, rel=1e-5)


def test_dice_worked_out():
    """One sure point of two inside: 1 - (2 + 1) / (1 + 2 + 1). Empty and found empty: 0."""
    found, wanted = torch.tensor([[40.0, -40.0], [-40.0, -40.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert dice_loss(found, wanted).tolist() == [0.25, 0]


def test_bce_worked_out():
    assert bce_loss(torch.zeros(1, 4), torch.tensor([[0.0, 1.0, 1.0, 0.0]])).item() == pytest.approx(log(2))


def test_no_object_counts_a_tenth():
    """Both are certain of class 0; the second should say no object: (0 + 0.1 * 9) / 1.1."""
    loss = compute_class_loss(torch.tensor([[[9.0, 0.0], [9.0, 0.0]]]), torch.tensor([[0, 1]]))
    assert loss.item() == pytest.approx(0.1 * 9 / 1.1, abs=1e-3)


def expected(rows, inside, count):
    """Weighted mask losses of the twin over (map, truth) pairs."""
    flat = [(m.flatten().tolist(), t.flatten().tolist()) for m, t in zip(rows, inside, strict=True)]
    return {name: 5 * sum(f(*pair) for pair in flat) / count for name, f in (("mask", slow.bce), ("dice", slow.dice))}


def close(got, want):
    assert {k: v.item() for k, v in got.items()} == pytest.approx(want, rel=1e-4, abs=1e-5)


@given(SEEDS)
def test_frame_losses_are_the_twins_on_the_full_grid(seed):
    logits, masks, inside, labels, pairs = scene(seed)
    got = compute_frame_losses(logits, masks[:, pairs.queries], inside, labels, pairs, grid(H, W), ONCE)
    said = dict(zip(pairs.queries.tolist(), labels[pairs.objects].tolist(), strict=True))
    targets = [said.get(q, 3) for _ in range(2) for q in range(4)]
    by_class = 2 * slow.cross_entropy(logits.flatten(0, 1).tolist(), targets, 0.1)
    order = [(t, q, g) for t in range(2) for q, g in zip(pairs.queries, pairs.objects, strict=True)]
    rows, wanted = [masks[t, q] for t, q, _ in order], [inside[g, t] for t, _, g in order]
    close(got, {"class": by_class, **expected(rows, wanted, 6)})  # all three objects in both frames count


@given(SEEDS)
def test_clip_losses_are_the_twins_on_the_full_grid(seed):
    logits, masks, inside, labels, pairs = scene(seed)
    of_pairs = masks.transpose(0, 1)[pairs.queries]
    got = compute_clip_losses(logits[0], of_pairs, inside, labels, pairs, grid(2 * H, W), ONCE)
    said = dict(zip(pairs.queries.tolist(), labels[pairs.objects].tolist(), strict=True))
    by_class = 2 * slow.cross_entropy(logits[0].tolist(), [said.get(q, 3) for q in range(4)], 0.1)
    close(
        got, {"class": by_class, **expected(stack_clip_frames(of_pairs), stack_clip_frames(inside[pairs.objects]), 3)}
    )


KNOWN = torch.tensor([[2, 0, -1], [1, 3, -1]])  # of two layers and three objects


def uvla_case(visible, supervised):
    logits, masks, inside, labels, _ = scene(1)  # its frames stand for layers
    inside = inside[:, :1] * torch.tensor(visible).view(-1, 1, 1, 1)
    told = {"visible": torch.tensor(visible), "supervised": torch.tensor(supervised)}
    got = compute_uvla_losses(logits, masks[:, :, None], inside, labels, KNOWN, grid(H, W), ONCE, **told)
    pairs = [(layer, g, int(KNOWN[layer, g])) for layer in range(2) for g in range(3) if supervised[g]]
    pairs = [one for one in pairs if one[2] >= 0]
    targets = [[3] * 4, [3] * 4]
    for layer, g, q in pairs:
        if visible[g]:
            targets[layer][q] = int(labels[g])
    by_class = 2 * slow.cross_entropy(logits.flatten(0, 1).tolist(), targets[0] + targets[1], 0.1)
    rows, wanted = [masks[layer, q] for layer, _, q in pairs], [inside[g, 0] for _, g, _ in pairs]
    return got, {"class": by_class, **expected(rows, wanted, max(len(pairs), 1))}


def test_uvla_losses_of_who_is_visible():
    close(*uvla_case([True, False, False], [True, False, False]))


def test_uvla_plus_tells_the_queries_of_who_disappeared_an_empty_mask():
    close(*uvla_case([True, False, False], [True, True, False]))


def test_uvla_losses_with_nobody():
    got, want = uvla_case([False, False, False], [False, False, False])
    close(got, want)
    assert got["mask"] == got["dice"] == 0


def test_who_found_no_query_is_not_told():
    """More objects than queries: the third one is visible, without a query."""
    close(*uvla_case([True, True, True], [True, True, True]))


def perfect(logits, inside, labels, pairs):
    """What a network that knows everything says."""
    said = torch.full_like(logits, -20.0)
    said[..., -1] = 20
    for query, g in zip(pairs.queries, pairs.objects, strict=True):
        said[:, query, -1], said[:, query, labels[g]] = -20, 20
    return said, (inside[pairs.objects].transpose(0, 1) - 0.5) * 60


@given(SEEDS)
def test_perfect_predictions_lose_nothing_and_others_more(seed):
    logits, masks, inside, labels, pairs = scene(seed)
    truth = inside, labels, pairs
    said, seen = perfect(logits, *truth)
    for rule in (
        lambda x, m: compute_frame_losses(x, m, *truth, grid(H, W), ONCE),
        lambda x, m: compute_clip_losses(x[0], m.transpose(0, 1), *truth, grid(2 * H, W), ONCE),
    ):
        best, other = rule(said, seen), rule(logits, masks[:, pairs.queries])
        assert all(best[name] < 1e-5 < other[name] for name in best)


def test_no_pairs():
    logits, masks, inside, labels, _ = scene(0)
    none = QueryPairs(labels[:0], labels[:0])
    got = compute_frame_losses(logits, masks[:, :0], inside, labels, none, torch_rand(0), ONCE)
    assert got["mask"] == got["dice"] == 0 and got["class"] > 0


def test_of_two_pairs_of_a_query_the_later_one_counts():
    pairs = QueryPairs(torch.tensor([1, 1]), torch.tensor([2, 0]))
    assert build_class_targets(pairs, torch.tensor([5, 6, 7]), 3, 9).tolist() == [9, 5, 9]


@given(SEEDS)
def test_points_are_where_the_mask_is_least_sure(seed):
    logits = torch.randn(2, H, W, generator=torch.Generator().manual_seed(seed))
    at = LossSettings(oversample=3, importance=0.75)
    points = draw_uncertain_points(logits, 16, torch_rand(seed), at)
    again = torch_rand(seed)
    candidates, anywhere = again(2, 48, 2), again(2, 4, 2)
    assert torch.equal(points[:, 12:], anywhere)
    for m in range(2):
        unsure = sample_at_points(logits, candidates)[m].abs()
        rank = {tuple(p): n for n, p in enumerate(candidates[m][unsure.argsort(stable=True)].tolist())}
        assert sorted(rank[tuple(p)] for p in points[m, :12].tolist()) == list(range(12))


def test_gradients_go_to_masks_and_not_to_where_they_are_sampled():
    logits = torch.randn(2, H, W, requires_grad=True)
    losses = compute_mask_losses(logits, torch.ones(2, H, W), 2, 20, torch_rand(0), LossSettings())
    sum(losses.values()).backward()
    assert logits.grad.abs().sum() > 0


def test_half_precision_is_compared_in_float32():
    logits = torch.randn(1, H, W)
    args = torch.ones(1, H, W), 1, 20
    full = compute_mask_losses(logits.bfloat16().float(), *args, torch_rand(0), LossSettings())
    half = compute_mask_losses(logits.bfloat16(), *args, torch_rand(0), LossSettings())
    assert full == half


def test_weights_are_the_settings():
    args = torch.randn(1, H, W), torch.ones(1, H, W), 1, 20
    one = compute_mask_losses(*args, torch_rand(0), LossSettings())
    two = compute_mask_losses(*args, torch_rand(0), replace(LossSettings(), mask=10))
    assert two["mask"] == 2 * one["mask"] and two["dice"] == one["dice"]


def test_random_numbers_follow_from_the_step():
    one, same, other = (
        make_uniform_sampler(seed_item_generator(0, step), torch.device("cpu"))(4) for step in (3, 3, 4)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert np.all((one.numpy() >= 0) & (one.numpy() < 1))
