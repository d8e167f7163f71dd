"""Masks as pixels: bool tensors, while their frame is at hand (`core.rle` has them as run lengths)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64, Num, UInt8, UInt64
from torch import Tensor

from masklet.core.label_map import LabelMap, find_mask_slices, rank_small_in_front
from masklet.core.rle import Rle, encode_run_edges

WORD = 64  # pixels


def mask_iou(
    a: Bool[Tensor, "n h w"], b: Bool[Tensor, "m h w"] | Sequence[Bool[Tensor, "h w"]]
) -> Float[Tensor, "n m"]:
    """Mask IoU of every pair. Two empty masks have 0, as in COCO (DAVIS's J calls the same case 1).

    Masks that lie in several places, as in a list, are not copied into one tensor on a CPU.
    """
    if a.device.type != "cpu":
        b = b if isinstance(b, Tensor) else stack_masks(b, (a.shape[1], a.shape[2])).to(a.device)
        return _divide_counts(a.flatten(1).float() @ b.flatten(1).float().T, a.flatten(1).sum(1), b.flatten(1).sum(1))
    x, y = PackedMasks.of(a, range(len(a))), PackedMasks.of(b, range(len(b)))
    both = np.zeros((len(a), len(b)), np.int64)
    for row, near in enumerate(x.touches(y)):
        if near.any():
            both[row, near] = y.count_common(np.flatnonzero(near), x, row)
    return _divide_counts(torch.from_numpy(both).float(), torch.from_numpy(x.areas), torch.from_numpy(y.areas))


def compute_mutual_mask_iou(masks: Bool[Tensor, "n h w"], rows: Sequence[int]) -> Float[Tensor, "k k"]:
    """Mask IoU of every two of the masks in some `rows`: `mask_iou` with themselves, in half the time."""
    if masks.device.type != "cpu":
        return mask_iou(masks[list(rows)], masks[list(rows)])
    both = count_common_pixels(masks, rows)
    areas = both.diagonal()
    return _divide_counts(both.float(), areas, areas)


def count_common_pixels(
    masks: Bool[Tensor, "n h w"] | Sequence[Bool[Tensor, "h w"]], rows: Sequence[int]
) -> Int64[Tensor, "k k"]:
    """How many pixels every two of the masks in some `rows` share, on a CPU; on the diagonal their areas.

    >>> count_common_pixels(torch.tensor([[[True, True]], [[False, True]]]), [0, 1]).tolist()
    [[2, 1], [1, 1]]
    """
    x = PackedMasks.of(masks, rows)
    both, near = np.diag(x.areas), np.triu(x.touches(x), 1)
    for n in range(len(rows)):
        both[n, near[n]] = both[near[n], n] = x.count_common(np.flatnonzero(near[n]), x, n)
    return torch.from_numpy(both)


def _divide_counts(both: Float[Tensor, "n m"], a: Int64[Tensor, " n"], b: Int64[Tensor, " m"]) -> Float[Tensor, "n m"]:
    """IoU, by the pixels that two masks share and by the areas of each."""
    return both / (a[:, None] + b[None] - both).clamp(min=1)


@dataclass(frozen=True)
class PackedMasks:
    """Masks of one size, 64 pixels of a row in a word."""

    words: UInt64[np.ndarray, "n h k"]
    boxes: Int64[np.ndarray, "n 4"]  # x0, y0, x1, y1; y in rows, x in words; of an empty mask all are 0
    areas: Int64[np.ndarray, " n"]

    @staticmethod
    def of(masks: Bool[Tensor, "n h w"] | Sequence[Bool[Tensor, "h w"]], rows: Sequence[int]) -> PackedMasks:
        """Packs what lies in the box of each mask of some `rows`."""
        images = [masks[n].contiguous().numpy() for n in rows]
        h, w = images[0].shape if images else (0, 0)  # of none the size does not matter: they touch nothing
        words, boxes = np.zeros((len(rows), h, -(-w // WORD)), np.uint64), np.zeros((len(rows), 4), np.int64)
        for row, mask in enumerate(images):
            y, x = find_mask_slices(mask)
            start = x.start // WORD * WORD
            bits = np.packbits(mask[y, start : x.stop], axis=1, bitorder="little")
            words[row].view(np.uint8)[y, start // 8 : start // 8 + bits.shape[1]] = bits
            boxes[row] = start // WORD, y.start, -(-x.stop // WORD), y.stop
        areas = [np.bitwise_count(one[y0:y1, x0:x1]).sum() for one, (x0, y0, x1, y1) in zip(words, boxes, strict=True)]
        return PackedMasks(words, boxes, np.array(areas, np.int64))

    def touches(self, other: PackedMasks) -> Bool[np.ndarray, "n m"]:
        """Whose boxes share a word; nothing else can share a pixel."""
        low = np.maximum(self.boxes[:, None, :2], other.boxes[None, :, :2])
        high = np.minimum(self.boxes[:, None, 2:], other.boxes[None, :, 2:])
        return np.asarray((low < high).all(2))

    def count_common(self, rows: Int64[np.ndarray, " k"], other: PackedMasks, row: int) -> Int64[np.ndarray, " k"]:
        """The number of pixels that each of some masks shares with one of the `other`, which is looked at alone."""
        x0, y0, x1, y1 = other.boxes[row]
        common = self.words[rows, y0:y1, x0:x1] & other.words[row, y0:y1, x0:x1]
        return np.asarray(np.bitwise_count(common).sum((1, 2), dtype=np.int64))


def mask_nms(
    masks: Bool[Tensor, "n h w"], scores: Float[Tensor, " n"], iou: float, among: Bool[Tensor, " n"] | None = None
) -> Int64[Tensor, " k"]:
    """Non-maximum suppression: a mask goes when a kept one of higher score overlaps it by a mask IoU above `iou`.

    Args:
        masks: of one frame.
        scores: any numbers.
        iou: 0 to 1.
        among: the masks that are looked at, without a copy of them; None: all.

    Returns:
        Row numbers of the masks to keep, ascending.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order if among is None else order[among[order]]
    twins = compute_mutual_mask_iou(masks, order.tolist()) > iou
    kept: list[int] = []
    for n in range(len(order)):
        if not twins[n, kept].any():
            kept.append(n)
    return order[kept].sort().values


def matrix_nms(masks: Bool[Tensor, "n h w"], scores: Float[Tensor, " n"], sharpness: float) -> Float[Tensor, " n"]:
    """The `scores` of `masks`, less where a mask of higher score overlaps theirs, unless that one is itself overlapped
    as much.

    SOLOv2 3.3 (Wang et al. 2020, arXiv:2003.10152), Gaussian: by exp(-sharpness * (IoU^2 - most^2)) at the worst.
    """
    order = scores.argsort(descending=True, stable=True)
    iou = compute_mutual_mask_iou(masks, order.tolist()).triu(1)  # row: the better one
    most = iou.amax(0) if len(masks) else iou.new_zeros(0)
    lessened = torch.exp(-sharpness * (iou**2 - most[:, None] ** 2)).clamp(max=1)
    out = scores.clone()
    out[order] = scores[order] * (lessened.amin(0) if len(masks) else most)
    return out


def resolve_overlaps_by_area(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Removes overlaps: a pixel goes to the smallest of the masks that claim it, on a tie to the first."""
    return LabelMap.paint(masks, range(len(masks)), rank_small_in_front).stack()


def resize_bilinear(maps: Num[Tensor, "n h w"], size: tuple[int, int]) -> Float[Tensor, "n h2 w2"]:
    """Bilinear resize of float maps to `size` (h, w), pixel centres aligned."""
    if tuple(maps.shape[-2:]) == size or len(maps) == 0:
        return maps.new_zeros(len(maps), *size).float() if len(maps) == 0 else maps.float()
    return nnf.interpolate(maps[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def resize_above_zero(
    maps: Sequence[Float[Tensor, "h w"]], size: tuple[int, int]
) -> Iterator[tuple[int, tuple[slice, slice], Float[Tensor, "y x"]]]:
    """Float maps as `resize_bilinear` makes them, but each only in the window in which it can be above 0.

    Args:
        maps: all of one size.
        size: (h, w).

    Yields:
        The row of a map that is somewhere above 0, the window of rows and columns, and the values in it.
    """
    if not maps:
        return
    ys, xs = (ResizedAxis.between(old, new) for old, new in zip(maps[0].shape, size, strict=True))
    inside = np.zeros(tuple(maps[0].shape), bool)
    for row, one in enumerate(one.detach().cpu().float() for one in maps):
        y, x = find_mask_slices(np.greater(one.numpy(), 0, out=inside))
        if y.stop:
            there = ys.reach(y), xs.reach(x)
            yield row, there, ys.mix(xs.mix(one[ys.needed(there[0])], there[1], 1), there[0], 0)


@dataclass(frozen=True)
class ResizedAxis:
    """One axis of a bilinear resize, pixel centres aligned, to the last bit as torch computes it."""

    low: Int64[Tensor, " n"]  # the two places that each new one lies between, ascending
    high: Int64[Tensor, " n"]
    share: Float[Tensor, " n"]  # of the second

    @staticmethod
    def between(old: int, new: int) -> ResizedAxis:
        """The axis of `old` places as one of `new` places."""
        if old == new:
            return ResizedAxis(torch.arange(new), torch.arange(new), torch.zeros(new))
        middle = (np.arange(new) + 0.5) * float(np.float32(old) / np.float32(new)) - 0.5
        place = torch.from_numpy(middle.astype(np.float32)).clamp(min=0)
        low = place.long().clamp(max=old - 1)
        return ResizedAxis(low, (low + 1).clamp(max=old - 1), (place - low).clamp(0, 1))

    def reach(self, old: slice) -> slice:
        """The new places that lie between two of which one is in `old`."""
        start, stop = torch.searchsorted(self.high, old.start), torch.searchsorted(self.low, old.stop)
        return slice(int(start), int(stop))

    def needed(self, new: slice) -> slice:
        """The old places that some new ones lie between."""
        return slice(int(self.low[new.start]), int(self.high[new.stop - 1]) + 1)

    def mix(self, maps: Float[Tensor, "h w"], new: slice, axis: int) -> Float[Tensor, "y x"]:
        """Some `new` places along an `axis` of a map, which may begin at the first row that they need."""
        low, high, share = self.low[new], self.high[new], self.share[new]
        begin = int(low[0]) if axis == 0 else 0
        share = share[:, None] if axis == 0 else share
        second = maps.index_select(axis, high - begin) * share
        return torch.addcmul(second, maps.index_select(axis, low - begin), 1 - share)


def pack_bits(masks: Bool[Tensor, "n h w"]) -> UInt8[np.ndarray, "n h b"]:
    """Masks in an eighth of the memory, 8 pixels of a row in a byte.

    >>> pack_bits(torch.tensor([[[False, True, False]]])).tolist()
    [[[64]]]
    """
    packed = np.empty((*masks.shape[:2], -(-masks.shape[2] // 8)), np.uint8)
    for mask, out in zip(masks.cpu().numpy(), packed, strict=True):
        out[:] = np.packbits(mask, axis=1)
    return packed


def unpack_bits(packed: UInt8[np.ndarray, "n h b"], width: int) -> Bool[Tensor, "n h w"]:
    """The masks, `width` pixels across, that `pack_bits` packed."""
    masks = np.empty((*packed.shape[:2], width), np.uint8)
    for bits, out in zip(packed, masks, strict=True):
        out[:] = np.unpackbits(bits, axis=1, count=width)
    return torch.from_numpy(masks.view(bool))


def has_pixels(mask: Bool[Tensor, "h w"]) -> bool:
    """Whether a mask is not empty. On a CPU numpy finds that out in a thirtieth of torch's time.

    >>> has_pixels(torch.tensor([[False, True]])), has_pixels(torch.zeros(2, 3, dtype=torch.bool))
    (True, False)
    """
    return bool(mask.numpy().any() if mask.device.type == "cpu" else mask.any())


def find_nonempty(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, " n"]:
    """Which masks have pixels, on their device.

    >>> find_nonempty(torch.tensor([[[False, True]], [[False, False]]]))
    tensor([ True, False])
    """
    if masks.device.type != "cpu":
        return masks.flatten(1).any(1)
    return torch.tensor([has_pixels(mask) for mask in masks], dtype=torch.bool)


def stack_masks(masks: Sequence[Bool[Tensor, "h w"]], size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """One tensor of any number of masks of `size` (h, w), also of none."""
    return torch.stack(list(masks)) if masks else torch.zeros(0, *size, dtype=torch.bool)


def encode_masks(masks: Bool[Tensor, "n h w"]) -> list[Rle]:
    """The run lengths of masks. On a GPU they are found there: what is copied are the ends of the runs of all masks
    together, not their pixels.

    >>> [mask.area for mask in encode_masks(torch.tensor([[[True, False]], [[True, True]]]))]
    [1, 2]
    """
    if masks.device.type == "cpu":
        return [Rle.encode(mask) for mask in masks]
    owners, places = find_run_edges(masks).cpu().numpy().T
    return encode_run_edges(owners, places, len(masks), (masks.shape[1], masks.shape[2]))


def find_run_edges(masks: Bool[Tensor, "n h w"]) -> Int64[Tensor, "e 2"]:
    """Where runs begin and end, in turn: the number of the mask, and of the pixel, column by column, that is the first
    of a run or the first after it; on the device of the masks.

    >>> find_run_edges(torch.tensor([[[False, True], [False, True]]])).tolist()
    [[0, 2], [0, 4]]
    """
    pixels = nnf.pad(masks.transpose(1, 2).flatten(1), (1, 1))
    return (pixels[:, 1:] != pixels[:, :-1]).nonzero()


def reduce_mask(mask: Bool[Tensor, "h w"], size: tuple[int, int]) -> Bool[Tensor, "a b"]:
    """A mask at another `size` (h, w): each pixel is that of the mask which its middle lies in.

    >>> reduce_mask(torch.tensor([[True, True, False, False]]), (1, 2)).tolist()
    [[True, False]]
    """
    rows, columns = (((torch.arange(n) + 0.5) * (whole / n)).long() for n, whole in zip(size, mask.shape, strict=True))
    return mask[rows[:, None], columns[None]]
