"""Boundaries of tubes: each frame's mask without what lies deeper than a distance from its edge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from masklet.evaluate.vis.tubes import Tube

RATIO = 0.02  # of the image's diagonal
CANVAS = 1 << 21  # pixels that are drawn at a time


def compute_boundary_width(size: tuple[int, int]) -> int:
    """How many pixels a boundary is wide in frames of h, w: 2 % of the diagonal, and at least one.

    >>> compute_boundary_width((360, 640))
    15
    """
    return max(1, round(RATIO * math.hypot(*size)))


def extract_tube_boundary(tube: Tube, size: tuple[int, int]) -> Tube:
    """The pixels of a tube within `compute_boundary_width` rows and columns of one outside of it; outside of the frame,
    all are.

    Boundary IoU (Cheng et al., CVPR 2021) says "distance"; its program erodes with a square, as is done here.
    """
    runs = _split_runs_by_column(tube.edges, size[0])
    parts = [_extract_boundary_edges(part, size) for part in _split_runs_by_frames(runs, size)]
    edges = np.concatenate([np.zeros(0), *parts])
    frames = (edges[::2] // (size[0] * size[1])).astype(np.int64)
    areas = np.bincount(frames, edges[1::2] - edges[::2], len(tube.areas)).astype(np.int64)
    return Tube(edges if len(edges) else np.zeros(2), areas)


def _split_runs_by_column(edges: Float64[np.ndarray, " e"], height: int) -> Int64[np.ndarray, "n 3"]:
    """Column of the wide image, first row and row after the last of every run, none longer than its column."""
    start, stop = edges.astype(np.int64).reshape(-1, 2).T
    start, stop = start[stop > start], stop[stop > start]
    first, last = start // height, (stop - 1) // height
    spans = last - first + 1
    column = np.repeat(first, spans) + np.arange(spans.sum()) - np.repeat(np.cumsum(spans) - spans, spans)
    top = np.where(column == np.repeat(first, spans), np.repeat(start, spans) - column * height, 0)
    below = np.where(column == np.repeat(last, spans), np.repeat(stop, spans) - column * height, height)
    return np.stack([column, top, below], 1)


def _split_runs_by_frames(runs: Int64[np.ndarray, "n 3"], size: tuple[int, int]) -> Iterator[Int64[np.ndarray, "m 3"]]:
    """Runs by whole frames, few enough to be drawn at once."""
    frames = max(1, CANVAS // (size[0] * size[1]))
    portion = runs[:, 0] // (size[1] * frames)
    for at in np.unique(portion):
        yield runs[portion == at]


def _extract_boundary_edges(runs: Int64[np.ndarray, "n 3"], size: tuple[int, int]) -> Float64[np.ndarray, " e"]:
    """The edges of the boundaries of some frames' runs, drawn on one canvas with an empty column between frames."""
    column, rows = runs[:, 0], slice(int(runs[:, 1].min()), int(runs[:, 2].max()))
    step = np.diff(column, prepend=column[0] - 2)
    apart = (step > 1) | (step == 1) & (column % size[1] == 0)
    place = np.cumsum(np.minimum(step, 1) + apart) - 1
    rim = _remove_interior(_draw_runs(place, runs[:, 1:] - rows.start), compute_boundary_width(size))
    rim[1:] ^= rim[:-1].copy()  # where a run starts or ends
    tall = len(rim)
    spot, row = np.divmod(np.flatnonzero(cv2.transpose(rim).view(bool)), tall)
    columns = np.zeros(place[-1] + 1, np.int64)
    columns[place] = column
    return (columns[spot] * size[0] + row + rows.start).astype(float)


def _draw_runs(place: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "y x"]:
    """Runs as pixels, with an empty row below them."""
    canvas = np.zeros((rows.max() + 1, place[-1] + 1), np.uint8)
    canvas[rows[:, 0], place] = 1
    canvas[rows[:, 1], place] ^= 1  # one that ends where the next starts goes on
    for above, row in pairwise(canvas):
        row ^= above
    return canvas


def _remove_interior(canvas: UInt8[np.ndarray, "y x"], width: int) -> UInt8[np.ndarray, "y x"]:
    """A drawing without what its erosion by a square leaves."""
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    return np.asarray(canvas ^ cv2.erode(canvas, square, borderType=cv2.BORDER_CONSTANT, borderValue=0))
