"""RoCoVIS (Heo et al.): one set of queries lives through the video, and its masks calibrate the next frame's pixels.

Over any Mask2Former, or an EoMT. `RocovisNet` is tensors to tensors and is what is trained; `Rocovis` runs it on
frames: both call the same functions, and only `trust`, which `commit` takes, differs. Files:
models/query_video/slot_weights.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import Maps, QueryNetwork, wrap_query_network
from masklet.models.mask2former.query_blocks import DecodedSlots
from masklet.models.query_video.slot_model import VideoSlotModel, take_last_layer
from masklet.nn.mask_propagation import MaskPropagation, estimate_query_trust, weigh_masks_by_trust


@dataclass(frozen=True)
class RocovisNetSettings:
    """What a network is built of, besides its Mask2Former."""

    levels: int = (
        1  # of the backbone, from the coarsest on, that masks calibrate: 1 stride 32, 2 and stride 16; 0: none
    )
    frames: int = 3  # recent ones whose keys and values are kept
    width: int = 256  # of the cross-attention
    heads: int = 8
    suppress: bool = True  # masks of queries that are no object are not propagated (UVLA++)

    def __post_init__(self) -> None:
        if not (0 <= self.levels <= 4 and self.frames >= 1):
            raise InputError(
                f"levels = {self.levels} (0 to 4) and frames = {self.frames} (from 1 on): not of a RoCoVIS"
            )
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise InputError(f"width = {self.width}: it must be a multiple of heads = {self.heads}")


@dataclass(frozen=True)
class RememberedFrame:
    """One frame, at each calibrated level, the coarsest first: as the cross-attention looks at it."""

    keys: tuple[Float[Tensor, "b _ e"], ...]
    values: tuple[Float[Tensor, "b _ e"], ...]


@dataclass(frozen=True)
class RocovisMemory:
    """All that the next frame needs of those before it, of one size from the third frame on."""

    queries: Float[Tensor, "b n c"] | None = None  # Q_{t-1}; None: a video begins
    frames: tuple[RememberedFrame, ...] = ()  # the last ones, oldest first

    def detached(self) -> RocovisMemory:
        """The same, from which no gradient goes back further (truncated back-propagation)."""
        if self.queries is None:
            return self
        kept = (RememberedFrame(*(tuple(x.detach() for x in part) for part in (f.keys, f.values))) for f in self.frames)
        return RocovisMemory(self.queries.detach(), tuple(kept))


class RocovisNet(nn.Module):
    """The network, for b videos side by side."""

    def __init__(self, segmenter: nn.Module, settings: RocovisNetSettings = RocovisNetSettings()) -> None:
        """`segmenter`: a Mask2Former or EoMT of transformers, or one with the same parts; trained on images it is a
        start. Raises InputError where it has not as many levels as the settings say.
        """
        super().__init__()
        self.settings = settings
        self.segmenter: Any = segmenter
        parts: Any = segmenter
        hidden, channels = int(parts.class_predictor.in_features), self.network.channels
        if settings.levels > len(channels):
            raise InputError(f"levels = {settings.levels}, but the backbone has {len(channels)}")
        self.propagation: Any = nn.ModuleList(
            MaskPropagation(c, hidden, settings.width, settings.heads) for c in channels[::-1][: settings.levels]
        )
        if self.network.square is not None:
            self.query_update = QueryUpdate(hidden)

    @property
    def network(self) -> QueryNetwork:
        """The segmenter's two halves."""
        return wrap_query_network(self.segmenter)

    def train(self, mode: bool = True) -> RocovisNet:
        """Batch norms keep the statistics of the backbone's own training: one clip is too few to make others. Of an
        EoMT all stays as it is in use: nothing in it is random, no attention is masked.
        """
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        if self.network.square is not None:
            self.segmenter.eval()
        return self

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """F_t, of normalised images of the segmenter's input: a backbone's features, the finest first; of an EoMT the
        tokens before queries join them, the patches last.
        """
        return self.network.encode(images)

    def empty(self) -> RocovisMemory:
        """The memory before the first frame."""
        return RocovisMemory()

    def calibrated(self, memory: RocovisMemory, features: Maps) -> Maps:
        """F_t + F'_t: the input of the pixel decoder."""
        calibrated = list(features)
        for n, part in enumerate(self.propagation):
            maps = features[-1 - n].float()
            if memory.frames:
                keys = torch.cat([f.keys[n] for f in memory.frames], 1)
                values = torch.cat([f.values[n] for f in memory.frames], 1)
            else:
                keys, values = part.keys(maps), part.first_values(maps)  # F'_0 = CA(F_0, F_0, F_0 + E)
            calibrated[-1 - n] = maps + part(maps, keys, values)
        return tuple(calibrated)

    def decoded(self, memory: RocovisMemory, features: Maps) -> DecodedSlots:  # Q_t = D(Q_{t-1}, P(F_t + F'_t))
        """Direct query decoding of one frame, all layers that are trained; the first is what queries say before they
        have looked.
        """
        begun = memory.queries
        if begun is not None and self.network.square is not None:
            begun = self.query_update(begun, self.segmenter.query.weight)
        return self.network.decode(self.calibrated(memory, features), begun, self.training)

    def predict(self, memory: RocovisMemory, features: Maps) -> FrameSlots:
        """One frame's slots: the last layer's answer."""
        return take_last_layer(self.decoded(memory, features))

    def commit(
        self, memory: RocovisMemory, features: Maps, slots: FrameSlots, trust: Float[Tensor, "b n"]
    ) -> RocovisMemory:
        """Ends a frame: the `memory` with keys and values of the frame's `features`, and of its `slots` the queries and
        masks. `trust` is 1 for queries that are an object, at inference `estimate_query_trust`.
        """
        masks = weigh_masks_by_trust(slots.mask_logits.float().sigmoid(), trust)
        keys, values = [], []
        for n, part in enumerate(self.propagation):
            maps = features[-1 - n].float()
            identity = part.identity(slots.queries.float(), masks, tuple(maps.shape[2:]))
            keys.append(part.keys(maps))
            values.append(part.values(maps, identity))
        kept = (*memory.frames, RememberedFrame(tuple(keys), tuple(values)))[-self.settings.frames :]
        return RocovisMemory(slots.queries, kept)

    def trust(self, slots: FrameSlots) -> Float[Tensor, "b n"]:
        """Of each query where the truth is not known."""
        if self.settings.suppress:
            return estimate_query_trust(slots.class_logits)
        return torch.ones_like(slots.class_logits[..., 0])

    def decode(self, queries: Float[Tensor, "b n c"], pixels: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n h w"]:
        """Mask logits of queries in a frame's pixel features."""
        return torch.einsum("bnd,bdhw->bnhw", self.network.embed(queries), pixels)


class QueryUpdate(nn.Module):
    """How queries go on in a plain ViT: the learnt ones plus a linear map of the last frame's, as VidEoMT has it.

    What leaves its last block is nothing that ever went into the first, and there are no positions to tell slots apart.
    The map begins at zero, so that an EoMT that was trained on images is unchanged at first.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, before: Float[Tensor, "b n c"], learnt: Float[Tensor, "n c"]) -> Float[Tensor, "b n c"]:
        """The queries that go in, of those that left the last frame (`before`) and the `learnt` ones."""
        updated: Tensor = learnt + self.linear(before)
        return updated


class Rocovis(VideoSlotModel[RocovisMemory]):
    """The slot model."""

    kind = "rocovis"
