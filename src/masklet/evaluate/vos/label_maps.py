"""Label maps: images whose pixels hold the ids of objects, how they are read, and where in them each object is.

Values are taken as they are, as the official programs do, where `io.annotations.label_image` would read a soft mask or
leave 255 out; an image whose values could mean something else (RGB, 16 bits, transparency) is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from masklet.core.limits import MOST_PIXELS
from masklet.io.formats.davis import BINARY
from masklet.io.formats.json_entry import Size
from masklet.io.formats.label_png import read_label_png

Mask = Bool[np.ndarray, "h w"]
LabelMap = UInt8[np.ndarray, "h w"]  # a pixel holds its object's id; 0: background, 255: void
Box = tuple[int, int, int, int]  # y0, y1, x0, x1 in pixels; y1 and x1 are one past the last
Window = tuple[slice, slice]
HEADER = struct.Struct(">IIBBBBB")  # of a PNG: width, height, bits, kind of colour, compression, filter, interlace
CHUNK = struct.Struct(">I4s")  # length, kind
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SMALL = 1 << 18  # bytes of packed pixels: zlib makes at most a thousand times as many of them
WHAT = "black and white masks"
IDS = ("P", "L", "1")  # Pillow's names of images whose values can be ids
VOID = 255  # a label map's pixels about which nothing is said


@dataclass(frozen=True, eq=False)
class LabelFrame:
    """One label map and its objects' boxes."""

    labels: LabelMap
    mixed: bool = False  # made from a mask in which more than one value means inside

    @cached_property
    def boxes(self) -> Mapping[int, Box]:
        """The box of every value but 0 that occurs."""
        return find_label_boxes(self.labels)

    @property
    def size(self) -> Size:
        """Height and width of the image in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def highest(self) -> int:
        """The highest id, void not counted; 0 where there is none."""
        return max((i for i in self.boxes if i != VOID), default=0)

    def without(self, pixels: Mask) -> LabelFrame:
        """This label map with background wherever `pixels` is true."""
        return LabelFrame(np.where(pixels, np.uint8(0), self.labels))


def find_label_boxes(labels: LabelMap) -> dict[int, Box]:
    """A box around each value of a label map but 0; one that touches both sides may be wider than need be.

    >>> find_label_boxes(np.array([[0, 0, 0], [0, 2, 1]], dtype=np.uint8))
    {1: (1, 2, 2, 3), 2: (1, 2, 1, 2)}
    """
    height, width = labels.shape
    flat = labels.ravel()
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)  # of the runs of one value, row after row
    ends = np.append(starts[1:], height * width) - 1
    values, broken = flat[starts], starts // width != ends // width
    found = {}
    for value in np.unique(values[values > 0]).tolist():
        mine = values == value
        first, last = starts[mine], ends[mine]
        sides = (0, width) if broken[mine].any() else ((first % width).min(), (last % width).max() + 1)
        found[value] = (int(first[0]) // width, int(last[-1]) // width + 1, int(sides[0]), int(sides[1]))
    return found


def find_mask_box(mask: Mask) -> Box | None:
    """The box around a mask; None around an empty one."""
    return find_label_boxes(mask.view(np.uint8)).get(1)


def compute_joint_window(found: Box | None, wanted: Box | None, size: tuple[int, ...]) -> Window:
    """The boxes `found` and `wanted` and a pixel more on each side, within an image of `size` (h, w).

    All contours of what is in the boxes are inside; without any box the window is empty.
    """
    there = [box for box in (found, wanted) if box is not None]
    if not there:
        return np.s_[:0, :0]
    tops, bottoms, lefts, rights = zip(*there, strict=True)
    return np.s_[
        max(min(tops) - 1, 0) : min(max(bottoms) + 1, size[0]),
        max(min(lefts) - 1, 0) : min(max(rights) + 1, size[1]),
    ]


def measure_box_gap(a: Box, b: Box) -> int:
    """Rows or columns between two boxes, whichever are more; 0 or less where they touch.

    >>> measure_box_gap((0, 2, 0, 9), (5, 8, 0, 9))
    3
    """
    return max(b[0] - a[1], a[0] - b[1], b[2] - a[3], a[2] - b[3])


def read_labels(path: Path, size: Size | None = None) -> LabelFrame:
    """An image of ids, with a palette or grey. InputError where it cannot be read or is not of `size` (h, w)."""
    plain = read_plain_png(path)
    if plain is not None and size in (None, plain.shape):
        return LabelFrame(plain)
    return LabelFrame(read_label_png(path, IDS, "palette images of object ids", size).astype(np.uint8, copy=False))


def read_plain_png(path: Path) -> LabelMap | None:
    """The values of a PNG of a byte a pixel, palette or grey, none of whose rows is stored as a difference; else None.

    Nearly all label maps are of this kind, and reading them so takes a fifth less time than Pillow does.
    """
    try:
        data = path.read_bytes()
        width, height, *form = HEADER.unpack_from(data, 16)
        if data[:8] != SIGNATURE or form not in ([8, 0, 0, 0, 0], [8, 3, 0, 0, 0]) or width * height > MOST_PIXELS:
            return None
        rows = np.frombuffer(_unpack_rows(b"".join(_extract_idat_chunks(data)), (width + 1) * height), np.uint8)
    except (OSError, ValueError, struct.error, zlib.error):
        return None
    if rows.size != (width + 1) * height or not rows.size or rows[:: width + 1].any():
        return None
    return np.ascontiguousarray(rows.reshape(height, width + 1)[:, 1:])


def _unpack_rows(packed: bytes, size: int) -> bytes:
    """The rows of a PNG, `size` bytes; more where they are not of that size, but never a thousand times as many."""
    if len(packed) <= SMALL:
        return zlib.decompress(packed, bufsize=size)
    return zlib.decompressobj().decompress(packed, size + 1)  # takes twice as long


def _extract_idat_chunks(data: bytes) -> Iterator[bytes]:
    """The compressed pixels in a PNG file: what its IDAT chunks hold."""
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = CHUNK.unpack_from(data, place)
        if kind == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += 12 + length


def read_mask_frame(path: Path, size: Size | None = None) -> LabelFrame:
    """An image of one object: whatever is not black has id 1. InputError as in `read_labels`."""
    plain = read_plain_png(path)
    page = plain if plain is not None and size in (None, plain.shape) else read_label_png(path, BINARY, WHAT, size)
    values: LabelMap = (page if page.ndim == 2 else page.max(axis=2)).astype(np.uint8, copy=False)
    inside: Mask = values > 0
    return LabelFrame(inside.view(np.uint8), mixed=bool((inside & (values < values.max())).any()))
