"""Video AP against the numbers of the official programs: YTVOSeval, OVISeval, VMT's boundary version, LVISPooledEval."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from masklet.evaluate.vis import average_precision as vis
from masklet.evaluate.vis import files as vis_files
from masklet.evaluate.vis import metrics as vis_metrics

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden"))
VIDEO_SETS = sorted(p for p in GOLDEN.glob("metrics/vis/*") if p.is_dir())
IMAGE_SETS = sorted(p for p in GOLDEN.glob("metrics/ap_pool_lvis/*") if p.is_dir())
METRICS = {  # by the end of the file's name: the ranges, what is alike, the table of IoU in the file
    "ytvis": (vis_files.YOUTUBE_VIS, vis.AREAS, vis.compute_tube_similarity, "video_iou"),
    "tube_boundary": (vis_files.YOUTUBE_VIS, vis.AREAS, vis.compute_boundary_similarity, "min_iou"),
    "ovis": (vis_files.OVIS, vis.OCCLUSIONS, vis.compute_tube_similarity, ""),
}
REPORTS = {
    "ytvis": vis_metrics.evaluate_youtube_vis,
    "ytvis_class_agnostic": vis_metrics.evaluate_class_agnostic,
    "tube_boundary": vis_metrics.evaluate_tube_boundary,
    "ovis": vis_metrics.evaluate_ovis,
}


def folder(request):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}/metrics: set MASKLET_GOLDEN")
    return request.param


def named(path):
    return path.name if path else "none"


video_set = pytest.fixture(params=VIDEO_SETS or [None], ids=named, name="video_set")(folder)
image_set = pytest.fixture(params=IMAGE_SETS or [None], ids=named, name="image_set")(folder)


def expected(path):
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return json.loads(path.read_text())


def alike(got, wanted, name=""):
    """Ours has None where the programs have -1 or NaN."""
    ours, theirs = (-1.0 if v is None else v for v in (got, wanted))
    assert ours == pytest.approx(theirs, abs=1e-9), name


@pytest.mark.parametrize("metric", REPORTS)
def test_scores(video_set, metric):
    wanted = expected(video_set / f"expected_{metric}.json")
    report = REPORTS[metric](video_set / "gt.json", video_set / "pred.json")
    assert len(report.scores) == len(wanted["stats"])
    for (ours, got), (theirs, value) in zip(report.scores.items(), wanted["stats"].items(), strict=True):
        assert ours == theirs
        alike(got, value, ours)
    categories = {c["id"]: c["name"] for c in json.loads((video_set / "gt.json").read_text())["categories"]}
    for number, row in wanted.get("per_category", {}).items():
        for name, value in row.items():
            alike(report.parts[categories[int(number)]][name], value, f"category {number} {name}")


@pytest.mark.parametrize("metric", METRICS)
def test_tables(video_set, metric):
    wanted = expected(video_set / f"expected_{metric}.json")
    form, ranges, similarity, ious = METRICS[metric]
    data = vis_files.read_vis_dataset(video_set / "gt.json", video_set / "pred.json", form)
    judging = partial(vis.match_by_category, ranges=ranges, similarity=similarity, limit=100)
    groups = vis_files.score_vis_clips(data, judging, vis_metrics.discard_progress)
    assert list(data.clips) == wanted["video_ids"]
    results = vis.compute_ap_tables(groups, wanted["category_ids"], ranges)
    for name, table in (("ap", results.ap), ("recall", results.recall)):
        theirs = np.array(wanted[f"{name}_table"], float)
        assert ((table.reshape(theirs.shape) == -1) == (theirs == -1)).all()
        np.testing.assert_allclose(table.reshape(theirs.shape), theirs, rtol=0, atol=1e-9)
    numbers = {clip.name: id for id, clip in data.clips.items()}
    ours = {f"{numbers[g.video]},{g.category}": g.iou for g in groups}
    for name, table in next((v for k, v in wanted.items() if ious and k.startswith(ious)), {}).items():
        np.testing.assert_allclose(ours[name], table, rtol=0, atol=1e-12, err_msg=name)


def test_levels_of_occlusion(video_set):
    wanted = expected(video_set / "expected_ovis.json")["occlusion_score_by_gt_id"]
    data = vis_files.read_vis_dataset(video_set / "gt.json", video_set / "pred.json", vis_files.OVIS)
    levels = {str(o.id): o.occlusion for clip in data.clips.values() for o in clip.truths}
    assert levels == pytest.approx(wanted)


def test_pool_of_videos(video_set):
    wanted = expected(video_set / "expected_ap_pool_video.json")
    report = vis_metrics.evaluate_ap_pool_video(video_set / "gt.json", video_set / "pred.json")
    rows = {"no_limit": report.scores, "max_dets_100_per_video_and_category": report.parts["best 100"]}
    names = {"": "AP", "_50": "AP50", "_75": "AP75", "_small": "APs", "_medium": "APm", "_large": "APl"}
    for key, row in rows.items():
        for ending, name in names.items():
            alike(row[name], wanted[key][f"AP_pool{ending}"], name)
        alike(row["AR"], wanted[key]["AR_pool"], "AR")
        for threshold, value in zip(vis.THRESHOLDS, wanted[key]["ap_by_threshold"], strict=True):
            alike(row[f"AP{100 * threshold:.0f}"], value)


def test_pool_of_images(image_set):
    wanted = expected(image_set / "expected.json")
    categories = {c["id"]: c["name"] for c in json.loads((image_set / "gt.json").read_text())["categories"]}
    for key, rows in wanted.items():
        if not key.startswith("top_"):
            continue
        best = int(key.split("_")[1])
        report = vis_metrics.evaluate_ap_pool_lvis(image_set / "gt.json", image_set / "pred.json", best=best)
        for name, value in rows["pooled"].items():
            alike(report.scores["AP" + name.removeprefix("AP-pooled-").replace("all", "")], value, name)
        for kind, measure in (("pooled_ap_by_iou_threshold", "AP"), ("pooled_recall_by_iou_threshold", "AR")):
            for pool, values in rows[kind].items():
                for threshold, value in zip(vis.THRESHOLDS, values, strict=True):
                    alike(report.parts[f"pool {pool}"][f"{measure}{100 * threshold:.0f}"], value, f"{kind} {pool}")
        for name, value in rows["fixed"].items():
            alike(report.parts["fixed"][name], value, name)
        for number, value in rows["fixed_ap_by_category[all areas]"].items():
            alike(report.parts[f"fixed {categories[int(number)]}"]["AP"], value, number)
