"""When each object of a result is seen, how sure, and how its masks came about: a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.tables import compute_frame_time
from masklet.core.tracks import Masklet, Source
from masklet.view.drawing import pick_object_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 30  # objects that are shown, those that are seen longest
STEPS = 2_000  # points along the time at most
THINNEST, THICKEST = 0.08, 0.42  # half of a row's thickness where the confidence is 0 and 1
KINDS = {  # a row's opacity by how its masks came about
    "detected": ((Source.DETECTED, Source.PROMPTED), 1.0),
    "forward": ((Source.FORWARD,), 0.6),
    "backward": ((Source.BACKWARD,), 0.3),
}
LONGEST = 24  # characters of a name


def plot_timeline(result: VideoResult, ax: Axes | None = None) -> Axes:
    """Draws a row an object: there where it is seen, as thick as its mask is sure, paler where it was propagated.

    Args:
        result: of one video.
        ax: matplotlib's axes to draw into; new ones unless given.

    Returns:
        The axes; `ax.figure.savefig("timeline.png")` saves them.

    Raises:
        InputError: there is no matplotlib.
    """
    try:
        import matplotlib.pyplot as plt  # half a second, which only those pay who plot
        from matplotlib.patches import Patch
    except ImportError:
        raise InputError("plot needs matplotlib, which is not installed: pip install matplotlib") from None
    shown = sorted(sorted(result.masklets, key=lambda m: -len(m.sightings))[:ROWS], key=lambda m: m.id)
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 1.2 + 0.34 * max(len(shown), 1)), layout="constrained")
    for row, m in enumerate(shown):
        _draw_row(result, m, row, ax)
    ax.set_yticks(range(len(shown)), [f"{_shorten(result.name_of(m))} {m.id}" for m in shown])
    ax.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    ax.set_xlim(0, max(_find_end(result), 1e-3))
    ax.set_xlabel("seconds")
    left_out = len(result.masklets) - len(shown)
    ax.set_title(_shorten(result.name) + f", without {left_out} objects" * bool(left_out), loc="left", fontsize=10)
    patches = [Patch(color="grey", alpha=alpha, label=name) for name, (_, alpha) in KINDS.items()]
    ax.legend(handles=patches, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8)
    return ax


def _draw_row(result: VideoResult, masklet: Masklet, row: int, ax: Axes) -> None:
    """Draws one object, each kind of its masks in an opacity of its own."""
    colour = tuple(value / 255 for value in pick_object_colour(masklet.id))
    for sources, alpha in KINDS.values():
        edges, half = measure_confidence(result, masklet, sources)
        ax.stairs(row + half, edges, baseline=row - half, fill=True, color=colour, alpha=alpha, linewidth=0)


def measure_confidence(
    result: VideoResult, masklet: Masklet, sources: tuple[Source, ...]
) -> tuple[Float[np.ndarray, " n+1"], Float[np.ndarray, " n"]]:
    """Half the thickness of an object's row over time, where its masks came about in one of these ways; no number where
    there are none. A step of many frames has that of the surest.

    Returns:
        The times in seconds at which steps begin, and the last ends; the thickness of each step.
    """
    width = -(-result.length // STEPS) or 1
    half = np.full(-(-result.length // width), np.nan)
    for t, seen in masklet.sightings.items():
        if seen.source in sources:
            thick = THINNEST + (THICKEST - THINNEST) * min(max(seen.score, 0.0), 1.0)
            half[t // width] = np.fmax(half[t // width], thick)
    times = [compute_frame_time(result, n * width) for n in range(len(half))]
    return np.array([*times, _find_end(result)]), half


def _find_end(result: VideoResult) -> float:
    """The time in seconds at which a result's last frame is over."""
    return compute_frame_time(result, result.length - 1) + 1 / result.rate if result.length else 0.0


def _shorten(name: str) -> str:
    """A name as it is, cut off where it is long: dollars would begin a formula."""
    return (name if len(name) <= LONGEST else f"{name[:LONGEST]}...").replace("$", r"\$")
