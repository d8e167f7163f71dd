"""J and F of video objects: seconds of two plain twins (the definition's distance, and OpenCV's dilation) over
seconds of the fast code, and peak memory at 100 against 600 videos, each in a process of its own.

The load is DAVIS-16's annotations (480x854) against the same masks dilated by an ellipse of 9 pixels; the memory is
measured on videos of its first frames. Ratios are of seconds on the clock and, where other work shares the machine,
of seconds of processor (which cannot show what the second core brings).

python benchmarks/vos.py --davis /data/DAVIS
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
DEFAULT = Path(os.environ.get("MASKLET_DAVIS", HERE.parent / "shared/data/davis16"))
COUNTS = (100, 600)  # videos between which the peak memory must not grow
FRAMES = 12  # of each
GROWTH = 1.1
METRICS = ("davis_semi", "davis_unsupervised")


def main() -> int:
    """Measures; 1 where memory grows with the number of videos."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--davis", type=Path, default=DEFAULT, help="folder in DAVIS layout (MASKLET_DAVIS)")
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2], help="numbers of cores to measure with")
    parser.add_argument("--alone", nargs=2, metavar=("METRIC", "FOLDER"), help="one run in this process, as json")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(*options.alone)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        compare(draw(options.davis, Path(folder) / "load"), options.cores)
        return memory(Path(folder))


def draw(davis: Path, folder: Path) -> Path:
    """The load as palette PNGs: `gt` and `pred`."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    for path in sorted(davis.glob("Annotations/480p/*/*.png")):
        mask = (np.array(Image.open(path)) > 0).astype(np.uint8)
        for side, values in (("gt", mask), ("pred", cv2.dilate(mask, ellipse))):
            target = folder / side / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(values)
            image.putpalette([0, 0, 0, 255, 0, 0] + [0, 0, 0] * 254)
            image.save(target)
    return folder


def compare(folder: Path, cores: list[int]) -> None:
    """The ratios to the twins, printed; the numbers must agree."""
    frames = len(list(folder.glob("gt/*/*.png")))
    twins = {near: timed(partial(twin, folder, near)) for near in ("by_distance", "by_dilation")}
    for near, (_, seconds, busy) in twins.items():
        print(
            f"plain twin {near}: {ms(seconds, frames)}, {ms(busy, frames)} of processor ({frames} frames)", flush=True
        )
    for metric, number in product(METRICS, cores):
        row = alone(metric, folder, number)
        print(f"{metric} on {number} cores: {ms(row['seconds'], frames)}, {ms(row['busy'], frames)} of processor")
        for near, ((j, f), seconds, busy) in twins.items():
            print(f"  {near} / fast {seconds / row['seconds']:.1f}, of processor {busy / row['busy']:.1f}", flush=True)
            assert metric != "davis_semi" or max(abs(row["J"] - j), abs(row["F"] - f)) < 1e-9, (row, j, f)


def ms(seconds: float, frames: int) -> str:
    """Time per frame."""
    return f"{1000 * seconds / frames:.2f} ms per frame"


def memory(folder: Path) -> int:
    """Peak memory of few and of many videos, printed; 1 where it grows."""
    worst = 0.0
    for metric in METRICS:
        rows = [alone(metric, copies(folder, count), 2) for count in COUNTS]
        ratio = rows[1]["MB"] / rows[0]["MB"]
        print(
            f"{metric}: peak {rows[0]['MB']:.1f} MB at {COUNTS[0]} videos, {rows[1]['MB']:.1f} at {COUNTS[1]}, ", end=""
        )
        print(f"ratio {ratio:.3f} ({rows[1]['seconds']:.0f} s)")
        worst = max(worst, ratio)
    return int(worst > GROWTH)


def copies(folder: Path, count: int) -> Path:
    """As many videos, all links to the first frames of one."""
    made = folder / str(count)
    for side in ("gt", "pred"):
        short, first = folder / f"short-{side}", min((folder / "load" / side).iterdir())
        short.mkdir(exist_ok=True)
        for path in sorted(first.iterdir())[:FRAMES]:
            shutil.copy(path, short)
        (made / side).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            (made / side / f"video{n:04d}").unlink(missing_ok=True)
            (made / side / f"video{n:04d}").symlink_to(short)
    return made


def alone(metric: str, folder: Path, cores: int) -> dict[str, Any]:
    """What `measure` says in a fresh process with so many cores."""
    command = [sys.executable, __file__, "--alone", metric, str(folder)]
    if hasattr(os, "sched_setaffinity"):
        command = ["taskset", "-c", f"0-{cores - 1}", *command]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure(metric: str, folder: str) -> dict[str, float | None]:
    """One metric in this process: seconds, peak memory, J and F."""
    from masklet.evaluate.vos import davis

    report, seconds, busy = timed(
        lambda: getattr(davis, f"evaluate_{metric}")(Path(folder) / "gt", Path(folder) / "pred")
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "busy": busy, "MB": peak, "J": report.scores["J-Mean"], "F": report.scores["F-Mean"]}


def twin(folder: Path, near: str) -> tuple[float, float]:
    """J and F of the load from the definitions, slowly."""
    sys.path.insert(0, str(HERE / "tests"))
    from reference import vos as plain

    cv2.setNumThreads(1)
    scores = []
    for video in sorted((folder / "gt").iterdir()):
        truth = sorted(video.iterdir())
        found = [folder / "pred" / video.name / p.name for p in truth]
        scores.append(plain.semi_supervised(truth, found, getattr(plain, near)))
    return tuple(float(np.mean([side.mean() for side in sides])) for sides in zip(*scores, strict=True))


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a piece of work gives, the seconds it took, and those of processor."""
    start, busy = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - start, time.process_time() - busy


if __name__ == "__main__":
    sys.exit(main())
