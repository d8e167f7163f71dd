"""Boundary accuracy F of DAVIS: contours, the disk of tolerance, and how much of one lies near the other.

A contour is held as one integer, a bit a pixel, so that a dilation is some dozens of shifts of the whole of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from masklet.evaluate.vos.label_maps import Mask, compute_joint_window, find_mask_box

BOUND = 0.008  # tolerance of F, as a share of the image's diagonal


def compute_boundary_f(prediction: Mask, truth: Mask, bound: float = BOUND) -> float:
    """F of one frame: harmonic mean of the contours' precision and recall, 0 to 1.

    A contour pixel of `prediction` or `truth` is right when the other contour has one within `bound` of the image's
    diagonal, rounded up to pixels. Two masks without a contour (empty, or the whole frame) have 1, one alone has 0.
    """
    window = compute_joint_window(find_mask_box(prediction), find_mask_box(truth), truth.shape)
    return compute_contour_scores(
        extract_contour(prediction[window]), extract_contour(truth[window]), [build_tolerance_disk(truth.shape, bound)]
    )[0]


def measure_diagonal(size: tuple[int, ...]) -> float:
    """Of an image of `size` (h, w), in pixels."""
    return math.sqrt(size[0] ** 2 + size[1] ** 2)


def extract_contour(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or lower-right neighbour; outside the frame there is none.

    >>> extract_contour(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])
    """
    width = mask.shape[1]
    pixels, edge = mask.ravel(), np.zeros(mask.shape, dtype=bool)
    found = edge.reshape(-1)
    found[:-1] = pixels[:-1] ^ pixels[1:]
    found[: -width - 1] |= pixels[: -width - 1] ^ pixels[width + 1 :]
    edge[:, -1:] = False  # the pixel after the last of a row is the first of the next
    found[:-width] |= pixels[:-width] ^ pixels[width:]
    return edge


@dataclass(frozen=True)
class Disk:
    """A structuring element whose rows are nested runs, from the shortest on."""

    reach: int  # pixels to any side
    runs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # columns that the run before lacks, rows of this run

    def dilate(self, bits: int, stride: int) -> int:
        """A packed contour, dilated; what leaves a row lies in the gap after or before it."""
        grown = everywhere = 0
        for columns, rows in self.runs:
            for x in columns:
                grown |= _shift_bits(bits, x)
            for y in rows:
                everywhere |= _shift_bits(grown, y * stride)
        return everywhere


def _shift_bits(bits: int, by: int) -> int:
    """Every pixel takes the value of the one that is `by` places after it."""
    return bits << by if by >= 0 else bits >> -by


def build_tolerance_disk(size: tuple[int, ...], bound: float = BOUND) -> Disk:
    """The disk of DAVIS for images of `size` (h, w)."""
    return build_disk(float(math.ceil(bound * measure_diagonal(size))))


@lru_cache(maxsize=1024)
def build_disk(radius: float) -> Disk:
    """The pixels within `radius` of a centre.

    The centre of a radius with a fraction is off the grid and the disk lopsided: so are those of scikit-image,
    with which MOSE's numbers are made.
    """
    line = np.arange(-radius, radius + 1)
    inside = line[:, None] ** 2 + line**2 <= radius**2
    if not inside.any():  # a radius of half a pixel; OpenCV then takes the first of the element's pixels alone
        inside[0, 0] = True
    centre = len(line) // 2
    runs: dict[tuple[int, ...], list[int]] = {}
    for y, row in enumerate(inside):
        runs.setdefault(tuple(int(x) - centre for x in np.flatnonzero(row)), []).append(y - centre)
    lines = sorted((run for run in runs if run), key=len)
    new = [sorted(set(run) - set(before)) for run, before in zip(lines, [(), *lines[:-1]], strict=True)]
    return Disk(centre, tuple((tuple(more), tuple(runs[run])) for more, run in zip(new, lines, strict=True)))


def compute_contour_scores(found: Mask, wanted: Mask, disks: Sequence[Disk]) -> list[float]:
    """F, 0 to 1, of the contour `found` against the contour `wanted`, under each of `disks`, the tolerances.

    Two contours without a pixel have 1, one alone has 0.
    """
    gap = max(disk.reach for disk in disks)
    (here, stride), (there, _) = pack_mask(found, gap), pack_mask(wanted, gap)
    ours, theirs = here.bit_count(), there.bit_count()
    if not ours or not theirs:
        return [float(ours == theirs)] * len(disks)
    scores = []
    for disk in disks:
        precision = (here & disk.dilate(there, stride)).bit_count() / ours
        recall = (there & disk.dilate(here, stride)).bit_count() / theirs
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return scores


def pack_mask(mask: Mask, gap: int) -> tuple[int, int]:
    """A mask as one integer, its rows one after another with at least `gap` zeros between; and the bits of a row."""
    rows = np.packbits(mask, axis=1)
    spaced = np.zeros((len(rows), rows.shape[1] + (gap + 7) // 8), dtype=np.uint8)
    spaced[:, : rows.shape[1]] = rows
    return int.from_bytes(spaced.tobytes()), 8 * spaced.shape[1]
