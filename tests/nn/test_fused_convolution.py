"""Convolutions with what follows them in one pass, beside the same step by step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from masklet.models.encoder import DenseBackbone
from masklet.models.nano.image_predictor import read_prompt_network
from masklet.models.nano.nanodet import load_nanodet
from masklet.nn.fused_convolution import (
    NONE,
    RELU,
    RELU6,
    SIZES,
    Activation,
    FusedConv2d,
    fuse_convolutions,
    leave_weights_undrawn,
)
from masklet.weights.store import ZOO, read_packaged, verify_packaged

LEAKY = Activation("leaky_relu", (0.1,))
SHAPES = {  # inputs, outputs, kernel, stride, padding, dilation, groups
    "pointwise": (8, 16, 1, 1, 0, 1, 1),
    "strided": (3, 8, 3, 2, 1, 1, 1),
    "depthwise": (16, 16, 3, 2, 1, 1, 16),
    "dilated": (16, 16, 3, 1, 2, 2, 16),
}


def make_layer(shape: str = "pointwise", activation: Activation = NONE) -> FusedConv2d:
    torch.manual_seed(0)
    return FusedConv2d(*SHAPES[shape], activation=activation).requires_grad_(False)


@pytest.mark.parametrize("activation", [NONE, RELU, RELU6, LEAKY], ids=lambda a: a.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_pass_is_as_step_by_step(shape: str, activation: Activation) -> None:
    layer = make_layer(shape, activation)
    plain = nn.functional.conv2d
    for size in ((2, 33, 20), (1, 12, 12), (3, 33, 20)):
        x = 4 * torch.randn(size[0], layer.in_channels, *size[1:])
        told = layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        alone = plain(x, layer.weight, *told)
        other = torch.randn_like(alone)
        for fuses in (False, True):
            layer.fuses = fuses
            kept = x.clone(), other.clone()
            assert torch.allclose(layer(x), activation.apply(alone.clone()), atol=1e-5)
            assert torch.allclose(layer(x, other), activation.apply(alone + other), atol=1e-5)
            assert torch.equal(x, kept[0]), "what comes in stays as it is"
            assert torch.equal(other, kept[1])


def test_the_activations_are_those_of_torch() -> None:
    x = torch.tensor([-2.0, 0.5, 8.0]).view(1, 1, 1, 3)
    assert RELU.apply(x.clone()).flatten().tolist() == [0, 0.5, 8]
    assert RELU6.apply(x.clone()).flatten().tolist() == [0, 0.5, 6]
    assert LEAKY.apply(x.clone()).flatten().tolist() == pytest.approx([-0.2, 0.5, 8])
    assert NONE.apply(x.clone()).flatten().tolist() == [-2, 0.5, 8]


def test_weights_are_laid_out_once_for_each_of_the_last_sizes() -> None:
    layer = make_layer()
    fuse_convolutions(layer)
    for side in range(4, 5 + SIZES):
        layer(torch.zeros(1, 8, side, side))
    assert list(layer._packed) == [(side, side) for side in range(5, 5 + SIZES)]
    before = layer._packed[5, 5]
    layer(torch.zeros(2, 8, 5, 5))
    assert layer._packed[5, 5] is before


def test_what_is_trained_is_never_computed_from_old_weights() -> None:
    layer, x = make_layer(), torch.randn(1, 8, 6, 6)
    fuse_convolutions(layer)
    before = layer(x)
    layer.requires_grad_(True)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.zero_()
    after = layer(x)
    assert after.requires_grad
    assert torch.allclose(after, nn.functional.conv2d(x, layer.weight), atol=1e-5)
    assert not torch.allclose(after, before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_computes_the_same(copied) -> None:
    layer, x = make_layer("strided", RELU), torch.randn(1, 3, 9, 9)
    fuse_convolutions(layer)
    expected = layer(x)
    assert torch.equal(copied(layer)(x), expected)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_networks_of_other_numbers_are_left_alone() -> None:
    net = nn.Sequential(make_layer(), make_layer().bfloat16(), make_layer().double())
    fuse_convolutions(net)
    assert [layer.fuses for layer in net] == [True, True, False]


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU that has no bfloat16")
@pytest.mark.parametrize("name", SHAPES)
def test_in_bfloat16_they_are_those_of_float32_but_for_its_rounding(name: str) -> None:
    layer, x = make_layer(name, RELU6), torch.randn(2, SHAPES[name][0], 9, 9).bfloat16()
    layer.bfloat16()
    exact = copy.deepcopy(layer).float()(x.float())
    fuse_convolutions(layer)
    got = layer(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.02)


def test_weights_that_come_from_a_file_are_not_drawn_before() -> None:
    state = make_layer().state_dict()
    begun = torch.random.get_rng_state()
    with pytest.raises(ZeroDivisionError), leave_weights_undrawn():
        layer = FusedConv2d(*SHAPES["pointwise"])
        raise ZeroDivisionError
    assert torch.equal(torch.random.get_rng_state(), begun)
    layer.load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    FusedConv2d(*SHAPES["pointwise"])
    assert not torch.equal(torch.random.get_rng_state(), begun)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mobilenetv2", lambda: DenseBackbone().net),
        ("nanodet", lambda: load_nanodet().network),
        ("nano-image-predictor", lambda: read_prompt_network(verify_packaged(ZOO["nano-image-predictor"]))),
    ],
)
def test_a_packaged_network_has_every_weight_of_its_file(name: str, make: Callable[[], nn.Module]) -> None:
    held = read_packaged(ZOO[name])
    state = make().state_dict()
    assert state.keys() == held.keys()
    assert all(torch.equal(value, held[name].float()) for name, value in state.items())
    filters = [value for value in state.values() if value.ndim == 4 and min(value.shape) > 1]
    assert filters and all(value.is_contiguous(memory_format=torch.channels_last) for value in filters)
