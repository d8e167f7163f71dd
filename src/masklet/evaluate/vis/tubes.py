"""Tubes: the masks of one object in all frames, held as the runs of one wide image.

COCO's run lengths go down the columns, so frames laid side by side have their runs one after the other. Overlaps
of two tubes are then sums over runs, in whole numbers, and no pixel is ever drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

LONGEST = 6  # characters of one run length


@dataclass(frozen=True)
class Tube:
    """One object's masks. The pixel y, x of frame t is number (t * w + x) * h + y of the wide image."""

    edges: Float64[np.ndarray, " e"]  # where runs start and end, in turn and in order; e >= 2, a tube of none has 0, 0
    areas: Int64[np.ndarray, " t"]  # pixels in each frame of its list, 0 where it is absent

    @property
    def area(self) -> float:
        """Mean pixels of the frames in which it has any; 0 where there is none."""
        seen = self.areas[self.areas > 0]
        return float(seen.mean()) if len(seen) else 0.0

    @cached_property
    def covered(self) -> Float64[np.ndarray, " e"]:
        """Pixels of the tube before each edge."""
        before = np.zeros(len(self.edges))
        np.cumsum(self.edges[1::2] - self.edges[::2], out=before[1::2])
        before[2::2] = before[1:-1:2]
        return before


def compute_tube_ious(found: Sequence[Tube], truths: Sequence[Tube]) -> Float64[np.ndarray, "n g"]:
    """IoU over space and time of every pair; 0 where both are empty. Of two lists the longer one is cut."""
    both, total = compute_tube_overlaps(found, truths), np.zeros((len(found), len(truths)))
    iou = np.zeros_like(both)
    for row, tube in enumerate(found):
        for col, truth in enumerate(truths):
            frames = min(len(tube.areas), len(truth.areas))
            total[row, col] = tube.areas[:frames].sum() + truth.areas[:frames].sum()
    np.divide(both, total - both, out=iou, where=total > both)
    return iou


