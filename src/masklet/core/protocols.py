"""The seams. A memory is a value: the caller holds it, passes it in, gets the next one back.

Copying a memory is free, dropping one is forgetting, saving one is resuming. None knows a frame's index, so
going backward in time needs no flag. `predict` and `segment` read, `commit` and `prompt` write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.alignment import TrackedSlots
from masklet.core.checkpoint import Checkpoints
from masklet.core.frames import Frame, Video
from masklet.core.instances import Detections, FrameMasks, Prediction, Prompt
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.core.slots import FrameSlots

F = TypeVar("F")  # one frame's features
M = TypeVar("M")  # a memory
Seen = TypeVar("Seen", contravariant=True)  # one frame's features, where they are only taken


@runtime_checkable
class Segmenter(Protocol[M]):
    """Finds objects, frame by frame. One that looks at motion has a memory and a `look_ahead`."""

    categories: tuple[str, ...]
    look_ahead: int

    def empty(self) -> M:
        """The memory before the first frame."""
        ...

    def segment(self, memory: M, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], M]:
        """Detections for `frames`, which directly follow those the memory has seen; `future` (at most
        `look_ahead`, fewer at the end of the source) directly follow `frames` and are only looked at.
        The answer does not depend on how the frames are cut into calls.
        """
        ...


@runtime_checkable
class ScoringSegmenter(Segmenter[M], Protocol[M]):
    """A segmenter that knows which of its scores a system should take."""

    conf: float  # a detection above this is confident
    low_conf: float  # one below this is not worth a look


@runtime_checkable
class AdvisingSegmenter(Segmenter[M], Protocol[M]):
    """A segmenter that knows which settings beside those of its scores suit what it finds."""

    advice: Mapping[str, Any]  # by the setting's name; taken where a system has it and the user said nothing


@runtime_checkable
class DescribedPart(Protocol):
    """A part that says what it is called in a result's provenance."""

    description: str


@runtime_checkable
class WeightedPart(Protocol):
    """A part that says which weights it computes with."""

    weights: Mapping[str, str]  # sha256 by name


@runtime_checkable
class PlacedPart(Protocol):
    """A part that says where it computes."""

    device: torch.device | str


@runtime_checkable
class BatchingPart(Protocol):
    """A part that says how much goes through its network together. Less needs less memory, and answers the same."""

    at_once: int


@runtime_checkable
class EncodingPart(Protocol):
    """A part that looks at frames through an encoder, whose weights and device are then its own."""

    encoder: Any


@runtime_checkable
class NotingPart(Protocol):
    """A part with something to say in the results that it had a part in."""

    notes: Sequence[str]


@runtime_checkable
class SelectiveSegmenter(Segmenter[M], Protocol[M]):
    """A segmenter that knows what its detections score before it draws their masks at the frame's size."""

    def segment_above(
        self, memory: M, frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], M]:
        """As `segment`, but what scores less than `least` need not be drawn: of that there are the scores alone
        (`Detections.left_out`).
        """
        ...


@runtime_checkable
class RegionSegmenter(Protocol):
    """A segmenter that knows about where its detections are before it draws their masks."""

    def segment_region(self, frame: Frame, region: Bool[Tensor, "h w"], least: float) -> Detections:
        """What is in a `frame` by itself and scores `least` or more. Of what has no pixel in the `region`, some or all
        may be left out.
        """
        ...


@runtime_checkable
class OutsideSegmenter(Protocol):
    """A segmenter that can look where nothing is known only, as a grid of points can leave out what is tracked."""

    def segment_outside(self, frame: Frame, known: Bool[Tensor, "h w"]) -> Detections:
        """What is in a `frame` by itself, asked for at pixels that are not `known`; it may reach into these."""
        ...


@runtime_checkable
class SoftSegmenter(Protocol):
    """A segmenter that knows how likely each pixel is, of objects that are the same in all frames."""

    def read_soft_masks(self, frame: int, size: tuple[int, int]) -> tuple[Float[Tensor, "n h w"], float | None]:
        """Each object's probabilities in a `frame` of `size` (h, w), and how certain they are; None: nobody knows."""
        ...


@runtime_checkable
class VideoBound(Protocol):
    """A part, or what holds one, that must know which video it is asked about."""

    def bind_video(self, video: Video) -> Any:
        """The same for one video. Raises InputError where it has nothing to do with it."""
        ...


