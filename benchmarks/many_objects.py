"""`make bench`: many objects at once, as ratios against another state of the sources in one run.

python benchmarks/many_objects.py [--against /path/to/other/src] [--only iou,nano-20,...] [--out out/many_objects.json]

Frames are generated. Times are CPU seconds of one thread, which other work on the machine does not change much. Where
DEVA is measured, its networks are stood in for by toys whose time is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch

from masklet.core.frames import Frame
from masklet.core.instances import Detections, Prediction

HD, SD = (1080, 1920), (480, 854)


@dataclass(frozen=True)
class Discs:
    """Ellipses that drift, some of them over each other."""

    size: tuple[int, int]
    places: np.ndarray  # y, x, radius y, radius x, dy, dx of each

    @staticmethod
    def draw(count: int, size: tuple[int, int], least: float = 0.03, most: float = 0.09) -> Discs:
        """`count` of them with radii of a share of the height from `least` to `most`."""
        rng, (h, w) = np.random.default_rng(0), size
        low, high = (0, 0, least * h, least * h, -2, -2), (h, w, most * h, most * h, 2, 2)
        return Discs(size, rng.uniform(low, high, (count, 6)))

    def margins(self, t: int, size: tuple[int, int]) -> torch.Tensor:
        """How far each pixel of an image of `size` is inside each of them at frame t: above 0 inside."""
        scale = size[0] / self.size[0], size[1] / self.size[1]
        out = np.full((len(self.places), *size), -8, np.float32)
        for one, (y, x, ry, rx, dy, dx) in zip(out, self.places, strict=True):
            v = (np.arange(size[0], dtype=np.float32)[:, None] / scale[0] - y - t * dy) / ry
            u = (np.arange(size[1], dtype=np.float32)[None] / scale[1] - x - t * dx) / rx
            np.maximum(8 * (1 - v * v - u * u), -8, out=one)
        return torch.from_numpy(out)

    def masks(self, t: int, size: tuple[int, int]) -> torch.Tensor:
        """Which pixels of an image of `size` are in each of them at frame t, drawn one by one."""
        masks = torch.empty(len(self.places), *size, dtype=torch.bool)
        for n, out in enumerate(masks):
            out.copy_(Discs(self.size, self.places[n : n + 1]).margins(t, size)[0] > 0)
        return masks


@dataclass
class Uncounted:
    """The time that toys take."""

    seconds: float = 0.0

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, whose time is added here."""

        def run(*args: Any, **more: Any) -> Any:
            started = process_time()
            try:
                return work(*args, **more)
            finally:
                self.seconds += process_time() - started

        return run


