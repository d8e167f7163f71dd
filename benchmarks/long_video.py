"""A long video with checkpoints: whether memory stays flat, and what checkpoints, claim and manifest cost.

20,000 generated frames of 96 x 160 with three squares, one of which is found late, so that the backward phase is long,
too. The parts are cheap (they follow colours), so what is measured is what is around them.

    python benchmarks/long_video.py [--frames 20000] [--every 500] [--out out/long_video.json]
    python benchmarks/long_video.py --kills 50  # `masklet run` ended by kill -9 at random moments, and run again
    python benchmarks/long_video.py --hour      # how a result of 108,000 frames x 20 objects is written and opened
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from masklet.core.checkpoint import Checkpoints
from masklet.core.frames import Frame
from masklet.core.instances import Detections, Prediction, Prompt
from masklet.core.memory import load_memory
from masklet.core.memory_kinds import register_memory_kind
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Sighting, Source, TrackBook
from masklet.io.output_folder import OutputFolder
from masklet.run import batch
from masklet.run.claims import Claim
from masklet.systems.sam2bmp import Sam2Bmp
from masklet.view.progress import QuietReporter

H, W, SIDE = 96, 160, 14
COLOURS = ((230, 40, 40), (40, 230, 40), (40, 40, 230))
LATE = 0.75  # share of the video after which the last square is found


@dataclass
class GeneratedVideo:
    """Squares that go around on a noisy ground."""

    length: int
    name: str = "generated"
    size: tuple[int, int] = (H, W)
    rate: float = 25.0
    damage: str | None = None

    def __post_init__(self) -> None:
        self._ground = np.random.default_rng(0).integers(0, 25, (H, W, 3), np.uint8)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return (self.draw(t) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self.draw(t) for t in range(start, stop)]

    def draw(self, t: int) -> Frame:
        image = self._ground.copy()
        for n, colour in enumerate(COLOURS):
            y, x = 8 + 28 * n, (t + 40 * n) % (W - SIDE)
            image[y : y + SIDE, x : x + SIDE] = colour
        return Frame(t, image, t / self.rate)


def find_colour(image: Tensor, colour: tuple[int, int, int]) -> Tensor:
    """Pixels of a colour."""
    return (image == torch.tensor(colour, dtype=image.dtype)).all(-1)


@dataclass
class ColourSegmenter:
    """Finds squares by their colour, the last one from a frame on."""

    late: int
    categories: tuple[str, ...] = ("red", "green", "blue")
    look_ahead: int = 0

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.find(frame) for frame in frames], None

    def find(self, frame: Frame) -> Detections:
        n = len(COLOURS) - (frame.index < self.late)
        image = torch.from_numpy(frame.image)
        masks = torch.stack([find_colour(image, colour) for colour in COLOURS[:n]])
        return Detections(masks, torch.full((n,), 0.99), torch.arange(n))


@register_memory_kind("benchmarks.colours")
@dataclass(frozen=True)
class ColourMemory:
    """Each object's colour."""

    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)


class ColourPropagator:
    """Finds an object wherever its colour shows."""

    def encode(self, frames: Sequence[Frame]) -> list[Tensor]:
        return [torch.from_numpy(frame.image).float() for frame in frames]

    def empty(self) -> ColourMemory:
        return ColourMemory()

    def predict(self, memory: ColourMemory, features: Tensor) -> Prediction:
        ids = tuple(memory.colours)
        masks = [find_colour(features, memory.colours[id]) for id in ids]
        logits = torch.stack(masks)[:, None].float() - 0.5 if masks else torch.zeros(0, 1, H, W)
        return Prediction(ids, logits, torch.full((len(ids), 1), 0.9), torch.ones(len(ids), 1))

    def commit(self, memory: ColourMemory, features: Tensor, belief: Prediction) -> ColourMemory:
        return memory

    def prompt(
        self, memory: ColourMemory, features: Tensor, prompts: Mapping[int, Prompt]
    ) -> tuple[ColourMemory, Prediction]:
        told = {id: tuple(map(int, features[mask].mean(0).round().tolist())) for id, mask in prompts.items()}  # type: ignore[index]
        memory = ColourMemory({**memory.colours, **told})  # type: ignore[dict-item]
        believed = self.predict(memory, features)
        return memory, believed.only([n for n, id in enumerate(believed.ids) if id in prompts])

    def forget(self, memory: ColourMemory, ids: Any) -> ColourMemory:
        return ColourMemory({id: colour for id, colour in memory.colours.items() if id not in set(ids)})

    def branch(self, memory: ColourMemory, origins: Mapping[int, int]) -> ColourMemory:
        return ColourMemory({new: memory.colours[old] for new, old in origins.items()})


