"""From slots to masklets: the post-processing of MinVIS and DVIS for instances, panoptic and semantic segmentation.

What a slot is called is decided over the whole video and comes first; then mask logits arrive frame by frame and leave
as run lengths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.features import DEVICE, DISK, MEMORY
from masklet.core.masks import encode_masks, resize_bilinear
from masklet.core.protocols import BatchingPart
from masklet.core.rle import Rle, encode_label_image
from masklet.core.tracks import Masklet, Sighting, Source

LEAST_SCORE = 0.3  # of what users are answered; ours: benchmarks rank all pairs, as the released programs answer them
AT_ONCE = 8  # maps at the video's size that exist at once


@dataclass(frozen=True)
class SlotSettings:
    """What is asked for, with the released programs' numbers."""

    task: Literal["instance", "panoptic", "semantic"] = "instance"
    top: int = 20  # instance: pairs of slot and category that are answered (10 for YouTube-VIS, 20 for OVIS)
    min_score: float | None = None  # instance: pairs below it are not; none: 0.3 by a system's name, 0 of its class
    repeats: bool = True  # instance: a slot may be answered under several categories (as released)
    conf: float = 0.8  # panoptic: slots above it take part
    overlap: float = 0.8  # panoptic: share of its own pixels that a segment must win over the video
    stuff: tuple[str, ...] = ()  # panoptic: categories that are stuff, all others being things
    window: int | None = None  # frames that the segmenter sees at once; none: one live, else as many as it takes
    feature_memory: int = MEMORY  # bytes of features kept in memory until the masks are made
    feature_disk: int = DISK  # bytes more on disk; beyond both, features are computed again
    feature_device: int = DEVICE  # bytes kept where they are made first, on a GPU, of a quarter of what is free

    def __post_init__(self) -> None:
        if (self.window is not None and self.window < 1) or self.top < 1:
            raise InputError(f"window = {self.window} and top = {self.top}: both count, from 1 on")

    def choose_run_window(self, segmenter: object) -> int:
        """Frames of a whole video that `segmenter` sees at once: as set, else as many as its network takes together."""
        return self.window or (segmenter.at_once if isinstance(segmenter, BatchingPart) else 1)

    def check(self, categories: Sequence[str]) -> None:
        """Raises InputError where `stuff` names what the segmenter does not know."""
        unknown = set(self.stuff) - set(categories)
        if unknown:
            raise InputError(f"stuff: no category {', '.join(sorted(unknown))}; it has {', '.join(categories)}")


