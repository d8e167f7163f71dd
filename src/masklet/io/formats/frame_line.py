"""What is seen in one frame as one line of JSON, for those who read a stream."""

from __future__ import annotations

import json
from collections.abc import Sequence

from masklet.core.instances import FrameMasks
from masklet.core.rle import Rle


def format_frame_line(masks: FrameMasks, time: float, categories: Sequence[str]) -> str:
    """One frame as JSON, without a line's end: {"frame", "time", "objects": [{"id", "name", "score", "box": [x0, y0,
    x1, y1], "rle": {"size": [h, w], "counts"}}, ...]}.

    Args:
        masks: what a stream answered for the frame.
        time: of the frame, in seconds from the first.
        categories: the names behind the labels.
    """
    objects = []
    rows = zip(masks.ids, masks.labels.tolist(), masks.scores.tolist(), masks.masks, strict=True)
    for id, label, score, mask in rows:
        rle = Rle.encode(mask)
        if rle.area:
            name = categories[label] if label >= 0 else "object"
            code = {"size": rle.size, "counts": rle.counts.decode()}
            objects.append({"id": id, "name": name, "score": round(score, 4), "box": rle.box, "rle": code})
    return json.dumps({"frame": masks.index, "time": round(time, 3), "objects": objects}, separators=(",", ":"))
