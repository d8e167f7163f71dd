"""Video AP: processor seconds of the plain twin over those of the fast code, and peak memory at 100 against 600 videos.

The load has the size of a YouTube-VIS validation set: 30 frames of 360x640, 40 categories, 3 objects and 10
predictions per video (about 43 MB of predictions for 300 videos). It is drawn once per size and kept in --folder.

python benchmarks/vis.py --folder /tmp/vis --videos 300 --twin-videos 20
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

HEIGHT, WIDTH, FRAMES, CATEGORIES, OBJECTS, PREDICTIONS = 360, 640, 30, 40, 3, 10
Mask = np.ndarray


def main() -> int:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/vis"), help="where the load is kept")
    parser.add_argument("--videos", type=int, default=300, help="videos of the load")
    parser.add_argument("--twin-videos", type=int, default=20, help="videos that the plain twin scores as well")
    parser.add_argument("--metric", default="youtube_vis", help="the function of masklet.evaluate.vis.metrics")
    parser.add_argument("--alone", action="store_true", help="one run, its seconds and peak memory, and no more")
    options = parser.parse_args()
    measure_alone(options) if options.alone else compare(options)
    return 0


def measure_alone(options: argparse.Namespace) -> None:
    """One metric in this fresh process."""
    from masklet.evaluate.vis import metrics as vis_metrics

    folder = load(options.folder, options.videos)
    metric = getattr(vis_metrics, f"evaluate_{options.metric}")
    report, seconds = timed(lambda: metric(folder / "gt.json", folder / "pred.json"))
    print(json.dumps({"seconds": seconds, "MB": peak(), "AP": report.scores["AP"]}))


def compare(options: argparse.Namespace) -> None:
    """The memory on many videos and the ratios to the plain twin on few, all printed."""
    from masklet.evaluate.vis import metrics as vis_metrics

    rows = {n: alone(options, n) for n in (100, options.videos, 600)}
    for n, row in rows.items():
        print(f"{options.metric}, {n} videos: {row['seconds']:.2f} s, peak {row['MB']:.0f} MB, AP {row['AP']:.5f}")
    print(f"peak memory at 600 videos / at 100: {rows[600]['MB'] / rows[100]['MB']:.3f}")
    folder, fast = load(options.folder, options.twin_videos), getattr(vis_metrics, f"evaluate_{options.metric}")
    for name, work in twins(options.metric, folder).items():
        report, seconds = timed(lambda: fast(folder / "gt.json", folder / "pred.json"))
        scores, slow = timed(work)
        print(f"{name} / fast, {options.twin_videos} videos, processor time: {slow / seconds:.1f}", end=" ")
        print(f"({slow:.2f} s / {seconds:.2f} s)")
        for key, score in scores.items():
            assert (score is None) == (report.scores[key] is None), key
            assert score is None or abs(score - report.scores[key]) < 1e-9, key


def alone(options: argparse.Namespace, videos: int) -> dict[str, Any]:
    """What `measure_alone` prints in a process of its own."""
    load(options.folder, videos)
    command = [sys.executable, __file__, "--alone", "--folder", options.folder, "--videos", videos]
    done = subprocess.run([*map(str, command), "--metric", options.metric], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def twins(metric: str, folder: Path) -> dict[str, Callable[[], dict[str, float | None]]]:
    """The same scores from the definitions, slowly: pixel by pixel, and by pycocotools as the official programs do."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from reference import vis as plain

    def read() -> list[Any]:
        return [json.loads((folder / name).read_text()) for name in ("gt.json", "pred.json")]

    ways = {"plain twin": lambda: getattr(plain, metric)(*read())}
    if metric == "youtube_vis":
        ways["twin with pycocotools' merges"] = lambda: plain.youtube_vis(*read(), plain.merged_iou)
    return ways


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a piece of work gives, and the processor seconds that this process spent on it, all threads together."""
    start = time.process_time()
    return work(), time.process_time() - start


def peak() -> float:
    """Highest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load(folder: Path, videos: int) -> Path:
    """A folder with gt.json and pred.json of so many videos, drawn if it is not there."""
    made = folder / f"load{videos}"
    if not (made / "pred.json").exists():
        made.mkdir(parents=True, exist_ok=True)
        drawn = [draw(np.random.RandomState(number), number) for number in range(1, videos + 1)]
        categories = [{"id": k, "name": f"category {k}"} for k in range(1, CATEGORIES + 1)]
        truth = {
            "videos": [video(n) for n in range(1, videos + 1)],
            "categories": categories,
            "annotations": [a | {"id": n} for n, a in enumerate((a for gt, _ in drawn for a in gt), start=1)],
        }
        (made / "gt.json").write_text(json.dumps(truth))
        (made / "pred.json").write_text(json.dumps([p for _, preds in drawn for p in preds]))
    return made


