"""Video AP, slowly: one video, category, range and threshold after the other, as the definitions read."""

from __future__ import annotations

import math

import numpy as np
from pycocotools import mask as coco

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
LEVELS = ((0, 1), (0, 0.25), (0.25, 0.5), (0.5, 1))
LIMITS = (1, 10, 100)
WORDS = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}


def youtube_vis(gt, pred, iou=None):
    rows = tables(gt, pred, iou or tube_iou)
    return headline(rows, [("s", 1, 0), ("m", 2, 0), ("l", 3, 0)])


def tube_boundary(gt, pred):
    rows = tables(gt, pred, min_iou)
    return headline(rows, [("s", 1, 0), ("m", 2, 0), ("l", 3, 0)])


def ovis(gt, pred):
    rows = tables(gt, pred, tube_iou, LEVELS)
    some = [("s", 1, 0), ("m", 2, 0), ("l", 3, 0), ("_light", 0, 1), ("_medium", 0, 2), ("_heavy", 0, 3)]
    return headline(rows, some)


def youtube_vis_class_agnostic(gt, pred):
    return youtube_vis(gt | {"categories": [{"id": 1}], "annotations": pooled(gt["annotations"])}, pooled(pred))


def pooled(entries):
    return [e | {"category_id": 1} for e in sorted(entries, key=lambda e: e["category_id"])]


def headline(rows, some):
    """`rows` is {(area, level, limit): [(precisions, recall) by threshold] by category}, None without objects."""

    def precision(area, level, at=None):
        held = [per[t][0] for per in rows[area, level, 100] if per for t in range(10) if at in (None, t)]
        return float(np.mean(held)) if held else None

    def recall(area, level, limit):
        held = [per[t][1] for per in rows[area, level, limit] if per for t in range(10)]
        return float(np.mean(held)) if held else None

    scores = {"AP": precision(0, 0), "AP50": precision(0, 0, 0), "AP75": precision(0, 0, 5)}
    scores |= {f"AP{name}": precision(area, level) for name, area, level in some}
    scores |= {f"AR{limit}": recall(0, 0, limit) for limit in LIMITS}
    return scores | {f"AR{name}": recall(area, level, 100) for name, area, level in some}


def tables(gt, pred, iou, levels=LEVELS[:1]):
    sizes = {v["id"]: (v["height"], v["width"]) for v in gt["videos"]}
    categories = sorted(c["id"] for c in gt["categories"])
    annotations, predictions, groups = grouped(gt["annotations"]), grouped(pred), {}
    for video in sorted(sizes):
        for category in categories:
            truths = annotations.get((video, category), [])
            found = sorted(predictions.get((video, category), []), key=lambda p: -p["score"])[:100]
            tubes = [[masks(e, sizes[video]) for e in side] for side in (truths, found)]
            table = [[iou(f, t, truth) for t, truth in zip(tubes[0], truths, strict=True)] for f in tubes[1]]
            groups[video, category] = truths, found, table, [mean_area([area(m) for m in f]) for f in tubes[1]]
    rows = {}
    for a, bounds in enumerate(AREAS):
        for o, level in enumerate(levels):
            matched = {key: [evaluate(*group, bounds, level, t) for t in THRESHOLDS] for key, group in groups.items()}
            for limit in LIMITS:
                rows[a, o, limit] = [
                    accumulate([matched[video, category] for video in sorted(sizes)], limit) for category in categories
                ]
    return rows


def grouped(entries):
    groups = {}
    for e in entries:
        groups.setdefault((e["video_id"], e["category_id"]), []).append(e)
    return groups


def masks(entry, size):
    """COCO codes, None where there is no pixel."""
    codes = []
    for mask in entry["segmentations"]:
        if isinstance(mask, list):
            mask = coco.merge(coco.frPyObjects(mask, *size))
        elif mask is not None and isinstance(mask["counts"], list):
            mask = coco.frPyObjects(mask, *size)
        codes.append(mask)
    return codes


