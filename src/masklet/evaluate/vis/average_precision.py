"""Video instance segmentation: average precision over tubes, as YouTube-VIS, OVIS and HQ-YTVIS define it.

Yang et al., Video Instance Segmentation, ICCV 2019; Qi et al., Occluded Video Instance Segmentation, IJCV 2022; Dave
et al., Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details, 2021 (pools). The rules at the edges
are those of the official programs, which the golden tests compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet
from masklet.evaluate.report import Scores
from masklet.evaluate.vis.boundary import extract_tube_boundary
from masklet.evaluate.vis.tubes import Tube, compute_tube_ious, decode_tubes

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # IoU from which a prediction is right
RECALLS = np.linspace(0, 1, 101)  # where precision is read off
LIMITS = (1, 10, 100)  # best predictions of one category in one video that count
EPSILON = np.spacing(1)

Size = tuple[int, int]


@dataclass(frozen=True)
class ObjectRange:
    """Which objects count: mean area in pixels and level of occlusion, both ends included."""

    name: str
    area: tuple[float, float] = (0, 1e10)
    occlusion: tuple[float, float] = (0, 1)


def build_area_ranges(small: float, medium: float) -> tuple[ObjectRange, ...]:
    """All objects, and those up to `small`, up to `medium` and above, the edges in pixels of a square."""
    edges = [0, small**2, medium**2, 1e10]
    bounds = [(0, 1e10), *pairwise(edges)]
    return tuple(ObjectRange(name, area) for name, area in zip(("", "s", "m", "l"), bounds, strict=True))


AREAS = build_area_ranges(128, 256)
LEVELS = (("", (0, 1)), ("_light", (0, 0.25)), ("_medium", (0.25, 0.5)), ("_heavy", (0.5, 1)))  # of occlusion
OCCLUSIONS = tuple(ObjectRange(a.name + name, a.area, level) for a in AREAS for name, level in LEVELS)


@dataclass(frozen=True)
class TrueObject:
    """An object that is there."""

    id: int
    category: int
    tube: Tube
    area: float  # mean over the frames in which it is seen
    ignored: bool = False  # neither found nor missed
    crowd: bool = False  # may be found many times
    occlusion: float = 0.0


@dataclass(frozen=True)
class PredictedObject:
    """An object that was predicted."""

    category: int
    tube: Tube
    area: float
    score: float
    excused: bool = False  # not wrong where it fits nothing (LVIS, categories that are not annotated exhaustively)


@dataclass(frozen=True)
class VisVideo:
    """One video, or one image as a video of one frame."""

    name: str
    size: Size  # h, w
    truths: Sequence[TrueObject]
    found: Sequence[PredictedObject]  # in the file's order, which decides between equal scores


Similarity = Callable[[Size, Sequence[PredictedObject], Sequence[TrueObject]], Float64[np.ndarray, "n g"]]


def compute_tube_similarity(
    size: Size, found: Sequence[PredictedObject], truths: Sequence[TrueObject]
) -> Float64[np.ndarray, "n g"]:
    """IoU over space and time of every pair of `found` and `truths`, whatever the `size` of the frames.

    Crowds have no rule of their own, unlike in COCO.
    """
    return compute_tube_ious([f.tube for f in found], [t.tube for t in truths])


def compute_boundary_similarity(
    size: Size, found: Sequence[PredictedObject], truths: Sequence[TrueObject]
) -> Float64[np.ndarray, "n g"]:
    """The lower of two IoU of every pair of `found` and `truths`: of the tubes, and of their boundaries.

    For a crowd, that of the tubes. How wide a boundary is depends on the frames' `size` (h, w). Ke et al., Video Mask
    Transfiner for High-Quality Video Instance Segmentation, ECCV 2022.
    """
    iou = compute_tube_similarity(size, found, truths)
    sharp = np.array([not t.crowd for t in truths], bool)
    rows, cols = (
        np.flatnonzero(iou[:, sharp].any(1)).tolist(),
        np.flatnonzero(iou.any(0) & sharp).tolist(),
    )  # else 0 is the lower one
    edges = compute_tube_ious(
        [extract_tube_boundary(found[r].tube, size) for r in rows],
        [extract_tube_boundary(truths[c].tube, size) for c in cols],
    )
    iou[np.ix_(rows, cols)] = np.minimum(iou[np.ix_(rows, cols)], edges)
    return iou


@dataclass(frozen=True)
class GroupMatches:
    """What became of one group's predictions, best first: the group is a category in a video, or all of a video."""

    scores: Float64[np.ndarray, " n"]
    right: Bool[np.ndarray, "r t n"]  # by range of objects and threshold
    wrong: Bool[np.ndarray, "r t n"]  # those that are neither are ignored
    positives: Int64[np.ndarray, " r"]  # objects to be found


