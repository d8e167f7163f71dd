"""NanoDet-g (R. Lyu's NanoDet): a detector of boxes in which every cell of three feature maps offers one box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.fused_convolution import Activation, FusedConv2d

STRIDES = (8, 16, 32)  # pixels of the image per cell, of each level
CATEGORIES = 80
SIDES, BINS = 4, 11  # a box's left, top, right and bottom, and how far each is, in strides: 0 to 10
WIDTH = 128  # channels of the neck and the heads
LEAKY = Activation("leaky_relu", (0.1,))  # its slope below zero
STAGES = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 3, 2))  # channels, pairs and stride of each stage

Levels = tuple[Tensor, Tensor, Tensor]  # of STRIDES


def build_conv3x3(inputs: int, outputs: int, stride: int = 1) -> FusedConv2d:
    """A 3 x 3 convolution from `inputs` to `outputs` channels that keeps the size, but for its `stride`; LeakyReLU of
    slope 0.1 follows.
    """
    return FusedConv2d(inputs, outputs, 3, stride, 1, activation=LEAKY)


class CspStage(nn.Module):
    """A cross-stage partial stage: pairs of convolutions on half the channels, beside a shortcut around them all."""

    def __init__(self, channels: int, pairs: int, stride: int) -> None:
        """
        Args:
            channels: that come in; twice as many come out.
            pairs: of convolutions. The first of a pair sees what the pair gets, the second that and the first's answer.
            stride: of the first convolution.
        """
        super().__init__()
        half = channels // 2
        self.entry = build_conv3x3(channels, channels, stride)
        self.narrow = build_conv3x3(channels, half)
        self.deepen = nn.ModuleList(build_conv3x3(half, half) for _ in range(pairs))
        widths = [half] * (pairs - 1) + [channels]
        self.merge = nn.ModuleList(build_conv3x3(channels, width) for width in widths)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        shortcut = self.entry(x)
        out = self.narrow(shortcut)
        for deepen, merge in zip(self.deepen, self.merge, strict=True):
            out = merge(torch.cat([deepen(out), out], dim=1))
        return torch.cat([out, shortcut], dim=1)


class NanoDetHead(nn.Module):
    """One level's head."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = build_conv3x3(WIDTH, WIDTH)
        self.output = FusedConv2d(WIDTH, CATEGORIES + SIDES * BINS, 1)

    def forward(self, x: Float[Tensor, "b 128 h w"]) -> Float[Tensor, "b 124 h w"]:
        out: Tensor = self.output(self.hidden(x))
        return out


class NanoDetNetwork(nn.Module):
    """NanoDet-g, 3.8 million parameters. Takes BGR as `models.nanodet.normalize_bgr` gives it, height and width
    multiples of 32. `forward` is `extract_features`, then `predict_logits`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = build_conv3x3(3, STAGES[0][0], 2)
        self.stages = nn.ModuleList(CspStage(*stage) for stage in STAGES)
        self.laterals = nn.ModuleList(FusedConv2d(2 * channels, WIDTH, 1) for channels, _, _ in STAGES[1:])
        self.heads = nn.ModuleList(NanoDetHead() for _ in STRIDES)

    def forward(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 124 h8 w8"], Float[Tensor, "b 124 h16 w16"], Float[Tensor, "b 124 h32 w32"]]:
        """The heads' logits at strides 8, 16 and 32: 80 categories, then 11 bins for each of a box's four sides."""
        return self.predict_logits(self.extract_features(image))

    def extract_features(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 128 h8 w8"], Float[Tensor, "b 128 h16 w16"], Float[Tensor, "b 128 h32 w32"]]:
        """The neck's feature maps at strides 8, 16 and 32: information goes from coarse to fine, then back."""
        fine, medium, coarse = (
            lateral(x) for lateral, x in zip(self.laterals, self.extract_backbone(image), strict=True)
        )
        medium = medium + resize_map(coarse, 2)
        fine = fine + resize_map(medium, 2)
        medium = medium + resize_map(fine, 0.5)
        return fine, medium, coarse + resize_map(medium, 0.5)

    def extract_backbone(
        self, image: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 128 h8 w8"], Float[Tensor, "b 256 h16 w16"], Float[Tensor, "b 512 h32 w32"]]:
        """The outputs of the last three stages."""
        x = nn.functional.max_pool2d(self.stem(image), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1], maps[2], maps[3]

    def predict_logits(self, features: Levels) -> Levels:
        """The heads' logits (b 124 h w) of the neck's feature maps (b 128 h w)."""
        fine, medium, coarse = (head(x) for head, x in zip(self.heads, features, strict=True))
        return fine, medium, coarse


def resize_map(x: Float[Tensor, "b c h w"], scale: float) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear with half-pixel centres. Halved, four cells become their mean."""
    return nn.functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def decode_logits(levels: Sequence[Float[Tensor, "124 _ _"]]) -> tuple[Float[Tensor, "n 80"], Float[Tensor, "n 4"]]:
    """What every cell of one image offers.

    Args:
        levels: the logits of one image at strides 8, 16 and 32, rows and columns of cells.

    Returns:
        Scores of the categories, 0 to 1, and boxes as x0, y0, x1, y1 in pixels of the network's image, which may lie
        across its border; cells in the order of the levels, row by row.
    """
    scores, boxes = [], []
    for logits, stride in zip(levels, STRIDES, strict=True):
        cells = logits.flatten(1).T
        scores.append(cells[:, :CATEGORIES].sigmoid())
        centres = compute_centres(logits.shape[1], logits.shape[2], stride).to(cells)
        boxes.append(decode_boxes(cells[:, CATEGORIES:].reshape(-1, SIDES, BINS), centres, stride))
    return torch.cat(scores), torch.cat(boxes)


def compute_centres(rows: int, columns: int, stride: int) -> Float[Tensor, "n 2"]:
    """The centres (x, y) of a level's `rows` x `columns` cells in pixels, `stride` pixels a cell, row by row.

    >>> compute_centres(1, 2, 8).tolist()
    [[4.0, 4.0], [12.0, 4.0]]
    """
    ys, xs = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (torch.stack([xs, ys], dim=-1).flatten(0, 1) + 0.5) * stride


def decode_boxes(bins: Float[Tensor, "n 4 11"], centres: Float[Tensor, "n 2"], stride: int) -> Float[Tensor, "n 4"]:
    """Boxes of cells (generalized focal loss, Li et al. 2020: a distance is the mean of a distribution over bins).

    Args:
        bins: logits of the distances from the centre to the left, top, right and bottom side, in strides.
        centres: of the cells, x and y in pixels.
        stride: pixels per cell.

    Returns:
        x0, y0, x1, y1 in pixels.
    """
    distances = bins.softmax(2) @ torch.arange(BINS).to(bins) * stride
    return torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], dim=1)
