"""Video panoptic segmentation: VPQ and STQ, both from the pixels that true and predicted segments share.

VPQ: Kim et al., Video Panoptic Segmentation, CVPR 2020, with windows of k annotated frames as in VIPSeg (Miao et
al., CVPR 2022) and DEVA (Cheng et al., ICCV 2023). STQ: Weber et al., STEP, NeurIPS 2021 (data sets and benchmarks).
The rules at the edges are those of the official programs, which the golden test compares with.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Num

from masklet.core.result import VideoResult
from masklet.evaluate.panoptic.segments import ABSENT, VOID, VideoTable, WindowTubes, build_video_table

WHOLE = sys.maxsize  # as many frames as there are
WINDOWS = (1, 2, 4, 6, 8, 10, WHOLE)  # DEVA's; in annotated frames
MATCH = 0.5  # of a predicted and a true tube, strictly above; also the share of a tube that crowds and void excuse


def list_deva_windows(length: int, k: int) -> tuple[range, int]:
    """The windows of k frames, by their first frame, and k. DEVA: a video that is shorter is one window."""
    k = min(k, length)
    return range(length - k + 1), k


def list_vipseg_windows(length: int, k: int) -> tuple[range, int]:
    """The windows of k frames, by their first frame, and k. VIPSeg's own script: a shorter video has none."""
    return range(max(length - k + 1, 0)), k


