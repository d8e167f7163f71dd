"""VPQ and STQ of files in VIPSeg's layout (see `vipseg`), with the means of VIPSeg, DEVA and DVIS, as reports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from masklet.core.protocols import Watch
from masklet.evaluate.panoptic import WHOLE, WINDOWS, PanopticCounts, mean_of, vpq_bar
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.vipseg import Counts, Result, Split, count
from masklet.evaluate.workers import silent

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


def vpq(gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = silent) -> Report:
    """Video panoptic quality for all k at once.

    Args:
        gt: a folder with panoptic_gt.json and panomasksRGB.
        pred: a folder with pred.json and pan_pred.
        videos: the names of those to score; all of them without it.
        watch: is told ("vpq", frames done, frames in all, true objects).

    Raises:
        InputError: a file is not of its form, or a video or frame has no prediction.
    """
    return _report("vpq", VPQ, count(gt, pred, videos=videos, watch=watch, name="vpq"), [_VPQ])


def stq(gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = silent) -> Report:
    """Segmentation and tracking quality, with AQ and SQ; arguments and errors as in `vpq`."""
    return _report("stq", STQ, count(gt, pred, videos=videos, watch=watch, name="stq"), [_STQ])


def vipseg(gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = silent) -> Report:
    """VPQ and STQ in one pass; arguments and errors as in `vpq`."""
    return _report("vipseg", f"{VPQ}. {STQ}", count(gt, pred, videos=videos, watch=watch), [_VPQ, _STQ])


def _report(metric: str, protocol: str, result: Result, measures: Sequence[Measure]) -> Report:
    total, split = result.total, result.split
    notes = [f"{text} ({n})" for text, n in split.notes.items() if n]
    return Report(
        metric,
        protocol,
        _joined(measure.scores(total) for measure in measures),
        {name: row for measure in measures for name, row in measure.parts(total, split).items()},
        {name: _joined(measure.scores(counts) for measure in measures) for name, counts in result.videos.items()},
        result.objects,
        tuple(notes + [warning for measure in measures for warning in measure.warnings(result)]),
        split.inputs,
    )


def _joined(rows: Iterable[Scores]) -> Scores:
    return {name: value for row in rows for name, value in row.items()}


def _percent(counts: Mapping[int, PanopticCounts], among: Bool[np.ndarray, " c"] | None) -> dict[int, float | None]:
    means = {k: c.mean("pq", among) for k, c in counts.items()}
    return {k: None if mean is None else 100 * mean for k, mean in means.items()}


def vpq_scores(counts: Counts, among: Bool[np.ndarray, " c"] | None = None) -> Scores:
    """VPQ, 0 to 100, with DEVA's windows: every k, DEVA's two means and that of VIPSeg's tables; maybe of some
    categories only. None where none of them occurs."""
    means = _percent(counts.deva, among)
    rows = {"bar": vpq_bar(means), "mean of 7": mean_of(means, WINDOWS), "mean 1,2,4,6": mean_of(means, TABLE)}
    return {f"VPQ {name}": mean for name, mean in rows.items()} | {NAMES[k]: means[k] for k in WINDOWS}


def vipseg_scores(counts: Counts, among: Bool[np.ndarray, " c"] | None = None) -> Scores:
    """VPQ, 0 to 100, with the windows of VIPSeg's own script: its k, the mean that it prints, that of the tables."""
    means = _percent(counts.vipseg, among)
    rows = {"VPQ mean 1,2,4,6,8": mean_of(means, SCRIPT), "VPQ mean 1,2,4,6": mean_of(means, TABLE)}
    return rows | {NAMES[k]: means[k] for k in SCRIPT}


def _vpq_parts(counts: Counts, split: Split) -> dict[str, Scores]:
    groups = {"": None, "things": split.things, "stuff": ~split.things}
    parts = {name: vpq_scores(counts, among) for name, among in groups.items() if name}
    parts |= {f"VIPSeg {name}".rstrip(): vipseg_scores(counts, among) for name, among in groups.items()}
    for k, c in counts.deva.items():
        rates = {rate.upper(): c.mean(rate) for rate in ("pq", "sq", "rq")}
        shown = {rate: None if v is None else 100 * v for rate, v in rates.items()}
        parts[NAMES[k]] = shown | {"categories": int(c.counted.sum())}
    return parts | {f"category {name}": _category(counts, n) for n, name in enumerate(split.names)}


def _category(counts: Counts, n: int) -> Scores:
    row: dict[str, float | None] = {}
    for k, c in counts.deva.items():
        row[NAMES[k]] = 100 * float(c.pq[n]) if c.counted[n] else None
        row |= {f"{name.upper()}{NAMES[k][3:]}": int(getattr(c, name)[n]) for name in ("tp", "fp", "fn")}
    return row


def _vpq_warnings(result: Result) -> list[str]:
    short = [f"{n} than {k}" for k, n in result.total.short.items() if n]
    if not short:
        return []
    return [
        f"of {len(result.videos)} videos have fewer frames: {', '.join(short)}; such a video is one window of VPQ^k "
        "here and none in the parts named VIPSeg"
    ]


def stq_scores(counts: Counts) -> Scores:
    """STQ, AQ and SQ, 0 to 1, as the official program has them."""
    return {"STQ": counts.stq.stq, "AQ": counts.stq.aq, "SQ": counts.stq.sq}


def _stq_parts(counts: Counts, split: Split) -> dict[str, Scores]:
    rows = counts.stq.ious
    defined = {"STQ": counts.defined.stq, "AQ": counts.defined.aq, "SQ": counts.defined.sq}
    parts: dict[str, Scores] = {"STQ without the crowd by listing": defined}
    return parts | {f"pixels of {name}": {"IoU": rows[n]} for n, name in enumerate(split.names)}


def _stq_warnings(result: Result) -> list[str]:
    ours, defined = result.total.stq, result.total.defined
    if ours.association == defined.association and ours.tubes == defined.tubes:
        return []
    return [
        "the official STQ takes the segment that a video lists first for a crowd, so the order of segments_info "
        f"counts: STQ {ours.stq:.6f} and AQ {ours.aq:.6f} instead of the definition's {defined.stq:.6f} and "
        f"{defined.aq:.6f} (STQ {ours.stq - defined.stq:+.6f})"
    ]


@dataclass(frozen=True)
class Measure:
    """What one metric adds to a report."""

    scores: Callable[[Counts], Scores]
    parts: Callable[[Counts, Split], Mapping[str, Scores]]
    warnings: Callable[[Result], list[str]]


_VPQ = Measure(vpq_scores, _vpq_parts, _vpq_warnings)
_STQ = Measure(stq_scores, _stq_parts, _stq_warnings)
