"""VPQ and STQ of files in VIPSeg's layout (see `evaluate_vipseg`), with means of VIPSeg, DEVA and DVIS."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.panoptic.files import VipsegCounts, VipsegResult, VipsegSplit, count_vipseg_split
from masklet.evaluate.panoptic.quality import WHOLE, WINDOWS, PanopticCounts, compute_vpq_bar, compute_window_mean
from masklet.evaluate.report import Report, Scores

NAMES = {k: f"VPQ^{'whole' if k == WHOLE else k}" for k in WINDOWS}
TABLE, SCRIPT = (1, 2, 4, 6), (1, 2, 4, 6, 8)  # windows: of VIPSeg's and DVIS's tables, of VIPSeg's own script
VPQ = (
    "VPQ over windows of k annotated frames, 0 to 100; bar: mean of VPQ^whole and of the mean of VPQ^1 to VPQ^10 "
    "(DEVA's paper); mean of 7: all windows (DEVA's script); mean 1,2,4,6: VIPSeg's and DVIS's tables; a video shorter "
    "than k is one window (DEVA), in the parts named VIPSeg it has none (VIPSeg's script)"
)
STQ = (
    "STQ over the whole set, 0 to 1, as VIPSeg's and DEVA's script computes it: crowds are not read, and the segment "
    "that a video lists first counts as one"
)


def evaluate_vpq(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """Video panoptic quality for all k at once.

    Args:
        gt: a folder with panoptic_gt.json, or panoptic_gt_VIPSeg_val.json, and panomasksRGB.
        pred: a folder with pred.json and pan_pred.
        videos: the names of those to score; all of them without it.
        watch: is told ("vpq", frames done, frames in all, true objects).

    Raises:
        InputError: a file is not of its form, or a video or frame has no prediction.
    """
    return _build_vps_report("vpq", VPQ, count_vipseg_split(gt, pred, videos=videos, watch=watch, name="vpq"), [_VPQ])


def evaluate_stq(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """Segmentation and tracking quality, with AQ and SQ, 0 to 1.

    `gt`, `pred`, `videos`, `watch` (told "stq") and errors are as in `evaluate_vpq`.
    """
    return _build_vps_report("stq", STQ, count_vipseg_split(gt, pred, videos=videos, watch=watch, name="stq"), [_STQ])


def evaluate_vipseg(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """VPQ and STQ in one pass over the files.

    `gt`, `pred`, `videos`, `watch` (told "vipseg") and errors are as in `evaluate_vpq`.
    """
    return _build_vps_report(
        "vipseg", f"{VPQ}. {STQ}", count_vipseg_split(gt, pred, videos=videos, watch=watch), [_VPQ, _STQ]
    )


def _build_vps_report(metric: str, protocol: str, result: VipsegResult, measures: Sequence[PanopticMeasure]) -> Report:
    total, split = result.total, result.split
    notes = [f"{text} ({n})" for text, n in split.notes.items() if n]
    return Report(
        metric,
        protocol,
        _merge_score_rows(measure.scores(total) for measure in measures),
        {name: row for measure in measures for name, row in measure.parts(total, split).items()},
        {
            name: _merge_score_rows(measure.scores(counts) for measure in measures)
            for name, counts in result.videos.items()
        },
        result.objects,
        tuple(notes + [warning for measure in measures for warning in measure.warnings(result)]),
        split.inputs,
    )


def _merge_score_rows(rows: Iterable[Scores]) -> Scores:
    return {name: value for row in rows for name, value in row.items()}


def _compute_percent_means(
    counts: Mapping[int, PanopticCounts], among: Bool[np.ndarray, " c"] | None
) -> dict[int, float | None]:
    means = {k: c.mean("pq", among) for k, c in counts.items()}
    return {k: None if mean is None else 100 * mean for k, mean in means.items()}


def compute_vpq_scores(counts: VipsegCounts, among: Bool[np.ndarray, " c"] | None = None) -> Scores:
    """VPQ, 0 to 100, with DEVA's windows: every k, DEVA's two means and that of VIPSeg's tables; maybe of some
    categories only. None where none of them occurs."""
    means = _compute_percent_means(counts.deva, among)
    rows = {
        "bar": compute_vpq_bar(means),
        "mean of 7": compute_window_mean(means, WINDOWS),
        "mean 1,2,4,6": compute_window_mean(means, TABLE),
    }
    return {f"VPQ {name}": mean for name, mean in rows.items()} | {NAMES[k]: means[k] for k in WINDOWS}


def compute_vipseg_scores(counts: VipsegCounts, among: Bool[np.ndarray, " c"] | None = None) -> Scores:
    """VPQ, 0 to 100, with the windows of VIPSeg's own script: its k, the mean that it prints, that of the tables."""
    means = _compute_percent_means(counts.vipseg, among)
    rows = {
        "VPQ mean 1,2,4,6,8": compute_window_mean(means, SCRIPT),
        "VPQ mean 1,2,4,6": compute_window_mean(means, TABLE),
    }
    return rows | {NAMES[k]: means[k] for k in SCRIPT}


