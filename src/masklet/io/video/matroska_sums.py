"""The checksums that a Matroska or WebM file may have of its parts: FFmpeg writes them, and does not look at them."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
DESCRIPTIONS = (0x1549A966, 0x1654AE6B)  # of the segment, and of its tracks
FILLING = 0xEC  # a part of nothing, which keeps room
SUM = b"\xbf\x84"  # with what a checksum begins: its kind, and four bytes


class FilePart(NamedTuple):
    """A part of a segment, in bytes of the file."""

    kind: int
    start: int
    content: int  # where what is in it begins
    stop: int


def find_damaged_parts(path: Path) -> list[FilePart]:
    """The groups of packets and the descriptions in a file whose checksums are not those of what is in them; none where
    the file has no checksums, or is none of this kind.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # nothing that can be mapped, or nothing at all
            return []
    with data, memoryview(data) as view:
        parts = (part for part in _iterate_parts(data) if part.kind in (CLUSTER, *DESCRIPTIONS))
        return [part for part in parts if _is_damaged(view, part)]


def _is_damaged(view: memoryview, part: FilePart) -> bool:
    if view[part.content : part.content + 2] != SUM:
        return False
    begin = part.content + 6
    return zlib.crc32(view[begin : part.stop]) != int.from_bytes(view[part.content + 2 : begin], "little")


def _iterate_parts(data: mmap.mmap) -> Iterator[FilePart]:
    """The parts of a file's segment that say where they end; where one cannot be read, from the next group of packets
    on.
    """
    at = 0
    while at < len(data):
        part = _read_part(data, at)
        if part is not None and part.kind == SEGMENT:
            at = part.content
            continue
        if part is None or part.stop > len(data):
            at = data.find(CLUSTER.to_bytes(4, "big"), at + 1)
            if at < 0:
                return
            continue
        yield part
        at = part.stop


def _read_part(data: mmap.mmap, at: int) -> FilePart | None:
    """The part that begins at a byte; None where none does that says where it ends, but for the segment itself."""
    width = 1 if data[at] == FILLING else 4  # bytes of its kind
    head = data[at : at + width + 8]
    if len(head) <= width or not head[width] or (width == 4 and head[0] >> 4 != 1):
        return None
    length = 9 - head[width].bit_length()  # bytes of its size, whose first begins with so many zeros and a one
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(head[width : width + length], "big") & unknown
    kind, content = int.from_bytes(head[:width], "big"), at + width + length
    return None if size == unknown and kind != SEGMENT else FilePart(kind, at, content, content + size)
