"""Which query is to be which object: the assignment of least cost (Mask2Former), kept through a clip.

`match_first_appearance` is DVIS's tracker, `match_whole_clip` its refiner, `match_by_uvla` GenVIS's unified video label
assignment over clips that follow each other, and RoCoVIS's UVLA++ by its default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from masklet.train.data.clips import TrainingClip
from masklet.train.losses import LossSettings, QueryPairs, Rand, sample_at_points, stack_clip_frames

HOPELESS = 1e9  # what counts as the cost where none could be told


@dataclass(frozen=True)
class ClipTargets:
    """The objects that are seen in a clip."""

    masks: Float[Tensor, "g t h w"]  # 1 inside
    visible: Bool[Tensor, "g t"]
    labels: Int64[Tensor, " g"]

    @property
    def first(self) -> Int64[Tensor, " g"]:
        """The frame in which each one is first seen."""
        return self.visible.int().argmax(1)


Labels = Callable[[TrainingClip, int], Tensor]  # of a clip's objects, given the number of classes


def take_own_labels(clip: TrainingClip, classes: int) -> Int64[Tensor, " g"]:
    """The class of each object as the clip has it, in all frames; `classes` is not used."""
    return clip.labels


def take_last_frame_labels(clip: TrainingClip, classes: int) -> Int64[Tensor, " g"]:
    """As DVIS's released program trains: an object that is not annotated in the last frame is "no object" in the whole
    clip, while its masks are still trained.
    """
    return clip.labels.where(clip.present[:, -1], torch.full_like(clip.labels, classes))


def collect_targets(clip: TrainingClip, classes: int, labels: Labels = take_own_labels) -> ClipTargets:
    """The objects of `clip` with a pixel in any frame; one without a pixel is not visible. `labels` gives the class of
    each object where there are `classes` of them.
    """
    visible = clip.masks.flatten(2).any(2)
    seen = visible.any(1)
    return ClipTargets(clip.masks[seen].float(), visible[seen], labels(clip, classes)[seen])


def fit_clip_to_input(clip: TrainingClip, inside: tuple[int, int], padded: tuple[int, int]) -> TrainingClip:
    """A clip of the size of a network's input, `padded` (h, w): its upper left `inside` (h, w) are the frame, the rest
    is padding.
    """
    images, masks = (fit_maps(x.float(), inside, padded).to(x.dtype) for x in (clip.images, clip.masks))
    return replace(clip, images=images, masks=masks)


def fit_maps(
    maps: Float[Tensor, "a b h w"], inside: tuple[int, int], padded: tuple[int, int]
) -> Float[Tensor, "a b h2 w2"]:
    """The `maps` scaled to `inside` (h, w), each pixel as its nearest one, and filled up with 0 right and below to
    `padded` (h, w).
    """
    if maps.shape[-2:] != inside and len(maps):
        maps = nnf.interpolate(maps, inside, mode="nearest-exact")
    h, w = maps.shape[-2:]
    return nnf.pad(maps, (0, padded[1] - w, 0, padded[0] - h))


# -- costs


@torch.no_grad()
def compute_query_costs(
    logits: Float[Tensor, "n k1"],
    masks: Float[Tensor, "n h w"],
    labels: Int64[Tensor, " g"],
    inside: Float[Tensor, "g h2 w2"],
    points: int,
    rand: Rand,
    at: LossSettings,
) -> Float[Tensor, "n g"]:
    """What it costs that a query, by class `logits` and mask logits `masks`, is an object with the class `labels` and
    the mask `inside` (1 inside, of any size): class, mask and dice, weighted as in `at`. Masks are compared at `points`
    points common to all, which `rand` draws.
    """
    with torch.autocast(masks.device.type, enabled=False):
        where = rand(1, points, 2)
        found = sample_at_points(masks.float(), where.expand(len(masks), -1, -1))
        wanted = sample_at_points(inside, where.expand(len(inside), -1, -1))
        by_class = -logits.float().softmax(1)[:, labels]
        return (
            at.mask * compute_bce_costs(found, wanted)
            + at.classes * by_class
            + at.dice * compute_dice_costs(found, wanted)
        )


def compute_bce_costs(found: Float[Tensor, "n p"], wanted: Float[Tensor, "g p"]) -> Float[Tensor, "n g"]:
    """The mean cross-entropy (`losses.bce_loss`) of each row of logits `found` against each of `wanted` (0 to 1)."""
    return (nnf.softplus(-found) @ wanted.T + nnf.softplus(found) @ (1 - wanted).T) / found.shape[1]


def compute_dice_costs(found: Float[Tensor, "n p"], wanted: Float[Tensor, "g p"]) -> Float[Tensor, "n g"]:
    """The dice loss (`losses.dice_loss`) of each row of logits `found` against each row of `wanted` (0 to 1)."""
    likely = found.sigmoid()
    return 1 - (2 * likely @ wanted.T + 1) / (likely.sum(1)[:, None] + wanted.sum(1) + 1)


def find_cheapest_pairs(cost: Float[Tensor, "n g"], free: Bool[Tensor, " n"]) -> QueryPairs:
    """The pairs of least total cost among free queries; objects beyond their number have none.

    >>> cost = torch.tensor([[0.0, 1.0], [0.5, 9.0], [1.0, 2.0]])
    >>> find_cheapest_pairs(cost, torch.tensor([False, True, True])).queries
    tensor([1, 2])
    """
    rows = free.nonzero()[:, 0]
    finite = cost[rows].double().nan_to_num(HOPELESS, HOPELESS)  # a loss that is not finite is the loop's to skip
    chosen, objects = linear_sum_assignment(finite.cpu().numpy())
    on = cost.device
    return QueryPairs(rows[torch.from_numpy(chosen).to(on)], torch.from_numpy(objects).to(on))


# -- DVIS

Free = Callable[[int, Tensor], Tensor]  # of n queries those that may still be given, after these were


def mark_unused_queries(queries: int, used: Int64[Tensor, " m"]) -> Bool[Tensor, " n"]:
    """A query is given once."""
    free = torch.ones(queries, dtype=torch.bool, device=used.device)
    free[used] = False
    return free


def mark_all_queries(queries: int, used: Int64[Tensor, " m"]) -> Bool[Tensor, " n"]:
    """As DVIS's released program trains: its list of used queries stays empty, so one query may be two objects."""
    return torch.ones(queries, dtype=torch.bool, device=used.device)


