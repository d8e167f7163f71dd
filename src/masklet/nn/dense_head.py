"""A dense head for instance masks (CondInst, Tian et al. 2020, arXiv:2003.05664), over frozen features.

Every cell of a pyramid says how good a mask it has to offer, and gives the weights of a small network that makes this
mask of features which all of them share. What the object is called is told afterwards, from what lies under its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int64
from torch import Tensor, nn

STRIDES = (8, 16, 32, 64)  # pixels per cell, level by level
DEEP = 8  # channels of the mask features, and of the small networks
WEIGHTS = (DEEP + 2) * DEEP + DEEP, DEEP * DEEP + DEEP, DEEP + 1  # of their three layers
REACH = 8.0  # coordinates are told in these many cells of the level
PRIOR = -4.0  # logit of a cell's score as training begins
SEEN, DETAIL, COLOURS = 128, 24, 24  # channels of the features at stride 8, and of colours at stride 4
DEEPER = 96, 320  # channels of the encoder's deeper maps, at strides 16 and 32
SPREAD = 0.5, 0.2  # deviations of their values
DROPPED = 0.3  # share of what names are told from, in training: few images have each name
GROUP = 16  # channels that are normalised together
AT_ONCE = 8  # masks that are drawn side by side: what lies between two layers stays in the cache


@dataclass(frozen=True)
class DenseHeadSettings:
    """Sizes of the head."""

    width: int = 96  # channels of the pyramid
    wide: int = 160  # channels of the coarser levels before it
    hidden: int = 256  # of what names objects


@dataclass(frozen=True)
class CellPredictions:
    """What all cells of a batch say, level by level and row by row."""

    scores: Float[Tensor, "b n"]  # logits
    kernels: Float[Tensor, "b n k"]
    told: Float[Tensor, "b n c"]  # what they know
    at: Float[Tensor, "n 2"]  # their middles, x and y in pixels
    stride: Float[Tensor, " n"]  # pixels
    masks: Float[Tensor, "b d h4 w4"]  # the shared mask features
    under: Float[Tensor, "b e h16 w16"]  # what names are told from
    scene: Float[Tensor, "b f"]  # the same of the whole image


def build_group_norm(channels: int) -> nn.GroupNorm:
    """Group norm: batches are small."""
    return nn.GroupNorm(channels // GROUP, channels)


def build_conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution from `inputs` to `outputs` channels with this `stride`, then group norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), build_group_norm(outputs), nn.ReLU())


class ResidualBottleneck(nn.Module):
    """A bottleneck of half the channels, added to what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        last = build_group_norm(channels)
        nn.init.zeros_(last.weight)
        self.steps = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            build_group_norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, 1, 1, bias=False),
            build_group_norm(inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False),
            last,
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return nnf.relu(x + self.steps(x))


