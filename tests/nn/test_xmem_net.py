"""The parts of XMem's network. That the whole is DEVA's, tests/golden/test_deva_network.py shows."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from masklet.core.masks import resize_bilinear
from masklet.nn.xmem import (
    VALUE,
    Canvas,
    ChannelGate,
    PreActivationResidual,
    SensoryUpdate,
    SpatialGate,
    XmemNet,
    aggregate_probabilities,
    compute_margins,
    scale_up_bilinear,
    update_sensory_state,
)

SIZES = st.tuples(st.integers(16, 70), st.integers(16, 70))


@cache
def net() -> XmemNet:
    torch.manual_seed(0)
    return XmemNet().requires_grad_(False).eval()


# -- where a frame lies


def test_canvas_by_hand() -> None:
    assert Canvas.of((90, 150), None).pads == (5, 5, 3, 3)
    odd = Canvas.of((33, 47), None)
    assert odd.pads == (0, 1, 7, 8) and odd.outer == (48, 48)  # the odd pixel goes to the right and the bottom
    assert Canvas.of((1080, 1920), 480).inner == (480, 853) and Canvas.of((854, 480), 240).inner == (427, 240)
    assert Canvas.of((96, 160), None).pads == (0, 0, 0, 0)


@given(size=SIZES, short=st.one_of(st.none(), st.integers(16, 64)))
def test_the_network_sees_multiples_of_the_stride(size: tuple[int, int], short: int | None) -> None:
    canvas = Canvas.of(size, short)
    assert canvas.outer[0] % 16 == canvas.outer[1] % 16 == 0
    assert all(0 <= a - b < 16 for a, b in zip(canvas.outer, canvas.inner, strict=True))
    x = torch.rand(2, *canvas.inner)
    padded = canvas.pad(x)
    assert padded.shape[1:] == canvas.outer and torch.equal(canvas.crop(padded), x)
    assert float(padded.sum()) == pytest.approx(float(x.sum()), rel=1e-5)


@given(size=SIZES, short=st.integers(16, 64), seed=st.integers(0, 9))
def test_masks_are_resized_as_pillow_does(size: tuple[int, int], short: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random(size) > 0.5
    canvas = Canvas.of(size, short)
    h, w = canvas.inner
    told = np.asarray(Image.fromarray(mask.view(np.uint8)).resize((w, h), Image.Resampling.NEAREST)) > 0
    np.testing.assert_array_equal(canvas.fit(torch.from_numpy(mask)[None])[0].numpy(), told)


# -- many objects, one picture


def test_aggregation_by_hand() -> None:
    p = torch.tensor([0.5, 0.75]).view(2, 1, 1)
    odds = aggregate_probabilities(p)[:, 0, 0]  # background: 0.5 * 0.25
    torch.testing.assert_close(odds, torch.logit(torch.tensor([0.125, 0.5, 0.75])))
    hard = aggregate_probabilities(torch.tensor([[[1.0, 0.0]]]))
    sure = float(torch.logit(torch.tensor(1e-7)))
    torch.testing.assert_close(hard[1], -torch.tensor([[sure, -sure]]), rtol=0, atol=0.2)  # 1 - 1e-7 is not a float
    assert torch.isfinite(hard).all()


@given(n=st.integers(1, 4), seed=st.integers(0, 99))
def test_at_most_one_object_has_a_pixel_at_any_size(n: int, seed: int) -> None:
    odds = torch.randn(n + 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    ahead = compute_margins(odds)
    winner = odds.argmax(0)
    assert torch.equal(ahead > 0, torch.arange(n + 1)[:, None, None] == winner)
    assert ((resize_bilinear(ahead, (13, 17)) > 0).sum(0) <= 1).all()


def test_margins_by_hand() -> None:
    odds = torch.tensor([1.0, 4.0, 2.0]).view(3, 1, 1)
    assert compute_margins(odds).flatten().tolist() == [-3, 2, -2]
    assert compute_margins(torch.zeros(2, 1, 1)).flatten().tolist() == [0, 0]  # a tie: nobody's


# -- the sensory state


def gates(forget: float, update: float, new: float) -> Tensor:
    return torch.tensor([forget, update, new], dtype=torch.float32).view(1, 3, 1, 1)


def test_gates_by_hand() -> None:
    h = torch.full((1, 1, 1, 1), 0.8)
    assert float(update_sensory_state(gates(99, -99, 9), h)) == pytest.approx(0.8)  # keeps
    assert float(update_sensory_state(gates(-99, -99, 9), h)) == pytest.approx(0)  # forgets
    assert float(update_sensory_state(gates(99, 99, 9), h)) == pytest.approx(1)  # takes what is new
    assert float(update_sensory_state(gates(0, 0, 0.5), h)) == pytest.approx(0.5 * 0.8 * 0.5 + 0.5 * np.tanh(0.5))


def test_the_state_sees_averages_of_three_strides() -> None:
    torch.manual_seed(0)
    update = SensoryUpdate().requires_grad_(False)
    g16, g8, g4, h = (torch.randn(1, c, n, n) for c, n in ((512, 2), (256, 4), (257, 8), (VALUE, 2)))
    told = update(g16, g8, g4, h)
    flat8 = enlarged_cells(g8.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)), 2)
    flat4 = enlarged_cells(g4.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5)), 4)
    torch.testing.assert_close(update(g16, flat8, flat4, h), told, rtol=0, atol=1e-5)
    for n, x in enumerate((g16, g8, g4)):
        changed = [x + 1 if m == n else y for m, y in enumerate((g16, g8, g4))]
        assert not torch.allclose(update(*changed, h), told, atol=1e-3)


def enlarged_cells(x: Tensor, by: int) -> Tensor:
    return x.repeat_interleave(by, 2).repeat_interleave(by, 3)


# -- blocks


def test_channel_attention_sees_mean_and_maximum() -> None:
    torch.manual_seed(0)
    gate = ChannelGate(32).requires_grad_(False)
    x = torch.randn(2, 32, 3, 3)
    told = (gate.mlp(x.mean((2, 3))) + gate.mlp(x.flatten(2).max(2).values)).sigmoid()
    torch.testing.assert_close(gate(x), x * told[:, :, None, None])


def test_spatial_attention_sees_maximum_then_mean() -> None:
    gate = SpatialGate().requires_grad_(False)
    conv = gate.spatial["conv"]
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[0, 0, 3, 3] = 1.0  # the maximum of the cell itself
    x = torch.randn(1, 5, 4, 4)
    torch.testing.assert_close(gate(x), x * x.max(1, keepdim=True).values.sigmoid())
    conv.weight[0, :, 3, 3] = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(gate(x), x * x.mean(1, keepdim=True).sigmoid())


def test_a_residual_block_that_does_nothing() -> None:
    block = PreActivationResidual(4, 4).requires_grad_(False)
    block.conv2.weight.zero_()
    block.conv2.bias.zero_()
    x = torch.randn(1, 4, 3, 3)
    assert torch.equal(block(x), x)


def test_a_residual_block_activates_first() -> None:
    torch.manual_seed(0)
    block = PreActivationResidual(4, 6).requires_grad_(False)
    x = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(block(x) - block.downsample(x), block(x.relu()) - block.downsample(x.relu()))


def test_enlarging_aligns_pixel_centres() -> None:
    x = torch.tensor([[[[0.0, 1.0]]]])
    torch.testing.assert_close(scale_up_bilinear(x, 2)[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


# -- the whole


def test_keys_and_how_they_are_compared() -> None:
    f16 = torch.randn(1, 512, 3, 4) * 5
    query = net().key_proj(f16)
    assert query.keys.shape == query.selection.shape == (12, 64) and query.shrinkage.shape == (12,)
    assert (query.shrinkage >= 1).all() and (query.selection > 0).all() and (query.selection < 1).all()
    torch.testing.assert_close(query.shrinkage, net().key_proj.d_proj(f16)[0, 0].flatten() ** 2 + 1)


def decoder_inputs(n: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    make = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    skips = make(1, 512, 4, 4), make(1, 256, 8, 8)
    return make(1, 512, 2, 2), skips, make(n, VALUE, 2, 2), make(n, VALUE, 2, 2), torch.rand(n, 32, 32, generator=draw)


def test_objects_are_decoded_one_by_one() -> None:
    f16, skips, readout, sensory, last = decoder_inputs(3)
    logits, states = net().mask_decoder(f16, skips, readout, sensory, last)
    assert logits.shape == (3, 8, 8) and states.shape == (3, VALUE, 2, 2)
    alone = net().mask_decoder(f16, skips, readout[1:2], sensory[1:2], last[1:2])
    torch.testing.assert_close(alone[0][0], logits[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(alone[1][0], states[1], rtol=0, atol=1e-5)


def test_a_mask_is_decoded_from_memory_state_and_last_mask() -> None:
    given = decoder_inputs(1)
    told = net().mask_decoder(*given)[0]
    for n in (2, 3, 4):
        changed = [x + 1 if m == n else x for m, x in enumerate(given)]
        assert not torch.equal(net().mask_decoder(*changed)[0], told)
    cells = torch.nn.functional.avg_pool2d(given[4], 16)  # of the last mask only the mean in each cell counts
    flat = *given[:4], enlarged_cells(cells[:, None], 16)[:, 0]
    torch.testing.assert_close(net().mask_decoder(*flat)[0], told, rtol=0, atol=1e-5)


def test_objects_are_remembered_one_by_one() -> None:
    draw = torch.Generator().manual_seed(2)
    image, f16 = torch.randn(1, 3, 32, 32, generator=draw), torch.randn(1, 512, 2, 2, generator=draw)
    masks, sensory = torch.rand(2, 32, 32, generator=draw), torch.randn(2, VALUE, 2, 2, generator=draw)
    values, states = net().mask_encoder(image, f16, masks, sensory)
    alone = net().mask_encoder(image, f16, masks[1:], sensory[1:])
    torch.testing.assert_close(alone[0][0], values[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(alone[1][0], states[1], rtol=0, atol=1e-5)
    assert torch.equal(net().mask_encoder(image, f16, masks, sensory + 1)[0], values)  # the state is only changed
