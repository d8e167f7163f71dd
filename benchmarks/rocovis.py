"""RoCoVIS's instance mask propagation: what it costs next to the segmenter, and what a long video costs in memory.

Cost: an R50 Mask2Former of random weights at 480p and the propagation (its keys, values and identity written, the last
three frames looked at), in one process, in turns: seconds a frame and floating-point operations.
Memory: the state's bytes after frame 50 and after frame 500, and the peak resident memory of a process that streams as
many frames of 480p; the segmenter only allocates what a real one returns, so that nothing hides the growth.

python benchmarks/rocovis.py [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.core.slots import FrameSlots
from masklet.models.query_video.rocovis import RocovisMemory, RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_model import take_last_layer
from masklet.systems.rocovis import RocovisSystemSettings, build_rocovis_system

SIZE, PADDED = (480, 854), (480, 864)
CLASSES, SLOTS, WIDTH = 40, 100, 256
SHARE = 0.15  # of the segmenter's time
COUNTS = (50, 500)  # frames between which memory must not grow
GROWTH = 1.1
TURNS = 7
MIB = 2**20


def main() -> int:
    """Measures; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alone", type=int, metavar="FRAMES", help="one memory run in this process, as json")
    parser.add_argument("--device", default="cpu", help="where the cost is measured")
    parser.add_argument("--levels", type=int, default=1, help="levels of the backbone that masks calibrate")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.alone:
        print(json.dumps(alone(options.alone)))
        return 0
    return int(not all([cost(torch.device(options.device), options.levels), memory()]))


# -- cost


def network(levels: int) -> RocovisNet:
    """Over R50, random weights."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(
        backbone_config=backbone, num_labels=CLASSES, num_queries=SLOTS, use_pretrained_backbone=False
    )
    return (
        RocovisNet(Mask2FormerForUniversalSegmentation(config), RocovisNetSettings(levels)).eval().requires_grad_(False)
    )


@torch.no_grad()
def cost(device: torch.device, levels: int) -> bool:
    """Prints both costs a frame; whether the propagation stays within its share."""
    net = network(levels).to(device)
    image = torch.randn(1, 3, *PADDED, device=device)
    features, state = net.encode(image), net.empty()
    plain = RocovisNet(net.segmenter, RocovisNetSettings(levels=0))
    for _ in range(net.settings.frames):
        slots = take_last_layer(net.decoded(state, features))
        state = net.commit(state, features, slots, torch.ones(1, SLOTS, device=device))

    def segment() -> object:
        return plain.decoded(RocovisMemory(state.queries), plain.encode(image))

    def propagate() -> object:
        return net.calibrated(state, features), net.commit(state, features, slots, net.trust(slots))

    operations = [flops(call) for call in (segment, propagate)]
    seconds = in_turns((segment, propagate), device)
    shares = [of[1] / of[0] for of in (seconds, operations)]
    print(f"time: segmenter {seconds[0]:.4g}, propagation {seconds[1]:.4g} s a frame: {100 * shares[0]:.2f} %")
    print(f"operations: {operations[0]:.4g}, {operations[1]:.4g} flop a frame: {100 * shares[1]:.2f} %")
    print(f"share: bar {100 * SHARE:.0f} %, {'met' if max(shares) <= SHARE else 'MISSED'}")
    return max(shares) <= SHARE


def flops(call: Callable[[], object]) -> float:
    """Floating-point operations."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def in_turns(calls: tuple[Callable[[], object], ...], device: torch.device) -> list[float]:
    """Seconds of each call: medians over turns, so that a slow moment of the machine is one turn's."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(TURNS):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


# -- memory


class Allocating:
    """A slot model that remembers as RoCoVIS does, and of the segmenter only has what it returns."""

    categories = tuple(str(k) for k in range(CLASSES))

    def __init__(self) -> None:
        self._net = RocovisNet(Parts(), RocovisNetSettings()).eval()
        self._base = torch.randn(1, SLOTS, WIDTH)

    def encode(self, frames: list[Frame]) -> list[tuple[torch.Tensor, ...]]:
        """The coarsest level alone."""
        return [(torch.randn(1, 2048, PADDED[0] // 32, PADDED[1] // 32),) for _ in frames]

    def empty(self) -> RocovisMemory:
        """The memory before the first frame."""
        return self._net.empty()

    @torch.no_grad()
    def predict(self, state: RocovisMemory, features: tuple[torch.Tensor, ...]) -> FrameSlots:
        """Anything, of the right shapes."""
        self._net.calibrated(state, features)
        h, w = PADDED[0] // 4, PADDED[1] // 4
        dense = torch.randn(1, WIDTH, h, w), torch.randn(1, SLOTS, h, w)
        return FrameSlots(self._base + 0.1, torch.randn(1, SLOTS, CLASSES + 1), *dense, SIZE)

    def trust(self, slots: FrameSlots) -> torch.Tensor:
        """As at inference."""
        return self._net.trust(slots)

    @torch.no_grad()
    def commit(
        self, state: RocovisMemory, features: tuple[torch.Tensor, ...], slots: FrameSlots, trust: torch.Tensor
    ) -> RocovisMemory:
        """The real one."""
        return self._net.commit(state, features, slots, trust)

    def decode(self, queries: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Masks."""
        return torch.einsum("nc,chw->nhw", queries, pixels)


class Parts(torch.nn.Module):
    """As much of a Mask2Former as the propagation is built from."""

    def __init__(self) -> None:
        super().__init__()
        self.class_predictor = torch.nn.Linear(WIDTH, CLASSES + 1)
        self.model: Any = torch.nn.Module()
        self.model.pixel_level_module = torch.nn.Module()
        self.model.pixel_level_module.decoder = torch.nn.Module()
        self.model.pixel_level_module.decoder.feature_channels = [2048]


def frames(count: int) -> Iterator[Frame]:
    """Without a content."""
    image = np.zeros((*SIZE, 3), np.uint8)
    return (Frame(t, image) for t in range(count))


def alone(count: int) -> dict[str, int]:
    """Bytes of the state after as many frames, and of resident memory at most."""
    torch.set_num_threads(1)
    stream = build_rocovis_system(Allocating(), RocovisSystemSettings(top=1)).stream(frames(count))
    for _ in stream:
        pass
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return {"state": count_tensor_bytes(stream.state), "peak": peak}


def memory() -> bool:
    """Prints both at both lengths; whether they are near enough."""
    few, many = (measured(n) for n in COUNTS)
    ratio = many["peak"] / few["peak"]
    met = ratio <= GROWTH and many["state"] == few["state"]
    print(
        f"state: {few['state'] / MIB:.2f} MiB after frame {COUNTS[0]}, {many['state'] / MIB:.2f} after {COUNTS[1]}; "
        f"peak {few['peak'] / MIB:.0f} and {many['peak'] / MIB:.0f} MiB, ratio {ratio:.3f} "
        f"(bar {GROWTH}, {'met' if met else 'MISSED'})"
    )
    return met


def measured(count: int) -> dict[str, int]:
    """Of a process of its own."""
    command = [sys.executable, __file__, "--alone", str(count)]
    told: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told


if __name__ == "__main__":
    sys.exit(main())