def _build_vpq_parts(counts: VipsegCounts, split: VipsegSplit) -> dict[str, Scores]:
    groups = {"": None, "things": split.things, "stuff": ~split.things}
    parts = {name: compute_vpq_scores(counts, among) for name, among in groups.items() if name}
    parts |= {f"VIPSeg {name}".rstrip(): compute_vipseg_scores(counts, among) for name, among in groups.items()}
    for k, c in counts.deva.items():
        rates = {rate.upper(): c.mean(rate) for rate in ("pq", "sq", "rq")}
        shown = {rate: None if v is None else 100 * v for rate, v in rates.items()}
        parts[NAMES[k]] = shown | {"categories": int(c.counted.sum())}
    return parts | {f"category {name}": _build_category_row(counts, n) for n, name in enumerate(split.names)}


def _build_category_row(counts: VipsegCounts, n: int) -> Scores:
    row: dict[str, float | None] = {}
    for k, c in counts.deva.items():
        row[NAMES[k]] = 100 * float(c.pq[n]) if c.counted[n] else None
        row |= {f"{name.upper()}{NAMES[k][3:]}": int(getattr(c, name)[n]) for name in ("tp", "fp", "fn")}
    return row


def _list_vpq_warnings(result: VipsegResult) -> list[str]:
    short = [f"{n} than {k}" for k, n in result.total.short.items() if n]
    if not short:
        return []
    return [
        f"of {len(result.videos)} videos have fewer frames: {', '.join(short)}; such a video is one window of VPQ^k "
        "here and none in the parts named VIPSeg"
    ]


def compute_stq_scores(counts: VipsegCounts) -> Scores:
    """STQ, AQ and SQ, 0 to 1, as the official program has them."""
    return {"STQ": counts.stq.stq, "AQ": counts.stq.aq, "SQ": counts.stq.sq}


def _build_stq_parts(counts: VipsegCounts, split: VipsegSplit) -> dict[str, Scores]:
    rows = counts.stq.ious
    defined = {"STQ": counts.defined.stq, "AQ": counts.defined.aq, "SQ": counts.defined.sq}
    parts: dict[str, Scores] = {"STQ without the crowd by listing": defined}
    return parts | {f"pixels of {name}": {"IoU": rows[n]} for n, name in enumerate(split.names)}


def _list_stq_warnings(result: VipsegResult) -> list[str]:
    ours, defined = result.total.stq, result.total.defined
    if ours.association == defined.association and ours.tubes == defined.tubes:
        return []
    return [
        "the official STQ takes the segment that a video lists first for a crowd, so the order of segments_info "
        f"counts: STQ {ours.stq:.6f} and AQ {ours.aq:.6f} instead of the definition's {defined.stq:.6f} and "
        f"{defined.aq:.6f} (STQ {ours.stq - defined.stq:+.6f})"
    ]


@dataclass(frozen=True)
class PanopticMeasure:
    """What one metric adds to a report."""

    scores: Callable[[VipsegCounts], Scores]
    parts: Callable[[VipsegCounts, VipsegSplit], Mapping[str, Scores]]
    warnings: Callable[[VipsegResult], list[str]]


_VPQ = PanopticMeasure(compute_vpq_scores, _build_vpq_parts, _list_vpq_warnings)
_STQ = PanopticMeasure(compute_stq_scores, _build_stq_parts, _list_stq_warnings)
