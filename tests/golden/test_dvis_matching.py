"""Matching from frame to frame against MinVIS's and the DVIS tracker's programs."""

from __future__ import annotations

import pytest
import torch
from dvis_fixtures import arrays, cases, needed

from masklet.core.alignment import compute_cosine_distances, match_slots, match_slots_as_released
from masklet.core.slots import FrameSlots
from masklet.systems.minvis import QueryMatching


@pytest.fixture(params=cases("minvis_matching", "embeds"))
def case(request):
    name = needed(request.param)
    return {k.removeprefix(f"{name}__"): v for k, v in arrays("minvis_matching").items() if k.startswith(f"{name}__")}


def chained(align, embeds):
    """The order of every frame, each matched with the one before as that was reordered."""
    orders, before = [torch.arange(embeds.shape[1])], embeds[0]
    for now in embeds[1:]:
        orders.append(align(before, now))
        before = now[orders[-1]]
    return torch.stack(orders)


def test_the_paper_s_direction(case):
    orders = chained(match_slots, case["embeds"])
    assert torch.equal(orders, case["minvis_indices"])
    if "planted_identity" in case:
        identity = case["planted_identity"].gather(1, orders)
        assert (identity == identity[0]).all()


def test_cost_of_the_chosen_pairs(case):
    embeds, orders = case["embeds"], case["minvis_indices"]
    lined_up = embeds.gather(1, orders[..., None].expand_as(embeds))
    for t in range(1, len(embeds)):
        cost = compute_cosine_distances(lined_up[t - 1], embeds[t])[torch.arange(embeds.shape[1]), orders[t]].sum()
        assert float(cost) == pytest.approx(float(case["minvis_cost"][t]), rel=1e-6)  # a few steps of float32


def test_the_released_tracker_s_direction(case):
    assert torch.equal(chained(match_slots_as_released, case["embeds"]), case["dvis_tracker_indices"])


def test_tracks_of_the_system(case):
    tracker, memory, tracks, masks = QueryMatching(), None, [], []
    for t, queries in enumerate(case["embeds"]):
        slots = FrameSlots(
            queries[None], case["logits"][[t]], torch.zeros(1, queries.shape[1], 3, 4), case["masks"][[t]], (12, 16)
        )
        tracked, memory = tracker.follow(memory, slots)
        tracks.append(tracked.class_logits)
        masks.append(tracker.masks(tracked, tracker.dense(slots)[0]))
    torch.testing.assert_close(torch.stack(tracks).mean(0), case["mean_logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack(masks, 1), case["aligned_masks"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", cases("minvis_matching", "dvis_indices"))
def test_a_zero_vector(name):
    held = arrays("minvis_matching")
    before, now = (held[f"{needed(name)}__{k}"] for k in ("ref", "cur"))
    assert torch.equal(match_slots_as_released(before, now), held[f"{name}__dvis_indices"])
    assert sorted(match_slots(before, now).tolist()) == list(range(len(now)))  # where MinVIS's program raises