class DenseHead(nn.Module):
    """Scores, masks and names of what is in images."""

    def __init__(self, classes: int, settings: DenseHeadSettings | None = None) -> None:
        super().__init__()
        at = settings or DenseHeadSettings()
        width, wide = at.width, at.wide
        self.colours = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, COLOURS, 3, 2, 1, bias=False), nn.ReLU()
        )
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    build_conv_block(SEEN + DETAIL, wide, 2), ResidualBottleneck(wide), ResidualBottleneck(wide)
                ),
                nn.Sequential(build_conv_block(wide, wide, 2), ResidualBottleneck(wide), ResidualBottleneck(wide)),
                nn.Sequential(build_conv_block(wide, wide, 2), ResidualBottleneck(wide)),
            ]
        )
        self.deeper = nn.ModuleList(nn.Conv2d(inputs, wide, 1, bias=False) for inputs in DEEPER)
        self.laterals = nn.ModuleList(
            [nn.Conv2d(SEEN + DETAIL + COLOURS, width, 1), *(nn.Conv2d(wide, width, 1) for _ in self.levels)]
        )
        self.tower = nn.Sequential(*(build_conv_block(width, width) for _ in range(3)))
        self.score = nn.Conv2d(width, 1, 3, 1, 1)
        self.kernel = nn.Conv2d(width, sum(WEIGHTS), 3, 1, 1)
        self.mask = build_conv_block(width, 64)
        self.fine = nn.Sequential(build_conv_block(64 + COLOURS, 32), nn.Conv2d(32, DEEP, 1))
        self.name = nn.Sequential(
            nn.Linear(width + SEEN + 2 * wide + DEEPER[1], at.hidden), nn.ReLU(), nn.Linear(at.hidden, classes)
        )
        nn.init.constant_(self.score.get_parameter("bias"), PRIOR)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.kernel.weight, std=0.01)

    def forward(
        self,
        keys: Float[Tensor, "b 128 h w"],
        detail: Float[Tensor, "b 24 h w"],
        deeper: tuple[Float[Tensor, "b 96 h2 w2"], Float[Tensor, "b 320 h4 w4"]],
        images: Float[Tensor, "b 3 h8 w8"],
    ) -> CellPredictions:
        """What the cells say.

        Args:
            keys, detail, deeper: the encoder's, as they are.
            images: RGB in ImageNet's normalisation at the working resolution.
        """
        keys, detail = keys * (SEEN / 2) ** 0.5, detail * DETAIL**0.5  # from unit length to about 1 in each channel
        colours = self.colours(images)
        seen = torch.cat([keys, detail], 1)
        deeper = deeper[0] / SPREAD[0], deeper[1] / SPREAD[1]
        maps = self._maps(seen, deeper)
        pyramid = self._pyramid([torch.cat([seen, nnf.avg_pool2d(colours, 2)], 1), *maps[1:]])
        towers = [self.tower(p) for p in pyramid]
        fine = nnf.interpolate(self.mask(pyramid[0]), colours.shape[2:], mode="bilinear")
        fitted = nnf.adaptive_avg_pool2d(keys, get_map_size(maps[1]))
        known = nnf.interpolate(deeper[1], get_map_size(maps[1]), mode="bilinear")
        under = torch.cat([fitted, maps[1], known], 1)
        at, stride = locate_cells([t.shape[2:] for t in towers])
        return CellPredictions(
            flatten_levels([self.score(t) for t in towers])[..., 0],
            flatten_levels([self.kernel(t) for t in towers]),
            flatten_levels(towers),
            at.to(keys.device),
            stride.to(keys.device),
            self.fine(torch.cat([fine, colours], 1)),
            under,
            maps[2].mean((2, 3)),
        )

    def _maps(
        self, seen: Float[Tensor, "b 152 h w"], deeper: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Features of all strides, the coarser ones of the finer ones and of what the encoder knows at their stride."""
        known: list[Any] = [project(x) for project, x in zip(self.deeper, deeper, strict=True)]
        levels: list[Any] = list(self.levels)
        maps = [seen]
        for level, more in zip(levels, [*known, 0.0], strict=True):
            maps.append(level[1:](level[0](maps[-1]) + more))
        return maps

    def _pyramid(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> list[Float[Tensor, "b c _ _"]]:
        """Feature pyramid: what the coarse levels know is added to the fine ones."""
        found = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for n in range(len(found) - 2, -1, -1):
            found[n] = found[n] + nnf.interpolate(found[n + 1], found[n].shape[2:], mode="bilinear")
        return found

    def masks(self, cells: CellPredictions, b: int, chosen: Int64[Tensor, " n"]) -> Float[Tensor, "n h4 w4"]:
        """Mask logits at stride 4 of the cells numbered `chosen` in `cells`, in image `b` (CondInst 3.1)."""
        h, w = cells.masks.shape[2:]
        shared = torch.cat([cells.masks[b].flatten(1), locate_mask_cells(h, w, cells.masks.device)])
        drawn = torch.cat([apply_cell_kernels(shared, cells, b, some) for some in torch.split(chosen, AT_ONCE)])
        return drawn.view(-1, h, w)

    def names(
        self, cells: CellPredictions, b: int, chosen: Int64[Tensor, " n"], masks: Float[Tensor, "n h4 w4"]
    ) -> Float[Tensor, "n k"]:
        """Class logits of what the `masks` (logits) of the cells numbered `chosen` in `cells` show in image `b`: from
        the cells, from what lies under the masks, and from the whole image.
        """
        inside = nnf.adaptive_avg_pool2d(masks.sigmoid()[:, None], get_map_size(cells.under))[:, 0].flatten(1)
        share = inside / inside.sum(1, keepdim=True).clamp(min=1e-3)
        pooled = share @ cells.under[b].flatten(1).T
        scene = cells.scene[b].expand(len(chosen), -1)
        known = torch.cat([cells.told[b, chosen], pooled, scene], 1)
        found: Float[Tensor, "n k"] = self.name(nnf.dropout(known, DROPPED, self.training))
        return found


def apply_cell_kernels(
    shared: Float[Tensor, "e p"], cells: CellPredictions, b: int, chosen: Int64[Tensor, " n"]
) -> Float[Tensor, "n 1 p"]:
    """Mask logits in image `b`, by the own network of each of the cells numbered `chosen` in `cells`. All see `shared`,
    at every pixel of stride 4: the mask features, then x and y in pixels of the image.
    """
    first, second, third = torch.split(cells.kernels[b, chosen], list(WEIGHTS), 1)
    n, reach = len(chosen), cells.stride[chosen] * REACH
    kernel, bias = torch.split(first, [(DEEP + 2) * DEEP, DEEP], 1)
    by_feature, by_place = torch.split(kernel.view(n, DEEP, DEEP + 2), [DEEP, 2], 2)
    by_place = by_place / reach[:, None, None]
    bias = bias - (by_place @ cells.at[chosen, :, None])[..., 0]
    x = (torch.cat([by_feature, by_place], 2).flatten(0, 1) @ shared).view(n, DEEP, shared.shape[1])
    x = nnf.relu(x + bias[..., None])
    kernel, bias = torch.split(second, [DEEP * DEEP, DEEP], 1)
    x = nnf.relu(torch.baddbmm(bias[..., None], kernel.view(n, DEEP, DEEP), x))
    kernel, bias = torch.split(third, [DEEP, 1], 1)
    return torch.baddbmm(bias[..., None], kernel.view(n, 1, DEEP), x)


def get_map_size(maps: Float[Tensor, "b c h w"]) -> tuple[int, int]:
    """Height and width of feature maps, in cells."""
    return maps.shape[2], maps.shape[3]


def flatten_levels(maps: Sequence[Float[Tensor, "b c _ _"]]) -> Float[Tensor, "b n c"]:
    """Cells of all levels, one after the other."""
    return torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)


def locate_cells(sizes: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Middles of all cells, x and y in pixels, and their sides."""
    at, sides = [], []
    for (h, w), stride in zip(sizes, STRIDES, strict=True):
        y, x = torch.meshgrid((torch.arange(h) + 0.5) * stride, (torch.arange(w) + 0.5) * stride, indexing="ij")
        at.append(torch.stack([x.flatten(), y.flatten()], 1))
        sides.append(torch.full((h * w,), float(stride)))
    return torch.cat(at), torch.cat(sides)


def locate_mask_cells(h: int, w: int, device: torch.device) -> Float[Tensor, "2 p"]:
    """Middles of `h` x `w` cells at stride 4, row by row, x and y in pixels, as a tensor on `device`."""
    y, x = torch.meshgrid((torch.arange(h) + 0.5) * 4, (torch.arange(w) + 0.5) * 4, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()]).to(device)
