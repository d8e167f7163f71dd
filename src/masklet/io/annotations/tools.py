"""Detections in the forms of annotation tools and data set libraries: CVAT, Label Studio, MOTChallenge, Parquet,
webdataset.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from masklet.core.annotations import DetectionSet, FoundObject, FrameEntry, FramePlace, Size
from masklet.core.errors import InputError
from masklet.core.instances import NAMELESS
from masklet.core.limits import (
    LARGEST_JSON,
    MOST_FRAMES,
    check_number,
    check_whole_number,
    is_finite_number,
    quote_value,
)
from masklet.core.rle import Rle, encode_polygons, merge_rles
from masklet.io.exports.cvat import CvatShape, read_cvat_shapes
from masklet.io.exports.hugging_face import import_pyarrow
from masklet.io.exports.label_studio import decode_brush
from masklet.io.formats.json_entry import JsonEntry, parse_coco_mask

Read = Callable[[Size], tuple[Rle | None, tuple[float, float, float, float] | None]]  # the mask, or the box x, y, w, h


class NamedObject(NamedTuple):
    """One object in one frame, before the names of all are known."""

    place: FramePlace
    name: str
    score: float  # 0 to 1
    read: Read
    size: Size | None = None  # h, w of the frame that it was made of, where the file says it


def build_detection_set(
    path: Path, objects: Sequence[NamedObject], listed: Iterable[FramePlace], hashes: Mapping[str, str]
) -> DetectionSet:
    """The detections of the file `path`: its `objects`, every frame `listed` in it, and its sha256 by name
    (`hashes`).
    """
    names = tuple(dict.fromkeys(o.name for o in objects)) or (NAMELESS,)
    entries = [
        FrameEntry(o.place, partial(_find_object, o, names.index(o.name)), o.size and partial(_get_size, o))
        for o in objects
    ]
    return DetectionSet(str(path), names, entries, list(listed), hashes)


def _get_size(found: NamedObject) -> Size:
    return found.size or (0, 0)


def _find_object(found: NamedObject, label: int, size: Size) -> Sequence[FoundObject]:
    mask, box = found.read(size)
    return [FoundObject(found.score, label, mask, box)]


# -- CVAT


def read_cvat(path: Path, hashes: Mapping[str, str]) -> DetectionSet:
    """CVAT's XML 1.1, for images or for video: masks, polygons and boxes. Raises InputError where it is none."""
    shapes, listed = read_cvat_shapes(path)
    objects = [
        NamedObject(
            _place_cvat(same[0].name, same[0].frame), same[0].label, 1.0, partial(_read_cvat, same), same[0].size
        )
        for same in _group_cvat_shapes(shapes)
    ]
    return build_detection_set(path, objects, (_place_cvat(*place) for place in listed), hashes)


def _group_cvat_shapes(shapes: Sequence[CvatShape]) -> list[list[CvatShape]]:
    """The shapes by object: in one image, masks and polygons of one label and one group are one, as in CVAT's COCO."""
    groups: dict[Any, list[CvatShape]] = {}
    for n, shape in enumerate(shapes):
        alone = not shape.group or shape.element.tag == "box"
        groups.setdefault(n if alone else (shape.name, shape.label, shape.group), []).append(shape)
    return list(groups.values())


def _read_cvat(shapes: Sequence[CvatShape], size: Size) -> Shape:
    """One object of several shapes, or of one."""
    found = [shape.read(size) for shape in shapes]
    masks = [mask for mask, _ in found if mask is not None]
    return (merge_rles(masks), None) if len(masks) > 1 else found[0]


def _place_cvat(name: str | None, frame: int | None) -> FramePlace:
    """An image of a folder is of the video that the folder is called."""
    folder = str(PurePosixPath(name).parent) if name and "/" in name else None
    return FramePlace(folder, frame, None, name)


# -- Label Studio


def is_label_studio(content: Any) -> bool:
    """Whether a json's content is a list of Label Studio's tasks."""
    return isinstance(content, list) and any(
        isinstance(t, dict) and "data" in t and "annotations" in t for t in content
    )


