"""RoCoVIS (Heo et al.), and any other model whose slots live through the video: one pass, one frame after the other.

The model predicts and remembers (core.protocols.SlotModel); here is what its slots are called, and which pixels are
theirs: a slot's scores over the frames, how sure its masks are, and pixel probabilities times that of being an object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from masklet.core.ahead import read_ahead
from masklet.core.alignment import TrackedSlots
from masklet.core.checkpoint import Checkpoints
from masklet.core.errors import InputError
from masklet.core.frames import Frame, Video, iterate_frames_from
from masklet.core.instances import FrameMasks
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import SlotModel
from masklet.core.result import VideoResult
from masklet.core.slots import FrameSlots
from masklet.core.tracks import Masklet
from masklet.systems.common import FrameStream
from masklet.systems.query import answers as slot_answers
from masklet.systems.query.answers import (
    ForegroundMaskResizer,
    InstanceOutput,
    MaskResizer,
    TaskOutput,
    build_task_output,
)
from masklet.systems.query.dense_store import DenseFeatures, DenseStore
from masklet.systems.query.loop import (
    SlotTracks,
    build_slot_result,
    collect_frame_masks,
    split_into_windows,
)

M = TypeVar("M")


@dataclass(frozen=True)
class RocovisSystemSettings(slot_answers.SlotSettings):
    """Ten pairs of slot and category a video."""

    top: int = 10
    scores: Literal["max", "mean"] = "mean"  # over the frames: greatest probability, or the probability of mean logits
    quality: bool = True  # instance: scores are multiplied by how sure the mask is inside (GenVIS)
    foreground: bool = True  # pixel probabilities are multiplied by the slot's probability of being an object


@dataclass(frozen=True)
class GenvisSystemSettings(RocovisSystemSettings):
    """The same as GenVIS scores, and takes pixel probabilities as they are."""

    scores: Literal["max", "mean"] = "max"
    foreground: bool = False
    frames: int | None = None  # recent ones that queries remember; None: all, as published, so that memory grows

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames is not None and self.frames < 1:
            raise InputError(f"frames = {self.frames}: it counts from 1 on")


@dataclass(frozen=True)
class VideomtSystemSettings(RocovisSystemSettings):
    """The same as VidEoMT is scored: as MinVIS and DVIS are, by the mean class logits alone."""

    quality: bool = False
    foreground: bool = False


@dataclass(frozen=True)
class RocovisState(Generic[M]):
    """What is carried from frame to frame: a value of one size, so an endless stream can be saved and resumed."""

    memory: M  # the model's
    tally: Float64[Tensor, "n k1"]  # of the scores
    frames: int


# -- scores


def accumulate_max_probabilities(
    tally: Float64[Tensor, "n k1"] | None, logits: Float64[Tensor, "n k1"]
) -> Float64[Tensor, "n k1"]:
    """Each class's greatest probability so far, and the smallest of no object."""
    now = logits.softmax(-1)
    if tally is None:
        return now
    return torch.cat([tally[:, :-1].maximum(now[:, :-1]), tally[:, -1:].minimum(now[:, -1:])], 1)


def accumulate_class_logits(
    tally: Float64[Tensor, "n k1"] | None, logits: Float64[Tensor, "n k1"]
) -> Float64[Tensor, "n k1"]:
    """Adds a frame's class `logits` to the `tally`; None begins one."""
    return logits if tally is None else tally + logits


SCORES: Mapping[str, tuple[Callable[[Tensor | None, Tensor], Tensor], Callable[[Tensor, int], Tensor]]] = {
    "max": (accumulate_max_probabilities, lambda tally, frames: tally),
    "mean": (accumulate_class_logits, lambda tally, frames: (tally / frames).softmax(-1)),
}


