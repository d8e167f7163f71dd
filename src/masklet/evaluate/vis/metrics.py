"""The metrics of video instance segmentation over files: one function each, all of them giving a Report.

A Report's `videos` have the AP of the video alone, and at IoU 0.5 the objects missed and the predictions that are
wrong; its `objects` have the highest IoU of a prediction of the object's category, and that prediction's score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Curve, Report, Scores
from masklet.evaluate.vis.average_precision import (
    AREAS,
    LIMITS,
    OCCLUSIONS,
    RECALLS,
    THRESHOLDS,
    GroupMatches,
    MatchedGroup,
    ObjectRange,
    PrecisionCurve,
    Similarity,
    accumulate_curve,
    build_area_ranges,
    compute_ap_headline,
    compute_ap_tables,
    compute_boundary_similarity,
    compute_defined_mean,
    compute_precision_points,
    compute_tube_similarity,
    make_class_agnostic,
    match_by_category,
)
from masklet.evaluate.vis.files import (
    LVIS,
    OVIS,
    YOUTUBE_VIS,
    Names,
    VisDataset,
    VisObject,
    read_vis_dataset,
    score_vis_clips,
)

MOST = LIMITS[-1]
POOLED = 10_000  # predictions of a category that count, over the whole set
SIZES = (1, 2, 3)  # rows of the ranges of areas: small, medium, large
OVIS_ROWS = (4, 8, 12, 1, 2, 3)  # all levels of occlusion by area, then all areas by level
LVIS_AREAS = build_area_ranges(32, 96)
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}

COMMON = (
    "mean over categories and IoU 0.5 to 0.95, 0 to 1; the best 1, 10 and 100 of each category in a video; areas by "
    "the file; objects flagged as crowds are ignored"
)
PROTOCOLS = {
    "youtube_vis": f"YTVOSeval: {COMMON}",
    "youtube_vis_class_agnostic": f"YTVOSeval with useCats=0: all categories as one; {COMMON}",
    "ovis": f"OVISeval: {COMMON}; unmatched predictions count against every level of occlusion",
    "tube_boundary": f"HQ-YTVIS: the lower of mask and boundary IoU, boundaries 2 % of the diagonal wide; {COMMON}",
    "ap_pool_video": (
        "AP^Pool (Dave et al. 2021) of YTVOSeval's matches: all categories in one list by score, the best 10000 of "
        "each; no program does this for videos"
    ),
    "ap_pool_lvis": (
        "AP^Pool and 'fixed' AP (Dave et al. 2021, LVISPooledEval): the best 10000 of each category over the set, no "
        "limit per image; the pools are rare, common and frequent categories by their letter in the file"
    ),
}


def evaluate_youtube_vis(
    gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress
) -> Report:
    """YouTube-VIS's AP and AR as the program YTVOSeval: twelve numbers from 0 to 1, and six by category.

    Yang et al., ICCV 2019. Raises InputError naming the file and the entry at fault.

    Args:
        gt, pred: the JSON files of the ground truth and of the results.
        videos: ids or names of frame folders; only these are scored, as for YouTube-VIS 2022's short and long videos.
        watch: is told ("scoring", videos done, videos in all, groups matched: a category in a video).
    """
    data = read_vis_dataset(gt, pred, YOUTUBE_VIS, videos)
    return _evaluate_by_category("youtube_vis", data, AREAS, SIZES, compute_tube_similarity, watch)


def evaluate_tube_boundary(
    gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress
) -> Report:
    """Tube-Boundary AP of HQ-YTVIS: YouTube-VIS's numbers with the lower one of mask and boundary IoU.

    `gt`, `pred`, `videos` and `watch` are as in `evaluate_youtube_vis`. Ke et al., ECCV 2022; as in the program of VMT,
    but that absent masks need no height and width and refined masks are not read. Raises InputError naming the file and
    the entry at fault.
    """
    data = read_vis_dataset(gt, pred, YOUTUBE_VIS, videos)
    return _evaluate_by_category("tube_boundary", data, AREAS, SIZES, compute_boundary_similarity, watch)


def evaluate_ovis(gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress) -> Report:
    """OVIS's AP and AR, eighteen numbers from 0 to 1: by area, and by level of occlusion.

    `gt`, `pred`, `videos` and `watch` are as in `evaluate_youtube_vis`, in OVIS's form. Qi et al., IJCV 2022; as in the
    program OVISeval. Raises InputError naming the file and the entry at fault.
    """
    data = read_vis_dataset(gt, pred, OVIS, videos)
    return _evaluate_by_category("ovis", data, OCCLUSIONS, OVIS_ROWS, compute_tube_similarity, watch)


def evaluate_class_agnostic(
    gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress
) -> Report:
    """YouTube-VIS's AP and AR, 0 to 1, with all categories as one.

    `gt`, `pred`, `videos` and `watch` are as in `evaluate_youtube_vis`. Raises InputError naming file and entry at
    fault.
    """
    data = read_vis_dataset(gt, pred, YOUTUBE_VIS, videos)
    judging = partial(match_by_category, ranges=AREAS, similarity=compute_tube_similarity, limit=MOST)
    groups = score_vis_clips(data, lambda scene: judging(make_class_agnostic(scene)), watch)
    _warn_of_limit(data, lambda found: "")
    return _build_vis_report(
        "youtube_vis_class_agnostic",
        data,
        groups,
        compute_ap_headline(compute_ap_tables(groups, [0], AREAS), AREAS, SIZES),
        {},
    )


def evaluate_ap_pool_video(
    gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress
) -> Report:
    """AP^Pool over videos, 0 to 1: all categories' matches in one list.

    The part "best 100" has at most 100 predictions of a category in a video, as YouTube-VIS. `gt`, `pred`, `videos` and
    `watch` are as in `evaluate_youtube_vis`. Dave et al. 2021. Raises InputError naming the file and the entry at
    fault.
    """
    data = read_vis_dataset(gt, pred, YOUTUBE_VIS, videos)
    _keep_best(data, POOLED)
    groups = score_vis_clips(
        data, partial(match_by_category, ranges=AREAS, similarity=compute_tube_similarity, limit=None), watch
    )
    pools = [_compute_pooled_ap([g.matches for g in groups], AREAS, limit) for limit in (None, MOST)]
    return _build_vis_report("ap_pool_video", data, groups, pools[0], {f"best {MOST}": pools[1]})


def evaluate_ap_pool_lvis(
    gt: Path, pred: Path, *, videos: Names | None = None, watch: Watch = discard_progress, best: int = POOLED
) -> Report:
    """AP^Pool over LVIS's images, 0 to 1, and of the rare, common and frequent categories.

    The part "fixed" has the mean over categories. `gt`, `pred`, `videos` and `watch` are as in `evaluate_youtube_vis`,
    but that `videos` are images here, by their ids; `best` predictions of a category count. Dave et al. 2021; as in the
    program of large-vocab-devil. Raises InputError naming the file and the entry at fault.
    """
    data = read_vis_dataset(gt, pred, LVIS, videos)
    _keep_best(data, best)
    _keep_verified(data)
    groups = score_vis_clips(
        data, partial(match_by_category, ranges=LVIS_AREAS, similarity=compute_tube_similarity, limit=None), watch
    )
    among = {letter: [k for k in data.categories if data.frequencies[k] == letter] for letter in FREQUENCIES}
    pools = {"all": list(data.categories)} | among
    parts = {
        f"pool {name}": _compute_pooled_ap([g.matches for g in groups if g.category in ks], LVIS_AREAS, None)
        for name, ks in pools.items()
    }
    scores = {f"AP{'' if name == 'all' else name}": parts[f"pool {name}"]["AP"] for name in pools}
    return _build_vis_report("ap_pool_lvis", data, groups, scores, parts | _compute_fixed_ap(data, groups, among))


def _evaluate_by_category(
    metric: str,
    data: VisDataset,
    ranges: Sequence[ObjectRange],
    rows: Sequence[int],
    similarity: Similarity,
    watch: Watch,
) -> Report:
    groups = score_vis_clips(data, partial(match_by_category, ranges=ranges, similarity=similarity, limit=MOST), watch)
    _warn_of_limit(data, lambda found: f" of {data.categories[found.category]}")
    results = compute_ap_tables(groups, sorted(data.categories), ranges)
    parts = {}
    for number, category in enumerate(results.categories):
        one = replace(results, ap=results.ap[:, [number]], recall=results.recall[:, [number]])
        parts[data.categories[category]] = compute_ap_headline(one, ranges, ())
    report = _build_vis_report(metric, data, groups, compute_ap_headline(results, ranges, rows), parts)
    return replace(report, curves=_draw_precision_curves(groups))


def _draw_precision_curves(groups: Sequence[MatchedGroup]) -> dict[str, Curve]:
    """Precision against recall, in the mean over the categories that there is something of."""
    held: dict[int, list[GroupMatches]] = {}
    for group in groups:
        held.setdefault(group.category, []).append(group.matches)
    there = [some for some in held.values() if sum(m.positives[0] for m in some)]
    if not there:
        return {}
    points = np.mean([compute_precision_points(some, MOST)[0] for some in there], axis=0)
    drawn = {"IoU 0.5": points[0], "IoU 0.75": points[5], "mean of 0.5 to 0.95": points.mean(0)}
    return {f"precision, {name}": Curve("recall", tuple(RECALLS), tuple(y.tolist())) for name, y in drawn.items()}


def _compute_pooled_ap(groups: Sequence[GroupMatches], ranges: Sequence[ObjectRange], limit: int | None) -> Scores:
    """AP of groups in one list: its mean, by threshold, by area; and recall."""
    nothing = np.full((len(ranges), len(THRESHOLDS)), -1.0)
    curve = accumulate_curve(groups, limit) if groups else PrecisionCurve(nothing, nothing)
    names = [f"{100 * t:.0f}" for t in THRESHOLDS]
    return {
        "AP": compute_defined_mean(curve.ap[0]),
        **{f"AP{name}": compute_defined_mean(curve.ap[0, n : n + 1]) for n, name in enumerate(names)},
        **{f"AP{ranges[row].name}": compute_defined_mean(curve.ap[row]) for row in SIZES},
        "AR": compute_defined_mean(curve.recall[0]),
        **{f"AR{name}": compute_defined_mean(curve.recall[0, n : n + 1]) for n, name in enumerate(names)},
    }


def _compute_fixed_ap(
    data: VisDataset, groups: Sequence[MatchedGroup], among: Mapping[str, Sequence[int]]
) -> dict[str, Scores]:
    """The 'fixed' AP, a mean over categories, and each category's."""
    results = compute_ap_tables(groups, sorted(data.categories), LVIS_AREAS, (None,))
    ap = results.ap[:, :, :, 0]
    rows = {letter: np.isin(results.categories, ks) for letter, ks in among.items()}
    fixed = {
        "AP": compute_defined_mean(ap[:, :, 0]),
        "AP50": compute_defined_mean(ap[0, :, 0]),
        "AP75": compute_defined_mean(ap[5, :, 0]),
    }
    fixed |= {f"AP{LVIS_AREAS[row].name}": compute_defined_mean(ap[:, :, row]) for row in SIZES}
    fixed |= {f"AP{letter}": compute_defined_mean(ap[:, some, 0]) for letter, some in rows.items()}
    alone: dict[str, Scores] = {
        f"fixed {data.categories[k]}": {"AP": compute_defined_mean(ap[:, n, 0])}
        for n, k in enumerate(results.categories)
    }
    return {"fixed": fixed} | alone


