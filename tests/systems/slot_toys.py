"""Slots without a network: what is in a frame is drawn from its number, so every window sees the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.slots import FrameSlots

SIZE = (24, 32)


@dataclass
class Clip:
    """Frames in which only the number tells them apart."""

    length: int = 7
    size: tuple[int, int] = SIZE
    name: str = "toy"
    rate: float = 10.0
    damage: str | None = None
    reads: int = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(t, np.zeros((*self.size, 3), np.uint8)) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        self.reads += stop - start
        return list(self)[start:stop]


@dataclass
class ToySlots:
    """`objects` things, each with a query of its own that drifts a little; `order` shuffles a frame's slots."""

    objects: int = 6
    width: int = 16
    categories: tuple[str, ...] = ("a", "b", "c", "d")
    order: Callable[[int], Sequence[int]] = lambda t: ()
    confidence: float = 3.0  # how much the logit of an object's own class stands out; below 0: of no object
    seen: list[int] = field(default_factory=list)  # windows

    def slots(self, frames: Sequence[Frame]) -> FrameSlots:
        self.seen.append(len(frames))
        parts = [self.one(f.index) for f in frames]
        return FrameSlots(*(torch.stack(p) for p in zip(*parts, strict=True)), (SIZE[0] - 2, SIZE[1] - 4))

    def one(self, t: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        draw = torch.Generator().manual_seed(1000 + t)
        base = torch.randn(self.objects, self.width, generator=torch.Generator().manual_seed(1))
        queries = base + 0.1 * torch.randn(self.objects, self.width, generator=draw)
        logits = 0.3 * torch.randn(self.objects, len(self.categories) + 1, generator=draw)
        own = torch.arange(self.objects) % len(self.categories)
        column = own if self.confidence > 0 else torch.full_like(own, len(self.categories))
        logits[torch.arange(self.objects), column] += abs(self.confidence)
        features = torch.randn(self.width, 6, 8, generator=draw)
        masks = torch.full((self.objects, 6, 8), -4.0)
        for n in range(self.objects):
            masks[n, :, n : n + 2] = 4.0
        at = list(self.order(t)) or list(range(self.objects))
        return queries[at], logits[at], features, masks[at]


def shuffled(from_frame: int = 1, objects: int = 6) -> Callable[[int], Sequence[int]]:
    """Another order in every frame from one on."""

    def order(t: int) -> Sequence[int]:
        return torch.randperm(objects, generator=torch.Generator().manual_seed(t)).tolist() if t >= from_frame else ()

    return order


def quiet(*told: object) -> None:
    """Watches nothing."""