def read_memory(what: str = "VmRSS") -> float:
    """MiB of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


class MemoryReporter(QuietReporter):
    """Notes the memory on the way."""

    def __init__(self, mark: int) -> None:
        self.mark, self.seen = mark, dict[str, float]()

    @contextmanager
    def video(self, name: str, frames: int) -> Iterator[Callable[..., None]]:
        def watch(phase: str, done: int, total: int | None, objects: int) -> None:
            if phase == "forward" and done == self.mark:
                self.seen["at the mark"] = read_memory()
            elif done == total:
                self.seen[f"end of {phase}"] = read_memory()
            elif done % 5000 == 0:
                self.seen[f"{phase} {done}"] = read_memory()

        yield watch

    def done(self, *told: Any) -> None:
        self.seen["after writing"] = read_memory()


@contextmanager
def measure_calls(owner: type, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds that a method takes."""
    own = getattr(owner, name)

    def timed(*args: Any, **more: Any) -> Any:
        started = time.perf_counter()
        try:
            return own(*args, **more)
        finally:
            key = f"{owner.__name__}.{name}"
            spent[key] = spent.get(key, 0.0) + time.perf_counter() - started

    with patch.object(owner, name, timed):
        yield


def run(frames: int, every: int, mark: int) -> dict[str, Any]:
    """One run through the batch's own unit of work; its figures."""
    video, spent = GeneratedVideo(frames), dict[str, float]()
    reporter, system = MemoryReporter(mark), Sam2Bmp(ColourSegmenter(int(LATE * frames)), ColourPropagator())
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "video"
        source.write_text("stands for a file")
        job = batch.Job(
            str(source),
            OutputFolder(Path(folder) / "out", "video", False),
            lambda source: nullcontext(video),
            lambda video: system,
            system,
            overlay=False,
            checkpoint=every,
        )
        started = time.perf_counter()
        with (
            measure_calls(Checkpoints, "save", spent),
            measure_calls(Claim, "__enter__", spent),
            measure_calls(Claim, "__exit__", spent),
            patch.object(batch, "append_to_manifest", measure_manifest(batch.append_to_manifest, spent)),
        ):
            outcome = batch.process_video(job, reporter)
        seconds = time.perf_counter() - started
        assert outcome.is_there, outcome
        size = (Path(folder) / "out/video/masklets.json").stat().st_size
    before, after = reporter.seen["at the mark"], reporter.seen["after writing"]
    return {
        "frames": outcome.frames,
        "objects": outcome.objects,
        "every": every,
        "seconds": round(seconds, 1),
        "memory_mib": {k: round(v, 1) for k, v in reporter.seen.items()},
        "peak_mib": round(read_memory("VmHWM"), 1),
        "ratio": round(max(after, *reporter.seen.values()) / before, 4),
        "overhead_percent": round(100 * sum(spent.values()) / (seconds - sum(spent.values())), 2),
        "overhead_seconds": {k: round(v, 3) for k, v in spent.items()},
        "result_mib": round(size / 2**20, 1),
    }


def measure_manifest(own: Callable[..., None], spent: dict[str, float]) -> Callable[..., None]:
    """The function, whose seconds are added up."""

    def timed(*args: Any) -> None:
        started = time.perf_counter()
        own(*args)
        spent["manifest"] = spent.get("manifest", 0.0) + time.perf_counter() - started

    return timed


def measure_hour(frames: int = 108_000, objects: int = 20) -> dict[str, Any]:
    """How long it takes to write and to open a result of an hour, and to get at one frame of it."""
    draw = np.random.default_rng(0)
    masks = [Rle.encode_pixels(cv2.blur(draw.random((H, W)), (31, 31)) > 0.5) for _ in range(97)]
    book = TrackBook()
    for t in range(frames):
        for id in range(1, objects + 1):
            book.note(id, t, Sighting(masks[(7 * t + id) % 97], Source.FORWARD, 0.9, 0, 5.0))
    result = VideoResult("hour", (H, W), frames, 30.0, book.masklets(), ("thing",), Provenance("benchmark"))
    with tempfile.TemporaryDirectory() as folder:
        path, figures = Path(folder) / "masklets.json", {"before_mib": read_memory()}
        started = time.perf_counter()
        result.save(path)
        figures |= {"write_s": time.perf_counter() - started, "after_writing_mib": read_memory()}
        started = time.perf_counter()
        opened = VideoResult.open(path)
        figures |= {"open_s": time.perf_counter() - started, "file_mib": path.stat().st_size / 2**20}
        took = []
        for frame in draw.integers(0, frames, 50).tolist():
            started = time.perf_counter()
            assert len([s.mask.decode_pixels() for _, s in opened.at(frame)]) == objects
            took.append(time.perf_counter() - started)
        figures |= {"frame_median_s": float(np.median(took)), "frame_worst_s": max(took), "end_mib": read_memory()}
    return {k: round(v, 4) for k, v in figures.items()}


