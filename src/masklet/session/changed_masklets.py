"""Results of which a few masks change: what does not change is not copied, and may stay in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet, Sighting

Changes = Mapping[int, Sighting | None]  # by frame; None: the object is not seen there


class ChangedSightings(Mapping[int, Sighting]):
    """Sightings by frame, frames rising, some of which are not those of the ones below.

    >>> below = {0: "a", 2: "c"}
    >>> list(ChangedSightings(below, {1: "b", 2: None}).items())
    [(0, 'a'), (1, 'b')]
    """

    def __init__(self, below: Mapping[int, Sighting], changes: Changes) -> None:
        """`below`: what is not changed by the `changes`."""
        if isinstance(below, ChangedSightings):  # never more than two layers
            changes, below = {**below.changes, **changes}, below.below
        self.below: Mapping[int, Sighting] = below
        self.changes: Changes = changes

    def __getitem__(self, frame: int) -> Sighting:
        if frame not in self.changes:
            return self.below[frame]
        seen = self.changes[frame]
        if seen is None:
            raise KeyError(frame)
        return seen

    def __contains__(self, frame: object) -> bool:
        return self.changes[frame] is not None if frame in self.changes else frame in self.below  # type: ignore[index]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted({*self.below, *self.changes} - {t for t, seen in self.changes.items() if seen is None}))

    def __len__(self) -> int:
        more = sum((seen is not None) - (t in self.below) for t, seen in self.changes.items())
        return len(self.below) + more

    def __repr__(self) -> str:
        return f"<{len(self)} sightings, {len(self.changes)} changed>"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def change_masklet(result: VideoResult, id: int, changes: Changes) -> VideoResult:
    """The `result` with `changes` of object `id`, which is a new one where there is none of this id; without the object
    where nothing of it is left.
    """
    known = find_masklet(result, id)
    if known is None:
        first = next((seen for seen in changes.values() if seen), None)
        known = Masklet(id, {}, score=first.score if first else 0.0)
        at = next((n for n, m in enumerate(result.masklets) if m.id > id), len(result.masklets))
        masklets = (*result.masklets[:at], known, *result.masklets[at:])
    else:
        masklets = result.masklets
    changed = replace(known, sightings=ChangedSightings(known.sightings, changes))
    kept = (changed if m is known else m for m in masklets)
    return replace(result, masklets=tuple(m for m in kept if m is not changed or len(changed.sightings)))


def find_masklet(result: VideoResult, id: int) -> Masklet | None:
    """The object `id` of a `result`; None where there is none."""
    return next((m for m in result.masklets if m.id == id), None)
