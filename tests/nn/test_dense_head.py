"""The dense head: its cells, its masks against a twin that is written out, and its names."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from masklet.nn.dense_head import (
    AT_ONCE,
    DEEP,
    REACH,
    STRIDES,
    CellPredictions,
    DenseHead,
    DenseHeadSettings,
    locate_cells,
)

SIZE = (64, 96)
SETTINGS = DenseHeadSettings(width=32, wide=32, hidden=16)


@cache
def head() -> DenseHead:
    torch.manual_seed(0)
    net = DenseHead(5, SETTINGS).eval().requires_grad_(False)
    for parameter in net.kernel.parameters():
        parameter.normal_(std=0.3)
    return net


def answered(pictures: int = 2, size: tuple[int, int] = SIZE) -> CellPredictions:
    torch.manual_seed(1)
    h, w = size
    keys, detail = torch.randn(pictures, 128, h // 8, w // 8), torch.randn(pictures, 24, h // 8, w // 8)
    return head()(keys / 8, detail / 5, deeper(pictures, size), torch.randn(pictures, 3, h, w))


def deeper(pictures: int = 2, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor]:
    """Maps of strides 16 and 32; the encoder rounds sides up."""
    random = torch.Generator().manual_seed(2)
    sides = [[-(-side // stride) for side in size] for stride in (16, 32)]
    first, last = (torch.randn(pictures, n, *s, generator=random) for n, s in zip((96, 320), sides, strict=True))
    return first / 2, last / 5


def test_every_cell_of_four_levels_speaks() -> None:
    cells = answered()
    counts = [8 * 12, 4 * 6, 2 * 3, 1 * 2]
    assert cells.scores.shape == (2, sum(counts))
    assert cells.stride.tolist() == [float(s) for s, n in zip(STRIDES, counts, strict=True) for _ in range(n)]
    assert cells.masks.shape == (2, DEEP, 16, 24)


def test_places_are_the_middles_of_cells() -> None:
    at, _ = locate_cells([(2, 3), (1, 2), (1, 1), (1, 1)])
    assert at[:6].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert at[6:].tolist() == [[8, 8], [24, 8], [16, 16], [32, 32]]


def by_hand(cells: CellPredictions, b: int, n: int) -> Tensor:
    """CondInst 3.1, cell by cell: three 1 x 1 convolutions of the mask features and the place beside the cell."""
    kernel = cells.kernels[b, n]
    first, kernel = kernel[: DEEP * (DEEP + 2)].view(DEEP, DEEP + 2), kernel[DEEP * (DEEP + 2) :]
    bias_1, second, kernel = (
        kernel[:DEEP],
        kernel[DEEP : DEEP + DEEP * DEEP].view(DEEP, DEEP),
        kernel[DEEP + DEEP * DEEP :],
    )
    bias_2, third, bias_3 = kernel[:DEEP], kernel[DEEP : 2 * DEEP], kernel[2 * DEEP]
    h, w = cells.masks.shape[2:]
    out = torch.zeros(h, w)
    for y in range(h):
        for x in range(w):
            place = (torch.tensor([4 * x + 2.0, 4 * y + 2.0]) - cells.at[n]) / (cells.stride[n] * REACH)
            value = torch.cat([cells.masks[b, :, y, x], place])
            value = (second @ (first @ value + bias_1).relu() + bias_2).relu()
            out[y, x] = third @ value + bias_3
    return out


@pytest.mark.parametrize("n", [0, 100, 127])
def test_a_cells_mask_is_the_small_network_that_it_tells(n: int) -> None:
    cells = answered()
    made = head().masks(cells, 1, torch.tensor([3, n]))
    assert (made[1] - by_hand(cells, 1, n)).abs().max() < 1e-4
    assert (made[1] - made[0]).abs().max() > 0.01


def test_many_masks_are_those_of_their_cells_in_their_order() -> None:
    cells, chosen = answered(), torch.randperm(128, generator=torch.Generator().manual_seed(0))[: 2 * AT_ONCE + 3]
    made = head().masks(cells, 1, chosen)
    for n in (0, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 2):
        assert (made[n] - by_hand(cells, 1, int(chosen[n]))).abs().max() < 1e-3


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    both, chosen = answered(), torch.tensor([5, 50])
    torch.manual_seed(1)
    keys, detail, images = torch.randn(2, 128, 8, 12), torch.randn(2, 24, 8, 12), torch.randn(2, 3, *SIZE)
    middle, last = deeper()
    alone = head()(keys[1:] / 8, detail[1:] / 5, (middle[1:], last[1:]), images[1:])
    assert torch.allclose(both.scores[1], alone.scores[0], atol=1e-4)
    masks = head().masks(both, 1, chosen)
    assert torch.allclose(masks, head().masks(alone, 0, chosen), rtol=1e-4, atol=1e-3)
    assert torch.allclose(head().names(both, 1, chosen, masks), head().names(alone, 0, chosen, masks), atol=1e-3)


def test_names_are_told_from_what_lies_under_the_mask() -> None:
    cells, chosen = answered(), torch.tensor([5])
    left, right = torch.full((1, 16, 24), -9.0), torch.full((1, 16, 24), -9.0)
    left[:, :, :12], right[:, :, 12:] = 9.0, 9.0
    assert (head().names(cells, 0, chosen, left) - head().names(cells, 0, chosen, right)).abs().max() > 1e-3


def test_what_the_encoder_knows_at_coarse_strides_counts() -> None:
    torch.manual_seed(1)
    keys, detail, images = torch.randn(1, 128, 8, 12) / 8, torch.randn(1, 24, 8, 12) / 5, torch.randn(1, 3, *SIZE)
    middle, last = deeper(1)
    cells = head()(keys, detail, (middle, last), images)
    masks, chosen = torch.full((1, 16, 24), 9.0), torch.tensor([5])
    for other in ((2 * middle, last), (middle, 2 * last)):
        changed = head()(keys, detail, other, images)
        assert (changed.scores - cells.scores).abs().max() > 1e-4
        assert (head().names(changed, 0, chosen, masks) - head().names(cells, 0, chosen, masks)).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(64, 96), (72, 88), (64, 8 * 13)])
def test_sides_need_not_be_multiples_of_the_largest_stride(size: tuple[int, int]) -> None:
    cells = answered(1, size)
    assert head().masks(cells, 0, torch.tensor([0])).shape == (1, size[0] // 4, size[1] // 4)


def test_no_cell_gives_no_mask_and_no_name() -> None:
    cells, none = answered(), torch.zeros(0, dtype=torch.int64)
    masks = head().masks(cells, 0, none)
    assert masks.shape == (0, 16, 24)
    assert head().names(cells, 0, none, masks).shape == (0, 5)
