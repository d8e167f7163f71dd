"""The pairs of `peers.py` in which metrics are computed. What both say must be equal: that is checked, too."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from peers import Pair
from pycocotools import mask as coco

from masklet.evaluate.tracking.measures import TrackFrame, count_hota
from masklet.evaluate.vis.metrics import evaluate_youtube_vis
from masklet.evaluate.vos.measures import score_object_masks

SIZE, CATEGORIES, OBJECTS, FOUND = (360, 640), 40, 4, 12
CLOSE = 1e-6


def repeat(work: Callable[[], float], wanted: Callable[[], float] | None = None) -> Iterator[None]:
    """The work again and again; where it is not what is wanted, that is an error."""
    expected = wanted() if wanted else None
    while True:
        found = work()
        assert expected is None or math.isclose(found, expected, abs_tol=CLOSE), (found, expected)
        yield


# -- average precision


def draw_mask(rng: np.random.Generator, place: np.ndarray) -> dict[str, Any]:
    """An ellipse near a place, as an RLE."""
    page = np.zeros(SIZE, np.uint8)
    x, y, rx, ry = place + rng.normal(0, 4, 4)
    cv2.ellipse(page, (int(x), int(y)), (max(int(rx), 2), max(int(ry), 2)), 0, 0, 360, 1, -1)
    rle = coco.encode(np.asfortranarray(page))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


@cache
def draw_images(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """True and predicted objects of some images, as COCO lists them."""
    rng, truths, found = np.random.default_rng(0), list[dict[str, Any]](), list[dict[str, Any]]()
    for image in range(1, count + 1):
        places = rng.uniform((40, 40, 15, 15), (600, 320, 80, 80), (OBJECTS, 4))
        kinds = rng.integers(1, CATEGORIES + 1, OBJECTS)
        for place, kind in zip(places, kinds, strict=True):
            rle = draw_mask(rng, place)
            row = {"image_id": image, "category_id": int(kind), "segmentation": rle}
            area = float(coco.area(rle))
            truths.append({**row, "id": len(truths) + 1, "area": area, "iscrowd": 0, "bbox": [0, 0, 1, 1]})
        for n in range(FOUND):
            rle, kind = draw_mask(rng, places[n % OBJECTS]), int(kinds[n % OBJECTS])
            found.append({"image_id": image, "category_id": kind, "segmentation": rle, "score": float(rng.random())})
    return truths, found


@cache
def write_images(count: int) -> tuple[Path, Path]:
    """The images as files that pycocotools reads."""
    folder = Path(tempfile.mkdtemp())
    truths, found = draw_images(count)
    h, w = SIZE
    head = {
        "images": [{"id": n, "height": h, "width": w, "file_name": f"{n}.jpg"} for n in range(1, count + 1)],
        "categories": [{"id": n, "name": f"kind {n}"} for n in range(1, CATEGORIES + 1)],
    }
    (folder / "gt.json").write_text(json.dumps({**head, "annotations": truths}))
    (folder / "pred.json").write_text(json.dumps(found))
    return folder / "gt.json", folder / "pred.json"


@cache
def write_videos(count: int) -> tuple[Path, Path]:
    """The same as videos of one frame, as YouTube-VIS lists them."""
    folder = Path(tempfile.mkdtemp())
    truths, found = draw_images(count)
    h, w = SIZE
    head = {
        "videos": [
            {"id": n, "height": h, "width": w, "length": 1, "file_names": [f"{n}/0.jpg"]} for n in range(1, count + 1)
        ],
        "categories": [{"id": n, "name": f"kind {n}"} for n in range(1, CATEGORIES + 1)],
    }
    own = [
        {
            "id": t["id"],
            "video_id": t["image_id"],
            "category_id": t["category_id"],
            "segmentations": [t["segmentation"]],
            "areas": [t["area"]],
            "bboxes": [t["bbox"]],
            "iscrowd": 0,
        }
        for t in truths
    ]
    said = [
        {
            "video_id": f["image_id"],
            "category_id": f["category_id"],
            "segmentations": [f["segmentation"]],
            "score": f["score"],
        }
        for f in found
    ]
    (folder / "gt.json").write_text(json.dumps({**head, "annotations": own}))
    (folder / "pred.json").write_text(json.dumps(said))
    return folder / "gt.json", folder / "pred.json"


def score_by_ours(count: int) -> float:
    """AP from files."""
    return float(evaluate_youtube_vis(*write_videos(count)).scores["AP"] or 0)


def score_by_coco(module: str, count: int) -> float:
    """AP from files by pycocotools, or by a package with its names."""
    with contextlib.redirect_stdout(io.StringIO()):
        if module == "hotcoco":
            from hotcoco import COCO, COCOeval  # type: ignore[import-not-found]
        else:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        gt, pred = map(str, write_images(count))
        truth = COCO(gt)
        evaluation = COCOeval(truth, truth.loadRes(pred), "segm")
        for step in ("evaluate", "accumulate", "summarize"):
            getattr(evaluation, step)()
    return float(evaluation.stats[0])


def pair_map(module: str, small: bool) -> Pair:
    """AP of masks."""
    images = 10 if small else 300
    own, other = partial(score_by_ours, images), partial(score_by_coco, module, images)
    write_images(images), write_videos(images)
    what = f"AP of masks, {images} images, {FOUND} predictions each, from files"
    return Pair(f"{what}, {module}", module, lambda: (repeat(own, other), repeat(other)), 4, 1)


# -- tracking


@cache
def draw_tracks(frames: int, tracks: int) -> list[TrackFrame]:
    """Tracks that come and go, most of which are alike on both sides."""
    rng, made = np.random.default_rng(0), []
    for _ in range(frames):
        g, p = (np.flatnonzero(rng.random(tracks) < 0.8) for _ in range(2))
        alike = np.where(
            g[:, None] == p[None], 0.5 + 0.5 * rng.random((len(g), len(p))), 0.3 * rng.random((len(g), len(p)))
        )
        made.append(TrackFrame(g, p, alike))
    return made


def compute_hota_by_trackeval(frames: Sequence[TrackFrame]) -> float:
    """The mean of HOTA over all alphas."""
    from trackeval.metrics import HOTA  # type: ignore[import-not-found]

    data = {
        "num_timesteps": len(frames),
        "num_gt_ids": max(int(f.truth.max(initial=-1)) for f in frames) + 1,
        "num_tracker_ids": max(int(f.found.max(initial=-1)) for f in frames) + 1,
        "num_gt_dets": sum(len(f.truth) for f in frames),
        "num_tracker_dets": sum(len(f.found) for f in frames),
        "gt_ids": [f.truth for f in frames],
        "tracker_ids": [f.found for f in frames],
        "similarity_scores": [f.similarity for f in frames],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        return float(np.mean(HOTA().eval_sequence(data)["HOTA"]))


def pair_hota(small: bool) -> Pair:
    """HOTA of one video, similarities at hand."""
    frames, tracks = (20, 4) if small else (300, 30)
    drawn = draw_tracks(frames, tracks)
    own, other = (lambda: float(np.mean(count_hota(drawn).rates["HOTA"]))), partial(compute_hota_by_trackeval, drawn)
    what = f"HOTA, {tracks} tracks, {frames} frames"
    return Pair(what, "trackeval", lambda: (repeat(own, other), repeat(other)), 6, 1)


# -- J and F


@cache
def draw_object(frames: int, size: tuple[int, int]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """True and predicted masks of one object, as RLEs."""
    h, w = size
    made = []
    for t in range(frames):
        pages = [np.zeros(size, np.uint8, order="F") for _ in range(2)]
        for n, page in enumerate(pages):
            wide = np.zeros(size, np.uint8)
            cv2.ellipse(wide, (w // 3 + 2 * t + 3 * n, h // 2), (w // 6, h // 5 + 4 * n), 20, 0, 360, 1, -1)
            page[:] = wide
        made.append((coco.encode(pages[0]), coco.encode(pages[1])))
    return made


def compute_jf(masks: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """J&F by ours."""
    truths, found = ([coco.decode(pair[n]).astype(bool) for pair in masks] for n in range(2))
    return score_object_masks(found, truths).jf


def compute_jf_by_trackeval(masks: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """J&F by trackeval."""
    from trackeval.metrics import JAndF

    data = {
        "num_timesteps": len(masks),
        "num_gt_ids": 1,
        "num_tracker_ids": 1,
        "gt_ids": [[0] for _ in masks],
        "tracker_ids": [[0] for _ in masks],
        "gt_dets": [[truth] for truth, _ in masks],
        "tracker_dets": [[found] for _, found in masks],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        return float(JAndF().eval_sequence(data)["J&F"])


def pair_jf(small: bool) -> Pair:
    """J&F of one object."""
    masks = draw_object(8, (60, 90)) if small else draw_object(40, (480, 854))
    own, other = partial(compute_jf, masks), partial(compute_jf_by_trackeval, masks)
    what = f"J&F of one object, {len(masks)} frames"
    return Pair(what, "trackeval", lambda: (repeat(own, other), repeat(other)), 6, 1)


def list_metric_pairs(small: bool) -> dict[str, Sequence[Pair]]:
    """All pairs by the name of their part."""
    return {
        "map": [pair_map("pycocotools", small), pair_map("hotcoco", small)],
        "hota": [pair_hota(small)],
        "jf": [pair_jf(small)],
    }