def read_label_studio(path: Path, content: Any, hashes: Mapping[str, str]) -> DetectionSet:
    """Label Studio's tasks, the `content` of the file `path` with its sha256 by name (`hashes`): brush masks, polygons
    and rectangles of images, and rectangles of videos, between whose key frames the box is mixed. Raises InputError
    where an answer is none of these.
    """
    tasks = [JsonEntry(f"{path}: task {n}", task) for n, task in enumerate(content)]
    objects: list[NamedObject] = []
    listed: list[FramePlace] = []
    for task in tasks:
        place = _place_task(task)
        listed += [place] if place is not None else []
        for annotation in task.entries("annotations"):
            for answer in annotation.entries("result"):
                objects += _read_answer(answer, place, task)
    return build_detection_set(path, objects, [*listed, *(o.place for o in objects)], hashes)


def _place_task(task: JsonEntry) -> FramePlace | None:
    """The frame that a task is of; None where it is a video."""
    data = task.entry("data")
    image = data.content.get("image")
    if image is None:
        return None
    if "frame" in data and "video" in data:
        return FramePlace(data.text("video"), data.whole("frame"))
    return FramePlace(name=data.text("image"))


def _read_answer(answer: JsonEntry, place: FramePlace | None, task: JsonEntry) -> Iterator[NamedObject]:
    kind, value = answer.text("type"), answer.entry("value")
    score = answer.number("score", 1.0)
    if kind == "videorectangle":
        name = PurePosixPath(task.entry("data").text("video").replace("=", "/")).stem
        label = value.texts("labels")[0]
        for frame, box in _iterate_video_boxes(list(value.entries("sequence"))):
            yield NamedObject(FramePlace(name, frame), label, 1.0, partial(_scale_box, box))
    elif kind in READERS and place is not None:
        labels = value.texts(kind) or [NAMELESS]
        size = answer.find_size("original_height", "original_width")
        yield NamedObject(place, labels[0], score, partial(_read_shape, READERS[kind], value), size)
    elif kind.endswith("labels"):
        raise answer.wrong(f"an answer of kind {kind!r}; brush masks, polygons and rectangles are read")


def _iterate_video_boxes(keys: Sequence[JsonEntry]) -> Iterator[tuple[int, np.ndarray]]:
    """The boxes of a video's object by frame from 0: x, y, width and height in hundredths of the frame."""
    numbers = [check_whole_number(key.where, "'frame'", key.get("frame"), MOST_FRAMES) for key in keys]
    boxes = [(n - 1, _read_percents(k), k.content.get("enabled", True)) for n, k in zip(numbers, keys, strict=True)]
    boxes.sort(key=lambda b: b[0])
    for (a, first, on), (b, last, _) in pairwise(boxes):
        for t in range(a, b if on else a + 1):
            yield t, first + (last - first) * ((t - a) / (b - a))
    if boxes:
        yield boxes[-1][0], boxes[-1][1]


def _read_percents(entry: JsonEntry) -> np.ndarray:
    return np.array([entry.number(key) for key in ("x", "y", "width", "height")])


def _scale_box(box: np.ndarray, size: Size) -> tuple[None, tuple[float, float, float, float]]:
    x, y, w, h = (float(v) for v in box * np.array([size[1], size[0]] * 2) / 100)
    return None, (x, y, w, h)


Shape = tuple[Rle | None, tuple[float, float, float, float] | None]


def _read_shape(read: Callable[[JsonEntry, Size], Shape], value: JsonEntry, size: Size) -> Shape:
    try:
        return read(value, size)
    except ValueError as error:
        raise value.wrong(str(error)) from None


def _read_brush(value: JsonEntry, size: Size) -> Shape:
    return Rle.encode_pixels(decode_brush(value.get("rle"), size)), None


def _read_polygon(value: JsonEntry, size: Size) -> Shape:
    corners = [v for point in value.items("points") for v in (point if isinstance(point, list) else [point])]
    if len(corners) % 2 or not all(map(is_finite_number, corners)):
        raise ValueError("'points' must be pairs of numbers")
    shares = np.array(corners, float).reshape(-1, 2) * (size[1], size[0]) / 100
    return encode_polygons([shares.ravel().tolist()], size), None


