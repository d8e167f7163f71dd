"""Propagators without a network, to compare with: masks stay where they were, or follow the optical flow.

DEVA's Table 6 has both as temporal schemes (there the flow is RAFT's, here DIS's, of which no weights are needed).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Prediction, Prompt
from masklet.core.masks import stack_masks
from masklet.core.rle import Rle
from masklet.nn.flow import compute_dense_flow

SURE = 10.0  # logit of a pixel inside
Grey = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class LastMasksMemory:
    """The memory: the masks of the last frame, and how that looked."""

    masks: Mapping[int, Rle] = field(default_factory=dict)
    grey: Grey | None = None


class StillMasks:
    """Every object is where it was in the last frame."""

    description: ClassVar[str] = "still: masks where they were"

    def encode(self, frames: Sequence[Frame]) -> list[Grey]:
        """Features of each frame: its grey image."""
        return [cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in frames]

    def empty(self) -> LastMasksMemory:
        """The memory of no object."""
        return LastMasksMemory()

    def predict(self, memory: LastMasksMemory, features: Grey) -> Prediction:
        """The masks of `memory` in the frame of `features`, all of them certain."""
        masks = [mask.decode() for mask in memory.masks.values()]
        moved = self.move(masks, memory.grey, features) if masks and memory.grey is not None else masks
        return describe_certain_masks(tuple(memory.masks), moved, (features.shape[0], features.shape[1]))

    def move(self, masks: list[Bool[Tensor, "h w"]], before: Grey, now: Grey) -> list[Bool[Tensor, "h w"]]:
        """The `masks` of the frame `before` in the frame `now`."""
        return masks

    def commit(self, memory: LastMasksMemory, features: Grey, belief: Prediction) -> LastMasksMemory:
        """The next `memory`: the masks of the `belief`, and of what it says nothing of those that were there."""
        size = features.shape[0], features.shape[1]
        said = zip(belief.ids, belief.masks(size), strict=True)
        return LastMasksMemory({**memory.masks, **{id: Rle.encode(mask) for id, mask in said}}, features)

    def prompt(
        self, memory: LastMasksMemory, features: Grey, prompts: Mapping[int, Prompt]
    ) -> tuple[LastMasksMemory, Prediction]:
        """The next `memory` with the masks of `prompts` in the frame of `features`, and these. Raises InputError where
        something else than a mask is given.
        """
        given: dict[int, Tensor] = {}
        for id, prompt in prompts.items():
            if not isinstance(prompt, Tensor):
                raise InputError("this propagator takes masks, not clicks or boxes; use nano for those")
            given[id] = prompt
        size = features.shape[0], features.shape[1]
        held = {**memory.masks, **{id: Rle.encode(mask) for id, mask in given.items()}}
        return LastMasksMemory(held, features), describe_certain_masks(tuple(given), list(given.values()), size)

    def forget(self, memory: LastMasksMemory, ids: Iterable[int]) -> LastMasksMemory:
        """The memory without these objects."""
        gone = set(ids)
        return self.branch(memory, {id: id for id in memory.masks if id not in gone})

    def branch(self, memory: LastMasksMemory, origins: Mapping[int, int]) -> LastMasksMemory:
        """The memory of the objects {new id: old id} alone."""
        return LastMasksMemory({new: memory.masks[old] for new, old in origins.items()}, memory.grey)


class FlownMasks(StillMasks):
    """Every object goes where the optical flow from the last frame carries it."""

    description: ClassVar[str] = "flow: masks along the optical flow"

    def move(self, masks: list[Bool[Tensor, "h w"]], before: Grey, now: Grey) -> list[Bool[Tensor, "h w"]]:
        """The `masks` of the frame `before` in the frame `now`: each pixel is as where it comes from."""
        h, w = now.shape
        y, x = np.mgrid[:h, :w].astype(np.float32)
        flow = compute_dense_flow(now, before)
        at = x + flow[..., 0], y + flow[..., 1]
        pages = [cv2.remap(mask.numpy().astype(np.uint8), *at, cv2.INTER_NEAREST) for mask in masks]
        return [torch.from_numpy(page > 0) for page in pages]


def describe_certain_masks(
    ids: tuple[int, ...], masks: Sequence[Bool[Tensor, "h w"]], size: tuple[int, int]
) -> Prediction:
    """The `masks` of the objects `ids`, of `size` (h, w), as a prediction of one hypothesis each; an empty one is
    absent.
    """
    stacked = stack_masks(masks, size)
    seen = stacked.flatten(1).any(1).float()[:, None]
    return Prediction(ids, stacked.float()[:, None] * 2 * SURE - SURE, torch.ones_like(seen), seen * 2 * SURE - SURE)
