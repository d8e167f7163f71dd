"""MOSE: version 1 is scored as semi-supervised DAVIS is, version 2 by measures of its own.

Ding et al., MOSE, ICCV 2023, and MOSEv2, 2025. Numbers of version 2 are those of MOSE-api's score.py; the golden
test compares with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from masklet.core.limits import parse_whole_number
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report
from masklet.evaluate.vos.contours import (
    BOUND,
    Disk,
    build_disk,
    build_tolerance_disk,
    compute_contour_scores,
    extract_contour,
    measure_diagonal,
)
from masklet.evaluate.vos.davis import PARTS, evaluate_semi_supervised
from masklet.evaluate.vos.files import (
    Notes,
    VosClip,
    build_vos_clip,
    build_vos_report,
    find_truth_folder,
    group_rows_by_video,
    list_pngs,
    list_video_names,
    score_vos_clips,
)
from masklet.evaluate.vos.label_maps import LabelFrame, Mask, compute_joint_window, measure_box_gap
from masklet.evaluate.vos.measures import drop_first_and_last
from masklet.io.formats.json_entry import JsonEntry, read_json_object

NEAR = 0.1  # tolerance of F-dot, as a share of the side of a square of the object's area
COLUMNS = ("J", "F_new", "F", "disappear_J", "disappear_F_new", "reappear_J", "reappear_F_new")
V1 = (
    "MOSE: semi-supervised DAVIS (davis2017-evaluation) on its server: mean over objects, 0 to 1; the first and last "
    "frame do not count; the objects are ids 1 to the highest in the first annotation; void (255) is background"
)
V2 = (
    "MOSEv2 (MOSE-api score.py): mean over objects, 0 to 1; the first and last frame do not count; J has 1 added to "
    "both sides; F_new's tolerance depends on the object's size; where it is at its cap, F is made with that cap too, "
    "so F is not DAVIS's"
)


def evaluate_mose_v1(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """J and F of MOSE, version 1: `evaluate_davis_semi` over a folder of palette PNGs for each video.

    `pred`, `videos` (None: all), `watch` and errors are as there; `gt` is MOSE's folder
    (Annotations/<video>/<frame>.png) or its Annotations.
    """
    return evaluate_semi_supervised("mose-v1", V1, find_truth_folder(gt, *PARTS), pred, videos, None, watch)


@dataclass(frozen=True)
class MoseFrameScore:
    """One object in one frame."""

    j: float
    f_new: float
    f: float
    visible: bool  # in the truth


def evaluate_mose_v2(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """J, F-dot and F of MOSE, version 2, also over the frames of disappearance and of reappearance alone.

    Args:
        gt: meta.json and Annotations/<video>/<frame>.png, palette PNGs.
        pred: <video>/<frame>.png; nobody looks at a video's first and last frame.
        videos: those to evaluate; None: all of meta.json.
        watch: told of progress, in frames.

    Raises:
        InputError: a file is missing, cannot be read or does not fit; meta.json does not say what it must.
    """
    told_of = read_json_object(gt / "meta.json", "MOSE's list of videos", "videos").entry("videos")
    truth, notes = gt / "Annotations", Notes()
    names = list_video_names(truth, pred, videos, notes, list(told_of))
    clips = [_build_mose_clip(name, truth, pred, told_of.entry(name), notes) for name in names]
    objects: dict[str, dict[str, float]] = {}
    for clip, frames in score_vos_clips(clips, _score_mose_frame, "mose-v2", watch):
        objects |= {f"{clip.name}/{i}": _build_mose_row([scores[i] for scores, _ in frames]) for i in clip.objects}
        if any(more for _, more in frames):
            notes.add("ids that meta.json does not have are not counted", clip.name)
    videos_rows = {name: _compute_mose_means(rows) for name, rows in group_rows_by_video(objects).items()}
    inputs = (gt / "meta.json", truth, pred)
    return build_vos_report("mose-v2", V2, _compute_mose_means(objects.values()), objects, videos_rows, notes, inputs)


def _build_mose_clip(name: str, truth: Path, pred: Path, video: JsonEntry, notes: Notes) -> VosClip:
    ids = video.texts("objects")
    wrong = [i for i in ids if not 1 <= (parse_whole_number(i) or 0) <= 255]
    if wrong:
        raise video.wrong(f"{wrong[0]!r:.40} is no id of an object; ids are 1 to 255")
    frames = drop_first_and_last(list_pngs(truth / name))
    return build_vos_clip(name, truth / name, pred / name, frames, notes, [int(i) for i in ids])


def _score_mose_frame(clip: VosClip, frame: str) -> tuple[dict[int, MoseFrameScore], bool]:
    """The objects' scores, and whether the prediction has others."""
    found, truth = clip.read(frame)
    more = bool(found.boxes.keys() - set(clip.objects))
    return {i: score_mose_object(found, truth, i) for i in clip.objects}, more


