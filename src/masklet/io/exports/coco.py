"""COCO's form over the frames of videos: annotations.json, and the images where the videos are given.

Each image also says its video and frame, each annotation the object's id ("track_id") and score, as COCO-VID has them;
COCO's own readers pass over that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from masklet.core.outlines import trace_polygons
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.io.exports.exported_results import IMAGES, ExportedResults
from masklet.io.exports.json_rows import write_json_rows
from masklet.io.formats.cocovid import compute_coco_box, write_cocovid
from masklet.io.formats.json_entry import format_coco_rle
from masklet.io.formats.split import find_category_id, index_categories


def write_coco(results: ExportedResults, folder: Path, polygons: bool = False, tolerance: float = 0.0) -> None:
    """Writes COCO's form into `folder`.

    Args:
        results: of videos.
        folder: which gets annotations.json and, of videos that are given, images/<video>/<frame>.jpg.
        polygons: true for polygons in place of run lengths; holes are cut open
        tolerance: how far polygons may be from the mask's edge, in pixels; 0 keeps every pixel
    """
    ids = index_categories(results)
    facts = {
        "info": {"description": "masklets"},
        "licenses": [],
        "videos": [{"id": n, "name": r.name} for n, r in enumerate(results, start=1)],
        "categories": [{"id": id, "name": name, "supercategory": ""} for name, id in ids.items()],
    }
    rows = {
        "images": _list_images(results),
        "annotations": _list_annotations(results, ids, polygons, tolerance),
    }
    write_json_rows(folder / "annotations.json", facts, rows)
    results.write_images(folder / IMAGES)


def _list_images(results: ExportedResults) -> Iterator[dict[str, Any]]:
    ids = count(1)
    for n, result in enumerate(results, start=1):
        facts = {"video_id": n, "height": result.size[0], "width": result.size[1]}
        for t, name in enumerate(results.name_frames(result)):
            yield {"id": next(ids), "file_name": f"{result.name}/{name}.jpg", "frame_id": t, **facts}


def _list_annotations(
    results: ExportedResults, ids: Mapping[str, int], polygons: bool, tolerance: float
) -> Iterator[dict[str, Any]]:
    images, numbers = count(1), count(1)
    for n, result in enumerate(results, start=1):
        for t in results.iterate_frame_numbers(result):
            image = next(images)
            for found in _format_annotations(result, t, ids, polygons, tolerance):
                yield {"id": next(numbers), "image_id": image, "video_id": n, **found}


def _format_annotations(
    result: VideoResult, frame: int, ids: Mapping[str, int], polygons: bool, tolerance: float
) -> Iterator[dict[str, Any]]:
    for masklet, seen in result.at(frame):
        drawn = format_coco_polygons(seen.mask, tolerance) if polygons else format_coco_rle(seen.mask)
        yield {
            "category_id": find_category_id(result, masklet, ids),
            "track_id": masklet.id,
            "score": masklet.score,
            "iscrowd": 0,
            "area": seen.mask.area,
            "bbox": compute_coco_box(seen.mask),
            "segmentation": drawn,
        }


def format_coco_polygons(mask: Rle, tolerance: float) -> list[list[int]]:
    """The polygons of a mask as COCO has them: x0, y0, x1, y1, ..."""
    return [[int(v) for v in polygon.ravel()] for polygon in trace_polygons(mask, tolerance)]


def write_cocovid_set(results: ExportedResults, folder: Path) -> None:
    """Writes all results into `folder`/cocovid.json, and images/<video>/<frame>.jpg of videos that are given."""
    write_cocovid(results, folder / "cocovid.json", results.map_frame_names())
    results.write_images(folder / IMAGES)
