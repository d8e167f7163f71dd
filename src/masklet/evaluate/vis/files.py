"""Video AP over the files that are handed in: ground truth and results as YouTube-VIS, OVIS and LVIS have them.

A video is meant by its id and a frame by its place in the list, which is all that these files say; files whose lists
are not as long as the video, or of other videos, are warned of or refused. Predicted masks stay on the disk until
their video is scored, so that memory does not grow with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from masklet.core.cores import count_usable_cores
from masklet.core.errors import InputError
from masklet.core.progress import Watch
from masklet.core.rle import Rle
from masklet.evaluate.json_stream import Span, encode_object_masks, read_entry_at, stream_json_entries
from masklet.evaluate.vis.average_precision import (
    PredictedObject,
    TrueObject,
    VisVideo,
    compute_mean_area,
    compute_occlusion_score,
)
from masklet.evaluate.vis.tubes import Tube, decode_tubes
from masklet.evaluate.workers import run_in_order
from masklet.io.formats.json_entry import JsonEntry, read_json_object
from masklet.io.formats.split import read_categories

LEVELS = {"no_occlusion": 0.0, "slight_occlusion": 0.25, "severe_occlusion": 0.75}  # OVIS
DOUBT = 0.01  # share by which an object's area in the file may differ from that of its masks
J = TypeVar("J")  # what is made of a video, such as a group of matches
Judge = Callable[[VisVideo], list[J]]
Names = Collection[str | int]


def read_no_occlusion(annotation: JsonEntry) -> float:
    """The level of occlusion where a data set has none."""
    return 0.0


def read_ovis_occlusion(annotation: JsonEntry) -> float:
    """The level of an object of OVIS. Raises InputError where its frames' levels are missing or unknown."""
    words = annotation.items("occlusion")
    unknown = [w for w in words if w is not None and w not in LEVELS]
    if unknown or len(words) != len(annotation.items("segmentations")) or not any(words):
        raise annotation.wrong(
            f"'occlusion' must be null or one of {', '.join(LEVELS)} for every frame, not always null"
        )
    return compute_occlusion_score([LEVELS[w] for w in words if w is not None])


@dataclass(frozen=True)
class VisFileFormat:
    """How a data set's files call things."""

    unit: str
    masks: str
    areas: str
    listed: Callable[[Any], Any]  # from what stands under `masks` and `areas` to one of it for every frame
    level: Callable[[JsonEntry], float] = read_no_occlusion
    cuts: bool = True  # whether of two lists of masks the longer one is cut, or both must be as long as the video

    @property
    def key(self) -> str:
        """What an entry calls its video by."""
        return f"{self.unit}_id"


YOUTUBE_VIS = VisFileFormat("video", "segmentations", "areas", lambda value: value)
OVIS = VisFileFormat("video", "segmentations", "areas", lambda value: value, read_ovis_occlusion, cuts=False)
LVIS = VisFileFormat("image", "segmentation", "area", lambda value: [value])


@dataclass(frozen=True)
class VisObject:
    """One object of a file."""

    where: str
    category: int
    number: int  # its place in the file
    span: Span | None  # of a predicted one, whose masks are still there
    masks: list[Any] = field(default_factory=list)  # of a true one, as the file has them
    areas: Sequence[float | None] = ()  # likewise
    id: int = 0
    ignored: bool = False
    crowd: bool = False
    occlusion: float = 0.0
    score: float = 0.0  # of a predicted one
    excused: bool = False


@dataclass(frozen=True)
class VisClip:
    """One video of the ground truth, or one image, and the objects of it."""

    name: str
    size: tuple[int, int]  # h, w
    frames: int | None  # where the file says so
    entry: JsonEntry
    truths: list[VisObject] = field(default_factory=list)
    found: list[VisObject] = field(default_factory=list)


