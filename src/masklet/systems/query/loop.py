"""The loop of all systems made of slots: a segmenter looks, a tracker says who is who, one frame after the other.

Live, every frame is answered with what the scores so far say. Over a whole video there are two passes: the first keeps
queries and class logits, which are small; when the scores of the whole video are known, the second makes the masks
that are asked for. Dense features in between are kept within a budget, or computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float64
from torch import Tensor

from masklet.core.ahead import read_ahead
from masklet.core.alignment import TrackedSlots, select_frame_slots
from masklet.core.checkpoint import Checkpoints
from masklet.core.frames import Frame, Video, iterate_frames_from
from masklet.core.instances import FrameMasks
from masklet.core.masks import stack_masks
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import SlotSegmenter, SlotTracker
from masklet.core.result import VideoResult
from masklet.core.slots import FrameSlots
from masklet.core.spill import Spill
from masklet.core.tracks import Masklet
from masklet.systems.common import FrameStream, build_video_result
from masklet.systems.query.answers import MaskResizer, SlotSettings, TaskOutput, build_task_output
from masklet.systems.query.dense_store import DenseFeatures, DenseStore

M = TypeVar("M")
T = TypeVar("T")

ROWS_HEAD = 128  # bytes before the first of `TensorRows`, which say what they are


@dataclass(frozen=True)
class SlotLoopState(Generic[M]):
    """What is carried from frame to frame: a value of one size, so an endless stream can be saved and resumed."""

    memory: M  # the tracker's
    logits: Float64[Tensor, "n k1"]  # class logits, summed over the frames
    frames: int


@dataclass(frozen=True)
class SlotFrameStep(Generic[M]):
    """One frame of the loop."""

    frame: Frame
    slots: FrameSlots  # t = 1
    tracked: TrackedSlots
    state: SlotLoopState[M]

    @property
    def view(self) -> MaskResizer:
        """What brings this frame's mask logits to the video's size."""
        return MaskResizer(self.slots.inside, self.frame.size)


def split_into_windows(items: Iterable[T], size: int | None) -> Iterator[list[T]]:
    """Items in lists of `size`; the last may be shorter. None: all in one.

    >>> list(split_into_windows("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    rest = iter(items)
    while window := list(islice(rest, size)):
        yield window


@torch.no_grad()
def follow_slots(
    segmenter: SlotSegmenter,
    tracker: SlotTracker[M],
    frames: Iterable[Frame],
    window: int,
    state: SlotLoopState[M] | None,
) -> Iterator[SlotFrameStep[M]]:
    """Lets `segmenter` look at `frames`, `window` at a time, and `tracker` say who their slots are, frame by frame,
    from a given `state` on; None begins a video.
    """
    for chunk in split_into_windows(frames, window):
        seen = segmenter.slots(chunk)
        for t, frame in enumerate(chunk):
            slots = select_frame_slots(seen, t)
            tracked, memory = tracker.follow(state.memory if state else None, slots)
            logits = tracked.class_logits.double()
            state = SlotLoopState(memory, state.logits + logits if state else logits, state.frames + 1 if state else 1)
            yield SlotFrameStep(frame, slots, tracked, state)


class TensorRows:
    """Tensors of one shape that arrive one by one, on the host, and lie in a `Spill`: those of a long video would not
    fit into memory, and many that stay, in between large ones that come and go, leave the heap in holes.
    """

    def __init__(self, spill: Spill | None = None) -> None:
        """`spill`: where they lie, with those that are there already; a new one by default."""
        self._spill = Spill() if spill is None else spill
        self._shape: tuple[int, ...] = ()
        self._kind = torch.float32
        self._size = 0  # bytes of one
        if len(self._spill):
            self._read_head()

    def _read_head(self) -> None:
        shape, kind = json.loads(self._spill.read(0, ROWS_HEAD))
        self._shape, self._kind = tuple(shape), getattr(torch, kind)
        self._size = torch.empty(self._shape, dtype=self._kind).nbytes

    def add(self, row: Tensor) -> None:
        """Copies one more `row` to the host."""
        if not len(self._spill):
            head = json.dumps([list(row.shape), str(row.dtype).removeprefix("torch.")])
            self._spill.append(head.ljust(ROWS_HEAD).encode())
            self._read_head()
        assert tuple(row.shape) == self._shape and row.dtype == self._kind
        self._spill.append(row.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())

    def __getitem__(self, t: int) -> Tensor:
        """The row that arrived as number `t`, from 0 on."""
        return self.read(t, t + 1)[0]

    def read(self, start: int, stop: int) -> Tensor:
        """The rows [start, stop), one after the other."""
        data = bytearray(self._spill.read(ROWS_HEAD + start * self._size, (stop - start) * self._size))
        return torch.frombuffer(data, dtype=self._kind).view(-1, *self._shape)

    @property
    def all(self) -> Tensor:
        """Those that have arrived."""
        return self.read(0, len(self))

    def __len__(self) -> int:
        return (len(self._spill) - ROWS_HEAD) // self._size if self._size else 0


class SlotTracks:
    """What the second pass needs of every frame besides its dense features."""

    def __init__(self, checkpoints: Checkpoints | None = None) -> None:
        """`checkpoints`: where it lies, with what is there already."""
        given = checkpoints or Checkpoints()
        self.queries, self.class_logits, self.orders = (
            TensorRows(given.open_spill(name)) for name in ("queries", "class_logits", "orders")
        )

    def add(self, tracked: TrackedSlots) -> None:
        """Keeps queries, class logits and order of one more frame."""
        self.queries.add(tracked.queries)
        self.class_logits.add(tracked.class_logits)
        self.orders.add(tracked.order)

    def __getitem__(self, t: int) -> TrackedSlots:
        return TrackedSlots(self.queries[t], self.class_logits[t], self.orders[t])

    def __len__(self) -> int:
        return len(self.queries)


def collect_frame_masks(index: int, masklets: Sequence[Masklet], size: tuple[int, int]) -> FrameMasks:
    """Those of `masklets` that are seen in frame `index`, by id, as a live answer with masks of `size` (h, w)."""
    there = sorted((m for m in masklets if index in m.sightings), key=lambda m: m.id)
    return FrameMasks(
        index,
        tuple(m.id for m in there),
        stack_masks([m.sightings[index].mask.decode() for m in there], size),
        torch.tensor([m.score for m in there]),
        torch.tensor([m.label for m in there], dtype=torch.int64),
    )


@dataclass(frozen=True)
class OnlineSystem(Generic[M]):
    """A system of slots that looks back only (MinVIS, DVIS online). `stream` answers live, in constant memory."""

    name: str
    segmenter: SlotSegmenter
    tracker: SlotTracker[M]
    settings: SlotSettings

    def __post_init__(self) -> None:
        self.settings.check(self.segmenter.categories)

    def stream(
        self, frames: Iterable[Frame], state: SlotLoopState[M] | None = None
    ) -> FrameStream[SlotFrameStep[M], SlotLoopState[M]]:
        """Every frame's objects, named by the scores so far; at most `window` - 1 frames late.

        Its `state` after any frame can be saved (core.memory), and a stream of the frames that follow goes on from it.
        """
        looks = follow_slots(self.segmenter, self.tracker, frames, self.settings.window or 1, state)
        return FrameStream(looks, self.shown, state)

    @torch.no_grad()
    def shown(self, look: SlotFrameStep[M]) -> FrameMasks:
        """The answer for one frame, named by the scores of all frames up to it."""
        probabilities = (look.state.logits / look.state.frames).float().softmax(-1)
        now = build_task_output(probabilities, self.segmenter.categories, self.settings)
        dense = self.tracker.dense(look.slots)[0]
        now.add(look.frame.index, self.tracker.masks(look.tracked[now.slots], dense), look.view)
        return collect_frame_masks(look.frame.index, now.masklets(), look.frame.size)

    @torch.no_grad()
    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """All masklets of a video, named by the scores of all its frames."""
        return self.run_with_checkpoints(video, watch, Checkpoints())

    @torch.no_grad()
    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`, from the last of the `checkpoints` on, which are of the first pass."""
        at, tracks, saved = self.settings, SlotTracks(checkpoints), checkpoints.saved
        state: SlotLoopState[M] | None = saved.state if saved else None
        frames = read_ahead(iterate_frames_from(video, saved.frame if saved else 0))
        window = at.choose_run_window(self.segmenter)
        with DenseStore(at.feature_memory, at.feature_disk, at.feature_device) as store:
            for look in follow_slots(self.segmenter, self.tracker, frames, window, state):
                store_dense_features(store, look, self.tracker)
                tracks.add(look.tracked)
                state = look.state
                watch("forward", state.frames, len(video) or None, len(state.logits))
                checkpoints.count_frame()
                if checkpoints.is_due and state.frames % window == 0:  # so that windows stay as they are
                    checkpoints.save("forward", state.frames, state)
            if state is None:
                return build_slot_result(self, video, ())
            probabilities = (state.logits / state.frames).float().softmax(-1)
            made = build_task_output(probabilities, self.segmenter.categories, at)
            run_second_pass(self, video, store, tracks, self.tracker.masks, made, watch)
        return build_slot_result(self, video, made.masklets())


class TwoPassSystem(Protocol):
    """What the two passes need to know of one."""

    @property
    def name(self) -> str: ...
    @property
    def segmenter(self) -> SlotSegmenter: ...
    @property
    def tracker(self) -> SlotTracker[Any]: ...
    @property
    def settings(self) -> SlotSettings: ...


def store_dense_features(store: DenseStore, look: SlotFrameStep[M], tracker: SlotTracker[M]) -> None:
    """Keeps in `store` what `tracker` will need of `look` in the second pass, copied from its window."""
    maps = tracker.dense(look.slots)[0]
    store.keep(look.frame.index, DenseFeatures(maps, look.slots.inside))


def run_second_pass(
    system: TwoPassSystem,
    video: Video,
    store: DenseStore,
    tracks: SlotTracks,
    masks: Callable[[TrackedSlots, Tensor], Tensor],
    made: TaskOutput,
    watch: Watch,
) -> None:
    """Adds to `made`, the answer, the masks of the slots that it asks for, frame by frame of `video`. `masks` makes
    mask logits of a frame of `tracks` and its dense features, which are in `store` or computed again by the parts of
    `system`; `watch` is called after every frame.
    """
    if not made.slots:
        return
    for t, dense in restore_dense_features(system, video, store, len(tracks)):
        made.add(t, masks(tracks[t][made.slots], dense.maps), MaskResizer(dense.inside, video.size))
        watch("masks", t + 1, len(tracks), len(made.slots))


def restore_dense_features(
    system: TwoPassSystem, video: Video, store: DenseStore, length: int
) -> Iterator[tuple[int, DenseFeatures]]:
    """The index and the dense features of each of the first `length` frames of `video`: as `store` has them, or where
    it does not, computed again by the parts of `system` in the same windows.
    """
    window = system.settings.choose_run_window(system.segmenter)
    for start in range(0, length, window):
        span = range(start, min(start + window, length))
        found = {t: kept for t in span if (kept := store.get(t)) is not None}
        if len(found) < len(span):
            slots = system.segmenter.slots(video.read(span.start, span.stop))
            maps = system.tracker.dense(slots)
            found = {t: DenseFeatures(one, slots.inside) for t, one in zip(span, maps, strict=True)}
        yield from found.items()


class CategorySource(Protocol):
    """What knows the names of its classes."""

    @property
    def categories(self) -> tuple[str, ...]: ...


class DescribedSystem(Protocol):
    """What an answer says of the system that gave it."""

    @property
    def name(self) -> str: ...
    @property
    def segmenter(self) -> CategorySource: ...
    @property
    def settings(self) -> SlotSettings: ...


def build_slot_result(system: DescribedSystem, video: Video, masklets: tuple[Masklet, ...]) -> VideoResult:
    """The result of `system` for `video`: its `masklets`, with notes on what the reader must know, such as damage or
    what to change where there are none.
    """
    least = system.settings.min_score or 0.0
    notes = [] if masklets else [EMPTY[system.settings.task].format(at=system.settings, least=least)]
    categories, settings = system.segmenter.categories, asdict(system.settings)
    return build_video_result(video, masklets, categories, system.name, settings, notes)


EMPTY = {
    "instance": "no object: no slot has a pixel and a score from min_score = {least:g} on; lower it",
    "panoptic": "no segment: no slot scores above conf = {at.conf:g} and keeps its pixels; lower conf or overlap",
    "semantic": "no segment: the video has no frame",
}
