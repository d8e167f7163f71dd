"""Tracking: HOTA with its parts, OWTA, and average precision of tracks.

HOTA: Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021. OWTA: Liu et al.,
Opening up Open-World Tracking, CVPR 2022. TrackMAP: Dave et al., TAO, ECCV 2020. The rules at the edges are those of
the program TrackEval as BURST (Athar et al., WACV 2023) uses it, which the golden test compares with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.rle import compute_rle_iou

ALPHAS = np.arange(0.05, 0.99, 0.05)  # similarities from which on a pair counts as matched
IOUS = np.arange(0.5, 0.96, 0.05)  # of tracks, for their AP
RECALLS = np.linspace(0, 1, 101)
EPSILON = float(np.finfo(float).eps)

PerAlpha = Float[np.ndarray, " 19"]


@dataclass(frozen=True)
class TrackFrame:
    """One frame: the tracks on both sides (numbers from 0 on, each at most once) and how alike their shapes are."""

    truth: Int64[np.ndarray, " g"]
    found: Int64[np.ndarray, " p"]
    similarity: Float[np.ndarray, "g p"]  # 0 to 1


@dataclass(frozen=True)
class HotaCounts:
    """What HOTA is made of, for every alpha; counts of parts of a split add up to those of the split."""

    tp: PerAlpha
    fn: PerAlpha
    fp: PerAlpha
    similarity: PerAlpha  # summed over the true positives, as are the next three
    a: PerAlpha  # association accuracy, recall and precision of each one's pair of tracks
    re: PerAlpha
    pr: PerAlpha

    def __add__(self, other: HotaCounts) -> HotaCounts:
        return HotaCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @staticmethod
    def none() -> HotaCounts:
        """The counts of no frame: 0 for every alpha."""
        return HotaCounts(*(np.zeros(len(ALPHAS)) for _ in fields(HotaCounts)))

    @property
    def rates(self) -> dict[str, PerAlpha]:
        """HOTA and its relatives by name, 0 to 1, for every alpha."""
        tp, fn, fp, one = self.tp, self.fn, self.fp, np.maximum(1, self.tp)
        rates = {
            "DetA": tp / np.maximum(1, tp + fn + fp),
            "DetRe": tp / np.maximum(1, tp + fn),
            "DetPr": tp / np.maximum(1, tp + fp),
            "AssA": self.a / one,
            "AssRe": self.re / one,
            "AssPr": self.pr / one,
            "LocA": np.where(tp > 0, self.similarity / one, 1.0),
        }
        owta, hota = (np.sqrt(rates[name] * rates["AssA"]) for name in ("DetRe", "DetA"))
        return {"HOTA": hota, **rates, "OWTA": owta}

    @property
    def means(self) -> dict[str, float]:
        """The `rates` averaged over the alphas, 0 to 1, as they are reported."""
        return {name: float(rate.mean()) for name, rate in self.rates.items()}


def count_hota(frames: Sequence[TrackFrame]) -> HotaCounts:
    """Counts one video: in every frame shapes are paired so as to agree in similarity and in whole tracks."""
    g, p, similarity = _match_shapes(frames)
    seen = [np.bincount(np.concatenate([[], *ids]).astype(np.int64)) for ids in split_sides(frames)]
    matched = similarity[:, None] >= ALPHAS - EPSILON
    tp = matched.sum(0).astype(float)
    pairs, places = np.unique(np.stack([g, p]), axis=1, return_inverse=True)
    count = np.zeros((pairs.shape[1], len(ALPHAS)))
    np.add.at(count, places.ravel(), matched)
    true, found = seen[0][pairs[0], None], seen[1][pairs[1], None]
    shares = (count / (true + found - count), count / true, count / found)
    return HotaCounts(
        tp,
        seen[0].sum() - tp,
        seen[1].sum() - tp,
        similarity @ matched,
        *((count * share).sum(0) for share in shares),
    )


def split_sides(frames: Sequence[TrackFrame]) -> tuple[list[Int64[np.ndarray, " g"]], list[Int64[np.ndarray, " p"]]]:
    return [f.truth for f in frames], [f.found for f in frames]


def _match_shapes(
    frames: Sequence[TrackFrame],
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The pairs of every frame that maximise similarity times alignment, and their similarity."""
    alignment = _compute_alignment(frames)
    found = [(np.zeros((2, 0), np.int64), np.zeros(0))]
    for f in frames:
        rows, cols = linear_sum_assignment(-(alignment[np.ix_(f.truth, f.found)] * f.similarity))
        found.append((np.stack([f.truth[rows], f.found[cols]]), f.similarity[rows, cols]))
    pairs = np.concatenate([pair for pair, _ in found], axis=1)
    return pairs[0], pairs[1], np.concatenate([similarity for _, similarity in found])


