"""Convolutions by Winograd's F(4 x 4, 3 x 3), against plain ones in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from masklet.nn import winograd
from masklet.nn.quick_convolution import apply_convolution
from masklet.nn.winograd import LEAST_CELLS, LEAST_CHANNELS, convolve_by_winograd, suits_winograd


def convolve_plainly(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The twin."""
    return nnf.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 14), st.integers(1, 14)),
    filters=st.integers(1, 9),
    block=st.sampled_from([1, 2000, 20_000, 2**22]),
    laid=st.sampled_from([torch.channels_last, torch.contiguous_format]),
    seed=st.integers(0, 99),
)
def test_it_is_the_convolution_whatever_is_transformed_at_once(
    size: tuple[int, int, int, int], filters: int, block: int, laid: torch.memory_format, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=draw).contiguous(memory_format=laid)
    weight = torch.randn(filters, size[1], 3, 3, generator=draw).contiguous(memory_format=laid)
    bias = torch.randn(filters, generator=draw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "BLOCK", block)
        found = convolve_by_winograd(x, weight, bias)
        bare = convolve_by_winograd(x, weight)
    wanted = convolve_plainly(x, weight, bias)
    close = 1e-5 * max(float(wanted.abs().max()), 1.0)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=close)
    torch.testing.assert_close(bare.double(), convolve_plainly(x, weight), rtol=0, atol=close)


def test_one_pixel_shows_the_filter_turned_round() -> None:
    x, weight = torch.zeros(1, 1, 5, 9), torch.arange(9.0).view(1, 1, 3, 3)
    x[0, 0, 3, 4] = 1  # across the tiles' borders
    found = convolve_by_winograd(x, weight)[0, 0]
    torch.testing.assert_close(found[2:5, 3:6], weight[0, 0].flip(0, 1), rtol=0, atol=8e-5)
    found[2:5, 3:6] = 0
    assert found.abs().max() < 8e-5  # of the largest answer, as above


WIDE = LEAST_CHANNELS


@pytest.mark.parametrize(
    ("layer", "size", "suits"),
    [
        (nn.Conv2d(WIDE, WIDE, 3, 1, 1), (1, 40, 50), True),
        (nn.Conv2d(WIDE, WIDE, 3, 1, 1), (4, 20, 25), True),
        (nn.Conv2d(WIDE, WIDE, 3, 1, 1), (1, 1, LEAST_CELLS - 1), False),
        (nn.Conv2d(WIDE - 1, WIDE, 3, 1, 1), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE - 1, 3, 1, 1), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE, 1), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE, 3, 2, 1), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE, 3, 1, 0), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE, 3, 1, 2, 2), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE, 3, 1, 1, 1, 2), (1, 40, 50), False),
        (nn.Conv2d(WIDE, WIDE, 3, 1, 1, padding_mode="reflect"), (1, 40, 50), False),
    ],
)
def test_it_is_for_wide_layers_over_large_maps(layer: nn.Conv2d, size: tuple[int, int, int], suits: bool) -> None:
    b, h, w = size
    assert suits_winograd(layer, torch.empty(b, layer.in_channels, h, w)) == suits


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_what_follows_a_wide_convolution_follows_here(relu: bool, summed: bool, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(WIDE, WIDE, 3, 1, 1, bias=bias).requires_grad_(False)
    x, other = torch.randn(1, WIDE, 31, 33), torch.randn(1, WIDE, 31, 33) if summed else None
    assert suits_winograd(conv, x)
    before = None if other is None else other.clone()
    wanted = conv(x) if other is None else conv(x) + other
    found = apply_convolution(conv, x, other=other, relu=relu)
    torch.testing.assert_close(found, nnf.relu(wanted) if relu else wanted, rtol=1e-5, atol=5e-5)
    assert other is None or torch.equal(other, before)
