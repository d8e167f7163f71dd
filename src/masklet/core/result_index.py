"""Where in a masklets.json its masklets and sightings are, so that a window of an hour of video is read without the
rest: at the end of the file itself, where it cannot be lost.

{..., "masklets": [...],
 "index": {"head": where "masklets" begins,
           "masklets": [[where it begins, sightings, [frame of every 256th, ...], [where these begin, ..., end]], ...]},
 "index_at": "where the index begins"}
"""

from __future__ import annotations

import json
import os
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from masklet.core.limits import convert_number, is_whole_number, quote_value

BLOCK = 256  # sightings that are read at once
HEAD = b'"masklets":['
KEY, DIGITS = '"index_at":"', 16
TAIL = len(KEY) + DIGITS + 2  # bytes


def format_json(value: Any) -> str:
    """A value as JSON without blanks, in ASCII. Raises ValueError where a number is not finite."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=convert_for_json)


def convert_for_json(value: Any) -> Any:
    """A number of another library as Python's. Raises TypeError where a value is nothing that JSON can say."""
    plain = convert_number(value)
    if plain is value:
        raise TypeError(f"{quote_value(value)} is nothing that JSON can say; give text, numbers, lists or dictionaries")
    return plain


class IndexWriter:
    """The index of a file that is being written."""

    def __init__(self, head: int) -> None:
        """`head`: where "masklets" begins."""
        self._head, self._masklets = head, list[Any]()

    def add(self, start: int, count: int, frames: Sequence[int], places: Sequence[int]) -> None:
        """One more masklet: where it begins, how many sightings it has, in which frame and where each block of them
        begins; the last of `places` is where they end.
        """
        self._masklets.append([start, count, frames, places])

    def format(self, at: int) -> bytes:
        """The rest of the file, from `at` on."""
        index = format_json({"head": self._head, "masklets": self._masklets})
        return f'"index":{index},{KEY}{at:0{DIGITS}}"}}'.encode()


@dataclass(frozen=True)
class IndexedMasklet:
    """Where one masklet is."""

    start: int
    count: int  # of its sightings
    frames: array[int]  # of the first sighting of each block
    places: array[int]  # where each block begins, and the end


class IndexedFile:
    """A result on the disk, open for reading."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be opened."""
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of the file."""
        return os.pread(self._file, stop - start, start)

    def read_index(self) -> tuple[int, list[IndexedMasklet]] | None:
        """Where "masklets" begins, and where each masklet is; None where the file has no index, or one that is not of
        it, as after an edit.
        """
        tail = self.read(max(self.size - TAIL, 0), self.size).decode("latin-1")
        at = tail[len(KEY) : -2]
        if not (tail.startswith(KEY) and at.isdecimal() and int(at) < self.size):
            return None
        try:
            index = json.loads(b"{" + self.read(int(at), self.size - TAIL - 1) + b"}")["index"]
            head = index["head"]
            found = [IndexedMasklet(s, n, array("q", f), array("q", p)) for s, n, f, p in index["masklets"]]
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        if not (is_whole_number(head) and self.read(head, head + len(HEAD)) == HEAD):
            return None
        return (head, found) if all(self._holds(one) for one in found) else None

    def _holds(self, one: IndexedMasklet) -> bool:
        """Whether a masklet can be where it is said to be."""
        rises = all(a < b for side in (one.frames, one.places) for a, b in pairwise(side))
        blocks = -(-one.count // BLOCK) if is_whole_number(one.count) else 0
        if not (rises and 0 < blocks == len(one.frames) == len(one.places) - 1 and is_whole_number(one.start)):
            return False
        marks = ((one.start, b'{"id":'), (one.places[0], b"["), (one.places[-1], b"]"))
        inside = one.start < one.places[0] and one.places[-1] < self.size
        return inside and all(self.read(at, at + len(mark)) == mark for at, mark in marks)
