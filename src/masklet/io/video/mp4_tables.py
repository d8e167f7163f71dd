"""What the tables of an MP4 or MOV file say of its frames' times, and whether they agree with one another.

A decoder takes each table as it is: where one is damaged, frames get wrong times, or are not shown, without an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from masklet.core.limits import MOST_FRAMES

LARGEST_INDEX = 1 << 28  # bytes of a file's tables; a day of video has some tens of millions
HOLDERS = (b"trak", b"mdia", b"minf", b"stbl", b"edts")  # boxes with boxes in them
LOOSE = 0.02  # as a share, by how much lengths may differ that programs round


class Mp4Box(NamedTuple):
    """A box of a file: its kind, and what is in it."""

    kind: bytes
    data: memoryview


def describe_contradictions(path: Path, track: int) -> list[str]:
    """What the tables of the video `track`, by its id, say against one another, a sentence each; nothing where they
    agree, or the file has others in its fragments.
    """
    index = _read_index(path)
    boxes = list(_iterate_boxes(index))
    if any(box.kind == b"mvex" for box in boxes):
        return []
    header = _find_numbers(boxes, b"mvhd")
    for trak in (box.data for box in boxes if box.kind == b"trak"):
        inner = list(_iterate_tree(trak))
        described = _find_numbers(inner, b"tkhd")
        if described and described.get("id") == track:
            return _compare_counts(inner) + _compare_lengths(inner, header, described)
    return []


def _compare_counts(boxes: list[Mp4Box]) -> list[str]:
    """Sentences on tables that are of another number of frames than the file holds."""
    sizes = next((box.data for box in boxes if box.kind == b"stsz" and len(box.data) >= 12), None)
    if sizes is None:
        return []
    count = int.from_bytes(sizes[8:12], "big")
    told = []
    for kind, what in ((b"stts", "how long frames are shown"), (b"ctts", "the order of frames")):
        pairs = _read_pairs(boxes, kind)
        if pairs is not None and int(pairs[:, 0].sum()) != count:
            told.append(f"its table of {what} is of {int(pairs[:, 0].sum())} frames, the file of {count}")
    return told


def _compare_lengths(boxes: list[Mp4Box], header: dict[str, int], track: dict[str, int]) -> list[str]:
    """Sentences on lengths that are not those of the tables."""
    media, steps = _find_numbers(boxes, b"mdhd"), _read_pairs(boxes, b"stts")
    scale, whole = media.get("scale", 0), header.get("scale", 0)
    if steps is None or not scale or not whole:
        return []
    lengths = [length / scale for length in _measure_lengths(steps, _read_pairs(boxes, b"ctts"))]
    step = lengths[0] / max(float(steps[:, 0].sum()), 1)
    said, shown = media.get("length", 0) / scale, track.get("length", 0) / whole
    lasting = f"its table of times lasts {lengths[0]:.2f} s"
    if said and min(abs(length - said) for length in lengths) > max(2 * step, LOOSE * said):
        return [f"{lasting}, by its header it is {said:.2f} s long: times may be wrong"]
    if shown and shown - max(lengths) - _find_delay(boxes, whole) > max(2 * step, LOOSE * shown):
        return [f"{lasting}, and is to be shown for {shown:.2f} s: times may be wrong"]
    return []


def _measure_lengths(steps: np.ndarray, late: np.ndarray | None) -> list[float]:
    """From the first frame to the last one's end, in the order of decoding and in that of display: headers say either.

    `steps` are counts and how long frames are shown, `late` counts and how much later than decoded.
    """
    lengths = [float((steps[:, 0] * steps[:, 1]).sum())]
    count = int(steps[:, 0].sum())
    if late is not None and int(late[:, 0].sum()) == count and 0 < count <= MOST_FRAMES:
        lasting = np.repeat(steps[:, 1], steps[:, 0])
        shown = np.cumsum(lasting) - lasting + np.repeat(late[:, 1].astype(np.int32), late[:, 0])
        lengths.append(float(shown.max() - shown.min() + lasting[-1]))
    return lengths


def _find_delay(boxes: list[Mp4Box], scale: int) -> float:
    """Seconds before the first frame and between parts, and of parts that are shown again, as the edit list has it."""
    data = next((box.data for box in boxes if box.kind == b"elst"), None)
    if data is None or len(data) < 8:
        return 0.0
    kind = np.dtype([("length", ">u8"), ("start", ">i8"), ("rate", ">i4")])
    kind = kind if data[0] == 1 else np.dtype([("length", ">u4"), ("start", ">i4"), ("rate", ">i4")])
    entries = np.frombuffer(data[8 : 8 + (len(data) - 8) // kind.itemsize * kind.itemsize], kind)
    lasting = entries["length"].astype(float) / scale
    is_shown = entries["start"] >= 0
    return float(lasting[~is_shown].sum() + lasting[is_shown][1:].sum())


def _read_pairs(boxes: list[Mp4Box], kind: bytes) -> np.ndarray | None:
    """A table of counts and values [n 2]; None where there is none, or it is cut off."""
    data = next((box.data for box in boxes if box.kind == kind and len(box.data) >= 8), None)
    if data is None:
        return None
    count = int.from_bytes(data[4:8], "big")
    if 8 + 8 * count > len(data):
        return None
    return np.frombuffer(data[8 : 8 + 8 * count], ">u4").astype(np.int64).reshape(-1, 2)


def _find_numbers(boxes: list[Mp4Box], kind: bytes) -> dict[str, int]:
    """Scale (units a second), length (in units) and id of a header, as far as it has them."""
    data = next((box.data for box in boxes if box.kind == kind and len(box.data) >= 20), None)
    if data is None:
        return {}
    wide = 8 if data[0] == 1 else 4
    at = 4 + 2 * wide  # after the times at which it was made and changed
    if kind == b"tkhd":
        return {"id": _number(data, at, 4), "length": _number(data, at + 8, wide)}
    return {"scale": _number(data, at, 4), "length": _number(data, at + 4, wide)}


def _number(data: memoryview, at: int, width: int) -> int:
    value = int.from_bytes(data[at : at + width], "big")
    return 0 if value == (1 << 8 * width) - 1 else value  # which means that it is not known


def _read_index(path: Path) -> memoryview:
    """What is in the box of tables of a file; nothing where there is none, or it is too large."""
    with path.open("rb") as file:
        at, end = 0, path.stat().st_size
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            begin = 16 if size == 1 else 8
            size = int.from_bytes(head[8:16], "big") if size == 1 else size or end - at
            if head[4:8] == b"moov" and size < LARGEST_INDEX:
                file.seek(at + begin)
                return memoryview(file.read(size - begin))
            if size < begin:
                break
            at += size
    return memoryview(b"")


def _iterate_boxes(data: memoryview) -> Iterator[Mp4Box]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > len(data):
            return
        yield Mp4Box(bytes(data[at + 4 : at + 8]), data[at + 8 : at + size])
        at += size


def _iterate_tree(data: memoryview) -> Iterator[Mp4Box]:
    """The boxes in a track, and those in them."""
    for box in _iterate_boxes(data):
        yield box
        if box.kind in HOLDERS:
            yield from _iterate_tree(box.data)
