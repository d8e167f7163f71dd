"""A convolution with what follows it in one pass, against the layers one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf
from torch import nn

from masklet.nn.quick_convolution import apply_convolution


def draw_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm that changes what it sees."""
    norm = nn.BatchNorm2d(channels).eval().requires_grad_(False)
    for value, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.5, 2), (norm.bias, -1, 1)):
        assert value is not None
        value.uniform_(low, high)
    norm.weight.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_what_the_layers_make(relu: bool, summed: bool, normed: bool, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 10, 3, 2, 1, bias=bias).requires_grad_(False).to(memory_format=torch.channels_last)
    x, other = torch.randn(2, 6, 9, 12), torch.randn(2, 10, 5, 6) if summed else None
    norm = draw_norm(10) if normed else None
    wanted = norm(conv(x)) if norm else conv(x)
    wanted = wanted if other is None else wanted + other
    found = apply_convolution(conv, x, norm, other, relu)
    torch.testing.assert_close(found, nnf.relu(wanted) if relu else wanted, rtol=1e-5, atol=1e-5)


def test_what_learns_is_computed_layer_by_layer() -> None:
    torch.manual_seed(0)
    conv, norm, x = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), torch.randn(4, 2, 5, 5)
    assert norm.training and norm.running_mean is not None
    found = apply_convolution(conv, x, norm, relu=True)
    assert found.requires_grad and norm.running_mean.any()  # it has noted what it saw
    with torch.no_grad():
        assert apply_convolution(conv, x, norm).mean().abs() < 1e-6  # by the batch, as in training
    assert apply_convolution(conv.double(), x.double()).dtype == torch.float64
