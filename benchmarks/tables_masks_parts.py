"""What the rows of the tables are made of, beside what the package has: counters, and what DEVA is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool
from tables_masks_clips import Scene
from torch import Tensor

from masklet.api import open_source
from masklet.core.frames import Frame, Video, iterate_with_future
from masklet.core.instances import Branches, Detections, Prediction
from masklet.core.masks import mask_iou
from masklet.core.matching import match
from masklet.core.progress import discard_progress
from masklet.core.protocols import Segmenter, VideoSystem, Watch
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.vos.measures import find_given_objects
from masklet.models.encoder import Encoder
from masklet.models.nano.network import SURE
from masklet.models.nano.propagator import Nano, NanoFeatures, NanoMemory
from masklet.models.sam2.memory import MemoryPolicy
from masklet.nn.flow import compute_dense_flow
from masklet.systems.deva import online as deva
from masklet.systems.sam2long import MemoryTree, PathwayMemory

Masks = Bool[Tensor, "n h w"]
Noted = dict[str, list[bool]]


@dataclass(frozen=True)
class Bench:
    """The parts that all rows are made of."""

    encoder: Encoder
    net: Any  # of the nano propagator
    finder: Callable[[Scene], Segmenter[Any]]

    def nano(self, policy: MemoryPolicy | None = None, kind: type[Nano] = Nano) -> Nano:
        """The propagator."""
        return kind(self.net, self.encoder, policy)


def watched(system: VideoSystem, scene: Scene) -> VideoResult:
    """What a system finds."""
    with open_source(scene.images) as video:
        return system.run(video, discard_progress)


def asked(finder: Segmenter[Any], of: Any) -> Any:
    """The settings, with those that the segmenter asks for."""
    return of(**{f.name: getattr(finder, f.name) for f in fields(of) if hasattr(finder, f.name)})


# -- SAM2Long


@dataclass(frozen=True)
class Counted(MemoryTree[Any, Any]):
    """The tree, and a note of every object's frame: whether pathways are apart, whether it will be remembered."""

    noted: Noted = field(default_factory=lambda: {"apart": [], "reliable": []})

    def predict(self, memory: PathwayMemory[Any], features: Any) -> Branches:
        """As the tree."""
        belief = super().predict(memory, features)
        moved = (belief.origins != belief.origins[:, :1]) | (belief.hypotheses != belief.hypotheses[:, :1])
        remembered = (belief.quality[:, 0] > self.propagator.policy.quality) & (belief.presence[:, 0] > 0)
        self.noted["apart"] += moved.any(1).tolist()
        self.noted["reliable"] += remembered.tolist()
        return belief


def given(scene: Scene) -> dict[int, dict[int, Tensor]]:
    """The masks of the first frame that has any."""
    start, ids = find_given_objects(scene.labels)
    return {start: {i: torch.from_numpy(scene.labels[start] == i) for i in ids}}


# -- DEVA


class Unaligned(Nano):
    """A propagator to which frames of a clip look as if nothing had moved (DEVA's Table 5, no spatial alignment)."""

    def carry(self, masks: Mapping[int, Tensor], source: NanoFeatures, target: NanoFeatures) -> Prediction:
        """The masks as they are."""
        logits = torch.stack([torch.where(m, SURE, -SURE) for m in masks.values()])[:, None]
        sure = torch.ones(len(masks), 1)
        return Prediction(tuple(masks), logits, sure, sure)


class ShortTrack(Nano):
    """A propagator that remembers the last frame and nothing else (DEVA's Table 6)."""

    def commit(self, memory: NanoMemory, features: NanoFeatures, belief: Prediction) -> NanoMemory:
        """A memory that begins with this frame; what is not seen in it is not remembered."""
        masks = dict(zip(belief.ids, belief.masks(features.size), strict=True))
        there = {id: mask for id, mask in masks.items() if mask.any()}
        return self.prompt(self.empty(), features, there)[0] if there else self.empty()


Carry = Callable[[Masks, Frame, Frame], Masks]


def still(masks: Masks, before: Frame, now: Frame) -> Masks:
    """Masks where they were."""
    return masks


def flown(masks: Masks, before: Frame, now: Frame) -> Masks:
    """Masks where optical flow carries them (DIS; the paper: RAFT)."""
    grey = [cv2.cvtColor(f.image, cv2.COLOR_RGB2GRAY) for f in (now, before)]
    flow = compute_dense_flow(grey[0], grey[1])
    h, w = now.size
    x, y = np.arange(w, dtype=np.float32)[None] + flow[..., 0], np.arange(h, dtype=np.float32)[:, None] + flow[..., 1]
    moved = [cv2.remap(m.numpy().astype(np.uint8), x, y, cv2.INTER_NEAREST) > 0 for m in masks]
    return torch.from_numpy(np.stack(moved)) if moved else masks


@dataclass(frozen=True)
class ByDetection:
    """Tracking by detection, to which DEVA is compared (4.5.3): the detections of every frame, matched by mask IoU
    with those of the frame before. What is not detected is not there, and comes back as another object.
    """

    finder: Segmenter[Any]
    carry: Carry
    bench: Bench

    def run(self, video: Video, watch: Watch) -> VideoResult:
        """All masklets of a video; its detections are DEVA's."""
        looks = deva.Deva(self.finder, self.bench.nano(), asked(self.finder, deva.DevaSettings))
        sight, before, numbers = self.finder.empty(), None, count(1)
        known, ids, pages = Detections.none(video.size).masks, list[int](), dict[int, dict[int, Sighting]]()
        for frame, future in iterate_with_future(video, self.finder.look_ahead):
            segments, sight = looks.find(sight, frame, future, needed=True)
            found = segments.layers[0].stack()
            expected = self.carry(known, before, frame) if before else known
            links = {c: r for r, c in match(mask_iou(expected, found).numpy(), 0.5).pairs}
            ids = [ids[links[c]] if c in links else next(numbers) for c in range(len(found))]
            for id, mask, said in zip(ids, found, segments.said, strict=True):
                seen = Sighting(Rle.encode(mask), Source.DETECTED, said.scores[0], 0)
                pages.setdefault(id, {})[frame.index] = seen
            known, before = found, frame
        masklets = tuple(Masklet(id, p, 0, sum(s.score for s in p.values()) / len(p)) for id, p in pages.items())
        made = Provenance("by detection")
        return VideoResult(video.name, video.size, len(video), video.rate, masklets, self.finder.categories, made)
