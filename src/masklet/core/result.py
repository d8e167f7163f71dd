"""The answer: the masklets of one video, with where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from masklet.core.errors import InputError
from masklet.core.matching import match
from masklet.core.rle import compute_rle_iou
from masklet.core.tracks import Masklet, Sighting

if TYPE_CHECKING:
    import supervision as sv


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to make it again."""

    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # what JSON can say
    weights: Mapping[str, str] = field(default_factory=dict)  # name: sha256
    version: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()  # what the reader must know, such as where a damaged file ends
    recipe: str = ""  # what `run.recipe` calls all that decided it; "": it was made by the library


@dataclass(frozen=True)
class Comparison:
    """Which masklets of two results are the same object."""

    pairs: tuple[tuple[int, int, float], ...]  # id here, id there, IoU over space and time
    only_here: tuple[int, ...]
    only_there: tuple[int, ...]

    @property
    def mean_iou(self) -> float:
        """Mean IoU over all objects of both results; one without a partner counts 0, two empty results 1."""
        objects = len(self.pairs) + len(self.only_here) + len(self.only_there)
        return sum(iou for *_, iou in self.pairs) / objects if objects else 1.0


SHOWN, LONGEST_NAME = 10, 80  # of a result in a notebook: objects, and characters of its name


@dataclass(frozen=True)
class VideoResult:
    """The masklets of one video."""

    name: str
    size: tuple[int, int]  # h, w
    length: int  # frames
    rate: float  # frames per second
    masklets: tuple[Masklet, ...]
    categories: tuple[str, ...]
    provenance: Provenance
    times: tuple[float, ...] = ()  # seconds of each frame from the first; empty where `rate` is constant
    pixel_aspect: float = 1.0  # width of a pixel over its height, as it is to be shown

    def __repr__(self) -> str:
        """Some lines, not all the masks: notebooks show it."""
        h, w = self.size
        seen = [f"{self.name_of(m)} {m.id} ({len(m.sightings)} frames)" for m in self.masklets[:SHOWN]]
        more = [f"{len(self.masklets) - SHOWN} more"] if len(self.masklets) > SHOWN else []
        name = self.name if len(self.name) <= LONGEST_NAME else f"{self.name[:LONGEST_NAME]}..."
        return f"<VideoResult {name}: {w}x{h}, {self.length} frames, objects: {', '.join(seen + more) or 'none'}>"

    def at(self, frame: int) -> tuple[tuple[Masklet, Sighting], ...]:
        """The objects that are seen in a frame, in the order of their ids."""
        if not 0 <= frame < self.length:
            raise InputError(f"{self.name}: no frame {frame}; it has {self.length}, counted from 0")
        return tuple((m, m.sightings[frame]) for m in self.masklets if frame in m.sightings)

    def name_of(self, masklet: Masklet) -> str:
        """What the object is called; "object" where nothing named it."""
        return self.categories[masklet.label] if masklet.label >= 0 else "object"

    def save(self, path: str | Path) -> None:
        """Writes the result as JSON with run lengths; a file of that name is replaced at once and whole.

        Raises InputError where it cannot be written.
        """
        from masklet.core import codec  # which needs this class

        codec.write_result(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> VideoResult:
        """Reads what `save` wrote. Raises InputError naming the file and the entry that cannot be read."""
        from masklet.core import codec

        return codec.read_result(Path(path))

    @staticmethod
    def open(path: str | Path) -> VideoResult:
        """Reads what `save` wrote, but for its masks: those are read from the file when they are asked for, so that an
        hour of video opens at once. A file of an earlier version is read as a whole.

        Raises InputError naming the file and the entry that cannot be read; also when masks are asked for.
        """
        from masklet.core import stored_result

        return stored_result.open_result(Path(path))

    def read_window(self, start: int, stop: int) -> VideoResult:
        """The same result with what is seen in frames [start, stop) alone, in memory; frames keep their numbers."""
        kept = (
            replace(m, sightings={t: m.sightings[t] for t in range(start, stop) if t in m.sightings})
            for m in self.masklets
        )
        return replace(self, masklets=tuple(m for m in kept if m.sightings))

    def compare(self, other: VideoResult) -> Comparison:
        """Pairs the objects of two results of one video, one to one, by IoU over space and time (> 0).

        Raises InputError where the videos' sizes or lengths differ.
        """
        if (self.size, self.length) != (other.size, other.length):
            raise InputError(
                f"{self.name} ({self.length} frames of {self.size[1]}x{self.size[0]}) and {other.name} "
                f"({other.length} of {other.size[1]}x{other.size[0]}) are not the same video; compare results of one"
            )
        iou = compute_masklet_iou(self.masklets, other.masklets)
        links = match(iou, 0.0)
        here, there = [m.id for m in self.masklets], [m.id for m in other.masklets]
        return Comparison(
            tuple((here[r], there[c], float(iou[r, c])) for r, c in links.pairs),
            tuple(here[r] for r in links.free_rows),
            tuple(there[c] for c in links.free_cols),
        )

    def to_supervision(self, frame: int) -> sv.Detections:
        """The objects of a frame as `supervision.Detections`.

        `xyxy` [n 4] in pixels, `mask` bool [n h w], `confidence` [n] the masklets' scores, `class_id` [n] the
        labels, `tracker_id` [n] the ids, `data["class_name"]` [n]. Raises InputError on a frame that is not there.
        """
        import supervision as sv  # half a second, which only those pay who draw

        seen = self.at(frame)
        return sv.Detections(
            xyxy=np.array([s.mask.box for _, s in seen], np.float32).reshape(-1, 4),
            mask=np.array([s.mask.decode_pixels() for _, s in seen], bool).reshape(-1, *self.size),
            confidence=np.array([m.score for m, _ in seen], np.float32),
            class_id=np.array([m.label for m, _ in seen], int),
            tracker_id=np.array([m.id for m, _ in seen], int),
            data={"class_name": np.array([self.name_of(m) for m, _ in seen], dtype=str)},
        )


def compute_masklet_iou(a: Sequence[Masklet], b: Sequence[Masklet]) -> Float[np.ndarray, "n m"]:
    """IoU over space and time of every pair: pixels in both over pixels in either, of all frames."""
    both = np.zeros((len(a), len(b)))
    for t in {t for m in a for t in m.sightings} & {t for m in b for t in m.sightings}:
        rows = [r for r, m in enumerate(a) if t in m.sightings]
        cols = [c for c, m in enumerate(b) if t in m.sightings]
        masks, others = [a[r].sightings[t].mask for r in rows], [b[c].sightings[t].mask for c in cols]
        total = np.add.outer([m.area for m in masks], [m.area for m in others])
        iou = compute_rle_iou(masks, others)
        both[np.ix_(rows, cols)] += np.round(iou / (1 + iou) * total)  # iou = both / (total - both)
    total = np.add.outer(*([sum(s.mask.area for s in m.sightings.values()) for m in side] for side in (a, b)))
    return np.divide(both, total - both, out=np.zeros_like(both), where=total > both)
