"""Charts of what an evaluation says: curves, and bars for every video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MOST_BARS = 60  # videos in one chart; more are drawn in several
LINES = ("#1f5fbf", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207")


def draw_curves(
    title: str, across: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path
) -> None:
    """Draws curves into one PNG.

    Args:
        title: over the chart.
        across: what the horizontal axis is.
        curves: by name, the places and the values of each.
        path: of the PNG, which is replaced.
    """
    figure, axes = _open_chart(6.0, 4.0, title)
    for n, (name, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, label=name, color=LINES[n % len(LINES)], linewidth=1.8)
    axes.set_xlabel(across)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


def draw_bars(title: str, values: Mapping[str, float], folder: Path, name: str) -> list[Path]:
    """Draws a bar for every name, the lowest first; one PNG for every 60.

    Args:
        title: over the chart.
        values: by name, such as a video's.
        folder: that the PNGs go into.
        name: of the files.

    Returns:
        The files.
    """
    rows = sorted(values.items(), key=lambda row: row[1])
    parts = [rows[at : at + MOST_BARS] for at in range(0, len(rows), MOST_BARS)]
    top = max(1e-9, *values.values()) if values else 1.0
    paths = []
    for number, part in enumerate(parts, start=1):
        figure, axes = _open_chart(6.0, 0.9 + 0.22 * len(part), title)
        labels = [text if len(text) <= 32 else f"{text[:31]}…" for text, _ in part]
        axes.barh(range(len(part)), [value for _, value in part], color=LINES[0], height=0.7)
        axes.set_yticks(range(len(part)), labels, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(min(0.0, *(v for _, v in part)), 1.08 * top)
        for row, (_, value) in enumerate(part):
            axes.text(max(value, 0) + 0.01 * top, row, f"{value:.3g}", va="center", fontsize=7)
        paths.append(folder / (f"{name}.png" if len(parts) == 1 else f"{name}-{number}.png"))
        figure.savefig(paths[-1], dpi=120)
    return paths


def _open_chart(width: float, height: float, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no window, no global state; loaded only where a chart is drawn

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
