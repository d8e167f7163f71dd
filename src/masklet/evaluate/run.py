"""Every metric by its name, and a report as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from masklet.evaluate.burst import burst, burst_masks
from masklet.evaluate.davis import davis16, davis_semi, davis_unsupervised
from masklet.evaluate.lvos import lvos
from masklet.evaluate.mose import mose_v1, mose_v2
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.sav import sav, vos_benchmark
from masklet.evaluate.vis_metrics import (
    ap_pool_lvis,
    ap_pool_video,
    ovis,
    tube_boundary,
    youtube_vis,
    youtube_vis_class_agnostic,
)
from masklet.evaluate.vps import stq, vipseg, vpq

METRICS: Mapping[str, Callable[..., Report]] = {
    "ytvis": youtube_vis,
    "ytvis-agnostic": youtube_vis_class_agnostic,
    "ovis": ovis,
    "tube-boundary": tube_boundary,
    "ap-pool": ap_pool_video,
    "ap-pool-lvis": ap_pool_lvis,
    "davis": davis_semi,
    "davis-unsupervised": davis_unsupervised,
    "davis16": davis16,
    "sav": sav,
    "vos-benchmark": vos_benchmark,
    "lvos": lvos,
    "mose": mose_v1,
    "mosev2": mose_v2,
    "vpq": vpq,
    "stq": stq,
    "vipseg": vipseg,
    "burst": burst,
    "burst-masks": burst_masks,
}


class Table(NamedTuple):
    """Numbers by row and column."""

    title: str
    rows: Mapping[str, Scores]

    @property
    def columns(self) -> Sequence[str]:
        """In the order in which rows bring them up."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


def tables(report: Report, worst: int) -> Iterator[Table]:
    """The parts of a report, and of its videos and objects the `worst` ones by their first number."""
    if report.parts:
        yield Table("parts", report.parts)
    for title, rows in (("videos", report.videos), ("objects", report.objects)):
        if worst and rows:
            yield Table(f"{title}, worst first", dict(sorted(rows.items(), key=lambda row: badness(row[1]))[:worst]))


def badness(row: Scores) -> tuple[bool, float]:
    """Sorts the lowest first number to the front, undefined ones to the end."""
    first = next(iter(row.values()), None)
    return first is None, first or 0.0
