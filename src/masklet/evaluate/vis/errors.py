"""What costs average precision: each wrong prediction and each missed object by the kind of its error.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, on tubes instead of boxes: a
prediction is right from IoU 0.5 on, and below 0.1 it is about nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.vis.average_precision import (
    LIMITS,
    GroupMatches,
    Similarity,
    VisVideo,
    accumulate_curve,
    compute_tube_similarity,
    match_predictions,
)
from masklet.evaluate.vis.files import YOUTUBE_VIS, Names, read_vis_dataset, score_vis_clips

RIGHT, NOTHING = 0.5, 0.1  # IoU from which a prediction is about an object, and up to which it is about none
KINDS = ("classification", "localisation", "both", "duplicate", "background")
MISSED = "missed"
PROTOCOL = (
    "errors as TIDE has them (Bolya et al. 2020), on tubes: right from IoU 0.5, background up to 0.1; 'AP50 gained' is "
    "what AP50 (0 to 1) would gain if errors of the kind were mended, each kind alone, so that gains do not add up"
)


@dataclass(frozen=True)
class JudgedPrediction:
    """One prediction with what is wrong with it."""

    category: int  # that it says
    score: float
    kind: str  # one of `KINDS`; nothing where it is right
    meant: int  # the category of the object that it is about; its own where it is about none
    target: int  # that object's place in the video; -1 where it is about none


@dataclass(frozen=True)
class JudgedVideo:
    """One video's predictions, each judged, and which of its objects nothing is about."""

    video: str
    predictions: tuple[JudgedPrediction, ...]  # of a category by falling score
    positives: tuple[int, ...]  # the category of each object
    found: frozenset[int]  # places of the objects that are found
    missed: frozenset[int]  # places of those that no error of classification or localisation is about


def judge_video(scene: VisVideo, similarity: Similarity) -> list[JudgedVideo]:
    """Judges every prediction of one video; crowds are left out. The only entry of the list is the video."""
    truths = [t for t in scene.truths if not (t.ignored or t.crowd)]
    found = sorted(scene.found, key=lambda f: (f.category, -f.score))
    found = [f for _, same in groupby(found, lambda f: f.category) for f in list(same)[: LIMITS[-1]]]
    iou = similarity(scene.size, found, truths)
    categories = np.array([t.category for t in truths], np.int64)
    taken = _assign_objects(iou, np.array([f.category for f in found], np.int64), categories)
    judged = tuple(
        _judge_prediction(f.category, f.score, row, categories, partner)
        for f, row, partner in zip(found, iou, taken.tolist(), strict=True)
    )
    hit = frozenset(int(g) for g in taken if g >= 0)
    about = {j.target for j in judged if j.kind in KINDS[:2]}
    missed = frozenset(range(len(truths))) - hit - about
    return [JudgedVideo(scene.name, judged, tuple(categories.tolist()), hit, missed)]


def _assign_objects(
    iou: Float64[np.ndarray, "n g"], found: Int64[np.ndarray, " n"], truths: Int64[np.ndarray, " g"]
) -> Int64[np.ndarray, " n"]:
    """The object that each prediction takes at IoU 0.5, within its category, as AP does; -1 where it takes none."""
    taken = np.full(len(found), -1)
    for category in np.unique(found).tolist():
        rows, cols = np.flatnonzero(found == category), np.flatnonzero(truths == category)
        nothing = np.zeros((1, len(cols)), bool)
        partner = match_predictions(iou[np.ix_(rows, cols)], nothing, nothing[0])[0, 0]
        taken[rows] = np.append(cols, -1)[partner]
    return taken


def _judge_prediction(
    category: int,
    score: float,
    iou: Float64[np.ndarray, " g"],
    categories: Int64[np.ndarray, " g"],
    partner: int,
) -> JudgedPrediction:
    """What is wrong with a prediction of a `category`, whose `iou` with every object and `partner` are given."""
    if partner >= 0:
        return JudgedPrediction(category, score, "", category, partner)
    own, other = (np.where(mine, iou, 0.0) for mine in (categories == category, categories != category))
    best, strange = (int(part.argmax()) if len(part) else -1 for part in (own, other))
    most, least = (float(part.max(initial=0.0)) for part in (own, other))
    if NOTHING < most < RIGHT:
        return JudgedPrediction(category, score, "localisation", category, best)
    if least >= RIGHT:
        return JudgedPrediction(category, score, "classification", int(categories[strange]), strange)
    if most >= RIGHT:
        return JudgedPrediction(category, score, "duplicate", category, -1)
    return JudgedPrediction(category, score, "both" if least > NOTHING else "background", category, -1)