class ToldSegmenter:
    """Finds all discs, of which some twice."""

    categories = ("disc",)
    look_ahead = 0

    def __init__(self, discs: Discs, uncounted: Uncounted) -> None:
        self.discs, self.segment = discs, uncounted.wrap(self.find)

    def empty(self) -> None:
        """Nothing is remembered."""

    def find(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """The discs of each frame."""
        count = len(self.discs.places)
        scores, labels = torch.linspace(0.95, 0.6, count), torch.zeros(count, dtype=torch.int64)
        return [Detections(self.discs.masks(f.index, f.size), scores, labels) for f in frames], None


@dataclass(frozen=True)
class ToldMemory:
    """Which disc each id is."""

    known: Mapping[int, int] = field(default_factory=dict)


class ToldPropagator:
    """Knows where the discs are; features are frames' indices, logits those of a short side of 480."""

    def __init__(self, discs: Discs, uncounted: Uncounted) -> None:
        self.discs = discs
        for name in ("encode", "predict", "prompt"):
            setattr(self, name, uncounted.wrap(getattr(self, "_" + name)))

    def empty(self) -> ToldMemory:
        """No object."""
        return ToldMemory()

    def _encode(self, frames: Sequence[Frame]) -> list[int]:
        return [frame.index for frame in frames]

    def _predict(self, memory: ToldMemory, features: int) -> Prediction:
        size = (480, round(480 * self.discs.size[1] / self.discs.size[0]))
        logits = self.discs.margins(features, size)[list(memory.known.values()), None]
        ones = torch.ones(len(memory.known), 1)
        return Prediction(tuple(memory.known), logits, 0.9 * ones, ones)

    def commit(self, memory: ToldMemory, features: int, belief: Prediction) -> ToldMemory:
        """Learns nothing."""
        return memory

    def _prompt(
        self, memory: ToldMemory, features: int, prompts: Mapping[int, torch.Tensor]
    ) -> tuple[ToldMemory, Prediction]:
        known = dict(memory.known)
        for id, mask in prompts.items():
            ys, xs = np.nonzero(mask.numpy())
            y, x = ys.mean(), xs.mean()
            at = self.discs.places[:, :2] + features * self.discs.places[:, 4:]
            known[id] = int(((at - (y, x)) ** 2).sum(1).argmin())
        return ToldMemory(known), Prediction((), torch.zeros(0, 1, 1, 1), torch.zeros(0, 1), torch.zeros(0, 1))

    def forget(self, memory: ToldMemory, ids: Iterable[int]) -> ToldMemory:
        """Without these."""
        gone = set(ids)
        return ToldMemory({id: n for id, n in memory.known.items() if id not in gone})

    def branch(self, memory: ToldMemory, origins: Mapping[int, int]) -> ToldMemory:
        """Of these alone."""
        return ToldMemory({new: memory.known[old] for new, old in origins.items()})


class BlankVideo:
    """Frames that show nothing."""

    name, rate, damage = "blank", 25.0, None

    def __init__(self, size: tuple[int, int], length: int) -> None:
        self.size, self.length = size, length
        self.image = np.zeros((*size, 3), np.uint8)

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> list[Frame]:
        """Some frames."""
        return [Frame(t, self.image) for t in range(start, min(stop, self.length))]

    def __iter__(self) -> Any:
        return iter(self.read(0, self.length))


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The median CPU time of a piece of work."""
    times = []
    for _ in range(rounds):
        started = process_time()
        work()
        times.append(process_time() - started)
    return median(times)


def measure_iou() -> dict[str, float]:
    """Of 100 masks, every two."""
    from masklet.core.masks import mask_iou, mask_nms, resolve_overlaps_by_area  # older states have not all of them

    found = {}
    for name, size in (("480p", SD), ("1080p", HD)):
        masks, scores = Discs.draw(100, size).margins(0, size) > 0, torch.linspace(0.95, 0.6, 100)
        found[f"IoU of 100 masks, {name}, s"] = seconds(lambda masks=masks: mask_iou(masks, masks))
        found[f"NMS of 100 masks, {name}, s"] = seconds(lambda m=masks, s=scores: mask_nms(m, s, 0.8))
        found[f"overlaps of 100 masks, {name}, s"] = seconds(lambda masks=masks: resolve_overlaps_by_area(masks))
    return found


def measure_deva() -> dict[str, float]:
    """DEVA with 100 objects at 1080p: all but the segmenter and the propagator, by the kind of frame."""
    from masklet.systems.deva.online import Deva, DevaSettings

    discs, toys = Discs.draw(100, HD), Uncounted()
    system = Deva(ToldSegmenter(discs, toys), ToldPropagator(discs, toys), DevaSettings(backward=False))
    times, last = [], [process_time(), 0.0]

    def watch(*progress: object) -> None:
        now = process_time()
        times.append(now - last[0] - (toys.seconds - last[1]))
        last[:] = process_time(), toys.seconds

    result = system.run(BlankVideo(HD, 7), watch)
    voted = [t for n, t in enumerate(times) if n % 5 == 0]
    carried = [t for n, t in enumerate(times) if n % 5]
    return {
        "DEVA, a merging frame, s (at most 0.5)": voted[1],
        "DEVA, a propagated frame, s (at most 0.1)": median(carried),
        "DEVA, objects": len(result.masklets),
    }


def draw_frames(discs: Discs, length: int) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    """Images of the discs, each of a colour of its own and striped, over a ground of coloured squares; and what is seen
    of each in the first, by id.
    """
    rng, (h, w), count = np.random.default_rng(1), discs.size, len(discs.places)
    ground = rng.integers(0, 140, (-(-h // 8), -(-w // 8), 3)).repeat(8, 0).repeat(8, 1)[:h, :w]
    colours, columns = rng.integers(60, 255, (count, 3)), np.arange(w)[None, :, None] * 7 % 40
    striped = [np.broadcast_to(np.clip(colour - columns, 0, 255), (h, w, 3)) for colour in colours]
    frames, labels = [], np.zeros((h, w), int)
    for t in range(length):
        image, there = ground.copy(), discs.masks(t, discs.size)
        for n, colour in enumerate(striped):
            inside = there[n].numpy()
            image[inside] = colour[inside]
            labels[inside & (t == 0)] = n + 1
        frames.append(image.astype(np.uint8))
    seen = {n: labels == n for n in range(1, count + 1)}
    return frames, {n: mask for n, mask in seen.items() if mask.sum() >= 64}


def summarize_frames(name: str, times: Sequence[float], objects: int) -> dict[str, float]:
    """What frames took by the times at which they ended, and the peak of memory so far."""
    took = np.diff(times)
    told = {"CPU s a frame": median(took[1:].tolist()), "objects": objects, "peak GB": read_peak_memory() / 2**30}
    return {f"{name}, {what}": value for what, value in told.items()}


def read_peak_memory() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_track(propagator: str, count: int, length: int) -> dict[str, float]:
    """`track` of discs at 480p from their masks in the first frame."""
    import masklet

    frames, prompts = draw_frames(Discs.draw(count, SD), length)
    times = [process_time()]

    def watch(phase: str, *progress: object) -> None:
        if phase == "forward":
            times.append(process_time())

    result = masklet.track(iter(frames), {0: prompts}, propagator=propagator, watch=watch)
    return summarize_frames(f"track, {propagator}, {count} discs", times, len(result.masklets))


def measure_run(propagator: str, count: int, length: int, most: int = 256) -> dict[str, float]:
    """`run` over `count` detections a frame at 480p, of which at most `most` are tracked; found at no cost."""
    from masklet import Sam2Bmp, load
    from masklet.systems.sam2bmp import Sam2BmpSettings

    discs, toys = Discs.draw(count, SD), Uncounted()
    frames = draw_frames(discs, length)[0]
    system = Sam2Bmp(
        ToldSegmenter(discs, toys),
        load(propagator=propagator).system.propagator,
        Sam2BmpSettings(conf=0.5, nms_iou=0.8, max_objects=most),
    )
    times = [process_time()]
    objects = 0
    for step in system.forward(Frame(t, image) for t, image in enumerate(frames)):
        times.append(process_time() - toys.seconds)
        objects = len(step.state.tallies)
        del step  # as whoever goes on to the next frame
    return summarize_frames(f"run, {propagator}, {count} detections", times, objects)


COUNTS = (1, 5, 10, 20, 50, 256)
PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "iou": measure_iou,
    "deva": measure_deva,
    **{f"{p}-{n}": partial(measure_track, p, n, 10 if n < 100 else 4) for p in ("nano", "affinity") for n in COUNTS},
    **{f"run-{p}": partial(measure_run, p, 300, 4) for p in ("nano", "affinity")},
}


def measure_with(sources: Path, part: str) -> dict[str, float]:
    """One part, with the sources in a folder."""
    command = [sys.executable, __file__, "--part", part]
    env = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="the src folder of another state, which is measured too")
    parser.add_argument("--only", default="iou,deva,nano-1,nano-20,affinity-10", help=", ".join(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part]()))
        return
    told: dict[str, list[float]] = {}
    for part in args.only.split(","):
        before = measure_with(args.against, part) if args.against else {}
        for name, value in measure_with(Path(__file__).parents[1] / "src", part).items():
            told[name] = [value, *([before[name], before[name] / value] if name in before else [])]
            ratio = f"(before: {before[name]:.4g}, ratio {before[name] / value:.3g})" if name in before else ""
            print(f"{name}: {value:.4g} {ratio}".rstrip())
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
