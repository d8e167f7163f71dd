"""How a training run went, as an image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from masklet.core.files import write_atomically

SIZE = (900, 300)  # pixels of one panel: w, h
MARGIN = (70, 30, 150, 40)  # left, top, right, bottom
INK, GRID, PALE = (40, 40, 40), (225, 225, 225), (205, 218, 235)
COLOURS = ((31, 89, 168), (200, 80, 30), (40, 140, 70), (130, 70, 160), (150, 120, 20), (90, 90, 90))
BESIDE = {"step", "lr", "norm", "seconds", "skipped", "validation"}  # in a line of the log, and no loss
Series = Sequence[tuple[float, float]]


def draw_curve(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Losses (means over a fiftieth of the run; pale: of each step) above, validations below, where there are any."""
    losses = collect_series([line for line in lines if "loss" in line], BESIDE)
    scores = collect_series(
        [{"step": line["step"], **line["validation"]} for line in lines if "validation" in line], {"step"}
    )
    panels = [p for p in (losses, scores) if p]
    if not panels:
        return
    w, h = SIZE
    image = Image.new("RGB", (w, h * len(panels)), "white")
    for n, found in enumerate(panels):
        smooth = {name: reduce_to_means(points) for name, points in found.items()} if found is losses else found
        pale = losses["loss"] if found is losses else []
        draw_panel(image, n * h, smooth, pale, "loss" if found is losses else "validation")
    told = io.BytesIO()
    image.save(told, "png")
    with write_atomically(path) as file:
        file.write(told.getvalue())


def collect_series(lines: Sequence[Mapping[str, Any]], but: set[str]) -> dict[str, list[tuple[float, float]]]:
    """Each number's values by step, without those of parts ("AP/dog"); the first in the first line is the first."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in but and "/" not in name and isinstance(value, int | float):
                found.setdefault(name, []).append((line["step"], value))
    return found


def reduce_to_means(points: Series, parts: int = 50) -> Series:
    """Means of consecutive points, at most so many."""
    groups = np.array_split(np.array(points, dtype=float), min(parts, len(points)))
    return [(float(x), float(y)) for x, y in (g.mean(0) for g in groups)]


def draw_panel(image: Image.Image, top: int, found: Mapping[str, Series], pale: Series, title: str) -> None:
    """Draws one set of axes on the image `image`, its upper edge `top` pixels down, with `title` above. Each series
    of `found` becomes a line with its name and last value; `pale` (empty: none) is drawn behind them in a light colour.
    """
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    left, above, right, below = MARGIN
    x0, y0, x1, y1 = left, top + above, SIZE[0] - right, top + SIZE[1] - below
    spots = np.array([point for points in found.values() for point in points])
    last = max([spots[:, 0].max(), *(x for x, _ in pale)])
    low, high = min(spots[:, 1].min(), 0.0), spots[:, 1].max()
    high = high if high > low else low + 1.0

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across, up = point[0] / last, (min(point[1], high) - low) / (high - low)
        return x0 + across * (x1 - x0), y1 - up * (y1 - y0)

    for value in choose_ticks(low, high):
        y = at((0, value))[1]
        draw.line([(x0, y), (x1, y)], fill=GRID)
        draw.text((x0 - 8, y), f"{value:g}", fill=INK, font=font, anchor="rm")
    for value in choose_ticks(0, last):
        x = at((value, low))[0]
        draw.line([(x, y1), (x, y1 + 4)], fill=INK)
        draw.text((x, y1 + 8), f"{value:g}", fill=INK, font=font, anchor="mt")
    draw.line([(x0, y0), (x0, y1), (x1, y1)], fill=INK)
    draw.text((x0, top + 8), title, fill=INK, font=font)
    draw.text(((x0 + x1) / 2, top + SIZE[1] - 14), "step", fill=INK, font=font, anchor="mt")
    if len(pale) > 1:
        draw.line([at(p) for p in pale], fill=PALE)
    for n, (name, points) in enumerate(found.items()):
        colour = COLOURS[n % len(COLOURS)]
        draw.line([at(p) for p in points], fill=colour, width=2)
        for x, y in map(at, points if len(points) < 30 else ()):
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)
        draw.text((x1 + 12, y0 + 15 * n), f"{name} {points[-1][1]:.3g}", fill=colour, font=font)


def choose_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, about five.

    >>> choose_ticks(0, 11), choose_ticks(0, 0.7)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    """
    rough = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    every = power * next(f for f in (1, 2, 5, 10) if f * power >= rough * 0.7)
    first, last = int(np.ceil(low / every - 1e-9)), int(np.floor(high / every + 1e-9))
    return [round(float(k * every), 10) for k in range(first, last + 1)]
