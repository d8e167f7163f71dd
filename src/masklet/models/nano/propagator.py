"""Propagator `nano`: SAM 2 at nano size, which corrects what the training-free propagation expects.

Memory attention, memory encoder, three hypotheses with predicted IoU, object score and object pointers are SAM 2's,
all of it runs in `Sam2`. What is added is the guess: in every frame `Affinity` says where each object is, by
appearance, colour and optical flow; that goes to the mask decoder as a mask prompt, and the decoder's answer is added
to it. What was believed in the end is what both remember.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Prediction, Prompt
from masklet.models.affinity import Affinity, AffinityMemory, remove_detached_parts, resolve_prompts
from masklet.models.encoder import Encoder, EncoderFeatures
from masklet.models.nano.image_predictor import ImagePredictor, load_image_predictor
from masklet.models.nano.network import HIDDEN, read_nano
from masklet.models.sam2.memory import MemoryPolicy, Sam2Memory, shift_time
from masklet.models.sam2.propagator import Sam2, Sam2Features, wrap_inference
from masklet.weights.store import ZOO, compute_hash, verify_packaged

PACKAGED = "nano-propagator"  # in the zoo
HYPOTHESES = 3


@dataclass(frozen=True, eq=False)
class NanoFeatures(Sam2Features):
    """One frame as SAM 2 at nano size sees it."""

    seen: EncoderFeatures  # as the encoder gave them to whoever looks at the frame


@dataclass(frozen=True)
class NanoMemory(Sam2Memory):
    """The memory of all objects: SAM 2's, and that of the guesses."""

    guessed: AffinityMemory = field(kw_only=True)