def compute_tube_overlaps(found: Sequence[Tube], truths: Sequence[Tube]) -> Float64[np.ndarray, "n g"]:
    """Pixels in both tubes of every pair."""
    both = np.zeros((len(found), len(truths)))
    if not found or not truths:
        return both
    sizes = np.array([len(tube.edges) // 2 for tube in found])
    firsts = np.cumsum(sizes) - sizes
    edges = np.concatenate([tube.edges for tube in found])
    for col, truth in enumerate(truths):
        before = np.interp(edges, truth.edges, truth.covered)  # grows by 0 or 1 a pixel between two edges: exact
        both[:, col] = np.add.reduceat(before[1::2] - before[::2], firsts)
    return both


def decode_tubes(lists: Sequence[Sequence[bytes | None]], pixels: int) -> list[Tube]:
    """The tubes of one video from COCO's compressed run lengths, one list per object, None where it is absent.

    `pixels` are those of a frame. Raises ValueError where a mask is damaged or of another size.
    """
    masks = [(row, t, counts) for row, held in enumerate(lists) for t, counts in enumerate(held) if counts is not None]
    areas = [np.zeros(len(held), np.int64) for held in lists]
    if not masks:
        return [Tube(np.zeros(2), area) for area in areas]
    rows, frames, counts = zip(*masks, strict=True)
    edges, firsts, drawn = decode_wide_runs(counts, np.array(frames), pixels)
    for row, t, area in zip(rows, frames, drawn.tolist(), strict=True):
        areas[row][t] = area
    bounds = 2 * firsts[np.searchsorted(rows, np.arange(len(lists) + 1))]
    parts = [edges[a:b] if b > a else np.zeros(2) for a, b in pairwise(bounds)]
    return [Tube(part, area) for part, area in zip(parts, areas, strict=True)]


def decode_wide_runs(
    counts: Sequence[bytes], frames: Int64[np.ndarray, " m"], pixels: int
) -> tuple[Float64[np.ndarray, " e"], Int64[np.ndarray, " m1"], Int64[np.ndarray, " m"]]:
    """Decodes many masks from COCO's compressed RLE `counts`, each at its place in `frames` of a wide image.

    Returns where runs start and end, each mask's first run (and the number of all runs at the end), each mask's pixels.
    Raises ValueError where one is damaged or does not fill a frame's `pixels`. `masklet.core.masks.decode_rle_counts`
    does the same for one mask.
    """
    values, sizes = parse_run_lengths(counts)
    firsts = np.append(0, np.cumsum((sizes + 1) // 2))  # by pairs of a run outside and one inside
    start, end = firsts[:-1], firsts[1:]
    runs = np.zeros((end[-1], 2))
    flat, at = runs.reshape(-1), 0
    for to, size in zip((2 * start).tolist(), sizes.tolist(), strict=True):
        flat[to : to + size] = values[at : at + size]
        at += size
    long = start[sizes > 2]
    runs[long + 1, 0] -= runs[long, 0]  # only from the fourth run on are differences stored
    both = runs.view(complex).reshape(-1)  # sums of the runs outside and of those inside at once; exact
    both[start[1:]] -= np.add.reduceat(both, start)[:-1]
    np.cumsum(both, out=both)
    runs[end[sizes % 2 == 1] - 1, 1] = 0  # where the last one inside is missing
    inside = runs[:, 1].copy()
    damaged = (runs < 0).any()
    runs[start, 0] += pixels * np.diff(frames - np.arange(len(frames)), prepend=0)  # from each one's place among all
    np.cumsum(runs[:, 0] + inside, out=runs[:, 1])
    np.subtract(runs[:, 1], inside, out=runs[:, 0])
    if damaged or (runs[end - 1, 1] != pixels * (frames + 1)).any():
        raise ValueError(f"run lengths that do not fill {pixels} pixels")
    return flat, firsts, np.add.reduceat(inside, start).astype(np.int64)


def parse_run_lengths(counts: Sequence[bytes]) -> tuple[Int32[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """The numbers in many strings of five bits a character, of which the sixth says "more follows" and the last
    digit carries the sign; and how many each string has.
    """
    digits = np.frombuffer(b"".join((b"0", *counts)), np.uint8) - np.uint8(48)
    ends = np.cumsum([len(c) for c in counts])
    if not all(counts) or digits.max() > 63 or (digits[ends] > 31).any():
        raise ValueError("strings that are no COCO run lengths")
    places = np.flatnonzero(digits[1:] < 32) + 1
    pairs = np.ndarray(len(digits) - 1, "<u2", digits, strides=(1,))  # every character and the one before it
    values = SHORT.take(pairs.take(places - 1))
    more = digits > 31
    longer = np.unique(np.searchsorted(places, np.flatnonzero(more[:-1] & more[1:]) + 1))
    values[longer] = _parse_long_numbers(digits, places[longer])
    return values, np.diff(np.searchsorted(places, ends), prepend=-1)


def _parse_long_numbers(digits: UInt8[np.ndarray, " c"], places: Int64[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """The numbers that end at some places, of any number of digits."""
    values: Int32[np.ndarray, " n"] = (digits[places] ^ 16).astype(np.int32) - 16
    live = np.arange(len(places))
    for step in range(1, LONGEST + 1):
        live = live[digits[places[live] - step] > 31]
        if len(live) and step == LONGEST:
            raise ValueError("numbers that are no run lengths")
        values[live] = values[live] << 5 | digits[places[live] - step] & 31
    return values


def _build_short_table() -> Int32[np.ndarray, " 8192"]:
    """By the last character (high byte) and the one before it: the number, if it has no third digit."""
    last, lower = np.divmod(np.arange(8192), 256)
    signed = (last ^ 16) - 16
    return np.where(lower > 31, signed << 5 | lower & 31, signed).astype(np.int32)


SHORT = _build_short_table()
