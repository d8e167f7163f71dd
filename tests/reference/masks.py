"""Plain twins of `core.masks`, `core.label_map` and of what systems draw: every mask at the frame's size, dense."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """By a product of all pixels."""
    x, y = a.flatten(1).float(), b.flatten(1).float()
    both = x @ y.T
    either = a.flatten(1).sum(1)[:, None] + b.flatten(1).sum(1)[None] - both
    return both / either.clamp(min=1)


def mask_nms(masks: Tensor, scores: Tensor, iou: float) -> list[int]:
    """One after the other, the best first."""
    kept: list[int] = []
    for row in scores.argsort(descending=True, stable=True).tolist():
        if not any(float(mask_iou(masks[[row]], masks[[other]])) > iou for other in kept):
            kept.append(row)
    return sorted(kept)


def resolve_overlaps_by_area(masks: Tensor) -> Tensor:
    """Every pixel's smallest mask."""
    area = masks.flatten(1).sum(1).float()
    winner = torch.where(masks, area[:, None, None], torch.inf).argmin(0)
    return masks & (torch.arange(len(masks))[:, None, None] == winner)


def resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """All of all maps."""
    return nnf.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]


def exclude(logits: Tensor, present: Tensor, size: tuple[int, int]) -> Tensor:
    """Every pixel's greatest logit above 0 of what is present."""
    large = resize(logits, size)
    masks = (large > 0) & present[:, None, None]
    winner = torch.where(masks, large, -torch.inf).argmax(0)
    return masks & (torch.arange(len(masks))[:, None, None] == winner)
