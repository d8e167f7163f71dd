"""DEVA's offline protocol (Cheng et al. 2023, 3.3, 4.3): referring and salient objects, one mask each per video.

A few frames of the whole video are segmented. Their masks are carried to the most certain of them, the key frame, and
averaged there; the average is propagated to both ends of the video. Which objects there are is known from the start, so
there is nothing to select and nothing to merge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Video, iterate_windows_backward
from masklet.core.instances import Detections
from masklet.core.masks import resize_bilinear
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator, Segmenter, SoftSegmenter
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source, TrackBook
from masklet.systems.common import build_video_result, encode_frames, prepare_ahead
from masklet.systems.filters import name_masklet
from masklet.systems.sweep import note_prediction

F = TypeVar("F")
Looks = TypeVar("Looks", contravariant=True)
M = TypeVar("M")
S = TypeVar("S")

CERTAIN = 0.8  # without scores, the key frame is the one with the most pixels above it
SHARPNESS = 2.0  # of the weights: softmax(SHARPNESS * score)
WINDOW = 16  # frames that are read at once


@dataclass(frozen=True)
class Sketch:
    """What an image model says of one frame. Object n is the same in all frames."""

    masks: Float[Tensor, "n h w"]  # 0 to 1
    score: float | None  # how certain it is of this frame
    labels: tuple[int, ...] = ()  # of the objects; none: all are of the first category


Sketcher = Callable[[Video, Sequence[int], Watch], Mapping[int, Sketch]]


@runtime_checkable
class SoftMaskPropagator(Protocol[Looks, M]):
    """A propagator that can begin with masks that are not sure; others begin with each pixel's likeliest."""

    def prompt_soft(self, memory: M, features: Looks, masks: Mapping[int, Float[Tensor, "h w"]]) -> M:
        """The next `memory`, which holds the probabilities `masks` (by id, 0 to 1) as those of the frame with these
        `features`.
        """
        ...


@dataclass(frozen=True)
class DevaOfflineSettings:
    """The paper's number, and one open point."""

    frames: int = 10  # that are segmented: fewer in a shorter video
    lost: Literal["abstains", "denies"] = "abstains"  # what a frame says of an object that is not found in the key
    # frame, or that it does not show: nothing, or (as released) that it is not there

    def __post_init__(self) -> None:
        if not self.frames:
            raise InputError("frames = 0: at least one frame must be segmented")


