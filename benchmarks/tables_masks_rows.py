"""The rows of the tables of SAM2BMP, SAM2Long and DEVA: the papers' figures, and what is run for each.

SAM2Long: Tables 5 to 8 of arXiv 2410.16268v1, SA-V val, SAM 2 Large. DEVA: Tables 5 and 6, VIPSeg, Mask2Former R50.
SAM2BMP: Tables 4 and 5, YouTube-VIS 2021, R50 and SAM 2 Large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tables_masks_clips import Answer, Scene, Scores, automatic, panoptic, prompted
from tables_masks_parts import (
    Bench,
    ByDetection,
    Carry,
    Counted,
    Noted,
    ShortTrack,
    Unaligned,
    asked,
    flown,
    given,
    still,
    watched,
)

from masklet.core.result import VideoResult
from masklet.models.nano.propagator import Nano
from masklet.models.sam2.memory import ReliableFrames
from masklet.systems import sam2bmp
from masklet.systems.deva import online as deva
from masklet.systems.sam2bmp import Sam2Bmp
from masklet.systems.track import Track

Run = Callable[[Bench, Scene], tuple[VideoResult, Noted]]


@dataclass(frozen=True)
class Row:
    """A row of a paper's table."""

    told: str
    paper: float | None  # the headline figure; None: a row that the paper does not have
    run: Run | None  # None: not run
    against: str = ""  # the row whose difference the paper speaks of
    figures: str = ""  # more of the paper's figures, or why it was not run


@dataclass(frozen=True)
class Extent:
    """The generated clips of a seed."""

    level: str  # of occlusion
    videos: int
    frames: int


@dataclass(frozen=True)
class Table:
    """Tables of a paper that share rows."""

    titles: Mapping[str, tuple[str, ...]]  # title: its rows
    rows: Mapping[str, Row]
    headline: str  # the paper's measure
    measure: Callable[[Sequence[Answer], Path], Scores]
    compared: tuple[str, ...]  # our measures whose change is compared with the headline's
    shown: tuple[str, ...]  # further ones
    extent: Extent
    note: str  # what the columns are

    def change(self, name: str, against: str) -> float | None:
        """The paper's, from one row to another; None where it does not have both."""
        rows = [self.rows[n].paper for n in (name, against) if n]
        return None if len(rows) < 2 or None in rows else rows[0] - rows[1]


def answered(bench: Bench, scene: Scene, run: Run) -> Answer:
    """A row's answer to a scene."""
    found, noted = run(bench, scene)
    return Answer.of(scene, found, noted)


# -- SAM2BMP

NONE = {"backward_window": 0, "key_ratio": 0.0, "low_conf": 1.01, "twin_iou": 1.0}  # all components off
CONF = 0.95  # the paper's, for Mask2Former


def bmp(conf: float = CONF, off: Iterable[str] = ()) -> Run:
    """SAM2BMP with some components off."""

    def run(bench: Bench, scene: Scene) -> tuple[VideoResult, Noted]:
        finder = bench.finder(scene)
        at = asked(finder, sam2bmp.Sam2BmpSettings)
        at = replace(at, conf=shifted(conf, at.conf), **{name: NONE[name] for name in off})
        return watched(Sam2Bmp(finder, bench.nano(), at), scene), {}

    return run


def shifted(conf: float, own: float) -> float:
    """A threshold of the paper's for scores whose default is `own`: as far from it in log-odds as from 0.95.

    >>> shifted(0.95, 0.95), round(shifted(0.97, 0.5), 3)
    (0.95, 0.631)
    """
    if conf == CONF:
        return own
    at = logit(conf) - logit(CONF) + logit(own)
    return 1 / (1 + math.exp(-at))


def logit(p: float) -> float:
    """Log-odds."""
    return math.log(p / (1 - p))


BMP = {
    "none": Row("neither", 43.2, bmp(off=NONE)),
    "backward": Row("+ backward completion", 48.5, bmp(off=("key_ratio", "low_conf", "twin_iou")), "none"),
    "ratio": Row("+ key-frame ratio filter", 51.2, bmp(off=("low_conf", "twin_iou")), "backward"),
    "low": Row("+ low-confidence proposals", 52.3, bmp(off=("twin_iou",)), "ratio"),
    "all": Row("+ tracklet NMS", 52.7, bmp(), "low"),
    "0.60": Row("conf 0.60", 49.9, bmp(0.60), "all"),
    "0.80": Row("conf 0.80", 51.0, bmp(0.80), "all"),
    "0.93": Row("conf 0.93", 51.9, bmp(0.93), "all"),
    "0.97": Row("conf 0.97", 52.0, bmp(0.97), "all"),
}

# -- SAM2Long


def long(
    paths: int = 3, quality: float = 0.3, uncertainty: float = 2.0, weights: tuple[float, float] = (0.95, 1.05)
) -> Run:
    """SAM2Long with the paper's numbers, but for some."""

    def run(bench: Bench, scene: Scene) -> tuple[VideoResult, Noted]:
        tree = Counted(bench.nano(ReliableFrames(quality, weights=weights)), paths, uncertainty)
        return watched(Track(tree, given(scene)), scene), tree.noted

    return run


def sam2(bench: Bench, scene: Scene) -> tuple[VideoResult, Noted]:
    """The plain memory."""
    return watched(Track(bench.nano(), given(scene)), scene), {}


