"""SAM2BMP: video instance segmentation by bidirectional mask propagation.

An image segmenter finds objects, a propagator carries their masks, mask IoU ties the two together; one
backward sweep then completes every object before its first detection, and filters clean up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.ahead import iterate_ahead
from masklet.core.checkpoint import Checkpoints
from masklet.core.features import DEVICE, DISK, MEMORY, FeatureStore
from masklet.core.frames import Frame, Video, iterate_frames_from, iterate_with_future, read_through
from masklet.core.instances import NAMELESS, Branches, Detections, FrameMasks, Prediction
from masklet.core.masks import (
    compute_mutual_mask_iou,
    find_nonempty,
    has_pixels,
    mask_iou,
    mask_nms,
    pack_bits,
    stack_masks,
    unpack_bits,
)
from masklet.core.matching import Matching, match
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator, Segmenter
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Sighting, Source, TrackBook
from masklet.systems.common import (
    FrameStream,
    build_video_result,
    describe_lost_objects,
    encode_batches,
    encode_frames,
    find_detections,
    prepare_ahead,
)
from masklet.systems.filters import choose_label, drop_twins, keep_supported, name_masklet
from masklet.systems.newcomers import Newcomer, follow_newcomers, list_earlier_sightings, list_seen_throughout
from masklet.systems.sweep import BACKWARD, FORWARD, complete_backward, count_lost, note_branches

F = TypeVar("F")
M = TypeVar("M")
S = TypeVar("S")


@dataclass(frozen=True)
class Sam2BmpSettings:
    """The paper's numbers, and its open points as settings (their readings: docs/sam2bmp.md)."""

    conf: float = 0.95  # a detection above this is confident: it matches, overwrites, and makes a key frame
    low_conf: float = 0.5  # from here to `conf` it may only start an object where nothing is tracked
    columns: Literal["confident", "all"] = "confident"  # of the matrix of IoU: what a track may be paired with
    match_iou: float = 0.5  # mask IoU above which a track and a confident detection are one
    novel_iou: float = 0.3  # mask IoU with every track below which a low-confidence proposal is new
    confirm: int = 1  # frames, of any 2 * confirm - 1, in which a thing is detected before it is an object; 1: at once
    nms_iou: float = 0.5  # duplicates within a frame; 1 keeps them all
    memory: Literal["propagated", "detected", "key"] = "propagated"  # what a match writes to the memory
    drift_iou: float = 0.8  # for memory = "key": a match below this mask IoU corrects the memory
    backward_window: int | None = None  # frames that completion reaches back; None: all, 0: none
    key_ratio: float = 0.1  # key frames / non-empty frames below which an object is dropped; 0 keeps all
    twin_iou: float = 0.5  # tracklet NMS: mask IoU at which two objects agree in a frame
    twin_frames: int = 6  # tracklet NMS: frames of agreement at which the weaker one is dropped
    twin_join: float | None = None  # share of common frames in which twins agree that are joined; None: one is dropped
    score_gamma: float = 0.0  # 0: an object's score is the mean of its key frames; more: support counts
    max_lost: int | None = None  # frames after which an object without mask or support is forgotten; None: never
    max_objects: int = 256  # objects remembered at once: what is in sight comes first, then what was lost last
    feature_memory: int = MEMORY  # bytes of features kept in memory for the backward phase
    feature_disk: int = DISK  # bytes more on disk; beyond both, features are computed again
    feature_device: int = DEVICE  # bytes kept where they are made first, on a GPU, of a quarter of what is free


NO_ID = 0  # of what is no object yet: ids are counted from 1
CORRECTS: Mapping[str, Callable[[float, float], bool]] = {
    "propagated": lambda iou, limit: False,
    "detected": lambda iou, limit: True,
    "key": lambda iou, limit: iou < limit,
}


@dataclass(frozen=True)
class ObjectTally:
    """What is remembered of an object besides its masks."""

    lost: int = 0  # frames without a mask, less those with one since
    votes: Mapping[int, float] = field(default_factory=dict)  # label: sum of confident scores
    masks: int = 0  # frames with a mask
    keys: int = 0  # of these, frames with a confident detection
    unvouched: int = 0  # frames since the last confident detection


