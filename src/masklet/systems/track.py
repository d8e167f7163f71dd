"""Prompted objects, propagated both ways from the frames in which they were given (semi-supervised VOS)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, TypeVar

import torch
from torch import Tensor

from masklet.core.checkpoint import Checkpoints
from masklet.core.errors import InputError
from masklet.core.features import FeatureStore
from masklet.core.frames import Frame, Video, iterate_frames_from, read_through
from masklet.core.instances import Clicks, FrameMasks, Prediction, Prompt
from masklet.core.masks import stack_masks
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator
from masklet.core.result import VideoResult
from masklet.core.tracks import Source, TrackBook
from masklet.systems.bystanders import BystanderFinder, count_asked, is_bystander
from masklet.systems.common import build_video_result, describe_lost_objects, encode_batches, prepare_ahead
from masklet.systems.filters import name_masklet
from masklet.systems.sweep import BACKWARD, FORWARD, complete_backward, note_prediction

F = TypeVar("F")
M = TypeVar("M")

Prompts = Mapping[int, Mapping[int, Prompt]]  # frame: id: mask, box or point


@dataclass(frozen=True)
class Track(Generic[F, M]):
    """Forward from each prompt, corrected by later prompts of the same object; back from the first.

    Attributes:
        propagator: any.
        prompts: of the objects.
        bystanders: finds what stands beside prompted objects, for a propagator whose objects contend for pixels.
    """

    propagator: Propagator[F, M]
    prompts: Prompts
    bystanders: BystanderFinder | None = None

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """One masklet per prompted id, under that id."""
        return self.run_with_checkpoints(video, watch, Checkpoints())

    def run_with_checkpoints(self, video: Video, watch: Watch, checkpoints: Checkpoints) -> VideoResult:
        """As `run`, from the last of the `checkpoints` on."""
        book = checkpoints.open_book()
        with FeatureStore[F]() as store:
            if checkpoints.saved and checkpoints.saved.phase == BACKWARD:
                read_through(video)
            else:
                self.forward(video, book, store, watch, checkpoints)
            missed = sorted(t for t in self.prompts if t >= len(video))
            if missed and len(missed) == len(self.prompts):
                raise InputError(f"{video.name}: prompt in frame {missed[0]}, but {describe_frame_range(video)}")
            complete_backward(self.propagator, video, book, store, None, watch, checkpoints=checkpoints)
        book.drop([id for id in book.pages if is_bystander(id)])
        notes = [f"the prompt in frame {t} was not used: {describe_frame_range(video)}" for t in missed]
        notes += [f"object {i}: nothing was made of its prompt; mark more of it" for i in self.empty_handed(book)]
        masklets = tuple(sorted((name_masklet(m) for m in book.masklets()), key=lambda m: m.id))
        notes += describe_lost_objects(masklets, len(video))
        settings = {"prompts": describe_prompts(self.prompts)}
        return build_video_result(video, masklets, ("object",), "track", settings, notes)

    def count_objects(self) -> int:
        """How many objects are prompted."""
        return len({id for told in self.prompts.values() for id in told})

    def empty_handed(self, book: TrackBook) -> list[int]:
        """Prompted objects without a mask in any frame (an object that was never reached has no page)."""
        return sorted(id for id, page in book.pages.items() if not page)

    def forward(
        self, video: Video, book: TrackBook, store: FeatureStore[F], watch: Watch, checkpoints: Checkpoints
    ) -> None:
        """Propagates every object from its first prompt to the end of `video`, from the last of the `checkpoints` on,
        and writes it into `book`; features are kept in `store` for the way back, and `watch` is called after every
        frame.
        """
        saved = checkpoints.saved
        memory: M = saved.state if saved else self.propagator.empty()
        frames = iterate_frames_from(video, saved.frame if saved else 0)
        encoded, last = encode_batches(self.propagator, frames), max(self.prompts, default=-1)
        for frame, features in prepare_ahead(self.propagator, encoded, itemgetter(1)):
            if frame.index <= last:  # no object begins later: the way back begins there
                store.keep(frame.index, features)
            memory, belief, answer = self.step(memory, frame, features, book)
            watch(FORWARD, frame.index + 1, len(video) or None, count_asked((*belief.ids, *answer.ids)))
            memory = self.add_bystanders(memory, features, frame, belief, answer, book)  # nobody waits for these
            checkpoints.count_frame()
            if checkpoints.is_due:
                checkpoints.save(FORWARD, frame.index + 1, memory)
        book.settle()

    def step(self, memory: M, frame: Frame, features: F, book: TrackBook) -> tuple[M, Prediction, Prediction]:
        """One `frame`, with `features`: propagates what is in `memory`, takes the prompts for it, and writes into
        `book`. Returns the next memory, what was propagated, and what was prompted.
        """
        told = {id: normalize_prompt(prompt) for id, prompt in self.prompts.get(frame.index, {}).items()}
        belief = self.propagator.predict(memory, features)
        replaced = {id for id, prompt in told.items() if isinstance(prompt, Tensor)}  # clicks correct what is there
        belief = belief.only([r for r, id in enumerate(belief.ids) if id not in replaced])
        memory = self.propagator.commit(memory, features, belief)
        belief = belief.only([r for r, id in enumerate(belief.ids) if id not in told])
        note_prediction(book, frame.index, belief, frame.size, Source.FORWARD)
        if not told:
            return memory, belief, belief.only([])
        memory, answer = self.propagator.prompt(memory, features, told)
        note_prediction(book, frame.index, answer, frame.size, Source.PROMPTED)
        return memory, belief, answer

    def stream(self, frames: Iterable[Frame]) -> Iterator[FrameMasks]:
        """Every frame's objects as soon as it is there, from their prompts on; what was before them is not looked at
        again.
        """
        memory, known = self.propagator.empty(), set[int]()
        for frame in frames:
            book = TrackBook({id: {} for id in known if is_bystander(id)})  # of this frame alone: there is no end
            [features] = self.propagator.encode([frame])
            memory, belief, answer = self.step(memory, frame, features, book)
            yield collect_noted_masks(book, frame)
            memory = self.add_bystanders(memory, features, frame, belief, answer, book)
            known = set(book.pages)

    def add_bystanders(
        self, memory: M, features: F, frame: Frame, belief: Prediction, answer: Prediction, book: TrackBook
    ) -> M:
        """Tracks what is beside the objects that were prompted in `frame`, if any were; no longer what is prompted now.
        Returns the next `memory`; `features` are the frame's, `belief` and `answer` what was propagated and prompted
        there, and `book` takes the bystanders' sightings.
        """
        if self.bystanders is None or not answer.ids:
            return memory
        there, asked = belief.masks(frame.size), answer.masks(frame.size)
        claims = zip(belief.ids, self.bystanders.tell_asked(there, asked).tolist(), strict=True)
        memory = self.propagator.forget(memory, [id for id, claimed in claims if claimed and is_bystander(id)])
        found = self.bystanders.find(frame, asked, torch.cat([there, asked]).any(0))
        lowest = min((id for id in book.pages if is_bystander(id)), default=0)
        new = {lowest - 1 - n: mask for n, mask in enumerate(found)}
        if new:
            memory, given = self.propagator.prompt(memory, features, new)
            note_prediction(book, frame.index, given, frame.size, Source.PROMPTED)
        return memory


def collect_noted_masks(book: TrackBook, frame: Frame) -> FrameMasks:
    """What `book` has of one `frame`, but for bystanders, by id."""
    pages = sorted((id, page) for id, page in book.pages.items() if frame.index in page and not is_bystander(id))
    seen = [(id, page[frame.index]) for id, page in pages]
    return FrameMasks(
        frame.index,
        tuple(id for id, _ in seen),
        stack_masks([s.mask.decode() for _, s in seen], frame.size),
        torch.tensor([s.score for _, s in seen]),
        torch.zeros(len(seen), dtype=torch.int64),
    )


def describe_frame_range(video: Video) -> str:
    """How many frames there are to put prompts on, in words."""
    return f"{video.name} has {len(video)} frames (0 to {len(video) - 1})"


def normalize_prompt(prompt: Prompt) -> Tensor | Clicks:
    """A mask that is believed as it is, or clicks."""
    return prompt if isinstance(prompt, Tensor) else Clicks.of(prompt)


def describe_prompts(prompts: Prompts) -> list[str]:
    """The prompts in a form that fits into the result's provenance."""
    return [f"{t}:{i}:{describe_one_prompt(p)}" for t, told in sorted(prompts.items()) for i, p in told.items()]


def describe_one_prompt(prompt: Prompt) -> str:
    """A prompt without the pixels of its mask."""
    if isinstance(prompt, Tensor):
        return "mask"
    if isinstance(prompt, Clicks):
        return " ".join(["mask"] * (prompt.mask is not None) + [str(p) for p in (prompt.box, *prompt.points) if p])
    return str(prompt)