def mend_errors(video: JudgedVideo, kind: str) -> JudgedVideo:
    """A video as it would be without the errors of one `kind`.

    Errors of classification and of localisation are mended where their object is not found, else dropped; objects that
    were missed are no longer asked for; other errors are dropped.
    """
    if kind == MISSED:
        return replace(video, positives=tuple(c for n, c in enumerate(video.positives) if n not in video.missed))
    free = set(range(len(video.positives))) - video.found
    kept = []
    for one in sorted(video.predictions, key=lambda p: -p.score):
        if one.kind != kind:
            kept.append(one)
        elif one.target in free:
            free.remove(one.target)
            kept.append(replace(one, category=one.meant, kind=""))
    return replace(video, predictions=tuple(kept))


def compute_judged_ap(videos: Sequence[JudgedVideo]) -> float | None:
    """AP at IoU 0.5, 0 to 1, of judged predictions: the mean over the categories that there is something of."""
    categories = sorted({c for video in videos for c in video.positives})
    held = [[_build_group(video, c) for video in videos] for c in categories]
    values = [float(accumulate_curve(groups, LIMITS[-1]).ap[0, 0]) for groups in held]
    return float(np.mean(values)) if values else None


def _build_group(video: JudgedVideo, category: int) -> GroupMatches:
    mine = sorted((p for p in video.predictions if p.category == category), key=lambda p: -p.score)
    right = np.array([not p.kind for p in mine], bool)[None, None]
    scores = np.array([p.score for p in mine], float)
    return GroupMatches(scores, right, ~right, np.array([video.positives.count(category)]))


def evaluate_vis_errors(
    gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress
) -> Report:
    """How many predictions are wrong in which way, and how much AP50 each kind of error costs.

    Bolya et al., TIDE, ECCV 2020. `gt`, `pred`, `videos`, `watch` and errors are as in `evaluate_youtube_vis`.

    Returns:
        A report with AP50 and what it would gain, errors by kind in its parts, and those of each category and video.
    """
    data = read_vis_dataset(gt, pred, YOUTUBE_VIS, videos)
    judged = score_vis_clips(data, partial(judge_video, similarity=compute_tube_similarity), watch)
    whole = compute_judged_ap(judged)
    gains = {k: _compute_gain(whole, compute_judged_ap([mend_errors(v, k) for v in judged])) for k in (*KINDS, MISSED)}
    counts = _count_errors(judged)
    parts: dict[str, Scores] = {k: {"count": counts[k], "AP50 gained": gains[k]} for k in gains}
    for category, name in sorted(data.categories.items()):
        found = _count_errors(judged, category)
        if found.total():
            parts[f"class {name}"] = {k: found[k] for k in gains}
    return Report(
        "ytvis-errors",
        PROTOCOL,
        {"AP50": whole, **{f"{k}: gain": gain for k, gain in gains.items()}},
        parts,
        {v.video: _build_video_row(v) for v in judged},
        warnings=data.warnings(),
        inputs=(gt, pred),
    )


def _build_video_row(video: JudgedVideo) -> Scores:
    counts = _count_errors([video])
    return {"AP50": compute_judged_ap([video]), **{k: counts[k] for k in (MISSED, *KINDS)}}


def _compute_gain(whole: float | None, mended: float | None) -> float | None:
    return None if whole is None or mended is None else mended - whole


def _count_errors(videos: Iterable[JudgedVideo], category: int | None = None) -> Counter[str]:
    """Errors by kind, of all categories or of the predictions and objects of one."""
    counts: Counter[str] = Counter()
    for video in videos:
        counts.update(p.kind for p in video.predictions if p.kind and category in (None, p.category))
        counts[MISSED] += sum(category in (None, video.positives[n]) for n in video.missed)
    return +counts
