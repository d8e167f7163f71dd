"""J, F and V of LVOS, whose objects each have their own range of frames and count apart as seen and unseen kinds.

Hong et al., LVOS: A Benchmark for Long-term Video Object Segmentation, ICCV 2023. Numbers are those of the program
lvos-evaluation (semi-supervised); the golden test compares with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from masklet.core.errors import InputError
from masklet.core.limits import check_frame_count, parse_whole_number, quote_value
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report
from masklet.evaluate.vos.files import (
    Notes,
    VosClip,
    build_vos_clip,
    build_vos_report,
    compute_column_means,
    group_rows_by_video,
    list_pngs,
    list_video_names,
    replace_nan,
    score_vos_clips,
)
from masklet.evaluate.vos.measures import JF, DavisStatistics, drop_first_and_last, score_frame_objects
from masklet.io.formats.json_entry import JsonEntry, read_json_object

STEP = 5  # every fifth frame is annotated
COLUMNS = ("J", "F", "V", "J-Recall", "J-Decay", "F-Recall", "F-Decay")
PROTOCOL = (
    "lvos-evaluation, semi-supervised: J&F is the mean of four numbers (J and F of seen and of unseen videos), 0 to 1; "
    "of each object's own range of frames the first and last do not count; void (255) stays in the truth; decay is "
    "always 0, as in the program"
)


@dataclass(frozen=True)
class ObjectSpan:
    """An object's frames that count, and what their sums are divided by."""

    frames: tuple[str, ...]
    divisor: int


def evaluate_lvos(
    gt: Path,
    pred: Path,
    *,
    unseen: Collection[str],
    videos: Collection[str] | None = None,
    watch: Watch = discard_progress,
) -> Report:
    """J, F and V (how much they vary) of LVOS, as the program lvos-evaluation computes them.

    Args:
        gt: val_meta.json, or what else the split's is called, and Annotations/<video>/<frame>.png, palette PNGs.
        pred: <video>/<frame>.png.
        unseen: videos whose kind of object no training video has (the benchmark's own list).
        videos: those to evaluate; None: all of the meta file.
        watch: told of progress, in frames.

    Raises:
        InputError: a file is missing, cannot be read or does not fit; the meta file does not say what it must.
    """
    meta = find_meta_file(gt)
    told_of = read_json_object(meta, "LVOS's list of videos", "videos").entry("videos")
    truth, notes = gt / "Annotations", Notes()
    names = list_video_names(truth, pred, videos, notes, list(told_of))
    spans = {name: _read_spans(told_of.entry(name), truth / name, notes) for name in names}
    clips = [_build_lvos_clip(name, truth, pred, spans[name], notes) for name in names]
    objects: dict[str, dict[str, float]] = {}
    for clip, frames in score_vos_clips(
        clips, lambda clip, frame: _score_lvos_frame(clip, frame, spans[clip.name]), "lvos", watch
    ):
        for i, span in spans[clip.name].items():
            objects[f"{clip.name}/{i}"] = _build_lvos_row(
                [scores[i] for scores, _ in frames if i in scores], span.divisor
            )
        if any(more for _, more in frames):
            notes.add("ids that the meta file does not have are not counted", clip.name)
    return _build_lvos_report(objects, set(unseen), notes, (meta, truth, pred))


def find_meta_file(gt: Path) -> Path:
    """The meta file of a folder, of several that of the folder's name; that of expressions does not count. InputError
    where there is none, or it cannot be told which.
    """
    found = sorted(path for path in gt.glob("*meta.json") if not path.name.endswith("expression_meta.json"))
    own = [path for path in found if path.name.removesuffix("_meta.json") in (gt.resolve().name, "val", "valid")]
    for some in (found, own):
        if len(some) == 1:
            return some[0]
    raise InputError(f"{gt}: {len(found)} files *meta.json; give the folder with one of them and Annotations")


