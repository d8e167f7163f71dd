"""RoIAlign sample by sample, from its definition (He et al. 2017) with torchvision's defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def align_slowly(features: np.ndarray, box: Sequence[float], bins: int) -> np.ndarray:
    """[c k k] of a map [c h w] and a box x0, y0, x1, y1 in its cells."""
    x0, y0, x1, y1 = box
    wide, high = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    across, down = math.ceil(wide / bins), math.ceil(high / bins)
    out = np.zeros((len(features), bins, bins), np.float32)
    for row in range(bins):
        for column in range(bins):
            total = np.zeros(len(features))
            for v in range(down):
                for u in range(across):
                    y = y0 + (row + (v + 0.5) / down) * high / bins
                    x = x0 + (column + (u + 0.5) / across) * wide / bins
                    total += sample(features, x, y)
            out[:, row, column] = total / (across * down)
    return out


def sample(features: np.ndarray, x: float, y: float) -> np.ndarray:
    """Between the four nearest cells; on the border within a cell of it, 0 beyond."""
    h, w = features.shape[1:]
    if not (-1 <= x <= w and -1 <= y <= h):
        return np.zeros(len(features))
    x, y = min(max(x, 0.0), w - 1), min(max(y, 0.0), h - 1)
    left, top = int(x), int(y)
    right, low = min(left + 1, w - 1), min(top + 1, h - 1)
    a, b = x - left, y - top
    upper = (1 - a) * features[:, top, left] + a * features[:, top, right]
    lower = (1 - a) * features[:, low, left] + a * features[:, low, right]
    return np.asarray((1 - b) * upper + b * lower)
