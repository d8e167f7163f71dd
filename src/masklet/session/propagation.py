"""One object propagated anew from its anchors, among others that stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.instances import Prediction
from masklet.core.masks import resize_bilinear
from masklet.core.protocols import Propagator
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, merge_rles
from masklet.core.tracks import Sighting, Source, TrackBook
from masklet.session.changed_masklets import Changes, find_masklet
from masklet.systems.bystanders import BystanderFinder
from masklet.systems.sweep import note_prediction

F = TypeVar("F")
M = TypeVar("M")

NESTED = 0.5  # share of the smaller from which two objects may overlap, a thing and its part
SAME = 0.9  # IoU from which two masks show the same
SETTLED = 3  # frames in a row that show the same as before: from there on nothing would change
FADED = 0.1  # of what an anchor changed: a difference that is smaller is what is left of none
MEETING = 0.5  # IoU below which two propagations have not met


@dataclass(frozen=True)
class Course:
    """From where and to where an object is propagated.

    Attributes:
        id: of the object.
        frame: of the anchor that it begins at.
        mask: there.
        frames: to which it is propagated, in this order.
        joins: whether what was there before goes on where both agree best, and the last of `frames` has an anchor.
        fades: whether it ends where what is propagated shows for some frames what was there before.
        changed: 1 - IoU of `mask` and what was there before somebody said so.
        beside: a mask in the frame before the first of `frames`, where that does not follow the anchor.
        others: more of the object's anchors, by frame, so that it is known from there, too.
    """

    id: int
    frame: int
    mask: Rle
    frames: range
    joins: bool = False
    fades: bool = False
    changed: float = 1.0
    beside: Rle | None = None
    others: Mapping[int, Rle] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """Where its masks come from."""
        return Source.FORWARD if self.frames.step > 0 else Source.BACKWARD


@dataclass(frozen=True)
class Carrier(Generic[F, M]):
    """What carries objects through one video.

    Attributes:
        propagator: any.
        encode: gives the features of a frame.
        read: gives a frame.
        bystanders: finds what stands beside an object and is none, so that it contends for its pixels; None: nothing.
    """

    propagator: Propagator[F, M]
    encode: Callable[[int], F]
    read: Callable[[int], Frame]
    bystanders: BystanderFinder | None = None


def run_course(
    carrier: Carrier[F, M], course: Course, result: VideoResult, go_on: Callable[[int], bool]
) -> tuple[Changes, bool]:
    """Propagates an object along its `course`.

    Args:
        carrier: of the video.
        course: from its anchor on.
        result: as it is before; other objects in it keep their pixels.
        go_on: is asked after every frame whether to, with how many are done.

    Returns:
        What changes of the object, and whether the course was run to its end.
    """
    book, visited, asked = TrackBook(), list[int](), True
    masklet = find_masklet(result, course.id)
    agreement = AnchorAgreement(masklet.sightings if masklet else {}, course.changed)
    for t in iterate_course(carrier, course, result, book):
        visited.append(t)
        agreement.add(t, book.pages[course.id].get(t) if course.id in book.pages else None)
        asked = go_on(len(visited))
        if not asked or (course.fades and agreement.is_settled):
            break
    book.settle()
    met = course.joins and visited[-1:] == list(course.frames[-1:])
    taken = agreement.count_new(visited) if met or (course.fades and agreement.is_settled) else len(visited)
    page: Mapping[int, Sighting] = book.pages.get(course.id, {})
    return {t: page.get(t) for t in visited[:taken]}, asked or len(visited) == len(course.frames)


def iterate_course(carrier: Carrier[F, M], course: Course, result: VideoResult, book: TrackBook) -> Iterator[int]:
    """Propagates an object of a `result` along its `course` by a `carrier`, as `run_course` does, into `book`; yields
    each frame that is done.
    """
    skip = {course.id} | find_nested(result, course.id, course.frame, course.mask)
    memory = start_memory(carrier, course, result)
    for t in course.frames:
        features = carrier.encode(t)
        belief = keep_off(carrier.propagator.predict(memory, features), collect_rivals(result, t, skip))
        memory = carrier.propagator.commit(memory, features, belief)
        own = belief.only([row for row, id in enumerate(belief.ids) if id == course.id])
        note_prediction(book, t, own, result.size, course.source)
        yield t


def start_memory(carrier: Carrier[F, M], course: Course, result: VideoResult) -> M:
    """The memory of a `carrier` that holds the object, and bystanders beside it and the `result`, before the first
    frame of its `course`.
    """
    far_first = sorted(course.others, key=lambda t: -abs(t - course.frame))
    given: list[tuple[int, Rle | None]] = [(t, course.others[t]) for t in far_first]
    given.append((course.frame, course.mask))
    before = course.frames.start - course.frames.step
    if before != course.frame:
        given.append((before, course.beside))
    memory, propagator = carrier.propagator.empty(), carrier.propagator
    for frame, mask in given:
        features = carrier.encode(frame)
        memory = propagator.commit(memory, features, propagator.predict(memory, features).only([]))
        if mask is not None:
            memory, _ = propagator.prompt(memory, features, {course.id: mask.decode()})
    frame, mask = next((frame, mask) for frame, mask in reversed(given) if mask is not None)
    beside = find_bystanders(carrier, result, frame, mask)
    return propagator.prompt(memory, carrier.encode(frame), beside)[0] if beside else memory


def find_bystanders(carrier: Carrier[F, M], result: VideoResult, frame: int, mask: Rle) -> dict[int, Tensor]:
    """What the `carrier` finds standing in a `frame` beside an object's `mask` and is no object of the `result`, by ids
    below 0.
    """
    if carrier.bystanders is None:
        return {}
    known = merge_rles([mask, *collect_rivals(result, frame, ())]).decode()
    found = carrier.bystanders.find(carrier.read(frame), mask.decode()[None], known)
    return {-1 - n: one for n, one in enumerate(found)}


def collect_rivals(result: VideoResult, frame: int, without: Collection[int]) -> list[Rle]:
    """The masks of a `frame` of the `result`, `without` those of some objects."""
    return [m.sightings[frame].mask for m in result.masklets if m.id not in without and frame in m.sightings]


def keep_off(belief: Prediction, rivals: Sequence[Rle]) -> Prediction:
    """The `belief` without the pixels of `rivals`; what is left without a pixel is held to be absent."""
    if not rivals or not belief.ids:
        return belief
    size = belief.logits.shape[2], belief.logits.shape[3]
    taken = resize_bilinear(merge_rles(rivals).decode()[None].float(), size)[0] > 0.5
    logits = belief.logits.where(~taken.to(belief.logits.device), -belief.logits.abs())
    gone = ~(logits > 0).flatten(2).any(2).to(belief.presence.device)
    presence = torch.where(gone, -belief.presence.abs(), belief.presence)
    return replace(belief, logits=logits, presence=presence)


def find_nested(result: VideoResult, id: int, frame: int, mask: Rle) -> frozenset[int]:
    """Which objects of a `result` may overlap object `id`, since more than half of it, or of them, lies in the other in
    a `frame` in which somebody vouches for its `mask`.
    """
    others = [(m.id, m.sightings[frame].mask) for m in result.masklets if m.id != id and frame in m.sightings]
    return frozenset(other for other, seen in others if seen.overlap(mask) > NESTED * max(min(seen.area, mask.area), 1))


class AnchorAgreement:
    """How far what is propagated shows what was there before, and whether it is settled by now."""

    def __init__(self, before: Mapping[int, Sighting], changed: float) -> None:
        """
        Args:
            before: the object's sightings as they were.
            changed: 1 - IoU of the anchor's mask and the one that was there before.
        """
        self.before = before
        self.ious: dict[int, float] = {}
        self._bar = min(max(SAME, 1 - FADED * changed), 1.0)
        self._row = 0

    def add(self, frame: int, seen: Sighting | None) -> None:
        """What is `seen` in a `frame` now."""
        known = self.before.get(frame)
        if seen is not None and known is not None:
            self.ious[frame] = seen.mask.iou(known.mask)
            self._row = self._row + 1 if self.ious[frame] >= self._bar else 0
        elif seen is not None or known is not None:
            self._row = 0  # where neither is seen, nothing is said

    @property
    def is_settled(self) -> bool:
        """Whether several frames in a row showed what was there before."""
        return self._row >= SETTLED

    def count_new(self, frames: Sequence[int]) -> int:
        """How many of `frames`, which were done in this order, are taken as they are propagated now: up to where both
        agree best, after which what was there before goes on. Where two propagations have not met, in the middle.
        """
        best = max(frames, key=lambda t: self.ious.get(t, 0.0))
        return frames.index(best) if self.ious.get(best, 0.0) >= MEETING else len(frames) // 2
