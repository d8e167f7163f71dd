"""What a data set's split says of itself, and the common ground of all forms: ids, names, objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

from masklet.core.errors import InputError
from masklet.core.limits import (
    MOST_CATEGORIES,
    check_count,
    check_file_name,
    check_frame_count,
    check_relative_path,
    check_text,
)
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.json_entry import JsonEntry, Size
from masklet.io.video.images import RATE


@dataclass(frozen=True)
class ListedVideo:
    """One video of a split, as far as the list says."""

    name: str
    id: int | str | None = None
    size: Size | None = None  # h, w
    frames: tuple[str, ...] | None = None  # their names without suffix


@dataclass(frozen=True)
class DatasetSplit:
    """The videos and categories of a split."""

    label: str  # the file
    videos: Mapping[str, ListedVideo]
    categories: Mapping[int, str] = field(default_factory=dict)  # id: name
    stuff: frozenset[int] = frozenset()  # ids of categories that are no things

    @staticmethod
    def of(
        label: str,
        videos: Iterable[ListedVideo],
        categories: Mapping[int, str] | None = None,
        stuff: Iterable[int] = (),
    ) -> DatasetSplit:
        """The split that `label`, its file, lists: its `videos`, its `categories` as id: name, and the ids of `stuff`.

        Raises InputError where two videos have one name or id, or a name of a video or a frame is none of a file.
        """
        listed = list(videos)
        for video in listed:
            check_relative_path(label, video.name)
            check_frame_names(f"{label}: video {video.name}", video.frames or ())
        for key in ("name", "id"):
            values = [getattr(v, key) for v in listed if getattr(v, key) is not None]
            if len(set(values)) < len(values):
                twice = Counter(values).most_common(1)[0][0]
                raise InputError(f"{label}: the video {key} {twice!r} is given twice; keep one of them")
        return DatasetSplit(label, {v.name: v for v in listed}, categories or {}, frozenset(stuff))

    @property
    def names(self) -> tuple[str, ...]:
        """The categories' names in the order of their ids."""
        return tuple(self.categories[id] for id in sorted(self.categories))

    @property
    def labels(self) -> dict[int, int]:
        """{category id: its place in `names`}, which is the label of the objects of this category."""
        return {id: n for n, id in enumerate(sorted(self.categories))}

    @property
    def category_ids(self) -> dict[str, int]:
        """{category name: its id}, as results are looked up that name their objects."""
        return {name: id for id, name in self.categories.items()}


def read_categories(content: JsonEntry) -> dict[int, str]:
    """{id: name} of the list 'categories'. Raises InputError where an id or a name is given twice."""
    found: dict[int, str] = {}
    names: set[str] = set()
    check_count(content.where, "categories", len(content.items("categories")), MOST_CATEGORIES)
    for entry in content.entries("categories"):
        id, name = entry.whole("id"), check_text(entry.where, "'name'", entry.text("name"))
        if id in found or name in names:
            raise entry.wrong(f"the category {name!r}, id {id}, is given twice; keep one of them")
        found[id] = name
        names.add(name)
    return found


def index_categories(results: Sequence[VideoResult], first: int = 1) -> dict[str, int]:
    """{category name: id} of some results, numbered in their order from `first`; "object" where one has no name."""
    names = [name for r in results for name in r.categories]
    names += [r.name_of(m) for r in results for m in r.masklets]
    return {name: id for id, name in enumerate(dict.fromkeys(names), start=first)}


def find_category_id(result: VideoResult, masklet: Masklet, ids: Mapping[str, int]) -> int:
    """The id in `ids` (name: id) of the category of a `result`'s `masklet`, which is "object" where it has no name.

    Raises InputError where the form or the split has no such category.
    """
    name = result.name_of(masklet)
    if name not in ids:
        known = ", ".join(list(ids)[:5]) + (", ..." if len(ids) > 5 else "")
        raise InputError(f"{result.name}: object {masklet.id} is called {name!r}; the categories there are {known}")
    return ids[name]


def resolve_frame_names(result: VideoResult, names: Sequence[str] | None) -> Sequence[str]:
    """The `names` of the frames, 00000 on where None. Raises InputError where they are not one for each frame, or one
    is no file's name.
    """
    if names is None:
        return [f"{t:05d}" for t in range(result.length)]
    if len(names) != result.length or len(set(names)) != len(names):
        raise InputError(
            f"{result.name}: {len(set(names))} different names for {result.length} frames; give each its own"
        )
    return check_frame_names(result.name, names)


def check_frame_names(where: str, names: Sequence[str]) -> Sequence[str]:
    """Names of frames, under which files are written. Raises InputError, beginning with `where`, where one is none."""
    check_frame_count(where, len(names))
    for name in names:
        check_file_name(where, name)
    return names


@dataclass
class VideoObjects:
    """The objects of one video while its file is read."""

    masks: dict[int, dict[int, tuple[Rle, float]]] = field(default_factory=dict)  # id: frame: mask, score
    labels: dict[int, int] = field(default_factory=dict)
    stuff: set[int] = field(default_factory=set)

    def add(self, id: int, frame: int, mask: Rle, score: float = 1.0, label: int = -1, is_thing: bool = True) -> bool:
        """Adds the `mask` of object `id` in a `frame`; False where it has one there already, which then stays.

        A mask without a pixel counts as none in the result. `score` is the mask's, 0 to 1; `label`, -1 for no
        category, is the object's from its first mask on; it is stuff once `is_thing` is False.
        """
        seen = self.masks.setdefault(id, {})
        self.labels.setdefault(id, label)
        self.stuff |= set() if is_thing else {id}
        if frame in seen:
            return False
        seen[frame] = mask, score
        return True

    def masklets(self) -> tuple[Masklet, ...]:
        """The objects with a pixel, in the order of their ids; an object's score is the mean of its masks'."""
        return tuple(self._masklet(id) for id in sorted(self.masks) if self._seen(id))

    def _seen(self, id: int) -> dict[int, tuple[Rle, float]]:
        return {t: self.masks[id][t] for t in sorted(self.masks[id]) if self.masks[id][t][0].area}

    def _masklet(self, id: int) -> Masklet:
        seen, label = self._seen(id), self.labels[id]
        sightings = {t: Sighting(mask, Source.DETECTED, score, label) for t, (mask, score) in seen.items()}
        return Masklet(id, sightings, label, mean(score for _, score in seen.values()), id not in self.stuff)


def build_video_result(
    name: str,
    size: Size,
    length: int,
    objects: VideoObjects,
    categories: Sequence[str],
    source: object,
    rate: float = RATE,
) -> VideoResult:
    """The result that a file means: `objects` in a video of this `name`; `source` is the file, for the provenance.

    `size` is (h, w) in pixels, `length` in frames, `rate` frames per second; `categories` are the names to which the
    objects' labels are indices.
    """
    made = Provenance("unknown", source=str(source))
    return VideoResult(name, size, length, rate, objects.masklets(), tuple(categories), made)
