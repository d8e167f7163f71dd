"""J&F of `track` from a mask and from one click, J of `run` and of DEVA: over a folder in DAVIS layout.

    python benchmarks/davis.py --davis /data/DAVIS --out davis.json

A table, and the same figures as json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool

import masklet
from masklet import Point
from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.evaluate.vos.davis import DavisSequence, find_davis_sequences
from masklet.evaluate.vos.measures import (
    DavisStatistics,
    LabelMap,
    find_given_objects,
    measure_discovery,
    score_given_objects,
)
from masklet.train.data.prompt_crops import measure_depth

HERE = Path(__file__).resolve().parent.parent
DEFAULT = Path(os.environ.get("MASKLET_DAVIS", HERE.parent / "shared/data/davis16"))
Truth = Mapping[int, LabelMap]
Row = dict[str, Any]
COLUMNS = {  # by measurement: the figures that the table shows, and their titles
    "track": {"J&F": "track J&F", "J": "J", "F": "F", "seconds_per_frame": "s/frame"},
    "click": {"J&F": "click J&F", "J": "J", "F": "F"},
    "run": {
        "best_J": "run best J",
        "union_J": "union J",
        "masklets": "masklets",
        "seconds_per_frame": "s/frame",
    },
    "deva": {
        "best_J": "deva best J",
        "union_J": "union J",
        "masklets": "masklets",
        "seconds_per_frame": "s/frame",
    },
}


def main() -> int:
    """Runs the benchmark as the command line says; 2 where that cannot be done."""
    options = parsed()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    try:
        report = measure(options)
    except InputError as error:
        print(f"davis: {error}", file=sys.stderr)
        return 2
    print(line("mean", report["mean"]))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written to {options.out}")
    return 0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--davis", type=Path, default=DEFAULT, help="folder in DAVIS layout (MASKLET_DAVIS)")
    parser.add_argument("--out", type=Path, help="json file for the figures")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch and OpenCV")
    parser.add_argument("--only", choices=list(COLUMNS), help="one of the measurements")
    parser.add_argument("--propagator", help="in place of the default")
    parser.add_argument("--segmenter", help="in place of the default, for run and deva")
    parser.add_argument("--sequences", default="", help="names, with commas between them; default: all")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> Row:
    """Every sequence's figures, printed as they come, and what they were measured with."""
    names = tuple(filter(None, options.sequences.split(",")))
    sequences = find_davis_sequences(options.davis, names)
    measures = {name: run for name, run in MEASURES.items() if options.only in (None, name)}
    print(heading(tuple(measures)))
    rows, settings = {}, {}
    for sequence in sequences:
        truth = sequence.truth()
        results = {name: run(sequence, truth, parts_of(name, options)) for name, run in measures.items()}
        rows[sequence.name] = {"frames": sequence.length} | {name: row for name, (row, _) in results.items()}
        settings = {name: settings_of(result) for name, (_, result) in results.items()}
        print(line(sequence.name, rows[sequence.name]), flush=True)
    about = {"version": version("masklet"), "davis": str(options.davis), "threads": options.threads}
    return about | {"settings": settings, "sequences": rows, "mean": means(list(rows.values()))}


def parts_of(name: str, options: argparse.Namespace) -> dict[str, str]:
    """What is to be used in place of the defaults; `track` finds nothing."""
    asked = {"propagator": options.propagator, "segmenter": None if name in ("track", "click") else options.segmenter}
    return {part: value for part, value in asked.items() if value}


def track(
    mark: Callable[[Bool[np.ndarray, "h w"]], Any], sequence: DavisSequence, truth: Truth, parts: Mapping[str, str]
) -> tuple[Row, VideoResult]:
    """From the first frame to the end: J and F of every object, first and last frame left out."""
    start, ids = find_given_objects(truth)
    prompts = {start: {i: mark(truth[start] == i) for i in ids}}
    result, seconds = timed(partial(masklet.track, str(sequence.images), prompts, **parts))
    scores = score_given_objects(result, truth)
    objects = {i: {"J&F": s.jf} | statistics("J", s.j) | statistics("F", s.f) for i, s in scores.items()}
    row = averages(objects, ("J&F", "J", "F")) | {"seconds_per_frame": seconds / sequence.length}
    return row | {"objects": objects}, result


def automatic(system: str, sequence: DavisSequence, truth: Truth, parts: Mapping[str, str]) -> tuple[Row, VideoResult]:
    """Nothing given: the best single masklet of every object, and all masklets against the foreground."""
    result, seconds = timed(partial(masklet.segment, str(sequence.images), system=system, **parts))
    found = measure_discovery(result, truth)
    objects = {i: {"best_J": j, "masklet": id} for i, (id, j) in found.best.items()}
    row = averages(objects, ("best_J",)) | {"union_J": found.union, "masklets": len(result.masklets)}
    return row | {"seconds_per_frame": seconds / sequence.length, "objects": objects}, result


def click(mask: Bool[np.ndarray, "h w"]) -> Point:
    """The pixel of a mask that is furthest from its border."""
    depth = measure_depth(mask)
    y, x = divmod(int(depth.argmax()), mask.shape[1])
    return Point(x, y)


MEASURES = {
    "track": partial(track, torch.from_numpy),
    "click": partial(track, click),
    "run": partial(automatic, "sam2bmp"),
    "deva": partial(automatic, "deva"),
}


def statistics(measure: str, summary: DavisStatistics) -> Row:
    """One measure's mean, recall and decay."""
    return {measure: summary.mean, f"{measure}_recall": summary.recall, f"{measure}_decay": summary.decay}


def timed(work: Callable[[], VideoResult]) -> tuple[VideoResult, float]:
    """What a piece of work gives, and the seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def averages(objects: Mapping[int, Row], keys: tuple[str, ...]) -> Row:
    """The plain means over objects."""
    return {key: float(np.mean([row[key] for row in objects.values()])) for key in keys}


def means(rows: list[Row]) -> Row:
    """The last line: over all objects for figures that belong to one, as in DAVIS; else over sequences."""
    total: Row = {"frames": sum(row["frames"] for row in rows)}
    for name in (n for n in COLUMNS if n in rows[0]):
        measured = [row[name] for row in rows]
        objects = [scores for row in measured for scores in row["objects"].values()]
        over = {key: objects if key in objects[0] else measured for key in COLUMNS[name]}
        total[name] = {key: float(np.mean([row[key] for row in among])) for key, among in over.items()}
    return total


def settings_of(result: VideoResult) -> Row:
    """What a result was made with, but for the prompts, which are the sequence's."""
    made = result.provenance
    settings = {key: value for key, value in made.settings.items() if key != "prompts"}
    return {"system": made.system, "settings": settings, "weights": dict(made.weights)}


def heading(measures: tuple[str, ...]) -> str:
    """The table's first line."""
    titles = [title for name in measures for title in COLUMNS[name].values()]
    return f"{'sequence':<20}{'frames':>7}" + "".join(f"{title:>12}" for title in titles)


def line(name: str, row: Row) -> str:
    """One line of the table."""
    cells = [row[m][key] for m in COLUMNS if m in row for key in COLUMNS[m]]
    shown = [f"{cell:>12.3f}" if isinstance(cell, float) else f"{cell:>12}" for cell in cells]
    return f"{name:<20}{row['frames']:>7}" + "".join(shown)


if __name__ == "__main__":
    sys.exit(main())