@dataclass(frozen=True)
class DevaOffline(Generic[F, M]):
    """The system. Its answer for any frame depends on the whole video, so there is no `stream`."""

    segmenter: Sketcher
    propagator: Propagator[F, M]
    categories: tuple[str, ...] = ("object",)
    settings: DevaOfflineSettings = DevaOfflineSettings()

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """One masklet for each object."""
        length = sum(1 for _ in video)  # a damaged file has fewer frames than it says
        at = sample_video_frames(length, self.settings.frames)
        sketches = {t: s for t, s in self.segmenter(video, at, watch).items() if len(s.masks)}
        masklets: tuple[Masklet, ...] = ()
        notes = []
        if sketches:
            key = choose_key_frame(sketches)
            average = self.average(video, key, sketches)
            masklets = self.propagated(video, key, average, sketches[key].labels, watch)
        else:
            notes.append(f"nothing was found in {len(at)} frames ({', '.join(map(str, at))}); more `frames` may help")
        return build_video_result(video, masklets, self.categories, "deva-offline", asdict(self.settings), notes)

    def average(self, video: Video, key: int, sketches: Mapping[int, Sketch]) -> Float[Tensor, "n h w"]:
        """The masks of all `sketches` (by frame) of `video`, carried to the `key` frame and averaged by weight, 0 to 1.
        The key frame's own are not propagated.
        """
        [target] = self.propagator.encode(video.read(key, key + 1))
        share = dict(zip(sketches, weigh_frames([s.score for s in sketches.values()]).tolist(), strict=True))
        total, votes = share[key] * sketches[key].masks, torch.full((len(sketches[key].masks),), share[key])
        for t, sketch in sketches.items():
            if t != key:
                [source] = self.propagator.encode(video.read(t, t + 1))
                masks, found = self.carried(sketch.masks, source, target)
                says = share[t] * (found | (self.settings.lost == "denies"))
                total, votes = total + says[:, None, None] * masks, votes + says
        average: Tensor = total / votes[:, None, None]
        return average

    def carried(
        self, masks: Float[Tensor, "n h w"], source: F, target: F
    ) -> tuple[Float[Tensor, "n h w"], Bool[Tensor, " n"]]:
        """Where `masks` (0 to 1) of the frame with features `source` are in the frame with features `target`, by a
        memory of this one frame, and which are found there.
        """
        belief = self.propagator.predict(self.remembered(masks, source), target)
        rows = [id - 1 for id in belief.ids]
        moved, found = torch.zeros_like(masks), torch.zeros(len(masks), dtype=torch.bool)
        found[rows] = (belief.best.presence[:, 0] > 0).to(found.device)
        moved[rows] = resize_bilinear(belief.best.logits[:, 0].sigmoid(), (masks.shape[1], masks.shape[2])).to(masks)
        return moved, found

    def remembered(self, masks: Float[Tensor, "n h w"], features: F) -> M:
        """The memory of these masks alone; their ids count from 1."""
        empty = self.propagator.empty()
        if isinstance(self.propagator, SoftMaskPropagator):
            soft: M = self.propagator.prompt_soft(empty, features, dict(enumerate(masks, start=1)))
            return soft
        sure = {id: mask for id, mask in enumerate(pick_likeliest_object(masks), start=1) if mask.any()}
        return self.propagator.prompt(empty, features, sure)[0] if sure else empty

    def propagated(
        self, video: Video, key: int, masks: Float[Tensor, "n h w"], labels: Sequence[int], watch: Watch
    ) -> tuple[Masklet, ...]:
        """Carries the average `masks` (0 to 1) back from the `key` frame to the first of `video` and on to the last,
        each way with a memory that begins with them. `labels` are the objects' categories (none: all are of the first);
        `watch` is called after every frame.
        """
        book, [first] = TrackBook(), video.read(key, key + 1)
        for label, mask, soft in zip(labels or [0] * len(masks), pick_likeliest_object(masks), masks, strict=True):
            seen = Sighting(
                Rle.encode(mask), Source.DETECTED, measure_sketch_certainty(mask, soft), label, presence=1.0
            )
            book.note(len(book.pages) + 1, key, seen)
        start, done = self.remembered(normalize_soft_masks(masks), self.propagator.encode([first])[0]), 1
        back = (
            f for part in iterate_windows_backward(0, key, WINDOW) for f in reversed(video.read(part.start, part.stop))
        )
        ahead = (f for t in range(key + 1, len(video), WINDOW) for f in video.read(t, min(t + WINDOW, len(video))))
        for source, frames in ((Source.BACKWARD, back), (Source.FORWARD, ahead)):
            memory = start
            encoded = encode_frames(self.propagator, frames)
            for frame, features in prepare_ahead(self.propagator, encoded, itemgetter(1)):
                belief = self.propagator.predict(memory, features)
                memory = self.propagator.commit(memory, features, belief)
                note_prediction(book, frame.index, belief, frame.size, source)
                done += 1
                watch(source.value, done, len(video), len(masks))
            book.settle()
        return tuple(name_masklet(m) for m in book.masklets())