def _compute_alignment(frames: Sequence[TrackFrame]) -> Float[np.ndarray, "g p"]:
    """How well every two tracks go together: their Jaccard index, a frame counting as the similarity there over
    all similarity that the two shapes have."""
    shape = [max([int(ids.max()) + 1 for ids in side if len(ids)], default=0) for side in split_sides(frames)]
    potential, true, found = np.zeros(shape), np.zeros((shape[0], 1)), np.zeros((1, shape[1]))
    for f in frames:
        all_of = f.similarity.sum(0)[None] + f.similarity.sum(1)[:, None] - f.similarity
        potential[np.ix_(f.truth, f.found)] += np.divide(
            f.similarity, all_of, out=np.zeros_like(f.similarity), where=all_of > EPSILON
        )
        true[f.truth] += 1
        found[0, f.found] += 1
    return potential / np.maximum(true + found - potential, 1)


@dataclass(frozen=True)
class TrackMatches:
    """What one video says of one category's tracks, the surest first; for every IoU."""

    scores: Float[np.ndarray, " d"]
    tp: Bool[np.ndarray, "10 d"]
    fp: Bool[np.ndarray, "10 d"]
    positives: int  # true tracks


def match_tracks(
    iou: Float[np.ndarray, "d g"],
    scores: Float[np.ndarray, " d"],
    exhaustive: bool = True,
    fleeting: Sequence[int] = (),
) -> TrackMatches:
    """Gives every predicted track, by falling `scores`, the free true one of highest `iou`; of equal ones the last.

    Unless the category's labels are `exhaustive`, what matches nothing is no false positive. `fleeting` predicted
    tracks, rows of `iou`, leave the true one free (BURST's program does that to id 0).
    """
    order = np.argsort(-scores, kind="stable")
    tp = np.zeros((len(IOUS), len(scores)), bool)
    for row, least in enumerate(IOUS):
        taken = np.zeros(iou.shape[1], bool)
        for place, d in enumerate(order):
            best, match = min(least, 1 - 1e-10), -1
            for g in np.flatnonzero(~taken & (iou[d] >= best - EPSILON)):
                if iou[d, g] >= best - EPSILON:
                    best, match = iou[d, g], int(g)
            tp[row, place] = match >= 0
            if match >= 0 and d not in fleeting:
                taken[match] = True
    return TrackMatches(scores[order], tp, ~tp & exhaustive, iou.shape[1])


def compute_track_ap(videos: Sequence[TrackMatches]) -> Float[np.ndarray, " 10"] | None:
    """Average precision of one category's tracks at every IoU; None without a true track."""
    positives = sum(v.positives for v in videos)
    if not positives:
        return None
    order = np.argsort(-np.concatenate([v.scores for v in videos]), kind="stable")
    tp, fp = (np.concatenate(rows, 1)[:, order].cumsum(1) for rows in zip(*((v.tp, v.fp) for v in videos), strict=True))
    precision = tp / (tp + fp + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(best, ((0, 0), (0, 1)))
    at = [np.searchsorted(row / positives, RECALLS) for row in tp]
    return np.array([row[places].mean() for row, places in zip(padded, at, strict=True)])


def compute_hota(truth: VideoResult, found: VideoResult) -> HotaCounts:
    """HOTA, DetA, AssA, OWTA of one video by mask IoU, whatever things are called; see `rates` and `means`.

    Counts of several videos add up. Raises InputError where the videos differ in size or length.
    """
    return count_hota(compare_tracks(truth, found))


def compare_tracks(truth: VideoResult, found: VideoResult) -> list[TrackFrame]:
    """The masklets of both sides in every frame, numbered by their places in the results, with their masks' IoU.

    Raises InputError where the videos differ in size or length.
    """
    if (truth.size, truth.length) != (found.size, found.length):
        raise InputError(
            f"{truth.name} ({truth.length} frames of {truth.size}) and {found.name} ({found.length} of {found.size}) "
            "are not the same video; compare results of one"
        )
    frames = []
    for t in range(truth.length):
        rows = [n for n, m in enumerate(truth.masklets) if t in m.sightings]
        cols = [n for n, m in enumerate(found.masklets) if t in m.sightings]
        iou = compute_rle_iou(
            [truth.masklets[n].sightings[t].mask for n in rows], [found.masklets[n].sightings[t].mask for n in cols]
        )
        frames.append(TrackFrame(np.array(rows, np.int64), np.array(cols, np.int64), iou))
    return frames
