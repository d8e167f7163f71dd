"""SAM 3's tracker beside transformers' own video session, a slim network of drawn weights: state, memory and time over
many frames with several objects, both in one run, each in a process of its own.

    python benchmarks/sam3.py --frames 300 --objects 8

State is the tensors that the tracker keeps between two frames; time is of the processor, so that other work on the
machine counts little. Prints a table, and the ratio that matters.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
MARKS = (10, 50, 100, 200, 300)


def draw_frames(count: int, side: int) -> Iterator[np.ndarray]:
    """Frames of blobs that move, on noise."""
    draw = np.random.default_rng(0)
    ground = draw.integers(0, 120, (side // 8, side // 8, 3)).repeat(8, 0).repeat(8, 1)
    ys, xs = np.mgrid[:side, :side]
    for t in range(count):
        image = ground.copy()
        for n in range(8):
            y, x = side * (0.15 + 0.1 * n), side * (0.5 + 0.3 * np.sin(t / 20 + n))
            image[(ys - y) ** 2 + (xs - x) ** 2 < (side / 16) ** 2] = draw.integers(100, 255, 3)
        yield image.astype(np.uint8)


def place_points(objects: int, side: int) -> dict[int, tuple[float, float]]:
    """A click on each object in the first frame."""
    return {n + 1: (side * (0.5 + 0.3 * float(np.sin(n))), side * (0.15 + 0.1 * (n % 8))) for n in range(objects)}


def start_ours(frames: int, objects: int) -> tuple[Callable[[int], None], Callable[[], int]]:
    """What does frame n with masklet, and what counts the bytes of its state."""
    from models.test_sam3_tracker import propagator
    from small_sam3 import SIDE

    from masklet.core.features import count_tensor_bytes
    from masklet.core.frames import Frame
    from masklet.core.instances import Point

    tracker, images = propagator(), draw_frames(frames, SIDE)
    held = {"memory": tracker.empty()}
    given = {id: Point(*at) for id, at in place_points(objects, SIDE).items()}

    def step(t: int) -> None:
        [features] = tracker.encode([Frame(t, next(images))])
        belief = tracker.predict(held["memory"], features)
        held["memory"] = tracker.commit(held["memory"], features, belief)
        if t == 0:
            held["memory"], _ = tracker.prompt(held["memory"], features, given)

    return step, lambda: count_tensor_bytes(held["memory"])


def start_transformers(frames: int, objects: int) -> tuple[Callable[[int], None], Callable[[], int]]:
    """The same with transformers' session, which is given frames as they come."""
    import torch
    from small_sam3 import SIDE, build_whole_tracker
    from transformers import Sam3TrackerVideoInferenceSession

    from masklet.core.features import count_tensor_bytes

    net, held = build_whole_tracker(), Sam3TrackerVideoInferenceSession(None, SIDE, SIDE, dtype=torch.float32)
    images = draw_frames(frames, SIDE)

    def step(t: int) -> None:
        pixels = torch.from_numpy(next(images)).permute(2, 0, 1).float() / 127.5 - 1
        if t:
            net(held, frame=pixels)
            return
        for id, at in place_points(objects, SIDE).items():
            point = {"point_coords": torch.tensor(at).view(1, 1, 1, 2), "point_labels": torch.ones(1, 1, 1).int()}
            held.add_point_inputs(held.obj_id_to_idx(id), 0, point)
        held.obj_with_new_inputs = list(place_points(objects, SIDE))
        net(held, frame=pixels)

    def count() -> int:
        kept: list[Any] = [held.output_dict_per_obj, held.processed_frames, held.cache._vision_features]
        return count_tensor_bytes(kept)

    return step, count


WAYS = {"masklet": start_ours, "transformers": start_transformers}


def measure(way: str, frames: int, objects: int) -> list[dict[str, float]]:
    """What was seen at each mark: bytes of state, the process's largest memory so far, processor seconds since the
    first ten frames.
    """
    step, count = WAYS[way](frames, objects)
    seen, began, at = [], 0.0, 0
    for t in range(frames):
        step(t)
        if t + 1 == MARKS[0]:
            began, at = time.process_time(), t + 1
        if t + 1 in MARKS:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            spent = (time.process_time() - began) / max(t + 1 - at, 1)
            seen.append({"frame": t + 1, "state": count(), "rss": most, "seconds": spent})
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--way", choices=WAYS, help="one of them, in this process, as json")
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given.frames, given.objects)))
        return
    words = [sys.executable, __file__, "--frames", str(given.frames), "--objects", str(given.objects), "--way"]
    quiet = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    found = {way: json.loads(subprocess.check_output([*words, way], env=quiet)) for way in WAYS}
    print(f"{given.objects} objects, {given.frames} frames, {quiet['OMP_NUM_THREADS']} thread")
    print(f"{'':14}{'frame':>6}{'state MB':>10}{'RSS MB':>9}{'ms a frame':>12}")
    for way, rows in found.items():
        for row in rows:
            sizes = f"{row['state'] / 1e6:10.2f}{row['rss'] / 1e6:9.0f}"
            print(f"{way:14}{row['frame']:6.0f}{sizes}{row['seconds'] * 1e3:12.1f}")
    ours, theirs = found["masklet"][-1], found["transformers"][-1]
    print(f"time, masklet over transformers: {ours['seconds'] / theirs['seconds']:.2f}")


if __name__ == "__main__":
    main()
