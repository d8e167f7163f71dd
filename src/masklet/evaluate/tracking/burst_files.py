"""Files in BURST's form, read as its evaluation reads them.

A file holds 'sequences', each with annotated_image_paths, one object {track: {"rle", "score"}} for every frame in
'segmentations', and track_category_ids. The ground truth also says which categories are known to be absent and which
are not labelled exhaustively.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from pycocotools import mask as coco

from masklet.core.errors import InputError
from masklet.core.limits import parse_whole_number
from masklet.core.rle import Rle
from masklet.evaluate.vis.tubes import decode_tubes
from masklet.io.formats.json_entry import JsonEntry, read_json_object
from masklet.io.formats.split import read_categories

GT_FORM = "BURST's ground truth with 'sequences' and 'split'"
PRED_FORM = "predictions in BURST's form, with 'sequences'"
MOST = 300  # predictions that count in a frame, the surest ones

# Facts of TAO's categories: those that are no class of their own, those that COCO has too, and parts of others.
# fmt: off
DISTRACTORS = frozenset({
    20, 63, 108, 180, 188, 204, 212, 247, 303, 403, 407, 415, 490, 504, 507, 513, 529, 567, 569, 588, 672, 691, 702,
    708, 711, 720, 736, 737, 798, 813, 815, 827, 831, 851, 877, 883, 912, 971, 976, 1130, 1133, 1134, 1169, 1184, 1220,
})
COMMON = frozenset({
    4, 13, 34, 35, 36, 41, 45, 58, 60, 78, 79, 81, 91, 95, 99, 118, 126, 133, 139, 154, 174, 185, 211, 221, 229, 235,
    237, 276, 299, 347, 371, 382, 392, 428, 429, 452, 475, 480, 502, 544, 579, 621, 625, 642, 699, 714, 717, 729, 747,
    779, 805, 829, 852, 896, 926, 937, 961, 979, 980, 982, 993, 1001, 1018, 1038, 1057, 1091, 1097, 1099, 1115, 1117,
    1122, 1132, 1135, 1144, 1155, 1162, 1215, 1229,
})
# fmt: on
PART_OF = {504: 347, 720: 347, 912: 529, 967: 529, 207: 554, 153: 943, 201: 1175}

Row = tuple[int, int, float, Mapping[str, Any]]  # track, category, score, mask as pycocotools has it


@dataclass(frozen=True)
class BurstFrame:
    """What one side says of one frame."""

    tracks: Int64[np.ndarray, " n"]
    categories: Int64[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]
    masks: list[Mapping[str, Any]]
    boxes: Float[np.ndarray, "n 4"]  # x, y, w, h

    @staticmethod
    def of(rows: Sequence[Row]) -> BurstFrame:
        """The shapes of a frame, in their order."""
        tracks, categories, scores, masks = zip(*rows, strict=True) if rows else ((), (), (), ())
        boxes = np.trunc(coco.toBbox(list(masks))) if masks else np.zeros((0, 4))
        return BurstFrame(
            np.array(tracks, np.int64), np.array(categories, np.int64), np.array(scores, float), list(masks), boxes
        )


@dataclass(frozen=True)
class BurstFile:
    """One file's sequences by name, dataset/sequence."""

    path: Path
    split: str | None
    sequences: Mapping[str, JsonEntry]
    names: Mapping[int, str] = field(default_factory=dict)  # of the categories, where the file lists them


def read_burst_file(path: Path, form: str) -> BurstFile:
    """Raises InputError where the file is not of its form or lists a sequence twice."""
    file = read_json_object(path, form, "sequences")
    sequences: dict[str, JsonEntry] = {}
    for entry in file.entries("sequences"):
        name = f"{entry.text('dataset')}/{entry.text('seq_name')}"
        if name in sequences:
            raise entry.wrong(f"the sequence {name} is listed twice; keep one of them")
        sequences[name] = entry
    names = read_categories(file) if "categories" in file else {}
    return BurstFile(path, file.text("split") if "split" in file else None, sequences, names)


@dataclass(frozen=True)
class BurstTruth:
    """The ground truth of one sequence, distractors left out."""

    frames: Mapping[str, BurstFrame]
    absent: frozenset[int]  # categories known not to be there
    sketchy: frozenset[int]  # categories that are not labelled exhaustively


