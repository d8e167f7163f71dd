"""J and F of SA-V, and of vos-benchmark, which is the same program over folders as DAVIS has them.

Ravi et al., SAM 2, 2024. Numbers are those of sav_benchmark.py; the golden test compares with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report
from masklet.evaluate.vos.files import (
    Notes,
    Row,
    VosClip,
    build_vos_clip,
    build_vos_report,
    compute_column_means,
    find_truth_folder,
    group_rows_by_video,
    list_pngs,
    list_subfolders,
    list_video_names,
    score_vos_clips,
)
from masklet.evaluate.vos.label_maps import LabelFrame
from masklet.evaluate.vos.measures import JF, drop_first_and_last, score_frame_objects

COLUMNS = ("J&F", "J", "F")
SAV = (
    "sav_benchmark.py of SAM 2: mean over objects, 0 to 100; each object's first and last annotated frame do not "
    "count, nor do those before it is seen in annotation or prediction"
)
BENCHMARK = (
    "vos-benchmark: mean over objects, 0 to 100; the first and last frame do not count, nor do those before an object "
    "is seen in annotation or prediction; every id from 1 to 255 is an object"
)
Counted = Callable[[Sequence[str]], Sequence[str]]  # of a folder's frames, those that count


def keep_all_frames(frames: Sequence[str]) -> Sequence[str]:
    """All frames count, the first and the last too: the program's option not to skip them."""
    return frames


def evaluate_sav(
    gt: Path,
    pred: Path,
    *,
    videos: Collection[str] | None = None,
    watch: Watch = discard_progress,
    counted: Counted = drop_first_and_last,
) -> Report:
    """J and F of SA-V, whose objects have a folder of masks each, at their own frames.

    Args:
        gt: <video>/<object>/<frame>.png, masks; all that is not black is the object.
        pred: the same form; more frames than annotated ones may be there.
        videos: those to evaluate; None: all that have annotations.
        watch: told of progress, in frames.
        counted: which of an object's annotated frames count; `keep_all_frames` is the other choice.

    Raises:
        InputError: a file is missing, cannot be read or does not fit; an object is in no frame that counts.
    """
    notes = Notes()
    clips = []
    for name in list_video_names(gt, pred, videos, notes):
        there = list_subfolders(gt / name)
        notes.surplus(pred / name, there, f"{name}/")
        clips += [_build_sav_clip(f"{name}/{object}", gt, pred, counted, notes) for object in there]
    objects: dict[str, Row] = {}
    for clip, frames in score_vos_clips(clips, _score_mask_frame, "sav", watch):
        seen = collect_from_first_sight(ids for ids, *_ in frames)
        if not any(there for _, there, _ in frames):
            raise InputError(
                f"{clip.truth}: the object is in none of the {len(frames)} frames that count; leave it out"
            )
        objects[clip.name] = _build_sav_row(seen[1])
        if any(mixed for *_, mixed in frames):
            notes.add("masks with several values besides 0; each of them counts as inside", clip.name)
    return _build_sav_report("sav", SAV, objects, notes, (gt, pred))


def _build_sav_clip(name: str, truth: Path, pred: Path, counted: Counted, notes: Notes) -> VosClip:
    """A video, or an object with a folder of its own."""
    return build_vos_clip(name, truth / name, pred / name, counted(list_pngs(truth / name)), notes, (1,))


def _score_mask_frame(clip: VosClip, frame: str) -> tuple[Mapping[int, JF], Collection[int], bool]:
    found, truth = clip.read_masks(frame)
    return *_score_seen_objects(found, truth), found.mixed or truth.mixed


def evaluate_vos_benchmark(
    gt: Path,
    pred: Path,
    *,
    videos: Collection[str] | None = None,
    watch: Watch = discard_progress,
    counted: Counted = drop_first_and_last,
) -> Report:
    """J and F of vos-benchmark, over a folder of palette PNGs for each video.

    `videos`, `watch`, `counted` and errors are as in `evaluate_sav`, but `gt` (or its Annotations) and `pred` hold
    <video>/<frame>.png, in which a pixel's value is its object's id; a video without an object is only warned of.
    """
    truth, notes = find_truth_folder(gt, "Annotations"), Notes()
    clips = [
        _build_sav_clip(name, truth, pred, counted, notes) for name in list_video_names(truth, pred, videos, notes)
    ]
    objects: dict[str, Row] = {}
    for clip, frames in score_vos_clips(clips, _score_label_frame, "vos-benchmark", watch):
        seen = collect_from_first_sight(ids for ids, _ in frames)
        wanted = set[int]().union(*(there for _, there in frames))
        objects |= {f"{clip.name}/{i}": _build_sav_row(seen[i]) for i in sorted(wanted)}
        if not wanted:
            notes.add("no object in the frames that count, so the video adds nothing", clip.name)
        if seen.keys() - wanted:
            notes.add("ids that no annotation has are not counted", clip.name)
    return _build_sav_report("vos-benchmark", BENCHMARK, objects, notes, (truth, pred))


def _score_label_frame(clip: VosClip, frame: str) -> tuple[Mapping[int, JF], Collection[int]]:
    return _score_seen_objects(*clip.read(frame))


def _score_seen_objects(found: LabelFrame, truth: LabelFrame) -> tuple[Mapping[int, JF], Collection[int]]:
    """J and F of whatever is seen in a frame, and the ids that the truth has."""
    return score_frame_objects(found, truth, found.boxes.keys() | truth.boxes.keys()), truth.boxes.keys()


def collect_from_first_sight(frames: Iterable[Mapping[int, JF]]) -> dict[int, list[JF]]:
    """By object, J and F from the frame on in which it is first seen; where nobody sees it again, both are 1.

    >>> collect_from_first_sight([{}, {3: (0.0, 0.5)}, {}])
    {3: [(0.0, 0.5), (1.0, 1.0)]}
    """
    tracks: dict[int, list[JF]] = {}
    for scores in frames:
        for i in scores:
            tracks.setdefault(i, [])
        for i, values in tracks.items():
            values.append(scores.get(i, (1.0, 1.0)))
    return tracks


def _build_sav_report(
    metric: str, protocol: str, objects: dict[str, Row], notes: Notes, inputs: tuple[Path, ...]
) -> Report:
    videos = {name: compute_column_means(rows, COLUMNS) for name, rows in group_rows_by_video(objects).items()}
    return build_vos_report(
        metric, protocol, compute_column_means(objects.values(), COLUMNS), objects, videos, notes, inputs
    )


def _build_sav_row(values: Sequence[JF]) -> Row:
    j, f = (100 * sum(side) / len(values) for side in zip(*values, strict=True))
    return dict(zip(COLUMNS, ((j + f) / 2, j, f), strict=True))
