"""GenVIS (Heo et al. 2023) over a Mask2Former or an EoMT: each frame is segmented alone, then object queries look at
its queries.

The baseline of RoCoVIS (its Table 2): queries live through the video, pixels know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import Maps, infer_query_sizes, wrap_query_network
from masklet.models.mask2former.query_blocks import DecodedSlots
from masklet.models.query_video.slot_model import VideoSlotModel
from masklet.nn.genvis import ObjectDecoder, ObjectDecoderSettings, ObjectMemory
from masklet.weights.strict import load_exactly


@dataclass(frozen=True)
class GenvisNetSettings:
    """What encoder and decoder are built of; other sizes are the Mask2Former's."""

    encoder_layers: int = 6
    decoder_layers: int = 3
    hidden: int = 2048  # of the feed-forward layers
    heads: int = 8
    queries: int = 100  # of objects
    frames: int | None = None  # recent ones whose keys and values are kept; None: all, as published

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise InputError(f"frames = {self.frames}: it counts from 1 on")


@dataclass(frozen=True)
class GenvisMemory:
    """All that the next frame needs of those before it. None: a video begins."""

    videos: tuple[ObjectMemory, ...] | None = None  # side by side

    def detached(self) -> GenvisMemory:
        """The same, from which no gradient goes back further."""
        return GenvisMemory(tuple(v.detached() for v in self.videos) if self.videos else None)


class GenvisNet(nn.Module):
    """The network, for b videos side by side. The Mask2Former stays as it was trained on images."""

    def __init__(self, segmenter: nn.Module, settings: GenvisNetSettings = GenvisNetSettings()) -> None:
        super().__init__()
        self.settings = settings
        self.segmenter: Any = segmenter
        parts: Any = segmenter.requires_grad_(False)
        sizes = infer_query_sizes(parts.config)
        self.objects = ObjectDecoder(
            ObjectDecoderSettings(
                classes=parts.class_predictor.out_features - 1,
                width=sizes.width,
                heads=settings.heads,
                hidden=settings.hidden,
                encoder_layers=settings.encoder_layers,
                decoder_layers=settings.decoder_layers,
                queries=settings.queries,
                frame_queries=parts.config.num_queries,
                feature_width=sizes.mask_width,
                mask_width=sizes.mask_width,
            )
        )

    def train(self, mode: bool = True) -> GenvisNet:
        """The Mask2Former is not trained."""
        super().train(mode)
        self.segmenter.eval()
        return self

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """The frame queries after the decoder's last norm, and pixel features: what the segmenter says of images."""
        answer = wrap_query_network(self.segmenter).look(images)
        return answer.queries.float(), answer.pixel_features

    @torch.no_grad()
    def name_frame_queries(self, features: Maps) -> tuple[Float[Tensor, "b m k1"], Float[Tensor, "b m h w"]]:
        """Class and mask logits of the frame queries in `features`: what the segmenter says of the frame by itself."""
        queries, pixels = features
        embedded = wrap_query_network(self.segmenter).embed_normed(queries)
        return self.segmenter.class_predictor(queries), torch.einsum("bmd,bdhw->bmhw", embedded, pixels)

    def embed_for_similarity(
        self, features: Maps, queries: Float[Tensor, "b n c"]
    ) -> tuple[Float[Tensor, "b m c"], Float[Tensor, "b n c"]]:
        """The frame queries in `features`, as the encoder makes them, and object `queries` before their norm, both in
        the space where those of one object are to be alike.
        """
        seen = torch.stack([self.objects.encoded(one[None]) for one in features[0]])
        return self.objects.sim_embed_frame(seen), self.objects.sim_embed_clip(self.objects.decoder_norm(queries))

    def empty(self) -> GenvisMemory:
        """The memory before the first frame."""
        return GenvisMemory()

    def decoded(self, memory: GenvisMemory, features: Maps) -> DecodedSlots:
        """One frame, all layers of the object decoder."""
        frame_queries, pixels = features[0], self.objects.pixels(features[1])
        before: Any = memory.videos or [None] * len(frame_queries)
        videos = [self.objects(m, q[None]) for m, q in zip(before, frame_queries, strict=True)]
        layers = [torch.stack(layer) for layer in zip(*videos, strict=True)]
        return DecodedSlots(
            layers[-1],
            tuple(self.objects.classify(self.objects.decoder_norm(x)) for x in layers),
            tuple(self.decode(x, pixels) for x in layers),
            pixels,
        )

    def trust(self, slots: FrameSlots) -> Float[Tensor, "b n"]:
        """1 for every query of `slots`: GenVIS does not weigh its queries, `commit` does not look at this."""
        return torch.ones_like(slots.class_logits[..., 0])

    def commit(
        self, memory: GenvisMemory, features: Maps, slots: FrameSlots, trust: Float[Tensor, "b n"]
    ) -> GenvisMemory:
        """Ends a frame: the `memory` of each video with the queries of its `slots`, of the last `settings.frames`
        frames alone. `features` and `trust` are not looked at.
        """
        before: Any = memory.videos or [None] * len(slots.queries)
        after = (self.objects.remembered(m, q) for m, q in zip(before, slots.queries, strict=True))
        return GenvisMemory(tuple(select_recent(m, self.settings.frames) for m in after))

    def decode(self, queries: Float[Tensor, "b n c"], pixels: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n h w"]:
        """Mask logits of queries in a frame's own pixel features."""
        embedded = self.objects.mask_embed(self.objects.decoder_norm(queries))
        return torch.einsum("bnd,bdhw->bnhw", embedded, pixels)


def build_released_genvis(segmenter: nn.Module, objects: Mapping[str, Tensor], path: Path) -> GenvisNet:
    """GenVIS of an official checkpoint, in eval mode.

    Args:
        segmenter: its Mask2Former.
        objects: the weights of its object encoder and decoder, by their names within that.
        path: of the file, for errors.

    Raises InputError where these are not GenVIS's over such a segmenter.
    """
    config: Any = segmenter.config
    try:
        queries = len(objects["query_feat.weight"])
        hidden = len(objects["enc_ffn.0.linear1.bias"])
    except KeyError as error:
        raise InputError(f"{path}: not the weights of a GenVIS: it lacks {error.args[0]}") from None
    net = GenvisNet(
        segmenter,
        GenvisNetSettings(
            encoder_layers=_count_layers(objects, "enc_ffn"),
            decoder_layers=_count_layers(objects, "transformer_ffn_layers"),
            hidden=hidden,
            heads=config.num_attention_heads,
            queries=queries,
        ),
    )
    load_exactly(net.objects, objects, path, "a GenVIS over its Mask2Former")
    return net.eval()


def _count_layers(state: Mapping[str, Tensor], name: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{name}.")})


def select_recent(memory: ObjectMemory, frames: int | None) -> ObjectMemory:
    """The memory of the last frames; None: of all."""
    if frames is None:
        return memory
    return ObjectMemory(memory.queries, memory.keys[-frames:], memory.values[-frames:])


class Genvis(VideoSlotModel[GenvisMemory]):
    """The slot model."""

    kind = "genvis"
