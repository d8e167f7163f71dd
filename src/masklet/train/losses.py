"""What a query is told: its class, and its mask at sampled points (Mask2Former, Cheng et al. 2022, 3.3 and 4.1).

Masks are compared at points, three quarters of them where the prediction is least sure. All that is random comes from
`rand`, so that a step can be repeated. Frames of a clip are images of their own for a tracker (`compute_frame_losses`),
and one tall image for what sees a clip at once (`compute_clip_losses`); `compute_uvla_losses` is GenVIS's, where a clip
follows a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Rand = Callable[..., Tensor]  # rand(*shape): uniform in [0, 1)


@dataclass(frozen=True)
class LossSettings:
    """Weights of losses and of matching costs, and points of a mask, as published."""

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    no_object: float = 0.1  # weight of the class no object in the cross-entropy
    points: int = 12544  # of one frame's mask: 112 x 112
    oversample: float = 3.0  # candidates for each point that is placed by uncertainty
    importance: float = 0.75  # share of the points that is placed by uncertainty


@dataclass(frozen=True)
class QueryPairs:
    """Queries and the objects that they are to be, in the order of matching."""

    queries: Int64[Tensor, " m"]
    objects: Int64[Tensor, " m"]


def make_uniform_sampler(random: np.random.Generator, device: torch.device) -> Rand:
    """Random numbers on a device that follow from a state of numpy's."""
    generator = torch.Generator(device).manual_seed(int(random.integers(2**62)))
    return lambda *shape: torch.rand(*shape, generator=generator, device=device)


# -- points


def sample_at_points(maps: Float[Tensor, "m h w"], points: Float[Tensor, "m p 2"]) -> Float[Tensor, "m p"]:
    """Maps at points (x, y) of [0, 1], the corners of the image; bilinear between pixel centres, zero outside.

    >>> sample_at_points(torch.tensor([[[0.0, 4.0]]]), torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.75, 0.5]]]))
    tensor([[0., 2., 4.]])
    """
    return nnf.grid_sample(maps[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]


@torch.no_grad()
def draw_uncertain_points(
    logits: Float[Tensor, "m h w"], points: int, rand: Rand, at: LossSettings
) -> Float[Tensor, "m p 2"]:
    """Points (x, y, 0 to 1 over each side) of each mask of `logits`, `points` many, drawn by `rand`: a share
    `at.importance` where the prediction is least sure, the others anywhere (PointRend, Kirillov et al. 2020, 3.1).
    """
    unsure = int(at.importance * points)
    candidates = rand(len(logits), int(at.oversample * points), 2)
    best = sample_at_points(logits, candidates).abs().topk(unsure, largest=False).indices
    chosen = candidates.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, rand(len(logits), points - unsure, 2)], 1)


def stack_clip_frames(masks: Float[Tensor, "m t h w"]) -> Float[Tensor, "m th w"]:
    """The frames of a clip below each other."""
    return masks.flatten(1, 2)


# -- single losses


def compute_class_loss(
    logits: Float[Tensor, "b n k1"], labels: Int64[Tensor, "b n"], no_object: float = 0.1
) -> Float[Tensor, ""]:
    """Cross-entropy of class `logits` against `labels` of b images with n queries; the class no object, the last one,
    has the smaller weight `no_object`, in the mean as well.
    """
    weights = logits.new_ones(logits.shape[-1])
    weights[-1] = no_object
    return nnf.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights)


