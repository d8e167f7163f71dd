"""RepViT-M1 (Wang et al. 2023, arXiv:2307.09283), the image encoder of EdgeTAM, for inference.

Parameters have the names that EdgeTAM's published weights have, which are timm's: `stem.conv1.c.weight`,
`stages_0.blocks.0.token_mixer.conv.bn.bias`, and so on.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS, DEPTHS = (48, 96, 192, 384), (2, 2, 14, 2)  # of the four stages, at strides 4, 8, 16 and 32
WIDER = 2  # a channel mixer's hidden channels, in units of its own
REDUCTION, DIVISOR = 4, 8  # squeeze and excitation: channels / 4, as a multiple of 8


class ConvNorm(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        out: Tensor = self.bn(self.c(x))
        return out

    def folded(self) -> nn.Conv2d:
        """The convolution that does both."""
        assert self.bn.running_mean is not None and self.bn.running_var is not None
        factor = self.bn.weight / (self.bn.running_var + self.bn.eps).sqrt()
        return make_conv_like(
            self.c, self.c.weight * factor[:, None, None, None], self.bn.bias - self.bn.running_mean * factor
        )


class TokenMixer(nn.Module):
    """Each channel's 3 x 3 neighbourhood, beside a factor for each channel and the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, groups=channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = self.conv(x) + self.conv1(x) + x
        return out

    def folded(self) -> nn.Conv2d:
        """The convolution that is the sum of the three branches: they meet in the kernel's centre."""
        wide, point = self.conv.folded(), self.conv1.folded()
        assert wide.bias is not None and point.bias is not None
        weight = wide.weight.clone()
        weight[:, :, 1, 1] += point.weight[:, :, 0, 0] + 1
        return make_conv_like(wide, weight, wide.bias + point.bias)


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole image says (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = count_squeezed_channels(channels)
        self.fc1 = nn.Conv2d(channels, few, 1)
        self.fc2 = nn.Conv2d(few, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        overall = x.mean((2, 3), keepdim=True)
        out: Tensor = x * self.fc2(self.fc1(overall).relu()).sigmoid()
        return out


class ChannelMixer(nn.Module):
    """Two layers over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels * WIDER)
        self.conv2 = ConvNorm(channels * WIDER, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = self.conv2(nn.functional.gelu(self.conv1(x)))
        return out


class RepVitBlock(nn.Module):
    """A RepViT block: tokens are mixed, then channels."""

    def __init__(self, channels: int, excited: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels)
        self.se = SqueezeExcite(channels) if excited else nn.Identity()
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        mixed = self.se(self.token_mixer(x))
        out: Tensor = mixed + self.channel_mixer(mixed)
        return out


class RepVitStem(nn.Module):
    """Two convolutions of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, 3, 2)
        self.conv2 = ConvNorm(channels // 2, channels, 3, 2)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h4 w4"]:
        out: Tensor = self.conv2(nn.functional.gelu(self.conv1(image)))
        return out


class RepVitDownsample(nn.Module):
    """From one stage to the next: half the resolution, then other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pre_block = RepVitBlock(inputs, excited=False)
        self.spatial_downsample = ConvNorm(inputs, inputs, 3, 2, groups=inputs)
        self.channel_downsample = ConvNorm(inputs, outputs)
        self.ffn = ChannelMixer(outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        small = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        out: Tensor = small + self.ffn(small)
        return out


class RepVitStage(nn.Module):
    """Blocks of one resolution; every other one, from the first, has squeeze and excitation."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.downsample = RepVitDownsample(inputs, outputs) if inputs != outputs else nn.Identity()
        self.blocks = nn.Sequential(*(RepVitBlock(outputs, excited=n % 2 == 0) for n in range(depth)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class RepVit(nn.Module):
    """The features of all stages, at strides 4, 8, 16 and 32.

    Takes RGB in ImageNet's normalisation. It is made to run in eval mode: batch norms use what they have learnt.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS, depths: tuple[int, ...] = DEPTHS) -> None:
        super().__init__()
        self.stem = RepVitStem(channels[0])
        self.names = [f"stages_{n}" for n in range(len(depths))]
        inputs = (channels[0], *channels)
        for name, before, after, depth in zip(self.names, inputs, channels, depths, strict=False):
            self.add_module(name, RepVitStage(before, after, depth))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The features after each stage, finest first, of normalised images."""
        x, features = self.stem(image), []
        for name in self.names:
            x = getattr(self, name)(x)
            features.append(x)
        return features


def count_squeezed_channels(channels: int) -> int:
    """A quarter of the channels, rounded to a multiple of 8, at least 8."""
    few = channels // REDUCTION
    return max(DIVISOR, (few + DIVISOR // 2) // DIVISOR * DIVISOR)


def make_conv_like(like: nn.Conv2d, weight: Float[Tensor, "o i k k"], bias: Float[Tensor, " o"]) -> nn.Conv2d:
    """A convolution with the stride, padding and groups of `like`, but with these values of `weight` and `bias`."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        weight.shape[2],
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        groups=like.groups,
        device=weight.device,
        dtype=weight.dtype,
    )
    conv.weight.data, conv.bias.data = weight.detach(), bias.detach()  # type: ignore[union-attr]
    return conv.requires_grad_(False).train(like.training)


@torch.no_grad()
def merge_batch_norms(net: nn.Module) -> None:
    """Folds each batch norm, and each token mixer's branches, into one convolution: the same answers in less time.

    The parameters have other names afterwards. What is folded already stays as it is.
    """
    for name, part in list(net.named_children()):
        if isinstance(part, ConvNorm | TokenMixer):
            setattr(net, name, part.folded())
        else:
            merge_batch_norms(part)
