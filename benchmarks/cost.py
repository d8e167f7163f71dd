"""`make bench`: what a run costs besides its models, as ratios in one run, and what memory it needs.

Prints a table and writes out/cost.json. Fails (exit 1) where a memory ratio is above its bound; times are
reported only, since machines are noisy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from masklet import Detections, Frame, Sam2Bmp, Video, load
from masklet.outputs import write_format, write_overlay

H, W, SIDE = 480, 854, 90


@dataclass
class Scene:
    """Five textured squares that wander over a textured background, at 480p; any length, made on the fly."""

    length: int
    size: tuple[int, int] = (H, W)
    name: str = "scene"
    rate: float = 25.0
    damage: str | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        tiles = rng.integers(0, 256, (6, H // 12 + 1, W // 12 + 1, 3), np.uint8)
        tints = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0], [0, 200, 200], [0, 0, 0]], np.uint8)
        self.textures = tiles.repeat(12, 1).repeat(12, 2)[:, :H, :W] // 5 + tints[:, None, None]

    def __len__(self) -> int:
        return self.length

    def corner(self, n: int, t: int) -> tuple[int, int]:
        """Where square n is: to and fro in a lane of its own."""
        return 3 + 95 * n, abs((100 * n + (2 + n) * t) % (2 * (W - SIDE)) - (W - SIDE))

    def frame(self, t: int) -> Frame:
        image = self.textures[5].copy()
        for n in range(5):
            y, x = self.corner(n, t)
            image[y : y + SIDE, x : x + SIDE] = self.textures[n, :SIDE, :SIDE]
        return Frame(t, image, t / self.rate)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self.frame(t) for t in range(start, stop)]


@dataclass
class Known:
    """A segmenter that knows the scene, and sees nothing in its first half: all that half is completed."""

    scene: Scene
    categories: tuple[str, ...] = ("square",)
    look_ahead: int = 0

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.one(f.index) for f in frames], None

    def one(self, t: int) -> Detections:
        if t < self.scene.length // 2:
            return Detections.none((H, W))
        masks = torch.zeros(5, H, W, dtype=torch.bool)
        for n in range(5):
            y, x = self.scene.corner(n, t)
            masks[n, y : y + SIDE, x : x + SIDE] = True
        return Detections(masks, torch.full((5,), 0.99), torch.zeros(5, dtype=torch.int64))


@dataclass
class Timed:
    """A part whose calls are timed, by phase and by method."""

    part: Any
    spent: dict[tuple[str, str], float]
    phase: list[str] = field(default_factory=lambda: ["forward"])

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.part, name)
        if not callable(found):
            return found

        def call(*args: Any, **more: Any) -> Any:
            started = perf_counter()
            try:
                return found(*args, **more)
            finally:
                self.spent[self.phase[0], name] += perf_counter() - started

        return call


def timed_frames(video: Video, spent: dict[tuple[str, str], float]) -> Any:
    """The video, the time of decoding counted."""

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(video, name)

        def __len__(self) -> int:
            return len(video)

        def __iter__(self) -> Iterator[Frame]:
            frames = iter(video)
            while True:
                started = perf_counter()
                frame = next(frames, None)
                spent["", "decode"] += perf_counter() - started
                if frame is None:
                    return
                yield frame

    return Counted()


def shares(system: Sam2Bmp[Any, Any, Any], video: Video) -> dict[str, float]:
    """The parts of a run's wall time, everything written."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    phase = ["forward"]
    timed = replace(
        system,
        propagator=Timed(system.propagator, spent, phase),
        segmenter=Timed(system.segmenter, spent, phase),
    )
    moments: dict[str, float] = {}

    def watch(name: str, done: int, total: int | None, objects: int) -> None:
        moments.setdefault("forward ends", perf_counter())
        if name == "forward":
            moments["forward ends"] = perf_counter()
            phase[0] = "forward" if done < (total or 0) else "backward"
        if name == "backward":
            moments["backward ends"] = perf_counter()

    counted, started = timed_frames(video, spent), perf_counter()
    # One thing after the other: of work that goes on side by side no shares can be told.
    with tempfile.TemporaryDirectory() as folder, patch("masklet.core.ahead.has_idle_cores", lambda: False):
        result = timed.run(counted, watch)
        result.save(Path(folder) / "masklets.json")
        for form in ("davis", "ytvis"):
            write_format(result, counted, Path(folder), form)
        write_overlay(result, counted, Path(folder) / "overlay.mp4", watch)
    total = perf_counter() - started
    models = sum(s for (p, _), s in spent.items() if p)
    propagation = sum(spent["forward", m] for m in ("encode", "predict", "commit", "prompt"))
    backward = moments.get("backward ends", moments["forward ends"]) - moments["forward ends"]
    return {
        "frames": len(video),
        "objects": len(result.masklets),
        "seconds per frame": total / len(video),
        "models / wall": models / total,
        "decoding / wall": spent["", "decode"] / total,
        "association, filters, writing / wall (clip: at most 0.1)": 1 - (models + spent["", "decode"]) / total,
        "backward / forward propagation (clip: at most 0.6)": backward / propagation,
    }


def peak(what: str, frames: int) -> float:
    """Peak resident memory of a fresh process, in MB."""
    command = [sys.executable, __file__, what, str(frames)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # two of these run side by side
    got = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
    return float(got.stdout.split()[-1])


def child(what: str, frames: int) -> None:
    """What `peak` measures."""
    scene = Scene(frames)
    if what == "stream":
        for _ in load(max_objects=5).stream(scene):  # as many as there are: more would be more memory
            pass
    else:
        replace(load().system, segmenter=Known(scene)).run(scene, lambda *_: None)
    # Not getrusage: its peak is inherited from the process that started this one.
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    print(int(line.split()[1]) / 1024)


def main() -> int:
    torch.set_num_threads(2)
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
    from demo import CACHE, generated_clip, real_clip

    from masklet.io.video.sources import open_video

    CACHE.mkdir(exist_ok=True)
    figures: dict[str, dict[str, float]] = {}

    def note(title: str, table: dict[str, float]) -> None:
        figures[title] = table
        print(title, *(f"  {name:60} {value:10.3f}" for name, value in table.items()), sep="\n", flush=True)

    with open_video(real_clip() or generated_clip()) as video:
        note("clip", shares(load().system, video))
    scene = Scene(60)
    note("scene, completed from its middle", shares(replace(load().system, segmenter=Known(scene)), scene))
    with ThreadPoolExecutor(2) as pool:
        runs = {(what, n): pool.submit(peak, what, n) for n in (400, 100) for what in ("stream", "run")}
    stream, run = ({n: runs[what, n].result() for n in (100, 400)} for what in ("stream", "run"))
    memory = {
        "stream, 100 frames, MB": stream[100],
        "stream, 400 / 100 frames (at most 1.05)": stream[400] / stream[100],
        "run, 100 frames, MB": run[100],
        "run, MB per further frame (at most 0.2)": (run[400] - run[100]) / 300,
    }
    note("memory", memory)
    Path("out").mkdir(exist_ok=True)
    Path("out/cost.json").write_text(json.dumps(figures, indent=1) + "\n")
    return int(
        memory["stream, 400 / 100 frames (at most 1.05)"] > 1.05
        or memory["run, MB per further frame (at most 0.2)"] > 0.2
    )


if __name__ == "__main__":
    sys.exit(child(sys.argv[1], int(sys.argv[2])) if len(sys.argv) == 3 else main())
