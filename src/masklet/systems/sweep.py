"""The backward sweep that every system with a propagator ends with, and beliefs written down as sightings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Generic, TypeVar

from masklet.core.checkpoint import Checkpoints
from masklet.core.features import FeatureStore
from masklet.core.frames import Video, iterate_windows_backward
from masklet.core.instances import Branches, Prediction
from masklet.core.progress import Watch
from masklet.core.protocols import Propagator
from masklet.core.tracks import Fork, Sighting, Source, TrackBook
from masklet.systems.bystanders import count_asked
from masklet.systems.common import prepare_ahead

F = TypeVar("F")
M = TypeVar("M")


FORWARD, BACKWARD = "forward", "backward"  # the phases


def count_lost(lost: int, seen: bool) -> int:
    """Frames without a mask less those with one since: what flashes up once in a while is lost all the same.

    >>> count_lost(5, seen=True), count_lost(0, seen=True), count_lost(5, seen=False)
    (4, 0, 6)
    """
    return max(lost - 1, 0) if seen else lost + 1


@dataclass(frozen=True)
class SweepState(Generic[M]):
    """What the backward sweep carries from frame to frame: a value, so it can be saved and resumed."""

    memory: M  # the propagator's
    starts: Mapping[int, Sequence[int]]  # frame: objects that join there, it being their first
    reach: Mapping[int, int]  # object: the last frame to which it is propagated; none: to the first of the video
    lost: Mapping[int, int] = field(default_factory=dict)  # object: see `count_lost`


def complete_backward(
    propagator: Propagator[F, M],
    video: Video,
    book: TrackBook,
    store: FeatureStore[F],
    window: int | None,
    watch: Watch,
    max_lost: int | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """SAM2BMP 3.3: one backward sweep for all objects in `book`, each joining at its first frame.

    Every object is propagated from its first mask to the frames before it, at most `window` of them (None: all), and
    not further once it was without a mask in more than `max_lost` frames (see `count_lost`). What is found is written
    into `book`; `propagator` computes the features of `video` that `store` lacks; `watch` is called after every frame.
    With `checkpoints` the sweep goes on from the one that it was saved in, and is saved.
    """
    checkpoints = checkpoints or Checkpoints()
    saved = checkpoints.saved
    if saved and saved.phase == BACKWARD:
        state, stop = saved.state, saved.frame
    else:
        state = start_sweep(propagator, book, window)
        stop = max(state.starts, default=-1) + 1
    last = max(state.starts, default=-1)
    features_backward = iterate_features_backward(propagator, video, store, stop)
    for t, features in prepare_ahead(propagator, features_backward, itemgetter(1)):
        state, objects = sweep_frame(propagator, book, state, t, features, video.size, max_lost)
        watch(BACKWARD, last + 1 - t, last + 1, objects)
        checkpoints.count_frame()
        if checkpoints.is_due:
            checkpoints.save(BACKWARD, t, state)
    book.settle()


def start_sweep(propagator: Propagator[F, M], book: TrackBook, window: int | None) -> SweepState[M]:
    """The state before the last frame in which an object of `book` joins; none joins where the `window` is 0."""
    firsts = {id: min(page) for id, page in book.pages.items() if page and window != 0}
    starts: dict[int, list[int]] = defaultdict(list)
    for id, first in firsts.items():
        starts[first].append(id)
    reach = {} if window is None else {id: first - window for id, first in firsts.items()}
    return SweepState(propagator.empty(), dict(starts), reach)


def sweep_frame(
    propagator: Propagator[F, M],
    book: TrackBook,
    state: SweepState[M],
    frame: int,
    features: F,
    size: tuple[int, int],
    max_lost: int | None,
) -> tuple[SweepState[M], int]:
    """One `frame` with `features` of the sweep, which is in this `state`: writes into `book` masks of `size` (h, w),
    lets go of objects that are lost for more than `max_lost` frames. Returns the next state and how many objects were
    looked at.
    """
    belief = propagator.predict(state.memory, features)
    memory = propagator.commit(state.memory, features, belief)
    note_prediction(book, frame, belief, size, Source.BACKWARD)
    lost = {**state.lost, **{id: count_lost(state.lost.get(id, 0), frame in book.pages[id]) for id in belief.ids}}
    seeds = {id: book.pages[id][frame].mask.decode() for id in state.starts.get(frame, ())}
    if seeds and frame:  # before the first frame nobody asks for them
        memory, _ = propagator.prompt(memory, features, seeds)
    gone = [id for id in belief.ids if max_lost is not None and lost[id] > max_lost]
    memory = propagator.forget(memory, {*gone, *(id for id, end in state.reach.items() if end == frame)})
    return replace(state, memory=memory, lost=lost), count_asked((*belief.ids, *seeds))


def note_prediction(book: TrackBook, frame: int, belief: Prediction, size: tuple[int, int], source: Source) -> None:
    """Writes a `belief` about `frame` into `book`, as sightings from `source` with masks of `size` (h, w)."""
    if isinstance(belief, Branches):
        note_branches(book, frame, belief, size, source)
        return
    for id, sighting in zip(belief.ids, make_sightings(belief, size, source), strict=True):
        book.note(id, frame, sighting)


def note_branches(book: TrackBook, frame: int, belief: Branches, size: tuple[int, int], source: Source) -> None:
    """Writes every pathway of a `belief` about `frame` into `book`, as sightings from `source` with masks of `size`
    (h, w); one that is the same as another is looked at once.
    """
    for row, id in enumerate(belief.ids):
        origins = tuple(belief.origins[row].tolist())
        pairs = list(zip(origins, belief.hypotheses[row].tolist(), strict=True))
        unlike = {pair: (row, k) for k, pair in reversed(list(enumerate(pairs)))}
        seen = make_sightings(belief.pathways((id,) * len(unlike), list(unlike.values())), size, source)
        by_pair = dict(zip(unlike, seen, strict=True))
        book.branch(id, Fork(frame, tuple(by_pair[pair] for pair in pairs), origins))


def make_sightings(belief: Prediction, size: tuple[int, int], source: Source) -> list[Sighting]:
    """A sighting from `source` of each object in `belief`, its mask of `size` (h, w) empty where it is absent."""
    label = 0 if source is Source.PROMPTED else -1
    best = belief.best
    found = zip(belief.encode(size), best.quality[:, 0].tolist(), best.presence[:, 0].tolist(), strict=True)
    return [Sighting(mask, source, quality, label, presence) for mask, quality, presence in found]


def iterate_features_backward(
    propagator: Propagator[F, M], video: Video, store: FeatureStore[F], stop: int, window: int = 8
) -> Iterator[tuple[int, F]]:
    """The index and the features of each of frames `stop` - 1, ..., 0 of `video`: as `store` has them, or where it does
    not, computed again by `propagator`, frame by frame, so that on a CPU they are equal to the last digit; of these
    `window` are held at once.
    """
    for span in iterate_windows_backward(0, stop, window):
        missing = [t for t in span if t not in store]
        frames = video.read(missing[0], missing[-1] + 1) if missing else []
        again = {frame.index: propagator.encode([frame])[0] for frame in frames if frame.index in missing}
        del frames
        for t in reversed(span):
            features = again.pop(t) if t in again else store.get(t)  # one after the other: the store reads ahead
            assert features is not None
            yield t, features
