"""Ultralytics' segmentation form: a txt a frame with a class and a polygon a line in shares of the image, data.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from masklet.core.outlines import join_polygons, trace_polygons
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.io.exports.exported_results import ExportedResults
from masklet.io.formats.split import find_category_id, index_categories

Split = Literal["train", "val", "test"]


def write_ultralytics(results: ExportedResults, folder: Path, split: Split = "train", tolerance: float = 0.0) -> None:
    """Writes Ultralytics' segmentation form; parts and holes of an object are joined by cuts of no width, as
    Ultralytics itself joins them.

    Args:
        results: of videos.
        folder: which gets data.yaml, labels/<split>/<video>/<frame>.txt and, of videos that are given,
            images/<split>/<video>/<frame>.jpg.
        split: train, val or test
        tolerance: how far polygons may be from the mask's edge, in pixels; 0 keeps every pixel
    """
    classes = index_categories(results, first=0)
    for result in results:
        labels = folder / "labels" / split / result.name
        labels.mkdir(parents=True)
        names = results.name_frames(result)
        for t in results.iterate_frame_numbers(result):
            (labels / f"{names[t]}.txt").write_text(format_ultralytics_page(result, t, classes, tolerance))
    results.write_images(folder / "images" / split)
    listed = {part: f"images/{split}" for part in dict.fromkeys(("train", "val", split))}
    lines = [f"{part}: {json.dumps(place)}" for part, place in listed.items()]
    lines += ["names:", *(f"  {id}: {json.dumps(name)}" for name, id in classes.items())]
    (folder / "data.yaml").write_text("\n".join([*lines, ""]))


def format_ultralytics_page(result: VideoResult, frame: int, classes: Mapping[str, int], tolerance: float) -> str:
    """The lines of a frame's txt."""
    lines = [
        f"{find_category_id(result, m, classes)} {shares}\n"
        for m, seen in result.at(frame)
        if (shares := format_shares(seen.mask, tolerance))
    ]
    return "".join(lines)


def format_shares(mask: Rle, tolerance: float) -> str:
    """The outline of a mask, which has a pixel, in shares of the frame.

    >>> import numpy as np
    >>> format_shares(Rle.encode_pixels(np.array([[1, 0], [0, 0]], bool)), 0.0)
    '0 0 0.5 0 0.5 0.5 0 0.5'
    """
    polygons = trace_polygons(mask, tolerance)
    h, w = mask.size
    return " ".join(f"{x / w:.8g} {y / h:.8g}" for x, y in join_polygons(polygons).tolist())