def bce_loss(logits: Float[Tensor, "m p"], inside: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
    """Binary cross-entropy of each mask, the mean over its points."""
    return nnf.binary_cross_entropy_with_logits(logits, inside, reduction="none").mean(1)


def dice_loss(logits: Float[Tensor, "m p"], inside: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
    """1 - dice of each mask, with 1 added to numerator and denominator: empty and found empty is no loss."""
    likely = logits.sigmoid()
    return 1 - (2 * (likely * inside).sum(1) + 1) / (likely.sum(1) + inside.sum(1) + 1)


def compute_mask_losses(
    logits: Float[Tensor, "m h w"],
    inside: Float[Tensor, "m h2 w2"],
    count: int,
    points: int,
    rand: Rand,
    at: LossSettings,
) -> dict[str, Float[Tensor, ""]]:
    """The losses "mask" (cross-entropy) and "dice" of predicted masks `logits` against their truth `inside` (1 inside,
    of any size), weighted as in `at`: the sum over masks divided by `count`. Each mask is compared at `points` points
    that `rand` draws.
    """
    logits = logits.float()
    where = draw_uncertain_points(logits.detach(), points, rand, at)
    found, wanted = sample_at_points(logits, where), sample_at_points(inside, where)
    share = max(count, 1)
    return {
        "mask": at.mask * bce_loss(found, wanted).sum() / share,
        "dice": at.dice * dice_loss(found, wanted).sum() / share,
    }


# -- of a layer


def build_class_targets(
    pairs: QueryPairs, labels: Int64[Tensor, " g"], queries: int, classes: int
) -> Int64[Tensor, " n"]:
    """What each of `queries` queries is to say: of those in `pairs` the class in `labels` of their object, of the
    others no object (= `classes`). Of two pairs of one query the later one counts.
    """
    targets = [classes] * queries
    for query, label in zip(pairs.queries.tolist(), labels[pairs.objects].tolist(), strict=True):
        targets[query] = label
    return torch.tensor(targets, device=labels.device)


def compute_frame_losses(
    logits: Float[Tensor, "t n k1"],
    masks: Float[Tensor, "t m h w"],
    inside: Float[Tensor, "g t h2 w2"],
    labels: Int64[Tensor, " g"],
    pairs: QueryPairs,
    rand: Rand,
    at: LossSettings,
) -> dict[str, Float[Tensor, ""]]:
    """A layer of DVIS's tracker: every frame is an image. A query says its object's class in all frames, and where
    the object is absent an empty mask. All objects in all frames count as masks.

    Args:
        logits: of all queries.
        masks: mask logits of the paired queries, in the pairs' order.
        inside: 1 where an object is.
        labels: of the objects.
        pairs: which query is which object.
        rand: uniform random numbers.
        at: weights and points.
    """
    t, n, k1 = logits.shape
    targets = build_class_targets(pairs, labels, n, k1 - 1).expand(t, n)
    wanted = inside[pairs.objects].transpose(0, 1).flatten(0, 1)
    found = compute_mask_losses(masks.flatten(0, 1), wanted, inside.shape[0] * t, at.points, rand, at)
    return {"class": at.classes * compute_class_loss(logits.float(), targets, at.no_object), **found}


def compute_clip_losses(
    logits: Float[Tensor, "n k1"],
    masks: Float[Tensor, "m t h w"],
    inside: Float[Tensor, "g t h2 w2"],
    labels: Int64[Tensor, " g"],
    pairs: QueryPairs,
    rand: Rand,
    at: LossSettings,
) -> dict[str, Float[Tensor, ""]]:
    """A layer of DVIS's refiner: the clip is one image. `logits`, `inside`, `labels`, `pairs`, `rand` and `at` are as
    in `compute_frame_losses`, but the logits are one row per query for the whole clip, and `masks` have queries first.
    """
    n, k1 = logits.shape
    targets = build_class_targets(pairs, labels, n, k1 - 1)
    points = at.points * masks.shape[1]
    wanted = stack_clip_frames(inside[pairs.objects])
    found = compute_mask_losses(stack_clip_frames(masks), wanted, len(labels), points, rand, at)
    return {"class": at.classes * compute_class_loss(logits.float()[None], targets[None], at.no_object), **found}


def compute_similarity_loss(
    frame: Float[Tensor, "m c"],
    video: Float[Tensor, "n c"],
    frame_objects: Int64[Tensor, " m"],
    video_objects: Int64[Tensor, " n"],
) -> Float[Tensor, ""]:
    """VITA's and GenVIS's: embeddings of a frame's queries and of object queries are alike where they are one object.

    Args:
        frame: embeddings of a frame's queries that were matched with objects.
        video: embeddings of the object queries that have objects.
        frame_objects: the object of each in `frame`.
        video_objects: likewise, in `video`.

    Binary cross-entropy of the product of each pair, the mean over all pairs; 0 where there is none.

    >>> one = torch.eye(2)
    >>> same, other = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> [round(float(compute_similarity_loss(9 * one, one, same, which)), 3) for which in (same, other)]
    [0.347, 4.847]
    """
    alike = frame @ video.T
    if not alike.numel():
        return alike.sum()
    same = (frame_objects[:, None] == video_objects[None]).to(alike.dtype)
    return nnf.binary_cross_entropy_with_logits(alike, same)


def compute_uvla_losses(
    logits: Float[Tensor, "l n k1"],
    masks: Float[Tensor, "l n t h w"],
    inside: Float[Tensor, "g t h2 w2"],
    labels: Int64[Tensor, " g"],
    known: Int64[Tensor, "l g"],
    rand: Rand,
    at: LossSettings,
    *,
    visible: Bool[Tensor, " g"],
    supervised: Bool[Tensor, " g"],
) -> dict[str, Float[Tensor, ""]]:
    """One clip of GenVIS, all its parallel layers at once.

    Args:
        logits: of all queries.
        masks: mask logits of all queries.
        inside: 1 where an object is.
        labels: of the objects.
        known: the query of each object, -1 of those that have none yet.
        rand: uniform random numbers.
        at: weights and points.
        visible: objects that are seen in this clip; the query of one that is not is to say no object.
        supervised: objects whose queries' masks are told: GenVIS `visible`; UVLA++ `visible | (known >= 0).any(0)`,
            so that the query of one that has disappeared is told an empty mask.
    """
    _, n, k1 = logits.shape
    has_query = known >= 0
    told = [seen.nonzero()[:, 0] for seen in has_query & visible]
    targets = torch.stack(
        [build_class_targets(QueryPairs(own[g], g), labels, n, k1 - 1) for own, g in zip(known, told, strict=True)]
    )
    layer, g = (has_query & supervised).nonzero(as_tuple=True)
    found = compute_mask_losses(
        stack_clip_frames(masks[layer, known[layer, g]]),
        stack_clip_frames(inside[g]),
        len(g),
        at.points * masks.shape[2],
        rand,
        at,
    )
    return {"class": at.classes * compute_class_loss(logits.float(), targets, at.no_object), **found}
