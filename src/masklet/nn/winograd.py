"""3 x 3 convolutions with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3) (Lavin and Gray 2016,
arXiv:1509.09308, section 4.3).

Tiles of 6 x 6 pixels, each 4 further on than the last, and the filters are transformed into 36 coefficients, in which
a convolution is a product for each; the products are transformed back into tiles of 4 x 4. Between channels, where
nearly all of the work is, these are 36 products of matrices. Equal to the convolution but for rounding (1e-5 of the
largest answer). Filters are transformed anew at every call: kept, they would take four times the memory of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.quick_linear import multiply_by_transposed

LINE = 16  # numbers of a cache line: products of matrices of so many columns, or twice as many, are quicker
TILE, STEP = 6, 4  # pixels of a tile, and from one to the next
COEFFICIENTS = TILE**2
LEAST_CHANNELS = 256  # on both sides: with fewer, transforms take as long as the products spare
LEAST_CELLS = 1000  # of the maps: with fewer, the filters take as long as the tiles
BLOCK = 2**22  # numbers of tiles, and of filters, that are transformed at once: what a large cache holds


def build_square_transform(rows: Sequence[Sequence[float]]) -> Float[Tensor, "m n"]:
    """The transform of a square, written row by row, by that of one of its sides (`rows`)."""
    one = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(one, one).float()


TILE_TRANSFORM = build_square_transform(
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    )
)
FILTER_TRANSFORM = build_square_transform(
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    )
)
INVERSE_TRANSFORM = build_square_transform(
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
)


def suits_winograd(conv: nn.Conv2d, x: Float[Tensor, "b c h w"]) -> bool:
    """Whether a convolution of `x` takes less time so."""
    shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    large = min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS and x[:, 0].numel() >= LEAST_CELLS
    return large and shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and conv.padding_mode == "zeros"


def convolve_by_winograd(
    x: Float[Tensor, "b c h w"], weight: Float[Tensor, "d c 3 3"], bias: Float[Tensor, " d"] | None = None
) -> Float[Tensor, "b d h w"]:
    """What a convolution makes of `x` with zeros around it, in channels_last.

    >>> x, weight = torch.ones(1, 1, 2, 3), torch.ones(1, 1, 3, 3)
    >>> convolve_by_winograd(x, weight, torch.ones(1)).round().tolist()
    [[[[5.0, 7.0, 5.0], [5.0, 7.0, 5.0]]]]
    """
    tiles, (h, w), (d, c) = view_tiles(x), x.shape[2:], weight.shape[:2]
    images, rows, columns = tiles.shape[2:5]
    out = x.new_empty(images, rows * STEP, columns * STEP, d)
    answers = out.view(images, rows, STEP, columns, STEP, d)
    at_once = max(BLOCK // (COEFFICIENTS * c) // LINE, 1) * LINE  # filters

    @lru_cache(maxsize=1)  # those of a small layer once for all tiles
    def transform_some(first: int) -> Float[Tensor, "k d1 c"]:
        return transform_filters(weight[first : first + at_once])

    for here in split_tiles(images, rows, columns * COEFFICIENTS * c):
        coefficients = transform_tiles(tiles[:, :, *here])
        for first in range(0, d, at_once):
            back = invert_transform(multiply_coefficients(coefficients, transform_some(first)))
            there = answers[*here, ..., first : first + at_once]
            there.copy_(back.view(STEP, STEP, *there.shape[:2], columns, -1).permute(2, 3, 0, 4, 1, 5))
    found = out[:, :h, :w].permute(0, 3, 1, 2)
    return found if bias is None else found.add_(bias[:, None, None])


def view_tiles(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "6 6 b r s c"]:
    """The tiles of each image, `r` rows of `s`: its pixels and a border of zeros."""
    b, c, h, w = x.shape
    rows, columns = -(-h // STEP), -(-w // STEP)
    padded = x.new_zeros(b, rows * STEP + 2, columns * STEP + 2, c)
    padded[:, 1 : h + 1, 1 : w + 1] = x.permute(0, 2, 3, 1)
    image, line, pixel, _ = padded.stride()
    return padded.as_strided((TILE, TILE, b, rows, columns, c), (line, pixel, image, STEP * line, STEP * pixel, 1))


def split_tiles(images: int, rows: int, numbers: int) -> Iterator[tuple[slice, slice]]:
    """Images and rows of tiles that are transformed together; a row has so many `numbers` then."""
    together = max(BLOCK // (rows * numbers), 1), max(BLOCK // numbers, 1)
    for image in range(0, images, together[0]):
        for row in range(0, rows, together[1]):
            yield slice(image, image + together[0]), slice(row, row + together[1])


def transform_tiles(tiles: Float[Tensor, "6 6 b r s c"]) -> Float[Tensor, "k m c"]:
    """The coefficients of tiles."""
    return (TILE_TRANSFORM @ tiles.reshape(COEFFICIENTS, -1)).view(COEFFICIENTS, -1, tiles.shape[-1])


def transform_filters(weight: Float[Tensor, "d c 3 3"]) -> Float[Tensor, "k d c"]:
    """The coefficients of filters."""
    return (FILTER_TRANSFORM @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(COEFFICIENTS, *weight.shape[:2])


def multiply_coefficients(tiles: Float[Tensor, "k m c"], filters: Float[Tensor, "k d c"]) -> Float[Tensor, "k m d"]:
    """The product of each coefficient of tiles with the same of filters."""
    products = tiles.new_empty(*tiles.shape[:2], filters.shape[1])
    for product, tile, kernel in zip(products, tiles, filters, strict=True):
        product.copy_(multiply_by_transposed(tile, kernel))
    return products


def invert_transform(products: Float[Tensor, "k m d"]) -> Float[Tensor, "16 md"]:
    """The pixels of tiles by their coefficients, without the border, row by row."""
    return INVERSE_TRANSFORM @ products.flatten(1)