LONG = {
    "sam2": Row("P = 1, to the paper the same as SAM 2: the plain memory", 76.3, sam2),
    "P1": Row("P = 1 as released: reliable frames, modulation, no tree", None, long(paths=1), "sam2"),
    "P2": Row("P = 2", 80.1, long(paths=2), "sam2"),
    "P3": Row("P = 3", 80.8, long(), "P2"),
    "P4": Row("P = 4", 80.7, long(paths=4), "P3"),
    "iou 0": Row("threshold of IoU 0", 80.0, long(quality=0.0), "P3"),
    "iou 0.7": Row("threshold of IoU 0.7", 80.2, long(quality=0.7), "P3"),
    "iou 0.9": Row("threshold of IoU 0.9", 77.8, long(quality=0.9), "P3"),
    "unc 0.5": Row("threshold of uncertainty 0.5", 80.4, long(uncertainty=0.5), "P3"),
    "unc 5": Row("threshold of uncertainty 5", 80.5, long(uncertainty=5.0), "P3"),
    "mod 1": Row("modulation 1, 1", 80.2, long(weights=(1.0, 1.0)), "P3"),
    "mod 0.9": Row("modulation 0.9, 1.1", 80.5, long(weights=(0.9, 1.1)), "P3"),
}

# -- DEVA


def votes(kind: type[Nano] = Nano, **settings: Any) -> Run:
    """DEVA as published, forward only, but for some settings."""

    def run(bench: Bench, scene: Scene) -> tuple[VideoResult, Noted]:
        finder = bench.finder(scene)
        at = replace(asked(finder, deva.DevaSettings), backward=False, **settings)
        return watched(deva.Deva(finder, bench.nano(kind=kind), at), scene), {}

    return run


def by_detection(carry: Carry) -> Run:
    """Tracking by detection."""
    return lambda bench, scene: (watched(ByDetection(bench.finder(scene), carry, bench), scene), {})


NO_QUERIES = "not run: it needs a segmenter with queries; the tables of DVIS have it (MinVIS)"
DEVA = {
    "n1": Row("n = 1", 36.4, votes(clip=1), "n3", "STQ 41.1"),
    "n2": Row("n = 2", 36.3, votes(clip=2), "n3", "STQ 39.0"),
    "n3": Row("n = 3, every 5 frames", 38.3, votes(), "", "STQ 41.5"),
    "n4": Row("n = 4", 38.5, votes(clip=4), "n3", "STQ 42.3"),
    "n5": Row("n = 5", 38.3, votes(clip=5), "n3", "STQ 42.8"),
    "every 3": Row("every 3 frames", 38.4, votes(every=3), "n3", "STQ 42.6"),
    "every 7": Row("every 7 frames", 35.7, votes(every=7), "n3", "STQ 40.5"),
    "unaligned": Row("no spatial alignment", 32.8, votes(Unaligned), "n3", "STQ 33.7"),
    "iou": Row("mask IoU", 27.6, by_detection(still), "n1", "STQ 34.5"),
    "flow": Row("mask IoU + flow", 28.6, by_detection(flown), "n1", "STQ 37.0"),
    "query": Row("query association", 28.0, None, "n1", NO_QUERIES),
    "short": Row("ShortTrack: a memory of one frame", 28.2, votes(ShortTrack, clip=1), "n1", "STQ 37.2"),
    "trust": Row("TrustImageSeg: what is not detected goes", 33.2, votes(clip=1, max_missed=0), "n1", "STQ 37.9"),
}

TABLES: Mapping[str, Table] = {
    "sam2bmp": Table(
        {
            "SAM2BMP, Table 5: components": ("none", "backward", "ratio", "low", "all"),
            "SAM2BMP, Table 4: threshold of confidence (0.95)": ("0.60", "0.80", "0.93", "all", "0.97"),
        },
        BMP,
        "AP",
        automatic,
        ("AP",),
        ("switches",),
        Extent("moderate", 6, 20),
        "AP: class-agnostic; switches: changes of id for 100 objects.",
    ),
    "sam2long": Table(
        {
            "SAM2Long, Table 5: pathways": ("sam2", "P1", "P2", "P3", "P4"),
            "SAM2Long, Table 6: threshold of predicted IoU": ("iou 0", "P3", "iou 0.7", "iou 0.9"),
            "SAM2Long, Table 7: threshold of uncertainty": ("unc 0.5", "P3", "unc 5"),
            "SAM2Long, Table 8: modulation": ("mod 1", "P3", "mod 0.9"),
        },
        LONG,
        "J&F",
        prompted,
        ("J&F",),
        ("apart", "reliable"),
        Extent("heavy", 6, 30),
        "All but P as published: 3 pathways, thresholds of IoU 0.3 and of uncertainty 2, modulation 0.95 to 1.05. "
        "Of all objects' frames, in percent: apart, in how many pathways differ; reliable, how many pass the threshold "
        "of IoU and show the object.",
    ),
    "deva": Table(
        {
            "DEVA, Table 5: clip size": ("n1", "n2", "n3", "n4", "n5"),
            "DEVA, Table 5: how often it merges, alignment": ("every 3", "n3", "every 7", "unaligned"),
            "DEVA, Table 6: temporal schemes, online (n = 1)": ("iou", "flow", "query", "short", "trust", "n1"),
        },
        DEVA,
        "VPQ",
        panoptic,
        ("VPQ", "AP"),
        ("STQ", "switches"),
        Extent("moderate", 6, 25),
        "VPQ: the mean of the whole clip's and that of windows of 1 to 10 frames (DEVA's bar), objects alone; AP: "
        "class-agnostic; switches: changes of id for 100 objects.",
    ),
}
