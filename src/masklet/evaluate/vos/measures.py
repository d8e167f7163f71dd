"""Video object segmentation as DAVIS scores it: region similarity J, boundary accuracy F, their statistics.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016;
the rules at the edges are those of the program davis2017-evaluation, which the golden test compares with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from masklet.core.result import VideoResult
from masklet.core.rle import Rle, compute_rle_iou
from masklet.core.tracks import Masklet
from masklet.evaluate.vos.contours import (
    build_tolerance_disk,
    compute_boundary_f,
    compute_contour_scores,
    extract_contour,
)
from masklet.evaluate.vos.label_maps import VOID, LabelFrame, LabelMap, Mask, compute_joint_window, measure_box_gap
from masklet.io.formats.davis import paint_label_image as labels_of

RECALL = 0.5  # a frame counts as found above this
JF = tuple[float, float]  # J and F
T = TypeVar("T")


def compute_jaccard(prediction: Mask, truth: Mask) -> float:
    """J of one frame: intersection over union, 0 to 1. Two empty masks have 1 (in association: 0)."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def score_label_pair(found: LabelFrame, proposal: int, truth: LabelFrame, object: int) -> JF:
    """J and F, 0 to 1, of the id `proposal` in the prediction `found` against `object` in `truth`."""
    disk = build_tolerance_disk(truth.size)
    ours, theirs = found.boxes.get(proposal), truth.boxes.get(object)
    if ours is None and theirs is None:
        return 1.0, 1.0
    if ours is not None and theirs is not None and measure_box_gap(ours, theirs) > disk.reach:
        return 0.0, 0.0
    window = compute_joint_window(ours, theirs, truth.size)
    here, there = found.labels[window] == proposal, truth.labels[window] == object
    return compute_jaccard(here, there), compute_contour_scores(extract_contour(here), extract_contour(there), [disk])[
        0
    ]


def score_frame_objects(found: LabelFrame, truth: LabelFrame, ids: Iterable[int]) -> dict[int, JF]:
    """J and F of the objects `ids` of one frame of `truth`, each from the pixels of the same id in `found`."""
    return {i: score_label_pair(found, i, truth, i) for i in ids}


Quarters = Callable[[int], tuple[slice, slice]]  # of a number of frames: those of the first and the last quarter


def compute_quarters(frames: int) -> tuple[slice, slice]:
    """DAVIS's first and last quarter; they share their end frames, and a half is rounded up."""
    ends = np.round(np.linspace(1, frames, 5) + 1e-10).astype(int)
    return slice(0, int(ends[1])), slice(int(ends[3]) - 1, int(ends[4]))


@dataclass(frozen=True)
class DavisStatistics:
    """DAVIS's statistics of one measure over one object's frames."""

    mean: float
    recall: float  # share of frames above 0.5
    decay: float  # mean of the first quarter minus mean of the last

    @staticmethod
    def of(values: Sequence[float] | Float[np.ndarray, " t"], quarters: Quarters = compute_quarters) -> DavisStatistics:
        """The statistics of at least one frame's values, in order of time. An empty quarter makes decay NaN."""
        scores = np.asarray(values, dtype=float)
        first, last = (scores[part] for part in quarters(len(scores)))
        decay = float(first.mean() - last.mean()) if len(first) and len(last) else math.nan
        return DavisStatistics(float(scores.mean()), float((scores > RECALL).mean()), decay)


@dataclass(frozen=True)
class ObjectScore:
    """One object in one sequence."""

    j: DavisStatistics
    f: DavisStatistics

    @property
    def jf(self) -> float:
        """J&F: the mean of the two means."""
        return (self.j.mean + self.f.mean) / 2

    @staticmethod
    def of(values: Sequence[JF], quarters: Quarters = compute_quarters) -> ObjectScore:
        """The statistics of J and F in the frames that count, in order of time."""
        j, f = zip(*values, strict=True)
        return ObjectScore(DavisStatistics.of(j, quarters), DavisStatistics.of(f, quarters))


def score_object_masks(predictions: Iterable[Mask], truths: Iterable[Mask]) -> ObjectScore:
    """J and F of one object over the frames that count, in order of time; an absent one has an empty mask."""
    return ObjectScore.of(
        [(compute_jaccard(p, t), compute_boundary_f(p, t)) for p, t in zip(predictions, truths, strict=True)]
    )


def drop_first_and_last(frames: Sequence[T]) -> Sequence[T]:
    """The frames that count when the first one's masks were given: all but the first and the last.

    >>> drop_first_and_last([0, 1, 2, 3])
    [1, 2]
    """
    return frames[1:-1]


def list_object_ids(labels: LabelMap) -> tuple[int, ...]:
    """The objects in a label map: its values but 0 (background) and 255 (void)."""
    return tuple(int(i) for i in np.unique(labels) if i not in (0, VOID))


def find_given_objects(truth: Mapping[int, LabelMap]) -> tuple[int, tuple[int, ...]]:
    """The first annotated frame with an object, and its objects: what a semi-supervised run is given."""
    return next((t, ids) for t, labels in sorted(truth.items()) if (ids := list_object_ids(labels)))


def score_given_objects(result: VideoResult, truth: Mapping[int, LabelMap]) -> dict[int, ObjectScore]:
    """J and F of every object that was given in the first frame, from the masklet of the same id.

    Semi-supervised DAVIS: neither that frame nor the last counts, nor do objects that appear later.
    """
    start, ids = find_given_objects(truth)
    masklets = {m.id: m for m in result.masklets}
    frames = drop_first_and_last([t for t in sorted(truth) if t >= start])
    return {
        i: score_object_masks(
            (get_masklet_mask(masklets.get(i), t, result.size) for t in frames), (truth[t] == i for t in frames)
        )
        for i in ids
    }


