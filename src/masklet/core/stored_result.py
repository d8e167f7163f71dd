"""Results whose masks stay in their file until somebody asks for them."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from masklet.core.codec import (
    check_format,
    check_ids,
    explain_bad_entry,
    read_masklet_facts,
    read_result,
    read_sighting,
    read_video,
)
from masklet.core.errors import InputError
from masklet.core.limits import MOST_OBJECTS, check_count
from masklet.core.result import VideoResult
from masklet.core.result_index import HEAD, IndexedFile, IndexedMasklet
from masklet.core.tracks import Masklet, Sighting


def open_result(path: Path) -> VideoResult:
    """A result whose masks are read when they are asked for; all of it is read at once where the file has no index, as
    those of earlier versions. Raises InputError naming the file and the entry that is damaged.
    """
    try:
        file = IndexedFile(path)
    except (OSError, ValueError):
        return read_result(path)  # which says what is wrong
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
        self._block = -1  # the one in memory
        self._rows: dict[int, Any] = {}

    def __getitem__(self, frame: int) -> Sighting:
        row = self._read_block(bisect_right(self._place.frames, frame) - 1)[frame]
        with explain_bad_entry(self._where):
            return read_sighting(self._where, row, self._video)[1]

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, int) and frame in self._read_block(bisect_right(self._place.frames, frame) - 1)

    def __len__(self) -> int:
        return self._place.count

    def __iter__(self) -> Iterator[int]:
        for n in range(len(self._place.frames)):
            yield from list(self._read_block(n))

    def __repr__(self) -> str:
        return f"<{len(self)} sightings in {self._file.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # the open file is this process's own

    def _read_block(self, n: int) -> dict[int, Any]:
        """The rows of a block by frame; none before the first."""
        if n < 0:
            return {}
        if n != self._block:
            first, (start, stop) = self._place.frames[n], self._place.places[n : n + 2]
            try:
                rows = json.loads(b"[" + self._file.read(start, stop).rstrip(b",") + b"]")
                self._rows = {row[0]: row for row in rows}
            except (ValueError, TypeError, KeyError, IndexError, RecursionError):
                self._rows = {}
            if first not in self._rows:
                raise InputError(f"{self._where}: what it has from frame {first} on is damaged")
            self._block = n
        return self._rows
