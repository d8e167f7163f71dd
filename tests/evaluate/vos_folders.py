"""Small sets of label maps on disk."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIZE = (24, 32)


def page(*boxes, size=SIZE):
    """A label map with boxes (id, y0, y1, x0, x1)."""
    labels = np.zeros(size, np.uint8)
    for id, y0, y1, x0, x1 in boxes:
        labels[y0:y1, x0:x1] = id
    return labels


def save(path, labels, mode="P"):
    """A PNG with a palette, or of another mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    (image if mode == "P" else image.convert(mode)).save(path)


def write(folder, video, pages, start=0, step=1, digits=5, mode="P"):
    """A video's label maps."""
    for n, labels in enumerate(pages):
        save(folder / video / f"{start + n * step:0{digits}d}.png", labels, mode)


def wander(length, seed, objects=2, size=SIZE):
    """Label maps in which boxes wander about, and are away at times."""
    rng = np.random.default_rng(seed)
    pages = []
    for t in range(length):
        spots = [(i, *rng.integers(0, (size[0] - 4, size[1] - 4))) for i in range(1, objects + 1)]
        pages.append(page(*((i, y, y + 6, x, x + 8) for i, y, x in spots if t == 0 or rng.random() < 0.8), size=size))
    return pages
