"""Anchors: the frames in which a user vouches for an object. Values: every change gives new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from masklet.core.instances import Clicks
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source


class Spread(Enum):
    """Whether the frames beside an anchor know of it."""

    NEW = "new"
    BEGUN = "begun"  # some do: its propagation was stopped, or was asked for in some frames only
    DONE = "done"


@dataclass(frozen=True)
class Anchor:
    """One object in one frame as the user wants it.

    A sighting whose source is `Source.PROMPTED` is an anchor, too, though nothing more is known of it: those of a
    result that `masklet track` made.
    """

    mask: Rle  # without a pixel: the object is not in this frame
    clicks: Clicks | None = None  # all that was marked in this frame; None: the mask was painted or confirmed
    before: Rle | None = None  # the mask that the clicks correct
    spread: Spread = Spread.NEW


Anchors = Mapping[int, Mapping[int, Anchor]]  # id: frame


def set_anchor(anchors: Anchors, id: int, frame: int, anchor: Anchor) -> Anchors:
    """The `anchors` with one more, of object `id` in a `frame`, or with another one there."""
    return {**anchors, id: {**anchors.get(id, {}), frame: anchor}}


def mark_spread(anchors: Anchors, id: int, frames: Iterable[int], spread: Spread) -> Anchors:
    """The `anchors` in which those of object `id` in these `frames` are `spread` so far."""
    own = anchors.get(id, {})
    marked = {t: replace(own[t], spread=spread) for t in frames if t in own}
    return {**anchors, id: {**own, **marked}} if marked else anchors


def keep_valid_anchors(anchors: Anchors, result: VideoResult) -> Anchors:
    """The `anchors` that are still what the `result` shows: an edit may have changed masks, or whose they are."""
    masklets = {m.id: m for m in result.masklets}
    kept = {
        id: {t: anchor for t, anchor in own.items() if is_shown(anchor, masklets[id].sightings.get(t))}
        for id, own in anchors.items()
        if id in masklets
    }
    return {id: own for id, own in kept.items() if own}


def is_shown(anchor: Anchor, seen: Sighting | None) -> bool:
    """Whether what is `seen` of an object in the anchor's frame is what the anchor says."""
    return anchor.mask.area == 0 if seen is None else seen.mask == anchor.mask


@dataclass(frozen=True)
class ObjectAnchors:
    """All anchors of one object: those of the session, and its prompted sightings."""

    told: Mapping[int, Anchor] = field(default_factory=dict)
    sightings: Mapping[int, Sighting] = field(default_factory=dict)

    @staticmethod
    def of(anchors: Anchors, masklet: Masklet) -> ObjectAnchors:
        """The anchors that a `masklet` has."""
        return ObjectAnchors(anchors.get(masklet.id, {}), masklet.sightings)

    def get(self, frame: int) -> Anchor | None:
        """The anchor in a `frame`; None where there is none."""
        if frame in self.told:
            return self.told[frame]
        seen = self.sightings.get(frame)
        return Anchor(seen.mask, spread=Spread.DONE) if seen and seen.source is Source.PROMPTED else None

    def list_frames(self) -> list[int]:
        """The frames that have one, rising."""
        prompted = (t for t, seen in self.sightings.items() if seen.source is Source.PROMPTED)
        return sorted({*self.told, *prompted})

    @property
    def new(self) -> list[int]:
        """The frames of those that are not spread yet."""
        return sorted(t for t, anchor in self.told.items() if anchor.spread is not Spread.DONE)

    def iterate(self) -> Iterator[tuple[int, Anchor]]:
        """Each frame that has one, and the anchor."""
        for frame in self.list_frames():
            anchor = self.get(frame)
            assert anchor is not None
            yield frame, anchor
