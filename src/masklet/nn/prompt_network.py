"""A promptable mask network at nano size: it looks at a square crop around one object and draws the mask that clicks, a
box and an earlier answer describe.

MobileNetV2 with the paper's strides. Its first three blocks see the image alone and stay as ImageNet left them, so
that another click on the same crop does not need them again; the prompt enters behind them as maps, and everything from
there on is trained. There are four answers a crop: the first is for prompts that leave no doubt, the other three for a
single click, which may mean a part or the whole (Kirillov et al. 2023, arXiv:2304.02643, section 3). Each comes with
the IoU that it expects to have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.fused_convolution import RELU, RELU6, FusedConv2d
from masklet.nn.mobilenet import DEEP_STAGES, STAGES, STEM, build_mobilenet_blocks
from masklet.nn.nanodet import WIDTH as HINTS
from masklet.nn.nanodet import NanoDetNetwork

MAPS = 4  # clicks inside, clicks outside, the box filled, the earlier answer
ANSWERS = 4  # one for prompts that leave no doubt, three hypotheses of a single click
WIDTH = 64  # channels at strides 8 to 32
MIDDLE = 40  # channels at stride 4
FINE = 16  # channels at stride 2
LOUD = 8.0  # by what a detector's maps are multiplied: they are small
FIXED = 3  # blocks that see the image alone
TAPS = {6: 32, 13: 96, 17: 320}  # trained blocks whose outputs are used, and their channels: strides 8, 16, 32


@dataclass(frozen=True)
class CropFeatures:
    """What the network knows of crops before any prompt."""

    stem: Float[Tensor, "b 32 s2 s2"]  # stride 2
    low: Float[Tensor, "b 24 s4 s4"]  # block 3, stride 4
    hints: tuple[Float[Tensor, "b 128 _ _"], ...] = ()  # a detector's maps, strides 8 to 32; none: look without


class PromptNetwork(nn.Module):
    """Crops and prompts to masks."""

    def __init__(self) -> None:
        super().__init__()
        blocks = build_mobilenet_blocks((*STAGES[:3], *DEEP_STAGES), STEM)
        self.stem = FusedConv2d(3, STEM, 3, 2, 1, activation=RELU6)
        self.fixed = nn.ModuleList(blocks[:FIXED])
        self.blocks = nn.ModuleList(blocks[FIXED:])
        low = blocks[FIXED - 1].project.out_channels
        self.maps = nn.Sequential(
            FusedConv2d(MAPS, 16, 3, 2, 1, activation=RELU),
            nn.Identity(),  # files count activations
            FusedConv2d(16, 32, 3, 2, 1, activation=RELU),
            nn.Identity(),
            FusedConv2d(32, low, 1),
        )
        self.laterals = nn.ModuleList(FusedConv2d(channels, WIDTH, 1) for channels in TAPS.values())
        self.advise = nn.ModuleList(FusedConv2d(HINTS, channels + WIDTH, 1) for channels in TAPS.values())
        self.smooth = nn.ModuleList(FusedConv2d(WIDTH, WIDTH, 3, 1, 1, activation=RELU) for _ in range(2))
        self.lift = FusedConv2d(WIDTH, MIDDLE, 1)
        self.lateral = FusedConv2d(low, MIDDLE, 1)
        self.first = FusedConv2d(MIDDLE + MAPS, MIDDLE, 3, 1, 1, activation=RELU)
        self.second = FusedConv2d(MIDDLE, MIDDLE, 3, 1, 1, activation=RELU)
        self.narrow = FusedConv2d(MIDDLE, FINE, 1)
        self.edges = FusedConv2d(STEM, FINE, 1)
        self.third = FusedConv2d(FINE + MAPS, FINE, 3, 1, 1, activation=RELU)
        self.coarse = FusedConv2d(MIDDLE, ANSWERS, 1)
        self.fine = FusedConv2d(FINE, ANSWERS, 1)
        self.judge = nn.Sequential(nn.Linear(MIDDLE + WIDTH + 2 + ANSWERS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        self.enable_training()
        for parameter in [*self.maps[-1].parameters(), *self.advise.parameters()]:
            nn.init.zeros_(parameter)  # training begins with the network as it was for images alone

    def enable_training(self) -> PromptNetwork:
        """Gradients for all but what sees the image alone."""
        self.requires_grad_(True)
        for part in (self.stem, self.fixed):
            part.requires_grad_(False)
        return self

    @torch.no_grad()
    def look(self, image: Float[Tensor, "b 3 s s"], detector: NanoDetNetwork | None = None) -> CropFeatures:
        """The part that does not depend on prompts, of crops in ImageNet's normalisation, sides multiples of 32; with
        what a `detector` sees in them, if there is one.
        """
        stem = x = self.stem(image)
        for block in self.fixed:
            x = block(x)
        hints = detector.extract_features(image.flip(1)) if detector else ()  # it takes BGR
        return CropFeatures(stem, x, tuple(LOUD * hint for hint in hints))

    def forward(
        self, crops: CropFeatures, maps: Float[Tensor, "b m s s"]
    ) -> tuple[Float[Tensor, "b k s2 s2"], Float[Tensor, "b k"]]:
        """Mask logits at stride 2 and the expected IoU (before the sigmoid) of each answer.

        Args:
            crops: of `look`.
            maps: `MAPS` maps of the prompt, 0 to 1 (the earlier answer -1 to 1, 0 where there is none).
        """
        logits, x, whole = self.draw(crops, maps)
        return logits, self._expected_iou(logits.detach(), x, whole)

    def draw(
        self, crops: CropFeatures, maps: Float[Tensor, "b m s s"]
    ) -> tuple[Float[Tensor, "b k s2 s2"], Float[Tensor, "b c s4 s4"], Float[Tensor, "b d"]]:
        """Mask logits alone, with arguments as for `forward`; and the features of each place and of the whole crop, by
        which masks are judged.
        """
        low = crops.low + self.maps(maps)
        levels = self._descend(low, crops.hints)
        x, whole = levels[-1], levels[-1].mean((2, 3))
        for level, smooth in zip(levels[-2::-1], self.smooth, strict=True):
            x = smooth(level + resize_to_double(x))
        x = self.lateral(low) + resize_to_double(self.lift(x))
        x = self.first(torch.cat([x, nnf.avg_pool2d(maps, 4)], 1))
        x = x + self.second(x)
        fine = nnf.relu(resize_to_double(self.narrow(x)) + self.edges(crops.stem))
        fine = self.third(torch.cat([fine, nnf.avg_pool2d(maps, 2)], 1))
        return resize_to_double(self.coarse(x)) + self.fine(fine), x, whole

    def _descend(
        self, x: Float[Tensor, "b 24 s4 s4"], hints: tuple[Float[Tensor, "b 128 _ _"], ...]
    ) -> list[Float[Tensor, "b c _ _"]]:
        """The trained blocks' outputs at strides 8, 16 and 32; what a detector sees goes into the blocks and beside."""
        levels: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=FIXED + 1):
            x = block(x)
            if number in TAPS:
                level = len(levels)
                beside: Tensor | float = 0.0
                if hints:
                    into, beside = self.advise[level](hints[level]).split([TAPS[number], WIDTH], 1)
                    x = x + into
                levels.append(self.laterals[level](x) + beside)
        return levels

    def _expected_iou(
        self, logits: Float[Tensor, "b k s2 s2"], features: Float[Tensor, "b c s4 s4"], whole: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b k"]:
        """From what each mask covers, how sharp it is, and the whole crop."""
        soft = nnf.avg_pool2d(logits.sigmoid(), 2)
        area = soft.mean((2, 3))
        covered = torch.einsum("bkyx,bcyx->bkc", soft, features) / (soft.sum((2, 3))[..., None] + 1)
        sharp = (soft * soft).mean((2, 3)) / (area + 1e-4)
        which = torch.eye(ANSWERS, device=logits.device).expand(len(logits), -1, -1)
        told = torch.cat([covered, whole[:, None].expand(-1, ANSWERS, -1), area[..., None], sharp[..., None], which], 2)
        return torch.as_tensor(self.judge(told))[..., 0]


def resize_to_double(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Resizes maps to twice their height and width, bilinear."""
    return nnf.interpolate(x, scale_factor=2.0, mode="bilinear")
