"""Training the dense head: which cells are which objects, and what they are told (CondInst 3.3; GFL 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.models.encoder import DeepBackbone, DenseBackbone, Encoder
from masklet.models.nano.dense import DenseChoice, DenseSegmenter
from masklet.nn.dense_head import STRIDES, CellPredictions, DenseHead
from masklet.train.data.clips import ClipSource, TrainingClip
from masklet.train.loop.prefetch import PrefetchableTask
from masklet.train.losses import dice_loss
from masklet.train.scoring import compute_image_scores
from masklet.train.tasks.segmenter import make_segmenter_frames

UNNAMED = -1  # the label of an object of a category that is none of the head's
RANGES = ((0.0, 56.0), (40.0, 112.0), (80.0, 224.0), (160.0, float("inf")))  # pixels across, of each level's objects
SMOOTH = 0.1  # of the names' probabilities, shared out among all names
CENTRE = 1.5  # strides from an object's middle: cells within are its own


@dataclass(frozen=True)
class WeightedSource:
    """A source of images, and how it is used."""

    source: ClipSource
    ratio: float  # how often it is drawn, beside the others
    background: float = (
        1.0  # what it counts that a cell outside all masks shows nothing; less where not all is labelled
    )


@dataclass(frozen=True)
class DenseLosses:
    """Weights of the losses."""

    mask: float = 2.0
    name: float = 0.5
    masks: int = 32  # cells of an image whose masks are made


class DenseTask(PrefetchableTask[list[tuple[int, TrainingClip]]]):
    """A `Task`: the dense head over frozen features, on single images of several sets that label different things."""

    def __init__(
        self,
        head: DenseHead,
        categories: Sequence[str],
        parts: Sequence[WeightedSource],
        held_out: Sequence[TrainingClip],
        save: Callable[[Path], None],
        *,
        batch: int = 8,
        short: int = 320,
        at: DenseLosses | None = None,
    ) -> None:
        """
        Args:
            head: what is trained, on the device of training.
            categories: that it names. Objects of other categories are objects without a name.
            parts: what it is trained on, all of one size, multiples of 64 pixels.
            held_out: what it is validated on, of any sizes; labels are the head's.
            save: writes the head's weights.
            batch: images a step.
            short: of the encoder that validation uses, pixels.
            at: weights of the losses.

        Raises:
            InputError: the parts know none of the categories.
        """
        if not set(categories) & {name for part in parts for name in part.source.categories}:
            raise InputError(f"no category of the data is one of {', '.join(categories[:3])}...; rename them")
        self.module, self.categories, self.parts, self.held_out, self.writes = (
            head,
            tuple(categories),
            parts,
            held_out,
            save,
        )
        self.batch, self.short, self.at = batch, short, at or DenseLosses()
        self.seen, self.deeper = DenseBackbone(), DeepBackbone()
        self._shares = np.array([part.ratio for part in parts]) / sum(part.ratio for part in parts)
        places = {name: n for n, name in enumerate(categories)}
        self._labels = [torch.tensor([places.get(name, UNNAMED) for name in part.source.categories]) for part in parts]

    def draw(self, random: np.random.Generator) -> list[tuple[int, TrainingClip]]:
        """Images, and the parts that they are of."""
        which = random.choice(len(self.parts), self.batch, p=self._shares).tolist()
        return [(n, self.parts[n].source.clip(random, 1)) for n in which]

    def loss_of(
        self, step: int, drawn: list[tuple[int, TrainingClip]], random: np.random.Generator
    ) -> dict[str, Tensor]:
        """Quality focal loss of the scores ("score"), dice loss of the masks ("mask") and cross-entropy of the names
        ("name") of the images `drawn`; `random` chooses the cells whose masks are made. The same in every `step`.
        """
        device = next(self.module.parameters()).device
        batch = torch.cat([clip.images for _, clip in drawn]).to(device)
        images, keys, detail, strength = self.seen.to(device)(batch)
        cells = self.module(keys, detail, self.deeper.to(device)(keys, strength), images)
        told = [
            compute_image_losses(
                self.module, cells, b, clip, self._labels[n], self.parts[n].background, self.at, random
            )
            for b, (n, clip) in enumerate(drawn)
        ]
        scores, masks, names = (torch.cat(x) for x in zip(*told, strict=True))
        return {
            "score": scores.sum() / max(len(masks), 1),
            "mask": self.at.mask * masks.sum() / max(len(masks), 1),
            "name": self.at.name * names.sum() / max(len(names), 1),
        }

    def validate(self) -> dict[str, float]:
        """COCO's AP on the held-out images, in percent (`scoring.compute_image_scores`)."""
        if not self.held_out:
            return {}
        segmenter = DenseSegmenter(
            self.module.eval(), self.categories, Encoder(self.short, least=self.short), choice=DenseChoice()
        )
        found = [segmenter.segment(None, make_segmenter_frames(clip), ())[0] for clip in self.held_out]
        self.module.train()
        return compute_image_scores(self.held_out, found, self.categories)

    def save(self, path: Path) -> None:
        """Writes the weights so far to `path`, by the function given for it."""
        self.writes(path)


