"""What all slot models have in common: a network of tensors, which is trained, and the same on frames of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import Maps
from masklet.models.mask2former.query_blocks import DecodedSlots
from masklet.models.mask2former.segmenter import Mask2Former

M = TypeVar("M")  # a memory


def take_last_layer(decoded: DecodedSlots) -> FrameSlots:
    """The last decoder layer's slots, in float32, as of an image without padding."""
    masks, pixels = decoded.mask_logits[-1].float(), decoded.pixel_features
    whole = (4 * pixels.shape[2], 4 * pixels.shape[3])
    return FrameSlots(decoded.queries.float(), decoded.class_logits[-1].float(), pixels, masks, whole)


@runtime_checkable
class SlotNet(Protocol[M]):
    """The network (an nn.Module), for b videos side by side. Training and inference call the same functions."""

    segmenter: Any  # a Mask2Former or EoMT of transformers, or one with the same parts
    settings: Any

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """Of normalised images, as the segmenter takes them."""
        ...

    def empty(self) -> M:
        """The memory before the first frame."""
        ...

    def decoded(self, memory: M, features: Maps) -> DecodedSlots:
        """The slots in the frame of `features`, by every decoder layer; reads the memory, and does not change it."""
        ...

    def trust(self, slots: FrameSlots) -> Float[Tensor, "b n"]:
        """Of each query where the truth is not known."""
        ...

    def commit(self, memory: M, features: Maps, slots: FrameSlots, trust: Float[Tensor, "b n"]) -> M:
        """Ends a frame: the `memory` with what was made of its `features`, and predicted as `slots`; `trust`, 0 to 1,
        says how far each query speaks for an object.
        """
        ...

    def decode(self, queries: Float[Tensor, "b n c"], pixels: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n h w"]:
        """Mask logits of queries in a frame's pixel features."""
        ...


@dataclass(frozen=True)
class SlotFeatures:
    """One frame's."""

    maps: tuple[Float[Tensor, "1 ..."], ...]
    inside: tuple[int, int]  # h, w of the image in the padded input


class VideoSlotModel(Generic[M]):
    """A slot model (core.protocols.SlotModel): a network on frames of a video, in bfloat16 on a GPU."""

    kind: str

    def __init__(
        self,
        net: SlotNet[M],
        *,
        shortest: int = 480,
        categories: Sequence[str] | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            net: in eval mode, on the device where it computes.
            shortest: pixels of the short side at which it looks at frames.
            categories: names of the classes; None: those of the Mask2Former's config.
            weights: sha256 of the weight files, by name.

        Raises InputError where there are not as many categories as classes.
        """
        self.net = net
        self._look = Mask2Former(net.segmenter, shortest=shortest, categories=categories, weights=weights)
        self.categories, self.weights = self._look.categories, self._look.weights
        self.shortest, self.device, self.at_once = shortest, self._look.device, self._look.at_once
        self.description = f"{self.kind}, {self._look.description}"

    @torch.no_grad()
    def encode(self, frames: Sequence[Frame]) -> list[SlotFeatures]:
        """What needs no memory, of frames of one size."""
        images, inside = self._look.pixels(frames)
        with self._mixed():
            maps = self.net.encode(images)
        return [SlotFeatures(tuple(m[t : t + 1] for m in maps), inside) for t in range(len(frames))]

    def empty(self) -> M:
        """The memory before the first frame."""
        return self.net.empty()

    @torch.no_grad()
    def predict(self, memory: M, features: SlotFeatures) -> FrameSlots:
        """The slots in the next frame."""
        with self._mixed():
            return replace(take_last_layer(self.net.decoded(memory, features.maps)), inside=features.inside)

    def trust(self, slots: FrameSlots) -> Float[Tensor, "1 n"]:
        """How far each query may speak for an object."""
        return self.net.trust(slots)

    @torch.no_grad()
    def commit(self, memory: M, features: SlotFeatures, slots: FrameSlots, trust: Float[Tensor, "1 n"]) -> M:
        """Ends a frame: the `memory` with what was made of its `features`, and predicted as `slots`; `trust`, 0 to 1,
        says how far each query speaks for an object.
        """
        with self._mixed():
            return self.net.commit(memory, features.maps, slots, trust)

    @torch.no_grad()
    def decode(self, queries: Float[Tensor, "n c"], pixels: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of queries in a frame's pixel features."""
        return self.net.decode(queries[None].to(self.device), pixels[None].to(self.device))[0]

    def _mixed(self) -> Any:
        on = self.device.type
        return torch.autocast(on, torch.bfloat16, enabled=on == "cuda")