@runtime_checkable
class Propagator(Protocol[F, M]):
    """Carries given masks through time (affinity, SAM 2, XMem, and SAM2Long's tree over any of them)."""

    def encode(self, frames: Sequence[Frame]) -> list[F]:
        """The features of each frame: the expensive part, once for both directions and all objects."""
        ...

    def empty(self) -> M:
        """The memory of no object."""
        ...

    def predict(self, memory: M, features: F) -> Prediction:
        """Where every remembered object is in this frame."""
        ...

    def commit(self, memory: M, features: F, belief: Prediction) -> M:
        """Ends a frame: the next `memory`, which remembers the `belief` about the frame with these `features`. Called
        once a frame, maybe with no rows.
        """
        ...

    def prompt(self, memory: M, features: F, prompts: Mapping[int, Prompt]) -> tuple[M, Prediction]:
        """Remembers in `memory` what someone outside says of the frame with these `features` (called after its
        `commit`): `prompts` by id. Returns the next memory, and the masks made of the prompts. An id's first prompt is
        an anchor, never evicted; later ones stand in for a belief.
        """
        ...

    def forget(self, memory: M, ids: Iterable[int]) -> M:
        """The memory without these objects."""
        ...

    def branch(self, memory: M, origins: Mapping[int, int]) -> M:
        """The memory of the objects {new id: old id} alone. One old id may live on under several new ones: hypotheses
        of one object, which do not contend with each other.
        """
        ...


@runtime_checkable
class PreparingPropagator(Protocol[Seen]):
    """A propagator that can do a part of `predict` and `commit` without the memory, ahead of them on another thread."""

    def prepare(self, features: Seen) -> None:
        """Computes what will be asked of the frame with these `features`, which most likely follows the frame that was
        prepared last. What was not prepared is computed when it is asked for.
        """
        ...


@runtime_checkable
class BatchingPropagator(Protocol):
    """A propagator that is quicker at several frames than at one after the other."""

    encode_at_once: int  # frames


@runtime_checkable
class SizedPropagator(Protocol):
    """A propagator that says what one more object takes."""

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes each object takes while frames of `size` (h, w) are propagated, at the most."""
        ...


@runtime_checkable
class ContendingPropagator(Protocol):
    """A propagator that says whether its objects contend for pixels, so that each keeps others from swallowing it."""

    contends: bool


@runtime_checkable
class MaskCarrier(Protocol[Seen]):
    """A propagator that has a cheaper way to see where one frame's masks are in another (DEVA 3.2.1)."""

    def carry(self, masks: Mapping[int, Tensor], source: Seen, target: Seen) -> Prediction:
        """Where `masks` (by id, bool [h w]) of the frame with features `source` are in the frame with features
        `target`: as `prompt` on an empty memory in `source`, and `predict` in `target`.
        """
        ...


@runtime_checkable
class SlotSegmenter(Protocol):
    """Looks at frames with learnt queries (Mask2Former): one slot for each, in an order that means nothing."""

    categories: tuple[str, ...]

    def slots(self, frames: Sequence[Frame]) -> FrameSlots:
        """The slots of frames of one size, which need not follow each other. How they are cut into calls changes
        the answer by rounding at most.
        """
        ...


@runtime_checkable
class SlotTracker(Protocol[M]):
    """Says who the slots of a frame are (MinVIS's matching, DVIS's referring tracker)."""

    def follow(self, memory: M | None, slots: FrameSlots) -> tuple[TrackedSlots, M]:
        """The tracks in the next frame (slots of t = 1); a memory of None begins a video."""
        ...

    def dense(self, slots: FrameSlots) -> Float[Tensor, "t d h w"]:
        """The large part of frames that `masks` needs, and nothing else does."""
        ...

    def masks(self, tracked: TrackedSlots, dense: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of tracks in one frame, of which `dense` is the large part; > 0: inside."""
        ...


@runtime_checkable
class SlotModel(Protocol[F, M]):
    """Finds and follows objects with one set of queries that lives through the video (RoCoVIS, GenVIS): slot n is the
    same object in every frame.
    """

    categories: tuple[str, ...]

    def encode(self, frames: Sequence[Frame]) -> list[F]:
        """The features of each of some frames of one size, for which no memory is needed."""
        ...

    def empty(self) -> M:
        """The memory before the first frame."""
        ...

    def predict(self, memory: M, features: F) -> FrameSlots:
        """The slots in this frame (t = 1)."""
        ...

    def trust(self, slots: FrameSlots) -> Float[Tensor, "t n"]:
        """How far each query may speak for an object where nobody knows the truth; in training it is 1 for the queries
        that are an object, 0 for others.
        """
        ...

    def commit(self, memory: M, features: F, slots: FrameSlots, trust: Float[Tensor, "t n"]) -> M:
        """Ends a frame: the next `memory`, which remembers the `slots` that were predicted of the frame with these
        `features`, each query as far as its `trust` (0 to 1) goes. Called once a frame.
        """
        ...

    def decode(self, queries: Float[Tensor, "n c"], pixels: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of some queries of a frame in its `pixel_features`; > 0: inside."""
        ...


@runtime_checkable
class LiveSystem(Protocol):
    """Answers while frames arrive, in bounded memory."""

    def stream(self, frames: Iterable[Frame]) -> Iterator[FrameMasks]: ...


@runtime_checkable
class VideoSystem(Protocol):
    """Answers when the whole video has been read."""

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult: ...


@runtime_checkable
class ResumableSystem(VideoSystem, Protocol):
    """A system whose state is a value at any frame, so that a run that was ended goes on with the equal result."""

    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`; saves to `checkpoints` where one is due, and goes on from what is saved there."""
        ...
