"""Contention between objects at every pixel of a frame, written out for whole frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as nnf
from torch import Tensor


def exclude_rivals(
    logits: Tensor, claims: Tensor, rivals: Tensor, common: Mapping[tuple[int, int], Tensor] | None = None
) -> Tensor:
    """Log odds [n h w] of each object against the background and its rivals together (`mask_windows.exclude_rivals`);
    `common` are masks of where both of two rows belong, both ways.
    """
    odds = (logits + claims).exp()
    against = (rivals @ odds.flatten(1)).view_as(logits)
    for (own, other), where in (common or {}).items():
        against[own] -= rivals[own, other] * odds[other] * where
    return logits - nnf.softplus(against.clamp(min=0).log() - claims)