def _keep_best(data: VisDataset, best: int) -> None:
    """Cuts each category to its best predictions over the whole set; of equal scores the earlier stay."""
    found = sorted((o for clip in data.clips.values() for o in clip.found), key=lambda o: (-o.score, o.number))
    counts: Counter[int] = Counter()
    dropped = set()
    for one in found:
        counts[one.category] += 1
        if counts[one.category] > best:
            dropped.add(one.number)
            data.notes[f"more than {best} predictions of {data.categories[one.category]}; the best count"].append(
                one.where
            )
    for clip in data.clips.values():
        clip.found[:] = [o for o in clip.found if o.number not in dropped]


def _keep_verified(data: VisDataset) -> None:
    """Drops an image's predictions of categories about which LVIS says nothing there, and excuses those of
    categories that are not annotated exhaustively."""
    for clip in data.clips.values():
        negative, inexhaustive = (set(clip.entry.items(f"{kind}_category_ids")) for kind in ("neg", "not_exhaustive"))
        known = negative | {t.category for t in clip.truths}
        kept = [o for o in clip.found if o.category in known]
        clip.found[:] = [replace(o, excused=o.category in inexhaustive) for o in kept]


def _warn_of_limit(data: VisDataset, kind: Callable[[VisObject], str]) -> None:
    for clip in data.clips.values():
        for name, some in Counter(map(kind, clip.found)).items():
            if some > MOST:
                what = f"of more than {MOST} predictions{name} in one video only the best {MOST} count"
                data.notes[what].append(f"{data.pred}: video {clip.name}, {some} predictions")


