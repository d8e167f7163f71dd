"""DAVIS's measures, slowly: pixel by pixel, as the definitions read; and on whole stacks of whole frames, as it is
usually written, for loads of real size.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt


def jaccard(prediction, truth):
    height, width = len(truth), len(truth[0])
    pairs = [(bool(prediction[y][x]), bool(truth[y][x])) for y in range(height) for x in range(width)]
    union = sum(p or t for p, t in pairs)
    return sum(p and t for p, t in pairs) / union if union else 1.0


def contour(mask):
    height, width = len(mask), len(mask[0])
    inside = {(y, x) for y in range(height) for x in range(width) if mask[y][x]}
    found = set()
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            there = [n for n in neighbours if n[0] < height and n[1] < width]
            if any(((y, x) in inside) != (n in inside) for n in there):
                found.add((y, x))
    return found


def boundary_f(prediction, truth, bound=0.008):
    radius = math.ceil(bound * math.sqrt(len(truth) ** 2 + len(truth[0]) ** 2))
    found, wanted = contour(prediction), contour(truth)
    if not found and not wanted:
        return 1.0
    if not found or not wanted:
        return 0.0
    precision = sum(_near(p, wanted, radius) for p in found) / len(found)
    recall = sum(_near(p, found, radius) for p in wanted) / len(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(pixel, others, radius):
    return any((pixel[0] - y) ** 2 + (pixel[1] - x) ** 2 <= radius**2 for y, x in others)


def disk(radius):
    """Rows of 0 and 1: the grid begins at -radius, wherever that is."""
    line = [-radius + n for n in range(math.ceil(2 * radius + 1))]
    return [[int(x * x + y * y <= radius * radius) for x in line] for y in line]


def dilated(pixels, element):
    """Every pixel that sees one of the given through the element laid on it by its centre."""
    centre = len(element) // 2
    steps = [(y - centre, x - centre) for y, row in enumerate(element) for x, one in enumerate(row) if one]
    return {(y - dy, x - dx) for y, x in pixels for dy, dx in steps}


def boundary_f_of(prediction, truth, radius):
    """F under the disk of a radius that need not be whole."""
    found, wanted = contour(prediction), contour(truth)
    if not found or not wanted:
        return float(not found and not wanted)
    precision = len(found & dilated(wanted, disk(radius))) / len(found)
    recall = len(wanted & dilated(found, disk(radius))) / len(wanted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def by_distance(edge, radius):
    """Pixels within a radius of a contour, as the definition has it."""
    return distance_transform_edt(~edge) <= radius


def by_dilation(edge, radius):
    """The same, as the usual programs have it."""
    return cv2.dilate(edge.astype(np.uint8), np.array(disk(radius), np.uint8)) > 0


def semi_supervised(truth_files, found_files, near=by_distance):
    """J and F [objects, frames] of a sequence from its palette images, all in memory: DAVIS 2017."""
    truth, found = (np.stack([np.array(Image.open(p)) for p in files]) for files in (truth_files, found_files))
    ids = np.arange(1, truth[0][truth[0] != 255].max() + 1)[:, None, None, None]
    truths, founds = truth[None, 1:-1] == ids, found[None, 1:-1] == ids
    union = (truths | founds).sum((2, 3))
    j = np.where(union > 0, (truths & founds).sum((2, 3)) / np.maximum(union, 1), 1.0)
    pairs = zip(founds, truths, strict=True)
    f = [[_whole_frame_f(p, t, near) for p, t in zip(ps, ts, strict=True)] for ps, ts in pairs]
    return j, np.array(f)


def _whole_frame_f(prediction, truth, near):
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    found, wanted = _whole_frame_contour(prediction), _whole_frame_contour(truth)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = (found & near(wanted, radius)).sum() / found.sum()
    recall = (wanted & near(found, radius)).sum() / wanted.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _whole_frame_contour(mask):
    right, below, across = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1], below[:-1], across[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ across)
    edge[-1], edge[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge
