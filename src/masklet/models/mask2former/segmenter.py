"""Mask2Former (Cheng et al. 2022) and EoMT over the networks of transformers: a segmenter, and slots for trackers.

The networks are transformers', without compiled operators; what is before and after them is ours, and as the official
code does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.masks import resize_bilinear
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import STRIDE, wrap_query_network
from masklet.models.mask2former.weights import build_mask2former
from masklet.weights.categories import find_stuff

AT_ONCE = 16  # masks that are brought to a frame's size together


@dataclass(frozen=True)
class Mask2FormerSettings:
    """What can be set of Mask2Former as a segmenter."""

    task: Literal["instance", "panoptic"] = "instance"  # panoptic: no pixel twice, stuff too
    threshold: float | None = None  # detections stay that score this or more; none: 0.5, panoptic 0.8
    at_most: int = 100  # detections in a frame
    overlap: float = 0.8  # panoptic: share of its own pixels that a segment must win
    categories: str = (
        ""  # names of the classes: of a data set such as ytvis21, or a file; else as the file's name tells
    )


class Mask2Former:
    """A segmenter of learnt queries. It remembers nothing; masks of one frame may overlap."""

    look_ahead = 0

    def __init__(
        self,
        net: Any,
        *,
        shortest: int | None = None,
        threshold: float | None = None,
        at_most: int = 100,
        at_once: int | None = None,
        categories: Sequence[str] | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            net: a `Mask2FormerForUniversalSegmentation` of transformers, in eval mode; or its EoMT, also over DINOv3.
            shortest: pixels of the short side at which it looks at frames, the long side being at most 1333; None:
                800. An EoMT has one size, that of its training.
            threshold: detections stay that score this or more; None: 0.5, or what who asks says (`segment_above`).
            at_most: detections in a frame.
            at_once: frames that go through the network together; None: 4 on a GPU, 1 on a CPU.
            categories: names of the classes; None: those of the network's config.
            weights: sha256 of the weight files, by name.

        Raises InputError where there are not as many categories as classes, or where it cannot look at that size.
        """
        names = net.config.id2label
        self.net, self.network, self.weights = net, wrap_query_network(net), weights or {}
        self.categories = tuple(categories or (names[n] for n in range(len(names))))
        classes = net.class_predictor.out_features - 1
        if len(self.categories) != classes:
            raise InputError(
                f"{len(self.categories)} categories are named, this {self.network.name} has {classes} classes"
            )
        self.device = net.class_predictor.weight.device
        self.half = self.device.type == "cuda"
        self.shortest, self.at_most = self.network.choose_side(shortest), at_most
        self.threshold, self.floor = 0.5 if threshold is None else threshold, threshold or 0.0
        self.at_once = at_once or (4 if self.half else 1)
        self.description = (
            f"{self.network.name.lower()}, {self.network.backbone}, {self.shortest} px, {self.threshold:g}"
        )

    # -- the segmenter

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Detects objects in each of `frames`, which are of one size, by itself, the best first. `memory` is None, and
        `future` is not looked at. Gives one `Detections` a frame, and None.
        """
        return self.segment_above(memory, frames, future, self.threshold)

    def segment_above(
        self, memory: None, frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], None]:
        """As `segment`, but for all that scores `least` or more, unless a threshold was set that is higher: who asks
        for unsure detections gets them.
        """
        least = max(least, self.floor)
        return [found for group in self._groups(frames) for found in self._detections(group, least)], None

    def _detections(self, frames: Sequence[Frame], least: float) -> Iterator[Detections]:
        slots = self._look(frames)
        for frame, logits, masks in zip(frames, slots.class_logits, slots.mask_logits, strict=True):
            yield self._found(logits, masks, slots.inside, frame.size, least)

    def _found(
        self,
        logits: Float[Tensor, "n k1"],
        masks: Float[Tensor, "n h w"],
        inside: tuple[int, int],
        size: tuple[int, int],
        least: float = 0.0,
    ) -> Detections:
        """Queries by their best class; its probability, times how sure the mask is inside, is the score, of which the
        `least` stays.
        """
        likely, labels = logits.softmax(1)[:, :-1].max(1)
        rows = likely.argsort(descending=True, stable=True)[: self.at_most]
        rows = rows[likely[rows] >= least]  # a mask can only lower the score
        parts = [Detections.none(size)]
        for some in torch.split(rows, AT_ONCE) if len(rows) else ():
            maps = resize_to_frame(masks[some], inside, size)
            scores = likely[some] * score_mask_certainty(maps)
            parts.append(Detections((maps > 0).cpu(), scores.cpu(), labels[some].cpu()))
        found = concat_detections(parts)
        found = found[(found.scores >= least) & found.masks.flatten(1).any(1)]
        return found[found.scores.argsort(descending=True, stable=True)]

    # -- for trackers

    def at_side(self, shortest: int) -> Mask2Former:
        """The same network, looking at frames with a short side of `shortest` pixels."""
        other = copy(self)
        other.shortest = shortest
        return other

    def slots(self, frames: Sequence[Frame]) -> FrameSlots:
        """All queries of a window of frames of one size (at least one), on the network's device."""
        parts = [self._look(group) for group in self._groups(frames)]
        return FrameSlots(
            torch.cat([p.queries for p in parts]),
            torch.cat([p.class_logits for p in parts]),
            torch.cat([p.pixel_features for p in parts]),
            torch.cat([p.mask_logits for p in parts]),
            parts[0].inside,
        )

    # -- the network

    def pixels(self, frames: Sequence[Frame]) -> tuple[Float[Tensor, "t 3 h w"], tuple[int, int]]:
        """The network's input, padded on the right and below; and h, w of what is not padding."""
        return self.network.prepare(frames, self.shortest, self.device)

    def _groups(self, frames: Sequence[Frame]) -> list[Sequence[Frame]]:
        return [frames[n : n + self.at_once] for n in range(0, len(frames), self.at_once)]

    @torch.no_grad()
    def _look(self, frames: Sequence[Frame]) -> FrameSlots:
        """One pass; in bfloat16 on a GPU."""
        images, inside = self.pixels(frames)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            answer = self.network.look(images)
        pixels, masks = answer.pixel_features.float(), answer.mask_logits.float()
        return FrameSlots(answer.queries.float(), answer.class_logits.float(), pixels, masks, inside)