@dataclass(frozen=True)
class MatchedGroup:
    """One group's predictions and objects, matched."""

    video: str
    category: int
    ids: tuple[int, ...]  # of the objects
    iou: Float64[np.ndarray, "n g"]  # predictions by falling score, objects in the file's order
    matches: GroupMatches


def match_by_category(
    scene: VisVideo, ranges: Sequence[ObjectRange], similarity: Similarity, limit: int | None
) -> list[MatchedGroup]:
    """Matches what was found in `scene` with what is there, category by category, in the order of their numbers.

    The best `limit` of a category take part (None: all); `similarity` compares each with each object, and every one of
    `ranges` has its own matches among the objects that it counts.
    """
    groups = []
    for category in sorted({t.category for t in scene.truths} | {f.category for f in scene.found}):
        truths = [t for t in scene.truths if t.category == category]
        found = sorted((f for f in scene.found if f.category == category), key=lambda f: -f.score)[:limit]
        iou = similarity(scene.size, found, truths)
        ids = tuple(t.id for t in truths)
        groups.append(MatchedGroup(scene.name, category, ids, iou, assess_predictions(found, truths, iou, ranges)))
    return groups


def make_class_agnostic(scene: VisVideo) -> VisVideo:
    """A video whose objects are all of one category, in the order of those that they were of."""
    truths = [replace(t, category=0) for t in sorted(scene.truths, key=lambda t: t.category)]
    return replace(
        scene, truths=truths, found=[replace(f, category=0) for f in sorted(scene.found, key=lambda f: f.category)]
    )


def assess_predictions(
    found: Sequence[PredictedObject],
    truths: Sequence[TrueObject],
    iou: Float64[np.ndarray, "n g"],
    ranges: Sequence[ObjectRange],
) -> GroupMatches:
    """Which predictions `found`, best first, are right, wrong or ignored, for each of `ranges` and each threshold.

    `iou` has a row for each of them and a column for each of `truths`. An object of id 0 takes its prediction and is
    never found by it: the programs ask whether the id is zero.
    """
    ignored = np.zeros((len(ranges), len(truths) + 1), bool)  # and one column more for "no object"
    ignored[:, :-1] = _find_outside_ranges(ranges, "area", [t.area for t in truths])
    ignored[:, :-1] |= _find_outside_ranges(ranges, "occlusion", [t.occlusion for t in truths])
    ignored[:, :-1] |= np.array([t.ignored for t in truths], bool)
    partner = match_predictions(iou, ignored[:, :-1], np.array([t.crowd for t in truths], bool))
    right = np.array([*(t.id != 0 for t in truths), False])[partner]
    excused = _find_outside_ranges(ranges, "area", [f.area for f in found])
    excused |= np.array([f.excused for f in found], bool)
    skipped = ignored[np.arange(len(ranges))[:, None, None], partner] | ~right & excused[:, None]
    scores = np.array([f.score for f in found], float)
    return GroupMatches(scores, right & ~skipped, ~(right | skipped), (~ignored[:, :-1]).sum(1))


def _find_outside_ranges(ranges: Sequence[ObjectRange], what: str, values: Sequence[float]) -> Bool[np.ndarray, "r n"]:
    low, high = np.array([getattr(r, what) for r in ranges], float).T[:, :, None]
    given = np.array(values, float)
    return np.asarray((given < low) | (given > high))


