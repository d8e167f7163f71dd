"""Small data sets in the form of YouTube-VIS, with everything nasty in them."""

from __future__ import annotations

import json

import numpy as np
from pycocotools import mask as coco

SIZE = (12, 16)
WORDS = ("no_occlusion", "slight_occlusion", "severe_occlusion")


def code(mask, compressed=True):
    """A mask as JSON has it."""
    made = coco.encode(np.asfortranarray(mask, np.uint8))
    if compressed:
        return {"size": made["size"], "counts": made["counts"].decode()}
    flat = np.asarray(mask, np.uint8).T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    return {"size": made["size"], "counts": np.diff(edges, prepend=0).tolist()}


def square(y0, y1, x0, x1, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def truth(id, masks, video=1, category=1, **more):
    areas = [None if m is None else int(m.sum()) for m in masks]
    base = {"id": id, "video_id": video, "category_id": category, "iscrowd": 0, "areas": areas}
    words = {"occlusion": [None if m is None else WORDS[0] for m in masks]}
    return base | words | {"segmentations": [None if m is None else code(m) for m in masks]} | more


def found(score, masks, video=1, category=1, **more):
    segmentations = [None if m is None else code(m) for m in masks]
    return {"video_id": video, "category_id": category, "score": score, "segmentations": segmentations} | more


def content(annotations, videos=1, frames=2, size=SIZE, categories=2):
    listed = [{"id": v, "height": size[0], "width": size[1], "length": frames} for v in range(1, videos + 1)]
    named = [{"id": k, "name": f"kind {k}"} for k in range(1, categories + 1)]
    return {"videos": listed, "categories": named, "annotations": annotations}


def written(folder, gt, pred):
    """Both files."""
    (folder / "gt.json").write_text(json.dumps(gt))
    (folder / "pred.json").write_text(json.dumps(pred))
    return folder / "gt.json", folder / "pred.json"


def random_set(seed, videos=3):
    """Ties, duplicates, crowds, nulls, an id 0, empty masks, wrong areas, lists of other lengths."""
    rng = np.random.default_rng(seed)
    annotations, predictions = [], []
    for video in range(1, videos + 1):
        for _ in range(rng.integers(0, 5)):
            masks = [blob(rng) if rng.random() < 0.8 else None for _ in range(3)]
            one = truth(len(annotations), masks, video, int(rng.integers(1, 3)), iscrowd=int(rng.random() < 0.2))
            one["occlusion"] = [str(rng.choice(WORDS)) for _ in masks]
            if rng.random() < 0.3:
                one["areas"] = [int(a) for a in rng.choice([1, 128**2, 200**2, 256**2, 300**2], 3)]
            if rng.random() < 0.3:
                one["segmentations"] = [code(m, False) if m is not None else None for m in masks]
            annotations.append(one)
            for _ in range(rng.integers(0, 4)):
                moved = [m if m is None or rng.random() < 0.5 else m & (rng.random(SIZE) < 0.8) for m in masks]
                score, category = float(rng.choice([0.2, 0.5, 0.9])), int(rng.integers(1, 3))
                predictions.append(
                    found(score, moved[: rng.integers(1, 4)] if rng.random() < 0.1 else moved, video, category)
                )
    return content(annotations, videos, 3), predictions + predictions[:2]


def blob(rng):
    y, x = rng.integers(0, 8), rng.integers(0, 12)
    return square(y, y + rng.integers(0, 9), x, x + rng.integers(0, 9))
