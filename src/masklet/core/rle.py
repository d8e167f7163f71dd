"""Masks as run lengths, which is how they outlive their frame. Without torch: scores and exports need none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64
from pycocotools import mask as coco

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rle:
    """One mask as COCO run lengths: column-major, compressed, about 1 kB at 1080p."""

    size: tuple[int, int]  # h, w
    counts: bytes

    @staticmethod
    def encode(mask: Bool[Tensor, "h w"]) -> Rle:
        """The run lengths of a mask."""
        return Rle.encode_pixels(mask.T.contiguous().cpu().numpy().T)  # turned where the mask is: on a GPU this is fast

    @staticmethod
    def encode_pixels(pixels: Bool[np.ndarray, "h w"]) -> Rle:
        """The run lengths of a mask that is a numpy array."""
        code = coco.encode(np.asfortranarray(pixels).view(np.uint8))
        return Rle((int(code["size"][0]), int(code["size"][1])), code["counts"])

    @staticmethod
    def checked(size: tuple[int, int], counts: bytes) -> Rle:
        """Run lengths from outside. Raises ValueError where they are not those of a mask of `size` (h, w)."""
        runs = decode_rle_counts(counts)
        if (runs < 0).any() or runs.sum() != size[0] * size[1]:
            raise ValueError(f"run lengths fill {runs.sum()} pixels, not the {size[1]}x{size[0]} of the frame")
        return Rle(size, counts)

    def decode(self) -> Bool[Tensor, "h w"]:
        """Decodes the RLE into a mask of `size` on the CPU."""
        import torch  # here, so that those who need pixels only do not load it

        return torch.from_numpy(self.decode_pixels())

    def decode_pixels(self) -> Bool[np.ndarray, "h w"]:
        """Decodes the RLE into a numpy array of `size`."""
        return np.asarray(coco.decode(self._coco).view(bool))

    @property
    def area(self) -> int:
        """The number of pixels in the mask, counted without decoding."""
        return int(coco.area(self._coco))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels; x1 and y1 are one past the last."""
        x, y, w, h = (int(v) for v in coco.toBbox(self._coco))
        return x, y, x + w, y + h

    def iou(self, other: Rle) -> float:
        """Intersection over union with a mask of the same size; 0 where both are empty, as in COCO."""
        return float(compute_rle_iou([self], [other])[0, 0])

    def overlap(self, other: Rle) -> int:
        """The number of pixels that are both in this mask and in `other`, a mask of the same size."""
        return int(coco.area(coco.merge([self._coco, other._coco], intersect=True)))

    @property
    def _coco(self) -> dict[str, object]:
        return {"size": list(self.size), "counts": self.counts}


def decode_rle_counts(counts: bytes) -> Int64[np.ndarray, " n"]:
    """The runs in COCO's compressed form: five bits a character, the sixth says "more follows", the last digit
    carries the sign; from the fourth run on, the difference to the run before last is stored.

    Raises ValueError where it is no such form (pycocotools would read beyond its memory).
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(digits) or (digits < 0).any() or (digits > 63).any() or digits[-1] & 32:
        raise ValueError(f"{counts[:20]!r} are no COCO run lengths")
    ends = np.flatnonzero(digits < 32)
    starts = np.append(0, ends[:-1] + 1)
    places = 5 * (np.arange(len(digits)) - np.repeat(starts, ends - starts + 1))
    if places.max() > 30:
        raise ValueError(f"{counts[:20]!r} are no COCO run lengths")
    runs = np.add.reduceat((digits & 31) << places, starts)
    runs -= np.where(digits[ends] & 16, np.int64(1) << places[ends] + 5, 0)
    for side in (runs[1::2], runs[2::2]):
        np.cumsum(side, out=side)
    return runs


def compute_rle_iou(a: Sequence[Rle], b: Sequence[Rle]) -> Float[np.ndarray, "n m"]:
    """Mask IoU of every pair, without decoding."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return np.asarray(coco.iou([r._coco for r in a], [r._coco for r in b], [0] * len(b)))


def paint_mask_numbers(masks: Sequence[Rle], size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """Which of the `masks` of `size` (h, w) has each pixel: its number, from 1 on; 0 where there is none. A pixel that
    several claim goes to the smallest of them, on a tie to the first.

    >>> left, row = (Rle.encode_pixels(np.array(m, bool)) for m in ([[1, 0], [1, 0], [1, 0]], [[1, 1], [0, 0], [0, 0]]))
    >>> paint_mask_numbers([left, row], (3, 2)).tolist()
    [[2, 2], [1, 0], [1, 0]]
    """
    numbers = np.zeros(size, np.int32)
    for row in sorted(range(len(masks)), key=lambda n: (masks[n].area, n), reverse=True):
        numbers[masks[row].decode_pixels()] = row + 1
    return numbers
