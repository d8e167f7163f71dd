"""RepViT-M1: shapes, a block by hand, and the folded network."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as nnf

from masklet.nn.repvit import ConvNorm, RepVit, RepVitBlock, TokenMixer, count_squeezed_channels, merge_batch_norms


def shaken(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode, with batch norms that do something."""
    draw = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low, high in (
                (part.weight, 0.5, 1.5),
                (part.running_var, 0.5, 1.5),
                (part.bias, -0.5, 0.5),
                (part.running_mean, -0.5, 0.5),
            ):
                nn.init.uniform_(values, low, high, generator=draw)
    return net.eval()


def test_strides_and_channels() -> None:
    with torch.no_grad():
        features = RepVit().eval()(torch.zeros(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [(2, 48, 16, 24), (2, 96, 8, 12), (2, 192, 4, 6), (2, 384, 2, 3)]


def test_it_has_the_parameters_of_the_published_network() -> None:
    net = RepVit()
    # timm's model card says 5.5 million: these, and two classifiers of 384 x 1000 with their norms.
    assert sum(p.numel() for p in net.parameters()) == 4_713_712
    names = set(net.state_dict())
    assert len(names) == 676
    assert {
        "stem.conv1.c.weight",
        "stages_0.blocks.0.token_mixer.conv.bn.weight",
        "stages_0.blocks.0.token_mixer.conv1.bn.num_batches_tracked",
        "stages_0.blocks.0.se.fc1.bias",
        "stages_1.downsample.pre_block.channel_mixer.conv1.c.weight",
        "stages_2.blocks.13.channel_mixer.conv2.bn.running_var",
        "stages_3.downsample.ffn.conv2.c.weight",
    } <= names
    assert not any(".blocks.1.se." in n or "stages_0.downsample" in n or "token_mixer.bn" in n for n in names)


@pytest.mark.parametrize(("channels", "few"), [(8, 8), (48, 16), (96, 24), (192, 48), (384, 96)])
def test_squeezed_channels(channels: int, few: int) -> None:
    assert count_squeezed_channels(channels) == few


def normed(x: torch.Tensor, part: ConvNorm) -> torch.Tensor:
    norm = part.bn
    mean, var, weight, bias = (v.view(-1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


@torch.no_grad()
def test_a_block_by_hand() -> None:
    block = shaken(RepVitBlock(8, excited=True))
    x = torch.randn(1, 8, 5, 6, generator=torch.Generator().manual_seed(1))
    mixer, se, mlp = block.token_mixer, block.se, block.channel_mixer
    near = torch.zeros(1, 8, 5, 6)  # each pixel's neighbourhood, channel by channel, zeros around the picture
    padded = nnf.pad(x, (1, 1, 1, 1))
    for dy in range(3):
        for dx in range(3):
            near += mixer.conv.c.weight[:, 0, dy, dx].view(-1, 1, 1) * padded[:, :, dy : dy + 5, dx : dx + 6]
    tokens = normed(near, mixer.conv) + normed(x * mixer.conv1.c.weight.view(-1, 1, 1), mixer.conv1) + x
    overall = tokens.mean((2, 3))[0]
    few = (se.fc1.weight[:, :, 0, 0] @ overall + se.fc1.bias).clamp(min=0)
    tokens = tokens / (1 + (-(se.fc2.weight[:, :, 0, 0] @ few + se.fc2.bias)).exp()).view(-1, 1, 1)
    wide = normed(torch.einsum("oc,bchw->bohw", mlp.conv1.c.weight[:, :, 0, 0], tokens), mlp.conv1)
    wide = wide * 0.5 * (1 + torch.erf(wide / 2**0.5))
    expected = tokens + normed(torch.einsum("oc,bchw->bohw", mlp.conv2.c.weight[:, :, 0, 0], wide), mlp.conv2)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_picture_is_halved_between_stages() -> None:
    """Downsampling by hand: block, then each channel's convolution of stride 2, then other channels, then a mixer."""
    net = shaken(RepVit((8, 16), (1, 1)))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    first, second = net(x)
    down = net.stages_1.downsample
    small = nnf.conv2d(down.pre_block(first), down.spatial_downsample.c.weight, stride=2, padding=1, groups=8)
    small = normed(small, down.spatial_downsample)
    small = normed(nnf.conv2d(small, down.channel_downsample.c.weight), down.channel_downsample)
    torch.testing.assert_close(second, net.stages_1.blocks(small + down.ffn(small)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_folded_network_does_the_same() -> None:
    net = shaken(RepVit())
    fast = deepcopy(net)
    merge_batch_norms(fast)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for slow, quick in zip(net(image), fast(image), strict=True):
        assert (slow - quick).abs().max() <= 1e-5 * slow.abs().max()
    assert not any(isinstance(part, ConvNorm | TokenMixer | nn.BatchNorm2d) for part in fast.modules())


@torch.no_grad()
def test_folding_twice_is_folding_once() -> None:
    net = shaken(RepVit((8, 16), (1, 2)))
    merge_batch_norms(net)
    once = {name: value.clone() for name, value in net.state_dict().items()}
    merge_batch_norms(net)
    assert net.state_dict().keys() == once.keys()
    assert all(torch.equal(value, once[name]) for name, value in net.state_dict().items())
