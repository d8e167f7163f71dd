"""`make bench`, third part: DEVA and its propagation network, as ratios in one run.

python benchmarks/deva.py [--device cuda] [--only consensus,schedule,memory] [--out out/deva.json]

Weights do not matter for time and memory, so the network is made at random; what it propagates is worth nothing, so
the detections say at every vote where the objects are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from cost import SIDE, H, Scene, W
from sam2_cost import high_water

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.models.xmem.memory import XmemMemory
from masklet.models.xmem.propagator import Xmem
from masklet.nn.xmem import XmemNet
from masklet.systems.deva.consensus import find_consensus
from masklet.systems.deva.online import Deva, DevaSettings

OBJECTS = 2


def network(device: torch.device) -> XmemNet:
    """The network of DEVA with random weights."""
    torch.manual_seed(0)
    return XmemNet().requires_grad_(False).eval().to(device)


class Told:
    """A segmenter that costs nothing: where the squares of a `Scene` are."""

    categories = ("square",)
    look_ahead = 0

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def empty(self) -> None:
        """Nothing to remember."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """All squares of every frame."""
        scores, labels = torch.full((OBJECTS,), 0.9), torch.zeros(OBJECTS, dtype=torch.int64)
        masks = [torch.stack(list(squares(self.scene, f.index).values())) for f in frames]
        return [Detections(mask, scores, labels) for mask in masks], None


def squares(scene: Scene, t: int) -> dict[int, torch.Tensor]:
    """Every square's mask in a frame, under ids from 1."""
    masks = {}
    for n in range(OBJECTS):
        (y, x), mask = scene.corner(n, t), torch.zeros(H, W, dtype=torch.bool)
        mask[y : y + SIDE, x : x + SIDE] = True
        masks[n + 1] = mask
    return masks


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The median time of a piece of work."""
    times = []
    for _ in range(rounds):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return median(times)


def proposals(n: int = 60, frames: int = 3) -> tuple[torch.Tensor, list[int]]:
    """Discs at 480p, 20 in each frame, in each frame a little elsewhere, as after alignment."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:H, :W]
    places = rng.uniform((40, 40, 15), (H - 40, W - 40, 60), (n // frames, 3))
    masks = []
    for frame in range(frames):
        for cy, cx, r in places + rng.normal(0, 3, places.shape) * (frame > 0):
            masks.append((y - cy) ** 2 + (x - cx) ** 2 < r**2)
    return torch.from_numpy(np.array(masks)), [i // (n // frames) for i in range(n)]


def against_a_step(device: torch.device, rounds: int) -> dict[str, float]:
    """The consensus of 60 proposals at 480p against one step of the network with one object."""
    scene, xmem = Scene(8), Xmem(network(device))
    [first] = xmem.encode([scene.frame(0)])
    memory, _ = xmem.prompt(xmem.empty(), first, {1: squares(scene, 0)[1]})

    def step() -> None:
        [features] = xmem.encode([scene.frame(3)])
        xmem.commit(memory, features, xmem.predict(memory, features))

    masks, frames = proposals()
    step()
    told = seconds(lambda: find_consensus(masks, frames, [None] * len(frames)), rounds)
    taken = seconds(step, rounds)
    return {"consensus, s": told, "step, s": taken, "consensus / step (at most 0.05)": told / taken}


def against_propagation(device: torch.device, rounds: int) -> dict[str, float]:
    """DEVA (clips of 3, every 5) against the same objects propagated alone, each over one period of five frames from
    what it remembers of the five before, taking turns; the segmenter costs nothing.
    """
    scene, xmem = Scene(10), Xmem(network(device))
    system = Deva(Told(scene), xmem, DevaSettings(max_missed=10**6, max_objects=OBJECTS))
    before, period = scene.read(0, 5), scene.read(5, 10)
    stream = system.stream([*before, *period])
    for _ in before:
        next(stream)
    held = propagated(xmem, xmem.prompt(xmem.empty(), xmem.encode(before[:1])[0], squares(scene, 0))[0], before[1:])
    deva, alone = [], []
    for _ in range(rounds):
        deva.append(seconds(lambda: [answer.ids for answer in system.stream(period, stream.state)], 1))
        alone.append(seconds(lambda: propagated(xmem, held, period), 1))
    return {
        "objects": OBJECTS,
        "propagation alone, s a frame": median(alone) / len(period),
        "DEVA / propagation alone (at most 1.45)": median(deva) / median(alone),
    }


def propagated(xmem: Xmem, memory: XmemMemory, frames: Sequence[Frame]) -> XmemMemory:
    """The memory after some frames."""
    for frame in frames:
        [features] = xmem.encode([frame])
        memory = xmem.commit(memory, features, xmem.predict(memory, features))
    return memory


def memory(frames: int) -> dict[str, float]:
    """Peak memory of one stream of 96x160 frames, far on against when its long-term memory has filled up."""
    marks = [frames // 10, frames * 3 // 10, frames * 6 // 10, frames]
    command = [sys.executable, __file__, "--child", *map(str, marks)]
    peaks = [float(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
    at = {f"peak up to frame {mark}, MB": peak for mark, peak in zip(marks, peaks, strict=True)}
    return {**at, f"frame {frames} / frame {marks[1]}": peaks[-1] / peaks[1]}


def child(marks: Sequence[int]) -> None:
    """What `memory` measures: two objects, every frame remembered."""
    xmem, rng = Xmem(network(torch.device("cpu")), size=None, every=1), np.random.default_rng(0)
    held = xmem.empty()
    for t in range(max(marks)):
        [features] = xmem.encode([Frame(t, rng.integers(0, 256, (96, 160, 3), np.uint8))])
        held = xmem.commit(held, features, xmem.predict(held, features))
        if t == 0:
            mask = torch.zeros(96, 160, dtype=torch.bool)
            mask[20:60, 20:60] = True
            held, _ = xmem.prompt(held, features, {1: mask, 2: mask.flip(1)})
        if t + 1 in marks:
            print(high_water(), flush=True)


def main() -> int:
    """Runs the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=2000, help="frames of the memory's stream")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="consensus,schedule,memory", help="parts, with commas")
    parser.add_argument("--out", type=Path, default=Path("out/deva.json"))
    parser.add_argument("--child", type=int, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1 if options.child else options.threads)
    if options.child:
        child(options.child)
        return 0
    device = torch.device(options.device)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "consensus": lambda: against_a_step(device, options.rounds),
        "schedule": lambda: against_propagation(device, options.rounds),
        "memory": lambda: memory(options.long),
    }
    report = {}
    for name in options.only.split(","):
        report[name] = parts[name]()
        print(name)
        for what, value in report[name].items():
            print(f"  {what:60} {value:10.3f}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