class GradedInstanceOutput(InstanceOutput):
    """Instances whose scores are multiplied by the mean probability of the pixels in their masks, over all frames."""

    def __init__(self, probabilities: Float[Tensor, "n k1"], settings: slot_answers.SlotSettings) -> None:
        super().__init__(probabilities, settings)
        self._least = settings.min_score or 0.0
        self._certain = torch.zeros(2, len(self.slots), dtype=torch.float64)

    def add(self, frame: int, logits: Float[Tensor, "n h w"], view: MaskResizer) -> None:
        """Adds the masks of `frame`, made of `logits` by `view`, and how sure they are inside."""
        super().add(frame, logits, view)
        certain = torch.stack(view.certain(logits)).double()
        self._certain = self._certain.to(certain.device) + certain  # summed where they are

    def masklets(self) -> tuple[Masklet, ...]:
        """In the order of their scores; without those below `min_score`."""
        sums, counts = self._certain.cpu()
        quality = dict(zip(self.slots, (sums / (counts + 1e-6)).tolist(), strict=True))
        slots = {p.id: p.slot for p in self.pairs}
        made = (replace(m, score=m.score * quality[slots[m.id]]) for m in super().masklets())
        return tuple(sorted((m for m in made if m.score >= self._least), key=lambda m: -m.score))


# -- the system


@dataclass(frozen=True)
class RocovisFrameStep(Generic[M]):
    """One frame of the loop."""

    frame: Frame
    slots: FrameSlots  # t = 1
    state: RocovisState[M]

    @property
    def tracked(self) -> TrackedSlots:
        """The slots: they are the tracks."""
        n = self.slots.queries.shape[1]
        return TrackedSlots(self.slots.queries[0], self.slots.class_logits[0], torch.arange(n))


