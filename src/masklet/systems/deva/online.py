"""DEVA (Cheng et al. 2023): video segmentation with the image model and the propagation decoupled.

Every few frames the image segmenter's proposals of a short clip are carried to its first frame and agree there on what
is real (`find_consensus`); that is merged with what the propagator has carried so far (`merge_detections`). In between,
masks are propagated. With a clip of one frame this is the paper's online schedule. Readings of the open points:
docs/deva.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.ahead import iterate_ahead
from masklet.core.checkpoint import Checkpoints
from masklet.core.errors import InputError
from masklet.core.features import FeatureStore
from masklet.core.frames import Frame, Video, iterate_frames_from, iterate_with_future, read_through
from masklet.core.instances import Detections, FrameMasks, Prediction
from masklet.core.label_map import LabelMap, rank_small_in_front
from masklet.core.masks import mask_nms
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import MaskCarrier, OutsideSegmenter, Propagator, Segmenter
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source, TrackBook
from masklet.systems.common import (
    FrameStream,
    build_video_result,
    describe_lost_objects,
    encode_batches,
    encode_frames,
    find_detections,
    prepare_ahead,
)
from masklet.systems.deva.consensus import (
    Agreement,
    FrameSegments,
    MergeRules,
    ProposalLayer,
    SegmentVotes,
    Thing,
    VotedTrack,
    find_layer_consensus,
    merge_segments,
)
from masklet.systems.sweep import BACKWARD, FORWARD, complete_backward

F = TypeVar("F")
M = TypeVar("M")
S = TypeVar("S")


@dataclass(frozen=True)
class DevaSettings:
    """The paper's numbers, and its open points as settings (their readings: docs/deva.md)."""

    clip: int = 3  # n: frames that agree on what is real; 1: the online schedule
    every: int = 5  # k: frames from one merge to the next
    conf: float = 0.5  # detections above this are proposals
    nms_iou: float = 0.8  # duplicates within a frame; 1 keeps them all
    stuff: tuple[str, ...] = ()  # categories that are stuff, all others being things; none given: nobody knows
    single: Literal["detections", "consensus"] = "detections"  # a clip of one frame: all, or (as released) nothing
    max_missed: int = 5  # L: merges in a row without a matching detection that an object survives
    delete: Literal["beyond", "at"] = "beyond"  # it goes at more than L (as released), or at L (the paper's words)
    max_objects: int | None = 256  # objects tracked at once; None (as released): no limit
    overflow: Literal["new", "all"] = "new"  # beyond it no new object begins; "all" (as released): the frame is ignored
    count: Literal["unmatched", "invisible"] = "unmatched"  # what misses: all unmatched objects, or only unseen ones
    empty_born: bool = False  # whether a segment without a pixel begins an object (as released)
    prompted: Literal["changed", "all"] = "changed"  # what a merge prompts: what it changed, or (as released) all
    look: Literal["everywhere", "outside"] = "everywhere"  # outside: where nothing is tracked (its automatic demo)
    alignment: Literal["propagated", "none"] = "propagated"  # how a clip's frames meet; none: as if nothing moved
    backward: bool = True  # whether `run` carries objects from their first mask to earlier frames (paper: no)

    def __post_init__(self) -> None:
        if not (self.clip and self.every):
            raise InputError(f"clip = {self.clip} and every = {self.every}: both count frames, from 1 on")

    @property
    def rules(self) -> MergeRules:
        """The settings of merging, as `merge_detections` takes them."""
        return MergeRules(self.max_missed, self.delete, self.max_objects, self.overflow, self.count, self.empty_born)

    def clip_of(self, frame: int, voted: int) -> range | None:
        """The clip that a frame waits for, both counted from the first frame; None: it is only propagated.

        Clips end at frames n-1, n-1+k, n-1+2k, ...; frames before `voted` have had theirs.
        """
        end = self.clip - 1 + max(-(-(frame - self.clip + 1) // self.every), 0) * self.every
        start = max(end - self.clip + 1, voted)
        return range(start, end + 1) if start <= frame else None


@dataclass(frozen=True)
class DevaState(Generic[M, S]):
    """What is carried from frame to frame: a value, so a stream can be saved and resumed."""

    memory: M  # the propagator's
    sight: S  # the segmenter's
    tracks: Mapping[int, VotedTrack] = field(default_factory=dict)
    born: int = 0
    clock: int = 0  # frames answered
    voted: int = 0  # frames that have been answered or belong to a clip that has agreed
    refused: int = 0  # detections that began no object for want of room


@dataclass(frozen=True)
class WaitingFrame(Generic[F, S]):
    """What is seen in a frame, whatever is remembered of objects: it can be computed ahead."""

    frame: Frame
    features: F
    found: FrameSegments
    sight: S  # the segmenter's memory after it
    due: int | None  # how many frames its clip has; None: it is only propagated


@dataclass(frozen=True)
class DevaFrameStep(Generic[F, M, S]):
    """One frame's answer."""

    frame: Frame
    features: F
    masks: LabelMap
    detected: frozenset[int]  # objects that a detection vouches for in this frame
    deleted: Mapping[int, VotedTrack]
    state: DevaState[M, S]


@dataclass(frozen=True)
class Deva(Generic[F, M, S]):
    """The system. `stream` answers live, with the vote so far; `run` names each object by its final vote."""

    segmenter: Segmenter[S]
    propagator: Propagator[F, M]
    settings: DevaSettings = DevaSettings()

    def __post_init__(self) -> None:
        unknown = set(self.settings.stuff) - set(self.segmenter.categories)
        if unknown:
            raise InputError(f"stuff: no category {', '.join(sorted(unknown))}; it has {self.segmenter.categories}")
        if self.settings.look == "outside" and not isinstance(self.segmenter, OutsideSegmenter):
            raise InputError("look=outside: only segmenters that prompt a grid of points can, such as everything")

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """All masklets of a video."""
        return self.run_with_checkpoints(video, watch, Checkpoints())

    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`, from the last of the `checkpoints` on."""
        book, window = checkpoints.open_book(), None if self.settings.backward else 0
        with FeatureStore[F]() as store:
            if checkpoints.saved and checkpoints.saved.phase == BACKWARD:
                read_through(video)
            else:
                checkpoints.carried = self.run_forward(video, book, store, watch, checkpoints)
            complete_backward(self.propagator, video, book, store, window, watch, checkpoints=checkpoints)
        tracks, refused = checkpoints.carried
        masklets = tuple(apply_final_vote(m, tracks[m.id]) for m in remove_backward_overlaps(book.masklets()))
        return self._result(video, masklets, refused)

    def run_forward(
        self, video: Video, book: TrackBook, store: FeatureStore[F], watch: Watch, checkpoints: Checkpoints
    ) -> tuple[dict[int, VotedTrack], int]:
        """The forward phase over `video`, from the last of the `checkpoints` on: writes into `book` what is seen, and
        keeps features in `store` for the way back; `watch` is called after every frame. Returns all tracks, and how
        many detections were refused.
        """
        saved = checkpoints.saved
        state, tracks = saved.state if saved else (self.begin_video(), dict[int, VotedTrack]())
        encoded = iterate_ahead(
            encode_batches(self.propagator, iterate_frames_from(video, saved.frame if saved else 0))
        )
        seen = prepare_ahead(self.propagator, self.segment_frames(encoded, state), get_frame_features)
        for look in self.follow_objects(seen, state):
            state = look.state
            tracks |= {**state.tracks, **look.deleted}
            for id, mask in look.masks.encode().items():
                source = Source.DETECTED if id in look.detected else Source.FORWARD
                book.note(id, look.frame.index, Sighting(mask, source, tracks[id].score, tracks[id].label))
            if self.settings.backward:
                store.keep(look.frame.index, look.features)
            watch(FORWARD, state.clock, len(video) or None, len(state.tracks))
            checkpoints.count_frame()
            if checkpoints.is_due:
                checkpoints.save(FORWARD, look.frame.index + 1, (state, tracks))
        return tracks, state.refused

    def stream(
        self, frames: Iterable[Frame], state: DevaState[M, S] | None = None
    ) -> FrameStream[DevaFrameStep[F, M, S], DevaState[M, S]]:
        """Every frame's objects, as soon as its clip has agreed.

        Its `state` after any frame that came before the frames ended can be saved (core.memory), and a stream of
        the frames that follow the answered ones goes on from it.
        """
        return FrameStream(self.forward(frames, state), show_deva_step, state)

    def forward(
        self, frames: Iterable[Frame], state: DevaState[M, S] | None = None
    ) -> Iterator[DevaFrameStep[F, M, S]]:
        """Frame by frame: propagate, or wait for the clip and vote."""
        state = state or self.begin_video()
        return self.follow_objects(self.segment_frames(encode_frames(self.propagator, frames), state), state)

    def begin_video(self) -> DevaState[M, S]:
        """The state before the first frame."""
        return DevaState(self.propagator.empty(), self.segmenter.empty())

    def segment_frames(
        self, encoded: Iterable[tuple[Frame, F]], state: DevaState[M, S]
    ) -> Iterator[WaitingFrame[F, S]]:
        """The proposals of each frame that comes `encoded`, those of the first being asked for in `state`."""
        sight, clock, voted = state.sight, state.clock, state.voted
        for (frame, features), after in iterate_with_future(encoded, self.segmenter.look_ahead):
            due = self.settings.clip_of(clock, voted)
            future = [frame for frame, _ in after]
            found, sight = self.find(sight, frame, future, needed=due is not None)
            clock += 1
            if due is None or clock == due.stop:
                voted = max(voted, clock)
            yield WaitingFrame(frame, features, found, sight, None if due is None else len(due))

    def follow_objects(
        self, seen: Iterable[WaitingFrame[F, S]], state: DevaState[M, S]
    ) -> Iterator[DevaFrameStep[F, M, S]]:
        """The objects in each of the frames that are `seen`, by what is remembered of them; from a `state` on."""
        clip = list[WaitingFrame[F, S]]()
        for waiting in seen:
            clip.append(waiting)
            if waiting.due is None or len(clip) == waiting.due:
                for look in self.propagated(state, clip) if waiting.due is None else self.voted(state, clip):
                    state = look.state
                    yield look
                clip = []
        # A clip that stays incomplete only votes if nothing else would say anything of this video.
        yield from self.voted(state, clip) if clip and not state.clock else self.propagated(state, clip)

    def find(self, sight: S, frame: Frame, future: Sequence[Frame], needed: bool) -> tuple[FrameSegments, S]:
        """The proposals in `frame`, and the segmenter's memory `sight` after it; `future` frames are only looked at.
        Where none are `needed`, only a segmenter with a memory is asked.
        """
        if (not needed and sight is None) or self.settings.look == "outside":
            return FrameSegments((), ()), sight
        found, sight = find_detections(self.segmenter, sight, frame, future, self.settings.conf)
        return self.propose(found), sight

    def look_outside(self, state: DevaState[M, S], waiting: WaitingFrame[F, S]) -> WaitingFrame[F, S]:
        """A frame with its proposals, asked for where nothing is of what is carried to it from `state`."""
        assert isinstance(self.segmenter, OutsideSegmenter)
        size = waiting.frame.size
        carried = self.own(state.tracks, self.propagator.predict(state.memory, waiting.features), size)
        known = torch.from_numpy(carried.rows > 0)
        return replace(waiting, found=self.propose(self.segmenter.segment_outside(waiting.frame, known)))

    def propose(self, found: Detections) -> FrameSegments:
        """The proposals among what was `found` in a frame: confident, no duplicates, without overlap."""
        kept = mask_nms(found.masks, found.scores, self.settings.nms_iou, found.scores > self.settings.conf)
        masks = LabelMap.paint(found.masks, kept.tolist(), rank_small_in_front)
        rows = [row for row, area in zip(masks, masks.areas, strict=True) if area]
        votes = zip(found.labels[rows].tolist(), found.scores[rows].tolist(), strict=True)
        said = tuple(SegmentVotes((label,), (score,), self.thing(label)) for label, score in votes)
        return FrameSegments((masks.relabel(rows).renumber(),), said)

    def propagated(
        self, state: DevaState[M, S], clip: Sequence[WaitingFrame[F, S]]
    ) -> Iterator[DevaFrameStep[F, M, S]]:
        """Steps through the frames of `clip` without a merge, from `state` on."""
        for waiting in clip:
            size, features = waiting.frame.size, waiting.features
            belief = self.propagator.predict(state.memory, features)
            memory = self.propagator.commit(state.memory, features, belief)
            clock = state.clock + 1
            state = replace(state, memory=memory, sight=waiting.sight, clock=clock, voted=max(state.voted, clock))
            yield DevaFrameStep(waiting.frame, features, self.own(state.tracks, belief, size), frozenset(), {}, state)

    def voted(self, state: DevaState[M, S], clip: Sequence[WaitingFrame[F, S]]) -> Iterator[DevaFrameStep[F, M, S]]:
        """A complete clip: what it agrees on is merged into its first frame, the others follow by propagation."""
        if self.settings.look == "outside":
            clip = [self.look_outside(state, waiting) for waiting in clip]
        state = replace(state, voted=state.clock + len(clip), sight=clip[0].sight)
        look = self.merged(state, clip[0].frame, clip[0].features, self.segments(clip))
        yield look
        yield from self.propagated(look.state, clip[1:])

    def merged(self, state: DevaState[M, S], frame: Frame, features: F, found: FrameSegments) -> DevaFrameStep[F, M, S]:
        """One `frame`, with `features`, in which the segments `found` are merged into what is propagated from `state`.
        What the merge has changed is written as a prompt, what it left as a belief.
        """
        belief = self.propagator.predict(state.memory, features)
        own = self.own(state.tracks, belief, frame.size)
        done = merge_segments(state.tracks, own, found, state.born, self.settings.rules)
        area = dict(zip(done.masks, done.masks.areas.tolist(), strict=True))
        kept = find_equal_masks(own.relabel([id for id in own if id in belief.ids]), done.masks)
        changed = {id: done.masks[id] for id in done.masks if area[id] and id not in kept}
        told = changed if self.settings.prompted == "changed" else done.masks
        covered = [r for r, id in enumerate(belief.ids) if area.get(id) == 0]
        gone = [id for id in done.deleted if id in belief.ids]
        left = mark_absent(belief, covered).only([r for r, id in enumerate(belief.ids) if id not in (*told, *gone)])
        memory = self.propagator.forget(state.memory, gone) if gone else state.memory
        memory = self.propagator.commit(memory, features, left)
        if told:
            memory, _ = self.propagator.prompt(memory, features, told)
        after = replace(
            state,
            memory=memory,
            tracks=done.tracks,
            born=state.born + len(done.new),
            clock=state.clock + 1,
            refused=state.refused + done.refused,
        )
        deleted = {id: state.tracks[id] for id in done.deleted if id in state.tracks}
        return DevaFrameStep(frame, features, done.masks, frozenset((*done.matched, *done.new)), deleted, after)

    def own(self, tracks: Mapping[int, VotedTrack], belief: Prediction, size: tuple[int, int]) -> LabelMap:
        """The mask that `belief` has of each of `tracks` at `size` (h, w); empty where the propagator knows nothing of
        it.
        """
        return belief.label_map(size).relabel(tuple(tracks))

    def segments(self, clip: Sequence[WaitingFrame[F, S]]) -> FrameSegments:
        """What a clip agrees on, in its first frame; a clip of one frame has nobody to agree with."""
        if len(clip) == 1 and self.settings.single == "detections":
            return clip[0].found
        layers, said, size = [], list[SegmentVotes](), clip[0].frame.size
        for n, waiting in enumerate(clip):
            for masks in waiting.found.layers:
                moved = self.aligned(masks, waiting.features, clip[0].features, n)
                layers.append(ProposalLayer(n, moved.renumber(len(said))))
            said += waiting.found.said
        agreed = find_layer_consensus(layers, [votes.thing for votes in said], size)
        return FrameSegments((agreed.rendered,), collect_agreed_votes(said, agreed))

    def aligned(self, masks: LabelMap, source: F, target: F, distance: int) -> LabelMap:
        """Carries `masks` from the frame with features `source` to that with features `target`, by a memory of this
        one frame, thrown away after; where the `distance` is 0 frames, they stay as they are.
        """
        if not masks or not distance or self.settings.alignment == "none":
            return masks
        belief = propagate_between_frames(self.propagator, masks.renumber(1), source, target)
        return belief.label_map(masks.size).relabel(range(1, len(masks) + 1))

    def thing(self, label: int) -> Thing:
        """Whether a category is a thing; None if no category was said to be stuff."""
        return self.segmenter.categories[label] not in self.settings.stuff if self.settings.stuff else None

    def _result(self, video: Video, masklets: tuple[Masklet, ...], refused: int) -> VideoResult:
        at = self.settings
        notes = []
        if refused:
            notes.append(f"{refused} detections were refused: max_objects = {at.max_objects} were tracked; raise it")
        notes += describe_lost_objects(masklets, len(video))
        if not masklets:
            notes.append(
                f"no object: no detection above conf = {at.conf:g} was supported by another frame of its clip; "
                "lower conf, or set clip=1 to take the detections of single frames"
            )
        return build_video_result(video, masklets, self.segmenter.categories, "deva", asdict(at), notes)


def get_frame_features(waiting: WaitingFrame[F, S]) -> F:
    """The features of a frame that waits."""
    return waiting.features


def show_deva_step(look: DevaFrameStep[F, M, S]) -> FrameMasks:
    """What is seen in one frame, each object under the name it has most votes for so far."""
    ids = tuple(sorted(id for id, area in zip(look.masks, look.masks.areas, strict=True) if area))
    tracks = [look.state.tracks[id] for id in ids]
    return FrameMasks(
        look.frame.index,
        ids,
        look.masks.relabel(ids).stack(),
        torch.tensor([t.score for t in tracks], dtype=torch.float32),
        torch.tensor([t.label for t in tracks], dtype=torch.int64),
    )


def propagate_between_frames(
    propagator: Propagator[F, M], masks: Mapping[int, Bool[Tensor, "h w"]], source: F, target: F
) -> Prediction:
    """Where `masks` (by id) of the frame with features `source` are in the frame with features `target`, by a memory of
    `propagator` that is thrown away after.
    """
    if isinstance(propagator, MaskCarrier):
        found: Prediction = propagator.carry(masks, source, target)
        return found
    memory, _ = propagator.prompt(propagator.empty(), source, masks)
    return propagator.predict(memory, target)


def find_equal_masks(before: LabelMap, after: LabelMap) -> set[int]:
    """The ids whose masks are the same in both."""
    common, areas = before.count_common(after), dict(zip(after, after.areas.tolist(), strict=True))
    at = {id: column for column, id in enumerate(after)}
    same = zip(before, before.areas.tolist(), common, strict=True)
    return {id for id, area, shared in same if id in at and area == areas[id] == shared[at[id]]}


def mark_absent(belief: Prediction, rows: Sequence[int]) -> Prediction:
    """The belief that some objects are not in the frame: what lies wholly under others must not stay remembered."""
    at = list(rows)
    if not at:
        return belief
    logits, presence = belief.logits.clone(), belief.presence.clone()
    logits[at], presence[at] = -logits[at].abs(), -presence[at].abs()
    return replace(belief, logits=logits, presence=presence)


def collect_agreed_votes(said: Sequence[SegmentVotes], agreed: Agreement) -> tuple[SegmentVotes, ...]:
    """Of each selected segment, all that it and its direct supporters `said`."""
    return tuple(
        SegmentVotes(
            tuple(label for m in members for label in said[m].labels),
            tuple(score for m in members for score in said[m].scores),
            said[members[0]].thing,
        )
        for members in agreed.members
    )


def remove_backward_overlaps(masklets: Sequence[Masklet]) -> tuple[Masklet, ...]:
    """What was carried back takes no pixel from what was there, nor from older objects that were carried back; it is
    dropped from frames in which that leaves less than half of it, being the same thing under another id.
    """
    ordered, book = sorted(masklets, key=lambda m: m.id), TrackBook({m.id: {} for m in masklets})
    for t in sorted({t for m in ordered for t in m.sightings}):
        seen = {m.id: m.sightings[t] for m in ordered if t in m.sightings}
        taken = [s.mask for s in seen.values() if s.source is not Source.BACKWARD]
        for id, sighting in seen.items():
            left = sighting.mask
            if sighting.source is Source.BACKWARD:
                left = remove_taken_pixels(sighting.mask, taken)
                if 2 * left.area < sighting.mask.area:
                    continue
                taken.append(left)
            book.note(id, t, replace(sighting, mask=left))
    return tuple(replace(m, sightings=book.pages[m.id]) for m in ordered if book.pages[m.id])


def remove_taken_pixels(mask: Rle, taken: Sequence[Rle]) -> Rle:
    """What of a mask nobody has."""
    if not any(mask.overlap(other) for other in taken):
        return mask
    left = mask.decode()
    for other in taken:
        left &= ~other.decode()
    return Rle.encode(left)


def apply_final_vote(masklet: Masklet, track: VotedTrack) -> Masklet:
    """The masklet with the final vote."""
    return replace(masklet, label=track.label, score=track.score, is_thing=track.thing is not False)
