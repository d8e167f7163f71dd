"""Multi-scale deformable attention (Zhu et al. 2021, arXiv:2010.04159, section 4.1) as sums of rows of a table.

Every head of every query looks at a few places of a few maps, bilinearly. What it sees is a weighted sum of the vectors
of the cells around these places, and torch sums rows of a table in one pass: a seventh of the time in which each map is
sampled, stacked and weighted, and no memory for what was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

Shapes = Sequence[tuple[int, int]]  # h, w of every map


def average_sampled_values(
    values: Float[Tensor, "b n h d"],
    shapes: Shapes,
    places: Float[Tensor, "b q h l p 2"],
    weights: Float[Tensor, "b q h l p"],
) -> Float[Tensor, "b q hd"]:
    """What every head of every query sees: the sum, by `weights`, of the `values` at its `places`.

    Args:
        values: of each cell, for each of h heads; map after map, row by row.
        shapes: of the l maps.
        places: p in each map: x and y in cells, the middle of the first cell being 0.5. Around a map lie zeros.
        weights: of the places.

    >>> values = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)  # one map of two cells, one head
    >>> place = torch.tensor([1.0, 0.5]).view(1, 1, 1, 1, 1, 2)  # between the two
    >>> average_sampled_values(values, [(1, 2)], place, torch.ones(1, 1, 1, 1, 1)).item()
    2.0
    """
    (b, q, heads, _, points), device = weights.shape, values.device
    table, firsts = pad_maps(values, shapes)
    h, w = (repeat_for_points(n, points, device) for n in zip(*shapes, strict=True))
    x, right = split_place(places[..., 0], w)
    y, down = split_place(places[..., 1], h)
    images = torch.arange(b, dtype=torch.int32, device=device)[:, None, None, None, None] * table.shape[1]
    head = torch.arange(heads, dtype=torch.int32, device=device)[:, None, None]
    lines = (w + 2).int()
    first = (y * lines + (x + repeat_for_points(firsts, points, device).int()) + images) * heads + head
    lines *= heads
    below, beside = weights * down, weights * right
    diagonal = below * right
    around = torch.stack([first, first + heads, first + lines, first + (lines + heads)], 3)
    shares = torch.stack([weights - below - beside + diagonal, beside - diagonal, below - diagonal, diagonal], 3)
    bags = around.view(b * q * heads, -1)
    seen = nnf.embedding_bag(bags, table.flatten(0, 2), mode="sum", per_sample_weights=shares.view(bags.shape))
    return seen.view(b, q, -1)


def split_place(place: Float[Tensor, "b q h l p"], count: Float[Tensor, "l p"]) -> tuple[Tensor, Tensor]:
    """One coordinate as a cell of the padded maps, of which there are `count` without padding, and the share of the
    next one, which is NaN where the place is. Further out than the middle of the padding nothing changes any more.
    """
    at = torch.minimum((place - 0.5).clamp_(min=-1), count)
    cell = torch.minimum(at.floor(), count - 1).nan_to_num_(-1.0)
    return (cell + 1).int(), at.sub_(cell)


def repeat_for_points(numbers: Sequence[int], points: int, device: torch.device) -> Float[Tensor, "l p"]:
    """A number for every map, for each of its points: laid out as they are, so that they are added in one go."""
    return torch.tensor(numbers, dtype=torch.float32, device=device)[:, None].expand(-1, points).contiguous()


def pad_maps(values: Float[Tensor, "b n h d"], shapes: Shapes) -> tuple[Float[Tensor, "b n2 h d"], list[int]]:
    """The maps with a cell of zeros all around each, one after the other, and at which cell each begins."""
    b, _, heads, width = values.shape
    split = torch.split(values, [h * w for h, w in shapes], dim=1)
    maps = [x.reshape(b, *shape, heads, width) for x, shape in zip(split, shapes, strict=True)]
    padded = [nnf.pad(x, (0, 0, 0, 0, 1, 1, 1, 1)).flatten(1, 2) for x in maps]
    return torch.cat(padded, 1), [0, *accumulate(x.shape[1] for x in padded)][:-1]
