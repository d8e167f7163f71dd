"""BURST's scores, as reports: HOTA, DetA, AssA, TrackMAP and OWTA for all, common and uncommon classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.tracking.burst_counts import (
    SPLITS,
    BurstResult,
    ClassCounts,
    compute_box_similarity,
    compute_mask_similarity,
    count_burst_split,
)
from masklet.evaluate.tracking.burst_files import COMMON
from masklet.evaluate.tracking.measures import HotaCounts

GUIDED = ("HOTA", "DetA", "AssA")
OPEN = ("OWTA", "DetRe", "AssA", "HOTA", "DetA")
ALL = (*GUIDED, "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA")
BOXES = (
    "BURST's program, 0 to 100: shapes are compared by the IoU of their boxes in whole pixels, where the paper says "
    "masks (only AP is by masks); exemplar-guided differs from class-guided in that no prediction is set aside"
)
MASKS = "BURST as its paper says, 0 to 100: shapes are compared by the IoU of their masks; the program compares boxes"


def evaluate_burst(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """The three tasks of BURST, by box IoU as its program does.

    Args:
        gt: a folder with all_classes.json, common_classes.json and uncommon_classes.json.
        pred: a file in BURST's form.
        videos: those to score, as dataset/sequence; all of them without it.
        watch: is told ("burst", frames done, frames in all, true tracks).

    Raises:
        InputError: a file or an entry cannot be used.
    """
    return _build_burst_report("burst", BOXES, count_burst_split(gt, pred, compute_box_similarity, videos, watch))


def evaluate_burst_masks(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """The three tasks of BURST by mask IoU, as its paper says.

    `gt`, `pred`, `videos`, `watch` and the errors are as in `evaluate_burst`.
    """
    return _build_burst_report(
        "burst-masks", MASKS, count_burst_split(gt, pred, compute_mask_similarity, videos, watch)
    )


def _build_burst_report(metric: str, protocol: str, result: BurstResult) -> Report:
    classes = {c: result.total.classes[c] for c in sorted(result.total.reported)}
    of_split: dict[str, Sequence[ClassCounts]] = {
        "all": list(classes.values()),
        "common": [counts for c, counts in classes.items() if c in COMMON],
        "uncommon": [counts for c, counts in classes.items() if c not in COMMON],
    }
    rows = {name: _compute_burst_headline(of_split[name], result.total.open_world[name]) for name in SPLITS}
    parts: dict[str, Scores] = {name: rows[name] for name in SPLITS[1:]}
    called = {c: f"class {result.names.get(c, c)}" for c in classes}
    parts |= {called[c]: _build_class_row(counts) for c, counts in classes.items()}
    parts |= {f"{called[c]} exemplar-guided": _build_hota_row(counts.exemplar) for c, counts in classes.items()}
    parts |= {f"open-world {name}": _build_hota_row(result.total.open_world[name]) for name in SPLITS}
    videos = {name: _build_hota_row(counts.open_world["all"]) for name, counts in result.videos.items()}
    return Report(metric, protocol, rows["all"], parts, videos, result.objects, result.warnings, result.inputs)


def _compute_burst_headline(classes: Sequence[ClassCounts], world: HotaCounts) -> Scores:
    row: dict[str, float | None] = {}
    tasks: Mapping[str, Callable[[ClassCounts], HotaCounts]] = {
        "class-guided": lambda c: c.guided,
        "exemplar-guided": lambda c: c.exemplar,
    }
    for task, counts in tasks.items():
        row |= {f"{task} {name}": _compute_mean_percent([counts(c).means[name] for c in classes]) for name in GUIDED}
        row[f"{task} AP"] = _compute_mean_percent([c.ap for c in classes])
    return row | {f"open-world {name}": 100 * world.means[name] for name in OPEN}


def _compute_mean_percent(values: Sequence[float]) -> float | None:
    return 100 * float(np.mean(values)) if values else None


def _build_class_row(counts: ClassCounts) -> Scores:
    return {**_build_hota_row(counts.guided), "AP": 100 * counts.ap}


def _build_hota_row(counts: HotaCounts) -> Scores:
    return {name: 100 * counts.means[name] for name in ALL}
