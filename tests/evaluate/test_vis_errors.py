"""Errors by kind: a made-up set with one of each, and properties on random sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluate.vis_sets import content, found, random_set, square, truth, written

from masklet.evaluate.vis.errors import KINDS, evaluate_vis_errors
from masklet.evaluate.vis.metrics import evaluate_youtube_vis

WHOLE = square(0, 10, 0, 10)
PART = square(0, 10, 6, 10)  # 0.4 of it


def scored(folder: Path, predictions: list[dict[str, object]]) -> dict[str, float]:
    """Counts by kind where one object of kind 1 is there in the left, one of kind 2 far off."""
    gt, pred = written(
        folder, content([truth(1, [WHOLE] * 2), truth(2, [square(8, 12, 12, 16)] * 2, category=2)]), predictions
    )
    report = evaluate_vis_errors(gt, pred)
    return {k: report.parts[k]["count"] for k in (*KINDS, "missed")}


RIGHT = found(0.9, [WHOLE] * 2)
OTHER = found(0.9, [square(8, 12, 12, 16)] * 2, category=2)


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [
        (found(0.5, [WHOLE] * 2, category=2), "classification"),
        (found(0.5, [PART] * 2), "localisation"),
        (found(0.5, [PART] * 2, category=2), "both"),
        (found(0.5, [WHOLE] * 2), "duplicate"),
        (found(0.5, [square(0, 4, 12, 16)] * 2), "background"),
    ],
)
def test_each_kind_of_error(tmp_path: Path, prediction: dict[str, object], kind: str) -> None:
    assert scored(tmp_path, [RIGHT, OTHER, prediction]) == {k: int(k == kind) for k in (*KINDS, "missed")}


def test_an_object_is_missed_unless_something_is_about_it(tmp_path: Path) -> None:
    assert scored(tmp_path, [OTHER])["missed"] == 1
    assert scored(tmp_path, [OTHER, found(0.5, [PART] * 2)])["missed"] == 0
    assert scored(tmp_path, [OTHER, found(0.5, [WHOLE] * 2, category=2)])["missed"] == 0
    assert scored(tmp_path, [OTHER, found(0.5, [PART] * 2, category=2)])["missed"] == 1


def test_mending_the_only_error_gives_all_that_is_lacking(tmp_path: Path) -> None:
    gt, pred = written(tmp_path, content([truth(1, [WHOLE] * 2)]), [found(0.5, [PART] * 2)])
    report = evaluate_vis_errors(gt, pred)
    assert report.scores["AP50"] == 0 and report.parts["localisation"]["AP50 gained"] == pytest.approx(1)
    gt, pred = written(tmp_path, content([truth(1, [WHOLE] * 2), truth(2, [square(0, 4, 12, 16)] * 2)]), [RIGHT])
    report = evaluate_vis_errors(gt, pred)
    assert report.parts["missed"]["AP50 gained"] == pytest.approx(1 - report.scores["AP50"])
    gt, pred = written(tmp_path, content([truth(1, [WHOLE] * 2)]), [RIGHT, found(0.95, [square(0, 4, 12, 16)] * 2)])
    report = evaluate_vis_errors(gt, pred)
    assert report.scores["AP50"] == pytest.approx(0.5, abs=0.01)
    assert report.parts["background"]["AP50 gained"] == pytest.approx(0.5, abs=0.01)
    assert report.parts["class kind 1"]["background"] == 1


@pytest.mark.parametrize("seed", range(6))
def test_ap_is_that_of_the_metric_and_no_mending_costs_any(tmp_path: Path, seed: int) -> None:
    gt, pred = random_set(seed)
    gt["annotations"] = [dict(a, iscrowd=0) for a in gt["annotations"] if a["id"]]
    files = written(tmp_path, gt, pred)
    report = evaluate_vis_errors(*files)
    whole = evaluate_youtube_vis(*files).scores["AP50"]
    assert report.scores["AP50"] == (None if whole is None else pytest.approx(whole))
    assert all((row.get("AP50 gained") or 0) >= -1e-9 for row in report.parts.values())
    counts = [sum(row[k] for row in report.videos.values()) for k in (*KINDS, "missed")]
    assert counts == [report.parts[k]["count"] for k in (*KINDS, "missed")]
