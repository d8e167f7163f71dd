"""MOTS's forms (KITTI MOTS, MOTSChallenge): lines of text, or 16 bit PNGs; an object is class * 1000 + instance.

What they cannot say: scores, things and stuff, frames per second, how a mask came about, and overlaps; where masks
overlap, the smallest is on top. The text names neither size nor length where nothing is seen. An id that begins with
its class already is written as it is, so what was read is written the same; others become class * 1000 + id.
Class 10 means regions to ignore (id 10000) and is no object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.files import read_text, write_atomically
from masklet.core.limits import check_frame_count, check_frame_size, parse_whole_number, quote_value
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, paint_mask_numbers
from masklet.core.tracks import Masklet
from masklet.io.formats.json_entry import Size, parse_coco_mask
from masklet.io.formats.label_png import Page, encode_png, read_label_pngs, split_label_image
from masklet.io.formats.split import (
    VideoObjects,
    build_video_result,
    find_category_id,
    index_categories,
    resolve_frame_names,
)

INSTANCES = 1000  # ids of a class
IGNORE = 10  # the class of what is not evaluated
CLASSES = {1: "car", 2: "pedestrian"}
MOST_CLASSES = 64
NUMBERED = {n: CLASSES.get(n, str(n)) for n in range(1, MOST_CLASSES + 1) if n != IGNORE}  # of files of any data set
FORM = "lines of 'frame id class height width run-lengths'"


def choose_mots_classes(result: VideoResult) -> dict[int, str]:
    """{number: name} of the classes of a result's objects: KITTI's own numbers of cars and pedestrians, who may be
    called "person", and free ones from 3 on for others.
    """
    used = list(dict.fromkeys(map(result.name_of, result.masklets)))
    walker = "pedestrian" if "pedestrian" in used else "person"
    others = [name for name in used if name not in ("car", walker)]
    free = (n for n in count(3) if n != IGNORE)
    return {1: "car", 2: walker, **dict(zip(free, others, strict=False))}


def compute_mots_ids(result: VideoResult, classes: Mapping[int, str] | None = None) -> dict[int, int]:
    """{masklet id: its id in MOTS's form, class * 1000 + instance}.

    Without `classes` (id: name) the categories are numbered from 1. Raises InputError where an id does not fit, two
    would be equal, or an object's class is not among the classes.
    """
    by_name = {name: id for id, name in classes.items()} if classes else index_categories([result])
    ids = {m.id: _convert_mots_id(result, m, find_category_id(result, m, by_name)) for m in result.masklets}
    twice = next((v for v in ids.values() if list(ids.values()).count(v) > 1), None)
    if twice is not None:
        raise InputError(f"{result.name}: two objects would have the id {twice}; number them from 1 to 999")
    return ids


def _convert_mots_id(result: VideoResult, masklet: Masklet, class_id: int) -> int:
    fits = 1 <= class_id <= MOST_CLASSES and class_id != IGNORE  # 16 bit
    if fits and masklet.id // INSTANCES == class_id:
        return masklet.id
    if not fits or not 0 <= masklet.id < INSTANCES:
        raise InputError(
            f"{result.name}: object {masklet.id} of class {class_id} does not fit; MOTS has instances 0 to 999 of "
            f"classes 1 to 64 without {IGNORE}"
        )
    return class_id * INSTANCES + masklet.id


def paint_mots_frames(result: VideoResult, ids: Mapping[int, int]) -> Iterator[Page]:
    """The label image of each frame: at every pixel the object's id in `ids` (by masklet id), 0 where there is none."""
    for frame in range(result.length):
        seen = result.at(frame)
        values = np.array([0, *(ids[m.id] for m, _ in seen)], np.uint16)
        yield values[paint_mask_numbers([s.mask for _, s in seen], result.size)]


def write_mots(result: VideoResult, path: Path, classes: Mapping[int, str] | None = None, first: int = 0) -> None:
    """Writes `result` to the text file `path`: one line per frame and object.

    Frames count from `first` (KITTI: 0, MOTSChallenge: 1); `classes` are id: name, without them the categories are
    numbered from 1. Raises InputError where an id or class does not fit, see `compute_mots_ids`.
    """
    ids = compute_mots_ids(result, classes)
    with write_atomically(path) as file:
        for frame, page in enumerate(paint_mots_frames(result, ids), start=first):
            for id, mask in split_label_image(page, (0,)):
                h, w = mask.size
                file.write(f"{frame} {id} {id // INSTANCES} {h} {w} {mask.counts.decode()}\n".encode())


def write_mots_pngs(
    result: VideoResult, folder: Path, names: Sequence[str] | None = None, classes: Mapping[int, str] | None = None
) -> None:
    """Writes `result` into a new `folder` as one 16 bit PNG per frame, 0 where there is no object.

    `names` are the frames' names without suffix, 00000 on where there are none; `classes` are id: name, without them
    the categories are numbered from 1.
    Raises InputError where `names` are not one for each frame, or an id or class does not fit, see `compute_mots_ids`.
    """
    ids, frames = compute_mots_ids(result, classes), resolve_frame_names(result, names)
    folder.mkdir()
    for name, page in zip(frames, paint_mots_frames(result, ids), strict=True):
        (folder / f"{name}.png").write_bytes(encode_png(Image.fromarray(page)))


def read_mots(
    path: Path,
    classes: Mapping[int, str] = CLASSES,
    first: int = 0,
    size: Size | None = None,
    length: int | None = None,
) -> VideoResult:
    """The objects of the text file `path`, under their full ids; its name without suffix is the video's.

    `classes` are the known ones, id: name; frames count from `first` (KITTI: 0, MOTSChallenge: 1). `size` (h, w) and
    `length` in frames are those of the lines unless given. Raises InputError naming the line that is malformed, of
    another size, beyond the length, of no known class, or given twice.
    """
    objects, known, end = _MotsObjects(classes), size, 0
    for n, line in enumerate(_read_mots_lines(path), start=1):
        where = f"{path}: line {n}"
        frame, id, class_id, shape, counts = _parse_mots_line(where, line)
        known = known or shape
        frame -= first
        if frame < 0 or (length is not None and frame >= length):
            raise InputError(f"{where}: object {id} in frame {frame + first}, which the video does not have")
        if id // INSTANCES != class_id:
            raise InputError(f"{where}: object {id} is said to be of class {class_id}; an id begins with its class")
        mask = parse_coco_mask(
            f"{where}: frame {frame + first}, object {id}", {"size": list(shape), "counts": counts}, known
        )
        objects.note(where, id, frame, mask)
        end = max(end, frame + 1)
    if known is None:
        raise InputError(f"{path}: no line in it, so the frames' size is not known; give it")
    return build_video_result(path.stem, known, length or end, objects.found, objects.names, path)


def read_mots_pngs(folder: Path, classes: Mapping[int, str] = CLASSES) -> VideoResult:
    """The objects of a folder of 16 bit images, under their full ids; the n-th image by name is frame n.

    Raises InputError naming the image that cannot be used or shows an object of no known class.
    """
    objects, length, size = _MotsObjects(classes), 0, (0, 0)
    for frame, page in enumerate(read_label_pngs(folder, ("I;16", "I"), "16 bit images of class * 1000 + instance")):
        length, size = frame + 1, page.shape
        for id, mask in split_label_image(page, (0,)):
            objects.note(f"{folder}: image {frame}", id, frame, mask)
    return build_video_result(folder.resolve().name, size, length, objects.found, objects.names, folder)


class _MotsObjects:
    """What is found while a video is read."""

    def __init__(self, classes: Mapping[int, str]) -> None:
        self.found, self.ids = VideoObjects(), sorted(classes)
        self.names = [classes[id] for id in self.ids]

    def note(self, where: str, id: int, frame: int, mask: Rle) -> None:
        """Adds the `mask` of object `id` (class * 1000 + instance) in a `frame`; regions to ignore are passed over.

        Raises InputError, beginning with `where`, where the class is not known or the object has a mask there already.
        """
        class_id = id // INSTANCES
        if class_id == IGNORE:
            return
        if class_id not in self.ids:
            known = ", ".join(f"{i} {n}" for i, n in zip(self.ids, self.names, strict=True))
            raise InputError(f"{where}: object {id} is of class {class_id}; known are {known}")
        if not self.found.add(id, frame, mask, label=self.ids.index(class_id)):
            raise InputError(f"{where}: object {id} is in this frame already; keep one of the lines")


def _read_mots_lines(path: Path) -> list[str]:
    return read_text(path, FORM).splitlines()


def _parse_mots_line(where: str, line: str) -> tuple[int, int, int, Size, Any]:
    fields = line.split()
    numbers = [n for n in map(parse_whole_number, fields[:5]) if n is not None]
    if len(fields) != 6 or len(numbers) != 5:
        raise InputError(f"{where}: {quote_value(line)} is not of the form {FORM}")
    frame, id, class_id, h, w = numbers
    check_frame_count(where, frame)
    return frame, id, class_id, check_frame_size(where, h, w), fields[5]
