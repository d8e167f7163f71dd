"""What benchmarks ask of a result before it is written: a limit on the objects, stuff under one id."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from jaxtyping import Integer

from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet

DAVIS_OBJECTS = 20  # a video of DAVIS 2017 unsupervised
FIRST_FREE = 256  # ids below may be a segment's own

Page = Integer[np.ndarray, "h w"]


def limit_objects(result: VideoResult, most: int = DAVIS_OBJECTS) -> VideoResult:
    """The `most` objects that are seen in the most frames, of equals those with the most pixels, numbered from 1.

    DAVIS 2017 unsupervised takes 20 objects a video and numbers them up to 20. Its score pairs each with at most one
    annotated object and averages J and F over frames, whatever their area; so the frames in which an object is seen
    bound what it can earn, and surplus objects cost nothing. Pixels decide between the many that are seen throughout:
    the annotated ones are the salient ones. The order of ids stays.

    The released DEVA code does something else, see `limit_as_released`.
    """
    ranked = sorted(result.masklets, key=lambda m: (-len(m.sightings), -count_masklet_pixels(m), m.id))
    kept = sorted(ranked[:most], key=lambda m: m.id)
    return replace(result, masklets=tuple(replace(m, id=n) for n, m in enumerate(kept, start=1)))


def count_masklet_pixels(masklet: Masklet) -> int:
    """How many pixels a masklet's masks have, summed over all frames in which it is seen."""
    return sum(s.mask.area for s in masklet.sightings.values())


def limit_as_released(pages: Iterable[Page], most: int = DAVIS_OBJECTS) -> dict[int, int]:
    """The limit as the released DEVA code sets it, of which its DAVIS 2017 unsupervised numbers come: {id: new id}.

    It lists the ids of frame after frame, each by falling area (of equals, the higher id first), until there are
    `most` entries; ids that are listed already are listed again, so the objects of a few frames fill it. An object
    gets the number of its last entry, all others go.
    """
    listed: list[int] = []
    for page in pages:
        ids, areas = np.unique(page[page > 0], return_counts=True)
        listed += [int(ids[n]) for n in np.lexsort((ids, areas))[::-1]]
        if len(listed) >= most:
            break
    return {id: n for n, id in enumerate(listed[:most], start=1)}


def replace_label_ids(page: Page, ids: Mapping[int, int]) -> Page:
    """A label image in which each id is replaced by its new one in `ids`; those without one become background, 0."""
    values, places = np.unique(page, return_inverse=True)
    new = np.array([ids.get(v, 0) for v in values.tolist()], page.dtype)
    return new[places].reshape(page.shape)


@dataclass(frozen=True)
class FrameSegment:
    """One segment of a frame of a panoptic result."""

    id: int
    category: int
    is_thing: bool


@dataclass
class VideoIds:
    """VIPSeg's ids: a thing's stays while its category does, and all stuff of a category in a video shares one.

    A thing of another category gets another id, and its old one when the category returns. An id of its own is that
    of the first segment, or, where that is taken, the lowest free one from 256 on (the released code draws it at
    random).
    """

    ids: dict[Hashable, int] = field(default_factory=dict)

    def of(self, segment: FrameSegment) -> int:
        """The id that a segment gets in this video; segments must come frame by frame."""
        key = (segment.id, segment.category) if segment.is_thing else segment.category
        if key not in self.ids:
            taken = {0, *self.ids.values()}
            free = (id for id in count(FIRST_FREE) if id not in taken)
            self.ids[key] = next(free) if segment.id in taken else segment.id
        return self.ids[key]


def merge_stuff(
    frames: Iterable[tuple[Page, Iterable[FrameSegment]]],
) -> Iterator[tuple[Page, tuple[FrameSegment, ...]]]:
    """The frames of one video, id image and segments, with `VideoIds`; pixels of no segment become 0."""
    ids = VideoIds()
    for page, segments in frames:
        new = {s.id: replace(s, id=ids.of(s)) for s in segments}
        yield replace_label_ids(page, {old: s.id for old, s in new.items()}), tuple(dict.fromkeys(new.values()))
