"""VPQ, STQ and HOTA: how much faster than their plain twins, and whether memory grows with the number of videos.

python benchmarks/panoptic.py            the ratios, and peak memory with 100 and with 600 videos in fresh processes
python benchmarks/panoptic.py --full     seconds for a VIPSeg-like set of 720p videos, and for a BURST-like one

Ratios and the growth of memory survive a change of machine; the growth decides about the exit status.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from reference import panoptic as plain  # noqa: E402
from reference import tracking as plain_tracking  # noqa: E402

from masklet.evaluate.panoptic.metrics import evaluate_vipseg  # noqa: E402
from masklet.evaluate.panoptic.quality import WINDOWS, count_stq, count_window_matches, list_deva_windows  # noqa: E402
from masklet.evaluate.panoptic.segments import FrameOverlap, ListedSegment, VideoTable, count_shared_pixels  # noqa: E402
from masklet.evaluate.tracking.burst import evaluate_burst  # noqa: E402
from masklet.evaluate.tracking.measures import TrackFrame, count_hota  # noqa: E402

CATEGORIES = 12
GROWTH = 1.3  # of peak memory from 100 to 600 videos; the JSON of all of them is held


def main() -> int:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        evaluate_vipseg(options.peak, options.peak)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return 0
    if options.full:
        full()
        return 0
    print(f"VPQ and STQ: {panoptic_ratio():.0f} times as fast as the plain twin (48x64, 8 frames, after decoding)")
    print(f"HOTA: {hota_ratio():.0f} times as fast as the plain twin (6 and 6 tracks, 20 frames)")
    peaks = {n: peak(n) for n in (100, 600)}
    print(f"peak memory: {peaks[100]} MB with 100 videos, {peaks[600]} MB with 600")
    return int(peaks[600] > GROWTH * peaks[100])


def blobs(rng: np.random.Generator, size: tuple[int, int], frames: int, objects: int, jitter: int) -> list[np.ndarray]:
    """Maps of stuff in bands with round things that move on it."""
    h, w = size
    stuff = np.repeat(np.arange(1, 5), -(-h // 4))[:h, None] * np.ones((1, w), int)
    starts, speeds = rng.uniform(0, [w, h], (objects, 2)), rng.uniform(-w / 100, w / 100, (objects, 2))
    maps = []
    for t in range(frames):
        page = stuff.astype(np.int32)
        for n, (start, speed) in enumerate(zip(starts, speeds, strict=True)):
            x, y = start + speed * t + rng.integers(-jitter, jitter + 1, 2)
            cv2.ellipse(page, (int(x) % w, int(y) % h), (w // 12, h // 9), 0, 0, 360, int(70000 + n), -1)
        maps.append(page)
    return maps


def pair(size: tuple[int, int], frames: int, objects: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """True and predicted maps that agree in most."""
    jitter = max(size[1] // 100, 1)
    return tuple(blobs(np.random.default_rng(seed), size, frames, objects, j) for j in (0, jitter))


def category(id: int) -> int:
    """Stuff 0 to 3, things above."""
    return id - 1 if id < 5 else 4 + id % (CATEGORIES - 4)


def panoptic_ratio() -> float:
    """The twin's time over ours, for all windows and STQ of one video whose maps are at hand."""
    true, found = pair((48, 64), 8, 6)
    things = np.arange(CATEGORIES) > 3
    lists = [[(int(i), category(int(i)), int((m == i).sum()), False) for i in np.unique(m)] for m in true]
    others = [[(int(i), category(int(i))) for i in np.unique(m)] for m in found]

    def slow() -> None:
        frames = list(zip(true, found, lists, others, strict=True))
        for k in WINDOWS:
            plain.vpq(frames, k, CATEGORIES)
        plain.stq(frames, things, True)

    def fast() -> None:
        frames = [
            FrameOverlap(
                *count_shared_pixels(t, f),
                {i: ListedSegment(c, a, w) for i, c, a, w in rows},
                {i: ListedSegment(c) for i, c in more},
            )
            for t, f, rows, more in zip(true, found, lists, others, strict=True)
        ]
        table = VideoTable.of(frames)
        for k in WINDOWS:
            count_window_matches(table, list_deva_windows(table.length, k), CATEGORIES)
        count_stq(table, things)

    return seconds(slow) / seconds(fast, 10)


