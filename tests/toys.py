"""A world of flat coloured squares, and models that understand exactly that world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.instances import Clicks, Detections, Prediction, Prompt
from masklet.core.memory_kinds import register_memory_kind

H = W = 32
SIDE = 6
COLOURS = torch.tensor([[230, 40, 40], [40, 230, 40], [40, 40, 230], [230, 230, 40]])

Place = Callable[[int], tuple[int, int] | None]  # frame -> top left corner, or None where it is not there


def square(y: int, x: int, side: int = SIDE) -> Tensor:
    mask = torch.zeros(H, W, dtype=torch.bool)
    mask[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = True
    return mask


@dataclass
class World:
    """A video whose truth is known: object o has COLOURS[o]; later objects lie on top."""

    places: Sequence[Place]
    length: int = 16
    size: tuple[int, int] = (H, W)
    name: str = "toy"
    rate: float = 10.0
    damage: str | None = None
    reads: int = 0  # frames handed out again by `read`

    def __len__(self) -> int:
        return self.length

    def truth(self, t: int) -> dict[int, Tensor]:
        out: dict[int, Tensor] = {}
        for o, place in enumerate(self.places):
            at = place(t)
            if at is None or not square(*at).any():
                continue
            out = {i: m & ~square(*at) for i, m in out.items()}
            out[o] = square(*at)
        return out

    def frame(self, t: int) -> Frame:
        image = np.full((H, W, 3), 15, np.uint8)
        for o, mask in self.truth(t).items():
            image[mask.numpy()] = COLOURS[o].numpy()
        return Frame(t, image, t / self.rate)

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        self.reads += stop - start
        return [self.frame(t) for t in range(start, stop)]


Alarm = tuple[int, Tensor, float, int]  # frame, mask, score, label


@dataclass
class ToySegmenter:
    """Finds the squares by their colour; `blind` (frame, object) are missed, `alarms` come on top."""

    blind: Callable[[int, int], bool] = lambda t, o: False
    score: Callable[[int, int], float] = lambda t, o: 0.99
    alarms: Sequence[Alarm] = ()
    categories: tuple[str, ...] = ("red", "green", "blue", "yellow")
    look_ahead: int = 0

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.one(f) for f in frames], None

    def one(self, frame: Frame) -> Detections:
        t, image = frame.index, torch.from_numpy(frame.image)
        rows = [((image == c).all(-1), self.score(t, o), o) for o, c in enumerate(COLOURS) if not self.blind(t, o)]
        rows = [r for r in rows if r[0].any()] + [(m, s, k) for at, m, s, k in self.alarms if at == t]
        if not rows:
            return Detections.none(frame.size)
        masks, scores, labels = zip(*rows, strict=True)
        return Detections(torch.stack(masks), torch.tensor(scores), torch.tensor(labels))


@register_memory_kind("tests.toy-memory")
@dataclass(frozen=True)
class ToyMemory:
    """The mean colour of each object's anchor and of its last three frames."""

    anchors: Mapping[int, Tensor] = field(default_factory=dict)
    recent: Mapping[int, tuple[Tensor, ...]] = field(default_factory=dict)


@dataclass
class ToyPropagator:
    """Follows a colour: finds an object again wherever its colour shows."""

    encoded: list[int] = field(default_factory=list)  # frames seen by the encoder, for tests that count

    def encode(self, frames: Sequence[Frame]) -> list[Tensor]:
        self.encoded += [f.index for f in frames]
        return [torch.from_numpy(f.image).float() for f in frames]

    def empty(self) -> ToyMemory:
        return ToyMemory()

    def predict(self, memory: ToyMemory, features: Tensor) -> Prediction:
        ids = tuple(memory.anchors)
        if not ids:
            return Prediction((), torch.zeros(0, 1, *features.shape[:2]), torch.zeros(0, 1), torch.zeros(0, 1))
        colours = torch.stack([torch.stack([memory.anchors[i], *memory.recent[i]]).mean(0) for i in ids])
        logits = 40.0 - (features[None] - colours[:, None, None]).abs().amax(-1)[:, None]
        seen = (logits > 0).flatten(2).any(2)
        return Prediction(ids, logits, torch.where(seen, 0.9, 0.1), torch.where(seen, 5.0, -5.0))

    def commit(self, memory: ToyMemory, features: Tensor, belief: Prediction) -> ToyMemory:
        masks = zip(belief.ids, belief.masks((features.shape[0], features.shape[1])), strict=True)
        new = {i: (*memory.recent[i], features[m].mean(0))[-3:] for i, m in masks if m.any()}
        return replace(memory, recent={**memory.recent, **new})

    def prompt(
        self, memory: ToyMemory, features: Tensor, prompts: Mapping[int, Prompt]
    ) -> tuple[ToyMemory, Prediction]:
        masks = {i: self.mask(p, features) for i, p in prompts.items()}
        colours = {i: features[m].mean(0) for i, m in masks.items() if m.any()}
        anchors = {**{i: c for i, c in colours.items()}, **memory.anchors}
        recent = {**memory.recent, **{i: (c,) for i, c in colours.items()}}
        logits = torch.stack([m.float() - 0.5 for m in masks.values()])[:, None] if masks else torch.zeros(0, 1, H, W)
        one = torch.ones(len(masks), 1)
        return ToyMemory(anchors, recent), Prediction(tuple(masks), logits, one, one)

    def mask(self, prompt: Prompt, features: Tensor) -> Tensor:
        if isinstance(prompt, Tensor):
            return prompt
        clicks = Clicks.of(prompt)
        box, points = clicks.box, clicks.points
        x, y = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) if box else (points[0].x, points[0].y)
        return (features == features[int(y), int(x)]).all(-1)

    def branch(self, memory: ToyMemory, origins: Mapping[int, int]) -> ToyMemory:
        return ToyMemory(*({n: held[o] for n, o in origins.items()} for held in (memory.anchors, memory.recent)))

    def forget(self, memory: ToyMemory, ids: Iterable[int]) -> ToyMemory:
        gone = set(ids)
        return ToyMemory(
            {i: c for i, c in memory.anchors.items() if i not in gone},
            {i: c for i, c in memory.recent.items() if i not in gone},
        )


def still(y: int, x: int) -> Place:
    return lambda t: (y, x)


def moving(y: int, x: int, dy: int, dx: int, first: int = 0, last: int = 10**6, hidden: Sequence[int] = ()) -> Place:
    """Where an object is that is there from `first` to `last`, but for the hidden frames."""
    return lambda t: (y + dy * t, x + dx * t) if first <= t <= last and t not in hidden else None
