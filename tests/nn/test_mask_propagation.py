"""RoCoVIS's instance mask propagation against its equations written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import rocovis as slow
from torch import nn

from masklet.nn.mask_propagation import (
    MaskPropagation,
    add_background_identity,
    compute_foreground_probability,
    compute_spatial_identity,
    encode_sine_positions,
    estimate_query_trust,
    fill_with_background,
    find_assigned_pixels,
    resize_by_area,
    weigh_masks_by_trust,
)


def near(got, want, atol=1e-5):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def part(channels=24, queries=16, seed=0, **how):
    """With weights everywhere, as after training."""
    torch.manual_seed(seed)
    made = MaskPropagation(channels, queries, **{"width": 16, "heads": 4, **how})
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made.eval().requires_grad_(False)


# -- the equations


@given(st.integers(0, 99), st.integers(1, 7), st.integers(2, 5))
def test_foreground_probability(seed, n, k1):
    logits = 4 * draw(n, k1, seed=seed)
    near(compute_foreground_probability(logits), slow.foreground(logits))
    assert torch.equal(estimate_query_trust(logits), (slow.foreground(logits) > 0.5).float())


@given(st.integers(0, 99), st.integers(1, 6))
def test_spatial_identity_is_written_pixel_by_pixel(seed, n):
    queries, masks, background = draw(n, 8, seed=seed), draw(n, 4, 6, seed=seed + 1).sigmoid(), draw(8)
    got = add_background_identity(
        compute_spatial_identity(queries[None], masks[None]), background, find_assigned_pixels(masks[None])
    )
    near(got[0], slow.spatial_identity(queries, masks, background))


def test_a_worked_example():
    queries = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    masks = torch.tensor([[[[0.9, 0.5, 0.4]], [[0.5, 0.3, 0.49]]]])
    got = add_background_identity(
        compute_spatial_identity(queries, masks), torch.tensor([7.0, 8.0]), find_assigned_pixels(masks)
    )
    near(got[0, :, 0], torch.tensor([[0.9, 0.5, 7.0], [1.0, 0.0, 8.0]]))


def test_a_pixel_has_the_background_exactly_where_nothing_is_summed():
    masks = draw(1, 5, 8, 8).sigmoid() * 0.8
    empty = compute_spatial_identity(torch.ones(1, 5, 3), masks) == 0
    assert torch.equal(empty[:, 0], ~find_assigned_pixels(masks)) and empty.any() and not empty.all()


def test_of_queries_that_are_not_trusted_nothing_stays():
    queries, masks = draw(1, 3, 8), draw(1, 3, 4, 4, seed=1).sigmoid()
    trust = torch.tensor([[1.0, 0, 1]])
    near(weigh_masks_by_trust(masks, trust)[0], slow.suppress(masks[0], trust[0]))
    some = compute_spatial_identity(queries[:, [0, 2]], masks[:, [0, 2]])
    near(compute_spatial_identity(queries, weigh_masks_by_trust(masks, trust)), some)


def test_area_downsampling():
    masks = draw(1, 3, 16, 24).sigmoid()
    near(resize_by_area(masks, (2, 3))[0], slow.downsample(masks[0], (2, 3)))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (15, 27)])
@pytest.mark.parametrize("width", [8, 20, 32])
def test_positions(size, width):
    got = encode_sine_positions(size, width, torch.device("cpu"))
    near(got, slow.positions(*size, width).flatten(0, 1), 2e-5)


def test_positions_are_those_of_mask2former():
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

    want = Mask2FormerSinePositionEmbedding(8, normalize=True)(torch.Size((1, 16, 5, 7)), "cpu", torch.float32)
    near(encode_sine_positions((5, 7), 16, torch.device("cpu")), want[0].flatten(1).T)


# -- the cross-attention


@pytest.mark.parametrize(("channels", "queries"), [(24, 16), (16, 16), (8, 20)])
def test_the_first_frame(channels, queries):
    net, maps = part(channels, queries), draw(2, channels, 3, 4)
    got = net(maps, net.keys(maps), net.first_values(maps))
    for b in range(2):
        near(got[b], slow.first(net, maps[b]))


@pytest.mark.parametrize("kept", [1, 2, 3])
@pytest.mark.parametrize(("channels", "queries"), [(24, 16), (16, 16)])
def test_later_frames_look_at_the_kept_ones(channels, queries, kept):
    net, now = part(channels, queries), draw(1, channels, 3, 4, seed=9)
    before = [
        (draw(channels, 3, 4, seed=t), draw(5, queries, seed=t), draw(5, 24, 32, seed=t).mul(4).sigmoid(), trust)
        for t, trust in enumerate(torch.tensor([[1.0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 1, 1]]))
    ]
    keys, values = [], []
    for maps, q, masks, trust in before[-kept:]:
        identity = net.identity(q[None], weigh_masks_by_trust(masks[None], trust[None]), (3, 4))
        keys.append(net.keys(maps[None]))
        values.append(net.values(maps[None], identity))
    got = net(now, torch.cat(keys, 1), torch.cat(values, 1))
    near(got[0], slow.propagated(net, now[0], before, kept))


def test_the_first_frame_is_one_with_no_object():
    net, maps = part(), draw(1, 24, 3, 4)
    none = net.identity(draw(1, 5, 16), torch.zeros(1, 5, 12, 16), (3, 4))
    assert torch.equal(none, fill_with_background(net.background, maps))
    near(net.values(maps, none), net.first_values(maps))


def test_a_new_one_changes_nothing():
    net = MaskPropagation(24, 16, 16, 4)
    maps = draw(1, 24, 3, 4)
    assert not net(maps, net.keys(maps), net.first_values(maps)).any()


def test_who_is_where_matters():
    net, maps, q = part(), draw(1, 24, 3, 4), draw(1, 2, 16)
    masks = torch.zeros(1, 2, 3, 4)
    masks[0, 0, :, :2] = masks[0, 1, :, 2:] = 1
    one, other = (
        net(maps, net.keys(maps), net.values(maps, net.identity(q, m, (3, 4)))) for m in (masks, masks.flip(1))
    )
    assert (one - other).abs().max() > 1e-2


def test_gradients_reach_every_parameter():
    net = part().requires_grad_(True)
    maps = draw(1, 24, 3, 4)
    q, logits = draw(1, 5, 16).requires_grad_(True), draw(1, 5, 3, 4).mul(3).sub(2).requires_grad_(True)
    identity = net.identity(q, logits.sigmoid(), (3, 4))
    assert (~find_assigned_pixels(logits.sigmoid())).any()
    net(maps, net.keys(maps), net.values(maps, identity)).square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 1e-5, name
    assert q.grad.any() and logits.grad.any()