def sample_video_frames(length: int, most: int) -> tuple[int, ...]:
    """Frames in the middle of equal parts of a video.

    >>> sample_video_frames(100, 4)
    (12, 37, 62, 87)
    """
    m = min(most, length)
    return tuple(i * length // m + length // (2 * m) for i in range(m))


def choose_key_frame(sketches: Mapping[int, Sketch]) -> int:
    """The most certain frame: of highest score, or without scores the one with the most certain pixels; the first."""
    if any(s.score is None for s in sketches.values()):
        return max(sketches, key=lambda t: float((sketches[t].masks > CERTAIN).float().mean()))
    return max(sketches, key=lambda t: sketches[t].score or 0.0)


def weigh_frames(scores: Sequence[float | None]) -> Float64[Tensor, " m"]:
    """What each frame's masks count in the average; all the same where there are no scores."""
    known = [0.0 if None in scores else SHARPNESS * (score or 0.0) for score in scores]
    return torch.tensor(known, dtype=torch.float64).softmax(0)


def normalize_soft_masks(masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Probabilities that sum to at most 1: each object's odds out of all, and of those that nothing is there."""
    p = torch.cat([(1 - masks).prod(0, keepdim=True), masks]).clamp(1e-7, 1 - 1e-7)
    odds = p / (1 - p)
    shares: Tensor = odds[1:] / odds.sum(0)
    return shares


def pick_likeliest_object(masks: Float[Tensor, "n h w"]) -> Bool[Tensor, "n h w"]:
    """Each pixel's likeliest object, or none: nothing is there with the probability that no object is."""
    nothing = (1 - masks).prod(0, keepdim=True)
    winner = torch.cat([nothing, masks]).argmax(0)
    return winner == torch.arange(1, len(masks) + 1)[:, None, None]


def measure_sketch_certainty(mask: Bool[Tensor, "h w"], soft: Float[Tensor, "h w"]) -> float:
    """Mean probability within a mask."""
    return float(soft[mask].mean()) if mask.any() else 0.0


@dataclass(frozen=True)
class DetectedSketches(Generic[S]):
    """Sketches from a segmenter: of every category the best detection, the frame's score being their mean."""

    segmenter: Segmenter[S]

    def __call__(self, video: Video, at: Sequence[int], watch: Watch) -> dict[int, Sketch]:
        """Every frame by itself. Objects are the categories that are found at all; a frame without any is left out."""
        found: dict[int, Detections] = {}
        for n, t in enumerate(at, start=1):
            found[t] = self.best(video, t)
            watch("segment", n, len(at), len(found[t]))
        labels = tuple(sorted({label for best in found.values() for label in best.labels.tolist()}))
        return {t: build_sketch(best, labels) for t, best in found.items() if len(best)}

    def best(self, video: Video, t: int) -> Detections:
        """One frame's best detection of each category."""
        frame, *future = video.read(t, min(t + 1 + self.segmenter.look_ahead, len(video)))
        [found], _ = self.segmenter.segment(self.segmenter.empty(), [frame], future)
        return found[list({int(found.labels[row]): row for row in found.scores.argsort().tolist()}.values())]


@dataclass(frozen=True)
class SoftSketches:
    """Sketches of soft masks."""

    segmenter: SoftSegmenter

    def __call__(self, video: Video, at: Sequence[int], watch: Watch) -> dict[int, Sketch]:
        """Every frame's soft masks; a frame in which nothing is likely is left out."""
        found: dict[int, Sketch] = {}
        for n, t in enumerate(at, start=1):
            masks, score = self.segmenter.read_soft_masks(t, video.size)
            if (masks > 0.5).any():
                found[t] = Sketch(masks, score)
            watch("segment", n, len(at), len(masks))
        return found


def build_sketch(found: Detections, labels: tuple[int, ...]) -> Sketch:
    """Detections in the order of the labels; what was not found is empty, and scores 0."""
    masks = torch.zeros(len(labels), *found.masks.shape[1:])
    masks[[labels.index(label) for label in found.labels.tolist()]] = found.masks.float()
    return Sketch(masks, float(found.scores.sum()) / len(labels), labels)


def build_deva_offline(
    segmenter: Segmenter[Any], propagator: Propagator[F, M], settings: DevaOfflineSettings
) -> DevaOffline[F, M]:
    """DEVA's offline protocol over a segmenter's best detections of each category.

    Args:
        segmenter: finds them; one of soft masks gives these.
        propagator: carries their masks.
        settings: of the system.
    """
    categories = segmenter.categories
    sketcher: Sketcher = DetectedSketches(segmenter)
    if isinstance(segmenter, SoftSegmenter):
        sketcher = SoftSketches(segmenter)
    return DevaOffline(sketcher, propagator, categories, settings)
