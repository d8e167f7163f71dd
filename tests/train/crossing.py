"""A world of lanes, in each of which two look-alikes meet and change places from one frame to the next.

A segmenter's query says mostly where its object is, and a little who it is: matching by cosine takes whoever now
stands where the track was. The pictures say everything: red is an object's number, green who it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from masklet.core.slots import FrameSlots
from masklet.train.data.clips import TrainingClip

LANES, CELLS, PEOPLE = 2, 8, 2
CELL, PERSON, NOTHING, REST = np.cumsum([LANES, CELLS, PEOPLE, 2]).tolist()  # where parts of a query begin
SIDE = 8  # pixels of a cell
QUERIES = 2 * LANES + 2  # two find nothing
WIDTH = 32
WHO = 0.7  # length of the part of a query that says who; those that say where have length 1
GAIN = 3.0  # of the pixel features
CATEGORIES = ("look-alike",)


class Crossing:
    """A ClipSource."""

    categories = CATEGORIES

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """In each lane both walk towards each other, stand two cells apart, and have changed in the next frame."""
        cells, who = [], []
        for _ in range(LANES):
            middle, changed = random.integers(3, CELLS - 3), random.integers(1, frames)
            away = (2 * (np.arange(frames) - changed) + 1) * random.choice([-1, 1])
            cells += [middle + away, middle - away]
            who += [*random.permutation(PEOPLE)]
        return painted(np.clip(cells, 0, CELLS - 1), who)


def painted(cells: np.ndarray, who: list[int]) -> TrainingClip:
    """A clip of objects (rows) in cells, frame by frame; two in each lane."""
    frames = cells.shape[1]
    masks = torch.zeros(len(cells), frames, SIDE * LANES, SIDE * CELLS, dtype=torch.bool)
    images = torch.zeros(frames, 3, SIDE * LANES, SIDE * CELLS, dtype=torch.uint8)
    for g, row in enumerate(cells):
        for t, cell in enumerate(row):
            at = np.s_[g // 2 * SIDE : (g // 2 + 1) * SIDE, cell * SIDE : (cell + 1) * SIDE]
            masks[g, t][at] = True
            images[t, 0][at], images[t, 1][at] = g + 1, int(who[g])
    present = torch.ones(len(cells), frames, dtype=torch.bool)
    return TrainingClip(images, masks, present, torch.zeros(len(cells), dtype=torch.int64))


class Seer(nn.Module):
    """A SlotSegmenter that knows the world; a module, so that a test can see that its weights stay."""

    categories = CATEGORIES

    def __init__(self) -> None:
        super().__init__()
        apart = (torch.arange(CELLS)[:, None] - torch.arange(CELLS)).float()
        parts = (torch.eye(LANES), nn.functional.normalize(torch.exp(-(apart**2) / 2)), WHO * torch.eye(PEOPLE))
        self.code = nn.Parameter(torch.block_diag(*parts, torch.eye(2), torch.eye(WIDTH - REST)))
        dense = torch.zeros(WIDTH, 2 * LANES, 2 * CELLS)  # which lane, which cell, and a last channel of ones
        dense[:CELL] = torch.eye(LANES).repeat_interleave(2, 1)[..., None]
        dense[CELL:PERSON] = torch.eye(CELLS).repeat_interleave(2, 1)[:, None]
        dense[-1] = 1
        self.dense = nn.Parameter(GAIN * dense)

    def slots(self, frames):
        queries, logits, masks = zip(*(self._frame(f) for f in frames), strict=True)
        dense, size = self.dense.expand(len(frames), -1, -1, -1), frames[0].image.shape[:2]
        return FrameSlots(torch.stack(queries), torch.stack(logits), dense, torch.stack(masks), size)

    def _frame(self, frame):
        """In an order that means nothing."""
        image = torch.from_numpy(frame.image)[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE].int()
        random = np.random.default_rng((int((image[..., 0] * torch.arange(CELLS)).sum()), frame.index))
        order = torch.from_numpy(random.permutation(QUERIES))
        queries, masks = [*self.code[NOTHING:REST]], [torch.full((2 * LANES, 2 * CELLS), -9.0)] * 2
        for lane, cell in image[..., 0].nonzero().tolist():
            queries.append(self.code[lane] + self.code[CELL + cell] + self.code[PERSON + image[lane, cell, 1]])
            inside = torch.full((LANES, CELLS), -9.0)
            inside[lane, cell] = 9
            masks.append(inside.repeat_interleave(2, 0).repeat_interleave(2, 1))
        logits = torch.tensor([[-4.0, 4.0]] * 2 + [[4.0, -4.0]] * (QUERIES - 2))
        noise = torch.from_numpy(random.standard_normal((QUERIES, WIDTH))).float() * 0.02
        return (torch.stack(queries) + noise)[order], logits[order], torch.stack(masks)[order]


@torch.no_grad()
def as_minvis(tracker: nn.Module) -> None:
    """Makes a tracker begin as what it has to beat: all attention adds nothing, and heads read this world's code."""
    for name, weight in tracker.named_parameters():
        if name.endswith(("out_proj.weight", "out_proj.bias", "linear2.weight", "linear2.bias")):
            weight.mul_(0.1)
    read = torch.arange(LANES + CELLS)
    for layer in tracker.mask_embed.layers:
        layer.weight.zero_()
        layer.weight[read, read] = 1
        layer.bias.zero_()
    first, _, last = tracker.mask_embed.layers
    first.bias[read] = 4  # so that no unit is off
    last.weight[CELL:PERSON] *= 1.2
    last.bias[read] = -last.weight.sum(1)[read] * 4
    last.bias[-1] = -5.8
