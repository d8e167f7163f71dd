"""What every training step takes: a few frames with exact masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class TrainingClip:
    """Frames of one size and the objects in them. Masks of one frame do not overlap: what is hidden is not in them."""

    images: UInt8[Tensor, "t 3 h w"]  # RGB
    masks: Bool[Tensor, "g t h w"]
    present: Bool[Tensor, "g t"]  # annotated in this frame, with an empty mask if it was cropped away
    labels: Int64[Tensor, " g"]  # 0 to k - 1


@runtime_checkable
class ClipSource(Protocol):
    """Where clips come from: generated, stills made to move, annotated videos."""

    categories: tuple[str, ...]

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """One more clip. The same state of `random` gives the same clip: nothing else decides."""
        ...


class UncategorisedSource:
    """A `ClipSource` of another one's clips, for training that asks for no categories."""

    categories: tuple[str, ...] = ("object",)

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """A clip of the other source, drawn with the same `random`, in which every object has label 0."""
        made = self.source.clip(random, frames)
        return replace(made, labels=torch.zeros_like(made.labels))


def seed_item_generator(seed: int, step: int, item: int = 0) -> np.random.Generator:
    """The random numbers of item `item` of step `step` of a run with `seed`, whatever was drawn before: a run that
    resumes sees the same data.
    """
    return np.random.default_rng((seed, step, item))
