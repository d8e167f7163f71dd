"""Soft masks in windows: of each object only the part of a frame in which it may be, so that many small objects cost
what their windows cost. Windows are rows and columns of cells, `CELL` pixels each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped

CELL = 8  # pixels

Window = tuple[slice, slice]
Map = Float32[np.ndarray, "h w"]
Part = Float32[np.ndarray, "_ _"]  # of a map, in a window
MaskPart = Bool[np.ndarray, "_ _"]
Cells = Bool[np.ndarray, "y x"]


@dataclass(frozen=True)
class FlowOrigins:
    """Where each pixel of a frame was in another one, and between which bounds those of each cell were."""

    x: Map
    y: Map
    bounds: Float32[np.ndarray, "4 y x"]  # the least x and y, the greatest x and y

    @staticmethod
    def of(flow: Float32[np.ndarray, "h w 2"]) -> FlowOrigins:
        """Those of a flow from the frame's pixels to the other's; height and width are multiples of `CELL`."""
        h, w = flow.shape[:2]
        x = np.arange(w, dtype=np.float32)[None] + flow[..., 0]
        y = np.arange(h, dtype=np.float32)[:, None] + flow[..., 1]
        ends = np.array([w - 1, h - 1], np.float32)[:, None, None]  # beyond: as at the border
        low, high = (np.stack([reduce_cells(m, how) for m in (x, y)]) for how in (np.minimum, np.maximum))
        return FlowOrigins(x, y, np.concatenate([bound.clip(0, ends) for bound in (low, high)]))

    def find_cells(self, box: Window) -> Cells:
        """The cells of which a pixel may have been in, or beside, a box of the other frame."""
        rows, columns = box
        low_x, low_y, high_x, high_y = self.bounds
        across = (high_x > columns.start - 1) & (low_x < columns.stop)
        return np.asarray(across & (high_y > rows.start - 1) & (low_y < rows.stop))

    def carry(self, soft: Map, window: Window) -> Part:
        """What of a map of the other frame is in a window of this one."""
        x, y = self.x[window], self.y[window]
        return np.asarray(cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def reduce_cells(values: Float32[np.ndarray, "h w"], how: np.ufunc) -> Float32[np.ndarray, "y x"]:
    """One value of each cell: `how`, such as `np.minimum`, of all its pixels' `values`. Rows come first, for those lie
    side by side in memory: a quarter of the time.
    """
    h, w = values.shape
    rows = how.reduce(values.reshape(h // CELL, CELL, w), axis=1)
    return np.asarray(how.reduce(rows.reshape(h // CELL, w // CELL, CELL), axis=2))


def bound_cells(cells: Cells, margin: int) -> Window:
    """The window of the box of some cells and `margin` cells around it, in pixels; nothing where there is no cell.

    >>> cells = np.zeros((5, 9), bool)
    >>> cells[1, 2:4] = True
    >>> bound_cells(cells, 1)
    (slice(0, 24, None), slice(8, 40, None))
    """
    x, y, w, h = cv2.boundingRect(cells.view(np.uint8))
    if w == 0:
        return slice(0, 0), slice(0, 0)
    ends = zip((y, x), (y + h, x + w), cells.shape, strict=True)
    rows, columns = (slice(max(a - margin, 0), min(b + margin, most)) for a, b, most in ends)
    return scale_to_pixels((rows, columns))


def scale_to_pixels(cells: Window) -> Window:
    """A window of cells in pixels."""
    rows, columns = (slice(s.start * CELL, s.stop * CELL) for s in cells)
    return rows, columns


def scale_to_cells(window: Window) -> Window:
    """A window of pixels in cells."""
    rows, columns = (slice(s.start // CELL, s.stop // CELL) for s in window)
    return rows, columns


def enlarge_cells(cells: Float32[np.ndarray, "y x"], window: Window) -> Part:
    """A map of a value for each cell of a frame, in a window of the frame's pixels, bilinear."""
    inner = scale_to_cells(window)
    around = [slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(inner, cells.shape, strict=True)]
    part = cells[around[0], around[1]]
    large = cv2.resize(part, (part.shape[1] * CELL, part.shape[0] * CELL), interpolation=cv2.INTER_LINEAR)
    rows, columns = (
        slice((s.start - a.start) * CELL, (s.stop - a.start) * CELL) for s, a in zip(inner, around, strict=True)
    )
    return np.asarray(large[rows, columns])


def average_over_cells(maps: Shaped[np.ndarray, "h w"]) -> Float32[np.ndarray, "y x"]:
    """Means over the cells of a window."""
    h, w = maps.shape
    return np.asarray(maps.reshape(h // CELL, CELL, w // CELL, CELL).mean((1, 3), dtype=np.float32))


def exclude_rivals(
    windows: Sequence[Window],
    logits: Sequence[Part],
    claims: Sequence[Part],
    rivals: Float[np.ndarray, "n n"],
    common: Bool[np.ndarray, "n n"],
    inside: Sequence[MaskPart],
    elsewhere: float,
) -> list[Part]:
    """Log odds of each object against the background (`logits`) and its rivals together, each as often as `rivals`
    says; `claims` (log odds too) count between rivals alone. Of two rivals that count once at most one is above 0 at
    any pixel, but where both belong.

    Args:
        windows: of the objects; row n of all that follows is one object, in its window.
        logits: of each.
        claims: of each.
        rivals: how much row n is contended by row m.
        common: of which two objects both belong where both are `inside`.
        inside: where each object is.
        elsewhere: the odds of each object outside its window.
    """
    odds = [np.exp(own + claim) - np.float32(elsewhere) for own, claim in zip(logits, claims, strict=True)]
    out, near = [], find_touching_windows(windows) & (rivals > 0)
    for row, (window, own, claim) in enumerate(zip(windows, logits, claims, strict=True)):
        against = np.full(own.shape, rivals[row].sum() * elsewhere, np.float32)
        for other in np.flatnonzero(near[row]).tolist():
            here, there = find_overlap(window, windows[other])
            more = odds[other][there]
            if common[row, other]:
                more = np.where(inside[row][here] & inside[other][there], np.float32(-elsewhere), more)
            against[here] += np.float32(rivals[row, other]) * more
        out.append(own - np.log1p(np.maximum(against, 0) * np.exp(-claim)))
    return out


def find_overlap(own: Window, other: Window) -> tuple[Window, Window]:
    """What two windows that touch share, as a window of each.

    >>> find_overlap((slice(0, 8), slice(0, 16)), (slice(0, 8), slice(8, 24)))
    ((slice(0, 8, None), slice(8, 16, None)), (slice(0, 8, None), slice(0, 8, None)))
    """
    (y0, y1), (x0, x1) = ((max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(own, other, strict=True))
    first, second = ((slice(y0 - y.start, y1 - y.start), slice(x0 - x.start, x1 - x.start)) for y, x in (own, other))
    return first, second


def find_touching_windows(windows: Sequence[Window]) -> Bool[np.ndarray, "n n"]:
    """Which two of some windows share a pixel."""
    ends = np.array([((y.start, x.start), (y.stop, x.stop)) for y, x in windows], np.int64).reshape(-1, 2, 2)
    low, high = np.maximum(ends[:, None, 0], ends[:, 0]), np.minimum(ends[:, None, 1], ends[:, 1])
    return np.asarray((low < high).all(2))