@dataclass(frozen=True)
class PanopticCounts:
    """By category, what panoptic quality is made of; counts of parts of a split add up to those of the split."""

    iou: Float[np.ndarray, " c"]  # summed over the true positives
    tp: Int64[np.ndarray, " c"]
    fp: Int64[np.ndarray, " c"]
    fn: Int64[np.ndarray, " c"]

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        return PanopticCounts(self.iou + other.iou, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @staticmethod
    def none(categories: int) -> PanopticCounts:
        """The counts of no window: 0 for each of so many `categories`."""
        zero = np.zeros(categories, np.int64)
        return PanopticCounts(np.zeros(categories), zero, zero, zero)

    @property
    def counted(self) -> Bool[np.ndarray, " c"]:
        """The categories that occur, and so belong to the means."""
        return np.asarray(self.tp + self.fp + self.fn > 0)

    @property
    def pq(self) -> Float[np.ndarray, " c"]:
        """Panoptic quality, 0 to 1; 0 where a category does not occur."""
        return _compute_ratio(self.iou, self.tp + self.fp / 2 + self.fn / 2)

    @property
    def sq(self) -> Float[np.ndarray, " c"]:
        """Segmentation quality: mean IoU of the true positives, 0 without one."""
        return _compute_ratio(self.iou, self.tp)

    @property
    def rq(self) -> Float[np.ndarray, " c"]:
        """Recognition quality: F1 of the tubes."""
        return _compute_ratio(self.tp, self.tp + self.fp / 2 + self.fn / 2)

    def mean(self, rate: str, among: Bool[np.ndarray, " c"] | None = None) -> float | None:
        """The mean of "pq", "sq" or "rq" over the categories that occur, maybe of some only; None of none."""
        chosen = self.counted if among is None else self.counted & among
        return float(getattr(self, rate)[chosen].mean()) if chosen.any() else None


def _compute_ratio(a: Num[np.ndarray, " c"], b: Num[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
    return np.asarray(np.divide(a, b, out=np.zeros(len(a)), where=b > 0))


@dataclass(frozen=True)
class WindowOverlaps:
    """The tubes of every window, and how far each pair agrees."""

    truth: WindowTubes
    found: WindowTubes
    shared: Int64[np.ndarray, "w p"]  # pixels
    size: Int64[np.ndarray, "w n"]  # pixels of the predicted tubes
    iou: Float[np.ndarray, "w p"]  # 0 where the categories differ or the true tube is a crowd


def compute_window_overlaps(video: VideoTable, windows: tuple[range, int]) -> WindowOverlaps:
    """IoU of every pair of tubes in every window, whose union leaves out what the predicted one has on void."""
    starts, length = np.array(windows[0], np.int64), windows[1]
    truth, found = video.truth.window(starts, length), video.found.window(starts, length)
    shared = video.pixels[starts + length] - video.pixels[starts]
    g, p = video.pairs.T
    size = _sum_per_column(shared, p, found.category.shape[1])
    void = _sum_per_column(shared * (video.truth.ids[g] == VOID), p, size.shape[1])
    union = truth.area[:, g] + (size - void)[:, p] - shared
    same = (truth.category[:, g] == found.category[:, p]) & (truth.category[:, g] != ABSENT) & ~truth.crowd[:, g]
    iou = np.divide(shared, union, out=np.zeros(shared.shape), where=same & (union > 0))
    return WindowOverlaps(truth, found, shared, size, iou)


def _sum_per_column(
    values: Int64[np.ndarray, "w p"], columns: Int64[np.ndarray, " p"], n: int
) -> Int64[np.ndarray, "w n"]:
    """The pairs' values, summed over those of each of n columns."""
    total = np.zeros((n, len(values)), np.int64)
    np.add.at(total, columns, values.T)
    return total.T


def count_window_matches(video: VideoTable, windows: tuple[range, int], categories: int) -> PanopticCounts:
    """Matches the tubes of `video` in each of its `windows` (VPQ) and counts them by category, 0 to `categories` - 1.

    A true and a predicted tube of one category match above half an IoU. Crowds are never missed, and a predicted tube
    is not wrong when more than half of it lies on void and on the crowd of its category. `windows` are their first
    frames and their length in frames.
    """
    if not windows[0]:
        return PanopticCounts.none(categories)
    seen = compute_window_overlaps(video, windows)
    truth, found, (g, p) = seen.truth, seen.found, video.pairs.T
    w, pair = np.nonzero(seen.iou > MATCH)
    missed = (truth.category != ABSENT) & ~truth.crowd
    missed[w, g[pair]] = False
    crowd = np.take_along_axis(_find_last_crowds(truth, categories), found.category[:, p], 1)
    excused = _sum_per_column(seen.shared * ((video.truth.ids[g] == VOID) | (g == crowd)), p, found.category.shape[1])
    wrong = (found.category != ABSENT) & (2 * excused <= seen.size)
    wrong[w, p[pair]] = False
    matched = truth.category[w, g[pair]]
    return PanopticCounts(
        np.bincount(matched, seen.iou[w, pair], categories).astype(float),  # of nothing, it counts in integers
        np.bincount(matched, minlength=categories),
        np.bincount(found.category[wrong], minlength=categories),
        np.bincount(truth.category[missed], minlength=categories),
    )


def _find_last_crowds(truth: WindowTubes, categories: int) -> Int64[np.ndarray, "w c1"]:
    """The crowd that a window's lists name last, by category: its column, or -1. The last category is none."""
    last = np.full((len(truth.category), categories + 1), -1)
    w, column = np.nonzero(truth.crowd)
    order = np.argsort(truth.turn[w, column])
    last[w[order], truth.category[w, column][order]] = column[order]  # of several, the last stays
    return last


@dataclass(frozen=True)
class StqCounts:
    """What STQ is made of; counts of parts of a split add up to those of the split."""

    confusion: Int64[np.ndarray, "c1 c1"]  # pixels by true and by predicted category, none last
    association: float  # summed over the true tubes
    tubes: int

    def __add__(self, other: StqCounts) -> StqCounts:
        return StqCounts(
            self.confusion + other.confusion, self.association + other.association, self.tubes + other.tubes
        )

    @property
    def aq(self) -> float:
        """Association quality, 0 to 1: how well the things' pixels keep their ids."""
        return self.association / self.tubes if self.tubes else 0.0

    @property
    def ious(self) -> list[float | None]:
        """IoU of every category's pixels, void left out; of predicting none last, which is 0. None: does not occur."""
        valid = self.confusion[:-1]
        both = np.append(valid.diagonal(), 0)
        union = np.append(valid.sum(1), 0) + valid.sum(0) - both
        return [float(b / u) if u else None for b, u in zip(both, union, strict=True)]

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the categories that occur; where none is predicted, that counts as one."""
        ious = [iou for iou in self.ious if iou is not None]
        return sum(ious) / max(len(ious), 1)

    @property
    def stq(self) -> float:
        """Segmentation and tracking quality: the geometric mean of the two."""
        return math.sqrt(self.aq * self.sq)


FIRST = (0,)  # the column of the segment that is listed first


def count_stq(video: VideoTable, things: Bool[np.ndarray, " c"], crowds: Sequence[int] = FIRST) -> StqCounts:
    """The counts behind STQ of a `video`; `things` says of each category whether it is a thing.

    Pixels by category; for each true tube of a thing, the share of it that every predicted one has, times their IoU. A
    tube is an id with a category. The pixels of `crowds`, columns of true tubes, do not count for association. The
    official program for VIPSeg takes the segment that is listed first as one; the definition, none.
    """
    t, pair = np.nonzero(np.diff(video.pixels, axis=0))
    pixels, (g, p) = video.pixels[t + 1, pair] - video.pixels[t, pair], video.pairs[pair].T
    true, found = video.truth.category[t, g], video.found.category[t, p]  # ABSENT is the last index
    confusion = np.zeros((len(things) + 1, len(things) + 1), np.int64)
    np.add.at(confusion, (true, found), pixels)
    thing = np.append(things, False)
    kept = ~(np.isin(g, crowds) & thing[true])
    tube = np.where(thing[true], true * len(video.truth.ids) + g, ABSENT)
    other = np.where(thing[found], found * len(video.found.ids) + p, ABSENT)
    return StqCounts(confusion, *_compute_association(tube[kept], other[kept], pixels[kept]))


def _compute_association(
    true: Int64[np.ndarray, " n"], found: Int64[np.ndarray, " n"], pixels: Int64[np.ndarray, " n"]
) -> tuple[float, int]:
    """Sum over true tubes of sum over predicted ones of TPA * IoU / size, and how many true tubes there are."""
    keys, rows = np.unique(true, return_inverse=True)
    others, columns = np.unique(found, return_inverse=True)
    shared = np.zeros((len(keys), len(others)), np.int64)
    np.add.at(shared, (rows, columns), pixels)
    size, other_size = shared.sum(1), shared.sum(0)
    tpa, size = shared[keys != ABSENT][:, others != ABSENT], size[keys != ABSENT, None]
    union = size + other_size[others != ABSENT] - tpa
    return float((tpa * (tpa / union) / size).sum()), len(size)


def compute_vpq(truth: VideoResult, found: VideoResult) -> dict[int, float | None]:
    """VPQ of one video by the window's frames (the last is the whole video), 0 to 1; None where nothing is there.

    Ids need not agree, names must. Where masklets of one result overlap, a pixel goes to the smallest. Raises
    InputError where the videos differ in size or length.
    """
    video, names, _ = build_video_table(truth, found)
    return {k: count_window_matches(video, list_deva_windows(video.length, k), len(names)).mean("pq") for k in WINDOWS}


def compute_stq(truth: VideoResult, found: VideoResult) -> StqCounts:
    """STQ, AQ and SQ of one video, 0 to 1, as defined (without the official program's crowd; see `count_stq`).

    Counts of several videos with the same categories add up. Raises InputError where the videos differ.
    """
    video, _, things = build_video_table(truth, found)
    return count_stq(video, things, crowds=())


Means = Mapping[int, float | None]  # mean PQ by the window's frames


def compute_window_mean(means: Means, windows: Sequence[int]) -> float | None:
    """The plain mean over some windows; None where one of them is undefined.

    VIPSeg's tables (DVIS and others) show it of 1, 2, 4, 6; VIPSeg's script of 1, 2, 4, 6, 8; DEVA's script of all.
    """
    values = [means[k] for k in windows]
    return None if None in values else sum(v for v in values if v is not None) / len(values)


def compute_vpq_bar(means: Means) -> float | None:
    """DEVA's paper: the mean of two, VPQ of the whole video and the mean over the windows of 1 to 10 frames."""
    short, whole = compute_window_mean(means, WINDOWS[:-1]), means[WHOLE]
    return None if short is None or whole is None else (short + whole) / 2
