"""`make bench`, second half: SAM 2 and SAM2Long, as ratios in one run.

python benchmarks/sam2_cost.py [--device cuda] [--size base-plus] [--side 1024] [--out out/sam2.json]

Weights do not matter for time and memory, so the networks are made at random, with an object score that is fixed:
every frame is remembered, and with a low score every frame is uncertain, so that pathways stay apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.models.sam2.memory import MemoryBank, RecentFrames, ReliableFrames, Sam2Memory
from masklet.models.sam2.propagator import Sam2
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings
from masklet.systems.sam2long import MemoryTree

SIZES: dict[str, dict[str, Any]] = {  # of the Hiera trunk
    "slim": {
        "hidden_size": 32,
        "blocks_per_stage": [1, 2, 3, 1],
        "embed_dim_per_stage": [32, 64, 128, 256],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "global_attention_blocks": [4, 5],
    },
    "tiny": {},
    "base-plus": {
        "hidden_size": 112,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 3, 16, 3],
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [12, 16, 20],
    },
    "large": {
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}
UNSURE, SURE = 1.0, 10.0  # object scores: below and above SAM2Long's threshold of uncertainty


def network(size: str, side: int, score: float) -> Any:
    """A network of random weights that gives every object this score, and hypotheses that differ in quality."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    torch.manual_seed(0)
    trunk = SIZES[size]
    channels = trunk.get("embed_dim_per_stage", [96, 192, 384, 768])[::-1]
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(image_size=[side, side], **trunk),
        backbone_channel_list=channels,
        backbone_feature_sizes=[[side // n] * 2 for n in (4, 8, 16)],
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=side),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(),
        image_size=side,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        enable_temporal_pos_encoding_for_object_pointers=True,
        enable_occlusion_spatial_embedding=True,
    )
    net = Sam2VideoModel(config).eval().requires_grad_(False)
    last = net.mask_decoder.pred_obj_score_head.proj_out
    last.weight.data.zero_()
    last.bias.data.fill_(score)
    net.mask_decoder.iou_prediction_head.proj_out.bias.data += torch.tensor([0.0, -1.0, 0.0, 1.0])
    return net


def frame(t: int) -> Frame:
    rng = np.random.default_rng(t)
    return Frame(t, rng.integers(0, 256, (480, 640, 3), np.uint8), t / 10)