def video(number: int) -> dict[str, Any]:
    names = [f"v{number:04d}/{t:05d}.jpg" for t in range(FRAMES)]
    return {"id": number, "height": HEIGHT, "width": WIDTH, "length": FRAMES, "file_names": names}


def draw(rng: np.random.RandomState, number: int) -> tuple[list[Any], list[Any]]:
    """One video's annotations and predictions."""
    kinds = [int(k) for k in rng.randint(1, CATEGORIES + 1, OBJECTS)]
    tubes = [list(shape(rng, kind)) for kind in ("star", "ellipse", "ring")]
    truths = []
    for kind, tube in zip(kinds, tubes, strict=True):
        areas = [int(mask.sum()) for mask in tube]
        entry = {"video_id": number, "category_id": kind, "iscrowd": 0, "segmentations": encoded(tube), "areas": areas}
        truths.append(entry | {"occlusion": ["no_occlusion"] * FRAMES})
    found = []
    for p in range(PREDICTIONS):
        kind = kinds[p % 3] if rng.rand() < 0.8 else int(rng.randint(1, CATEGORIES + 1))
        masks = [spoilt(rng, mask, p) for mask in tubes[p % 3]]
        found.append(
            {"video_id": number, "category_id": kind, "score": float(rng.rand()), "segmentations": encoded(masks)}
        )
    return truths, found


def shape(rng: np.random.RandomState, kind: str) -> Iterator[Mask]:
    """A star, ellipse or ring that moves and turns."""
    radius = rng.uniform(0.06, 0.3) * HEIGHT
    x, y = rng.uniform(0.2, 0.8) * WIDTH, rng.uniform(0.2, 0.8) * HEIGHT
    dx, dy, turn = rng.uniform(-4, 4), rng.uniform(-3, 3), rng.uniform(-3, 3)
    for t in range(FRAMES):
        mask, angle = np.zeros((HEIGHT, WIDTH), np.uint8), np.deg2rad(turn * t)
        at = (round(x + dx * t), round(y + dy * t))
        if kind == "star":
            turns = angle + np.pi * np.arange(10) / 5
            reach = radius * np.where(np.arange(10) % 2, 0.45, 1)
            points = np.stack([at[0] + reach * np.cos(turns), at[1] + reach * np.sin(turns)], 1)
            cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
        else:
            axes = (round(radius), round(radius * 0.6))
            cv2.ellipse(mask, at, axes, turn * t, 0, 360, 1, -1)
            if kind == "ring":
                cv2.ellipse(mask, at, (axes[0] // 2, axes[1] // 2), turn * t, 0, 360, 0, -1)
        yield mask


def spoilt(rng: np.random.RandomState, mask: Mask, p: int) -> Mask:
    """A prediction of a mask: moved, fattened, and with a ragged edge."""
    reach = 3 * (1 + p // 3)
    moved = np.roll(mask, (rng.randint(-reach, reach + 1), rng.randint(-reach, reach + 1)), (0, 1))
    fat = cv2.dilate(moved, np.ones((3, 3), np.uint8), iterations=p % 3) if p % 3 else moved
    blocks = (rng.rand(HEIGHT // 8, WIDTH // 8) < 0.5).astype(np.uint8)
    swapped = np.kron(blocks, np.ones((8, 8), np.uint8)).astype(bool)
    return np.where(swapped, cv2.erode(fat, np.ones((5, 5), np.uint8)), fat)


def encoded(masks: list[Mask]) -> list[dict[str, Any] | None]:
    """Compressed run lengths; null where there is no pixel."""
    codes = [coco.encode(np.asfortranarray(mask)) if mask.any() else None for mask in masks]
    return [code and {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()} for code in codes]


if __name__ == "__main__":
    sys.exit(main())
