"""The promptable network: shapes, what prompts change and what they leave alone, and what is trained."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from masklet.models.nano.image_predictor import normalize_crops
from masklet.models.nano.nanodet import normalize_bgr, read_nanodet_network
from masklet.nn.prompt_network import ANSWERS, FIXED, LOUD, MAPS, TAPS, PromptNetwork, resize_to_double

SIDE = 64


def network(seed: int = 1) -> PromptNetwork:
    """Random weights, the normalisation of ImageNet's networks left out: they shrink what passes, so they are scaled."""
    torch.manual_seed(seed)
    net = PromptNetwork()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 4 and not name.startswith("maps.4"):
                parameter.mul_(2.0)
    return net


@cache
def untrained() -> PromptNetwork:
    return network()


@cache
def pictures(count: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def prompts(seed: int, count: int = 2, side: int = SIDE) -> Tensor:
    return torch.rand(count, MAPS, side, side, generator=torch.Generator().manual_seed(seed))


def trunk_outputs(net: PromptNetwork, maps: Tensor) -> list[Tensor]:
    """What each trained block gives."""
    kept: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, out: kept.append(out.clone())) for block in net.blocks]
    with torch.no_grad():
        net(net.look(pictures()), maps)
    for hook in hooks:
        hook.remove()
    return kept


@pytest.mark.parametrize("side", [64, 96, 192])
def test_answers_are_at_stride_2_with_an_expected_iou_each(side: int) -> None:
    crops = untrained().look(pictures(2, side))
    assert crops.stem.shape == (2, 32, side // 2, side // 2) and crops.low.shape == (2, 24, side // 4, side // 4)
    with torch.no_grad():
        logits, quality = untrained()(crops, prompts(0, 2, side))
    assert logits.shape == (2, ANSWERS, side // 2, side // 2) and quality.shape == (2, ANSWERS)
    assert logits.isfinite().all() and quality.isfinite().all()


def test_blocks_are_where_the_encoders_have_them() -> None:
    strides = [block.depth.stride[0] for block in (*untrained().fixed, *untrained().blocks)]
    assert len(strides) == 17 and len(untrained().fixed) == FIXED
    assert [n for n, stride in enumerate(strides, start=1) if stride == 2] == [2, 4, 7, 14]
    assert {n: untrained().blocks[n - FIXED - 1].project.out_channels for n in TAPS} == TAPS


def test_at_first_prompts_leave_the_trunk_alone_and_enter_behind_it_only() -> None:
    one, other = (trunk_outputs(untrained(), prompts(seed)) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with torch.no_grad():
        crops = untrained().look(pictures())
        (one_mask, _), (other_mask, _) = (untrained()(crops, prompts(seed)) for seed in (0, 1))
    assert not torch.equal(one_mask, other_mask)  # the last layers see the maps, too


def test_once_the_maps_have_weights_the_whole_trunk_sees_the_prompt() -> None:
    net = network()
    torch.nn.init.normal_(net.maps[-1].weight, std=0.1)
    one, other = (trunk_outputs(net, prompts(seed)) for seed in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_one_look_serves_any_number_of_prompts() -> None:
    net = network()
    torch.nn.init.normal_(net.maps[-1].weight, std=0.1)
    images = pictures().clone()
    with torch.no_grad():
        crops = net.look(images)
        before = crops.stem.clone(), crops.low.clone()
        first, between, again = (net(crops, prompts(seed)) for seed in (0, 1, 0))
        anew = net(net.look(images), prompts(0))
    assert torch.equal(images, pictures())
    assert torch.equal(crops.stem, before[0]) and torch.equal(crops.low, before[1])
    for a, b, c in zip(first, again, anew, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert not torch.equal(first[0], between[0])


def test_crops_do_not_mix() -> None:
    with torch.no_grad():
        together, _ = untrained()(untrained().look(pictures()), prompts(0))
        alone, _ = untrained()(untrained().look(pictures()[1:]), prompts(0)[1:])
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_looking_needs_no_gradient_and_its_layers_stay() -> None:
    net = network()
    crops = net.look(pictures().clone().requires_grad_(True))
    assert not crops.stem.requires_grad and not crops.low.requires_grad
    fixed = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert fixed == {name for name, _ in net.named_parameters() if name.split(".")[0] in ("stem", "fixed")}


def test_everything_else_is_trained() -> None:
    net = network()
    torch.nn.init.normal_(net.maps[-1].weight, std=0.1)  # zeros would let nothing through to the layers before
    logits, quality = net(net.look(pictures(), read_nanodet_network()), prompts(0))
    (logits.square().mean() + quality.square().mean()).backward()
    still = {
        name
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    }
    assert still == set()
    assert all(p.grad is None for p in (*net.stem.parameters(), *net.fixed.parameters()))


def test_training_can_begin_from_the_zeros() -> None:
    net = network()
    logits, _ = net(net.look(pictures()), prompts(0))
    logits.square().mean().backward()
    gradient = net.maps[-1].weight.grad
    assert not net.maps[-1].weight.any() and gradient is not None and gradient.any()


@torch.no_grad()
def test_hints_are_the_detectors_maps_of_the_picture_as_it_takes_it() -> None:
    detector, image = read_nanodet_network(), np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    crops = untrained().look(normalize_crops([image]), detector)
    wanted = detector.extract_features(normalize_bgr(image))
    assert [hint.shape[1:] for hint in crops.hints] == [(128, 8, 8), (128, 4, 4), (128, 2, 2)]
    for hint, one in zip(crops.hints, wanted, strict=True):  # of rounded means and deviations
        torch.testing.assert_close(hint, LOUD * one, rtol=0.02, atol=0.02)
    assert not untrained().look(normalize_crops([image])).hints


@torch.no_grad()
def test_hints_say_nothing_at_first_and_then_reach_blocks_and_answers() -> None:
    detector, net = read_nanodet_network(), network()
    with_hints, without = net.look(pictures(), detector), net.look(pictures())
    assert torch.equal(net(with_hints, prompts(0))[0], net(without, prompts(0))[0])
    for part in net.advise:
        torch.nn.init.normal_(part.weight, std=0.05)
        before = net(with_hints, prompts(0))[0]
        assert not torch.equal(before, net(without, prompts(0))[0])
        part.weight.zero_()


def test_expected_iou_does_not_move_the_masks() -> None:
    net = network()
    _, quality = net(net.look(pictures()), prompts(0))
    quality.sum().backward()
    for layer in (net.coarse, net.fine):  # what it reads of the masks is fixed: they are not drawn to be judged well
        assert layer.weight.grad is None


def test_enlarging_is_bilinear() -> None:
    small = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize_to_double(small)[0, 0, 0].tolist() == [0, 0.25, 0.75, 1]
    assert resize_to_double(torch.ones(1, 2, 3, 5)).shape == (1, 2, 6, 10)
