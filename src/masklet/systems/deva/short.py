"""ShortTrack (DEVA, Table 6): a propagator whose memory begins anew in every frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from masklet.core.frames import Frame
from masklet.core.instances import Prediction, Prompt
from masklet.core.part_facts import collect_part_weights, describe_part, find_device
from masklet.core.protocols import Propagator

F = TypeVar("F")
M = TypeVar("M")


@dataclass(frozen=True, eq=False)
class SizedFeatures(Generic[F]):
    """One frame's features, and how large it is."""

    below: F
    size: tuple[int, int]  # h, w


@dataclass(frozen=True)
class ShortMemory(Generic[F, M]):
    """A propagator that remembers the last frame alone, over another one."""

    propagator: Propagator[F, M]

    @property
    def description(self) -> str:
        """What this propagator is called in a result's provenance."""
        return f"short, the last frame alone, over {describe_part(self.propagator)}"

    @property
    def device(self) -> torch.device:
        """Where the propagator below computes."""
        return find_device(self.propagator)

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of the propagator's weight files, by name."""
        return collect_part_weights(self.propagator)

    def encode(self, frames: Sequence[Frame]) -> list[SizedFeatures[F]]:
        """Each frame's features, as the propagator below makes them, and its size."""
        made = self.propagator.encode(frames)
        return [SizedFeatures(features, frame.size) for features, frame in zip(made, frames, strict=True)]

    def empty(self) -> M:
        """The memory of no object."""
        return self.propagator.empty()

    def predict(self, memory: M, features: SizedFeatures[F]) -> Prediction:
        """Where every object of the last frame is in the frame of these `features`."""
        return self.propagator.predict(memory, features.below)

    def commit(self, memory: M, features: SizedFeatures[F], belief: Prediction) -> M:
        """A memory that begins with the masks of the `belief` in the frame of these `features`. What is not seen in it
        is forgotten, but for what the `belief` says nothing of.
        """
        masks = {id: mask for id, mask in zip(belief.ids, belief.masks(features.size), strict=True) if mask.any()}
        nothing = self.propagator.predict(memory, features.below).only([])
        ended = self.propagator.commit(self.propagator.forget(memory, belief.ids), features.below, nothing)
        return self.propagator.prompt(ended, features.below, masks)[0] if masks else ended

    def prompt(self, memory: M, features: SizedFeatures[F], prompts: Mapping[int, Prompt]) -> tuple[M, Prediction]:
        """As the propagator below: the memory of an object that is prompted begins anew."""
        return self.propagator.prompt(self.propagator.forget(memory, prompts), features.below, prompts)

    def forget(self, memory: M, ids: Iterable[int]) -> M:
        """The memory without these objects."""
        return self.propagator.forget(memory, ids)

    def branch(self, memory: M, origins: Mapping[int, int]) -> M:
        """The memory of the objects {new id: old id} alone."""
        return self.propagator.branch(memory, origins)