def masks(objects: int) -> dict[int, torch.Tensor]:
    """A square for each object."""
    out = {}
    for n in range(objects):
        out[n + 1] = torch.zeros(480, 640, dtype=torch.bool)
        out[n + 1][(n // 8) * 50 : (n // 8) * 50 + 60, (n % 8) * 70 : (n % 8) * 70 + 80] = True
    return out


def full(memory: Sam2Memory, frames: int = 20) -> Sam2Memory:
    """The memory as after many more frames."""

    def aged(bank: MemoryBank) -> MemoryBank:
        recent = tuple(replace(bank.recent[-1], time=bank.now + n) for n in range(frames))
        return replace(bank, now=bank.now + frames, recent=recent)

    return Sam2Memory({id: aged(bank) for id, bank in memory.banks.items()})


def remembered(sam2: Sam2, features: Any, objects: int) -> Sam2Memory:
    """A memory of some objects, full."""
    memory, _ = sam2.prompt(sam2.empty(), features, masks(objects))
    return full(sam2.commit(memory, features, sam2.predict(memory, features)))


def step(propagator: Any, memory: Any, features: Any) -> None:
    """One frame but for its encoding."""
    propagator.commit(memory, features, propagator.predict(memory, features))


def seconds(device: torch.device, rounds: int, *works: Callable[[], object]) -> list[float]:
    """Median time of each work; they take turns, so that a slow moment of the machine hits all of them."""
    times: list[list[float]] = [[] for _ in works]
    for n in range(rounds + 1):  # the first round warms up
        for work, spent in zip(works, times, strict=True):
            started = perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if n:
                spent.append(perf_counter() - started)
    return [median(spent) for spent in times]


def objects_curve(size: str, side: int, device: torch.device, counts: Sequence[int], rounds: int) -> dict[str, float]:
    """Non-encoder cost and frames/s over the number of objects, memory full."""
    sam2 = Sam2(network(size, side, SURE).to(device))
    [features] = sam2.encode([frame(0)])
    memories = [remembered(sam2, features, n) for n in counts]
    steps = [lambda m=m: step(sam2, m, features) for m in memories]
    encode, *spent = seconds(device, rounds, lambda: sam2.encode([frame(0)]), *steps)
    out = {"encoder, s": encode, "one object, s": spent[0]}
    for n, s in zip(counts, spent, strict=True):
        out[f"{n} objects, frames/s"] = 1 / (encode + s)
        if n > 1:
            out[f"{n} objects / {n} x one object"] = s / (n * spent[0])
    return out


def against_transformers(size: str, side: int, device: torch.device, frames: int) -> dict[str, float]:
    """One object, whole frames: ours against transformers' session, the memory of both full."""
    from transformers import Sam2VideoInferenceSession

    sam2, own = Sam2(network(size, side, SURE).to(device)), network(size, side, SURE).to(device)
    session = Sam2VideoInferenceSession(
        video=None, video_height=480, video_width=640, inference_device=device, dtype=torch.float32
    )
    id = session.obj_id_to_idx(1)
    given = torch.nn.functional.interpolate(masks(1)[1][None, None].float(), (side, side)) > 0.5
    [features] = sam2.encode([frame(0)])
    memory, _ = sam2.prompt(sam2.empty(), features, masks(1))
    ours, theirs = [], []
    for t in range(frames):
        started = perf_counter()
        [features] = sam2.encode([frame(t)])
        memory = sam2.commit(memory, features, sam2.predict(memory, features))
        ours.append(perf_counter() - started)
        if t == 0:
            session.add_mask_inputs(id, 0, given)
            session.obj_with_new_inputs = [1]
        started = perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            own(inference_session=session, frame=sam2.pixels(frame(t))[0])
        theirs.append(perf_counter() - started)
    return {"transformers, s": median(theirs[8:]), "ours / transformers": median(ours[8:]) / median(theirs[8:])}


def trees(size: str, side: int, device: torch.device, rounds: int) -> dict[str, float]:
    """SAM2Long with three pathways against plain SAM 2, whole frames."""
    out = {}
    for name, score in (("apart", UNSURE), ("identical", SURE)):
        net = network(size, side, score).to(device)
        plain, below = Sam2(net, RecentFrames()), Sam2(net, ReliableFrames(-1.0))
        tree = MemoryTree(below)
        [features] = plain.encode([frame(0)])
        memory, _ = tree.prompt(tree.empty(), features, masks(1))
        for _ in range(4):
            memory = tree.commit(memory, features, tree.predict(memory, features))
        paths = len(set(memory.trees[1].paths))
        assert paths == (3 if name == "apart" else 1), f"{paths} pathways {name}"
        many, few = replace(memory, inner=full(memory.inner)), remembered(plain, features, 1)
        works = (
            partial(plain.encode, [frame(0)]),
            partial(step, plain, few, features),
            partial(step, tree, many, features),
        )
        encode, one, three = seconds(device, rounds, *works)
        out[f"pathways {name} / plain"] = (encode + three) / (encode + one)
    return out


@dataclass(frozen=True)
class Late:
    """A segmenter that sees its objects in the second half: the first is completed backward."""

    length: int
    categories: tuple[str, ...] = ("square",)
    look_ahead: int = 0

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        found = torch.stack(list(masks(2).values()))
        sure = Detections(found, torch.full((2,), 0.99), torch.zeros(2, dtype=torch.int64))
        return [sure if f.index >= self.length // 2 else Detections.none((480, 640)) for f in frames], None


class Clip:
    """Frames made on the fly."""

    name, size, rate, damage = "noise", (480, 640), 10.0, None

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return (frame(t) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [frame(t) for t in range(start, stop)]


def backward(size: str, side: int, device: torch.device, frames: int) -> dict[str, float]:
    """SAM2BMP's backward sweep against its forward phase, features kept."""
    moments: dict[str, list[float]] = {"forward": [], "backward": []}

    def watch(phase: str, done: int, total: int | None, objects: int) -> None:
        moments[phase].append(perf_counter())

    # Masks of random weights agree with nothing: any overlap, and none, is a match.
    settings = Sam2BmpSettings(match_iou=-1.0, key_ratio=0.0, twin_iou=1.0, feature_memory=4 << 30)
    started = perf_counter()
    Sam2Bmp(Late(frames), Sam2(network(size, side, SURE).to(device)), settings).run(Clip(frames), watch)
    turn, end = moments["forward"][-1], moments["backward"][-1]
    return {"frames": frames, "backward / forward (at most 0.6)": (end - turn) / (turn - started)}


def peak(what: str, frames: int) -> float:
    """Peak resident memory of a fresh process, in MB."""
    command = [sys.executable, __file__, "--threads", "1", "--child", what, str(frames)]
    got = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(got.stdout.split()[-1])


def child(what: str, frames: int) -> float:
    """What `peak` measures: two objects at 480p, the slim network at 256 px."""
    net = network("slim", 256, UNSURE)
    if what == "transformers":
        return session_peak(net, frames)
    propagator: Any = Sam2(net) if what == "plain" else MemoryTree(Sam2(net, ReliableFrames(-1.0)))
    memory = propagator.empty()
    for t in range(frames):
        [features] = propagator.encode([frame(t)])
        memory = propagator.commit(memory, features, propagator.predict(memory, features))
        if t == 0:
            memory, _ = propagator.prompt(memory, features, masks(2))
    return high_water()


def session_peak(net: Any, frames: int) -> float:
    from transformers import Sam2VideoInferenceSession

    sam2 = Sam2(network("slim", 256, UNSURE))  # for its preparation of frames
    session = Sam2VideoInferenceSession(video=None, video_height=480, video_width=640, dtype=torch.float32)
    for n, mask in masks(2).items():
        small = torch.nn.functional.interpolate(mask[None, None].float(), (256, 256)) > 0.5
        session.add_mask_inputs(session.obj_id_to_idx(n), 0, small)
    session.obj_with_new_inputs = [1, 2]
    for t in range(frames):
        net(inference_session=session, frame=sam2.pixels(frame(t))[0])
    return high_water()


def high_water() -> float:
    """Not getrusage: its peak is inherited from the process that started this one."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def memory(frames: int = 1000) -> dict[str, float]:
    """Peak memory of a stream, far on against early."""
    out = {}
    for what in ("plain", "tree"):
        early, late = peak(what, 100), peak(what, frames)
        out |= {f"{what}, frame 100, MB": early, f"{what}, frame {frames} / frame 100 (at most 1.03)": late / early}
    grown = peak("transformers", 200) - peak("transformers", 100)
    return {**out, "transformers' session, MB per 100 frames": grown}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--objects", default="1,2,4,8", help="for the curve; with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="objects,transformers,trees,backward,memory", help="parts, with commas")
    parser.add_argument("--out", type=Path, default=Path("out/sam2.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        if args.child:
            print(child(args.child[0], int(args.child[1])))
            return 0
        what = args.size, args.side, torch.device(args.device)
        parts: dict[str, Callable[[], dict[str, float]]] = {
            "objects": lambda: objects_curve(*what, [int(n) for n in args.objects.split(",")], args.rounds),
            "transformers": lambda: against_transformers(*what, 24),
            "trees": lambda: trees(*what, args.rounds),
            "backward": lambda: backward(*what, 17),
            "memory": memory,
        }
        figures = {"network": {"size": args.size, "side": args.side, "device": args.device, "threads": args.threads}}
        for name in args.only.split(","):
            figures[name] = parts[name]()
            print(name, *(f"  {k:60} {v:10.3f}" for k, v in figures[name].items()), sep="\n", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
