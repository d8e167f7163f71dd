"""A result in rows and arrays: one row an object and frame, boxes, polygons, paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, Num

from masklet.core.errors import InputError
from masklet.core.limits import is_finite_number, quote_value
from masklet.core.outlines import trace_polygons
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, decode_rle_counts
from masklet.core.tracks import Masklet, Sighting

if TYPE_CHECKING:
    import pandas as pd


class TableRow(NamedTuple):
    """One object in one frame."""

    video: str
    frame: int
    time: float  # seconds from the first frame
    id: int
    name: str
    source: str  # detected, prompted, forward or backward
    score: float  # of the mask, 0 to 1
    presence: float  # the propagator's object score; above 0: in the frame
    object_score: float  # of the object, 0 to 1
    area: int  # pixels
    x0: int  # the box in pixels; x1 and y1 are one past the last
    y0: int
    x1: int
    y1: int


def list_rows(result: VideoResult) -> Iterator[TableRow]:
    """The rows of a result: by object, then by frame."""
    for m in result.masklets:
        for t in sorted(m.sightings):
            yield make_row(result, m, t, m.sightings[t])


def make_row(result: VideoResult, masklet: Masklet, frame: int, seen: Sighting) -> TableRow:
    """The row of a result's `masklet` that is `seen` so in a `frame`."""
    facts = seen.source.value, seen.score, seen.presence, masklet.score, seen.mask.area
    time = compute_frame_time(result, frame)
    return TableRow(result.name, frame, time, masklet.id, result.name_of(masklet), *facts, *seen.mask.box)


def compute_frame_time(result: VideoResult, frame: int) -> float:
    """Seconds from a result's first frame to this one."""
    return result.times[frame] if result.times else frame / result.rate


def make_dataframe(result: VideoResult) -> pd.DataFrame:
    """The rows as a pandas table. Raises InputError where there is no pandas."""
    try:
        import pandas as pd  # the table is for those who have it already
    except ImportError:
        raise InputError(
            "to_dataframe needs pandas, which is not installed: pip install pandas; or take masklet export table"
        ) from None
    return pd.DataFrame(list(list_rows(result)), columns=list(TableRow._fields))


def stack_masks(result: VideoResult, frame: int) -> Bool[np.ndarray, "n h w"]:
    """The masks of a frame in the order of `VideoResult.at`. Raises InputError on a frame that is not there."""
    return np.array([s.mask.decode_pixels() for _, s in result.at(frame)], bool).reshape(-1, *result.size)


def stack_boxes(result: VideoResult, frame: int) -> Int64[np.ndarray, "n 4"]:
    """The boxes of a frame in the order of `VideoResult.at`: x0, y0, x1, y1 in pixels. Raises InputError on a frame
    that is not there.
    """
    return np.array([s.mask.box for _, s in result.at(frame)], np.int64).reshape(-1, 4)


def trace_frame_polygons(
    result: VideoResult, frame: int, tolerance: float = 0.0
) -> dict[int, list[Num[np.ndarray, "_ 2"]]]:
    """The polygons of a frame by object, as `core.outlines.trace_polygons` has them. Raises InputError on a frame that
    is not there, or a tolerance that is none.
    """
    if not is_finite_number(tolerance) or tolerance < 0:
        raise InputError(
            f"{result.name}: the tolerance must be a number of pixels from 0 on, not {quote_value(tolerance)}"
        )
    return {m.id: trace_polygons(s.mask, tolerance) for m, s in result.at(frame)}


def compute_tracks(result: VideoResult) -> dict[int, Float[np.ndarray, "n 3"]]:
    """The path of each object by its id: frame, and the middle of its pixels, x and y."""
    return {
        m.id: np.array([(t, *compute_centroid(m.sightings[t].mask)) for t in sorted(m.sightings)], np.float64)
        for m in result.masklets
    }


def compute_centroid(mask: Rle) -> tuple[float, float]:
    """The middle of a mask's pixels, x and y, without decoding; pixel (0, 0) lies at 0.5. There must be a pixel.

    >>> compute_centroid(Rle.encode_pixels(np.array([[0, 1, 1], [0, 1, 1]], bool)))
    (2.0, 1.0)
    """
    ends = np.cumsum(decode_rle_counts(mask.counts))
    starts, stops = ends[:-1:2], ends[1::2]  # of the runs inside, column by column
    h, area = mask.size[0], int((stops - starts).sum())
    columns = int((_sum_columns(stops, h) - _sum_columns(starts, h)).sum())
    places = int(((stops * (stops - 1) - starts * (starts - 1)) // 2).sum())
    return columns / area + 0.5, (places - h * columns) / area + 0.5


def _sum_columns(end: Int64[np.ndarray, " n"], h: int) -> Int64[np.ndarray, " n"]:
    """The sum of the columns that all places before each `end` are in, where a column has `h` places."""
    whole, rest = np.divmod(end, h)
    total: Int64[np.ndarray, " n"] = h * (whole * (whole - 1) // 2) + whole * rest
    return total
