"""Which ways an object is propagated, from which of its anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from masklet.core.rle import Rle
from masklet.core.tracks import Sighting
from masklet.session.anchors import Anchor, ObjectAnchors, Spread
from masklet.session.propagation import Course

OTHERS = 3  # anchors beside that at which propagation begins, from which the object is known, too


def plan_spread(id: int, anchors: ObjectAnchors, length: int) -> list[Course]:
    """From every anchor of object `id` that is new, both ways, to the next anchor or an end of the video of this
    `length`; what was there before goes on where it shows the same, or between two anchors where both agree best.
    """
    frames, courses = anchors.list_frames(), []
    for frame, anchor in anchors.iterate():
        if anchor.spread is Spread.DONE or not anchor.mask.area:
            continue
        changed = 1 - (anchor.before.iou(anchor.mask) if anchor.before else 0.0)
        ends = max((t for t in frames if t < frame), default=-1), min((t for t in frames if t > frame), default=length)
        for end, step in zip(ends, (-1, 1), strict=True):
            found = anchors.get(end)
            joins = found is not None and found.mask.area > 0
            way = range(frame + step, end + step * joins, step)
            courses.append(
                Course(id, frame, anchor.mask, way, joins, fades=anchor.spread is Spread.NEW, changed=changed)
            )
    return complete_courses(courses, dict(anchors.iterate()))


def complete_courses(courses: Sequence[Course], found: Mapping[int, Anchor]) -> list[Course]:
    """The `courses` that lead somewhere, each with the anchors nearest to its own that were `found`."""
    made = []
    for course in courses:
        if course.mask.area and len(course.frames) > course.joins:
            near = sorted((t for t, a in found.items() if a.mask.area), key=lambda t: abs(t - course.frame))
            made.append(replace(course, others={t: found[t].mask for t in near[1 : OTHERS + 1]}))
    return made


def plan_range(
    id: int, anchors: ObjectAnchors, sightings: Mapping[int, Sighting], start: int, stop: int
) -> list[Course]:
    """All frames of [start, stop) from all anchors of object `id` in them, or from those beside them where there are
    none; between two of them forward and backward, which meet where they agree best. `sightings` are the object's.
    """
    found = dict(anchors.iterate())
    inside = [t for t in found if start <= t < stop]
    if not inside:
        return _plan_from_beside(id, found, sightings, start, stop)
    first, last = inside[0], inside[-1]
    courses = [Course(id, first, found[first].mask, range(first - 1, start - 1, -1))]
    for a, b in pairwise(inside):
        courses.append(Course(id, a, found[a].mask, range(a + 1, b)))
        joins = found[a].mask.area > 0
        courses.append(Course(id, b, found[b].mask, range(b - 1, a - joins, -1), joins))
    courses.append(Course(id, last, found[last].mask, range(last + 1, stop)))
    return complete_courses(courses, found)


def _plan_from_beside(
    id: int, found: Mapping[int, Anchor], sightings: Mapping[int, Sighting], start: int, stop: int
) -> list[Course]:
    """From the anchors before and after frames without any, by way of the masks beside these frames."""
    before = max((t for t in found if t < start and found[t].mask.area), default=None)
    after = min((t for t in found if t >= stop and found[t].mask.area), default=None)
    courses = []
    if before is not None:
        beside = _get_mask(sightings, start - 1)
        courses.append(Course(id, before, found[before].mask, range(start, stop), beside=beside))
    if after is not None:
        beside, way = _get_mask(sightings, stop), range(stop - 1, start - 1, -1)
        courses.append(Course(id, after, found[after].mask, way, before is not None, beside=beside))
    return complete_courses(courses, found)


def _get_mask(sightings: Mapping[int, Sighting], frame: int) -> Rle | None:
    return sightings[frame].mask if frame in sightings else None
