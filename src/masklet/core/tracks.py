"""Masklets: one object's mask through time, and the book in which a run writes them down."""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from numbers import Integral
from typing import Any

from masklet.core.limits import convert_number
from masklet.core.rle import Rle
from masklet.core.spill import Spill


class Source(Enum):
    """How a mask came about."""

    DETECTED = "detected"  # a confident detection, alone or agreeing with the propagation
    PROMPTED = "prompted"  # given by the user
    FORWARD = "forward"  # propagated from earlier frames, or a detection that was not confident
    BACKWARD = "backward"  # propagated from later frames


KEY = (Source.DETECTED, Source.PROMPTED)


@dataclass(frozen=True)
class Sighting:
    """One object in one frame."""

    mask: Rle
    source: Source
    score: float = 0.0  # of the detection, or the propagator's expected mask IoU; 0 to 1
    label: int = -1  # what the detection called it; -1: no detection
    presence: float = 0.0  # the propagator's object score; > 0: in the frame

    def __post_init__(self) -> None:
        """Numbers of other libraries become Python's."""
        convert_numbers(self, "score", "label", "presence")


@dataclass(frozen=True)
class Masklet:
    """One object through one video. Frames where it is not seen are absent from `sightings`."""

    id: int
    sightings: Mapping[int, Sighting]
    label: int = -1  # index into the result's categories
    score: float = 0.0
    is_thing: bool = True

    def __post_init__(self) -> None:
        """An empty mask, as other programs give it where an object is not in sight, is no sighting; numbers of other
        libraries become Python's.
        """
        convert_numbers(self, "id", "label", "score", "is_thing")
        given = self.sightings
        if isinstance(given, dict) and not all(type(t) is int and seen.mask.area for t, seen in given.items()):
            kept = {convert_number(t): seen for t, seen in given.items() if seen.mask.area}  # a book has no others
            object.__setattr__(self, "sightings", kept)

    def __repr__(self) -> str:
        """A line, not all the masks: notebooks show it."""
        span = f"frames {min(self.sightings)} to {max(self.sightings)}" if self.sightings else "no frame"
        return f"<Masklet {self.id}: label {self.label}, score {self.score:.2f}, {len(self.sightings)} masks, {span}>"

    @property
    def first(self) -> int:
        """The first frame in which the object is seen."""
        return min(self.sightings)

    @property
    def last(self) -> int:
        """The last frame in which the object is seen."""
        return max(self.sightings)

    @property
    def key_frames(self) -> frozenset[int]:
        """Frames in which a confident detection or the user vouches for the object (SAM2BMP 3.4)."""
        return frozenset(t for t, s in self.sightings.items() if s.source in KEY)


def convert_numbers(made: Any, *names: str) -> None:
    """Has the numbers of these `names` in a value that was just `made` be Python's (`limits.convert_number`)."""
    for name in names:
        if type(value := getattr(made, name)) not in (int, float):
            object.__setattr__(made, name, convert_number(value))


@dataclass(frozen=True)
class Fork:
    """One object in one frame along several pathways, the best first (SAM2Long)."""

    frame: int
    sightings: tuple[Sighting, ...]
    origins: tuple[int, ...]  # which pathway of the frame before each one continues


RECORD = struct.Struct("<BBqqqddqqI")  # kind, source, id, frame, label, score, presence, h, w, bytes of run lengths
PUT, REMOVE, OPEN, DROP = range(4)
SOURCES = tuple(Source)
GUESS = 512  # bytes that are read at once: most masks are shorter
NOWHERE = -1


