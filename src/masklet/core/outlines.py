"""Masks as polygons along the edges of their pixels: what COCO's rule draws of them is the mask, to the pixel."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Int, Int64, Num

from masklet.core.rle import Rle

Loop = Int64[np.ndarray, "_ 2"]  # corners x, y


def trace_polygons(mask: Rle, tolerance: float = 0.0) -> list[Num[np.ndarray, "_ 2"]]:
    """The polygons of a mask, one for each part that hangs together by the sides of its pixels. A hole is joined to the
    outline around it by a cut of no width.

    Args:
        mask: of a frame.
        tolerance: how far an outline may be from the pixels' edges, in pixels; the more, the fewer corners. 0 keeps
            every pixel; a part that would be left without an inside keeps them, too.

    Returns:
        Corners (x, y) in pixels, from the upper left corner of the frame; pixel (0, 0) lies between 0 and 1.

    >>> rows = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    >>> [p.tolist() for p in trace_polygons(Rle.encode_pixels(rows[:2]))]
    [[[0, 0], [3, 0], [3, 2], [2, 2], [2, 1], [1, 1], [1, 2], [0, 2]]]
    >>> [len(p) for p in trace_polygons(Rle.encode_pixels(rows))]
    [10]
    """
    if not mask.area:
        return []
    x0, y0, x1, y1 = mask.box
    pixels = np.ascontiguousarray(mask.decode_pixels()[y0:y1, x0:x1])
    return [polygon + np.array([x0, y0]) for polygon in join_loops(pixels, trace_loops(pixels), tolerance)]


def trace_loops(pixels: Bool[np.ndarray, "h w"]) -> list[Loop]:
    """All closed edges of a mask: corners alone, each loop from its first one in the order of rows. Pixels that touch
    by a corner are apart.
    """
    points, across, down = _link_corners(pixels)
    free = np.ones(len(points), bool)
    loops = []
    for start in range(len(points)):
        if not free[start]:
            continue
        loop, at = [], start
        while free[at]:
            free[at] = free[across[at]] = False
            loop += [at, across[at]]
            at = down[across[at]]
        loops.append(points[loop])
    return loops


def _link_corners(
    pixels: Bool[np.ndarray, "h w"],
) -> tuple[Int64[np.ndarray, "n 2"], list[int], list[int]]:
    """The corners (x, y) of a mask's edges in the order of rows, and the other end of the edge along the row and along
    the column of each. Where two pixels touch by a corner there are two of them, the left one first.
    """
    padded = np.pad(pixels, 1).astype(np.int8)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    inside = upper_left + upper_right + lower_left + lower_right
    touching = (inside == 2) & (upper_left == lower_right)
    y, x = np.nonzero((inside % 2 == 1) | touching)
    twice = touching[y, x]
    points = np.repeat(np.stack([x, y], axis=1).astype(np.int64), 1 + twice, axis=0)
    second = np.zeros(len(points), bool)  # of two: the one whose edge leads to the right
    second[np.flatnonzero(np.repeat(twice, 1 + twice))[1::2]] = True
    falling = upper_left[points[:, 1], points[:, 0]] == 1  # where the left edge goes on upward
    below = np.where(falling, second, ~second) & (touching[points[:, 1], points[:, 0]])
    return points, _pair_up(np.arange(len(points))), _pair_up(np.lexsort((below, points[:, 1], points[:, 0])))


def _pair_up(order: Int[np.ndarray, " n"]) -> list[int]:
    """Each one's partner, where the first and second in the `order` are partners, the third and fourth, and so on."""
    partner = np.empty(len(order), np.int64)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    return [int(n) for n in partner]


def join_loops(
    pixels: Bool[np.ndarray, "h w"], loops: Sequence[Loop], tolerance: float
) -> list[Num[np.ndarray, "_ 2"]]:
    """One polygon for each part of a mask, whose edges are the `loops`: its outline, and the holes in it."""
    _, parts = cv2.connectedComponents(pixels.view(np.uint8), connectivity=4)
    outlines: dict[int, Loop] = {}
    holes: dict[int, list[Loop]] = {}
    for loop in loops:
        x, y = loop[0]  # the first in the order of rows: the part is below it, or above where it is a hole
        if pixels[y, x]:
            outlines[int(parts[y, x])] = loop
        else:
            holes.setdefault(int(parts[y - 1, x]), []).append(loop)
    joined = []
    for part, loop in outlines.items():
        polygon = simplify_loop(loop, tolerance)
        polygon = loop if len(polygon) < 3 else polygon  # what is smaller than the tolerance is not lost
        for hole in holes.get(part, []):
            polygon = cut_open(polygon, simplify_loop(hole, tolerance))
        joined.append(polygon)
    return joined


def simplify_loop(loop: Loop, tolerance: float) -> Num[np.ndarray, "n 2"]:
    """A closed line with fewer corners, nowhere farther from it than `tolerance` pixels (Douglas and Peucker, 1973)."""
    if tolerance <= 0:
        return loop
    return np.asarray(cv2.approxPolyDP(loop.astype(np.int32)[:, None], tolerance, True)[:, 0], np.int64)


def cut_open(polygon: Num[np.ndarray, "n 2"], hole: Num[np.ndarray, "m 2"]) -> Num[np.ndarray, "k 2"]:
    """A polygon that goes around its `hole`, too: along a cut of no width to it, around it, and back."""
    at = int(np.abs(polygon - hole[0]).sum(axis=1).argmin())
    return np.concatenate([polygon[: at + 1], hole, hole[:1], polygon[at:]])


def join_polygons(polygons: Sequence[Num[np.ndarray, "_ 2"]]) -> Num[np.ndarray, "n 2"]:
    """One polygon of several, joined by cuts of no width, for forms that have one an object."""
    whole = polygons[0]
    for polygon in polygons[1:]:
        whole = cut_open(whole, polygon)
    return whole