@dataclass(frozen=True)
class SlotSystem(Generic[M]):
    """`stream` answers live, in the memory that its model takes (which grows if a GenVIS remembers all frames), `run`
    when it has seen the whole video.
    """

    name: str
    segmenter: SlotModel[Any, M]
    settings: RocovisSystemSettings = RocovisSystemSettings()

    def __post_init__(self) -> None:
        self.settings.check(self.segmenter.categories)

    def stream(
        self, frames: Iterable[Frame], state: RocovisState[M] | None = None
    ) -> FrameStream[RocovisFrameStep[M], RocovisState[M]]:
        """Every frame's objects, named by the scores so far; at most `window` - 1 frames late. The quality of masks is
        that of the frame.

        Its `state` after any frame can be saved (core.memory), and a stream of the frames that follow goes on from it.
        """
        return FrameStream(self.follow(frames, state, self.settings.window or 1), self.shown, state)

    @torch.no_grad()
    def follow(
        self, frames: Iterable[Frame], state: RocovisState[M] | None, window: int = 1
    ) -> Iterator[RocovisFrameStep[M]]:
        """Frame by frame, `window` of them encoded together, from a given `state` on; None begins a video."""
        model, add = self.segmenter, SCORES[self.settings.scores][0]
        memory = state.memory if state else model.empty()
        for chunk in split_into_windows(frames, window):
            for frame, features in zip(chunk, model.encode(chunk), strict=True):
                slots = model.predict(memory, features)
                memory = model.commit(memory, features, slots, model.trust(slots))
                tally = add(state.tally if state else None, slots.class_logits[0].double())
                state = RocovisState(memory, tally, state.frames + 1 if state else 1)
                yield RocovisFrameStep(frame, slots, state)

    @torch.no_grad()
    def shown(self, look: RocovisFrameStep[M]) -> FrameMasks:
        """The answer for one frame, named by the scores of all frames up to it."""
        now = self._answer(look.state)
        dense = DenseFeatures(look.slots.pixel_features[0], look.slots.inside)
        self._add(now, look.frame.index, look.tracked[now.slots], dense, look.frame.size)
        return collect_frame_masks(look.frame.index, now.masklets(), look.frame.size)

    @torch.no_grad()
    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """All masklets of a video, named by the scores of all its frames."""
        return self.run_with_checkpoints(video, watch, Checkpoints())

    @torch.no_grad()
    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`, from the last of the `checkpoints` on, which are of the first pass."""
        at, tracks, lost, saved = self.settings, SlotTracks(checkpoints), RecomputePoint[M](), checkpoints.saved
        state: RocovisState[M] | None = saved.state if saved else None
        window = at.choose_run_window(self.segmenter)
        with DenseStore(at.feature_memory, at.feature_disk, at.feature_device) as store:
            if saved:
                lost.note(store, 0, None)
            frames = read_ahead(iterate_frames_from(video, saved.frame if saved else 0))
            for look in self.follow(frames, state, window):
                tracks.add(look.tracked)
                store_pixel_features(store, len(tracks) - 1, look)
                lost.note(store, len(tracks) - 1, state)
                state = look.state
                watch("forward", state.frames, len(video) or None, len(state.tally))
                checkpoints.count_frame()
                if checkpoints.is_due and state.frames % window == 0:  # so that windows stay as they are
                    checkpoints.save("forward", state.frames, state)
            if state is None:
                return build_slot_result(self, video, ())
            made = self._answer(state)
            for t, dense in self._dense_again(video, store, len(tracks), lost) if made.slots else ():
                self._add(made, t, tracks[t][made.slots], dense, video.size)
                watch("masks", t + 1, len(tracks), len(made.slots))
        return build_slot_result(self, video, made.masklets())

    def _answer(self, state: RocovisState[M]) -> TaskOutput:
        at = self.settings
        probabilities = SCORES[at.scores][1](state.tally, state.frames).float()
        if at.task == "instance" and at.quality:
            return GradedInstanceOutput(probabilities, at)
        return build_task_output(probabilities, self.segmenter.categories, at)

    def _add(
        self, to: TaskOutput, frame: int, tracked: TrackedSlots, dense: DenseFeatures, size: tuple[int, int]
    ) -> None:
        """One frame's masks, of the slots that the answer asks for."""
        view = MaskResizer(dense.inside, size)
        if self.settings.foreground:
            view = ForegroundMaskResizer(dense.inside, size, 1 - tracked.class_logits.softmax(-1)[:, -1])
        to.add(frame, self.segmenter.decode(tracked.queries, dense.maps), view)

    def _dense_again(
        self, video: Video, store: DenseStore, length: int, lost: RecomputePoint[M]
    ) -> Iterator[tuple[int, DenseFeatures]]:
        """The large part of every frame: as kept, or from the first that was not on, predicted again."""
        first = length if lost.first is None else lost.first
        for t in range(first):
            kept = store.get(t)
            assert kept is not None  # `lost` knows better otherwise
            yield t, kept
        if first < length:
            window = self.settings.choose_run_window(self.segmenter)
            spans = split_into_windows(range(first, length), window)
            frames = (frame for span in spans for frame in read_frame_span(video, span))
            for t, look in enumerate(self.follow(frames, lost.state, window), first):
                yield t, DenseFeatures(look.slots.pixel_features[0], look.slots.inside)


class RecomputePoint(Generic[M]):
    """The first frame whose large part was not kept, and the state before it: memory being a value, it can be seen
    again from there.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.state: RocovisState[M] | None = None

    def note(self, store: DenseStore, t: int, before: RocovisState[M] | None) -> None:
        """Called after frame `t` was to be kept in `store`: notes the first that was not, and the state `before` it."""
        if self.first is None and t not in store:
            self.first, self.state = t, before


def store_pixel_features(store: DenseStore, t: int, look: RocovisFrameStep[M]) -> None:
    """Keeps in `store`, as frame `t`, what the masks will need of `look`, copied from its window."""
    maps = look.slots.pixel_features[0]
    store.keep(t, DenseFeatures(maps, look.slots.inside))


def read_frame_span(video: Video, span: list[int]) -> list[Frame]:
    """Some frames in a row."""
    return video.read(span[0], span[-1] + 1)


def build_rocovis_system(
    model: SlotModel[Any, M], settings: RocovisSystemSettings = RocovisSystemSettings()
) -> SlotSystem[M]:
    """The system of the paper."""
    return SlotSystem("rocovis", model, settings)


def build_genvis_system(
    model: SlotModel[Any, M], settings: RocovisSystemSettings = GenvisSystemSettings()
) -> SlotSystem[M]:
    """The system that it builds on."""
    return SlotSystem("genvis", model, settings)


def build_videomt_system(
    model: SlotModel[Any, M], settings: RocovisSystemSettings = VideomtSystemSettings()
) -> SlotSystem[M]:
    """A plain ViT whose queries live through the video."""
    return SlotSystem("videomt", model, settings)
