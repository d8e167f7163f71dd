"""DVIS's tables in small: the clips, as a frozen segmenter sees them once and for all."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from masklet.core.alignment import match_slots
from masklet.core.frames import Frame
from masklet.evaluate.vis.average_precision import compute_occlusion_score
from masklet.evaluate.vis.files import LEVELS as SEVERITY
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import AnnotatedClip, SyntheticClips

SIZE, KINDS = (64, 96), ("star", "ring", "square")
WORLD = SyntheticSettings(
    size=SIZE,
    categories=KINDS,
    objects=(2, 3),
    radius=(0.18, 0.3),
    blur=0.0,
    noise=2.0,
    lookalikes=0.0,  # who comes back from behind something can be told
    exits=0.0,
    visits=0.0,
    hides=0.35,
    rests=0.1,
    speed=0.05,
    camera=0.01,
)
MOST = 3  # objects in a clip


@dataclass(frozen=True)
class Extent:
    """How much is trained and measured: `small` for two CPU cores, `large` for one GPU and under ten minutes."""

    clips: int = 200  # to train on
    length: int = 12  # frames of each, of which a step sees some
    videos: int = 210  # to measure on
    frames: int = 20
    steps: int = 500
    batch: int = 8  # clips of a step
    layers: int = 2  # blocks of tracker and refiner


EXTENTS = {"small": Extent(), "large": Extent(clips=2000, videos=480, steps=2000, batch=64, layers=3)}


@dataclass(frozen=True)
class SegmentedClips:
    """Clips as the frozen segmenter sees them. Rows beyond a clip's own objects are not `real`."""

    queries: Tensor  # v t n c
    logits: Tensor  # v t n k1
    pixels: Tensor  # v t c h w, float16
    masks: Tensor  # v t n h w, float16; mask logits
    orders: Tensor  # v t n, MinVIS's matching through the clip
    truth: Tensor  # v g t h w, float16: which share of a cell is inside
    labels: Tensor  # v g
    real: Tensor  # v g
    visible: Tensor  # v g t
    occlusion: Tensor  # v g, OVIS's score of each object over its clip
    whole: Tensor  # v g t H W; the truth at the frames' size (empty in training)

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, rows: Any) -> SegmentedClips:
        """Some of the clips."""
        return SegmentedClips(*(getattr(self, f.name)[rows] for f in fields(self)))

    def window(self, start: int, stop: int) -> SegmentedClips:
        """Some frames of each, as if the clip began there."""
        first = self.orders[:, start].argsort(1)[:, None].expand(-1, stop - start, -1)
        span = (slice(None), slice(start, stop))
        return replace(
            self,
            queries=self.queries[span],
            logits=self.logits[span],
            pixels=self.pixels[span],
            masks=self.masks[span],
            orders=self.orders[span].gather(2, first),
            truth=self.truth[:, :, start:stop],
            visible=self.visible[:, :, start:stop],
        )

    def reversed(self) -> SegmentedClips:
        """Backward in time, of clips whose matching does not depend on the direction: an assignment does not."""
        turned = {name: getattr(self, name).flip(1) for name in ("queries", "logits", "pixels", "masks")}
        turned |= {name: getattr(self, name).flip(2) for name in ("truth", "visible")}
        last = self.orders[:, -1].argsort(1)[:, None].expand_as(self.orders)
        return replace(self, **turned, orders=self.orders.gather(2, last).flip(1))

    def to(self, device: str) -> SegmentedClips:
        """The same on another device."""
        return SegmentedClips(*(getattr(self, f.name).to(device) for f in fields(self)))


def segment_clips(segmenter: Mask2Former, seed: int, count: int, frames: int, whole: bool) -> SegmentedClips:
    """`count` clips through `segmenter`, of any occlusion."""
    source = SyntheticClips(WORLD)
    made = (source.annotated(seed_item_generator(seed, n), frames) for n in range(count))
    found = [segment_clip(segmenter, one, whole) for one in made]
    return SegmentedClips(*(torch.stack([getattr(one, f.name) for one in found]) for f in fields(SegmentedClips)))


@torch.no_grad()
def segment_clip(segmenter: Mask2Former, made: AnnotatedClip, whole: bool) -> SegmentedClips:
    """One clip, without the axis of clips."""
    clip = made.clip
    images = clip.images.permute(0, 2, 3, 1).numpy()
    slots = segmenter.slots([Frame(t, image) for t, image in enumerate(images)])
    lacking = MOST - len(clip.labels)
    truth = nnf.pad(clip.masks, (0, 0) * 3 + (0, lacking))
    cells = nnf.interpolate(truth.float(), slots.mask_logits.shape[-2:], mode="area")
    return SegmentedClips(
        slots.queries.cpu(),
        slots.class_logits.cpu(),
        slots.pixel_features.half().cpu(),
        slots.mask_logits.half().cpu(),
        follow_queries(slots.queries.cpu()),
        cells.half(),
        nnf.pad(clip.labels, (0, lacking)),
        torch.arange(MOST) < len(clip.labels),
        truth.flatten(2).any(2),
        nnf.pad(torch.tensor(score_occlusion(made)), (0, lacking)),
        truth if whole else truth[:, :, :0],
    )


def score_occlusion(made: AnnotatedClip) -> list[float]:
    """OVIS's score of each object: how much of it is hidden in the worse half of its frames. Frames in which nothing is
    seen of it count as severe; OVIS leaves them out.
    """
    return [compute_occlusion_score([SEVERITY[word or "severe_occlusion"] for word in row]) for row in made.words]


def follow_queries(queries: Tensor) -> Tensor:
    """MinVIS through a clip of queries (t n c): the slot that continues each slot of the first frame (t n)."""
    orders = [torch.arange(queries.shape[1])]
    for before, now in pairwise(queries):
        orders.append(match_slots(before[orders[-1]], now))
    return torch.stack(orders)
