"""How well frames are segmented, by COCO's own code in memory, and how well clips are, by YouTube-VIS's video AP."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as nnf
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from masklet.core.instances import Detections
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.vis.average_precision import compute_video_ap
from masklet.train.assignment import ClipTargets
from masklet.train.data.clips import TrainingClip

TOP = 10  # pairs of query and category that a clip is answered with, as released for YouTube-VIS


def compute_image_scores(
    clips: Sequence[TrainingClip], found: Sequence[Sequence[Detections]], categories: Sequence[str]
) -> dict[str, float]:
    """Percent: "AP" (mean over IoU 0.5 to 0.95 and the categories that occur), "AP50", "found" (AP50 where any category
    counts as right), and "AP/NAME" of each category that occurs.

    Args:
        clips: with what is there.
        found: detections in each frame of each clip, at the clips' size.
        categories: their names.
    """
    frames = [(clip, t, dets) for clip, per in zip(clips, found, strict=True) for t, dets in enumerate(per)]
    truth: Mapping[str, Any] = {
        "images": [
            {"id": n, "height": f[0].images.shape[2], "width": f[0].images.shape[3]} for n, f in enumerate(frames)
        ],
        "categories": [{"id": k} for k in range(len(categories))],
        "annotations": [
            {"id": id, **one}
            for id, one in enumerate((o for n, f in enumerate(frames) for o in _list_truths(n, *f[:2])), 1)
        ],
    }
    claims = [one for n, (_, _, dets) in enumerate(frames) for one in _list_claims(n, dets)]
    if not truth["annotations"] or not claims:
        return {"AP": 0.0, "AP50": 0.0, "found": 0.0}
    named, unnamed = (_compute_precision(truth, claims, use) for use in (True, False))
    per_category = named.mean((0, 1))
    occur = per_category > -1
    told = {f"AP/{categories[k]}": convert_to_percent(per_category[k]) for k in np.flatnonzero(occur).tolist()}
    return {
        "AP": convert_to_percent(per_category[occur].mean()),
        "AP50": convert_to_percent(named[0, :, occur].mean()),
        "found": convert_to_percent(unnamed[0].mean()),
        **told,
    }


@dataclass(frozen=True)
class ScoredClip:
    """What there is in a clip, and what was found, in the form that video AP takes."""

    truth: VideoResult
    found: VideoResult


def answer_clip(
    probabilities: Float[Tensor, "n k1"],
    masks: Float[Tensor, "t n h w"],
    targets: ClipTargets,
    categories: Sequence[str],
) -> ScoredClip:
    """A clip as MinVIS and DVIS answer it: the ten best pairs of query and category.

    Args:
        probabilities: of each query's categories over the whole clip, the last being no object.
        masks: logits of all queries in each frame; they are resized to the size of the targets.
        targets: what there is in it.
        categories: their names.
    """
    k = probabilities.shape[1] - 1
    best = probabilities[:, :-1].flatten().topk(min(TOP, probabilities[:, :-1].numel()))
    size = (targets.masks.shape[2], targets.masks.shape[3])
    found = []
    for number, (score, at) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), 1):
        own = nnf.interpolate(masks[:, at // k][:, None].float(), size, mode="bilinear")[:, 0] > 0
        found += build_masklets(number, own, at % k, score)
    there = zip(targets.masks > 0.5, targets.labels.tolist(), strict=True)
    truth = [masklet for n, (own, label) in enumerate(there, 1) for masklet in build_masklets(n, own, label, 1.0)]
    made = [
        VideoResult("clip", size, len(masks), 1.0, tuple(one), tuple(categories), Provenance("training"))
        for one in (truth, found)
    ]
    return ScoredClip(*made)


def build_masklets(id: int, masks: Bool[Tensor, "t h w"], label: int, score: float) -> list[Masklet]:
    """Masklet number `id` with these `masks`, a `label` and a `score` (0 to 1); none where all masks are empty."""
    seen = {
        t: Sighting(Rle.encode(mask.cpu()), Source.DETECTED, score, label, 1.0)
        for t, mask in enumerate(masks)
        if mask.any()
    }
    return [Masklet(id, seen, label, score)] if seen else []


def compute_clip_scores(clips: Sequence[ScoredClip]) -> dict[str, float]:
    """Video AP of clips in percent: "AP" (mean over IoU 0.5 to 0.95 and the categories that occur) and "AP50"; nothing
    where there are no clips.
    """
    if not clips:
        return {}
    scores = compute_video_ap([clip.truth for clip in clips], [clip.found for clip in clips])
    return {name: convert_to_percent(scores[name] or 0.0) for name in ("AP", "AP50")}


def convert_to_percent(share: float) -> float:
    """To three digits behind the point."""
    return round(100 * float(share), 3)


def _list_truths(image: int, clip: TrainingClip, t: int) -> Iterator[dict[str, Any]]:
    for mask, label in zip(clip.masks[:, t], clip.labels.tolist(), strict=True):
        if mask.any():
            rle = encode_coco_rle(mask)
            area = float(coco_mask.area(rle))
            yield {"image_id": image, "category_id": label, "segmentation": rle, "area": area, "iscrowd": 0}


def _list_claims(image: int, found: Detections) -> Iterator[dict[str, Any]]:
    for mask, score, label in zip(found.masks, found.scores.tolist(), found.labels.tolist(), strict=True):
        yield {"image_id": image, "category_id": label, "segmentation": encode_coco_rle(mask), "score": score}


def encode_coco_rle(mask: Bool[Tensor, "h w"]) -> dict[str, Any]:
    """The mask as pycocotools' compressed RLE, a dictionary of size and counts."""
    rle: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
    return rle


def _compute_precision(truth: Mapping[str, Any], claims: list[dict[str, Any]], by_category: bool) -> np.ndarray:
    """[IoU threshold, recall, category] at all sizes and 100 detections; -1 where a category does not occur."""
    with redirect_stdout(io.StringIO()):  # it prints
        known = COCO()
        known.dataset = dict(truth)
        known.createIndex()
        scored = COCOeval(known, known.loadRes([dict(c) for c in claims]), "segm")
        scored.params.useCats = int(by_category)
        scored.evaluate()
        scored.accumulate()
    return np.asarray(scored.eval["precision"])[:, :, :, 0, -1]
