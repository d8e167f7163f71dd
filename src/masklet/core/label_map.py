"""Masks of which no two share a pixel, as one image of numbers: a hundred cost little more than one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

from masklet.core.rle import Rle, encode_label_image


@dataclass(frozen=True, eq=False)
class LabelMap(Mapping[int, Bool[Tensor, "h w"]]):
    """Masks by id, no pixel twice. A mask is made when it is asked for.

    >>> masks = LabelMap((7, 9), np.array([[0, 1], [2, 2]], np.int32))
    >>> masks[9].tolist(), masks.areas.tolist()
    ([[False, False], [True, True]], [1, 2])
    """

    ids: tuple[int, ...]
    rows: Int32[np.ndarray, "h w"]  # 1 + the place in `ids` of whose pixel it is; 0: nobody's

    @staticmethod
    def paint(
        masks: Bool[Tensor, "n h w"], rows: Sequence[int], order: Callable[[int, int], tuple[int, int]]
    ) -> LabelMap:
        """The masks in some `rows`, painted over each other; ids are their rows.

        Args:
            masks: of one size; they may overlap.
            rows: the masks that are painted.
            order: from a mask's area in pixels and its row to what it is sorted by; the greatest lies in front.
        """
        images, canvas = masks.contiguous().cpu().numpy(), np.zeros(tuple(masks.shape[1:]), np.int32)
        boxes = {row: find_mask_slices(images[row]) for row in rows}
        areas = {row: int(np.count_nonzero(images[row][box])) for row, box in boxes.items()}
        places = {row: place for place, row in enumerate(rows, start=1)}
        for row in sorted(rows, key=lambda row: order(areas[row], row)):
            there = boxes[row]
            canvas[there][images[row][there]] = places[row]
        return LabelMap(tuple(rows), canvas)

    @staticmethod
    def empty(size: tuple[int, int]) -> LabelMap:
        """No mask in a frame of `size` (h, w)."""
        return LabelMap((), np.zeros(size, np.int32))

    def __getitem__(self, id: int) -> Bool[Tensor, "h w"]:
        number, mask = self._numbers[id], np.zeros(self.size, bool)
        there = self.boxes[number - 1]
        mask[there] = self.rows[there] == number
        return torch.from_numpy(mask)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: object) -> bool:
        return id in self._numbers

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the image, in pixels."""
        return self.rows.shape[0], self.rows.shape[1]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id: number for number, id in enumerate(self.ids, start=1)}

    @cached_property
    def areas(self) -> Int64[np.ndarray, " n"]:
        """Pixels of each mask, in the order of `ids`."""
        return np.bincount(self.rows.ravel(), minlength=len(self) + 1)[1:]

    def count_common(self, other: LabelMap) -> Int64[np.ndarray, "n m"]:
        """The number of pixels that each of these masks shares with each of the `other` ones of the same size."""
        n, m = len(self) + 1, len(other) + 1
        pairs = self.rows.ravel().astype(np.int64) * m + other.rows.ravel()
        return np.bincount(pairs, minlength=n * m).reshape(n, m)[1:, 1:]

    def relabel(self, ids: Sequence[int]) -> LabelMap:
        """The masks of these `ids` alone, in this order; one that is not here is empty."""
        places = {id: place for place, id in enumerate(ids, start=1)}
        return LabelMap(tuple(ids), self.look_up([places.get(id, 0) for id in self.ids]))

    def renumber(self, first: int = 0) -> LabelMap:
        """The same masks under ids that count from `first`."""
        return LabelMap(tuple(range(first, first + len(self))), self.rows)

    def look_up(self, values: Sequence[int]) -> Int32[np.ndarray, "h w"]:
        """An image of the value of the mask that each pixel is in; 0 where it is in none."""
        return np.array([0, *values], np.int32).take(self.rows, mode="clip")

    def stack(self) -> Bool[Tensor, "n h w"]:
        """All masks as one tensor."""
        out = np.zeros((len(self), *self.rows.shape), bool)
        for row, there in enumerate(self.boxes):
            out[row][there] = self.rows[there] == row + 1
        return torch.from_numpy(out)

    @cached_property
    def boxes(self) -> list[tuple[slice, slice]]:
        """The rows and columns of each mask's box; both are empty where the mask is."""
        from scipy.ndimage import find_objects  # a third of a second, which only those pay who ask

        nowhere = slice(0), slice(0)
        return [box or nowhere for box in find_objects(self.rows, len(self))] if len(self) else []

    def encode(self) -> dict[int, Rle]:
        """Every mask as RLE, by the number that it has in the map."""
        return dict(zip(self.ids, encode_label_image(self.rows, len(self)), strict=True))


def paint_in_front(layers: Sequence[tuple[LabelMap, Sequence[int]]], size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """The greatest number of all masks that each pixel of `size` (h, w) is in.

    Args:
        layers: masks, and a number of each; who has a greater one lies in front, who has 0 is not painted.
        size: of all of them.
    """
    canvas = np.zeros(size, np.int32)
    for masks, numbers in layers:
        np.maximum(canvas, masks.look_up(numbers), out=canvas)
    return canvas


def find_mask_slices(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """The rows and columns of a mask's box; both are empty where the mask is.

    >>> find_mask_slices(np.array([[0, 0, 0], [0, 1, 1]], bool))
    (slice(1, 2, None), slice(1, 3, None))
    """
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return slice(y, y + h), slice(x, x + w)


def rank_small_in_front(area: int, row: int) -> tuple[int, int]:
    """Paints small masks over large ones; of equal ones the first lies in front."""
    return -area, -row


def rank_small_in_front_last(area: int, row: int) -> tuple[int, int]:
    """Paints small masks over large ones; of equal ones the last lies in front."""
    return -area, row
