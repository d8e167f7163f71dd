"""When each object is seen, and how its masks came about: what is drawn as a bar over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from masklet.core.stored_result import StoredSightings
from masklet.core.tracks import Masklet, Source

UNSEEN, UNKNOWN = 0, 5  # beside `CODES`; unknown: nobody has looked yet
CODES = {Source.DETECTED: 1, Source.PROMPTED: 2, Source.FORWARD: 3, Source.BACKWARD: 4}
LETTERS = ".dcfb?"  # of the codes: detected, corrected (prompted), forward, backward
STEPS = 9  # of scores and shares as digits


@dataclass(frozen=True)
class PresenceTrack:
    """One object, frame by frame, in two bytes each."""

    codes: UInt8[np.ndarray, " t"]  # of its sources, `UNSEEN` or `UNKNOWN`
    scores: UInt8[np.ndarray, " t"]  # 255 is 1

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last frame in which the object is seen; there must be one."""
        seen = np.flatnonzero(self.codes)
        return int(seen[0]), int(seen[-1])

    @property
    def count(self) -> int:
        """In how many frames it is seen."""
        return int(np.count_nonzero(self.codes))


class BinnedTrack(NamedTuple):
    """One object over a stretch of time, a letter or digit a bin."""

    sources: str  # of `LETTERS`: corrected where any frame of the bin is, else what most are
    scores: str  # the lowest of the bin, 0 to 9
    shares: str  # of the bin's frames in which the object is seen, 0 to 9; 0 only where it is in none


def trace_presence(masklet: Masklet, length: int) -> PresenceTrack:
    """The track of an object in a video of `length` frames. Masks are not looked at, nor read where they lie on the
    disk. Raises InputError where the file that they lie in is damaged.

    >>> from masklet.core.rle import Rle
    >>> from masklet.core.tracks import Sighting
    >>> seen = Sighting(Rle.encode_pixels(np.ones((1, 1), bool)), Source.FORWARD, 0.5)
    >>> track = trace_presence(Masklet(1, {1: seen}), 3)
    >>> track.codes.tolist(), track.scores.tolist()
    ([0, 3, 0], [0, 128, 0])
    """
    codes, scores = np.zeros(length, np.uint8), np.zeros(length, np.uint8)
    for frame, source, score in _iterate_facts(masklet):
        if 0 <= frame < length:  # what is written in a file may be of no frame
            codes[frame], scores[frame] = CODES[source], round(255 * min(max(score, 0.0), 1.0))
    return PresenceTrack(codes, scores)


def _iterate_facts(masklet: Masklet) -> Iterable[tuple[int, Source, float]]:
    if isinstance(masklet.sightings, StoredSightings):
        return masklet.sightings.iterate_facts()
    return ((t, s.source, s.score) for t, s in masklet.sightings.items())


def guess_presence(masklet: Masklet, length: int) -> PresenceTrack:
    """The track of an object that nobody has looked at yet: unknown where it may be seen, as far as the index of its
    file tells at once.
    """
    codes = np.zeros(length, np.uint8)
    if isinstance(masklet.sightings, StoredSightings):
        for start, stop in masklet.sightings.spans:
            codes[max(start, 0) : stop] = UNKNOWN
    else:
        codes[:] = UNKNOWN
    return PresenceTrack(codes, np.zeros(length, np.uint8))


def bin_track(track: PresenceTrack, start: int, stop: int, bins: int) -> BinnedTrack:
    """The frames [start, stop) of a track, which are there, in at most so many `bins` of nearly equal length.

    >>> track = PresenceTrack(np.array([0, 1, 1, 3, 2, 0], np.uint8), np.array([0, 255, 51, 102, 255, 0], np.uint8))
    >>> bin_track(track, 0, 6, 3)
    BinnedTrack(sources='ddc', scores='929', shares='595')
    """
    edges = compute_bin_edges(start, stop, bins)
    codes, scores = track.codes[start:stop], track.scores[start:stop]
    at = edges[:-1] - start
    counts = np.stack([np.add.reduceat(codes == code, at, dtype=np.int64) for code in range(len(LETTERS))])
    seen = counts[1:].sum(axis=0)
    most = np.where(seen > 0, counts[1:].argmax(axis=0) + 1, UNSEEN)
    most[counts[CODES[Source.PROMPTED]] > 0] = CODES[Source.PROMPTED]
    lowest = np.minimum.reduceat(np.where(codes > 0, scores, 255), at)
    lowest[seen == 0] = 0
    shares = np.ceil(STEPS * seen / np.diff(edges)).astype(int)
    digits = np.rint(lowest * (STEPS / 255)).astype(int)
    return BinnedTrack("".join(LETTERS[n] for n in most), "".join(map(str, digits)), "".join(map(str, shares)))


def compute_bin_edges(start: int, stop: int, bins: int) -> Int64[np.ndarray, " n"]:
    """Where bins of nearly equal length begin, and the end; each has a frame at least.

    >>> compute_bin_edges(0, 10, 3).tolist(), compute_bin_edges(4, 6, 100).tolist()
    ([0, 3, 7, 10], [4, 5, 6])
    """
    count = max(1, min(bins, stop - start))
    return np.rint(np.linspace(start, stop, count + 1)).astype(np.int64)
