"""How well single frames are segmented: COCO's average precision, by COCO's own code, in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from masklet.core.instances import Detections
from masklet.train.data.clips import TrainingClip


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