def area(mask):
    return 0 if mask is None else int(coco.area(mask))


def mean_area(areas):
    seen = [a for a in areas if a]
    return sum(seen) / len(seen) if seen else 0


def tube_iou(found, truth, annotation):
    both = union = 0
    for f, t in zip(found, truth, strict=False):
        there = [coco.decode(m).astype(bool) for m in (f, t) if m is not None]
        both += int((there[0] & there[1]).sum()) if len(there) == 2 else 0
        union += int(np.any(there, axis=0).sum()) if there else 0
    return both / union if union else 0.0


def merged_iou(found, truth, annotation):
    """The same as the official programs have it, by pycocotools."""
    both = union = 0
    for f, t in zip(found, truth, strict=False):
        there = [m for m in (f, t) if m is not None]
        both += int(coco.area(coco.merge(there, intersect=True))) if len(there) == 2 else 0
        union += int(coco.area(coco.merge(there))) if there else 0
    return both / union if union else 0.0


def min_iou(found, truth, annotation):
    iou = tube_iou(found, truth, annotation)
    if annotation.get("iscrowd"):
        return iou
    return min(iou, tube_iou([boundary(m) for m in found], [boundary(m) for m in truth], annotation))


def boundary(code):
    if code is None:
        return None
    mask = coco.decode(code)
    depth = max(1, round(0.02 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    left = np.pad(mask, 1)
    for _ in range(depth):
        inner = np.pad(left, 1)
        height, width = left.shape
        left = np.min([inner[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return coco.encode(np.asfortranarray(mask - left[1:-1, 1:-1]))


def occlusion(annotation):
    levels = sorted((WORDS[w] for w in annotation.get("occlusion", ["no_occlusion"]) if w is not None), reverse=True)
    upper = levels[: math.ceil(len(levels) / 2)]
    return sum(upper) / len(upper)


def evaluate(truths, found, iou, sizes, bounds, level, threshold):
    """(score, "tp", "fp" or "ignored") of every prediction, best first; and the number of objects to be found."""
    ignored = [
        bool(t.get("iscrowd")) or outside(mean_area(t["areas"]), bounds) or outside(occlusion(t), level) for t in truths
    ]
    order = sorted(range(len(truths)), key=lambda n: ignored[n])
    taken, verdicts = set(), []
    for row, one in enumerate(found):
        best, partner = min(threshold, 1 - 1e-10), None
        for n in order:
            if n in taken and not truths[n].get("iscrowd"):
                continue
            if partner is not None and not ignored[partner] and ignored[n]:
                break
            if iou[row][n] >= best:
                best, partner = iou[row][n], n
        taken.add(partner)
        counts = partner is not None and truths[partner]["id"] != 0
        skipped = (partner is not None and ignored[partner]) or (not counts and outside(sizes[row], bounds))
        verdicts.append((one["score"], "ignored" if skipped else "tp" if counts else "fp"))
    return verdicts, ignored.count(False)


def outside(value, limits):
    return value < limits[0] or value > limits[1]


def accumulate(videos, limit):
    """(precisions, recall) by threshold over all videos of a category; None without objects."""
    if not sum(per[0][1] for per in videos):
        return None
    return [curve([per[t] for per in videos], limit) for t in range(10)]


def curve(videos, limit):
    positives = sum(number for _, number in videos)
    ranked = sorted((v for verdicts, _ in videos for v in verdicts[:limit]), key=lambda v: -v[0])
    tp = fp = 0
    points = []
    for _, verdict in ranked:
        tp, fp = tp + (verdict == "tp"), fp + (verdict == "fp")
        points.append((tp / positives, tp / (tp + fp + np.spacing(1))))
    for n in range(len(points) - 2, -1, -1):
        points[n] = points[n][0], max(points[n][1], points[n + 1][1])
    precisions = [next((p for r, p in points if r >= recall), 0.0) for recall in RECALLS]
    return precisions, points[-1][0] if points else 0.0
