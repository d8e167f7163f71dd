"""`masklet view` over an hour of video: how soon the page shows something, how long any frame takes, and memory.

python benchmarks/page.py [--frames 108000] [--objects 20] [--cache out/hour] [--seeks 30]

The result and the video are generated once into --cache (some minutes, 0.5 GB). The server is started as users do and
asked as its page asks. Times are wall-clock seconds: on a busy machine they say little; CPU seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.video.encode import VideoWriter

SIZE, RATE = (480, 854), 30
WAYS = (Source.DETECTED, Source.FORWARD, Source.BACKWARD, Source.FORWARD)
STEPS = 50  # places of an object, between which it goes to and fro


class Wanderer(Mapping[int, Sighting]):
    """An object that goes to and fro, with a gap."""

    def __init__(self, number: int, frames: int) -> None:
        self.number, self.frames = number, frames
        self.masks = [Rle.encode_pixels(self.draw(step)) for step in range(STEPS)]
        self.gap = range(1000 * number, 1000 * number + 500)

    def draw(self, step: int) -> np.ndarray:
        """Its pixels at one of its places."""
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        cy, cx = 60 + self.number * 53 % 360, 80 + (self.number * 97 + step * 12) % 700
        return ((y - cy) / 40) ** 2 + ((x - cx) / 30) ** 2 < 1 + 0.1 * np.sin(y / 5 + step)

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, int) and 0 <= frame < self.frames and frame not in self.gap

    def __iter__(self) -> Iterator[int]:
        return (t for t in range(self.frames) if t not in self.gap)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, frame: int) -> Sighting:
        step = frame // 8 % (2 * STEPS)
        score = round(0.5 + 0.5 * float(np.sin(frame / 900 + self.number)) ** 2, 3)
        return Sighting(self.masks[min(step, 2 * STEPS - 1 - step)], WAYS[frame // 97 % 4], score, self.number % 3, 1.0)


def generate(folder: Path, frames: int, objects: int) -> None:
    """Writes the result and its video into a `folder`, unless they are there."""
    if (folder / "masklets.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (SIZE[0] // 8, 107, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(folder / "video.mp4", SIZE, Fraction(RATE)) as writer:
        for t in range(frames):
            writer.write(np.roll(image, 2 * t, axis=1)[:, : SIZE[1]])
    masklets = tuple(Masklet(n + 1, Wanderer(n, frames), n % 3, 0.9) for n in range(objects))
    made = Provenance("generated", source=str((folder / "video.mp4").resolve()))
    VideoResult("hour", SIZE, frames, float(RATE), masklets, ("car", "person", "dog"), made).save(
        folder / "masklets.json"
    )


class Server:
    """`masklet view` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.started = perf_counter()
        command = [sys.executable, "-m", "masklet", "view", str(folder), "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        assert self.process.stdout
        self.base, _, self.token = self.process.stdout.readline().strip().partition("/?token=")

    def ask(self, path: str, given: Any = None) -> bytes:
        """What the server answers."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        data = None if given is None else json.dumps(given).encode()
        with urllib.request.urlopen(urllib.request.Request(self.base + path, data, headers)) as answer:
            return bytes(answer.read())

    def read_memory(self) -> int:
        """The most memory that the process has had, in MB."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) // 1024 if found else 0

    def read_cpu(self) -> float:
        """CPU seconds that the process has used."""
        facts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: Server, seeks: int) -> dict[str, float]:
    """Seconds until the first view, seconds of a seek, and memory."""
    told = json.loads(server.ask("/videos/0/describe", {}))
    length = told["length"]
    for path in ("/", "/page/page.js", "/videos/0/frames/0.jpg?side=960"):
        server.ask(path)
    server.ask("/videos/0/masks", {"start": 0, "stop": 32})
    server.ask("/videos/0/timeline", {"start": 0, "stop": length, "bins": 1200})
    first, cpu = perf_counter() - server.started, server.read_cpu()
    times = []
    for frame in random.Random(0).choices(range(length), k=seeks):
        before = perf_counter()
        server.ask("/videos/0/masks", {"start": frame - frame % 32, "stop": frame - frame % 32 + 32})
        server.ask(f"/videos/0/frames/{frame}.jpg?side=960")
        times.append(perf_counter() - before)
    memory = server.read_memory()
    return {"first_view": first, "first_cpu": cpu, "seek_median": median(times), "seek_max": max(times), "mb": memory}


def main() -> int:
    """Generates what is missing, measures, says it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=108_000)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--seeks", type=int, default=30)
    parser.add_argument("--cache", type=Path, default=Path("out/hour"))
    chosen = parser.parse_args()
    generate(chosen.cache, chosen.frames, chosen.objects)
    server = Server(chosen.cache)
    try:
        for name, value in measure(server, chosen.seeks).items():
            print(f"{name} {value:.3f}")
    finally:
        server.process.terminate()
        server.process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
