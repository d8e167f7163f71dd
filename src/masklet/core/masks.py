"""Masks as pixels: bool tensors, while their frame is at hand (`core.rle` has them as run lengths)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor


def mask_iou(a: Bool[Tensor, "n h w"], b: Bool[Tensor, "m h w"]) -> Float[Tensor, "n m"]:
    """Mask IoU of every pair. Two empty masks have 0, as in COCO (DAVIS's J calls the same case 1)."""
    x, y = a.flatten(1), b.flatten(1)
    shared = x.any(0) & y.any(0) if len(x) and len(y) else x.new_zeros(x.shape[1])
    both = x[:, shared].float() @ y[:, shared].float().T  # only these pixels can lie in an intersection
    either = x.sum(1)[:, None] + y.sum(1)[None] - both
    return both / either.clamp(min=1)


def mask_nms(masks: Bool[Tensor, "n h w"], scores: Float[Tensor, " n"], iou: float) -> Int64[Tensor, " k"]:
    """Row numbers of the `masks` to keep, ascending: one goes when a kept one of higher `scores` overlaps it by a mask
    IoU above `iou` (0 to 1).
    """
    twins = mask_iou(masks, masks) > iou
    kept: list[int] = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        if not twins[row, kept].any():
            kept.append(row)
    return torch.tensor(sorted(kept), dtype=torch.int64, device=scores.device)


def matrix_nms(masks: Bool[Tensor, "n h w"], scores: Float[Tensor, " n"], sharpness: float) -> Float[Tensor, " n"]:
    """The `scores` of `masks`, less where a mask of higher score overlaps theirs, unless that one is itself overlapped
    as much.

    SOLOv2 3.3 (Wang et al. 2020, arXiv:2003.10152), Gaussian: by exp(-sharpness * (IoU^2 - most^2)) at the worst.
    """
    order = scores.argsort(descending=True, stable=True)
    iou = mask_iou(masks[order], masks[order]).triu(1)  # row: the better one
    most = iou.amax(0) if len(masks) else iou.new_zeros(0)
    lessened = torch.exp(-sharpness * (iou**2 - most[:, None] ** 2)).clamp(max=1)
    out = scores.clone()
    out[order] = scores[order] * (lessened.amin(0) if len(masks) else most)
    return out


def resolve_overlaps_by_area(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Removes overlaps: a pixel goes to the smallest of the masks that claim it, on a tie to the first."""
    if len(masks) == 0:
        return masks
    area = masks.flatten(1).sum(1).float()
    winner = torch.where(masks, area[:, None, None], torch.inf).argmin(0)
    return masks & (torch.arange(len(masks), device=masks.device)[:, None, None] == winner)


def resize_bilinear(maps: Num[Tensor, "n h w"], size: tuple[int, int]) -> Float[Tensor, "n h2 w2"]:
    """Bilinear resize of float maps to `size` (h, w), pixel centres aligned."""
    if tuple(maps.shape[-2:]) == size or len(maps) == 0:
        return maps.new_zeros(len(maps), *size).float() if len(maps) == 0 else maps.float()
    return nnf.interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def stack_masks(masks: Sequence[Bool[Tensor, "h w"]], size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """One tensor of any number of masks of `size` (h, w), also of none."""
    return torch.stack(list(masks)) if masks else torch.zeros(0, *size, dtype=torch.bool)
