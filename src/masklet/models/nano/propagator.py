"""Propagator `nano`: SAM 2 at nano size, which corrects what the training-free propagation expects.

Memory attention, memory encoder, three hypotheses with predicted IoU, object score and object pointers are SAM 2's,
all of it runs in `Sam2Core`. What is added is the guess: in every frame `Affinity` says where each object is, by
appearance, colour and optical flow; that goes to the mask decoder as a mask prompt, and the decoder's answer is added
to it. What was believed in the end is what both remember.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

from masklet.core.ahead import start_beside
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Prediction, Prompt
from masklet.models.affinity import NOWHERE, Affinity, AffinityMemory, resolve_prompts, return_freed_memory_of_many
from masklet.models.encoder import Encoder, EncoderFeatures, compute_working_size
from masklet.models.nano.image_predictor import ImagePredictor, load_image_predictor, load_quick_redrawer
from masklet.models.nano.network import HIDDEN, NanoNetwork, read_nano
from masklet.models.sam2.banks import commit_best, prompt_banks
from masklet.models.sam2.core import Sam2Core, Sam2Features, wrap_inference
from masklet.models.sam2.memory import MemoryBank, MemoryPolicy, MemoryReading, RecentFrames, Sam2Memory, shift_time
from masklet.nn.half_weights import halve_weights, has_bfloat16_matrices
from masklet.nn.parallel import iterate_row_groups
from masklet.nn.parts import detached_components
from masklet.nn.propagation import find_mask_window
from masklet.weights.store import ZOO, compute_hash, verify_packaged

PACKAGED = "nano-propagator"  # in the zoo
HYPOTHESES = 3
BYTES = 8  # of each hypothesis and its copy, for a pixel of the working image
BANK = 2**20  # bytes of each object's memories
TOGETHER = (4, 2, 1)  # objects that go through the networks at once on a CPU
TURNS = 8  # objects of many that are redrawn and learnt in one frame
REDRAWN = 32  # objects whose masks are given to the image predictor at once, which sorts them by size


class NanoCore(Sam2Core):
    """SAM 2's core, which attends to memories, encodes them and reads guesses in bfloat16 on a CPU that multiplies
    matrices of it: with AMX in three fifths of the time. Memories are kept in it anyway.
    """

    def __init__(self, net: NanoNetwork, *, gradients: bool = False) -> None:
        """Arguments as `Sam2Core` has them; the `net` is not changed."""
        at_home = net.no_memory_embedding.device.type == "cpu"
        self.halves = at_home and not gradients and has_bfloat16_matrices()
        super().__init__(copy_with_halves(net) if self.halves else net, gradients=gradients, cpu_batches=TOGETHER)

    def attend(
        self, features: Sam2Features, look: Float[Tensor, "1 p c"], readings: Sequence[MemoryReading]
    ) -> Float[Tensor, "b c h w"]:
        """As `Sam2Core.attend`."""
        with self._compute_in_halves():
            return super().attend(features, look, readings).to(self.dtype)

    def embed_reading(self, reading: MemoryReading) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """As `Sam2Core.embed_reading`, in bfloat16 at once where every layer would make it so."""
        keys, values = super().embed_reading(reading)
        return (keys.bfloat16(), values.bfloat16()) if self.halves else (keys, values)

    def look_around(self, features: Sam2Features) -> Float[Tensor, "1 p c"]:
        """As `Sam2Core.look_around`."""
        with self._compute_in_halves():
            return super().look_around(features)

    def encode_frame_memories(self, features: Sam2Features, answer: Prediction, binary: bool) -> Float[Tensor, "b p d"]:
        """As `Sam2Core.encode_frame_memories`."""
        with self._compute_in_halves():
            return super().encode_frame_memories(features, answer, binary)

    def read_guesses(
        self, guesses: Float[Tensor, "b 1 h4 w4"]
    ) -> tuple[Float[Tensor, "b e h4 w4"], Float[Tensor, "b d h2 w2"]]:
        """What the guesses add to the decoder's finer maps, for each object (`MaskHints`)."""
        with self._compute_in_halves():
            fine, medium = self.net.hints(guesses)
        return fine.contiguous(), medium.contiguous()  # as the maps are to which they are added

    def _compute_in_halves(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self.halves else nullcontext()


def copy_with_halves(net: NanoNetwork) -> NanoNetwork:
    """A copy of the `net` whose memory attention, memory encoder and hints have their weights in bfloat16, in the order
    in which a CPU convolves soonest.
    """
    net = copy.deepcopy(net)
    for part in (net.memory_attention, net.memory_encoder, net.hints):
        halve_weights(part)
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


@dataclass(frozen=True, eq=False)
class NanoFeatures(Sam2Features):
    """One frame as SAM 2 at nano size sees it."""

    seen: EncoderFeatures  # as the encoder gave them to whoever looks at the frame


@dataclass(frozen=True)
class NanoMemory(Sam2Memory):
    """The memory of all objects: SAM 2's, and that of the guesses."""

    guessed: AffinityMemory = field(kw_only=True)


class Nano:
    """A propagator with three hypotheses for each object. Logits are at the resolution of the encoder's image."""

    contends = True
    hypotheses: ClassVar[int] = HYPOTHESES  # of each object

    def __init__(
        self,
        net: Any,
        encoder: Encoder,
        policy: MemoryPolicy | None = None,
        *,
        weights: Mapping[str, str] | None = None,
        gradients: bool = False,
    ) -> None:
        """
        Args:
            net: of `create_nano` or `read_nano`; it is not changed.
            encoder: whose features are used, the same as the segmenter's so that a frame is encoded once.
            policy: what is read of the memory; None: `RecentFrames`.
            weights: sha256 of the network's file, by name.
            gradients: for training, as `Sam2` has it.
        """
        self.net, self.encoder, self.policy = net, encoder, policy or RecentFrames()
        self.core, self.guess = NanoCore(net, gradients=gradients), Affinity(encoder)
        self.device, self.half, self.gradients = self.core.device, self.core.half, gradients
        self.weights = {**encoder.weights, **(weights or {})}
        self._predictor = load_image_predictor(encoder.device)

    @property
    def description(self) -> str:
        """Names the propagator and its settings in one line, which is written into a result's provenance."""
        return f"nano, {self.encoder.short} px, {self.policy}"

    def renew(self) -> None:
        """Computes anew what depends on the weights alone, after they have changed."""
        self.core.renew()

    # -- the propagator

    @wrap_inference
    def encode(self, frames: Sequence[Frame]) -> list[NanoFeatures]:
        """The neck, over features that are shared with whoever has the same encoder."""
        return [self._encode_frame(frame) for frame in frames]

    def prepare(self, features: NanoFeatures) -> None:
        """Computes what the guesses will ask of the frame of these `features`."""
        self.guess.prepare(features.seen)

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes each object takes in frames of `size` (h, w): what its guess takes, hypotheses and their
        copies, and a bank of memories.
        """
        h, w = compute_working_size(size, self.encoder.short)
        return self.guess.count_object_bytes(size) + BYTES * self.hypotheses * h * w + BANK

    def empty(self) -> NanoMemory:
        """The memory of no object."""
        return NanoMemory(guessed=self.guess.empty())

    @wrap_inference
    def predict(self, memory: NanoMemory, features: NanoFeatures) -> Prediction:
        """Three hypotheses of every remembered object; tokens are the object pointers they would leave."""
        if not memory.banks:
            return make_empty_belief(features.seen)
        guessing = start_beside(partial(self._guesses, memory, features))  # memory attention needs no guess
        answers, guesses = self._correct_guesses(memory, features, guessing), guessing()
        if self.gradients:
            return self._draw_with_gradients(answers, guesses, memory.guessed)
        belief = self._draw(answers, guesses, memory.guessed)
        del guesses, guessing  # maps are large
        belief = self._redraw(belief, features.seen, self._choose_turn(memory))
        return_freed_memory_of_many(belief.ids)
        return belief

    @wrap_inference
    def commit(self, memory: NanoMemory, features: NanoFeatures, belief: Prediction) -> NanoMemory:
        """Ends a frame: the `memory` with each object's best hypothesis in the `belief`, from which the guesses start
        next. Where the frame of `features` does not go on as it should, nothing is learnt: only time goes on.
        """
        best = belief.best
        believed = replace(best, logits=best.logits.detach(), presence=best.presence.detach())
        turn = self._choose_turn(memory)
        with torch.no_grad():
            sound = self.guess.is_sound(memory.guessed, features.seen)
            guessed = start_beside(partial(self._learn_guesses, memory.guessed, features.seen, believed, turn))
        if not sound:
            return NanoMemory(shift_time(memory, 1).banks, guessed=guessed())
        banks = commit_best(self.core, self.policy, memory.banks, features, belief, turn)
        return NanoMemory({id: halve_answer(bank) for id, bank in banks.items()}, guessed=guessed())

    @wrap_inference
    def prompt(
        self, memory: NanoMemory, features: NanoFeatures, prompts: Mapping[int, Prompt]
    ) -> tuple[NanoMemory, Prediction]:
        """Makes the frame of `features` a conditioning frame in the `memory` of each object of `prompts`, {id: prompt}:
        a mask as it is, clicks and boxes as the image predictor draws them over what was believed before. Gives the new
        memory, and the masks at the frame's own size.
        """
        known = {id: bank.logits for id, bank in memory.banks.items() if bank.logits is not None}
        answers = resolve_prompts(prompts, features.seen, known, self.device)
        told: dict[int, Prompt] = {id: mask for id, (mask, _) in answers.items()}
        with torch.no_grad():
            guessed = self.guess.prompt(memory.guessed, features.seen, told)[0]
        banks, given = prompt_banks(self.core, self.policy, memory.banks, features, told)
        quality = torch.tensor([[quality] for _, quality in answers.values()])
        return NanoMemory(banks, guessed=guessed), replace(given, quality=quality.view(len(answers), 1))

    def forget(self, memory: NanoMemory, ids: Iterable[int]) -> NanoMemory:
        """The memory without these objects."""
        gone = set(ids)
        return self.branch(memory, {id: id for id in memory.banks if id not in gone})

    def branch(self, memory: NanoMemory, origins: Mapping[int, int]) -> NanoMemory:
        """The memory of the objects {new id: old id} alone."""
        banks = {new: memory.banks[old] for new, old in origins.items()}
        return NanoMemory(banks, guessed=self.guess.branch(memory.guessed, origins))

    def misled(self, memory: NanoMemory, features: NanoFeatures, masks: Mapping[int, Prompt]) -> NanoMemory:
        """The `memory` whose guesses, and nothing else, take these `masks` for what was in the frame of `features`; for
        training, where the network learns to correct wrong guesses.
        """
        with torch.no_grad():
            guessed, _ = self.guess.prompt(memory.guessed, features.seen, masks)
        return NanoMemory(memory.banks, guessed=guessed)

    def _choose_turn(self, memory: NanoMemory) -> Collection[int]:
        """Ids of the objects that are redrawn and learnt in the frame to come: all."""
        return memory.banks

    def _learn_guesses(
        self, guessed: AffinityMemory, seen: EncoderFeatures, believed: Prediction, turn: Collection[int]
    ) -> AffinityMemory:
        """The memory of the guesses after a frame. Whoever has a `turn` learns as much of the frame as of all of those
        since the turn before.
        """
        rate = 1 - (1 - self.guess.learning) ** (len(guessed.ids) / max(len(turn), 1))
        return self.guess.commit_some(guessed, seen, believed, turn, rate)

    # -- the networks

    def _redraw(self, belief: Prediction, seen: EncoderFeatures, turn: Collection[int]) -> Prediction:
        """The `belief` with the masks redrawn whose turn it is; where these are not all, as quickly as can be."""
        predictor = self._predictor if len(turn) == len(belief.ids) else load_quick_redrawer(self.encoder.device)
        return refine_best_masks(belief, seen, predictor, turn)

    def _encode_frame(self, frame: Frame) -> NanoFeatures:
        seen = self.encoder(frame)
        fine, medium, coarse = self.net.vision_encoder(seen, self.core.side)
        return NanoFeatures(fine[0], medium[0], coarse[0], frame.size, seen)

    def _guesses(self, memory: NanoMemory, features: NanoFeatures) -> dict[int, Float[Tensor, "h w"]]:
        """Where the training-free propagation expects each object."""
        with torch.no_grad():
            expected = self.guess.predict(memory.guessed, features.seen)
        return dict(zip(expected.ids, expected.logits[:, 0], strict=True))

    def _correct_guesses(
        self, memory: NanoMemory, features: NanoFeatures, guesses: Callable[[], Mapping[int, Float[Tensor, "h w"]]]
    ) -> Prediction:
        """What is to be added to the guess of every object in the light of what is remembered of it, at the decoder's
        resolution. `guesses` gives them when they are needed.
        """
        ids, look = tuple(memory.banks), self.core.look_around(features)

        readings = {id: self.policy.read(memory.banks[id]) for id in ids}

        def answer(group: list[int]) -> list[tuple[Tensor, ...]]:
            conditioned = self.core.attend(features, look, [readings[id] for id in group])
            expected = guesses()
            return self._correct_some(features, [expected[id] for id in group], conditioned)

        groups = self.core.group_readings(readings)
        answers = [row for rows in self.core.run_groups(answer, groups) for row in rows]
        found = dict(zip([id for group in groups for id in group], answers, strict=True))
        return self.core.stack_answers(ids, [found[id] for id in ids])

    def _correct_some(
        self, features: NanoFeatures, guesses: Sequence[Float[Tensor, "h w"]], conditioned: Float[Tensor, "b c y x"]
    ) -> list[tuple[Tensor, ...]]:
        """The decoder's answers to some objects' guesses: rows for `Sam2Core.stack_answers`."""
        square = (self.core.side // 4,) * 2
        small = nnf.interpolate(torch.stack(list(guesses))[:, None], square, mode="bilinear", antialias=True)
        small = small.to(self.device, self.core.dtype)
        sparse, dense, hints = self.core.unprompted[0], self.core.encode_masks(small), self.core.read_guesses(small)
        answer = self.core.decode(features, conditioned, sparse, dense, several=True, hints=hints)
        return list(zip(*answer, strict=True))

    def _draw(
        self, answers: Prediction, guesses: Mapping[int, Float[Tensor, "h w"]], guessed: AffinityMemory
    ) -> Prediction:
        """All hypotheses in `answers` added to the `guesses`, {id: logits}, without parts that are too far from these;
        `guessed` says how far apart an object's parts may be.
        """
        size = next(iter(guesses.values())).shape
        logits = torch.empty(*answers.quality.shape, *size)
        for row, hypotheses in enumerate(logits):
            for k, out in enumerate(hypotheses):
                out.copy_(self._draw_one(answers, row, k, guesses, guessed))
        return weigh_empty_hypotheses(replace(answers, logits=logits))

    def _draw_one(
        self,
        answers: Prediction,
        row: int,
        k: int,
        guesses: Mapping[int, Float[Tensor, "h w"]],
        guessed: AffinityMemory,
    ) -> Float[Tensor, "h w"]:
        """One hypothesis of one object, as `_draw` draws it."""
        id = answers.ids[row]
        guess, scattered = guesses[id].numpy(), float(guessed.scattered[guessed.ids.index(id)])
        large = cv2.resize(answers.logits[row, k].numpy(), guess.shape[::-1], interpolation=cv2.INTER_LINEAR)
        logits = np.asarray(large + np.float32(float(self.net.hints.gain)) * guess)
        box = find_mask_window(logits > 0, 0)
        logits[box][detached_components(logits[box], 1 / (1 + np.exp(-guess[box])), scattered)] = NOWHERE
        return torch.from_numpy(logits)

    def _draw_with_gradients(
        self, answers: Prediction, guesses: Mapping[int, Float[Tensor, "h w"]], guessed: AffinityMemory
    ) -> Prediction:
        """As `_draw`, for training: gradients flow, and a hypothesis may be empty."""
        stacked = torch.stack([guesses[id] for id in answers.ids])[:, None]
        logits = nnf.interpolate(answers.logits, stacked.shape[2:], mode="bilinear") + self.net.hints.gain * stacked
        away = torch.zeros_like(logits, dtype=torch.bool)
        for row, id in enumerate(answers.ids):
            scattered = float(guessed.scattered[guessed.ids.index(id)])
            for one, out in zip(logits.detach()[row], away[row], strict=True):
                box = find_mask_window((one > 0).numpy(), 0)
                before = guesses[id][box].sigmoid()
                out[box] = torch.from_numpy(detached_components(one[box].numpy(), before.numpy(), scattered))
        return replace(answers, logits=logits.masked_fill(away, NOWHERE))


class SingleNano(Nano):
    """The propagator with one hypothesis for each object, the best: of many objects all three take much memory, and the
    others are of use to those alone who follow several pathways.

    Of more than `TURNS` objects only so many are redrawn in a frame, have it encoded into their spatial memory and have
    their look learnt from it, in turns; so less is read of memories, too. All of them are looked for, decoded and leave
    object pointers in every frame.
    """

    hypotheses = 1

    def _choose_turn(self, memory: NanoMemory) -> Collection[int]:
        """Of many objects some in each frame, in turns, by the clock of the object that is known longest."""
        return choose_turn(list(memory.banks), max((bank.now for bank in memory.banks.values()), default=0), TURNS)

    def _draw(
        self, answers: Prediction, guesses: Mapping[int, Float[Tensor, "h w"]], guessed: AffinityMemory
    ) -> Prediction:
        """As with all hypotheses, of which then the best is taken; the others are drawn where they may be better."""
        best = answers.best
        logits = torch.empty(len(answers.ids), 1, *next(iter(guesses.values())).shape)  # large: there is no copy of it
        drawn = []
        for row in range(len(answers.ids)):
            one = best.only([row])
            out = self._draw_one(one, 0, 0, guesses, guessed)
            if not ((out > 0).any() and (-one.presence).sigmoid() <= one.quality):
                one = super()._draw(answers.only([row]), guesses, guessed).best
                out = one.logits[0, 0]
            logits[row, 0] = out
            drawn.append((one.quality, one.presence, one.tokens))
        return Prediction(answers.ids, logits, *(torch.cat(part) for part in zip(*drawn, strict=True)))


def halve_answer(bank: MemoryBank) -> MemoryBank:
    """The `bank` with the answer in the last frame in half precision: at the size of the working image it is large, and
    clicks alone ask for it.
    """
    return bank if bank.logits is None else replace(bank, logits=bank.logits.half())


def choose_turn(ids: Sequence[int], frame: int, most: int) -> list[int]:
    """Of objects, by their `ids`, the `most` whose turn it is in a `frame`, round and round: of len(ids) / most frames,
    rounded up, each object has its turn in one at least. All of them where there are no more.

    >>> [choose_turn([4, 5, 6, 7, 8], frame, most=2) for frame in range(3)]
    [[4, 5], [6, 7], [8, 4]]
    """
    most = min(most, len(ids))
    return [ids[n % len(ids)] for n in range(frame * most, (frame + 1) * most)]


def refine_best_masks(
    belief: Prediction, seen: EncoderFeatures, predictor: ImagePredictor, ids: Collection[int]
) -> Prediction:
    """The `belief` about the frame that is `seen`, whose best hypotheses about the objects of `ids` the `predictor` has
    drawn anew in place (`ImagePredictor.redraw`).
    """
    logits = belief.logits.cpu()
    chosen = torch.tensor([row for row, id in enumerate(belief.ids) if id in ids], dtype=torch.int64)
    for part in iterate_row_groups(len(chosen), REDRAWN):
        rows = chosen[part]
        at = rows, belief.quality[rows].argmax(1)
        logits[at] = predictor.redraw(seen.guide.numpy(), logits[at])
    return replace(belief, logits=logits.to(belief.logits.device))


def weigh_empty_hypotheses(belief: Prediction) -> Prediction:
    """The belief in which a hypothesis without a pixel says that its object is not there: predicted IoU, which is
    trained on masks alone, is then how likely that is by the object score, and an object of nothing else is absent.
    """
    none = ~(belief.logits > 0).flatten(2).any(2)
    quality = torch.where(none, (-belief.presence).sigmoid(), belief.quality)
    absent = none.all(1, keepdim=True)
    return replace(belief, quality=quality, presence=torch.where(absent, -belief.presence.abs(), belief.presence))


def make_empty_belief(features: EncoderFeatures) -> Prediction:
    """The belief about no object."""
    none, size = torch.zeros(0, HYPOTHESES), features.guide.shape[:2]
    return Prediction((), torch.zeros(0, HYPOTHESES, *size), none, none, torch.zeros(0, HYPOTHESES, HIDDEN))


def build_nano_propagator(
    path: Path | None, encoder: Encoder, policy: MemoryPolicy | None = None, kind: type[Nano] = Nano
) -> Nano:
    """The propagator with the weights that `masklet train propagator` wrote to `path`; None: the packaged ones.

    `encoder` makes its features, shared with the segmenter; `policy` says what is read of the memory, None: SAM 2's.
    Raises InputError where the file is of something else, damaged or not there.
    """
    if path and not path.is_file():
        raise InputError(f"{path}: no such file; train one with `masklet train propagator`")
    sha256 = compute_hash(path).sha256 if path else ZOO[PACKAGED].sha256
    path = path or verify_packaged(ZOO[PACKAGED])
    net, _ = read_nano(path)
    used = {path.name: sha256, **load_image_predictor().weights}
    return kind(net.to(encoder.device), encoder, policy, weights=used)
