"""DVIS's parts: what tracker and refiner cost next to the segmenter, and what a long video costs in memory.

Cost: an R50 Mask2Former of random weights at 480p, the tracker and the refiner (real sizes), in one process: seconds a
frame and floating-point operations. The refiner works on a clip, its cost is divided by the frames.
Memory: peak resident memory of a process for `run` offline and for `stream` online, 100 against 500 frames of 480p with
100 queries; the segmenter only allocates what a real one returns, so that nothing hides the growth. The host's queries
(tracks, contexts and refined tracks, which grow by the frame) are set aside.

python benchmarks/dvis.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from masklet.core.frames import Frame
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.systems.dvis import DvisRefined, DvisSettings, build_dvis_system

SIZE = (480, 854)
CLASSES, SLOTS, WIDTH = 40, 100, 256
SHARE = 0.052  # the paper's, of the segmenter's operations
COUNTS = (100, 500)  # frames between which the peak memory must not grow
GROWTH = 1.1
MIB = 2**20


def main() -> int:
    """Measures; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--alone", nargs=2, metavar=("SYSTEM", "FRAMES"), help="one memory run in this process, as json"
    )
    parser.add_argument("--frames", type=int, default=21, help="frames of the clip whose cost is measured")
    parser.add_argument("--device", default="cpu", help="where the cost is measured")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.alone:
        print(json.dumps(peak(options.alone[0], int(options.alone[1]))))
        return 0
    return int(not all([cost(options.frames, torch.device(options.device)), memory("offline"), memory("online")]))


# -- cost


def segmenter(device: torch.device) -> Mask2Former:
    """R50, random weights."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(
        backbone_config=backbone, num_labels=CLASSES, num_queries=SLOTS, use_pretrained_backbone=False
    )
    return Mask2Former(Mask2FormerForUniversalSegmentation(config).eval().to(device), shortest=SIZE[0])


def parts(device: torch.device) -> tuple[ReferringTracker, TemporalRefiner]:
    """Of the released sizes."""
    return (
        ReferringTracker(TrackerSettings(CLASSES)).eval().to(device),
        TemporalRefiner(RefinerSettings(CLASSES)).eval().to(device),
    )


@torch.no_grad()
def cost(frames: int, device: torch.device) -> bool:
    """Prints each part's cost a frame; whether tracker and refiner stay within their share."""
    look, (tracker, refiner) = segmenter(device), parts(device)
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    slots = look.slots([Frame(0, image)])
    queries = slots.queries + 0.1 * torch.randn(frames, SLOTS, WIDTH, device=device)
    tracked, memory = tracker.follow(None, slots)
    tracks = tracker(queries)[0][-1]
    measured = {
        "segmenter": measure(lambda: look.slots([Frame(0, image)]), device),
        "tracker": measure(lambda: tracker.follow(memory, slots), device),
        "refiner": measure(lambda: refiner.refine(tracks, tracker.alone(queries)), device, frames),
        "masks": measure(lambda: refiner.masks(tracked, slots.pixel_features[0]), device),
    }
    seconds, operations = ({k: v[n] for k, v in measured.items()} for n in (0, 1))
    shares = []
    for name, of, unit in (("time", seconds, "s"), ("operations", operations, "flop")):
        light = of["tracker"] + of["refiner"]
        shares.append(light / of["segmenter"])
        told = ", ".join(f"{k} {v:.3g}" for k, v in of.items())
        print(f"{name}: {told} {unit} a frame; tracker + refiner {100 * shares[-1]:.2f} % of the segmenter")
    print(f"share: bar {100 * SHARE:.1f} %, {'met' if max(shares) <= SHARE else 'MISSED'}")
    return max(shares) <= SHARE


def measure(call: Callable[[], object], device: torch.device, frames: int = 1) -> tuple[float, float]:
    """Seconds (the median of five after a first) and floating-point operations a frame."""
    with FlopCounterMode(display=False) as counter:
        call()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[2] / frames, counter.get_total_flops() / frames


# -- memory


class Allocating:
    """Returns what a segmenter of 480p returns, without looking."""

    categories = tuple(str(k) for k in range(CLASSES))

    def __init__(self) -> None:
        self._base = torch.randn(SLOTS, WIDTH)

    def slots(self, frames: Sequence[Frame]) -> FrameSlots:
        n, (h, w) = len(frames), (SIZE[0] // 4, 864 // 4)
        queries = self._base + 0.1 * torch.randn(n, SLOTS, WIDTH)
        dense = torch.randn(n, WIDTH, h, w), torch.randn(n, SLOTS, h, w)
        return FrameSlots(queries, torch.randn(n, SLOTS, CLASSES + 1), *dense, SIZE)


class Blank:
    """Frames without a content."""

    name, size, rate, damage = "blank", SIZE, 25.0, None

    def __init__(self, length: int) -> None:
        self._length, self._image = length, np.zeros((*SIZE, 3), np.uint8)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(t, self._image) for t in range(self._length))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [Frame(t, self._image) for t in range(start, stop)]


def peak(system: str, frames: int) -> int:
    """Bytes of resident memory at most."""
    torch.set_num_threads(1)
    tracker, refiner = parts(torch.device("cpu"))
    if system == "online":
        for _ in build_dvis_system(Allocating(), tracker, DvisSettings(top=1)).stream(Blank(frames)):
            pass
    else:
        settings = DvisSettings(top=1, feature_disk=0)
        DvisRefined(Allocating(), tracker, refiner, settings).run(Blank(frames), lambda *told: None)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def memory(system: str) -> bool:
    """Prints the peaks at both lengths; whether they are near enough."""
    few, many = (alone(system, n) for n in COUNTS)
    growing = 3 * SLOTS * WIDTH * 4 * (COUNTS[1] - COUNTS[0]) if system == "offline" else 0
    ratio = (many - growing) / few
    aside = f", {growing / MIB:.0f} MiB of queries aside" if growing else ""
    print(
        f"{system}: peak {few / MIB:.0f} MiB at {COUNTS[0]} frames, {many / MIB:.0f} MiB at {COUNTS[1]}; "
        f"ratio {ratio:.3f}{aside} (bar {GROWTH}, {'met' if ratio <= GROWTH else 'MISSED'})"
    )
    return ratio <= GROWTH


def alone(system: str, frames: int) -> int:
    """The peak of a process of its own."""
    command = [sys.executable, __file__, "--alone", system, str(frames)]
    told: int = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told


if __name__ == "__main__":
    sys.exit(main())
