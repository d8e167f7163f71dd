"""Training the nano propagator: `PropagatorTask`, with guesses that are led astray now and then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.instances import Prediction, Prompt
from masklet.models.encoder import Encoder
from masklet.models.nano.network import NanoSettings, save_nano
from masklet.models.nano.propagator import Nano, NanoFeatures, NanoMemory
from masklet.train.data.clips import ClipSource, TrainingClip
from masklet.train.data.mixture import ClipMixture
from masklet.train.data.pasting import MovingStills, PastingSettings
from masklet.train.data.stills import Stills
from masklet.train.tasks.propagator import PromptSampling, PropagatorTask

WIDE = 16 / 9  # long by short side of most videos
LIVELY = PastingSettings(light=0.3, speed=0.1, camera=0.05, bend=0.08)
CROWDED = replace(LIVELY, objects=(2, 5), lookalikes=0.5, crowding=0.85)
ASKING = PromptSampling(
    boxes=0.1, clicks=0.05, others=0.3
)  # with no share for the others the best is not told from the rest


@dataclass(frozen=True)
class GuessDrift:
    """A `Mislead`: what the training-free propagation remembers gets wrong, as it does in long videos.

    The network, whose own memory stays right, learns to see when the guess is not.
    """

    often: float = 0.35  # probability, after each frame
    added: float = 0.6  # share of the mistakes that add to the mask; the others take away
    elsewhere: float = 0.5  # share of the mistakes that are another object's mask; the others are ellipses
    size: tuple[float, float] = (0.3, 1.0)  # of an ellipse, in sides of the square of the mask's area

    def __call__(
        self,
        propagator: Nano,
        memory: NanoMemory,
        features: NanoFeatures,
        belief: Prediction,
        clip: TrainingClip,
        random: np.random.Generator,
    ) -> NanoMemory:
        """The memory with other masks for the guesses to start from."""
        if random.random() >= self.often:
            return memory
        masks = dict(zip(belief.ids, belief.masks(features.size), strict=True))
        known = {id: self._mistaken(m, clip, random) for id, m in masks.items() if id in memory.guessed.ids}
        told: dict[int, Prompt] = {id: m for id, m in known.items() if m.any()}
        return propagator.misled(memory, features, told)

    def _mistaken(
        self, mask: Bool[Tensor, "h w"], clip: TrainingClip, random: np.random.Generator
    ) -> Bool[Tensor, "h w"]:
        part = self._part(mask, clip, random)
        return mask | part if random.random() < self.added else mask & ~part

    def _part(self, mask: Bool[Tensor, "h w"], clip: TrainingClip, random: np.random.Generator) -> Bool[Tensor, "h w"]:
        """Some object's mask in some frame, or an ellipse about a pixel of the mask."""
        if random.random() < self.elsewhere:
            return clip.masks[int(random.integers(len(clip.masks))), int(random.integers(clip.masks.shape[1]))]
        pixels = mask.nonzero() if mask.any() else torch.ones_like(mask).nonzero()
        y, x = pixels[int(random.integers(len(pixels)))].tolist()
        across = float(random.uniform(*self.size)) * max(float(mask.sum()), 64.0) ** 0.5
        canvas = np.zeros(mask.shape, np.uint8)
        axes = (across, across * float(random.uniform(0.5, 1)))
        cv2.ellipse(canvas, ((float(x), float(y)), axes, float(random.uniform(0, 180))), 1, -1)
        return torch.from_numpy(canvas > 0)


def create_moving_clips(
    stills: Sequence[Stills], ratios: Sequence[float], short: int = 224, like: PastingSettings = LIVELY
) -> ClipMixture:
    """Clips of images of several sets `stills`, as often as `ratios` say: most of them wide, some square, some tall.

    `short`: side of the frames in pixels; `like`: what happens in them. Raises InputError where the sets' categories
    differ: rename them all.
    """
    long = round(short * WIDE / 8) * 8
    shapes = {(short, long): 0.65, (short, short): 0.2, (long, short): 0.15}
    parts = [
        (one, size, ratio * often) for one, ratio in zip(stills, ratios, strict=True) for size, often in shapes.items()
    ]
    sources = [MovingStills(one, replace(like, size=size)) for one, size, _ in parts]
    return ClipMixture(sources, [often for *_, often in parts])


def build_nano_task(
    net: Any,
    settings: NanoSettings,
    source: ClipSource,
    held_out: Sequence[TrainingClip],
    asking: PromptSampling = ASKING,
) -> PropagatorTask:
    """The task of training all of `net` on clips of `source`; encoders see the clips at their own size. `settings` are
    written with its weights, `held_out` clips validate it, and `asking` says which prompts and costs it has.
    """
    net.requires_grad_(True)

    @cache
    def propagator(short: int) -> Nano:
        return Nano(net, Encoder(short, least=short), gradients=True)

    def save(path: Path) -> None:
        save_nano(path, net, settings)

    return PropagatorTask(net, propagator, source, held_out, save, asking=asking, mislead=GuessDrift())