def match_first_appearance(
    logits: Float[Tensor, "t n k1"],
    masks: Float[Tensor, "t n h w"],
    targets: ClipTargets,
    rand: Rand,
    at: LossSettings,
    free: Free = mark_unused_queries,
) -> QueryPairs:
    """DVIS 3.2: an object is matched in the frame in which it is first seen, and keeps its query in all others.
    `logits` (class) and `masks` (logits) are the predictions to match with the objects `targets`, at the costs and
    points of `at`, drawn by `rand`; `free` says which queries may be given when some are given already.
    """
    queries = objects = torch.empty(0, dtype=torch.int64, device=masks.device)
    for t in sorted(set(targets.first.tolist())):
        new = (targets.first == t).nonzero()[:, 0]
        cost = compute_query_costs(logits[t], masks[t], targets.labels[new], targets.masks[new, t], at.points, rand, at)
        found = find_cheapest_pairs(cost, free(len(cost), queries))
        queries, objects = torch.cat([queries, found.queries]), torch.cat([objects, new[found.objects]])
    return QueryPairs(queries, objects)


def match_whole_clip(
    logits: Float[Tensor, "n k1"],
    masks: Float[Tensor, "n t h w"],
    targets: ClipTargets,
    rand: Rand,
    at: LossSettings,
) -> QueryPairs:
    """DVIS 3.3: one assignment of a whole clip, by class logits `logits` and mask logits `masks` of its frames
    together. `targets` are the objects, `at` holds weights and points per frame, `rand` draws the points. No query is
    given twice.
    """
    points = at.points * masks.shape[1]
    inside = stack_clip_frames(targets.masks)
    cost = compute_query_costs(logits, stack_clip_frames(masks), targets.labels, inside, points, rand, at)
    return find_cheapest_pairs(cost, mark_unused_queries(len(cost), targets.labels[:0]))


# -- GenVIS, RoCoVIS

Occupied = Callable[[Tensor, Tensor], Tensor]  # queries that are not free, of known queries and of who is visible


def list_seen_queries(known: Int64[Tensor, " g"], visible: Bool[Tensor, " g"]) -> Int64[Tensor, " m"]:
    """UVLA++ (RoCoVIS): a query whose object has disappeared stays occupied."""
    return known[known >= 0]


def list_visible_queries(known: Int64[Tensor, " g"], visible: Bool[Tensor, " g"]) -> Int64[Tensor, " m"]:
    """UVLA as GenVIS is released: a query is free while its object is away, so two objects may come to share it."""
    return known[(known >= 0) & visible]


def match_by_uvla(
    logits: Float[Tensor, "n k1"],
    masks: Float[Tensor, "n t h w"],
    targets: ClipTargets,
    known: Int64[Tensor, " g"],
    rand: Rand,
    at: LossSettings,
    occupied: Occupied = list_seen_queries,
) -> Int64[Tensor, " g"]:
    """Unified video label assignment, after one more clip: objects that are first seen in it get a query for good.

    Args:
        logits: class logits of the clip.
        masks: mask logits of the clip.
        targets: all objects of the video, in this clip.
        known: the query of each object, -1 of those that have none; before the first clip all are -1.
        rand: uniform random numbers.
        at: weights of the costs, and points.
        occupied: which queries are not given.
    """
    visible = targets.visible.any(1)
    inside = stack_clip_frames(targets.masks)
    cost = compute_query_costs(
        logits, stack_clip_frames(masks), targets.labels, inside, at.points * masks.shape[1], rand, at
    )
    new = (visible & (known < 0)).nonzero()[:, 0]
    found = find_cheapest_pairs(cost[:, new], mark_unused_queries(len(cost), occupied(known, visible)))
    known = known.clone()
    known[new[found.objects]] = found.queries
    return known


def mark_held_queries(known: Int64[Tensor, " g"], queries: int) -> Bool[Tensor, " n"]:
    """The queries that are an object, visible or not."""
    return ~mark_unused_queries(queries, known[known >= 0])


def keep_held_masks(masks: Float[Tensor, "n h w"], known: Int64[Tensor, " g"]) -> Float[Tensor, "n h w"]:
    """UVLA++: the mask probabilities that are propagated; those of queries that are no object are zero."""
    return masks * mark_held_queries(known, len(masks))[:, None, None]
