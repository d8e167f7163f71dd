"""AVI: which of its chunks a packet is, by the index at the file's end.

An AVI has no times: the n-th chunk of a stream is its n-th frame. Where one is lost, all after it would be numbered too
low, were there not the index (idx1), which lists every chunk with its place and size as the file was written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int64

LONGEST_INDEX = 1 << 25  # bytes, from the file's end: two million chunks
HEAD = 1 << 14  # bytes in which the list of chunks begins
HEADER = 8  # bytes before a chunk's data: its tag and size
FRAME_TAGS = (b"dc", b"db", b"id", b"iv")  # chunks that are frames, not sound, text or palettes
ENTRY = np.dtype([("tag", "S4"), ("flags", "<u4"), ("offset", "<u4"), ("size", "<u4")])
TRIED = 8  # entries whose places say from where they count


class AviPlace(NamedTuple):
    """Where a packet stands in the file as it was written."""

    chunk: int  # its number among the frames of its stream
    missing: int  # how many frames of the stream are missing before it
    is_whole: bool  # whether it has the size with which it was written
    is_last_whole: bool  # whether the packet before it has all its bytes
    alike: int = 0  # how many frames before what is missing have its size, any of which may be it


PIECE = AviPlace(-1, 0, False, False)  # of a packet that is none, but a piece of one


class AviIndex:
    """The chunks of one stream of a file as they were written, and how far the packets that came agree with them."""

    def __init__(self, path: Path, entries: np.ndarray, stream: int, base: int, frames: int) -> None:
        """
        Args:
            path: of the file.
            entries: of its index, of type `ENTRY`, those of all streams.
            stream: whose packets will be asked about.
            base: from which byte of the file the entries count.
            frames: how many the header says the stream has. Those after the first gigabyte have indices of another
                kind, which are not read.
        """
        self._path = path
        self._tags, self._all_sizes = entries["tag"], entries["size"].astype(np.int64)
        self._all_places = entries["offset"].astype(np.int64) + base
        wanted = np.frombuffer(b"".join(f"{stream:02d}".encode() + tag for tag in FRAME_TAGS), "<u4")
        self._rows = np.flatnonzero(np.isin(np.ascontiguousarray(entries["tag"]).view("<u4"), wanted))
        self._places: Int64[np.ndarray, " n"] = self._all_places[self._rows]
        self._sizes: Int64[np.ndarray, " n"] = self._all_sizes[self._rows]
        self._is_partial = len(self._sizes) < frames
        self._last = -1  # the chunk of the last packet
        self._shift = 0  # bytes that are missing from the file before it

    def count_chunks(self) -> int:
        """How many chunks of the stream the index lists, those that are empty too, as for a frame that is shown on."""
        return len(self._sizes)

    def count_frames(self) -> int:
        """How many frames the index lists."""
        return int((self._sizes > 0).sum())

    def find_missing_at_end(self) -> AviPlace | None:
        """What the index lists after the last packet; None where that is nothing."""
        missing, chunk = int((self._sizes[self._last + 1 :] > 0).sum()), len(self._sizes)
        return AviPlace(chunk, missing, True, True, self.count_alike(self._last + 1)) if missing else None

    def find(self, place: int, size: int, dts: int) -> AviPlace:
        """Which chunk a packet is; `PIECE` where it is none.

        Args:
            place: the byte of the file at which its data begin.
            size: how many bytes they are.
            dts: the number that FFmpeg gives it, which says of the first packet after a seek which chunk it is.
        """
        at, last, shift = place - HEADER, self._last, self._shift
        chunk = self._find_chunk(at, size)
        if chunk is None:
            return PIECE
        if last < 0 and chunk == dts:
            last = chunk - 1
        is_next = chunk == last + 1 and self._shift == shift
        is_last_whole = is_next or self._last < 0 or self._is_followed(last, self._get_place(last) - shift)
        is_whole = chunk >= len(self._sizes) or bool(self._sizes[chunk] == size) or self._is_followed(chunk, at, size)
        missing = int((self._sizes[last + 1 : chunk] > 0).sum())
        self._last = chunk
        is_intact = is_whole and is_last_whole and not missing
        alike = 0 if is_intact else self.count_alike(last + bool(missing) if is_whole else chunk)
        return AviPlace(chunk, missing, is_whole, is_last_whole, alike)

    def count_alike(self, chunk: int) -> int:
        """How many chunks before one have its size, without another between, so that nothing tells which is which."""
        before = self._sizes[: max(chunk, 0)][::-1]
        if not 0 < chunk < len(self._sizes):
            return 0
        other = np.flatnonzero(before != self._sizes[chunk])
        return int(other[0]) if len(other) else len(before)

    def _get_place(self, chunk: int) -> int:
        return int(self._places[min(chunk, len(self._places) - 1)])

    def _find_chunk(self, at: int, size: int) -> int | None:
        """The chunk whose header is at a byte of the file; what is missing before it is taken note of."""
        n = self._last + 1
        if not (n < len(self._places) and self._places[n] == at + self._shift):
            n = int(np.searchsorted(self._places, at + self._shift))
        is_there = self._last < n < len(self._places) and bool(self._places[n] == at + self._shift)
        if is_there and self._sizes[n] == size:
            return n
        for other in (self._last + 1 + np.flatnonzero(self._sizes[self._last + 1 :] == size)).tolist():
            if self._is_followed(other, at):
                self._shift = int(self._places[other]) - at
                return other
        if is_there:
            return n
        if self._is_partial and at + self._shift > self._places[-1]:
            return max(self._last + 1, len(self._places))
        return n - 1 if n - 1 > self._last else None

    def _is_followed(self, chunk: int, at: int, size: int | None = None) -> bool:
        """Whether the chunk after a `chunk`, of any stream, follows where it should when that one's header is `at` a
        byte of the file, and its `size` is another than the index says; after the last one comes the index, or nothing.
        """
        if chunk >= len(self._rows):
            return True
        row = int(self._rows[chunk])
        size = int(self._sizes[chunk]) if size is None and row + 1 == len(self._tags) else size
        step = HEADER + size + size % 2 if size is not None else int(self._all_places[row + 1] - self._all_places[row])
        with self._path.open("rb") as file:
            file.seek(max(at + step, 0))
            head = file.read(HEADER)
        if row + 1 == len(self._tags):
            return head[:4] in (b"idx1", b"JUNK", b"")
        wanted = bytes(self._tags[row + 1]).ljust(4, b"\0") + int(self._all_sizes[row + 1]).to_bytes(4, "little")
        return head == wanted


def read_avi_index(name: str, stream: int, frames: int) -> AviIndex | None:
    """The index of an AVI; None where it has none that can be believed.

    Args:
        name: of the file, with or without "file:".
        stream: the number of the stream whose packets will be asked about.
        frames: how many frames of it the header says there are.
    """
    path = Path(name.removeprefix("file:"))
    if not path.is_file():
        return None
    with path.open("rb") as file:
        entries, is_at_end = _read_entries(file)
        if not len(entries) or not _is_consistent(entries):
            return None
        index = AviIndex(path, entries, stream, _find_base(file, entries), frames)
    listed = index.count_chunks()
    return index if listed == frames or (0 < listed < frames and not is_at_end) else None


def _read_entries(file: BinaryIO) -> tuple[np.ndarray, bool]:
    """The entries of the last idx1 in a file, and whether nothing of any length follows it; none where there is none,
    or it is cut off.
    """
    size = file.seek(0, os.SEEK_END)
    taken = 1 << 16
    while True:
        file.seek(max(size - taken, 0))
        tail = file.read(taken)
        at = tail.rfind(b"idx1")
        if at >= 0 or taken >= min(size, LONGEST_INDEX):
            break
        taken *= 8
    length = int.from_bytes(tail[at + 4 : at + 8], "little") if at >= 0 else 0
    data = tail[at + 8 : at + 8 + length] if at >= 0 else b""
    if not data or len(data) < length or length % ENTRY.itemsize:
        return np.empty(0, ENTRY), True
    return np.frombuffer(data, ENTRY), len(tail) - at - length < HEAD


def _is_consistent(entries: np.ndarray) -> bool:
    """Whether chunks follow one another as entries say, so that no byte of them can be damaged without showing."""
    offsets, sizes = entries["offset"].astype(np.int64), entries["size"].astype(np.int64)
    return bool((np.diff(offsets) >= (HEADER + sizes + sizes % 2)[:-1]).all())


def _find_base(file: BinaryIO, entries: np.ndarray) -> int:
    """From which byte of the file entries count: from the list of its chunks or its own first; by which has their
    tags.
    """
    file.seek(0)
    listed = max(file.read(HEAD).find(b"movi"), 0)
    steps = np.linspace(0, len(entries) - 1, TRIED).astype(int).tolist()
    chosen = [(int(entries["offset"][n]), bytes(entries["tag"][n])) for n in steps]
    fit = {base: sum(_has_tag(file, base + offset, tag) for offset, tag in chosen) for base in (listed, 0)}
    return listed if fit[listed] >= fit[0] else 0


def _has_tag(file: BinaryIO, at: int, tag: bytes) -> bool:
    file.seek(at)
    return file.read(4) == tag