def replace_head_categories(head: DenseHead, old: Sequence[str], new: Sequence[str]) -> DenseHead:
    """Makes `head`, whose categories are `old`, one for the categories `new`, and returns it: what it knows of those in
    both is kept, the others begin at random.
    """
    last: Any = head.name[-1]
    fresh = nn.Linear(last.in_features, len(new))
    with torch.no_grad():
        for n, name in enumerate(new):
            if name in old:
                fresh.weight[n], fresh.bias[n] = last.weight[old.index(name)], last.bias[old.index(name)]
    head.name[-1] = fresh.requires_grad_(last.weight.requires_grad)
    return head


def compute_image_losses(
    head: DenseHead,
    cells: CellPredictions,
    b: int,
    clip: TrainingClip,
    labels: Int64[Tensor, " k"],
    background: float,
    at: DenseLosses,
    random: np.random.Generator,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"], Float[Tensor, " l"]]:
    """Losses of the image of `clip` (one frame), number `b` of the batch of `cells`: of each cell's score, of some
    cells' masks, and of their names where they have one. `head` makes the masks and names of up to `at.masks` cells
    that `random` chooses, `labels` are the head's categories of the clip's (`UNNAMED`: none), `background` is the
    weight of the scores of cells outside all masks.
    """
    truth = clip.masks[:, 0].to(cells.at.device)
    owner = find_cell_owners(truth, cells.at, cells.stride)
    mine = (owner >= 0).nonzero()[:, 0]
    chosen = mine[torch.from_numpy(random.permutation(len(mine))[: at.masks]).to(mine.device)]
    wanted = (nnf.avg_pool2d(truth[:, None].float(), 4)[:, 0] > 0.5).float()[owner[chosen]].flatten(1)
    logits = head.masks(cells, b, chosen)
    quality, counts = torch.zeros_like(cells.scores[b]), weigh_cells(truth, cells.at, owner, background)
    counts[mine] = 0.0
    counts[chosen] = 1.0
    quality[chosen] = measure_pair_iou(logits.detach().flatten(1) > 0, wanted > 0.5)
    names = head.names(cells, b, chosen, logits.detach())
    label = labels.to(mine.device)[clip.labels.to(mine.device)[owner[chosen]]]
    named = label != UNNAMED
    return (
        counts * quality_focal_loss(cells.scores[b], quality),
        dice_loss(logits.flatten(1), wanted),
        nnf.cross_entropy(names[named], label[named], reduction="none", label_smoothing=SMOOTH),
    )


def find_cell_owners(
    truth: Bool[Tensor, "g h w"], at: Float[Tensor, "n 2"], stride: Float[Tensor, " n"]
) -> Int64[Tensor, " n"]:
    """The object of each cell, -1 without one: cells near the middle of an object that its mask in `truth` covers, at
    the levels of objects of its size; of several the smallest. An object without such a cell gets the nearest one. `at`
    holds the middles (x, y) of the cells, `stride` their strides, both in pixels.
    """
    owner = torch.full((len(at),), -1, device=at.device)
    area = truth.flatten(1).sum(1)
    inside = truth[:, at[:, 1].long().clamp(max=truth.shape[1] - 1), at[:, 0].long().clamp(max=truth.shape[2] - 1)]
    for g in area.argsort(descending=True).tolist():
        if area[g]:
            ys, xs = truth[g].nonzero().unbind(1)
            across = float(((ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)).sqrt())
            middle = torch.stack([xs.float().mean(), ys.float().mean()]) + 0.5
            far = (at - middle).abs().amax(1) / stride
            fit = sum(
                ((stride == 8 * 2**n) & (low <= across) & (across < high)) for n, (low, high) in enumerate(RANGES)
            )
            fit = torch.as_tensor(fit, device=at.device) > 0
            own = fit & inside[g] & (far < CENTRE)
            owner[own if own.any() else (far + 1e3 * ~inside[g] + 1e6 * ~fit).argmin()] = g
    return owner


def find_size_levels(across: float) -> Float[Tensor, " k"]:
    """Strides of the levels that have the objects of a size.

    >>> find_size_levels(30.0).tolist(), find_size_levels(100.0).tolist()
    ([8.0], [16.0, 32.0])
    """
    fit = [stride for stride, (low, high) in zip(STRIDES, RANGES, strict=True) if low <= across < high]
    return torch.tensor(fit, dtype=torch.float32)


def weigh_cells(
    truth: Bool[Tensor, "g h w"], at: Float[Tensor, "n 2"], owner: Int64[Tensor, " n"], background: float
) -> Float[Tensor, " n"]:
    """What each cell's score counts: `background` outside all masks, else 1. `truth` holds the objects' masks, `at` the
    middles (x, y in pixels) of the cells, `owner` the object of each, -1 without one.
    """
    y, x = at[:, 1].long().clamp(max=truth.shape[1] - 1), at[:, 0].long().clamp(max=truth.shape[2] - 1)
    inside = truth[:, y, x].any(0) | (owner >= 0)
    return torch.where(inside, 1.0, background)


def quality_focal_loss(scores: Float[Tensor, " n"], quality: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """GFL eq. 4 (Li et al. 2020, arXiv:2006.04388), of logits."""
    off = (quality - scores.sigmoid()).detach().abs()
    return off**2 * nnf.binary_cross_entropy_with_logits(scores, quality, reduction="none")


def measure_pair_iou(found: Bool[Tensor, "n p"], wanted: Bool[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Mask IoU of pairs; 0 where both are empty."""
    return (found & wanted).sum(1) / (found | wanted).sum(1).clamp(min=1)
