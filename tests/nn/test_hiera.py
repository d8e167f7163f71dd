"""Hiera over windows that lie one after the other, against transformers' own, whose windows are filled up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from masklet.models.sam2.image_encoder import Sam2ImageEncoder
from masklet.nn.hiera import Hiera, WindowOrder, invert
from masklet.nn.quick_linear import apply_linear

SIDES = (64, 96, 160)  # of which 64 divides into all windows, and the others do not


def build_net(side: int) -> Any:
    """A SAM 2 of random weights, biases and position encodings, too: filling is a bias."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig

    torch.manual_seed(0)
    trunk = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[side, side],
        blocks_per_stage=[1, 2, 3, 2],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 2, 4],
        window_size_per_stage=[8, 4, 6, 4],
        global_attention_blocks=[4],
    )
    vision = Sam2VisionConfig(
        backbone_config=trunk,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[side // n] * 2 for n in (4, 8, 16)],
    )
    net: Any = Sam2VideoModel(Sam2VideoConfig(vision_config=vision, image_size=side)).eval().requires_grad_(False)
    for name, value in net.vision_encoder.named_parameters():
        if name.endswith("bias") or "pos_embed" in name:
            nn.init.normal_(value, std=0.5)
    return net


@pytest.mark.parametrize("side", SIDES)
def test_it_answers_as_transformers_does(side: int) -> None:
    trunk = build_net(side).vision_encoder.backbone
    images = torch.randn(2, 3, side, side)
    wanted = trunk(images).intermediate_hidden_states
    for one, other in zip(Hiera(trunk, side)(images), wanted, strict=True):
        torch.testing.assert_close(one, other.flatten(1, 2), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_transformers() -> None:
    trunk = build_net(96).vision_encoder.backbone
    image, weight = torch.randn(1, 3, 96, 96), trunk.blocks[3].attn.qkv.weight.requires_grad_(True)
    found = []
    for answer in (Hiera(trunk, 96)(image)[-1].flatten(), trunk(image).last_hidden_state.flatten()):
        [gradient] = torch.autograd.grad(answer @ torch.linspace(-1, 1, len(answer)), [weight])
        found.append(gradient)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", SIDES)
def test_features_are_those_of_the_whole_network(side: int) -> None:
    encoder, image = Sam2ImageEncoder(build_net(side)), torch.randn(1, 3, side, side)
    for one, other in zip(encoder._encode_by_hiera(image), encoder._encode_by_network(image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("grid", "window"), [(32, 14), (8, 8), (6, 14), (12, 4), (10, 4)])
def test_every_cell_has_one_place_and_windows_are_slices(grid: int, window: int) -> None:
    order = WindowOrder(grid, window)
    cells = order.list_cells()
    assert cells.sort().values.equal(torch.arange(grid**2)) and invert(cells)[cells].equal(torch.arange(grid**2))
    assert sum(group.tokens for group in order.groups) == grid**2
    start = 0
    for group in order.groups:
        for _ in range(group.count):
            slice = cells[start : (start := start + group.rows * group.columns)]
            inside = slice // grid // window * grid + slice % grid // window
            assert len(inside.unique()) == 1  # of one window


def test_half_the_window_is_half_the_order() -> None:
    order, half = WindowOrder(32, 14), WindowOrder(32, 14).halve()
    assert half.groups == WindowOrder(16, 7).groups and half.list_cells().equal(WindowOrder(16, 7).list_cells())
    whole = order.list_cells()
    first = whole.view(-1)[: 14 * 14].view(14, 14)[::2, ::2].flatten()
    assert (first // 32 // 2 * 16 + first % 32 // 2).equal(half.list_cells()[:49])


@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
def test_a_quick_layer_is_the_layer(activation: str) -> None:
    layer, x = nn.Linear(24, 40), torch.randn(3, 5, 24)
    with torch.no_grad():
        quick = apply_linear(layer, x, activation)
    slow = apply_linear(layer, x, activation)  # gradients flow
    assert slow.requires_grad and not quick.requires_grad
    torch.testing.assert_close(quick, slow.detach(), rtol=1e-5, atol=1e-6)
    assert apply_linear(layer.double(), x.double(), activation).dtype == torch.float64


@pytest.mark.parametrize("side", [64, 96])
def test_some_windows_at_a_time_are_all_of_them(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = build_net(side).vision_encoder.backbone
    images = torch.randn(2, 3, side, side)
    wanted = Hiera(trunk, side)(images)
    monkeypatch.setattr("masklet.nn.hiera.AT_ONCE", 100)  # not a multiple of a window's tokens
    for one, other in zip(Hiera(trunk, side)(images), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
