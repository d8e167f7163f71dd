"""DVIS's tables in small: AP and switches of clips, and a bootstrap over clips and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from tables_dvis_clips import KINDS, SIZE
from torch import Tensor

from masklet.evaluate.vis.average_precision import (
    EPSILON,
    LEVELS,
    RECALLS,
    THRESHOLDS,
    GroupMatches,
    ObjectRange,
    PredictedObject,
    TrueObject,
    accumulate_curve,
    assess_predictions,
    compute_defined_mean,
)
from masklet.evaluate.vis.tubes import Tube
from masklet.models.mask2former.segmenter import resize_to_frame

TOP = 10  # pairs of slot and category that are answered, as MinVIS and DVIS do for YouTube-VIS
RANGES = [ObjectRange(name.removeprefix("_") or "all", occlusion=span) for name, span in LEVELS]  # OVIS's, of objects
NO_TUBE = Tube(np.zeros(2), np.zeros(1, int))  # their IoU is known


@dataclass(frozen=True)
class ClipScores:
    """What became of one clip: its predictions by category, and how often an object changed its masklet."""

    groups: tuple[GroupMatches | None, ...]
    switches: int
    objects: int


@torch.no_grad()
def measure_clip(
    logits: Tensor, masks: Tensor, inside: tuple[int, int], truth: Tensor, labels: Tensor, occlusion: Tensor
) -> ClipScores:
    """One clip's answer against the truth.

    Args:
        logits: of each slot over the whole clip (n k1).
        masks: mask logits of all slots (t n h w).
        inside: h, w of the frames in the segmenter's input.
        truth: of the objects (g t H W).
        labels: of the objects.
        occlusion: of the objects, OVIS's score.
    """
    likely = logits.softmax(-1)[:, :-1]
    best = likely.flatten().sort(descending=True, stable=True)
    slots, names = (best.indices[:TOP] // likely.shape[1]), (best.indices[:TOP] % likely.shape[1])
    own, places = slots.unique(return_inverse=True)  # a slot may be answered under several categories
    found = (resize_to_frame(masks[:, own].float().flatten(0, 1), inside, SIZE) > 0).unflatten(0, (len(masks), -1))
    found = found[:, places]  # t m H W
    a, b = found.flatten(2).float(), truth.transpose(0, 1).flatten(2).float()
    both, sums = a @ b.mT, a.sum(2)[..., None] + b.sum(2)[:, None]  # t m g
    iou = (both.sum(0) / (sums.sum(0) - both.sum(0)).clamp(min=1)).double().numpy()
    groups: list[GroupMatches | None] = []
    for k in range(len(KINDS)):
        rows, cols = (names == k).nonzero()[:, 0].tolist(), (labels == k).nonzero()[:, 0].tolist()
        here = [PredictedObject(k, NO_TUBE, 1.0, float(best.values[n])) for n in rows]
        there = [TrueObject(g + 1, k, NO_TUBE, 1.0, occlusion=float(occlusion[g])) for g in cols]
        some = bool(rows or cols)
        groups.append(assess_predictions(here, there, iou[np.ix_(rows, cols)], RANGES) if some else None)
    return ClipScores(tuple(groups), count_switches(both / (sums - both).clamp(min=1), slots), len(labels))


def count_switches(iou: Tensor, slots: Tensor) -> int:
    """How often the slot that covers an object best (IoU (t m g) of 0.5 or more) is another than the last time."""
    changed = 0
    for track in iou.unbind(2):
        last = None
        for row in track:
            if float(row.max()) >= 0.5:
                best = int(slots[row.argmax()])
                changed += last not in (None, best)
                last = best
    return changed


def compute_ap(scores: Sequence[ClipScores]) -> dict[str, tuple[float, float]]:
    """AP and AP50 in percent of all objects, and of those of each level of occlusion."""
    held = [[one.groups[k] for one in scores if one.groups[k] is not None] for k in range(len(KINDS))]
    curves = [accumulate_curve(groups, 100) for groups in held if groups]  # type: ignore[arg-type]
    ap = np.stack([c.ap for c in curves])  # categories, ranges, thresholds
    both = [[compute_defined_mean(one) or 0 for one in (ap[:, n], ap[:, n, 0])] for n in range(len(RANGES))]
    return {level.name: (100 * every, 100 * half) for level, (every, half) in zip(RANGES, both, strict=True)}


def count_switch_rate(scores: Sequence[ClipScores]) -> float:
    """Changes of masklet for 100 objects."""
    return 100 * sum(one.switches for one in scores) / max(sum(one.objects for one in scores), 1)


# -- a bootstrap


@dataclass(frozen=True)
class RankedMatches:
    """All predictions of one category, best first."""

    right: np.ndarray  # thresholds, predictions
    wrong: np.ndarray
    clip: np.ndarray  # of each prediction
    positives: np.ndarray  # objects of each clip

    def compute_ap(self, counts: np.ndarray) -> np.ndarray | None:
        """AP by threshold where each clip is there so many times; None where there is nothing to be found."""
        objects = int(self.positives @ counts)
        if not objects:
            return None
        times = counts[self.clip]
        right, wrong = (np.cumsum(kind * times, 1, dtype=float) for kind in (self.right, self.wrong))
        precision = right / (right + wrong + EPSILON)
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        reached = np.searchsorted(RECALLS, right / objects, side="right")
        ap: np.ndarray = (np.diff(reached, axis=1, prepend=0) * best).sum(1) / len(RECALLS)
        return ap


def rank_matches(scores: Sequence[ClipScores], category: int, level: int = 0) -> RankedMatches:
    """The predictions of one category in all clips, as they count for one of `RANGES`."""
    held = [(n, one.groups[category]) for n, one in enumerate(scores)]
    some = [(n, group) for n, group in held if group is not None]
    order = np.argsort(-np.concatenate([np.empty(0), *(group.scores for _, group in some)]), kind="stable")
    none = np.empty((len(THRESHOLDS), 0), bool)
    right = np.concatenate([none, *(group.right[level] for _, group in some)], 1)
    wrong = np.concatenate([none, *(group.wrong[level] for _, group in some)], 1)
    clip = np.concatenate([np.empty(0, int), *(np.full(len(group.scores), n) for n, group in some)])
    positives = np.array([0 if group is None else int(group.positives[level]) for _, group in held])
    return RankedMatches(right[:, order], wrong[:, order], clip[order], positives)


def compute_resampled_ap(ranked: Sequence[RankedMatches], counts: np.ndarray) -> float:
    """AP in percent of clips that are there so many times each."""
    found = [ap for ap in (one.compute_ap(counts) for one in ranked) if ap is not None]
    return 100 * float(np.mean(found)) if found else 0.0


def bootstrap_change(
    rows: Sequence[Sequence[ClipScores]], others: Sequence[Sequence[ClipScores]], level: int = 0, times: int = 1000
) -> tuple[float, float]:
    """The 95 % interval of the change of AP from `others` to `rows`, seed by seed of the same clips: clips are drawn
    with replacement, and so are the seeds. `level`: of `RANGES`.
    """
    random = np.random.default_rng(0)
    ranked = [[[rank_matches(one, k, level) for k in range(len(KINDS))] for one in side] for side in (rows, others)]
    changes = []
    for _ in range(times):
        counts = np.bincount(random.integers(len(rows[0]), size=len(rows[0])), minlength=len(rows[0]))
        seeds = random.integers(len(rows), size=len(rows))
        ours, theirs = (mean(compute_resampled_ap(side[seed], counts) for seed in seeds) for side in ranked)
        changes.append(ours - theirs)
    low, high = np.percentile(changes, [2.5, 97.5])
    return float(low), float(high)


def read_scores(path: Path) -> list[ClipScores]:
    """What a run has kept of its clips."""
    held = torch.load(path, weights_only=False)  # our own file
    return [
        ClipScores(tuple(g and GroupMatches(**g) for g in one["groups"]), one["switches"], one["objects"])
        for one in held
    ]