def match_predictions(
    iou: Float64[np.ndarray, "n g"], ignored: Bool[np.ndarray, "r g"], crowd: Bool[np.ndarray, " g"]
) -> Int64[np.ndarray, "r t n"]:
    """The object that each prediction takes, best prediction first, by range and threshold; g where it takes none.

    It takes the one of highest `iou` among those that are free and count, else among those that are `ignored` in the
    range; of two equal ones the later. A `crowd` stays free.
    """
    objects = iou.shape[1]
    shape = (len(ignored), len(THRESHOLDS), objects)
    partner = np.full((*shape[:2], len(iou)), objects)
    if not objects:
        return partner
    free, real = np.ones(shape, bool), ~ignored[:, None]
    enough = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for row in np.flatnonzero(iou.max(1) >= THRESHOLDS[0]):
        fit = free & (iou[row] >= enough)
        choice = np.where((fit & real).any(2, keepdims=True), fit & real, fit)
        best = objects - 1 - np.where(choice, iou[row], -1)[:, :, ::-1].argmax(2)
        some = choice.any(2)
        partner[:, :, row][some] = best[some]
        taken = (*np.nonzero(some), best[some])
        free[taken] = crowd[best[some]]
    return partner


@dataclass(frozen=True)
class PrecisionCurve:
    """Precision and recall of predictions that were joined in one list; -1 where there is nothing to be found."""

    ap: Float64[np.ndarray, "r t"]  # mean precision over the points of recall
    recall: Float64[np.ndarray, "r t"]  # of all predictions


def accumulate_curve(groups: Sequence[GroupMatches], limit: int | None) -> PrecisionCurve:
    """Joins groups, each cut to its best `limit`, in one list by falling score; equal scores stay in their order."""
    recall, precision, some = _rank_predictions(groups, limit)
    reached = np.searchsorted(RECALLS, recall, side="right")  # points of recall up to each prediction
    ap = (np.diff(reached, axis=2, prepend=0) * precision).sum(2) / len(
        RECALLS
    )  # precision where each is first reached
    last = recall[:, :, -1] if recall.shape[2] else np.zeros(recall.shape[:2])
    return PrecisionCurve(*(np.where(some, table, -1.0) for table in (ap, last)))


def compute_precision_points(groups: Sequence[GroupMatches], limit: int | None) -> Float64[np.ndarray, "r t p"]:
    """Precision at each of the 101 points of recall, of which `PrecisionCurve.ap` is the mean; 0 beyond the last.

    `groups` and `limit` are as in `accumulate_curve`. A range in which there is nothing to be found has 0 throughout.
    """
    recall, precision, some = _rank_predictions(groups, limit)
    padded = np.pad(precision, ((0, 0), (0, 0), (0, 1)))
    points = np.zeros((*recall.shape[:2], len(RECALLS)))
    for place in np.ndindex(recall.shape[:2]):
        points[place] = padded[place][np.searchsorted(recall[place], RECALLS)]
    return np.asarray(points * some[:, :, None])


def _rank_predictions(
    groups: Sequence[GroupMatches], limit: int | None
) -> tuple[Float64[np.ndarray, "r t n"], Float64[np.ndarray, "r t n"], Bool[np.ndarray, "r 1"]]:
    """Recall and best later precision after each prediction of all groups, and where there is something to be found."""
    positives = sum((m.positives for m in groups), np.zeros(1, np.int64))[:, None, None]
    order = np.argsort(-np.concatenate([m.scores[:limit] for m in groups]), kind="stable")
    right, wrong = (np.concatenate(parts, 2)[:, :, order].cumsum(2, float) for parts in _limit_groups(groups, limit))
    precision = right / (right + wrong + EPSILON)
    return (
        right / np.maximum(positives, 1),
        np.maximum.accumulate(precision[:, :, ::-1], 2)[:, :, ::-1],
        positives[:, 0] > 0,
    )


def _limit_groups(groups: Sequence[GroupMatches], limit: int | None) -> tuple[list[Bool[np.ndarray, "r t n"]], ...]:
    return [m.right[:, :, :limit] for m in groups], [m.wrong[:, :, :limit] for m in groups]


@dataclass(frozen=True)
class ApTables:
    """AP and recall by threshold, category, range of objects and limit; -1 where there is nothing to be found."""

    categories: tuple[int, ...]
    ap: Float64[np.ndarray, "t k r m"]
    recall: Float64[np.ndarray, "t k r m"]


