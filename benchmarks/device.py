"""Everything that needs a GPU, in one call: generated frames, random weights, a table.

    python benchmarks/device.py --device cuda --minutes 8 --out out/device.json
    python benchmarks/device.py --device cpu --small        # the same in small, as the tests run it

Frames a second of whole frames (encoding, masks, memory, run lengths), the share of the time in which the GPU has
nothing to do (profiler), and peak memory on it: `track` over SAM 2 with 1, 8, 32 and 128 objects, beside transformers'
session and, where the wheel `rf-sam-2` is installed, the official predictor, compiled too; SAM2Long over it; the other
networks that compute on a device. Rows that the minutes do not suffice for are named, not left out in silence.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import sam2_cost as plain
import torch
from PIL import Image
from strong_rows import list_strong_rows

from masklet.core.frames import Frame
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.nano.propagator import build_nano_propagator
from masklet.models.sam2.memory import ReliableFrames
from masklet.models.sam2.propagator import Sam2
from masklet.models.xmem.propagator import Xmem
from masklet.nn.xmem import XmemNet
from masklet.systems.sam2long import MemoryTree
from masklet.systems.track import Track

Row = dict[str, Any]
OFFICIAL = {"tiny": "configs/sam2.1/sam2.1_hiera_t.yaml", "large": "configs/sam2.1/sam2.1_hiera_l.yaml"}


@dataclass(frozen=True)
class Scale:
    """How large all of it is."""

    size: str  # of SAM 2's trunk
    side: int  # of its image
    frame: tuple[int, int]  # h, w of the video
    frames: int
    objects: tuple[int, ...]


LARGE = Scale("large", 1024, (1080, 1920), 24, (1, 8, 32, 128))
SMALL = Scale("slim", 64, (64, 96), 2, (1, 3))


class Wandering:
    """Textured squares on a textured ground, made on the fly; the clip can be read again."""

    name, rate, damage = "wandering", 25.0, None

    def __init__(self, scale: Scale) -> None:
        self.size, self.length = scale.frame, scale.frames
        self.ground = np.random.default_rng(0).integers(0, 255, (*scale.frame, 3), np.uint8)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self.frame(t) for t in range(start, stop)]

    def frame(self, t: int) -> Frame:
        return Frame(t, np.roll(self.ground, 3 * t, axis=1), t / self.rate)

    def masks(self, objects: int) -> dict[int, torch.Tensor]:
        """A square for each object, on a grid."""
        h, w = self.size
        across = int(np.ceil(np.sqrt(objects)))
        out = {}
        for n in range(objects):
            y, x = n // across * h // across, n % across * w // across
            out[n + 1] = torch.zeros(h, w, dtype=torch.bool)
            out[n + 1][y : y + h // (2 * across) + 1, x : x + w // (2 * across) + 1] = True
        return out


def measure_work(work: Callable[[], int], device: torch.device) -> Row:
    """Frames a second of `work`, which says how many it did; on a GPU its idle share and peak memory, too. The first
    round warms up, the second is timed, the third, shorter by nothing, is profiled.
    """
    work()
    if device.type != "cuda":
        started = perf_counter()
        return {"frames/s": work() / (perf_counter() - started)}
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    started = perf_counter()
    frames = work()
    torch.cuda.synchronize()
    spent = perf_counter() - started
    told = {"frames/s": frames / spent, "GPU GB": torch.cuda.max_memory_allocated() / 1e9}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    busy = sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6
    return {**told, "GPU idle": max(1 - busy / spent, 0.0)}


def track_objects(propagator: Any, video: Wandering, objects: int) -> int:
    """`track` of some objects over the whole clip, forward only as they begin in its first frame."""
    prompts = {0: video.masks(objects)}
    return len(video) if Track(propagator, prompts).run(video) else 0


def run_session(net: Any, pixels: list[torch.Tensor], masks: Mapping[int, torch.Tensor], device: torch.device) -> int:
    """transformers' session over the same frames, each object's masks at the video's size."""
    from transformers import Sam2VideoInferenceSession

    h, w = next(iter(masks.values())).shape
    side = pixels[0].shape[-1]
    session = Sam2VideoInferenceSession(
        video=None, video_height=h, video_width=w, inference_device=device, dtype=torch.float32
    )
    for id, mask in masks.items():
        given = torch.nn.functional.interpolate(mask[None, None].float(), (side, side)) > 0.5
        session.add_mask_inputs(session.obj_id_to_idx(id), 0, given)
    session.obj_with_new_inputs = list(masks)
    for frame in pixels:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            answer = net(inference_session=session, frame=frame)
        (torch.nn.functional.interpolate(answer.pred_masks.float(), (h, w)) > 0).cpu()
    return len(pixels)