def read_burst_truth(sequence: JsonEntry) -> BurstTruth:
    """Raises InputError, naming the entry, where one is missing or damaged."""
    frames = {
        image: BurstFrame.of([_merge_category(row) for row in rows if row[1] not in DISTRACTORS])
        for image, rows in _read_burst_frames(sequence, sequence.size())
    }
    absent, sketchy = (frozenset(sequence.items(f"{kind}_category_ids")) for kind in ("neg", "not_exhaustive"))
    return BurstTruth(frames, absent, sketchy)


def read_burst_predictions(
    sequence: JsonEntry | None, size: tuple[int, int], images: Collection[str]
) -> dict[str, BurstFrame]:
    """The predictions in the frames `images` of a sequence of `size` (h, w); frames that only the file has are skipped.

    Of each frame the 300 of highest score stay; without a `sequence` there are none. Raises InputError, naming the
    entry, where one is missing or damaged.
    """
    if sequence is None:
        return {}
    if {"height", "width"} <= sequence.content.keys() and sequence.size() != size:
        own = sequence.size()
        raise sequence.wrong(f"{own[0]} x {own[1]} pixels (h, w), the ground truth has {size[0]} x {size[1]}")
    frames = {}
    for image, rows in _read_burst_frames(sequence, size, images):
        kept = rows if len(rows) <= MOST else sorted(rows, key=lambda row: -row[2])[:MOST]
        frames[image] = BurstFrame.of([_merge_category(row) for row in kept])
    return frames


def _merge_category(row: Row) -> Row:
    return row[0], PART_OF.get(row[1], row[1]), *row[2:]


def _read_burst_frames(
    sequence: JsonEntry, size: tuple[int, int], images: Collection[str] | None = None
) -> Iterable[tuple[str, list[Row]]]:
    """The frames' names and shapes, all or of some images; masks are checked, all at once."""
    names = sequence.entry("track_category_ids")
    read = [
        (i, e, _read_frame_shapes(e, names, size))
        for i, e in _list_annotated_frames(sequence)
        if images is None or i in images
    ]
    try:
        decode_tubes([[row[3]["counts"] for _, _, rows in read for row in rows]], size[0] * size[1])
    except ValueError as error:
        raise _find_damaged_mask(
            ((entry, row) for _, entry, rows in read for row in rows), sequence.wrong(str(error))
        ) from None
    return [(image, rows) for image, _, rows in read]


def _find_damaged_mask(rows: Iterable[tuple[JsonEntry, Row]], unknown: InputError) -> InputError:
    """Which of the masks is damaged."""
    for entry, (track, _, _, mask) in rows:
        try:
            Rle.checked(tuple(mask["size"]), mask["counts"])
        except ValueError as error:
            return entry.wrong(f"track {track}: {error}")
    return unknown


def _list_annotated_frames(sequence: JsonEntry) -> Iterable[tuple[str, JsonEntry]]:
    images, shapes = sequence.texts("annotated_image_paths"), list(sequence.entries("segmentations"))
    if len(images) != len(shapes) or len(set(images)) < len(images):
        raise sequence.wrong(
            f"{len(set(images))} different annotated_image_paths, {len(shapes)} segmentations; give one for each frame"
        )
    return zip(images, shapes, strict=True)


def _read_frame_shapes(shapes: JsonEntry, names: JsonEntry, size: tuple[int, int]) -> list[Row]:
    rows = [_read_shape(shapes, key, names, size) for key in shapes.content]
    if len({track for track, *_ in rows}) < len(rows):
        raise shapes.wrong("a track is named twice (07 and 7 are one); keep one of them")
    return rows


def _read_shape(shapes: JsonEntry, key: str, names: JsonEntry, size: tuple[int, int]) -> Row:
    shape = JsonEntry(f"{shapes.where}: track {key}", shapes.content[key])
    if parse_whole_number(key) is None:
        raise shape.wrong("a track's name must be a whole number from 0 on")
    category = shape.whole("category_id") if "category_id" in shape else names.whole(key)
    mask = {"size": list(size), "counts": shape.text("rle").encode(errors="surrogatepass")}
    return int(key), category, shape.number("score", 1.0), mask


def find_lone_zero_track(found: BurstFile, truth: Mapping[str, Collection[str]]) -> str | None:
    """The only sequence whose annotated frames have a track 0, if there is exactly one.

    BURST's program numbers tracks anew where an id occurs in several sequences, and takes 0 for "free".
    """
    named = Counter(
        name
        for name, images in truth.items()
        if name in found.sequences
        for image, shapes in _list_annotated_frames(found.sequences[name])
        if image in images and any(parse_whole_number(key) == 0 for key in shapes.content)
    )
    return next(iter(named)) if len(named) == 1 else None
