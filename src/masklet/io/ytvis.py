"""YouTube-VIS's results form: one entry per object with a mask or null for every frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masklet.core.files import write_atomically
from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet


def write_ytvis(results: Sequence[VideoResult], path: Path) -> None:
    """Writes results; video_id and category_id count from 1, in the order of the results and categories."""
    entries = [entry(r, m, n) for n, r in enumerate(results, start=1) for m in r.masklets]
    with write_atomically(path) as file:
        file.write(json.dumps(entries).encode())


def entry(result: VideoResult, masklet: Masklet, video_id: int) -> dict[str, Any]:
    """One object; one without a name is of the first category."""
    seen = masklet.sightings
    return {
        "video_id": video_id,
        "category_id": max(masklet.label, 0) + 1,
        "score": masklet.score,
        "segmentations": [
            {"size": list(result.size), "counts": seen[t].mask.counts.decode()} if t in seen else None
            for t in range(result.length)
        ],
    }