@dataclass(frozen=True)
class Sam2BmpState(Generic[M, S]):
    """What the forward phase carries from frame to frame: a value, so a stream can be saved and resumed."""

    memory: M  # the propagator's
    sight: S  # the segmenter's
    tallies: Mapping[int, ObjectTally] = field(default_factory=dict)
    born: int = 0
    refused: int = 0  # detections that began no object, for there were `max_objects` in sight
    waiting: tuple[Newcomer, ...] = ()  # what was seen in too few frames to be an object yet

    def drop_memories(self) -> Sam2BmpState[Any, Any]:
        """What is known of objects alone: memories are large."""
        return Sam2BmpState(None, None, self.tallies, self.born, self.refused, self.waiting)


@dataclass(frozen=True)
class ObjectInFrame:
    """One object in the current frame, while its pixels are compared."""

    id: int
    mask: Bool[Tensor, "h w"]
    source: Source
    score: float
    label: int
    presence: float

    def sighting(self) -> Sighting:
        """The object as the track book has it, its mask as RLE."""
        return Sighting(Rle.encode(self.mask), self.source, self.score, self.label, self.presence)


@dataclass(frozen=True)
class ScoreSummary:
    """The scores of all detections so far."""

    count: int = 0
    sure: int = 0  # of these, above `conf`
    best: float = 0.0

    def add(self, scores: Float[Tensor, " n"], conf: float) -> ScoreSummary:
        """With those of one more frame; those above `conf` are sure."""
        best = max([self.best, *scores.tolist()])
        return ScoreSummary(self.count + len(scores), self.sure + int((scores > conf).sum()), best)


@dataclass(frozen=True)
class SegmentedFrame(Generic[F, S]):
    """What is seen in a frame, whatever is remembered of objects: it can be computed ahead."""

    frame: Frame
    features: F
    sure: Callable[[], Detections]  # gives the confident ones (`set_aside`)
    unsure: Callable[[], Detections]  # gives the proposals
    scores: Float[Tensor, " m"]  # of all that the segmenter found
    sight: S  # the segmenter's memory after it


@dataclass(frozen=True)
class Sam2BmpFrameStep(Generic[F, M, S]):
    """One frame of the forward phase."""

    frame: Frame
    features: F
    scores: Float[Tensor, " m"]  # of all that the segmenter found
    pathways: Branches | None  # that were committed, where the propagator follows several of each object
    seen: Mapping[int, Sighting]  # by id
    earlier: Mapping[int, Mapping[int, Sighting]]  # by id and frame: new objects in the frames before this one
    state: Sam2BmpState[M, S]


@dataclass(frozen=True)
class FrameMatch:
    """Who is in a frame, before anything of it is remembered: masks are large, RLE is not."""

    seen: Mapping[int, Sighting]  # by id, those that are known first
    corrected: frozenset[int]  # known objects of which the memory is told what was detected in place of the belief
    told: Mapping[int, Bool[Tensor, "h w"]]  # what the memory is told of them and of new ones, by id
    earlier: Mapping[int, Mapping[int, Sighting]]  # by id and frame: new objects in the frames before this one
    waiting: tuple[Newcomer, ...]  # what is no object yet
    refused: int  # detections that began no object


