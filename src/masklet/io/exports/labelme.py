"""LabelMe's form: a json a frame with polygons, beside its image. Polygons of one object have its id as "group_id"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masklet.core.outlines import trace_polygons
from masklet.core.result import VideoResult
from masklet.io.exports.exported_results import ExportedResults


def write_labelme(results: ExportedResults, folder: Path, tolerance: float = 0.0) -> None:
    """Writes LabelMe's form.

    Args:
        results: of videos.
        folder: which gets <video>/<frame>.json and, of videos that are given, <video>/<frame>.jpg.
        tolerance: how far polygons may be from the mask's edge, in pixels; 0 keeps every pixel
    """
    for result in results:
        (folder / result.name).mkdir(parents=True)
        names = results.name_frames(result)
        for t in results.iterate_frame_numbers(result):
            content = format_labelme_page(result, t, f"{names[t]}.jpg", tolerance)
            (folder / result.name / f"{names[t]}.json").write_text(json.dumps(content, indent=1))
    results.write_images(folder)


def format_labelme_page(result: VideoResult, frame: int, image: str, tolerance: float) -> dict[str, Any]:
    """The content of a frame's json, whose image file is called `image`."""
    shapes = [
        {
            "label": result.name_of(m),
            "points": polygon.tolist(),
            "group_id": m.id,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for m, seen in result.at(frame)
        for polygon in trace_polygons(seen.mask, tolerance)
    ]
    h, w = result.size
    facts = {"imagePath": image, "imageData": None, "imageHeight": h, "imageWidth": w}
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, **facts}