class PanopticMask2Former(Mask2Former):
    """The same as a panoptic segmenter of single frames (Mask2Former's panoptic inference): no pixel is in two
    segments, and those of one stuff category are one. Segments score their query's best class.
    """

    def __init__(self, net: Any, *, overlap: float = 0.8, **more: Any) -> None:
        """`overlap`: share of its own pixels that a segment must win; `more` as of `Mask2Former`."""
        super().__init__(net, **more)
        self.overlap, self.stuff = overlap, find_stuff(self.categories)
        self.advice = {"stuff": self.stuff}  # for systems that tell things from stuff
        self.description += ", panoptic"

    def segment_above(
        self, memory: None, frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], None]:
        """All segments: which they are depends on the others, so that none is left out for what it scores."""
        return super().segment_above(memory, frames, future, self.threshold)

    def _found(
        self,
        logits: Float[Tensor, "n k1"],
        masks: Float[Tensor, "n h w"],
        inside: tuple[int, int],
        size: tuple[int, int],
        least: float = 0.0,
    ) -> Detections:
        """Each pixel goes to the query of greatest score x probability, where that is half or more."""
        likely, labels = logits.softmax(1).max(1)
        rows = ((labels < len(self.categories)) & (likely > least)).nonzero()[:, 0]
        if not len(rows):
            return Detections.none(size)
        soft = resize_to_frame(masks[rows], inside, size).sigmoid()
        winner = (soft * likely[rows, None, None]).argmax(0)
        own = soft >= 0.5
        won = (winner[None] == torch.arange(len(rows), device=winner.device)[:, None, None]) & own
        share = won.flatten(1).sum(1) / own.flatten(1).sum(1).clamp(min=1)
        kept = ((share >= self.overlap) & won.flatten(1).any(1)).nonzero()[:, 0]
        found = Detections(won[kept].cpu(), likely[rows[kept]].cpu(), labels[rows[kept]].cpu())
        return join_stuff(found, [self.categories.index(name) for name in self.stuff])


def join_stuff(found: Detections, stuff: Sequence[int]) -> Detections:
    """Detections in which those of one category of `stuff` are one, which scores as the best of them."""
    parts = [found[[row]] for row in range(len(found)) if int(found.labels[row]) not in stuff]
    for label in stuff:
        alike = found[found.labels == label]
        if len(alike):
            parts.append(Detections(alike.masks.any(0)[None], alike.scores.max()[None], alike.labels[:1]))
    return concat_detections(parts or [found])


def resize_to_frame(
    logits: Float[Tensor, "n h w"], inside: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "n h2 w2"]:
    """Mask logits at a frame's `size` (h, w): `logits`, at stride 4, are resized to the network's input, cut to the
    part `inside` (h, w) that is not padding, and resized to the frame, each bilinear.
    """
    h, w = logits.shape[1:]
    return resize_bilinear(resize_bilinear(logits, (h * STRIDE, w * STRIDE))[:, : inside[0], : inside[1]], size)


def score_mask_certainty(maps: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """The mean probability of the pixels inside each mask, 0 of an empty one (Mask2Former's instance inference)."""
    within = maps > 0
    return (maps.sigmoid() * within).flatten(1).sum(1) / (within.flatten(1).sum(1) + 1e-6)


def concat_detections(parts: Sequence[Detections]) -> Detections:
    """Detections of one frame put together."""
    return Detections(*(torch.cat([getattr(p, n) for p in parts]) for n in ("masks", "scores", "labels")))


def load_mask2former(
    name: str | Path,
    device: torch.device,
    *,
    shortest: int | None = None,
    settings: Mask2FormerSettings | None = None,
) -> Mask2Former:
    """A segmenter with the weights that `mask2former_weights.build_mask2former` makes of a name. Nothing is fetched.

    Args:
        name: a name of ours, a hub id, a folder or an official checkpoint.
        device: where it computes.
        shortest: pixels of the short side; None: as the official code tests such weights (800, of video less).
        settings: what is set of it; None: nothing.
    """
    at = settings or Mask2FormerSettings()
    built = build_mask2former(name, at.categories)
    net: Any = built.net
    shared: dict[str, Any] = {"shortest": shortest or built.shortest, "weights": built.weights, "at_most": at.at_most}
    if at.task == "panoptic":
        return PanopticMask2Former(net.to(device), threshold=at.threshold or 0.8, overlap=at.overlap, **shared)
    return Mask2Former(net.to(device), threshold=at.threshold, **shared)