def hota_ratio() -> float:
    """The twin's time over ours, for one video of six tracks."""
    rng = np.random.default_rng(0)
    frames = [(list(range(6)), list(range(6)), rng.random((6, 6)).tolist()) for _ in range(20)]
    typed = [TrackFrame(np.array(t), np.array(f), np.array(s)) for t, f, s in frames]
    return seconds(lambda: plain_tracking.hota(frames)) / seconds(lambda: count_hota(typed), 10)


def seconds(work, times: int = 1) -> float:
    """The shortest of three runs."""
    runs = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(times):
            work()
        runs.append((time.perf_counter() - start) / times)
    return min(runs)


def write(folder: Path, videos: int, frames: int, size: tuple[int, int], objects: int) -> None:
    """A set in VIPSeg's layout, ground truth and prediction in one folder; all videos show the same."""
    maps = dict(zip(("panomasksRGB", "pan_pred"), pair(size, frames, objects), strict=True))
    files = {"panomasksRGB": "panoptic_gt.json", "pan_pred": "pred.json"}
    for kind, pages in maps.items():
        entries = []
        for t, page in enumerate(pages):
            first = folder / kind / "0" / f"{t:05d}.png"
            first.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.stack([page & 255, page >> 8 & 255, page >> 16], -1).astype(np.uint8)).save(first)
            ids = zip(*(a.tolist() for a in np.unique(page, return_counts=True)), strict=True)
            listed = [{"id": i, "category_id": category(i), "iscrowd": 0, "area": n} for i, n in ids]
            entries.append({"file_name": first.name, "segments_info": listed})
            for n in range(1, videos):
                (folder / kind / str(n)).mkdir(exist_ok=True)
                os.link(first, folder / kind / str(n) / first.name)
        listed_categories = [{"id": n, "name": f"c{n}", "isthing": int(n > 3)} for n in range(CATEGORIES)]
        annotations = [{"video_id": str(n), "annotations": entries} for n in range(videos)]
        (folder / files[kind]).write_text(json.dumps({"annotations": annotations, "categories": listed_categories}))


def peak(videos: int) -> int:
    """MB that a fresh process needs for a set of small videos."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), videos, 4, (240, 320), 6)
        run = subprocess.run([sys.executable, __file__, "--peak", name], capture_output=True, text=True, check=True)
    return int(run.stdout)


def full() -> None:
    """Seconds for large sets, files included."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), 4, 60, (720, 1280), 15)
        start = time.perf_counter()
        evaluate_vipseg(Path(name), Path(name))
        taken = time.perf_counter() - start
        print(
            f"VPQ and STQ: {taken:.2f} s for 240 frames of 720p, {1000 * taken / 240:.1f} ms a frame", scores["VPQ bar"]
        )
    with tempfile.TemporaryDirectory() as name:
        write_burst(Path(name), 50, 35)
        start = time.perf_counter()
        evaluate_burst(Path(name), Path(name) / "pred.json")
        taken = time.perf_counter() - start
        print(
            f"BURST: {taken:.2f} s for 50 sequences of 35 frames, {1000 * taken / 50:.0f} ms each",
            scores["open-world OWTA"],
        )


def write_burst(folder: Path, sequences: int, frames: int) -> None:
    """A set in BURST's form, 12 tracks a frame, predicted with 20."""
    sides = [pair((480, 640), frames, n)[side] for side, n in ((0, 12), (1, 20))]
    written = []
    for pages in sides:
        shapes = []
        for page in pages:
            ids = [int(i) for i in np.unique(page) if i > 4]
            rles = [coco.encode(np.asfortranarray((page == i).astype(np.uint8)))["counts"].decode() for i in ids]
            shapes.append({str(i): {"rle": r, "score": 0.5} for i, r in zip(ids, rles, strict=True)})
        sequence = {
            "dataset": "BDD", "height": 480, "width": 640, "neg_category_ids": [], "not_exhaustive_category_ids": [],
            "annotated_image_paths": [f"frame{t:04d}.jpg" for t in range(frames)], "segmentations": shapes,
            "track_category_ids": {str(70000 + n): (4, 918, 13)[n % 3] for n in range(20)},
        }  # fmt: skip
        written.append({"split": "val", "sequences": [sequence | {"seq_name": str(n)} for n in range(sequences)]})
    for name in ("all_classes", "common_classes", "uncommon_classes"):
        (folder / f"{name}.json").write_text(json.dumps(written[0]))
    (folder / "pred.json").write_text(json.dumps(written[1]))


if __name__ == "__main__":
    sys.exit(main())