def _build_vis_report(
    metric: str, data: VisDataset, groups: Sequence[MatchedGroup], scores: Scores, parts: Mapping[str, Scores]
) -> Report:
    videos = {name: _build_video_row(list(some)) for name, some in groupby(groups, lambda g: g.video)}
    nothing: Scores = {"AP": None, "missed": 0, "wrong": 0}
    return Report(
        metric,
        PROTOCOLS[metric],
        scores,
        parts,
        {clip.name: videos.get(clip.name, nothing) for clip in data.clips.values()},
        {f"{g.video}/{id}": row for g in groups for id, row in zip(g.ids, _build_group_rows(g), strict=True)},
        data.warnings(),
        (data.gt, data.pred),
    )


def _build_video_row(groups: Sequence[MatchedGroup]) -> Scores:
    """A video's own AP, and what goes wrong at IoU 0.5; all sizes of objects."""
    all_sizes = [
        replace(m, right=m.right[:1], wrong=m.wrong[:1], positives=m.positives[:1]) for m in (g.matches for g in groups)
    ]
    curves = [accumulate_curve([m], MOST).ap for m in all_sizes if m.positives[0]]
    missed = sum(int(m.positives[0] - m.right[0, 0].sum()) for m in all_sizes)
    return {
        "AP": compute_defined_mean(np.array(curves)),
        "missed": missed,
        "wrong": sum(int(m.wrong[0, 0].sum()) for m in all_sizes),
    }


def _build_group_rows(group: MatchedGroup) -> list[Scores]:
    if not len(group.iou):
        return [{"IoU": 0.0, "score": None}] * len(group.ids)
    best = group.iou.argmax(0)
    return [
        {"IoU": float(iou), "score": float(group.matches.scores[row]) if iou else None}
        for row, iou in zip(best, group.iou.max(0), strict=True)
    ]