class Nano(Sam2):
    """A propagator with three hypotheses for each object. Logits are at the resolution of the encoder's image."""

    contends = True

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
            net: of `nano_network` or `read_nano`; it is not changed.
            encoder: whose features are used, the same as the segmenter's so that a frame is encoded once.
            policy: what is read of the memory; None: `RecentFrames`.
            weights: sha256 of the network's file, by name.
            gradients: for training, as `Sam2` has it.
        """
        super().__init__(net, policy, weights={**encoder.weights, **(weights or {})}, gradients=gradients)
        self.encoder = encoder
        self.guess = Affinity(encoder)
        self._predictor = load_image_predictor(encoder.device)

    @property
    def description(self) -> str:
        """Names the propagator and its settings in one line, which is written into a result's provenance."""
        return f"nano, {self.encoder.short} px, {self.policy}"

    def _settle(self, cells: int) -> None:
        """There is nothing in the neck that would be computed anew."""

    # -- the propagator

    @wrap_inference
    def encode(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        """The neck, over features that are shared with whoever has the same encoder."""
        return [self._necked(frame) for frame in frames]

    def empty(self) -> NanoMemory:
        """The memory of no object."""
        return NanoMemory(guessed=self.guess.empty())

    @wrap_inference
    def predict(  # type: ignore[override]  # of its own memories and features alone
        self, memory: NanoMemory, features: NanoFeatures
    ) -> Prediction:
        """Three hypotheses of every remembered object; tokens are the object pointers they would leave."""
        if not memory.banks:
            return make_empty_belief(features.seen)
        guesses, look = self._guesses(memory, features), self._look(features)

        def answer(id: int) -> tuple[Tensor, ...]:
            conditioned = self._conditioned(features, look, [self.policy.read(memory.banks[id])])
            return self._corrected(features, guesses[id], conditioned, self._unasked[0], several=True)

        ids = tuple(memory.banks)
        belief = self._prediction(ids, self._each(answer, ids))
        apart = dict(zip(memory.guessed.ids, memory.guessed.scattered.tolist(), strict=True))
        scattered = torch.tensor([apart[id] for id in ids])
        before = torch.stack([guesses[id].sigmoid().cpu() for id in ids])
        parted = [remove_detached_parts(of, before, scattered) for of in belief.logits.unbind(1)]
        belief = replace(belief, logits=torch.stack(parted, 1))
        return (
            belief
            if self.gradients
            else weigh_empty_hypotheses(refine_best_masks(belief, features.seen, self._predictor))
        )

    @wrap_inference
    def commit(  # type: ignore[override]  # of its own memories and features alone
        self, memory: NanoMemory, features: NanoFeatures, belief: Prediction
    ) -> NanoMemory:
        """Ends a frame: the `memory` with each object's best hypothesis in the `belief`, from which the guesses start
        next. Where the frame of `features` does not go on as it should, nothing is learnt: only time goes on.
        """
        best = belief.best
        believed = replace(best, logits=best.logits.detach(), presence=best.presence.detach())
        with torch.no_grad():
            sound = self.guess.is_sound(memory.guessed, features.seen)
            guessed = self.guess.commit(memory.guessed, features.seen, believed)
        after = super().commit(memory, features, belief) if sound else shift_time(memory, 1)
        return NanoMemory(after.banks, guessed=guessed)

    @wrap_inference
    def prompt(  # type: ignore[override]
        self, memory: NanoMemory, features: NanoFeatures, prompts: Mapping[int, Prompt]
    ) -> tuple[NanoMemory, Prediction]:
        """Makes the frame of `features` a conditioning frame in the `memory` of each object of `prompts`, {id: prompt}:
        a mask as it is, clicks and boxes as the image predictor draws them over what was believed before. Gives the new
        memory, and the masks at the frame's own size.
        """
        known = {id: bank.logits for id, bank in memory.banks.items() if bank.logits is not None}
        answers = resolve_prompts(prompts, features.seen, known, self.device)
        told: dict[int, Prompt] = {id: answer.logits[0] > 0 for id, answer in answers.items()}
        made, given = super().prompt(memory, features, told)
        with torch.no_grad():
            guessed, _ = self.guess.prompt(memory.guessed, features.seen, told)
        quality = torch.tensor([[float(answer.quality[0])] for answer in answers.values()])
        return NanoMemory(made.banks, guessed=guessed), replace(given, quality=quality.view(len(answers), 1))

    def forget(self, memory: NanoMemory, ids: Iterable[int]) -> NanoMemory:  # type: ignore[override]
        """The memory without these objects."""
        gone = set(ids)
        return self.branch(memory, {id: id for id in memory.banks if id not in gone})

    def branch(self, memory: NanoMemory, origins: Mapping[int, int]) -> NanoMemory:  # type: ignore[override]
        """The memory of the objects {new id: old id} alone."""
        banks = super().branch(memory, origins).banks
        return NanoMemory(banks, guessed=self.guess.branch(memory.guessed, origins))

    def misled(self, memory: NanoMemory, features: NanoFeatures, masks: Mapping[int, Prompt]) -> NanoMemory:
        """The `memory` whose guesses, and nothing else, take these `masks` for what was in the frame of `features`; for
        training, where the network learns to correct wrong guesses.
        """
        with torch.no_grad():
            guessed, _ = self.guess.prompt(memory.guessed, features.seen, masks)
        return NanoMemory(memory.banks, guessed=guessed)

    # -- the networks

    def _necked(self, frame: Frame) -> NanoFeatures:
        seen = self.encoder(frame)
        fine, medium, coarse = self.net.vision_encoder(seen, self.side)
        return NanoFeatures(fine[0], medium[0], coarse[0], frame.size, seen)

    def _guesses(self, memory: NanoMemory, features: NanoFeatures) -> dict[int, Float[Tensor, "h w"]]:
        """Where the training-free propagation expects each object."""
        with torch.no_grad():
            expected = self.guess.predict(memory.guessed, features.seen)
        found = zip(expected.ids, expected.logits[:, 0], strict=True)
        return {id: guess.to(self.device, self.dtype) for id, guess in found}

    def _corrected(
        self,
        features: NanoFeatures,
        guess: Float[Tensor, "h w"],
        conditioned: Float[Tensor, "1 c y x"],
        sparse: Float[Tensor, "1 1 s c"],
        *,
        several: bool,
    ) -> tuple[Tensor, ...]:
        """The decoder's answer to one object's guess, added to the guess: its rows for `_prediction`."""
        square = (self.side // 4,) * 2
        small = nnf.interpolate(guess[None, None], square, mode="bilinear", antialias=True)
        fine, medium = self.net.hints(small)
        hinted = replace(features, fine=features.fine + fine[0], medium=features.medium + medium[0])
        dense = self.net.prompt_encoder.mask_embed(small)
        logits, *rest = self._decoded(hinted, conditioned, sparse, dense, several=several)
        large = nnf.interpolate(logits, guess.shape, mode="bilinear")
        return (large + self.net.hints.gain * guess)[0], *(x[0] for x in rest)


def refine_best_masks(belief: Prediction, seen: EncoderFeatures, predictor: ImagePredictor) -> Prediction:
    """The `belief` about the frame that is `seen`, whose best hypotheses the `predictor` has drawn anew
    (`ImagePredictor.redraw`).
    """
    at = torch.arange(len(belief.ids)), belief.quality.argmax(1)
    logits = belief.logits.cpu().clone()
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


def build_nano_propagator(path: Path | None, encoder: Encoder, policy: MemoryPolicy | None = None) -> Nano:
    """The propagator with the weights that `masklet train propagator` wrote to `path`; None: the packaged ones.

    `encoder` makes its features, shared with the segmenter; `policy` says what is read of the memory, None: SAM 2's.
    Raises InputError where the file is of something else, damaged or not there.
    """
    if path and not path.is_file():
        raise InputError(f"{path}: no such file; train one with `masklet train propagator`")
    path = path or verify_packaged(ZOO[PACKAGED])
    net, _ = read_nano(path)
    used = {path.name: compute_hash(path).sha256, **load_image_predictor().weights}
    return Nano(net.to(encoder.device), encoder, policy, weights=used)
