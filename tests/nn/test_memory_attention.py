"""Memory attention is transformers' own module's, for any number of objects."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from masklet.nn.memory_attention import ROWS, MemoryAttention, compute_attention_average, rotate_tokens

C, D, GRID = 32, 64, (6, 4)  # channels, memory width (transformers hard-codes it), tokens (w, h)
P = GRID[0] * GRID[1]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def net(request: pytest.FixtureRequest) -> Any:
    """transformers' module with two layers and random weights."""
    from transformers import Sam2VideoConfig
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttention

    config = Sam2VideoConfig(
        memory_attention_hidden_size=C,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=48,
        memory_attention_rope_feat_sizes=list(GRID),
        attn_implementation=request.param,
    )
    torch.manual_seed(0)
    module = Sam2VideoMemoryAttention(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5))
    return module


def scene(objects: int, frames: int, pointers: int, seed: int = 0) -> tuple[Tensor, ...]:
    """The frame's tokens, their positions, the memories' tokens and their positions."""
    g = torch.Generator().manual_seed(seed)
    m = frames * P + pointers
    shapes = (P, C), (P, C), (objects, m, D), (objects, m, D)
    return tuple(torch.randn(*shape, generator=g) for shape in shapes)


def official(net: Any, current: Tensor, position: Tensor, memory: Tensor, where: Tensor, pointers: int) -> Tensor:
    """transformers' answer for one object."""
    out: Tensor = net(current[:, None], memory[:, None], position[:, None], where[:, None], pointers)
    return out.reshape(P, C)


def ours(net: Any, current: Tensor, position: Tensor, keys: Tensor, values: Tensor, pointers: int) -> Tensor:
    attend = MemoryAttention(net)
    return attend(attend.look(current + 0.1 * position), keys, values, pointers)


@pytest.mark.parametrize("pointers", [0, 4, 64])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_one_object_is_transformers_own_answer(net: Any, frames: int, pointers: int) -> None:
    current, position, memory, where = scene(1, frames, pointers)
    expected = official(net, current, position, memory[0], where[0], pointers)
    got = ours(net, current, position, memory + where, memory, pointers)[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pointers", [0, 8])
def test_a_batch_is_its_objects_one_by_one(net: Any, pointers: int) -> None:
    current, position, memory, where = scene(5, 3, pointers, seed=1)
    together = ours(net, current, position, memory + where, memory, pointers)
    apart = [official(net, current, position, m, w, pointers) for m, w in zip(memory, where, strict=True)]
    torch.testing.assert_close(together, torch.stack(apart), rtol=0, atol=1e-4)
    alone = [ours(net, current, position, (m + w)[None], m[None], pointers)[0] for m, w in zip(memory, where, strict=True)]  # fmt: skip
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


def test_weights_scale_keys_and_not_values(net: Any) -> None:
    """The keys are w x (memory + position): transformers is told so by positions of w x (memory + position) - memory."""
    current, position, memory, where = scene(1, 2, 4, seed=2)
    weight = torch.linspace(0.5, 1.5, memory.shape[1])[:, None]
    keys = weight * (memory + where)
    got = ours(net, current, position, keys, memory, 4)[0]
    expected = official(net, current, position, memory[0], (keys - memory)[0], 4)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    values_too = official(net, current, position, (weight * memory)[0], (weight * where)[0], 4)
    assert (got - values_too).abs().max() > 1e-2


def test_pointers_are_not_rotated_and_frames_are(net: Any) -> None:
    """Two objects whose memories are the same tokens, once a frame and once P pointers, get different answers."""
    current, position, memory, where = scene(1, 1, 0, seed=3)
    as_frame = ours(net, current, position, memory + where, memory, 0)
    also_pointers = torch.cat([memory, memory], 1), torch.cat([memory + where, memory + where], 1)
    twice = ours(net, current, position, also_pointers[1], also_pointers[0], 0)
    mixed = ours(net, current, position, also_pointers[1], also_pointers[0], P)
    torch.testing.assert_close(twice, as_frame, rtol=0, atol=1e-4)  # a memory remembered twice counts as once
    assert (mixed - as_frame).abs().max() > 1e-3


def test_the_order_of_frames_does_not_matter_and_that_of_tokens_does(net: Any) -> None:
    current, position, memory, where = scene(1, 2, 0, seed=4)
    keys = memory + where
    swapped = [torch.cat([x[:, P:], x[:, :P]], 1) for x in (keys, memory)]
    plain = ours(net, current, position, keys, memory, 0)
    torch.testing.assert_close(ours(net, current, position, *swapped, 0), plain, rtol=0, atol=1e-5)
    rolled = [x.roll(1, 1) for x in (keys, memory)]
    assert (ours(net, current, position, *rolled, 0) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("queries", [1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 3])
def test_averages_are_attention_in_any_number_of_pieces(queries: int) -> None:
    g = torch.Generator().manual_seed(queries)
    q, k, v = (torch.randn(2, n, c, generator=g) for n, c in ((queries, 8), (19, 8), (19, 5)))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(compute_attention_average(q, k, v), expected, rtol=0, atol=1e-5)


def test_an_average_worked_out_by_hand() -> None:
    q, k = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[math.log(3.0), 7.0], [0.0, -7.0]]])
    values = torch.tensor([[[4.0], [8.0]]])
    torch.testing.assert_close(
        compute_attention_average(q, k, values), torch.tensor([[[5.0]]])
    )  # 3/4 of 4 and 1/4 of 8


def test_a_rotation_worked_out_by_hand() -> None:
    """Two tokens of one pair: the first stays, the second turns by a right angle; so in every frame."""
    by = torch.tensor([[1 + 0j], [0 + 1j]])
    x = torch.tensor([[[1.0, 2.0], [1.0, 2.0], [3.0, 0.0], [3.0, 0.0]]])
    torch.testing.assert_close(rotate_tokens(x, by), torch.tensor([[[1.0, 2.0], [-2.0, 1.0], [3.0, 0.0], [0.0, 3.0]]]))


def test_rotations_keep_lengths_and_types(net: Any) -> None:
    x = torch.randn(3, 2 * P, C)
    by = MemoryAttention(net).rotations
    torch.testing.assert_close(rotate_tokens(x, by).norm(dim=2), x.norm(dim=2))
    assert rotate_tokens(x.bfloat16(), by).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU that has no bfloat16")
@pytest.mark.parametrize("tiles", [False, True])
def test_in_bfloat16_it_is_the_same_but_for_rounding(net: Any, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklet.nn.memory_attention.has_matrix_tiles", lambda: tiles)
    current, position, memory, where = scene(2, 3, 4, seed=5)
    precise = ours(net, current, position, memory + where, memory, 4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = ours(net, current, position, memory + where, memory, 4)
    assert not torch.equal(rounded.float(), precise)
    torch.testing.assert_close(rounded.float(), precise, rtol=0, atol=0.05)
