"""Features of boxes at one size (He et al. 2017, RoIAlign): bilinear samples, averaged within each bin."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def align_boxes(features: Float[Tensor, "c h w"], boxes: Float[Tensor, "n 4"], bins: int) -> Float[Tensor, "n c k k"]:
    """What is in each box, in `bins` x `bins` cells of equal size.

    As torchvision's `roi_align` with its defaults (not `aligned`, as many samples as cells of the map): a box has a
    length of at least one cell, and what lies more than a cell outside of the map is nothing.

    Args:
        features: a map.
        boxes: x0, y0, x1, y1 in cells of the map.
        bins: of each side.

    >>> align_boxes(torch.arange(16.0).view(1, 4, 4), torch.tensor([[0.0, 0.0, 4.0, 4.0]]), 2).tolist()
    [[[[5.0, 6.75], [12.0, 13.75]]]]
    """
    h, w = features.shape[1:]
    found = [
        sample_axis(box[1], box[3], h, bins, features) @ features @ sample_axis(box[0], box[2], w, bins, features).T
        for box in boxes
    ]
    return torch.stack(found) if found else features.new_zeros(0, len(features), bins, bins)


def sample_axis(
    low: Float[Tensor, ""], high: Float[Tensor, ""], cells: int, bins: int, like: Tensor
) -> Float[Tensor, "k p"]:
    """How much each of some `cells` counts in each of the `bins` between `low` and `high`, along one axis."""
    length = max(float(high - low), 1.0)
    samples = math.ceil(length / bins)
    places = float(low) + (torch.arange(bins * samples) + 0.5) * (length / (bins * samples))
    inside = ((places >= -1) & (places <= cells)).float()
    places = places.clamp(0, cells - 1)
    first = places.long()
    share = places - first
    weights = torch.zeros(bins * samples, cells)
    rows = torch.arange(len(places))
    weights[rows, first] += (1 - share) * inside
    weights[rows, (first + 1).clamp(max=cells - 1)] += share * inside
    return weights.view(bins, samples, cells).mean(1).to(like)
