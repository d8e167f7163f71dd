"""The first blocks of MobileNetV2, batch norms folded into the convolutions, for dense features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.fused_convolution import RELU6, FusedConv2d


@dataclass(frozen=True)
class MobileNetStage:
    """A row of table 2 of the paper; dilation stands in for stride where the features must stay dense."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    dilation: int = 1


STEM = 32
# Sandler et al. 2018, table 2, up to the end of the sixth row (block 13). The fourth row's stride is left out
# and the filters after it dilated instead, so that everything from block 4 on has stride 8.
STAGES = (
    MobileNetStage(1, 16, 1, 1),
    MobileNetStage(6, 24, 2, 2),
    MobileNetStage(6, 32, 3, 2),
    MobileNetStage(6, 64, 4, 1, 2),
    MobileNetStage(6, 96, 3, 1, 2),
)
# The fourth to the seventh row (blocks 7 to 17) with the strides of the paper.
DEEP_STAGES = (
    MobileNetStage(6, 64, 4, 2),
    MobileNetStage(6, 96, 3, 1),
    MobileNetStage(6, 160, 3, 2),
    MobileNetStage(6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Inverted residual: widen, filter each channel, narrow; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = FusedConv2d(inputs, wide, 1, activation=RELU6) if expansion > 1 else None
        self.depth = FusedConv2d(wide, wide, 3, stride, dilation, dilation, wide, RELU6)
        self.project = FusedConv2d(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The block's features; where it strides, at half the resolution."""
        wide = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depth(wide), x if self.residual else None)
        return out


def build_mobilenet_blocks(stages: Sequence[MobileNetStage], inputs: int) -> list[InvertedResidual]:
    """The blocks of some stages, one after the other. A block that leaves its stride out filters as densely as the
    blocks before it: every second cell of what it and the next ones give is what they give with the stride.
    """
    blocks, dilation = [], 1
    for stage in stages:
        for n in range(stage.blocks):
            stride = stage.stride if n == 0 else 1
            blocks.append(InvertedResidual(inputs, stage.channels, stage.expansion, stride, dilation))
            inputs, dilation = stage.channels, stage.dilation
    return blocks


class MobileNetV2(nn.Module):
    """Blocks 0 to 13 of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), for inference.

    Takes RGB in ImageNet's normalisation; gives the outputs of blocks 3 (24 channels, stride 4), 6 (32,
    stride 8) and 13 (96, stride 8 by dilation). Height and width should be multiples of 8.
    """

    TAPS = (3, 6, 13)

    def __init__(self) -> None:
        super().__init__()
        self.stem = FusedConv2d(3, STEM, 3, 2, 1, activation=RELU6)
        self.blocks = nn.ModuleList(build_mobilenet_blocks(STAGES, STEM))

    def forward(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 24 h4 w4"], Float[Tensor, "b 32 h8 w8"], Float[Tensor, "b 96 h8 w8"]]:
        """The outputs of blocks 3, 6 and 13 for normalised images."""
        x, taps = self.stem(image), []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.TAPS:
                taps.append(x)
        return taps[0], taps[1], taps[2]


class DeepMobileNet(nn.Module):
    """Blocks 7 to 17 of MobileNetV2 as the paper has them, for inference. Takes the output of block 6 (32 channels,
    stride 8); gives those of blocks 13 (96, stride 16) and 17 (320, stride 32).
    """

    FIRST, TAP = 7, 13

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(build_mobilenet_blocks(DEEP_STAGES, 32))

    def forward(
        self, six: Float[Tensor, "b 32 h w"]
    ) -> tuple[Float[Tensor, "b 96 h2 w2"], Float[Tensor, "b 320 h4 w4"]]:
        """The outputs of blocks 13 and 17 for `six`, the output of block 6."""
        x = six
        for number, block in enumerate(self.blocks, start=self.FIRST):
            x = block(x)
            if number == self.TAP:
                thirteen = x
        return thirteen, x