@dataclass(frozen=True)
class MaskResizer:
    """From mask logits to the video's pixels."""

    inside: tuple[int, int]  # h, w of the image in the padded input of 4 h x 4 w pixels
    size: tuple[int, int]  # h, w of the video

    def cut(self, maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h2 w2"]:
        """At the size of the segmenter's input, the padding cut off."""
        padded = resize_bilinear(maps, (4 * maps.shape[1], 4 * maps.shape[2]))
        return padded[:, : self.inside[0], : self.inside[1]]

    def masks(self, logits: Float[Tensor, "n h w"]) -> Bool[Tensor, "n H W"]:
        """Pixels of positive logit at the video's size."""
        parts = [resize_bilinear(self.cut(part), self.size) > 0 for part in torch.split(logits, AT_ONCE)]
        return torch.cat(parts) if parts else torch.zeros(0, *self.size, dtype=torch.bool)

    def soft(self, logits: Float[Tensor, "n h w"]) -> Float[Tensor, "n H W"]:
        """Probabilities at the video's size; the last resizing comes after the sigmoid, as released."""
        parts = [resize_bilinear(self.cut(part).sigmoid(), self.size) for part in torch.split(logits, AT_ONCE)]
        return torch.cat(parts) if parts else torch.zeros(0, *self.size)

    def certain(self, logits: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """The sum of each mask's probabilities over its own pixels, and how many they are, before the last resizing."""
        return self._certain(logits, logits.new_ones(len(logits)))

    def _certain(self, logits: Float[Tensor, "n h w"], share: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        rows = zip(torch.split(logits, 1), share, strict=True)
        parts = [sum_confident_pixels(self.cut(row).sigmoid() * f) for row, f in rows] or [
            (torch.zeros(0), torch.zeros(0))
        ]
        sums, counts = zip(*parts, strict=True)
        return torch.cat(sums), torch.cat(counts)


def sum_confident_pixels(soft: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The sum of the probabilities above a half, and how many there are."""
    inside = soft > 0.5
    return (soft * inside).flatten(1).sum(1), inside.flatten(1).sum(1).float()


@dataclass(frozen=True)
class ForegroundMaskResizer(MaskResizer):
    """A view in which a pixel's probability is multiplied by that of its slot being an object (RoCoVIS)."""

    foreground: Float[Tensor, " n"]  # of the slots that are viewed

    def masks(self, logits: Float[Tensor, "n h w"]) -> Bool[Tensor, "n H W"]:
        """Pixels where probability x foreground is above a half at the video's size: where the logit is above
        -log(2 foreground - 1), and nowhere if the slot is rather no object.
        """
        likely = 2 * self.foreground.to(logits) - 1
        shift = likely.clamp(min=1e-12).log()
        return super().masks(logits + shift[:, None, None]) & (likely > 0)[:, None, None]

    def soft(self, logits: Float[Tensor, "n h w"]) -> Float[Tensor, "n H W"]:
        """Probability x foreground (0 to 1) at the video's size."""
        soft = super().soft(logits)
        return soft * self.foreground.to(soft)[:, None, None]

    def certain(self, logits: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """As in `MaskResizer`, with probability x foreground in the place of probability."""
        return self._certain(logits, self.foreground.to(logits))


class TaskOutput(Protocol):
    """One task's masklets, in the making."""

    slots: tuple[int, ...]  # whose masks are wanted

    def add(self, frame: int, logits: Float[Tensor, "n h w"], view: MaskResizer) -> None:
        """Adds the masks of these slots in `frame`, made of their mask `logits` by `view`."""
        ...

    def masklets(self) -> tuple[Masklet, ...]:
        """Of all frames so far. A thing's id is its slot's number, counted from 1."""
        ...


@dataclass(frozen=True)
class SlotCategoryPair:
    """A slot under one category."""

    slot: int
    label: int
    score: float
    id: int


class InstanceOutput:
    """The best pairs of slot and category; masks may overlap."""

    def __init__(self, probabilities: Float[Tensor, "n k1"], settings: SlotSettings) -> None:
        self.pairs = select_best_pairs(probabilities, settings)
        self.slots = tuple(dict.fromkeys(p.slot for p in self.pairs))
        self._seen: dict[int, dict[int, Rle]] = defaultdict(dict)

    def add(self, frame: int, logits: Float[Tensor, "n h w"], view: MaskResizer) -> None:
        """Adds the masks of `frame`, as `view` makes them of `logits`: what lies above 0 is inside."""
        for slot, mask in zip(self.slots, encode_masks(view.masks(logits)), strict=True):
            self._seen[slot][frame] = mask

    def masklets(self) -> tuple[Masklet, ...]:
        """In the order of their scores; without those that have no pixel in any frame."""
        made = [build_slot_masklet(p.id, self._seen[p.slot], p.label, p.score, True) for p in self.pairs]
        return tuple(m for m in made if m.sightings)


def select_best_pairs(probabilities: Float[Tensor, "n k1"], at: SlotSettings) -> list[SlotCategoryPair]:
    """The `top` pairs of slot and category, best first; a slot's second pair has an id of its own."""
    scores = probabilities[:, :-1]
    if not at.repeats:
        first = nnf.one_hot(scores.argmax(1), scores.shape[1]).bool()
        scores = torch.where(first, scores, -1.0)
    best = scores.flatten().sort(descending=True, stable=True)
    n, k = scores.shape
    pairs, times = [], defaultdict[int, int](int)
    for score, where in zip(best.values[: at.top].tolist(), best.indices[: at.top].tolist(), strict=True):
        slot, label = divmod(where, k)
        if score >= max(at.min_score or 0.0, 0.0):
            pairs.append(SlotCategoryPair(slot, label, score, times[slot] * n + slot + 1))
            times[slot] += 1
    return pairs


def build_slot_masklet(id: int, seen: dict[int, Rle], label: int, score: float, thing: bool) -> Masklet:
    """Masklet `id` with the masks `seen` by frame, empty ones left out, all under one `label` and `score` (0 to 1);
    `thing` says whether it is one.
    """
    sightings = {t: Sighting(m, Source.DETECTED, score, label, 1.0) for t, m in sorted(seen.items()) if m.area}
    return Masklet(id, sightings, label, score, thing)


class PanopticOutput:
    """Every pixel to at most one segment; segments of one stuff category are one."""

    def __init__(self, probabilities: Float[Tensor, "n k1"], stuff: frozenset[int], settings: SlotSettings) -> None:
        scores, labels = probabilities.max(1)
        kept = (labels != probabilities.shape[1] - 1) & (scores > settings.conf)
        self.slots = tuple(int(n) for n in kept.nonzero()[:, 0])
        self._labels, self._scores = labels[kept].tolist(), scores[kept]
        self._stuff, self._overlap, self._all = stuff, settings.overlap, len(probabilities)
        self._won, self._own = torch.zeros(2, len(self.slots), dtype=torch.int64)
        self._seen: list[dict[int, Rle]] = [{} for _ in self.slots]

    def add(self, frame: int, logits: Float[Tensor, "n h w"], view: MaskResizer) -> None:
        """Adds the masks of `frame`: by the probabilities that `view` makes of `logits`, a pixel goes where score x
        probability is greatest, and is seen if the probability is half or more.
        """
        if not self.slots:
            return
        soft = view.soft(logits)
        winner, own = (soft * self._scores.to(soft.device)[:, None, None]).argmax(0), soft >= 0.5
        won = winner == torch.arange(len(soft), device=soft.device)[:, None, None]
        self._won, self._own = self._won.to(soft.device), self._own.to(soft.device)  # pixels are counted where they are
        self._won += won.flatten(1).sum(1)
        self._own += own.flatten(1).sum(1)
        for seen, mask in zip(self._seen, encode_masks(won & own), strict=True):
            seen[frame] = mask

    def masklets(self) -> tuple[Masklet, ...]:
        """Without segments that others have covered; decided over the whole video."""
        made: dict[int, Masklet] = {}
        won, own = self._won.cpu().double(), self._own.cpu().clamp(min=1)
        for row in (won / own >= self._overlap).nonzero()[:, 0].tolist():
            label, score = self._labels[row], float(self._scores[row])
            thing = label not in self._stuff
            id = self.slots[row] + 1 if thing else self._all + label + 1
            new = build_slot_masklet(id, self._seen[row], label, score, thing)
            made[id] = join_stuff_segments(made[id], new) if id in made else new
        return tuple(m for m in made.values() if m.sightings)


def join_stuff_segments(one: Masklet, other: Masklet) -> Masklet:
    """Two segments of one stuff category, in whose frames no pixel is in both."""
    seen = {t: s.mask for t, s in one.sightings.items()}
    for t, s in other.sightings.items():
        seen[t] = Rle.encode(seen[t].decode() | s.mask.decode()) if t in seen else s.mask
    return build_slot_masklet(one.id, seen, one.label, max(one.score, other.score), one.is_thing)


class SemanticOutput:
    """Every pixel to the category for which score x probability, summed over all slots, is greatest."""

    def __init__(self, probabilities: Float[Tensor, "n k1"]) -> None:
        self.slots = tuple(range(len(probabilities)))
        self._scores = probabilities[:, :-1]
        self._seen: dict[int, dict[int, Rle]] = defaultdict(dict)

    def add(self, frame: int, logits: Float[Tensor, "n h w"], view: MaskResizer) -> None:
        """Adds one mask of `frame`, by what `view` makes of `logits`, to each category that has a pixel."""
        labels = self._map(view.soft(logits)).to(torch.int32).cpu().numpy()
        found, numbers = np.unique(labels, return_inverse=True)
        masks = encode_label_image(numbers.reshape(labels.shape).astype(np.int32) + 1, len(found))
        for label, mask in zip(found.tolist(), masks, strict=True):
            self._seen[label][frame] = mask

    def _map(self, soft: Float[Tensor, "n h w"]) -> Int64[Tensor, "h w"]:
        """The category of every pixel, a few rows at a time: all categories of all pixels would be too much."""
        rows, scores = torch.split(soft, 64, 1), self._scores.to(soft.device)
        return torch.cat([torch.einsum("nk,nhw->khw", scores, part).argmax(0) for part in rows])

    def masklets(self) -> tuple[Masklet, ...]:
        """One for each category, its id being the category's number, counted from 1; none is a thing."""
        best = self._scores.amax(0)
        return tuple(
            build_slot_masklet(k + 1, seen, k, float(best[k]), False) for k, seen in sorted(self._seen.items())
        )


def build_task_output(
    probabilities: Float[Tensor, "n k1"], categories: Sequence[str], settings: SlotSettings
) -> TaskOutput:
    """The output of the task in `settings`, from each slot's `probabilities` of each of `categories` and, last, of no
    object.
    """
    if settings.task == "instance":
        return InstanceOutput(probabilities, settings)
    if settings.task == "semantic":
        return SemanticOutput(probabilities)
    return PanopticOutput(probabilities, frozenset(categories.index(c) for c in settings.stuff), settings)


def compute_mean_probabilities(logits: Float[Tensor, "t n k1"]) -> Float[Tensor, "n k1"]:
    """Class logits are averaged over time before they become probabilities (MinVIS and DVIS)."""
    return logits.mean(0).softmax(-1)
