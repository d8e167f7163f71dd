"""One frame of a result as plain values, for forms that store frame by frame (Parquet, webdataset)."""

from __future__ import annotations

from typing import Any

from masklet.core.result import VideoResult
from masklet.core.tables import compute_frame_time


def format_frame(result: VideoResult, frame: int, name: str) -> dict[str, Any]:
    """A frame, called `name`, and its objects; masks as COCO's compressed run lengths of the frame's size."""
    h, w = result.size
    objects = [
        {
            "id": m.id,
            "name": result.name_of(m),
            "score": m.score,
            "source": seen.source.value,
            "area": seen.mask.area,
            "box": list(seen.mask.box),
            "counts": seen.mask.counts.decode(),
        }
        for m, seen in result.at(frame)
    ]
    time = compute_frame_time(result, frame)
    return {
        "video": result.name,
        "frame": frame,
        "frame_name": name,
        "time": time,
        "height": h,
        "width": w,
        "objects": objects,
    }
