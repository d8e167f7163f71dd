"""Random results, and what of them can be compared."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from pycocotools import mask as coco

from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source

NAMES = ("cat", "dog", "bird")


def bits(rows: str) -> Rle:
    """A mask from rows of 0 and 1: "10 01"."""
    return encoded(np.array([[c == "1" for c in row] for row in rows.split()]))


def masklet(id: int, frames: dict[int, str], label: int = 0, score: float = 1.0, is_thing: bool = True) -> Masklet:
    seen = {t: Sighting(bits(rows), Source.FORWARD, 0.3, label) for t, rows in frames.items()}
    return Masklet(id, seen, label, score, is_thing)


def video(*masklets: Masklet, name: str = "clip", size=(2, 3), length: int = 3, categories=NAMES) -> VideoResult:
    return VideoResult(name, size, length, 25.0, masklets, categories, Provenance("test"))


def encoded(pixels: np.ndarray) -> Rle:
    """The run lengths of numpy's pixels."""
    return Rle(pixels.shape, coco.encode(np.asfortranarray(pixels, np.uint8))["counts"])


@st.composite
def masks(draw, size):
    pixels = draw(st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]))
    pixels[draw(st.integers(0, len(pixels) - 1))] = True  # seen
    return np.array(pixels).reshape(size)


IDS, LABELS, THINGS = st.integers(1, 255), st.integers(-1, 2), st.just(True)


@st.composite
def drafts(draw, name="clip", ids=IDS, labels=LABELS, things=THINGS):
    """Any result, in plain values: the checks of our own types draw random numbers, which Hypothesis forbids here."""
    size, length = (draw(st.integers(1, 5)), draw(st.integers(1, 5))), draw(st.integers(1, 4))
    objects = []
    for id in sorted(draw(st.lists(ids, unique=True, max_size=4))):
        frames = sorted(draw(st.sets(st.integers(0, length - 1), min_size=1)))
        seen = {t: draw(masks(size)) for t in frames}
        objects.append((id, seen, draw(labels), draw(st.floats(0, 1)), draw(things)))
    return name, size, length, objects


def made(draft) -> VideoResult:
    """The result of a draft."""
    name, size, length, objects = draft
    masklets = [
        Masklet(
            id, {t: Sighting(encoded(p), Source.BACKWARD, 0.1, label) for t, p in seen.items()}, label, score, thing
        )
        for id, seen, label, score, thing in objects
    ]
    return VideoResult(name, size, length, 25.0, tuple(masklets), NAMES, Provenance("test"))


def apart(result: VideoResult) -> VideoResult:
    """The same without overlaps: the first object keeps the pixel; what is left without any goes."""
    taken = np.zeros((result.length, *result.size), bool)
    made = []
    for m in result.masklets:
        seen = {}
        for t, s in m.sightings.items():
            own = s.mask.decode().numpy() & ~taken[t]
            taken[t] |= own
            if own.any():
                seen[t] = Sighting(encoded(own), s.source, s.score, s.label)
        if seen:
            made.append(Masklet(m.id, seen, m.label, m.score, m.is_thing))
    return VideoResult(result.name, result.size, result.length, 25.0, tuple(made), result.categories, result.provenance)


def frame(result: VideoResult) -> tuple:
    return result.name, result.size, result.length, result.rate


def pixels(m: Masklet) -> dict[int, bytes]:
    return {t: s.mask.counts for t, s in m.sightings.items()}


def by_id(result: VideoResult) -> dict[int, dict[int, bytes]]:
    return {m.id: pixels(m) for m in result.masklets}


def told(result: VideoResult) -> list[tuple]:
    """Objects with their name and score, in their order."""
    return [(result.name_of(m), m.score, pixels(m)) for m in result.masklets]
