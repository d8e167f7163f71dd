"""Masks as pixels (bool tensors, while their frame is at hand) and as run lengths (when they outlive it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64, Num
from pycocotools import mask as coco
from torch import Tensor


@dataclass(frozen=True)
class Rle:
    """One mask as COCO run lengths: column-major, compressed, about 1 kB at 1080p."""

    size: tuple[int, int]  # h, w
    counts: bytes

    @staticmethod
    def encode(mask: Bool[Tensor, "h w"]) -> Rle:
        """The run lengths of a mask."""
        # The transpose of a C-ordered array is the Fortran-ordered one that COCO wants, at no copy.
        columns = mask.T.contiguous().cpu().numpy().view(np.uint8).T
        code = coco.encode(columns)
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
        return torch.from_numpy(coco.decode(self._coco).view(bool))

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
    return torch.tensor(sorted(kept), dtype=torch.int64)


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