def _read_rectangle(value: JsonEntry, size: Size) -> Shape:
    return _scale_box(_read_percents(value), size)


READERS: Mapping[str, Callable[[JsonEntry, Size], Shape]] = {
    "brushlabels": _read_brush,
    "polygonlabels": _read_polygon,
    "rectanglelabels": _read_rectangle,
}


# -- MOTChallenge


def read_mot(path: Path, lines: Sequence[str], hashes: Mapping[str, str]) -> DetectionSet:
    """MOTChallenge's `lines` of boxes, of the file `path` with its sha256 by name (`hashes`): frame, id, left, top,
    width, height, score, ..., all counted from 1; a score of -1 is none. Raises InputError naming the line that is
    none.
    """
    objects = []
    for n, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}: line {n}"
            frame, x, y, w, h, score = _parse_mot_line(where, line)
            read = partial(_give_box, (x - 1, y - 1, w, h))
            objects.append(NamedObject(FramePlace(index=frame - 1), NAMELESS, score, read))
    return build_detection_set(path, objects, [o.place for o in objects], hashes)


def _parse_mot_line(where: str, line: str) -> tuple[int, float, float, float, float, float]:
    try:
        frame, _, *rest = (float(v) for v in line.split(","))
        x, y, w, h = (check_number(where, "a number", v) for v in rest[:4])
    except ValueError:
        raise InputError(f"{where}: frame, id, left, top, width, height are needed, not {quote_value(line)}") from None
    score = rest[4] if len(rest) > 4 and 0 <= rest[4] <= 1 else 1.0
    if frame < 1 or frame % 1:
        raise InputError(f"{where}: the frame must be a whole number from 1 on, not {quote_value(line)}")
    return int(frame), x, y, w, h, score


def _give_box(box: tuple[float, float, float, float], size: Size) -> Shape:
    return None, box


# -- frames as entries


def read_parquet(path: Path, hashes: Mapping[str, str]) -> DetectionSet:
    """The Parquet file that `masklet export hf` writes. Raises InputError where it is none, or there is no pyarrow."""
    arrow = import_pyarrow()
    columns = ["video", "frame", "height", "width", "objects"]
    try:
        rows = arrow.parquet.read_table(path, columns=columns).to_pylist()
    except (arrow.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path}: not the Parquet of masklet export hf ({error})") from None
    return read_frame_entries(path, rows, hashes)


def read_tar(path: Path, hashes: Mapping[str, str]) -> DetectionSet:
    """A tar that `masklet export webdataset` writes. Raises InputError where it is none."""
    rows = []
    try:
        with tarfile.open(path, "r:") as shard:  # packed ones may unpack to anything
            for member in shard:
                if member.isfile() and member.name.endswith(".json") and member.size < LARGEST_JSON:
                    file = shard.extractfile(member)
                    rows.append(json.load(file) if file else None)
    except (tarfile.TarError, OSError, ValueError, RecursionError, EOFError) as error:
        raise InputError(f"{path}: not a tar of masklet export webdataset ({error})") from None
    return read_frame_entries(path, rows, hashes)


def read_frame_entries(path: Path, rows: Iterable[Any], hashes: Mapping[str, str]) -> DetectionSet:
    """Frames as `io.exports.frame_entry` has them, the `rows` of the file `path` with its sha256 by name (`hashes`)."""
    frames = [JsonEntry(f"{path}: frame {n}", row) for n, row in enumerate(rows)]
    places = [FramePlace(frame.text("video"), frame.whole("frame")) for frame in frames]
    objects = [
        NamedObject(
            place, one.text("name"), one.number("score"), partial(_read_counts, one, frame.size()), frame.size()
        )
        for place, frame in zip(places, frames, strict=True)
        for one in frame.entries("objects")
    ]
    return build_detection_set(path, objects, places, hashes)


def _read_counts(one: JsonEntry, own: Size, size: Size) -> Shape:
    return parse_coco_mask(one.where, {"size": list(own), "counts": one.text("counts")}, size), None
