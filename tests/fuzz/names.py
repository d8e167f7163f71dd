"""The kinds of input, without importing what reads them."""

from __future__ import annotations

KINDS = (
    *("result", "submission", "ytvis-truth", "ytvis-results", "cocovid", "burst", "panoptic", "mots", "split"),
    *("davis", "image", "eval-vis", "eval-davis", "eval-panoptic", "eval-burst", "eval-meta", "rle", "polygon"),
    *(
        "memory",
        "weights",
        "settings",
        "prompts",
        "prompt-file",
        "detections",
        "detection-files",
        "array-masks",
        "datasets",
        "annotation-tools",
        "video",
        "frames",
    ),
)
