"""VidEoMT (Norouzi et al. 2026, "Your ViT is Secretly Also a Video Segmentation Model"), frame by frame.

The network is transformers', whose own class takes a whole clip at once. The first blocks of the ViT know nothing of
time; the queries join the last ones, and are learnt ones plus what a linear layer makes of the last frame's. So one
frame's queries are all that has to be remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import check_mask_stride, normalize_images, resize_frames
from masklet.models.mask2former.query_blocks import embed_tokens, run_query_blocks
from masklet.models.mask2former.weights import add_unread_tensors, build_vit_network
from masklet.models.query_video.slot_model import take_last_layer
from masklet.weights.catalog import CONFIG, TENSORS
from masklet.weights.reading import locate_weights, read_network_config, read_tensors
from masklet.weights.strict import load_exactly

VIDEOMT = "videomt"  # as transformers calls it


@dataclass(frozen=True)
class VideomtMemory:
    """The queries of the last frame, as they leave the last block. None: a video begins."""

    queries: Float[Tensor, "n c"] | None = None


class Videomt:
    """The slot model. It looks at frames as squares of the one size that it was trained at."""

    def __init__(
        self, net: Any, *, categories: Sequence[str] | None = None, weights: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            net: a `VideomtForUniversalSegmentation` of transformers, in eval mode, on the device where it computes.
            categories: names of the classes; None: those of the network's config.
            weights: sha256 of the weight files, by name.

        Raises InputError where there are not as many categories as classes, or masks are not of stride 4.
        """
        names = net.config.id2label
        check_mask_stride(net.config, "a VidEoMT")
        self.categories = tuple(categories or (names[n] for n in range(len(names))))
        if len(self.categories) != (classes := net.class_predictor.out_features - 1):
            raise InputError(f"{len(self.categories)} categories are named, this VidEoMT has {classes} classes")
        self.net, self.weights, self.device = net, weights or {}, net.class_predictor.weight.device
        self.side = int(net.config.image_size)
        self.at_once = 4 if self.device.type == "cuda" else 1
        self.description = f"videomt, {self.side} px"

    @torch.no_grad()
    def encode(self, frames: Sequence[Frame]) -> list[Float[Tensor, "1 p c"]]:
        """The tokens of each frame after the blocks that know nothing of the queries."""
        images = normalize_images(resize_frames(frames, (self.side, self.side)), self.device)
        with self._mixed():
            tokens = embed_tokens(self.net, images)
        return [tokens[t : t + 1] for t in range(len(frames))]

    def empty(self) -> VideomtMemory:
        """The memory before the first frame."""
        return VideomtMemory()

    @torch.no_grad()
    def predict(self, memory: VideomtMemory, features: Float[Tensor, "1 p c"]) -> FrameSlots:
        """The slots in the next frame; their queries are as they leave the last block."""
        net = self.net
        with self._mixed():
            queries = net.query.weight[None]
            if memory.queries is not None:
                queries = net.query_updater(memory.queries[None].to(self.device)) + queries
            decoded = run_query_blocks(net, queries, features)
        slots = take_last_layer(decoded)
        return replace(slots, pixel_features=slots.pixel_features.float())

    def trust(self, slots: FrameSlots) -> Float[Tensor, "t n"]:
        """1 for every query of `slots`: all of them go on."""
        return torch.ones_like(slots.class_logits[..., 0])

    def commit(
        self, memory: VideomtMemory, features: Float[Tensor, "1 p c"], slots: FrameSlots, trust: Float[Tensor, "1 n"]
    ) -> VideomtMemory:
        """Ends a frame: the queries of its `slots`. `memory`, `features` and `trust` are not looked at."""
        return VideomtMemory(slots.queries[0])

    @torch.no_grad()
    def decode(self, queries: Float[Tensor, "n c"], pixels: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits of queries in a frame's pixel features."""
        embedded = self.net.mask_head(self.net.layernorm(queries.to(self.device)))
        return torch.einsum("nd,dhw->nhw", embedded, pixels.to(self.device))

    def _mixed(self) -> Any:
        on = self.device.type
        return torch.autocast(on, torch.bfloat16, enabled=on == "cuda")


def load_videomt(
    name: str, device: torch.device, *, side: int | None = None, categories: Sequence[str] | None = None
) -> Videomt:
    """A VidEoMT by name of ours, hub id or folder, as transformers saves it. Nothing is fetched.

    Args:
        name: of the weights.
        device: where it computes.
        side: pixels of the square that it looks at; only its own can be.
        categories: names of the classes; None: those of its config.

    Raises InputError where the weights are not on this machine, damaged, of another network or not of that size.
    """
    path, files = locate_weights(name)
    config = path.with_name(CONFIG)
    told = read_network_config(config) if path.name == TENSORS and config.is_file() else {}
    if told.get("model_type") != VIDEOMT:
        raise InputError(f"{name}: not a VidEoMT; give a hub id or a folder with a {CONFIG} of model_type {VIDEOMT!r}")
    net = build_vit_network(path, told, "Videomt")
    load_exactly(net, add_unread_tensors(net, read_tensors(path)), path, "the VidEoMT that its config describes")
    made = Videomt(net.to(device), categories=categories, weights=files)
    if side not in (None, made.side):
        raise InputError(f"{name}@{side}: a VidEoMT looks at the one size that it was trained at, {made.side} pixels")
    return made