def run_official(predictor: Any, folder: Path, masks: Mapping[int, torch.Tensor]) -> int:
    """The official predictor over the frames in `folder`."""
    state = predictor.init_state(str(folder))
    for id, mask in masks.items():
        predictor.add_new_mask(state, 0, id, mask)
    return sum(1 for _, _, logits in predictor.propagate_in_video(state) if (logits > 0).cpu() is not None)


def build_official(scale: Scale, device: torch.device, compiled: bool) -> Any:
    """The official predictor with random weights."""
    from sam2.build_sam import build_sam2_video_predictor  # type: ignore[import-not-found]

    return build_sam2_video_predictor(OFFICIAL[scale.size], None, device=str(device), vos_optimized=compiled)


def list_rows(scale: Scale, device: torch.device, folder: Path) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What is measured, the most wanted first."""
    video = Wandering(scale)
    net = plain.network(scale.size, scale.side, plain.SURE).to(device)
    sam2 = Sam2(net)
    for n in scale.objects:
        yield (
            f"SAM 2 {scale.size}, {n} objects",
            lambda n=n: measure_work(lambda: track_objects(sam2, video, n), device),
        )
    tree = MemoryTree(Sam2(net, ReliableFrames(-1.0)))
    yield "SAM2Long over it, 1 object", lambda: measure_work(lambda: track_objects(tree, video, 1), device)
    own = plain.network(scale.size, scale.side, plain.SURE).to(device)
    pixels = [sam2.pixels(frame)[0] for frame in video]
    for n in scale.objects[:3]:
        session = partial(run_session, own, pixels, video.masks(n), device)
        yield f"transformers' session, {n} objects", partial(measure_work, session, device)
    if find_spec("sam2") and scale.size in OFFICIAL:
        for frame in video:
            Image.fromarray(frame.image).save(folder / f"{frame.index:05d}.jpg")
        for compiled in (False, True):
            for n in scale.objects[:2]:
                name = f"official predictor{', compiled' * compiled}, {n} objects"
                yield (
                    name,
                    lambda n=n, compiled=compiled: measure_work(
                        partial(run_official, build_official(scale, device, compiled), folder, video.masks(n)), device
                    ),
                )
    encoder = Encoder(device=device)
    deva = Xmem(XmemNet().eval().requires_grad_(False).to(device), size=min(480, *scale.frame))
    shipped = (
        ("nano", build_nano_propagator(None, encoder)),
        ("affinity", Affinity(encoder)),
        ("DEVA's network", deva),
    )
    for name, part in shipped:
        for n in scale.objects[:2]:
            yield (
                f"{name}, {n} objects",
                lambda part=part, n=n: measure_work(lambda: track_objects(part, video, n), device),
            )
    yield from list_strong_rows(
        video, scale is LARGE, device, scale.objects[:2], track_objects, measure_work, run_session
    )


def measure_all(scale: Scale, device: torch.device, minutes: float) -> dict[str, Row]:
    """Every row, or why it was not measured."""
    ends, rows = perf_counter() + 60 * minutes, dict[str, Row]()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, work in list_rows(scale, device, Path(folder)):
            if perf_counter() > ends:
                rows[name] = {"left out": "no time left"}
                continue
            try:
                rows[name] = work()
            except (RuntimeError, ImportError, OSError) as error:  # such as out of memory: the other rows still count
                rows[name] = {"left out": " ".join(str(error).split())[:120]}
            print(format_row(name, rows[name]), flush=True)
    return rows


def format_row(name: str, row: Row) -> str:
    """A line of the table, in Markdown."""
    figures = [f"{row[key]:.3g}" if key in row else "" for key in ("frames/s", "GPU idle", "GPU GB")]
    return f"| {name} | {' | '.join(figures)} | {row.get('left out', '')} |"


def describe_machine(device: torch.device) -> dict[str, str]:
    """What the figures are of."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": card, "torch": torch.__version__, "masklet": version("masklet")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a small network, small frames, few objects")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no further row begins")
    parser.add_argument("--out", type=Path, default=Path("out/device.json"))
    args = parser.parse_args()
    device, scale = torch.device(args.device), SMALL if args.small else LARGE
    machine = describe_machine(device)
    print(f"{machine}\n\n| | frames/s | GPU idle | GPU GB | |\n|---|---|---|---|---|", flush=True)
    rows = measure_all(scale, device, args.minutes)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine, "scale": vars(scale), "rows": rows}, indent=1))
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
