"""DVIS (Zhang et al. 2023): segmentation, tracking and refinement, each its own network.

`build_dvis_system` is the online system: segmenter and referring tracker. `DvisRefined` lets a temporal refiner look at
all frames of a clip before they are answered: the whole video (offline), or clips of a given length, live
(semi-online). Readings of the open points, and what the released program does beyond the paper: docs/dvis.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar, runtime_checkable

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
from masklet.core.protocols import SlotSegmenter, SlotTracker
from masklet.core.result import VideoResult
from masklet.core.slots import FrameSlots
from masklet.core.wording import name_setting
from masklet.systems.query import answers as slot_answers
from masklet.systems.query.answers import build_task_output
from masklet.systems.query.dense_store import DenseStore
from masklet.systems.query.loop import (
    OnlineSystem,
    SlotFrameStep,
    SlotLoopState,
    SlotTracks,
    TensorRows,
    build_slot_result,
    collect_frame_masks,
    follow_slots,
    run_second_pass,
    split_into_windows,
    store_dense_features,
)

M = TypeVar("M")


@runtime_checkable
class ContextTracker(SlotTracker[M], Protocol[M]):
    """A tracker that can say what it makes of a frame alone."""

    def context(self, slots: FrameSlots) -> Float[Tensor, "t n c"]:
        """What the refiner looks at in each frame."""
        ...


@runtime_checkable
class Refiner(Protocol):
    """Looks at all frames of a clip."""

    def refine(
        self, tracks: Float[Tensor, "t n c"], context: Float[Tensor, "t n c"]
    ) -> tuple[Float[Tensor, "t n c"], Float[Tensor, "n k1"]]:
        """The tracks' queries of a clip, refined, and each one's class logits."""
        ...

    def masks(self, tracked: TrackedSlots, dense: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of refined tracks in one frame."""
        ...


@dataclass(frozen=True)
class DvisSettings(slot_answers.SlotSettings):
    """Twenty pairs of slot and category a video, as released for OVIS (10 for YouTube-VIS)."""

    clip: int | None = None  # refined: frames that are refined together; None: all
    scores: Literal["released", "paper"] = "released"  # refined: a slot's scores, see SCORES
    over: Literal["same", "any"] = "same"  # trained heads: over the segmenter that they were trained over, or any

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None and self.clip < 1:
            raise InputError(f"clip = {self.clip}: it counts frames, from 1 on")


SCORES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {  # refiner's and tracker's probabilities
    "released": torch.maximum,
    "paper": lambda refined, tracked: refined,
}


def build_dvis_system(
    segmenter: SlotSegmenter, tracker: SlotTracker[M], settings: DvisSettings = DvisSettings()
) -> OnlineSystem[M]:
    """DVIS online: `tracker` says who the slots of `segmenter` are; `settings` say what is answered."""
    return OnlineSystem("dvis", segmenter, tracker, settings)


@dataclass(frozen=True)
class ClipState(Generic[M]):
    """What is carried from clip to clip: a value of one size."""

    tracks: SlotLoopState[M]
    logits: Float64[Tensor, "n k1"]  # the refiner's class logits, summed over the frames

    def probabilities(self, scores: str) -> Float[Tensor, "n k1"]:
        """Each slot's, from all frames so far."""
        frames = self.tracks.frames
        refined, tracked = ((x / frames).float().softmax(-1) for x in (self.logits, self.tracks.logits))
        return SCORES[scores](refined, tracked)


class ClipStream(Generic[M]):
    """Every frame's objects, a clip late. After a clip's last frame `state` is that of all that is remembered."""

    def __init__(self, system: DvisRefined[M], frames: Iterable[Frame], state: ClipState[M] | None) -> None:
        self.state = state
        self._shown = self._clips(system, frames)

    def __iter__(self) -> ClipStream[M]:
        return self

    def __next__(self) -> FrameMasks:
        return next(self._shown)

    def _clips(self, system: DvisRefined[M], frames: Iterable[Frame]) -> Iterator[FrameMasks]:
        before = self.state.tracks if self.state else None
        looks = follow_slots(system.segmenter, system.tracker, frames, system.settings.window or 1, before)
        for clip in split_into_windows(looks, system.settings.clip or 1):
            tracks = torch.stack([look.tracked.queries for look in clip])
            context = torch.cat([system.tracker.context(look.slots) for look in clip])
            queries, after = system.refined(tracks, context, clip[-1].state, self.state)
            answers = [system.shown(look, one, after) for look, one in zip(clip, queries, strict=True)]
            yield from answers[:-1]
            self.state = after
            yield answers[-1]


