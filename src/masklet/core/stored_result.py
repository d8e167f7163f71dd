"""Results whose masks stay in their file until somebody asks for them."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any

from masklet.core.codec import (
    are_rows_sound,
    check_format,
    check_ids,
    explain_bad_entry,
    find_result_file,
    format_block,
    read_masklet_facts,
    read_result,
    read_sighting,
    read_video,
)
from masklet.core.errors import InputError
from masklet.core.limits import MOST_OBJECTS, check_count, check_number
from masklet.core.result import VideoResult
from masklet.core.result_index import BLOCK, HEAD, IndexedFile, IndexedMasklet
from masklet.core.tracks import Masklet, Sighting, Source


def open_result(path: Path) -> VideoResult:
    """A result whose masks are read when they are asked for; all of it is read at once where the file has no index, as
    those of earlier versions. Raises InputError naming the file and the entry that is damaged.
    """
    path = find_result_file(path)
    try:
        if not path.is_file():
            return read_result(path)  # a pipe, or nothing, of which that says what is wrong
        file = IndexedFile(path)
    except (OSError, ValueError):
        return read_result(path)
    index = file.read_index()
    if index is None:
        return read_result(path)
    head, places = index
    with explain_bad_entry(f"{path}"):
        content = json.loads(file.read(0, head) + HEAD + b"]}")
        check_format(path, content)
        video = read_video(f"{path}", content)
    check_count(f"{path}", "masklets", len(places), MOST_OBJECTS)
    masklets = [_open_masklet(f"{path}: masklet {n}", file, place, video) for n, place in enumerate(places)]
    check_ids(f"{path}", masklets)
    return replace(video, masklets=tuple(masklets))


def _open_masklet(where: str, file: IndexedFile, place: IndexedMasklet, video: VideoResult) -> Masklet:
    with explain_bad_entry(where):
        facts = json.loads(file.read(place.start, place.places[0]) + b"]}")
        return read_masklet_facts(where, facts, StoredSightings(where, file, place, video), video)


class StoredSightings(Mapping[int, Sighting]):
    """One masklet's sightings by frame, frames rising, a block of which is in memory. An entry that is damaged raises
    InputError when it is asked for.
    """

    def __init__(self, where: str, file: IndexedFile, place: IndexedMasklet, video: VideoResult) -> None:
        self._where, self._file, self._place, self._video = where, file, place, video
        self._kept: tuple[int, dict[int, Any]] = (-1, {})  # the block in memory; one value, for threads may read

    def __getitem__(self, frame: int) -> Sighting:
        row = self._read_block(bisect_right(self._place.frames, frame) - 1)[frame]
        with explain_bad_entry(self._where):
            return read_sighting(self._where, row, self._video)[1]

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, Integral) and frame in self._read_block(bisect_right(self._place.frames, frame) - 1)

    def __len__(self) -> int:
        return self._place.count

    def __iter__(self) -> Iterator[int]:
        for n in range(len(self._place.frames)):
            yield from list(self._read_block(n))

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """Frames [start, stop) in which the object may be seen, as far as the index tells, without a look at them."""
        firsts = self._place.frames
        last = max(self._read_block(len(firsts) - 1))
        return list(pairwise([*firsts, last + 1]))

    def iterate_facts(self) -> Iterator[tuple[int, Source, float]]:
        """Frame, source and score of each sighting, frames rising, without a look at the masks. Raises InputError where
        an entry is damaged.
        """
        for n in range(len(self._place.frames)):
            for frame, row in self._load_block(n).items():
                with explain_bad_entry(self._where):
                    yield frame, Source(row[1]), check_number(self._where, "a score", row[2])

    def format_blocks(self, video: VideoResult) -> Iterator[tuple[int, bytes]]:
        """The first frame of each block and its rows, as `codec.format_block` has them for a file of `video`: what is
        sound as it lies in the file. Raises ValueError or InputError where one is damaged, or none of the `video`.
        """
        for n, first in enumerate(self._place.frames):
            data = self._read_bytes(n)
            rows = self._parse_block(n, data)
            if tuple(video.size) == tuple(self._video.size) and are_rows_sound(rows.values(), video):
                yield first, data
            else:
                yield first, format_block(self, list(rows), video)  # which mends it, or says what is wrong

    def __repr__(self) -> str:
        return f"<{len(self)} sightings in {self._file.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # the open file is this process's own

    def _read_block(self, n: int) -> dict[int, Any]:
        """The rows of a block by frame; none before the first."""
        if n < 0:
            return {}
        block, rows = self._kept
        if block != n:
            rows = self._load_block(n)
            self._kept = (n, rows)
        return rows

    def _load_block(self, n: int) -> dict[int, Any]:
        return self._parse_block(n, self._read_bytes(n))

    def _read_bytes(self, n: int) -> bytes:
        return self._file.read(*self._place.places[n : n + 2]).rstrip(b",")

    def _parse_block(self, n: int, data: bytes) -> dict[int, Any]:
        """The rows by frame in the `data` of a block. Raises InputError where they are not what the index says."""
        first, stop = [*self._place.frames, self._video.length][n : n + 2]
        try:
            rows = json.loads(b"[" + data + b"]")
            frames = [row[0] for row in rows]
            sound = frames[0] == first and all(a < b for a, b in pairwise([*frames, stop]))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            rows, frames, sound = [], [], False
        if not sound or len(rows) != min(BLOCK, len(self) - n * BLOCK):
            raise InputError(f"{self._where}: what it has from frame {first} on is damaged")
        return dict(zip(frames, rows, strict=True))
