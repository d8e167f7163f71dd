"""Masklets: one object's mask through time, and the book in which a run writes them down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from masklet.core.rle import Rle


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


@dataclass(frozen=True)
class Masklet:
    """One object through one video. Frames where it is not seen are absent from `sightings`."""

    id: int
    sightings: Mapping[int, Sighting]
    label: int = -1  # index into the result's categories
    score: float = 0.0
    is_thing: bool = True

    def __repr__(self) -> str:
        """A line, not all the masks: notebooks show it."""
        span = f"frames {min(self.sightings)} to {max(self.sightings)}" if self.sightings else "no frame"
        return f"<Masklet {self.id}: label {self.label}, score {self.score:.2f}, {len(self.sightings)} masks, {span}>"

    @property
    def first(self) -> int:
        """The first frame in which the object is seen."""
        return min(self.sightings)

    @property
    def key_frames(self) -> frozenset[int]:
        """Frames in which a confident detection or the user vouches for the object (SAM2BMP 3.4)."""
        return frozenset(t for t, s in self.sightings.items() if s.source in KEY)


@dataclass(frozen=True)
class Fork:
    """One object in one frame along several pathways, the best first (SAM2Long)."""

    frame: int
    sightings: tuple[Sighting, ...]
    origins: tuple[int, ...]  # which pathway of the frame before each one continues


@dataclass
class TrackBook:
    """The only mutable thing of a run: what has been said so far, as run lengths."""

    pages: dict[int, dict[int, Sighting]] = field(default_factory=dict)
    _open: dict[int, list[Fork]] = field(default_factory=lambda: defaultdict(list))

    def note(self, id: int, frame: int, sighting: Sighting) -> None:
        """Writes down one `sighting` of object `id` in `frame`; an empty mask opens its page but is no sighting."""
        page = self.pages.setdefault(id, {})
        if sighting.mask.area:
            page[frame] = sighting

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
        page = self.pages.setdefault(id, {})
        for fork in reversed(self._open.pop(id, [])):
            before, now = page.get(fork.frame), fork.sightings[winner]
            if before is None or before.source is now.source:  # a detection or a prompt in its place stays
                page.pop(fork.frame, None)
                self.note(id, fork.frame, now)
            winner = fork.origins[winner]

    def drop(self, ids: Iterable[int]) -> None:
        """Forgets some objects, as if nothing had been said of them."""
        for id in ids:
            del self.pages[id]

    def masklets(self) -> tuple[Masklet, ...]:
        """Every object with at least one sighting, frames in order."""
        return tuple(Masklet(i, dict(sorted(p.items()))) for i, p in self.pages.items() if p)