@dataclass
class VisDataset:
    """What two files say, but for the masks."""

    form: VisFileFormat
    gt: Path
    pred: Path
    clips: dict[int, VisClip]  # that count, by rising id
    others: frozenset[int]  # videos that do not
    categories: dict[int, str]
    frequencies: dict[int, str]  # of LVIS: r, c or f
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # what to warn of: where it is

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each kind of thing that the official program would have accepted in silence."""
        more = {
            what: f" ({len(found) - 1} more like it)" if len(found) > 1 else "" for what, found in self.notes.items()
        }
        return tuple(f"{found[0]}: {what}{more[what]}" for what, found in self.notes.items())


def read_vis_dataset(gt: Path, pred: Path, form: VisFileFormat, videos: Names | None = None) -> VisDataset:
    """Reads and checks the ground truth `gt` and the results `pred`, in the `form` of their data set.

    Predicted masks stay in the file. `videos` are those to score, by their ids or names (None: all). Raises InputError
    naming the file and the entry that cannot be used.
    """
    data = _read_vis_truth(gt, pred, form, videos)
    for number, (content, span) in enumerate(stream_json_entries(pred)):
        _add_prediction(JsonEntry(f"{pred}: [{number}]", content), number, span, data)
    silent = [clip.name for clip in data.clips.values() if not clip.found]
    if silent:
        data.notes[f"no prediction for {form.unit} {silent[0]}"] = [str(pred)] * len(silent)
    return data


def _read_vis_truth(gt: Path, pred: Path, form: VisFileFormat, videos: Names | None) -> VisDataset:
    content = read_json_object(
        gt, f"a ground truth json with {form.unit}s", f"{form.unit}s", "categories", "annotations"
    )
    clips, categories = _read_vis_clips(content, form), read_categories(content)
    letters = {c["id"]: str(c.get("frequency", "")) for c in content.items("categories")}
    chosen = _select_videos(gt, clips, videos, form)
    counted = {id: clips[id] for id in sorted(clips) if id in chosen}
    data = VisDataset(form, gt, pred, counted, frozenset(clips) - chosen, categories, letters)
    ids: set[int] = set()
    for annotation in content.entries("annotations"):
        if annotation.whole("id") in ids:
            raise annotation.wrong(f"the annotation id {annotation.whole('id')} is given twice; keep one of them")
        ids.add(annotation.whole("id"))
        _add_annotation(annotation, data)
    return data


def _read_vis_clips(content: JsonEntry, form: VisFileFormat) -> dict[int, VisClip]:
    clips: dict[int, VisClip] = {}
    for entry in content.entries(f"{form.unit}s"):
        id = entry.whole("id")
        if id in clips:
            raise entry.wrong(f"the {form.unit} id {id} is given twice; keep one of them")
        frames = entry.whole("length") if "length" in entry else None
        clips[id] = VisClip(_infer_video_name(entry, id), entry.size(), frames, entry)
    if len({clip.name for clip in clips.values()}) == len(clips):
        return clips
    return {id: VisClip(str(id), clip.size, clip.frames, clip.entry) for id, clip in clips.items()}


def _infer_video_name(entry: JsonEntry, id: int) -> str:
    files = entry.texts("file_names") if "file_names" in entry else []
    return (PurePosixPath(files[0]).parent.name if files else "") or str(id)


def _select_videos(gt: Path, clips: Mapping[int, VisClip], videos: Names | None, form: VisFileFormat) -> frozenset[int]:
    if videos is None:
        return frozenset(clips)
    names = {clip.name: id for id, clip in clips.items()}
    named: dict[str | int, int] = {key: id for id in clips for key in (id, str(id))}
    named.update(names.items())
    unknown = [v for v in videos if v not in named]
    if unknown:
        raise InputError(f"{gt}: no {form.unit} {unknown[0]!r}; there are {', '.join(names):.80}")
    return frozenset(named[v] for v in videos)


def _find_clip_and_category(entry: JsonEntry, data: VisDataset) -> tuple[VisClip | None, int]:
    """The video of an entry, None where that does not count, and its category."""
    id, category = entry.whole(data.form.key), entry.whole("category_id")
    if id not in data.clips and id not in data.others:
        raise entry.wrong(f"{data.form.unit} {id} is not in {data.gt}")
    if category not in data.categories:
        raise entry.wrong(f"category {category} is not in {data.gt}")
    return data.clips.get(id), category


def _check_length(entry: JsonEntry, clip: VisClip, data: VisDataset) -> None:
    masks = data.form.listed(entry.get(data.form.masks))
    if not isinstance(masks, list):
        raise entry.wrong(f"{data.form.masks!r} must be a list with a mask or null for every frame, not {masks!r:.40}")
    frames = clip.frames if clip.frames is not None else len(masks)
    if len(masks) != frames and not data.form.cuts:
        raise entry.wrong(f"{len(masks)} masks for {frames} frames")
    if len(masks) != frames:
        data.notes["as many masks as the video has frames are not there; of two lists the longer one is cut"].append(
            f"{entry.where}: {len(masks)} masks for {frames} frames"
        )


def _add_annotation(entry: JsonEntry, data: VisDataset) -> None:
    clip, category = _find_clip_and_category(entry, data)
    if clip is None:
        return
    id, crowd, form = entry.whole("id"), bool(entry.content.get("iscrowd")), data.form
    areas = form.listed(entry.get(form.areas))
    if not isinstance(areas, list) or not all(a is None or type(a) in (int, float) for a in areas):
        raise entry.wrong(f"{form.areas!r} must be numbers, null where the object is absent")
    if id == 0:
        data.notes["id 0; as in the official program, what finds this object counts as wrong"].append(entry.where)
    # LVIS has no crowds, and a flag of its own for what does not count.
    ignored, crowd = (bool(entry.content.get("ignore")), False) if form is LVIS else (crowd, crowd)
    _check_length(entry, clip, data)
    place, masks = len(clip.truths), form.listed(entry.get(form.masks))
    clip.truths.append(
        VisObject(entry.where, category, place, None, masks, areas, id, ignored, crowd, form.level(entry))
    )


def _add_prediction(entry: JsonEntry, number: int, span: Span, data: VisDataset) -> None:
    clip, category = _find_clip_and_category(entry, data)
    score = entry.number("score")
    if clip is not None:
        _check_length(entry, clip, data)
        clip.found.append(VisObject(entry.where, category, number, span, score=score))


def score_vis_clips(data: VisDataset, judging: Judge[J], watch: Watch) -> list[J]:
    """Decodes the videos of `data`, a few at a time, and returns all that `judging` makes of them, in order.

    `watch` is told ("scoring", videos done, videos in all, groups so far); what is to be warned of goes to the notes of
    `data`. Raises InputError where a mask is damaged.
    """
    groups: list[J] = []
    with data.pred.open("rb") as file, ThreadPoolExecutor(count_usable_cores()) as pool:
        work = partial(_score_vis_clip, data.form, judging, file.fileno())
        for done, (found, notes) in enumerate(
            run_in_order(pool, work, data.clips.values(), 2 * count_usable_cores()), start=1
        ):
            groups += found
            for what, where in notes:
                data.notes[what].append(where)
            watch("scoring", done, len(data.clips), len(groups))
    return groups


def _score_vis_clip(
    form: VisFileFormat, judging: Judge[J], file: int, clip: VisClip
) -> tuple[list[J], list[tuple[str, str]]]:
    there = _decode_object_tubes(clip.truths, [o.masks for o in clip.truths], clip)
    read = [form.listed(read_entry_at(file, o.span)[form.masks]) for o in clip.found if o.span]
    found = _decode_object_tubes(clip.found, read, clip)
    truths = [
        TrueObject(o.id, o.category, tube, compute_mean_area(o.areas), o.ignored, o.crowd, o.occlusion)
        for o, tube in zip(clip.truths, there, strict=True)
    ]
    predictions = [
        PredictedObject(o.category, tube, tube.area, o.score, o.excused)
        for o, tube in zip(clip.found, found, strict=True)
    ]
    notes = [note for o, tube in zip(clip.truths, there, strict=True) for note in _list_area_doubts(o, tube, form)]
    return judging(VisVideo(clip.name, clip.size, truths, predictions)), notes


def _list_area_doubts(truth: VisObject, tube: Tube, form: VisFileFormat) -> Iterable[tuple[str, str]]:
    if not tube.areas.any():
        yield "no pixel in any frame; the object counts and cannot be found", truth.where
        return
    if abs(compute_mean_area(truth.areas) - tube.area) > DOUBT * tube.area:
        yield (
            f"{form.areas!r} does not agree with the masks; as in the official program, it tells the size",
            truth.where,
        )


def _decode_object_tubes(objects: Sequence[VisObject], listed: Sequence[list[Any]], clip: VisClip) -> list[Tube]:
    held = [encode_object_masks(o.where, masks, clip.size) for o, masks in zip(objects, listed, strict=True)]
    try:
        return decode_tubes(held, clip.size[0] * clip.size[1])
    except ValueError:
        raise _explain_damage(objects, held, clip) from None


def _explain_damage(objects: Sequence[VisObject], held: Sequence[Sequence[bytes | None]], clip: VisClip) -> InputError:
    """The first mask that does not decode, as an error to raise."""
    for found, counts in zip(objects, held, strict=True):
        for t, mask in enumerate(counts):
            try:
                _ = mask is None or Rle.checked(clip.size, mask)
            except ValueError as error:
                return InputError(f"{found.where}: frame {t}: {error}")
    return InputError(f"{objects[0].where}: run lengths that do not decode")