def compute_ap_tables(
    groups: Sequence[MatchedGroup],
    categories: Sequence[int],
    ranges: Sequence[ObjectRange],
    limits: Sequence[int | None] = LIMITS,
) -> ApTables:
    """AP and recall of each of `categories`, from its best predictions in each video.

    How many of these count is one of `limits` (None: all); the tables' last axis is by limit. `groups` are in order of
    videos and were matched with the same `ranges`.
    """
    shape = (len(categories), len(limits), len(ranges), len(THRESHOLDS))
    ap, recall = np.full(shape, -1.0), np.full(shape, -1.0)
    held = {k: [g.matches for g in groups if g.category == k] for k in categories}
    for row, k in enumerate(categories):
        for col, limit in enumerate(limits if held[k] else ()):
            curve = accumulate_curve(held[k], limit)
            ap[row, col], recall[row, col] = curve.ap, curve.recall
    return ApTables(tuple(categories), ap.transpose(3, 0, 2, 1), recall.transpose(3, 0, 2, 1))


def compute_defined_mean(table: Float64[np.ndarray, "..."]) -> float | None:
    """Mean of a table's entries but for those where there is nothing to be found; None where it has no other."""
    held = table[table > -1]
    return float(held.mean()) if len(held) else None


def compute_ap_headline(
    results: ApTables, ranges: Sequence[ObjectRange], rows: Sequence[int]
) -> dict[str, float | None]:
    """The official numbers: AP at 100 of all objects and of some ranges, then recall at 1, 10 and 100, and of those.

    `results` were made with `ranges`, of which the first is all objects and `rows` are the indices of the others to
    show.
    """
    ap, recall = results.ap[:, :, :, -1], results.recall
    return {
        "AP": compute_defined_mean(ap[:, :, 0]),
        "AP50": compute_defined_mean(ap[0, :, 0]),
        "AP75": compute_defined_mean(ap[5, :, 0]),
        **{f"AP{ranges[row].name}": compute_defined_mean(ap[:, :, row]) for row in rows},
        **{f"AR{limit}": compute_defined_mean(recall[:, :, 0, col]) for col, limit in enumerate(LIMITS)},
        **{f"AR{ranges[row].name}": compute_defined_mean(recall[:, :, row, -1]) for row in rows},
    }


def compute_mean_area(pixels: Iterable[float | None]) -> float:
    """Mean over the frames in which an object has any; 0 where there is none."""
    seen = [a for a in pixels if a]
    return float(np.mean(seen)) if seen else 0.0


def compute_occlusion_score(levels: Sequence[float]) -> float:
    """OVIS's score of an object: the mean of the upper half of its frames' levels.

    >>> compute_occlusion_score([0.0, 0.75, 0.25])
    0.5
    """
    upper = sorted(levels, reverse=True)[: math.ceil(len(levels) / 2)]
    return float(np.mean(upper))


def compute_video_ap(truths: Sequence[VideoResult], results: Sequence[VideoResult]) -> Scores:
    """YouTube-VIS's twelve numbers of results against the truth, video by video in the same order.

    Objects are masklets with labels, and scores where they are results. Raises InputError where two do not belong
    to one video or name their categories differently.
    """
    groups = []
    for number, (truth, result) in enumerate(zip(truths, results, strict=True)):
        if (truth.size, truth.length, truth.categories) != (result.size, result.length, result.categories):
            raise InputError(f"{result.name}: size, length or categories are not those of the truth {truth.name}")
        here, there = _decode_result_tubes(truth), _decode_result_tubes(result)
        objects = [
            TrueObject(n, m.label, t, t.area) for n, (m, t) in enumerate(zip(truth.masklets, here, strict=True), 1)
        ]
        found = [PredictedObject(m.label, t, t.area, m.score) for m, t in zip(result.masklets, there, strict=True)]
        scene = VisVideo(str(number), truth.size, objects, found)
        groups += match_by_category(scene, AREAS, compute_tube_similarity, LIMITS[-1])
    categories = sorted({g.category for g in groups})
    return compute_ap_headline(compute_ap_tables(groups, categories, AREAS), AREAS, range(1, 4))


def _decode_result_tubes(result: VideoResult) -> list[Tube]:
    return decode_tubes(
        [_list_masklet_counts(m, result.length) for m in result.masklets], result.size[0] * result.size[1]
    )


def _list_masklet_counts(masklet: Masklet, length: int) -> list[bytes | None]:
    seen = masklet.sightings
    return [seen[t].mask.counts if t in seen else None for t in range(length)]
