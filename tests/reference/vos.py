"""DAVIS's measures, slowly: pixel by pixel, as the definitions read."""

from __future__ import annotations

import math


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