def _read_spans(video: JsonEntry, truth: Path, notes: Notes) -> dict[int, ObjectSpan]:
    """Each object's frames: start, start + 5, ... up to before its end, but for the first and last."""
    listed = [name for name in list_pngs(truth) if Path(name).stem.isdecimal()]
    files = {int(Path(name).stem): name for name in listed}
    if len(files) < len(listed):
        raise InputError(f"{truth}: two annotations have one number; keep one of each")
    spans = {}
    objects = video.entry("objects")
    for key in objects:
        bounds = objects.entry(key).entry("frame_range")
        start, end, count = (_read_whole_number(bounds, name) for name in ("start", "end", "frame_nums"))
        times = drop_first_and_last(range(start, end, STEP))
        if not times or count < 3 or any(t not in files for t in times):
            raise bounds.wrong(f"{count} frames from {start} to before {end} are not to be had from {truth}")
        if count - 2 != len(times):
            notes.add("frame_nums is not the number of frames, but means are made with it", f"{truth.name}/{key}")
        spans[_read_object_id(objects, key)] = ObjectSpan(tuple(files[t] for t in times), count - 2)
    return spans


def _read_whole_number(entry: JsonEntry, key: str) -> int:
    """A whole number, which these files hold as a text."""
    value = parse_whole_number(str(entry.get(key)))
    if value is None:
        raise entry.wrong(f"{key!r} must be a whole number from 0 on, not {quote_value(entry.get(key))}")
    return check_frame_count(f"{entry.where}: {key}", value)


def _read_object_id(objects: JsonEntry, key: str) -> int:
    if not 1 <= (parse_whole_number(key) or 0) <= 255:
        raise objects.wrong(f"{key!r:.40} is no id of an object; ids are 1 to 255")
    return int(key)


def _build_lvos_clip(name: str, truth: Path, pred: Path, spans: Mapping[int, ObjectSpan], notes: Notes) -> VosClip:
    frames = sorted({frame for span in spans.values() for frame in span.frames})
    return build_vos_clip(name, truth / name, pred / name, frames, notes, sorted(spans))


def _score_lvos_frame(clip: VosClip, frame: str, spans: Mapping[int, ObjectSpan]) -> tuple[dict[int, JF], bool]:
    """J and F of the objects in whose range the frame is, and whether the prediction has others."""
    found, truth = clip.read(frame)
    ids = [i for i, span in spans.items() if frame in span.frames]
    return score_frame_objects(found, truth, ids), bool(found.boxes.keys() - set(clip.objects))


def _build_lvos_row(values: Sequence[JF], divisor: int) -> dict[str, float]:
    j, f = np.array(values).T
    spread = math.sqrt(round(float(((j + f) / 2).var()), 4))
    recalls = DavisStatistics.of(j).recall, 0.0, DavisStatistics.of(f).recall, 0.0
    return dict(zip(COLUMNS, (float(j.sum()) / divisor, float(f.sum()) / divisor, spread, *recalls), strict=True))


def _build_lvos_report(
    objects: Mapping[str, Mapping[str, float]], unseen: Collection[str], notes: Notes, inputs: tuple[Path, ...]
) -> Report:
    per_video = group_rows_by_video(objects)
    kinds = {
        "seen": [row for name, rows in per_video.items() if name not in unseen for row in rows],
        "unseen": [row for name, rows in per_video.items() if name in unseen for row in rows],
    }
    parts = {kind: compute_column_means(rows, ("J", "F", "V")) for kind, rows in kinds.items()}
    notes.add("no such video is evaluated, so J&F is undefined", *(kind for kind, rows in kinds.items() if not rows))
    scores = {f"{measure}-{kind}": parts[kind][measure] for measure in ("J", "F", "V") for kind in kinds}
    mean = float(np.mean([scores[f"{measure}-{kind}"] for measure in ("J", "F") for kind in kinds]))
    videos = {name: compute_column_means(rows, COLUMNS) for name, rows in per_video.items()}
    made = build_vos_report("lvos", PROTOCOL, {"J&F-Mean": mean, **scores}, objects, videos, notes, inputs)
    return replace(made, parts={kind: replace_nan(row) for kind, row in parts.items()})