@dataclass(frozen=True)
class Sam2Bmp(Generic[F, M, S]):
    """The system. `stream` is its forward phase, live and in bounded memory; `run` is all of it."""

    segmenter: Segmenter[S]
    propagator: Propagator[F, M]
    settings: Sam2BmpSettings = Sam2BmpSettings()

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """All masklets of a video: forward phase, backward phase, filters."""
        return self.run_with_checkpoints(video, watch, Checkpoints())

    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`, from the last of the `checkpoints` on."""
        at, book = self.settings, checkpoints.open_book()
        with FeatureStore[F](at.feature_memory, at.feature_disk, at.feature_device) as store:
            if checkpoints.saved and checkpoints.saved.phase == BACKWARD:
                read_through(video)
            else:
                checkpoints.carried = self.run_forward(video, book, store, watch, checkpoints)
            complete_backward(self.propagator, video, book, store, at.backward_window, watch, at.max_lost, checkpoints)
        refused, scores = checkpoints.carried
        return self._result(video, book, refused, scores)

    def run_forward(
        self, video: Video, book: TrackBook, store: FeatureStore[F], watch: Watch, checkpoints: Checkpoints
    ) -> tuple[int, ScoreSummary]:
        """The forward phase over `video`, from the last of the `checkpoints` on: writes into `book` what completion
        needs, and keeps features in `store`; `watch` is called after every frame. Returns how many detections were
        refused, and the scores of all.
        """
        saved, conf = checkpoints.saved, self.settings.conf
        begun, scores = saved.state if saved else (self.begin_video(), ScoreSummary())
        first = saved.frame if saved else 0
        refused, frames = begun.refused, iterate_frames_from(video, first)
        end, length = begun.drop_memories(), first
        encoded = iterate_ahead(encode_batches(self.propagator, frames), depth=1)
        segmented = self.segment_frames(encoded, begun.sight)
        for look in self.follow_objects(prepare_ahead(self.propagator, segmented, get_frame_features), begun):
            store.keep(look.frame.index, look.features)
            self.write(book, look)
            refused, scores = look.state.refused, scores.add(look.scores, conf)
            end, length = look.state.drop_memories(), look.frame.index + 1
            watch(FORWARD, look.frame.index + 1, len(video) or None, len(look.state.tallies))
            checkpoints.count_frame()
            if checkpoints.is_due:
                checkpoints.save(FORWARD, look.frame.index + 1, (look.state, scores))
            del look  # masks and memories are large: none of a frame is held while the next is looked at
        book.settle()
        for id, newcomer in self.confirm_at_end(end, length):
            note_sightings(book, id, newcomer.sightings)
        # Completion adds no key frame: what lacks support now need not be completed.
        supported = {m.id for m in keep_supported(book.masklets(), self.settings.key_ratio)}
        book.drop([id for id in book.pages if id not in supported])
        return refused, scores

    def stream(
        self, frames: Iterable[Frame], state: Sam2BmpState[M, S] | None = None
    ) -> FrameStream[Sam2BmpFrameStep[F, M, S], Sam2BmpState[M, S]]:
        """The forward phase alone: every frame's objects, as soon as the segmenter's look-ahead allows.

        Its `state` after any frame can be saved (core.memory), and a stream of the frames that follow goes on from it.
        """
        return FrameStream(self.forward(frames, state), self.show, state)

    def show(self, look: Sam2BmpFrameStep[F, M, S]) -> FrameMasks:
        """What is seen in one frame, each object under the name it has most votes for so far."""
        nameless = find_nameless(self.segmenter.categories)
        shown = {id: s for id, s in sorted(look.seen.items()) if s.mask.area}
        labels = [choose_label(look.state.tallies[id].votes, nameless) for id in shown]
        return FrameMasks(
            look.frame.index,
            tuple(shown),
            stack_masks([s.mask.decode() for s in shown.values()], look.frame.size),
            torch.tensor([s.score for s in shown.values()]),
            torch.tensor(labels, dtype=torch.int64),
        )

    def write(self, book: TrackBook, look: Sam2BmpFrameStep[F, M, S]) -> None:
        """One frame into the book; of an object with several pathways all are kept until one has won."""
        if look.pathways:
            note_branches(book, look.frame.index, look.pathways, look.frame.size, Source.FORWARD)
        for id, earlier in look.earlier.items():
            note_sightings(book, id, earlier)
        for id, sighting in look.seen.items():
            if not look.pathways or sighting.source is not Source.FORWARD or id not in look.pathways.ids:
                book.note(id, look.frame.index, sighting)

    def forward(
        self, frames: Iterable[Frame], state: Sam2BmpState[M, S] | None = None
    ) -> Iterator[Sam2BmpFrameStep[F, M, S]]:
        """SAM2BMP 3.2, frame by frame, from a given state on."""
        state = state or self.begin_video()
        return self.follow_objects(self.segment_frames(encode_frames(self.propagator, frames), state.sight), state)

    def begin_video(self) -> Sam2BmpState[M, S]:
        """The state before the first frame."""
        return Sam2BmpState(self.propagator.empty(), self.segmenter.empty())

    def segment_frames(self, encoded: Iterable[tuple[Frame, F]], sight: S) -> Iterator[SegmentedFrame[F, S]]:
        """The detections of each frame that comes `encoded`; `sight` is the segmenter's memory before the first."""
        least = min(self.settings.low_conf, self.settings.conf)
        for (frame, features), after in iterate_with_future(encoded, self.segmenter.look_ahead):
            future = [frame for frame, _ in after]
            found, sight = find_detections(self.segmenter, sight, frame, future, least)
            scores = found.all_scores
            sure, unsure = map(set_aside, self.choose_detections(found))
            del found
            yield SegmentedFrame(frame, features, sure, unsure, scores, sight)

    def choose_detections(self, found: Detections) -> tuple[Detections, Detections]:
        """The confident ones of the detections `found` in a frame, and the proposals, without duplicates."""
        at = self.settings
        looked_at = found.scores >= min(at.low_conf, at.conf)
        kept = torch.zeros_like(looked_at)
        kept[mask_nms(found.masks, found.scores, at.nms_iou, looked_at)] = True
        kept &= find_nonempty(found.masks)
        sure, unsure = found.scores > at.conf, (found.scores >= at.low_conf) & (found.scores <= at.conf)
        return found[kept & sure], found[kept & unsure]

    def follow_objects(
        self, segmented: Iterable[SegmentedFrame[F, S]], state: Sam2BmpState[M, S]
    ) -> Iterator[Sam2BmpFrameStep[F, M, S]]:
        """The objects in each of the `segmented` frames, by what is remembered of them; from a `state` on."""
        for seen in segmented:
            belief = self.propagator.predict(state.memory, seen.features)
            who = self.match_frame(state, seen, belief)
            belief = belief.only([row for row, id in enumerate(belief.ids) if id not in who.corrected])
            pathways = belief if isinstance(belief, Branches) else None
            # Memories and beliefs are large: none is held any more when the next one is made.
            state = replace(state, memory=self.propagator.commit(state.memory, seen.features, belief))
            del belief
            state = self.remember(state, seen, who)
            step = Sam2BmpFrameStep(seen.frame, seen.features, seen.scores, pathways, who.seen, who.earlier, state)
            del seen, who, pathways
            yield step
            del step

    def match_frame(self, state: Sam2BmpState[M, S], seen: SegmentedFrame[F, S], belief: Prediction) -> FrameMatch:
        """Matches what is found in a frame, as it is `seen`, with the `belief` about it, and takes the detected or the
        propagated mask of each object; new objects' ids are counted on from `state`.
        """
        at, sure, unsure = self.settings, seen.sure(), seen.unsure()
        own = belief.masks(seen.frame.size)
        iou = mask_iou(own, sure.masks)
        links = self.match_tracks(own, iou, unsure)
        old = follow_detections(belief, own, sure, links)
        found = self.begin(old, sure[links.free_cols], unsure)
        frame = seen.frame.index
        confirmed, waiting = follow_newcomers(state.waiting, [s.sighting() for s in found], frame, at.confirm)
        born = [replace(found[column], id=state.born + n) for n, column in enumerate(confirmed, start=1)]
        new = born[: max(at.max_objects - sum(has_pixels(s.mask) for s in old), 0)]
        earlier = [list_earlier_sightings(one, frame) for one in confirmed.values()]

        corrects = CORRECTS[at.memory]
        corrected = {belief.ids[r]: sure.masks[c] for r, c in links.pairs if corrects(float(iou[r, c]), at.drift_iou)}
        told = {**corrected, **{s.id: s.mask for s in new}}
        return FrameMatch(
            {s.id: s.sighting() for s in old + new},
            frozenset(corrected),
            told,
            {s.id: known for s, known in zip(new, earlier, strict=False) if known},
            waiting,
            len(born) - len(new),
        )

    def match_tracks(self, own: Bool[Tensor, "n h w"], iou: Float[Tensor, "n m"], unsure: Detections) -> Matching:
        """SAM2BMP 3.2: which track is which confident detection, by the `iou` of the tracks' masks `own` with these.
        With all detections as columns, as the paper writes the matrix, a track that suits one of the `unsure` ones best
        is paired with that, which overwrites nothing: it is as if it were unmatched.
        """
        if self.settings.columns == "confident":
            return match(iou.cpu().numpy(), self.settings.match_iou)
        every = torch.cat([iou, mask_iou(own, unsure.masks)], 1)
        links, sure = match(every.cpu().numpy(), self.settings.match_iou), iou.shape[1]
        pairs = tuple((row, column) for row, column in links.pairs if column < sure)
        rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
        free_rows = tuple(row for row in range(len(iou)) if row not in rows)
        return Matching(pairs, free_rows, tuple(column for column in range(sure) if column not in columns))

    def begin(self, old: Sequence[ObjectInFrame], sure: Detections, unsure: Detections) -> list[ObjectInFrame]:
        """What is no object that is known, without ids: unmatched confident detections (`sure`), and proposals
        (`unsure`) where neither those nor the `old` objects are.
        """
        born = [(sure, c, Source.DETECTED) for c in range(len(sure))]
        order = unsure.scores.argsort(descending=True, stable=True).tolist()
        taken = [*(s.mask for s in old), *sure.masks]
        free = (mask_iou(unsure.masks, taken) < self.settings.novel_iou).all(1).tolist()
        alike = compute_mutual_mask_iou(unsure.masks, range(len(unsure))) >= self.settings.novel_iou
        kept: list[int] = []
        for c in order:
            if free[c] and not alike[c, kept].any():
                born.append((unsure, c, Source.FORWARD))
                kept.append(c)
        return [
            ObjectInFrame(NO_ID, d.masks[c], source, float(d.scores[c]), int(d.labels[c]), 1.0) for d, c, source in born
        ]

    def remember(self, state: Sam2BmpState[M, S], seen: SegmentedFrame[F, S], who: FrameMatch) -> Sam2BmpState[M, S]:
        """The `state` after the frame that was `seen`, its belief being committed: counts votes and absences of those
        `who` were there, drops from the memory what has been without mask or support for too long or absent for
        longest, and tells it what was detected.
        """
        before = {id: reduce(update_tally, known.values(), ObjectTally()) for id, known in who.earlier.items()}
        before |= state.tallies
        tallies = {id: update_tally(before.get(id, ObjectTally()), s) for id, s in who.seen.items()}
        longest = sorted(tallies, key=lambda id: -tallies[id].lost)
        excess = max(len(tallies) - self.settings.max_objects, 0)
        gone = {id for n, id in enumerate(longest) if n < excess or self.is_given_up(tallies[id])}
        told = {id: mask for id, mask in who.told.items() if id not in gone}
        memory = self.propagator.forget(state.memory, gone & state.tallies.keys()) if gone else state.memory
        kept = {id: tally for id, tally in tallies.items() if id not in gone}
        born, refused = max(state.born, *who.seen, 0), state.refused + who.refused
        state = Sam2BmpState(memory, seen.sight, kept, born, refused, who.waiting)
        if not told:
            return state
        return replace(state, memory=self.propagator.prompt(memory, seen.features, told)[0])

    def is_given_up(self, tally: ObjectTally) -> bool:
        """Whether an object was without a mask for too long, or for as long without a detection where those before
        are too few for the key-frame ratio: of many such objects each would be looked for in every frame.
        """
        limit, ratio = self.settings.max_lost, self.settings.key_ratio
        unsupported = tally.keys < ratio * tally.masks
        return limit is not None and (tally.lost > limit or (unsupported and tally.unvouched > limit))

    def confirm_at_end(self, state: Sam2BmpState[Any, Any], length: int) -> Iterator[tuple[int, Newcomer]]:
        """New objects, with their ids, of a video that ended in this `state` after `length` frames, too few to confirm
        any.
        """
        found = list_seen_throughout(state.waiting, length)
        return enumerate(found, start=state.born + 1)

    def _result(self, video: Video, book: TrackBook, refused: int, scores: ScoreSummary) -> VideoResult:
        at = self.settings
        supported = keep_supported(book.masklets(), at.key_ratio)
        kept = drop_twins(supported, at.twin_iou, at.twin_frames, at.twin_join)
        nameless = find_nameless(self.segmenter.categories)
        masklets = tuple(replace(name_masklet(m, at.score_gamma, nameless), id=n) for n, m in enumerate(kept, start=1))
        notes = []
        if refused:
            notes.append(
                f"{refused} detections began no object: max_objects = {at.max_objects} were in sight; raise it"
            )
        notes += describe_lost_objects(masklets, len(video))
        if not masklets:
            notes.append(explain_no_object(scores, at))
        return build_video_result(video, masklets, self.segmenter.categories, "sam2bmp", asdict(at), notes)


def note_sightings(book: TrackBook, id: int, sightings: Mapping[int, Sighting]) -> None:
    """Writes how an object was seen, by frame, into `book`."""
    for frame, sighting in sightings.items():
        book.note(id, frame, sighting)


def set_aside(found: Detections) -> Callable[[], Detections]:
    """What gives the detections that were `found` when they are used; until then, their masks take an eighth of their
    memory on a CPU. On other devices they stay as they are.
    """
    masks, (scores, labels) = found.masks, (found.scores, found.labels)
    if masks.device.type != "cpu":
        return lambda: found
    packed, width = pack_bits(masks), masks.shape[2]
    return lambda: Detections(unpack_bits(packed, width), scores, labels)


def get_frame_features(look: SegmentedFrame[F, Any]) -> F:
    """The features of a frame that is looked at."""
    return look.features


def explain_no_object(scores: ScoreSummary, settings: Sam2BmpSettings) -> str:
    """Why a result has no object, by the `scores` of all detections in the video.

    >>> explain_no_object(ScoreSummary().add(torch.tensor([0.2, 0.4]), 0.5), Sam2BmpSettings(conf=0.5))
    'no object: of 2 detections none scores above conf = 0.5; the best has 0.4: lower it, such as conf=0.2'
    """
    best = scores.best
    if not scores.count:
        return "no object: the segmenter found nothing in any frame; try another one, such as nano-objects"
    if not scores.sure:
        return (
            f"no object: of {scores.count} detections none scores above conf = {settings.conf:g}; the best has "
            f"{best:.2g}: lower it, such as conf={best / 2:.1g}"
        )
    sure = f"no object: {scores.sure} of {scores.count} detections score above conf = {settings.conf:g}"
    if settings.confirm > 1:
        return (
            f"{sure}, but nothing was found in {settings.confirm} of {2 * settings.confirm - 1} frames, or in at least "
            f"key_ratio = {settings.key_ratio:g} of those in which it was tracked; lower confirm or key_ratio"
        )
    return (
        f"{sure}, but in fewer than key_ratio = {settings.key_ratio:g} of the frames in which their objects were "
        "tracked; lower key_ratio"
    )


def follow_detections(
    belief: Prediction, own: Bool[Tensor, "n h w"], sure: Detections, links: Matching
) -> list[ObjectInFrame]:
    """SAM2BMP eq. 3: of the objects in `belief`, one that `links` pair with a detection in `sure` takes the detected
    mask, an unmatched one its propagated mask, its row of `own`.
    """
    best = belief.best
    seen = []
    partner = dict(links.pairs)
    for row, id in enumerate(belief.ids):
        presence = float(best.presence[row, 0])
        if row in partner:
            c = partner[row]
            score, label = float(sure.scores[c]), int(sure.labels[c])
            seen.append(ObjectInFrame(id, sure.masks[c], Source.DETECTED, score, label, presence))
        else:
            seen.append(ObjectInFrame(id, own[row], Source.FORWARD, float(best.quality[row, 0]), -1, presence))
    return seen


def find_nameless(categories: Sequence[str]) -> int | None:
    """The label of what was found without a name, where others have names.

    >>> find_nameless(("dog", "object")), find_nameless(("object",))
    (1, None)
    """
    return categories.index(NAMELESS) if NAMELESS in categories and len(categories) > 1 else None


def update_tally(tally: ObjectTally, seen: Sighting) -> ObjectTally:
    """The tally after one more frame."""
    shown = seen.mask.area > 0
    votes, masks = dict(tally.votes), tally.masks + int(shown)
    if seen.source is Source.DETECTED:
        votes[seen.label] = votes.get(seen.label, 0.0) + seen.score
        return ObjectTally(0, votes, masks, tally.keys + 1, 0)
    return ObjectTally(count_lost(tally.lost, shown), votes, masks, tally.keys, tally.unvouched + 1)