@dataclass(frozen=True)
class ProposalScores:
    """J and F of every proposal with every object in one frame."""

    highest: int  # id of a proposal
    scores: Mapping[int, Sequence[JF]]  # by proposal with a pixel: with object 1, 2, ...
    absent: Sequence[JF]  # of a proposal without a pixel

    @staticmethod
    def of(found: LabelFrame, truth: LabelFrame, objects: int) -> ProposalScores:
        """Scores the proposals in `found` with objects 1 to `objects`; what is void in `truth` counts for nobody."""
        kept = found.without(truth.labels == VOID) if VOID in truth.boxes else found
        ids = range(1, objects + 1)
        rows = {p: [score_label_pair(kept, p, truth, i) for i in ids] for p in kept.boxes}
        return ProposalScores(max(found.boxes, default=0), rows, [_score_absence(truth, i) for i in ids])


def _score_absence(truth: LabelFrame, object: int) -> JF:
    """J and F of an empty mask; an object that fills the frame has no contour either."""
    if object not in truth.boxes:
        return 1.0, 1.0
    return 0.0, float((truth.labels == object).all())


def match_proposals(frames: Sequence[ProposalScores]) -> dict[tuple[int, int], list[JF]]:
    """Unsupervised DAVIS: each object's one proposal, such that the mean of J and F is greatest in total.

    Returns J and F by frame for each (proposal, object), in the order of the proposals. Ids below the highest
    that never occur are empty proposals, as many more as the objects need.
    """
    objects = len(frames[0].absent)
    proposals = max(objects, *(frame.highest for frame in frames))
    rows = [[frame.scores.get(p + 1, frame.absent) for frame in frames] for p in range(proposals)]
    table = np.array(rows, dtype=float).reshape(proposals, len(frames), objects, 2).transpose(3, 0, 2, 1)
    means = np.ascontiguousarray(table).mean(axis=3)  # in this order in memory: ties hang on the last bit
    pairs = zip(*linear_sum_assignment(-(means[0] + means[1]) / 2), strict=True)
    return {(int(p) + 1, int(i) + 1): [(j, f) for j, f in table[:, p, i].T.tolist()] for p, i in pairs}


def score_assigned_objects(result: VideoResult, truth: Mapping[int, LabelMap]) -> dict[int, ObjectScore]:
    """J and F of every object of the first annotated frame, from the masklet that was assigned to it.

    Unsupervised DAVIS: all annotated frames count. Where masklets overlap, the smallest is on top.
    """
    times = sorted(truth)
    objects = LabelFrame(truth[times[0]]).highest
    frames = [ProposalScores.of(LabelFrame(labels_of(result, t)), LabelFrame(truth[t]), objects) for t in times]
    return {
        i: ObjectScore.of(values) for (_, i), values in sorted(match_proposals(frames).items(), key=lambda p: p[0][1])
    }


@dataclass(frozen=True)
class Discovery:
    """What an automatic result holds of one sequence's objects. All annotated frames count."""

    best: Mapping[int, tuple[int | None, float]]  # by object: the best single masklet and its mean J
    union: float  # mean J of all masklets together with the whole foreground


def measure_discovery(result: VideoResult, truth: Mapping[int, LabelMap]) -> Discovery:
    """How well the masklets of a result cover the true objects, each by a single one and all together."""
    ids = sorted({i for labels in truth.values() for i in list_object_ids(labels)})
    tubes = {i: {t: Rle.encode_pixels(labels == i) for t, labels in truth.items()} for i in ids}
    ground = {t: Rle.encode_pixels((labels != 0) & (labels != VOID)) for t, labels in truth.items()}
    best = {i: find_best_masklet(result.masklets, tube) for i, tube in tubes.items()}
    return Discovery(best, compute_union_jaccard(result.masklets, ground))


def get_masklet_mask(masklet: Masklet | None, frame: int, size: tuple[int, int]) -> Mask:
    """A masklet's mask in one `frame` of `size` (h, w); empty where it is not seen, or where `masklet` is None."""
    if masklet is None or frame not in masklet.sightings:
        return np.zeros(size, dtype=bool)
    return masklet.sightings[frame].mask.decode_pixels()


def find_best_masklet(masklets: Iterable[Masklet], truth: Mapping[int, Rle]) -> tuple[int | None, float]:
    """The id of the masklet of highest mean J with one object, and that J; None and 0 where there is none."""
    scores = {m.id: compute_tube_jaccard(m, truth) for m in masklets}
    best = max(scores, key=lambda i: scores[i], default=None)
    return best, 0.0 if best is None else scores[best]


def compute_tube_jaccard(masklet: Masklet, truth: Mapping[int, Rle]) -> float:
    """Mean J of a masklet over the annotated frames; where neither has a pixel it is 1."""
    return float(np.mean([_compute_frame_jaccard(masklet, t, mask) for t, mask in truth.items()]))


def _compute_frame_jaccard(masklet: Masklet, frame: int, truth: Rle) -> float:
    if frame not in masklet.sightings:
        return float(truth.area == 0)
    return float(compute_rle_iou([masklet.sightings[frame].mask], [truth])[0, 0])  # a sighting is never empty


def compute_union_jaccard(masklets: Iterable[Masklet], truth: Mapping[int, Rle]) -> float:
    """Mean J over the annotated frames of all masklets together with the whole foreground."""
    held = tuple(masklets)
    scores = []
    for t, mask in truth.items():
        found = np.zeros(mask.size, dtype=bool)
        for m in held:
            found |= get_masklet_mask(m, t, mask.size)
        scores.append(compute_jaccard(found, mask.decode_pixels()))
    return float(np.mean(scores))