def write_clip(folder: Path, frames: int) -> None:
    """A short video as images, and detections of its squares, the last found late."""
    video, entries = GeneratedVideo(frames), []
    (folder / "clip").mkdir()
    for frame in video:
        Image.fromarray(frame.image).save(folder / f"clip/{frame.index:04}.png")
        for n, colour in enumerate(COLOURS[: len(COLOURS) - (frame.index < LATE * frames)]):
            rle = Rle.encode(find_colour(torch.from_numpy(frame.image), colour))
            code = {"size": [H, W], "counts": rle.counts.decode()}
            entries.append({"frame": frame.index, "category_id": n + 1, "score": 0.99, "segmentation": code})
    (folder / "d.json").write_text(json.dumps(entries))


def find_saved_frame(out: Path) -> tuple[str, int] | None:
    """What the checkpoint says that is there."""
    states = list(out.glob(".masklet/checkpoints/*/*/state.safetensors"))
    saved = load_memory(states[0]) if states else None
    return saved and (saved.phase, saved.frame)


def run_and_kill(command: Sequence[str], folder: Path, seconds: float) -> tuple[float, int, bytes]:
    """Runs a `command` in a folder, and kills it so many `seconds` after it has opened its video. Returns how long it
    ran from there on, its exit code and what it said.
    """
    opened = math.inf
    with (folder / "said").open("wb") as file, subprocess.Popen(command, cwd=folder, stdout=file) as process:
        while process.poll() is None:
            if opened == math.inf and b'"start"' in (folder / "said").read_bytes():
                opened = time.perf_counter()
            if time.perf_counter() - opened >= seconds:
                process.kill()
            time.sleep(0.005)
    return time.perf_counter() - opened, process.returncode, (folder / "said").read_bytes()


def measure_kills(kills: int, frames: int = 60, every: int = 5) -> dict[str, Any]:
    """Kills a run of `masklet run` at random moments, each time going on, until so many kills were made; compares every
    result with that of an undisturbed run.
    """
    draw, figures = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(folder, frames)
        command = [sys.executable, "-m", "masklet", "run", "clip", "--segmenter", "d.json", "--no-overlay"]
        command += ["--json-log", "--checkpoint", str(every), "-o"]
        longest, code, _ = run_and_kill([*command, "whole"], folder, math.inf)
        assert code == 0
        whole = (folder / "whole/clip/masklets.json").read_bytes()
        while figures["kills"] < kills:
            figures["runs"] += 1
            out, saved, code = folder / f"out{figures['runs']}", None, 1
            while code:
                _, code, said = run_and_kill([*command, out.name], folder, draw.uniform(0.0, 1.1) * longest)
                goes_on = f"goes on from frame {saved[1]} ({saved[0]})".encode() if saved else b""
                figures["lost"] += b'"progress"' in said and goes_on not in said
                saved = find_saved_frame(out)
                if code == -signal.SIGKILL:
                    figures["kills"] += 1
                    figures["killed " + (saved[0] if saved else "without a checkpoint")] += 1
                else:
                    figures["failed"] += code != 0
                figures["half written"] += (out / "clip").exists() and not (out / "clip/recipe.json").exists()
            figures["different"] += (out / "clip/masklets.json").read_bytes() != whole
            left = [p for p in out.rglob("*") if "partial" in p.name or "checkpoint" in str(p.relative_to(out))]
            figures["left over"] += len(left)
    return {"kills": 0, "lost": 0, "different": 0, "half written": 0, "left over": 0, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--mark", type=int, default=1000, help="the frame with whose memory the end is compared")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hour", action="store_true", help="measure the result of an hour instead")
    parser.add_argument("--kills", type=int, default=0, help="kill a run so often instead")
    asked = parser.parse_args()
    if asked.kills:
        sys.stdout.write(json.dumps(measure_kills(asked.kills), indent=1) + "\n")
        return
    if asked.hour:
        sys.stdout.write(json.dumps(measure_hour(), indent=1) + "\n")
        return
    torch.set_num_threads(1)
    figures = run(asked.frames, asked.every, asked.mark)
    text = json.dumps(figures, indent=1)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    if figures["ratio"] > 1.05 or figures["overhead_percent"] > 3:
        sys.exit("memory or overhead is above its bar: ratio 1.05, 3 %")


if __name__ == "__main__":
    main()