@dataclass(frozen=True)
class DvisRefined(Generic[M]):
    """The system with a refiner: offline, or semi-online in clips."""

    segmenter: SlotSegmenter
    tracker: ContextTracker[M]
    refiner: Refiner
    settings: DvisSettings = DvisSettings()
    name: str = "dvis-offline"

    def __post_init__(self) -> None:
        self.settings.check(self.segmenter.categories)

    def stream(self, frames: Iterable[Frame], state: ClipState[M] | None = None) -> ClipStream[M]:
        """Semi-online: every frame's objects when its clip is complete, named by the scores so far. A stream that was
        cut after a clip goes on from its `state`.
        """
        if self.settings.clip is None:
            raise InputError("clip: a refiner of whole videos has no live answer; set clip, such as clip=30")
        return ClipStream(self, frames, state)

    @torch.no_grad()
    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """All masklets of a video. Between the passes only queries and class logits are held."""
        return self.run_with_checkpoints(video, watch, Checkpoints())

    @torch.no_grad()
    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`, from the last of the `checkpoints` on, which are of the first pass and lie between clips."""
        if self.settings.clip is None:
            checkpoints.stop(
                f"the refiner looks at the whole video at once; set clip, such as {name_setting('clip', 30)}"
            )
        at, tracks, saved = self.settings, SlotTracks(checkpoints), checkpoints.saved
        state: ClipState[M] | None = saved.state if saved else None
        frames = read_ahead(iterate_frames_from(video, saved.frame if saved else 0))
        window = at.choose_run_window(self.segmenter)
        with DenseStore(at.feature_memory, at.feature_disk, at.feature_device) as store:
            before = state.tracks if state else None
            looks = follow_slots(self.segmenter, self.tracker, frames, window, before)
            for clip, context, last in self._tracked_clips(looks, store, video, watch, checkpoints):
                refined, state = self.refined(clip.queries.all, context, last, state)
                for n, queries in enumerate(refined):
                    tracks.add(replace(clip[n], queries=queries))
                if checkpoints.is_due and last.frames % window == 0:  # so that windows stay as they are
                    checkpoints.save("forward", last.frames, state)
            if state is None:
                return build_slot_result(self, video, ())
            made = build_task_output(state.probabilities(at.scores), self.segmenter.categories, at)
            run_second_pass(self, video, store, tracks, self.refiner.masks, made, watch)
        return build_slot_result(self, video, made.masklets())

    def _tracked_clips(
        self,
        looks: Iterator[SlotFrameStep[M]],
        store: DenseStore,
        video: Video,
        watch: Watch,
        checkpoints: Checkpoints,
    ) -> Iterator[tuple[SlotTracks, Tensor, SlotLoopState[M]]]:
        """Tracks every frame; what is dense stays in the store. After each clip its tracks and contexts, and the
        state.
        """
        clip, context = SlotTracks(), TensorRows()
        for look in looks:
            store_dense_features(store, look, self.tracker)
            clip.add(look.tracked)
            context.add(self.tracker.context(look.slots)[0])
            state = look.state
            watch("forward", state.frames, len(video) or None, len(state.logits))
            checkpoints.count_frame()
            if len(context) == self.settings.clip:
                yield clip, context.all, state
                clip, context = SlotTracks(), TensorRows()
        if len(context):
            yield clip, context.all, state

    @torch.no_grad()
    def refined(
        self,
        tracks: Float[Tensor, "t n c"],
        context: Float[Tensor, "t n c"],
        after: SlotLoopState[M],
        before: ClipState[M] | None,
    ) -> tuple[Float[Tensor, "t n c"], ClipState[M]]:
        """The queries of a clip's `tracks`, refined with the `context` of its frames, and the state after it: `after`
        is the tracker's, `before` that of the clips before (None: there are none).
        """
        queries, logits = self.refiner.refine(tracks, context)
        total = logits.double() * len(tracks) + (before.logits if before else 0)
        return queries, ClipState(after, total)

    @torch.no_grad()
    def shown(self, look: SlotFrameStep[M], queries: Float[Tensor, "n c"], state: ClipState[M]) -> FrameMasks:
        """The answer for the frame of `look` with its refined `queries`, named by the scores of `state`, the one up to
        the end of its clip.
        """
        now = build_task_output(state.probabilities(self.settings.scores), self.segmenter.categories, self.settings)
        refined = replace(look.tracked, queries=queries)
        now.add(look.frame.index, self.refiner.masks(refined[now.slots], self.tracker.dense(look.slots)[0]), look.view)
        return collect_frame_masks(look.frame.index, now.masklets(), look.frame.size)
