"""A package of somebody else: a segmenter, a propagator and a system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import masklet
from masklet.core.memory_kinds import register_memory_kind
from masklet.evaluate.report import Report


@dataclass(frozen=True)
class BrightSettings:
    """What `--set segmenter.NAME` reaches."""

    level: int = 128  # grey level above which a pixel is bright


@register_memory_kind("toy.frames")
@dataclass(frozen=True)
class FrameCount:
    """How many frames were seen."""

    frames: int = 0


class Bright:
    """What is bright is one object."""

    categories = ("bright",)
    look_ahead = 0
    conf = low_conf = 0.5

    def __init__(self, level: int = 128) -> None:
        self.level = level
        self.description = f"bright above {level}"

    def empty(self) -> FrameCount:
        return FrameCount()

    def segment(
        self, memory: FrameCount, frames: Sequence[masklet.Frame], future: Sequence[masklet.Frame]
    ) -> tuple[list[masklet.Detections], FrameCount]:
        masks = [torch.from_numpy((f.image.min(2) > self.level)[None]) for f in frames]
        one = torch.tensor([0.9]), torch.tensor([0])
        return [masklet.Detections(m, *one) for m in masks], replace(memory, frames=memory.frames + len(frames))


@register_memory_kind("toy.masks")
@dataclass(frozen=True)
class StillMemory:
    """The masks as they were last."""

    masks: Mapping[int, torch.Tensor]


class Still:
    """Everything stays where it was."""

    def encode(self, frames: Sequence[masklet.Frame]) -> list[tuple[int, int]]:
        return [f.size for f in frames]

    def empty(self) -> StillMemory:
        return StillMemory({})

    def predict(self, memory: StillMemory, features: tuple[int, int]) -> masklet.Prediction:
        n = len(memory.masks)
        logits = torch.stack([8.0 * m - 4 for m in memory.masks.values()]) if n else torch.zeros(0, *features)
        return masklet.Prediction(tuple(memory.masks), logits[:, None], torch.ones(n, 1), torch.ones(n, 1))

    def commit(self, memory: StillMemory, features: tuple[int, int], belief: masklet.Prediction) -> StillMemory:
        return memory

    def prompt(
        self, memory: StillMemory, features: tuple[int, int], prompts: Mapping[int, Any]
    ) -> tuple[StillMemory, masklet.Prediction]:
        memory = StillMemory({**memory.masks, **{id: mask.float() for id, mask in prompts.items()}})
        return memory, self.predict(memory, features)

    def forget(self, memory: StillMemory, ids: Iterable[int]) -> StillMemory:
        return StillMemory({id: m for id, m in memory.masks.items() if id not in set(ids)})

    def branch(self, memory: StillMemory, origins: Mapping[int, int]) -> StillMemory:
        return StillMemory({new: memory.masks[old] for new, old in origins.items()})


def load_bright(request: masklet.PartRequest) -> Bright:
    """What is bright."""
    return Bright(**request.settings)


def load_still(request: masklet.PartRequest) -> Still:
    """What stays."""
    return Still()


def build_sam2bmp(segmenter: Any, propagator: Any, settings: Any) -> masklet.VideoSystem:
    """SAM2BMP under another name."""
    return masklet.Sam2Bmp(segmenter, propagator, masklet.Sam2BmpSettings(conf=0.5))


def write_count(result: masklet.VideoResult, names: Sequence[str] | None, folder: Path) -> None:
    """How many masklets there are."""
    (folder / "count.txt").write_text(str(len(result.masklets)))


def count_videos(gt: Path, pred: Path, *, videos: Any = None, watch: Any = None) -> Report:
    """How many videos have results."""
    return Report("toymetric", "counted", {"videos": float(len(list(pred.iterdir())))})


def write_index(results: Sequence[masklet.VideoResult], folder: Path) -> None:
    """The names of the videos."""
    (folder / "index.txt").write_text("\n".join(r.name for r in results))


bright = masklet.PartEntry("bright", "what is bright", "toy:load_bright", "toy:BrightSettings", form="bright")
