"""The answer: the masklets of one video, with where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Num

from masklet.core.errors import InputError
from masklet.core.frames import Video, get_frame_times, get_pixel_aspect, list_video_notes, read_through
from masklet.core.limits import is_whole_number, quote_value
from masklet.core.matching import match
from masklet.core.rle import find_rle_overlaps
from masklet.core.tracks import Masklet, Sighting, convert_numbers

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv
    from matplotlib.axes import Axes

    from masklet.core.statistics import ResultStatistics


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from: enough to make it again."""

    system: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # what JSON can say
    weights: Mapping[str, str] = field(default_factory=dict)  # name: sha256
    version: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()  # what the reader must know, such as where a damaged file ends
    edits: tuple[str, ...] = ()  # what was changed by hand, in order, as `core.edits.apply_edit` takes it
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


SHOWN = 10  # objects of a result in a notebook
LONGEST_NAME, LONGEST_LABEL = 80, 30  # characters of its name, and of the objects'


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

    def __post_init__(self) -> None:
        """An object that is seen in no frame is none of the video's; a category without a name is called "object", as
        no form holds an empty name; numbers of other libraries become Python's.
        """
        convert_numbers(self, "length", "rate", "pixel_aspect")
        if not all(m.sightings for m in self.masklets):
            object.__setattr__(self, "masklets", tuple(m for m in self.masklets if m.sightings))
        if "" in self.categories:
            object.__setattr__(self, "categories", tuple(name or "object" for name in self.categories))

    def __repr__(self) -> str:
        """Some lines, not all the masks: notebooks show it."""
        h, w = self.size
        names = [_shorten(self.name_of(m), LONGEST_LABEL) for m in self.masklets[:SHOWN]]
        seen = [f"{name} {m.id} ({len(m.sightings)} frames)" for name, m in zip(names, self.masklets, strict=False)]
        more = [f"{len(self.masklets) - SHOWN} more"] if len(self.masklets) > SHOWN else []
        name = _shorten(self.name, LONGEST_NAME)
        return f"<VideoResult {name}: {w}x{h}, {self.length} frames, objects: {', '.join(seen + more) or 'none'}>"

    def at(self, frame: int) -> tuple[tuple[Masklet, Sighting], ...]:
        """The objects that are seen in a frame, in the order of their ids."""
        if not (is_whole_number(frame) and frame < self.length):
            raise InputError(f"{self.name}: no frame {quote_value(frame)}; it has {self.length}, counted from 0")
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
        """Reads what `save` wrote; a folder that a run wrote stands for its masklets.json. Raises InputError naming the
        file and the entry that cannot be read.
        """
        from masklet.core import codec

        return codec.read_result(Path(path))

    @staticmethod
    def open(path: str | Path) -> VideoResult:
        """Reads what `load` reads, but for its masks: those are read from the file when they are asked for, so that an
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

    def export(
        self, form: str, folder: str | Path, *, frames: Any = None, overwrite: bool = False, **settings: Any
    ) -> Path:
        """Writes the result in the form of another tool, as `masklet export` does.

        Args:
            form: its name, such as "coco"; docs/exports.md has all.
            folder: a new folder, which appears whole or not at all.
            frames: the video that the result is of, as a source or a `Video`; the images that the form refers to are
                written from it.
            overwrite: whether what is in the folder already is replaced.
            **settings: of the form, such as `polygons=True` of "coco".

        Returns:
            The folder.

        Raises:
            InputError: the form cannot hold the result, or cannot be written there.
        """
        exports = _import_late("masklet.exports")
        videos = {} if frames is None else {self.name: frames}
        made: Path = exports.export_results([self], form, folder, videos, overwrite=overwrite, settings=settings)
        return made

    def _repr_html_(self) -> str:
        """What a notebook shows: a strip of frames to scrub through, and the objects, in at most 300 kB or so."""
        made: str = _import_late("masklet.notebook").render_result_html(self)
        return made

    def show(self, frames: Any = None, *, folder: str | Path | None = None, **settings: Any) -> None:
        """Shows the video with its masklets: within a notebook; elsewhere writes it and says where it is.

        Args:
            frames: the video that the result is of, as a source or a `Video`; what it was made from unless given.
            folder: a new folder to write to; a temporary one unless given.
            **settings: of `masklet export overlay`, such as `trails=20`; docs/exports.md has all.

        Raises:
            InputError: the video is not there, or is another one.
        """
        _import_late("masklet.notebook").show_result(self, frames, folder, settings)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws when each object is seen, how sure, and how its masks came about (`view.timeline.plot_timeline`).

        Args:
            ax: matplotlib's axes to draw into; new ones unless given.

        Returns:
            The axes.

        Raises:
            InputError: there is no matplotlib.
        """
        axes: Axes = _import_late("masklet.view.timeline").plot_timeline(self, ax)
        return axes

    def rename(self, id: int, name: str) -> VideoResult:
        """The result with another name for one object (`core.edits.rename_object`)."""
        from masklet.core import edits

        return edits.rename_object(self, id, name)

    def relabel(self, old: str, new: str) -> VideoResult:
        """The result with the name `new` for all objects called `old` (`core.edits.relabel_objects`)."""
        from masklet.core import edits

        return edits.relabel_objects(self, old, new)

    def merge(self, *ids: int) -> VideoResult:
        """The result with one object in place of several: the first one's id (`core.edits.merge_objects`)."""
        from masklet.core import edits

        return edits.merge_objects(self, *ids)

    def split(self, id: int, frame: int) -> VideoResult:
        """The result with a new object in place of one from `frame` on (`core.edits.split_object`)."""
        from masklet.core import edits

        return edits.split_object(self, id, frame)

    def drop(self, *ids: int) -> VideoResult:
        """The result without some objects (`core.edits.drop_objects`)."""
        from masklet.core import edits

        return edits.drop_objects(self, *ids)

    def trim(self, start: int, stop: int, *ids: int) -> VideoResult:
        """The result without what is seen of objects outside of frames [start, stop) (`core.edits.trim_objects`)."""
        from masklet.core import edits

        return edits.trim_objects(self, start, stop, *ids)

    def smooth(self, radius: int = 1, *ids: int) -> VideoResult:
        """The result with outlines steadied over `radius` frames each way (`core.edits.smooth_masks`)."""
        from masklet.core import edits

        return edits.smooth_masks(self, radius, *ids)

    def fill_gaps(self, longest: int = 5, *ids: int) -> VideoResult:
        """The result with masks in gaps of at most `longest` frames (`core.edits.fill_gaps`)."""
        from masklet.core import edits

        return edits.fill_gaps(self, longest, *ids)

    def filter(
        self, *, min_frames: int = 0, min_area: int = 0, labels: Sequence[str] = (), score: float = 0.0
    ) -> VideoResult:
        """The result with the objects that count alone (`core.edits.filter_objects`)."""
        from masklet.core import edits

        return edits.filter_objects(self, min_frames=min_frames, min_area=min_area, labels=labels, score=score)

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas table, a row an object and frame (`core.tables.TableRow`). Raises InputError without pandas."""
        from masklet.core import tables

        return tables.make_dataframe(self)

    def to_numpy(self, frame: int) -> Bool[np.ndarray, "n h w"]:
        """The masks of a frame in the order of `at`. Raises InputError on a frame that is not there."""
        from masklet.core import tables

        return tables.stack_masks(self, frame)

    def boxes(self, frame: int) -> Int64[np.ndarray, "n 4"]:
        """The boxes of a frame in the order of `at`: x0, y0, x1, y1 in pixels, x1 and y1 one past the last. Raises
        InputError on a frame that is not there.
        """
        from masklet.core import tables

        return tables.stack_boxes(self, frame)

    def polygons(self, frame: int, tolerance: float = 0.0) -> dict[int, list[Num[np.ndarray, "_ 2"]]]:
        """The polygons of a frame by object: corners (x, y), along the pixels' edges unless a `tolerance` in pixels is
        given. Raises InputError on a frame that is not there.
        """
        from masklet.core import tables

        return tables.trace_frame_polygons(self, frame, tolerance)

    def tracks(self) -> dict[int, Float[np.ndarray, "n 3"]]:
        """The path of each object by its id: frame, and the middle of its pixels, x and y."""
        from masklet.core import tables

        return tables.compute_tracks(self)

    def statistics(self) -> ResultStatistics:
        """Areas, speeds, visibility and confidence, and frames in which to look for mistakes."""
        from masklet.core import statistics

        return statistics.compute_statistics(self)

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


def create_empty_result(video: Video) -> VideoResult:
    """The result of a `video` of which nothing is known, which is read through where it does not say its length."""
    if not len(video):
        read_through(video)
    times = get_frame_times(video)
    times = times if len(times) == len(video) else ()
    aspect, made = get_pixel_aspect(video), Provenance("session", notes=list_video_notes(video))
    return VideoResult(video.name, video.size, len(video), video.rate, (), ("object",), made, times, aspect)


def _import_late(module: str) -> Any:
    """A module that is on top of the core, by name: the core needs none of it."""
    return import_module(module)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def compute_masklet_iou(a: Sequence[Masklet], b: Sequence[Masklet]) -> Float[np.ndarray, "n m"]:
    """IoU over space and time of every pair: pixels in both over pixels in either, of all frames."""
    both = np.zeros((len(a), len(b)))
    for t in {t for m in a for t in m.sightings} & {t for m in b for t in m.sightings}:
        rows = np.array([r for r, m in enumerate(a) if t in m.sightings])
        cols = np.array([c for c, m in enumerate(b) if t in m.sightings])
        masks, others = [a[r].sightings[t].mask for r in rows], [b[c].sightings[t].mask for c in cols]
        r, c, common = find_rle_overlaps(masks, others)
        np.add.at(both, (rows[r], cols[c]), common)
    total = np.add.outer(*([sum(s.mask.area for s in m.sightings.values()) for m in side] for side in (a, b)))
    return np.divide(both, total - both, out=np.zeros_like(both), where=total > both)