class TrackPage(Mapping[int, Sighting]):
    """One object's sightings by frame, frames rising. Only where each lies is held: a few bytes a frame."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._begin = 0  # the frame of the first in `_ahead`; `_behind` leads from the one before it to the first
        self._ahead, self._behind = array("q"), array("q")
        self._count = 0

    def __getitem__(self, frame: int) -> Sighting:
        at = self._find(frame)
        if at == NOWHERE:
            raise KeyError(frame)
        return read_sighting(self._spill, at)

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, Integral) and self._find(int(frame)) != NOWHERE

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        first = self._begin - len(self._behind)
        last = self._begin + len(self._ahead)
        return (t for t in range(first, last) if self._find(t) != NOWHERE)

    def __repr__(self) -> str:
        return f"<TrackPage of {self._count} sightings>"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # the file is this process's own

    def _find(self, frame: int) -> int:
        n = frame - self._begin
        if n >= 0:
            return self._ahead[n] if n < len(self._ahead) else NOWHERE
        return self._behind[-n - 1] if -n <= len(self._behind) else NOWHERE

    def _place(self, frame: int, at: int) -> None:
        """Notes where the sighting in `frame` lies."""
        if not self._ahead and not self._behind:
            self._begin = frame
        n = frame - self._begin
        side, n = (self._ahead, n) if n >= 0 else (self._behind, -n - 1)
        if n >= len(side):
            side.extend([NOWHERE] * (n + 1 - len(side)))
        self._count += (at != NOWHERE) - (side[n] != NOWHERE)
        side[n] = at


def read_sighting(spill: Spill, at: int) -> Sighting:
    """The sighting whose record in `spill` begins `at` this byte."""
    data = spill.read(at, GUESS)
    _, source, _, _, label, score, presence, h, w, size = RECORD.unpack_from(data)
    counts = data[RECORD.size : RECORD.size + size]
    if len(counts) < size:
        counts = spill.read(at + RECORD.size, size)
    return Sighting(Rle((h, w), counts), SOURCES[source], score, label, presence)


class TrackBook:
    """The only mutable thing of a run: what has been said so far, as run lengths. They lie in a `Spill`, in which every
    change is a record: who has its bytes has the book.
    """

    def __init__(self, pages: Mapping[int, Mapping[int, Sighting]] | None = None, spill: Spill | None = None) -> None:
        """
        Args:
            pages: what is in the book already: sightings by object and frame.
            spill: where the records go; a new one by default.
        """
        self.spill = Spill() if spill is None else spill
        self._pages: dict[int, TrackPage] = {}
        self._open: dict[int, list[Fork]] = defaultdict(list)
        for id, page in (pages or {}).items():
            self._turn_to(id)
            for frame, sighting in page.items():
                self.note(id, frame, sighting)

    @staticmethod
    def restore(spill: Spill, forks: Mapping[int, Iterable[Fork]]) -> TrackBook:
        """The book whose records are in `spill`, with the `forks` that were not decided. Raises ValueError where they
        are no records.
        """
        book, at = TrackBook(spill=spill), 0
        while at < len(spill):
            kind, _, id, frame, *_, size = RECORD.unpack(spill.read(at, RECORD.size))
            if kind == DROP:
                del book._pages[id]
            else:
                page = book._pages.setdefault(id, TrackPage(spill))
                if kind != OPEN:
                    page._place(frame, at if kind == PUT else NOWHERE)
            at += RECORD.size + size
        book._open.update({id: list(open_) for id, open_ in forks.items()})
        return book

    @property
    def pages(self) -> Mapping[int, TrackPage]:
        """The sightings of each object, by frame."""
        return self._pages

    @property
    def forks(self) -> dict[int, list[Fork]]:
        """What is not decided yet, by object."""
        return dict(self._open)

    def note(self, id: int, frame: int, sighting: Sighting) -> None:
        """Writes down one `sighting` of object `id` in `frame`; an empty mask opens its page but is no sighting."""
        page = self._turn_to(id)
        if sighting.mask.area:
            page._place(frame, self._record(PUT, id, frame, sighting))

    def branch(self, id: int, fork: Fork) -> None:
        """Writes down the best pathway's sighting, to be replaced by that of the pathway that wins in the end."""
        if len(set(fork.origins)) == 1:  # all go on from one: all before is decided
            self._settle(id, fork.origins[0])
        self._open[id].append(fork)
        self.note(id, fork.frame, fork.sightings[0])

    def settle(self) -> None:
        """The best pathways have won."""
        for id in list(self._open):
            self._settle(id, 0)

    def _settle(self, id: int, winner: int) -> None:
        """Follows a pathway back through the open forks."""
        page = self._turn_to(id)
        for fork in reversed(self._open.pop(id, [])):
            before, now = page.get(fork.frame), fork.sightings[winner]
            # A detection or a prompt in its place stays.
            if before != now and (before is None or before.source is now.source):
                self.remove(id, fork.frame)
                self.note(id, fork.frame, now)
            winner = fork.origins[winner]

    def remove(self, id: int, frame: int) -> None:
        """Takes back what was said of an object in a frame, if anything was."""
        if frame in self._pages[id]:
            self._record(REMOVE, id, frame)
            self._pages[id]._place(frame, NOWHERE)

    def drop(self, ids: Iterable[int]) -> None:
        """Forgets some objects, as if nothing had been said of them."""
        for id in ids:
            del self._pages[id]
            self._record(DROP, id)

    def masklets(self) -> tuple[Masklet, ...]:
        """Every object with at least one sighting, frames in order; they change with the book."""
        return tuple(Masklet(i, p) for i, p in self._pages.items() if p)

    def _turn_to(self, id: int) -> TrackPage:
        """The page of an object, a new one where it has none."""
        if id not in self._pages:
            self._record(OPEN, id)
            self._pages[id] = TrackPage(self.spill)
        return self._pages[id]

    def _record(self, kind: int, id: int, frame: int = 0, seen: Sighting | None = None) -> int:
        """Adds a record to the spill; returns where it begins."""
        if seen is None:
            return self.spill.append(RECORD.pack(kind, 0, id, frame, 0, 0.0, 0.0, 0, 0, 0))
        source, (h, w), counts = SOURCES.index(seen.source), seen.mask.size, seen.mask.counts
        head = RECORD.pack(kind, source, id, frame, seen.label, seen.score, seen.presence, h, w, len(counts))
        return self.spill.append(head + counts)
