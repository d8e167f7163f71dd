"""The project's own result file: JSON, masks as COCO run lengths.

{"format": "masklet/1", "name", "size": [h, w], "length", "rate", "categories": [...],
 "provenance": {...}, "times": [seconds, ...] where not constant, "pixel_aspect" where not 1,
 "masklets": [{"id", "label", "score", "is_thing",
               "sightings": [[frame, source, score, label, presence, counts], ...]}, ...]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source

FORMAT = "masklet/1"


def write_result(result: VideoResult, path: Path) -> None:
    """Writes a result. Raises InputError where the file cannot be written."""
    content = {
        "format": FORMAT,
        "name": result.name,
        "size": result.size,
        "length": result.length,
        "rate": result.rate,
        "categories": result.categories,
        "provenance": asdict(result.provenance),
        **({"times": result.times} if result.times else {}),
        **({"pixel_aspect": result.pixel_aspect} if result.pixel_aspect != 1 else {}),
        "masklets": [_format_masklet(m) for m in result.masklets],
    }
    with write_atomically(path) as file:
        file.write(json.dumps(content, separators=(",", ":"), allow_nan=False).encode())


def _format_masklet(m: Masklet) -> dict[str, Any]:
    rows = [(t, s.source.value, s.score, s.label, s.presence, s.mask.counts.decode()) for t, s in m.sightings.items()]
    return {"id": m.id, "label": m.label, "score": m.score, "is_thing": m.is_thing, "sightings": rows}


def read_result(path: Path) -> VideoResult:
    """Reads a result. Raises InputError naming the file and the entry that is damaged."""
    content = _read_result_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: not a masklet result (format {found!r}, expected {FORMAT!r})")
    with _explain_bad_entry(f"{path}"):
        h, w = (int(n) for n in content["size"])
        if h < 1 or w < 1:
            raise ValueError(f"size {content['size']}; a frame has at least one pixel")
        length, categories = int(content["length"]), tuple(str(c) for c in content["categories"])
        made = dict(content["provenance"])
        provenance = Provenance(**{**made, "notes": tuple(made["notes"])})
        name, rate, entries = str(content["name"]), float(content["rate"]), list(content["masklets"])
        times, aspect = _read_times(content, length), _read_pixel_aspect(content)
    masklets = []
    for n, entry in enumerate(entries):
        with _explain_bad_entry(f"{path}: masklet {n}"):
            masklets.append(_read_masklet(entry, (h, w), length, len(categories)))
    return VideoResult(name, (h, w), length, rate, tuple(masklets), categories, provenance, times, aspect)


def _read_times(content: Mapping[str, Any], length: int) -> tuple[float, ...]:
    times = tuple(float(t) for t in content.get("times", ()))
    rises = all(a <= b for a, b in pairwise(times)) and all(map(math.isfinite, times))
    if times and not (rises and len(times) == length):
        raise ValueError(f"times: {len(times)} for {length} frames; there is one for each, and they do not fall")
    return times


def _read_pixel_aspect(content: Mapping[str, Any]) -> float:
    aspect = float(content.get("pixel_aspect", 1.0))
    if not (math.isfinite(aspect) and aspect > 0):
        raise ValueError(f"pixel_aspect {aspect}; it is the width of a pixel over its height")
    return aspect


def _read_result_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut off ({error})") from None


@contextmanager
def _explain_bad_entry(where: str) -> Iterator[None]:
    """Turns what a malformed entry causes into a sentence that names it."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{where}: {error.args[0]!r} is missing") from None
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def _read_masklet(entry: Mapping[str, Any], size: tuple[int, int], length: int, categories: int) -> Masklet:
    sightings = {}
    for row in entry["sightings"]:
        frame, source, score, label, presence, counts = row
        if not 0 <= frame < length or not -1 <= label < categories:
            raise ValueError(f"frame {frame} of {length}, label {label} of {categories} categories")
        sightings[int(frame)] = Sighting(
            Rle.checked(size, counts.encode()), Source(source), float(score), int(label), float(presence)
        )
    if not sightings or not -1 <= entry["label"] < categories:
        raise ValueError(f"{len(sightings)} sightings, label {entry['label']} of {categories} categories")
    return Masklet(int(entry["id"]), sightings, int(entry["label"]), float(entry["score"]), bool(entry["is_thing"]))