def score_mose_object(found: LabelFrame, truth: LabelFrame, object: int) -> MoseFrameScore:
    """J, F-dot and F, 0 to 1, of the id `object` in one frame, in the prediction `found` and in `truth`.

    All are 1 where neither has a pixel of it.
    """
    ours, theirs = found.boxes.get(object), truth.boxes.get(object)
    if ours is None and theirs is None:
        return MoseFrameScore(1.0, 1.0, 1.0, visible=False)
    window = compute_joint_window(ours, theirs, truth.size)
    here, there = found.labels[window] == object, truth.labels[window] == object
    j = compute_smoothed_jaccard(here, there)
    disks = build_mose_disks(int(np.count_nonzero(there)), truth.size)
    if ours is not None and theirs is not None and measure_box_gap(ours, theirs) > max(disk.reach for disk in disks):
        return MoseFrameScore(j, 0.0, 0.0, visible=True)
    f_new, f = compute_contour_scores(extract_contour(here), extract_contour(there), disks)
    return MoseFrameScore(j, f_new, f, visible=theirs is not None)


def compute_smoothed_jaccard(prediction: Mask, truth: Mask) -> float:
    """J of MOSEv2: a pixel more in the intersection and in the union; two empty masks have 1."""
    union = np.count_nonzero(prediction | truth)
    return (np.count_nonzero(prediction & truth) + 1) / (union + 1)


def build_mose_disks(area: int, size: tuple[int, int]) -> tuple[Disk, Disk]:
    """The disks of F-dot and of F for an object of `area` pixels in frames of `size` (h, w).

    F-dot's radius is a tenth of the side of a square of that area, rounded up, but no more than DAVIS's before it
    is rounded up; where that cap holds (as it does without an object), both are made with it.
    """
    cap = BOUND * measure_diagonal(size)
    radius = math.ceil(NEAR * math.sqrt(area)) if area else math.ceil(NEAR * measure_diagonal(size))
    if radius > cap:
        return build_disk(cap), build_disk(cap)
    return build_disk(float(radius)), build_tolerance_disk(size)


def _build_mose_row(frames: Sequence[MoseFrameScore]) -> dict[str, float]:
    means = [float(np.mean([getattr(frame, name) for frame in frames])) for name in ("j", "f_new", "f")]
    gone = find_visibility_runs(frames, visible=False)
    back = find_visibility_runs(frames, visible=True)
    return dict(zip(COLUMNS, (*means, *_compute_run_means(gone), *_compute_run_means(back)), strict=True))


def find_visibility_runs(frames: Sequence[MoseFrameScore], visible: bool) -> list[list[MoseFrameScore]]:
    """The runs of frames with (or without) the object, but for one that begins with the first frame."""
    found = [list(run) for _, run in groupby(frames, key=lambda frame: frame.visible)]
    return [run for run in found[1:] if run[0].visible == visible]


def _compute_run_means(parts: Sequence[Sequence[MoseFrameScore]]) -> tuple[float, float]:
    """J and F-dot: means over runs of the means over their frames; NaN without a run."""
    if not parts:
        return math.nan, math.nan
    j, f = ([np.mean([getattr(frame, name) for frame in run]) for run in parts] for name in ("j", "f_new"))
    return float(np.mean(j)), float(np.mean(f))


def _compute_mose_means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Means over objects; of disappearance and reappearance over those that have any."""
    held = list(rows)
    kept = {c: [row[c] for row in held if not math.isnan(row[c])] for c in COLUMNS}
    mean = {c: float(np.mean(values)) if values else math.nan for c, values in kept.items()}
    return {
        "J&F_new": (mean["J"] + mean["F_new"]) / 2,
        "J": mean["J"],
        "F_new": mean["F_new"],
        "disappear_J&F_new": (mean["disappear_J"] + mean["disappear_F_new"]) / 2,
        "reappear_J&F_new": (mean["reappear_J"] + mean["reappear_F_new"]) / 2,
        "F": mean["F"],
        "J&F": (mean["J"] + mean["F"]) / 2,
    }
