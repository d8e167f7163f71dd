"""Masks that stay on the device where they were made until they are run lengths: one small copy comes back a frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int32
from pycocotools import mask as coco
from torch import Tensor

from masklet.core.masks import resize_bilinear
from masklet.core.rle import Rle

AT_ONCE = 16  # masks that are resized together: as many float maps of the frame's size are held


def encode_masks(masks: Bool[Tensor, "n h w"]) -> list[Rle]:
    """The run lengths of masks. On a CPU they are encoded one by one; elsewhere runs are found there, and where they
    begin and end is copied, of all masks at once.

    >>> [rle.area for rle in encode_masks(torch.ones(2, 3, 4, dtype=torch.bool))]
    [12, 12]
    """
    if masks.device.type == "cpu":
        return [Rle.encode(mask) for mask in masks]
    rows, edges = (column.numpy() for column in find_mask_edges(masks).cpu().T)
    size = int(masks.shape[1]), int(masks.shape[2])
    starts = np.searchsorted(rows, np.arange(len(masks) + 1))
    return [encode_mask_edges(edges[a:b], size) for a, b in pairwise(starts)]


def find_mask_edges(masks: Bool[Tensor, "n h w"]) -> Int32[Tensor, "e 2"]:
    """Where each mask, read column by column, begins to differ from the pixel before (outside, before the first): the
    mask's row and the pixel's number, in this order.
    """
    columns = masks.transpose(1, 2).flatten(1)
    before = nnf.pad(columns[:, :-1], (1, 0))
    return (columns ^ before).nonzero().to(torch.int32)


def encode_mask_edges(edges: Int32[np.ndarray, " e"], size: tuple[int, int]) -> Rle:
    """The mask of `size` (h, w) whose pixels change at these `edges`, read column by column."""
    runs = np.diff(edges, prepend=0, append=size[0] * size[1])
    return Rle(size, coco.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)["counts"])


def fetch_masks(masks: Bool[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """The masks on the CPU; on the way eight pixels are one byte."""
    if masks.device.type == "cpu" or not masks.numel():
        return masks.cpu()
    pixels = masks.flatten(1)
    bits = nnf.pad(pixels, (0, -pixels.shape[1] % 8)).view(len(masks), -1, 8)
    weights = (2 ** torch.arange(7, -1, -1, device=masks.device)).to(torch.uint8)
    packed = (bits * weights).sum(2, dtype=torch.uint8).cpu().numpy()
    unpacked = np.unpackbits(packed, axis=1, count=pixels.shape[1]).view(bool)
    return torch.from_numpy(unpacked).view(masks.shape)


def threshold_maps(maps: Float[Tensor, "n h w"], rows: Sequence[int], size: tuple[int, int]) -> Bool[Tensor, "n h2 w2"]:
    """Where the maps, resized to `size` (h, w), are above 0, on their device; of others than these `rows` nowhere."""
    masks = torch.zeros(len(maps), *size, dtype=torch.bool, device=maps.device)
    for some in torch.split(torch.tensor(rows, dtype=torch.int64), AT_ONCE) if len(rows) else ():
        masks[some] = resize_bilinear(maps[some], size) > 0
    return masks


def paint_maps(maps: Float[Tensor, "n h w"], rows: Sequence[int], size: tuple[int, int]) -> Int32[np.ndarray, "h2 w2"]:
    """Of every pixel of an image of `size` (h, w) 1 + the row of the greatest of the maps that are above 0 there, 0
    where none is; only these `rows` count. One copy comes back.
    """
    greatest = torch.zeros(size, device=maps.device)
    painted = torch.zeros(size, dtype=torch.int32, device=maps.device)
    for some in torch.split(torch.tensor(rows, dtype=torch.int64), AT_ONCE) if len(rows) else ():
        values, which = resize_bilinear(maps[some], size).max(0)
        numbers = some.to(maps.device, torch.int32)[which] + 1
        painted, greatest = torch.where(values > greatest, numbers, painted), torch.maximum(greatest, values)
    found: Int32[np.ndarray, "h2 w2"] = painted.cpu().numpy()
    return found
