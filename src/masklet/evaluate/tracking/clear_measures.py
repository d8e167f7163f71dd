"""Tracking by events and by identities: CLEAR MOT with its identity switches, and IDF1.

CLEAR: Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance, EURASIP JIVP 2008; mostly tracked
and lost: Wu and Nevatia, CVPR 2006. IDF1: Ristani et al., ECCV 2016 workshops. The rules at the edges are those of the
program TrackEval, with which `tests/evaluate/test_clear.py` compares where it is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment

from masklet.evaluate.tracking.measures import EPSILON, TrackFrame, split_sides

Pairs = Int64[np.ndarray, "_ 2"]  # a frame's matches: true track, predicted track
LEAST = 0.5  # similarity from which on two shapes may be one object
KEPT = 1000.0  # what a pair of the frame before is worth beside any similarity
MOSTLY, HARDLY = 0.8, 0.2  # shares of its frames in which a track is found: mostly tracked, mostly lost


@dataclass(frozen=True)
class IdentitySwitch:
    """A true track that another predicted track takes over."""

    frame: int
    truth: int  # its track, as the frames number it
    before: int  # the predicted track that had it last
    after: int  # the one that has it from this frame on


@dataclass(frozen=True)
class ClearCounts:
    """What CLEAR and IDF1 are made of; counts of videos add up to those of the set."""

    tp: int
    fp: int
    fn: int
    switches: int
    fragments: int  # how often a track that was found is found again after a gap
    similarity: float  # summed over the true positives
    mostly_tracked: int
    partly_tracked: int
    mostly_lost: int
    id_tp: int
    id_fp: int
    id_fn: int

    def __add__(self, other: ClearCounts) -> ClearCounts:
        return ClearCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @staticmethod
    def none() -> ClearCounts:
        """The counts of no frame, from which a sum starts."""
        return ClearCounts(*(0 for _ in fields(ClearCounts)))

    @property
    def scores(self) -> dict[str, float]:
        """The rates (0 to 1, MOTA and sMOTA below 0 too) and the counts by the names that the field gives them."""
        true, tracks = max(1, self.tp + self.fn), max(1, self.mostly_tracked + self.partly_tracked + self.mostly_lost)
        return {
            "MOTA": (self.tp - self.fp - self.switches) / true,
            "sMOTA": (self.similarity - self.fp - self.switches) / true,
            "MOTP": self.similarity / max(1, self.tp),
            "IDF1": 2 * self.id_tp / max(1, 2 * self.id_tp + self.id_fp + self.id_fn),
            "IDR": self.id_tp / max(1, self.id_tp + self.id_fn),
            "IDP": self.id_tp / max(1, self.id_tp + self.id_fp),
            "MT": self.mostly_tracked / tracks,
            "ML": self.mostly_lost / tracks,
            "switches": self.switches,
            "fragments": self.fragments,
            "FP": self.fp,
            "FN": self.fn,
        }


def match_clear_frames(frames: Sequence[TrackFrame], least: float = LEAST) -> list[Pairs]:
    """Pairs of true and predicted tracks in every frame: those of the frame before first, then by similarity.

    `least` is the similarity from which on two shapes may be one. Frames with nothing on one side pass as if they were
    not there.
    """
    found, last = [], dict[int, int]()
    for frame in frames:
        if not len(frame.truth) or not len(frame.found):
            found.append(np.zeros((0, 2), np.int64))
            continue
        worth = np.where(frame.similarity < least - EPSILON, 0, frame.similarity + KEPT * _find_kept(frame, last))
        rows, cols = linear_sum_assignment(-worth)
        real = worth[rows, cols] > EPSILON
        pairs = np.stack([frame.truth[rows[real]], frame.found[cols[real]]], 1)
        last = dict(pairs.tolist())
        found.append(pairs)
    return found


def _find_kept(frame: TrackFrame, last: dict[int, int]) -> Float[np.ndarray, "g p"]:
    before = np.array([last.get(g, -1) for g in frame.truth.tolist()])
    return np.asarray(before[:, None] == frame.found[None], float)


def list_identity_switches(matched: Sequence[Pairs]) -> list[IdentitySwitch]:
    """Where a true track is found by another predicted track than the last one that found it, in order of frames."""
    last, found = dict[int, int](), list[IdentitySwitch]()
    for t, pairs in enumerate(matched):
        for truth, after in pairs.tolist():
            before = last.get(truth, after)
            if before != after:
                found.append(IdentitySwitch(t, truth, before, after))
            last[truth] = after
    return found


def count_clear(frames: Sequence[TrackFrame], least: float = LEAST) -> tuple[ClearCounts, list[IdentitySwitch]]:
    """Counts one video for CLEAR and IDF1, and lists its identity switches.

    Args:
        frames: tracks on both sides, numbered from 0 on, and how alike their shapes are.
        least: similarity from which on two shapes may be one object.

    >>> import numpy as np
    >>> seen = [TrackFrame(np.array([0]), np.array([t // 2]), np.array([[0.8]])) for t in range(4)]
    >>> counts, switches = count_clear(seen)
    >>> counts.switches, round(counts.scores["MOTA"], 2), switches[0].frame
    (1, 0.75, 2)
    """
    matched = match_clear_frames(frames, least)
    switches = list_identity_switches(matched)
    similarity = sum(_sum_similarity(frame, pairs) for frame, pairs in zip(frames, matched, strict=True))
    tp = sum(map(len, matched))
    true, predicted = (sum(len(side) for side in sides) for sides in split_sides(frames))
    shares, fragments = _follow_tracks(frames, matched)
    mostly, lost = int((shares > MOSTLY).sum()), int((shares < HARDLY).sum())
    id_tp = count_identity_matches(frames, least)
    return (
        ClearCounts(
            tp,
            predicted - tp,
            true - tp,
            len(switches),
            fragments,
            similarity,
            mostly,
            len(shares) - mostly - lost,
            lost,
            id_tp,
            predicted - id_tp,
            true - id_tp,
        ),
        switches,
    )


def _sum_similarity(frame: TrackFrame, pairs: Pairs) -> float:
    rows, cols = ({int(n): k for k, n in enumerate(side)} for side in (frame.truth, frame.found))
    return float(sum(frame.similarity[rows[g], cols[p]] for g, p in pairs.tolist()))


def _follow_tracks(frames: Sequence[TrackFrame], matched: Sequence[Pairs]) -> tuple[Float[np.ndarray, " g"], int]:
    """The share of its frames in which each true track is found, and how often one is found again after a gap.

    A frame with nothing on one side does not end a stretch, as in TrackEval.
    """
    there, found, starts = dict[int, int](), dict[int, int](), dict[int, int]()
    before: set[int] = set()
    for frame, pairs in zip(frames, matched, strict=True):
        for g in frame.truth.tolist():
            there[g] = there.get(g, 0) + 1
        now = {int(g) for g in pairs[:, 0]}
        for g in now:
            found[g] = found.get(g, 0) + 1
            starts[g] = starts.get(g, 0) + (g not in before)
        before = now if len(frame.truth) and len(frame.found) else before
    shares = np.array([found.get(g, 0) / count for g, count in there.items()], float)
    return shares, sum(count - 1 for count in starts.values())


def count_identity_matches(frames: Sequence[TrackFrame], least: float = LEAST) -> int:
    """Frames in which a true track is found by the one predicted track that is given to it for the whole video.

    Tracks are given to tracks one to one so that most frames agree (Ristani et al.).
    """
    sides = [np.concatenate([np.zeros(0, np.int64), *side]) for side in split_sides(frames)]
    if not all(map(len, sides)):
        return 0
    together = np.zeros([int(side.max()) + 1 for side in sides], np.int64)
    for frame in frames:
        together[np.ix_(frame.truth, frame.found)] += frame.similarity >= least - EPSILON
    rows, cols = linear_sum_assignment(-together)
    return int(together[rows, cols].sum())
