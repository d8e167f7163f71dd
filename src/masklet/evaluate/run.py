"""Every metric by its name, and a report as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from masklet.evaluate.burst import evaluate_burst, evaluate_burst_masks
from masklet.evaluate.davis import evaluate_davis16, evaluate_davis_semi, evaluate_davis_unsupervised
from masklet.evaluate.lvos import evaluate_lvos
from masklet.evaluate.mose import evaluate_mose_v1, evaluate_mose_v2
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.sav import evaluate_sav, evaluate_vos_benchmark
from masklet.evaluate.vis_metrics import (
    evaluate_ap_pool_lvis,
    evaluate_ap_pool_video,
    evaluate_class_agnostic,
    evaluate_ovis,
    evaluate_tube_boundary,
    evaluate_youtube_vis,
)
from masklet.evaluate.vps import evaluate_stq, evaluate_vipseg, evaluate_vpq

METRICS: Mapping[str, Callable[..., Report]] = {
    "ytvis": evaluate_youtube_vis,
    "ytvis-agnostic": evaluate_class_agnostic,
    "ovis": evaluate_ovis,
    "tube-boundary": evaluate_tube_boundary,
    "ap-pool": evaluate_ap_pool_video,
    "ap-pool-lvis": evaluate_ap_pool_lvis,
    "davis": evaluate_davis_semi,
    "davis-unsupervised": evaluate_davis_unsupervised,
    "davis16": evaluate_davis16,
    "sav": evaluate_sav,
    "vos-benchmark": evaluate_vos_benchmark,
    "lvos": evaluate_lvos,
    "mose": evaluate_mose_v1,
    "mosev2": evaluate_mose_v2,
    "vpq": evaluate_vpq,
    "stq": evaluate_stq,
    "vipseg": evaluate_vipseg,
    "burst": evaluate_burst,
    "burst-masks": evaluate_burst_masks,
}


class ReportTable(NamedTuple):
    """Numbers by row and column."""

    title: str
    rows: Mapping[str, Scores]

    @property
    def columns(self) -> Sequence[str]:
        """In the order in which rows bring them up."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


def build_report_tables(report: Report, worst: int) -> Iterator[ReportTable]:
    """The parts of a report, and of its videos and objects the `worst` ones by their first number."""
    if report.parts:
        yield ReportTable("parts", report.parts)
    for title, rows in (("videos", report.videos), ("objects", report.objects)):
        if worst and rows:
            yield ReportTable(
                f"{title}, worst first", dict(sorted(rows.items(), key=lambda row: rank_worst_first(row[1]))[:worst])
            )


def rank_worst_first(row: Scores) -> tuple[bool, float]:
    """Sorts the lowest first number to the front, undefined ones to the end."""
    first = next(iter(row.values()), None)
    return first is None, first or 0.0
