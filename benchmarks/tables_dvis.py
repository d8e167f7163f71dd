"""DVIS's tables in small: Tables 5 to 8, I and II, and why a referring tracker stays unused or is used.

    python benchmarks/tables_dvis.py clips         # once: what the frozen segmenter says of generated clips
    python benchmarks/tables_dvis.py run           # every row over three seeds; goes on where it was stopped
    python benchmarks/tables_dvis.py page          # the tables, with a bootstrap over clips and seeds, as Markdown

The segmenter is frozen, so what it says of a clip is computed once (`clips`) and only trackers and refiners are trained.
The world: stars, rings and squares, most of them look-alikes of another one, that cross and hide each other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from masklet.core.alignment import match_slots
from masklet.core.frames import Frame
from masklet.core.matching import solve_assignment
from masklet.core.slots import FrameSlots
from masklet.evaluate.vis.average_precision import (
    GroupMatches,
    ObjectRange,
    PredictedObject,
    TrueObject,
    accumulate_curve,
    assess_predictions,
    compute_defined_mean,
)
from masklet.models.mask2former.segmenter import Mask2Former, load_mask2former, resize_to_frame
from masklet.models.query_video.heads import load_tracker, save_heads
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.systems.ctvis import BankMatching
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.losses import LossSettings, compute_class_loss
from masklet.train.tasks.dvis import initialize_from_minvis

SIZE, KINDS, SEEDS = (64, 96), ("star", "ring", "square"), (0, 1, 2)
WORLD = SyntheticSettings(
    size=SIZE,
    categories=KINDS,
    objects=(2, 4),
    radius=(0.18, 0.32),
    blur=0.0,
    noise=2.0,
    lookalikes=0.8,
    exits=0.0,
    visits=0.0,
    hides=0.2,
    rests=0.1,
    speed=0.05,
    camera=0.01,
)
LEVELS = ("light", "moderate", "heavy")
MOST = 4  # objects in a clip
AT = LossSettings()
TRAINING, HELD_OUT = 1_000, 7_000  # seeds of clips
TOP = 10  # pairs of slot and category that are answered, as MinVIS and DVIS do for YouTube-VIS
ALL = [ObjectRange("")]


@dataclass(frozen=True)
class Extent:
    """How much is trained and measured: `small` for two CPU cores, `large` for one GPU and under ten minutes."""

    clips: int = 300  # to train on
    length: int = 16  # frames of each, of which a step sees some
    videos: int = 240  # to measure on, a third of each level of occlusion
    frames: int = 20
    steps: int = 900
    batch: int = 16  # clips of a step
    layers: int = 2  # blocks of tracker and refiner


EXTENTS = {"small": Extent(), "large": Extent(clips=6000, videos=480, steps=4000, batch=32, layers=6)}


# -- what the segmenter says


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
        )

    def reversed(self) -> SegmentedClips:
        """Backward in time, of clips whose matching does not depend on the direction: an assignment does not."""
        turned = {name: getattr(self, name).flip(1) for name in ("queries", "logits", "pixels", "masks")}
        last = self.orders[:, -1].argsort(1)[:, None].expand_as(self.orders)
        return replace(self, **turned, orders=self.orders.gather(2, last).flip(1), truth=self.truth.flip(2))

    def to(self, device: str) -> SegmentedClips:
        """The same on another device."""
        return SegmentedClips(*(getattr(self, f.name).to(device) for f in fields(self)))


def segment_clips(segmenter: Mask2Former, seed: int, count: int, frames: int, whole: bool) -> SegmentedClips:
    """`count` clips through `segmenter`, the levels of occlusion in turn."""
    sources = [SyntheticClips(replace(WORLD, level=level)) for level in LEVELS]
    found = []
    for n in range(count):
        clip = sources[n % len(LEVELS)].clip(seed_item_generator(seed, n), frames)
        found.append(segment_clip(segmenter, clip, whole))
    return SegmentedClips(*(torch.stack([getattr(one, f.name) for one in found]) for f in fields(SegmentedClips)))


@torch.no_grad()
def segment_clip(segmenter: Mask2Former, clip: TrainingClip, whole: bool) -> SegmentedClips:
    """One clip, without the axis of clips."""
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
        truth if whole else truth[:, :, :0],
    )


def follow_queries(queries: Tensor) -> Tensor:
    """MinVIS through a clip of queries (t n c): the slot that continues each slot of the first frame (t n)."""
    orders = [torch.arange(queries.shape[1])]
    for before, now in zip(queries[:-1], queries[1:], strict=True):
        orders.append(match_slots(before[orders[-1]], now))
    return torch.stack(orders)


# -- training


Start = Literal["minvis", "paper"]


@dataclass(frozen=True)
class Recipe:
    """How a tracker is trained; the paper's where there is a choice, but for its length."""

    frames: int = 5  # of a clip
    rate: float = 1e-3
    schedule: Literal["step", "cosine"] = "step"  # a tenth at 70 %, as in the paper
    batch: int = 0  # clips of a step; 0: the extent's
    guided: float = 0.5  # share of the steps in which the segmenter decides who is who
    start: Start = "minvis"  # heads and small layers, or all at random as in the paper
    noise: float = 0.0  # share of frames whose initial values are noisy (DVIS++)
    tracker: Mapping[str, Any] = field(default_factory=dict)  # TrackerSettings


def follow_clips(
    net: ReferringTracker, clips: SegmentedClips, disturb: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Each layer's normed output (l v t n c): what `net` makes of clips of the same length, all at once."""
    gathered = clips.orders[..., None].expand_as(clips.queries)
    matched = clips.queries.gather(2, gathered)
    outputs: list[Tensor] = []
    for t in range(matched.shape[1]):
        frame = clips.queries[:, t]
        if not outputs:
            outputs.append(torch.stack(net.denoise(frame, None, frame)))
            continue
        last = outputs[-1][-1]
        start = net.initialize(frame, disturb(matched[:, t]), last)
        outputs.append(torch.stack(net.denoise(start, last, frame)))
    normed: Tensor = net.decoder_norm(torch.stack(outputs, 2))
    return normed


def predict_masks(net: ReferringTracker | TemporalRefiner, normed: Tensor, pixels: Tensor) -> Tensor:
    """Mask logits (v t n h w) of normed outputs (v t n c)."""
    return torch.einsum("vtnd,vtdhw->vtnhw", net.mask_embed(normed), pixels.float())


@torch.no_grad()
def compute_costs(logits: Tensor, masks: Tensor, clips: SegmentedClips, first: Tensor) -> Tensor:
    """What it costs that a query is an object, in the frame in which that is `first` (v g) seen (v n g), over all cells.

    `logits` (v t n k1) and `masks` (v t n h w) are predictions of the same clips.
    """
    rows = torch.arange(len(clips), device=first.device)[:, None]
    found = masks[rows, first].float().flatten(3)  # v g n p
    wanted = clips.truth[rows, torch.arange(MOST, device=first.device), first].float().flatten(2)[:, :, None]  # v g 1 p
    mask = (nnf.softplus(-found) * wanted + nnf.softplus(found) * (1 - wanted)).mean(3)
    likely = found.sigmoid()
    dice = 1 - (2 * (likely * wanted).sum(3) + 1) / (likely.sum(3) + wanted.sum(3) + 1)
    labels = clips.labels[:, :, None, None].expand(*found.shape[:3], 1)
    right = logits[rows, first].softmax(-1).gather(3, labels)[..., 0]
    return (AT.mask * mask + AT.dice * dice - AT.classes * right).transpose(1, 2)


def pair_queries(costs: Tensor, first: Tensor, there: Tensor) -> Tensor:
    """The query of each object (v g; 0 where there is no object): in the order of their `first` frames (v g), each
    query once, as DVIS 3.2 has it. `there` (v g) says which are seen at all.
    """
    pairs = np.zeros(first.shape, np.int64)
    for row, (cost, when, some) in enumerate(zip(costs.cpu().numpy(), first.tolist(), there.tolist(), strict=True)):
        free = np.ones(len(cost), bool)
        for t in sorted({w for w, seen in zip(when, some, strict=True) if seen}):
            new = np.array([g for g in range(len(when)) if some[g] and when[g] == t])
            chosen, objects = solve_assignment(cost[np.ix_(free, new)])
            pairs[row, new[objects]] = np.flatnonzero(free)[chosen]
            free[pairs[row, new[objects]]] = False
    return torch.from_numpy(pairs).to(first.device)


def find_objects(clips: SegmentedClips) -> tuple[Tensor, Tensor]:
    """In which frame each object is first seen, and whether it is at all (v g both)."""
    seen = clips.truth.flatten(3).amax(3) > 0
    return seen.int().argmax(2), seen.any(2) & clips.real


def guide_by_segmenter(clips: SegmentedClips) -> Tensor:
    """Pairs by the segmenter's own answers, in the order of the tracks (v g)."""
    first, there = find_objects(clips)
    rows = clips.orders
    logits = clips.logits.gather(2, rows[..., None].expand(*rows.shape, clips.logits.shape[-1]))
    masks = clips.masks.gather(2, rows[..., None, None].expand_as(clips.masks))
    return pair_queries(compute_costs(logits, masks, clips, first), first, there)


def compute_losses(
    net: ReferringTracker | TemporalRefiner, normed: Tensor, logits: Tensor, clips: SegmentedClips, pairs: Tensor | None
) -> Tensor:
    """The sum of the losses of one layer's output (v t n c): class, mask and dice of all frames, over all cells.

    `logits` (v t n k1) are its class logits; `pairs` None: by its own predictions.
    """
    first, there = find_objects(clips)
    if pairs is None:
        with torch.no_grad():
            masks = predict_masks(net, normed, clips.pixels)
        pairs = pair_queries(compute_costs(logits.detach(), masks, clips, first), first, there)
    v, t, n, k1 = logits.shape
    targets = torch.full((v, n + 1), k1 - 1, device=logits.device)  # the last column takes what is no object
    targets.scatter_(1, pairs.where(there, torch.tensor(n, device=pairs.device)), clips.labels)
    told = targets[:, None, :n].expand(v, t, n).flatten(0, 1)
    chosen = normed.gather(2, pairs[:, None, :, None].expand(v, t, MOST, normed.shape[3]))
    found = predict_masks(net, chosen, clips.pixels).transpose(1, 2)[there].flatten(2)  # objects, frames, cells
    wanted = clips.truth[there].float().flatten(2)
    likely = found.sigmoid()
    mask = nnf.binary_cross_entropy_with_logits(found, wanted)
    dice = (1 - (2 * (likely * wanted).sum(2) + 1) / (likely.sum(2) + wanted.sum(2) + 1)).mean()
    return AT.classes * compute_class_loss(logits.flatten(0, 1), told, AT.no_object) + AT.mask * mask + AT.dice * dice


def draw_clips(clips: SegmentedClips, random: np.random.Generator, count: int, frames: int) -> SegmentedClips:
    """Windows of some clips, half of them backward in time."""
    start = int(random.integers(clips.queries.shape[1] - frames + 1))
    seen = clips.window(start, start + frames)[torch.from_numpy(random.integers(len(clips), size=count))]
    return seen.reversed() if random.random() < 0.5 else seen


def run_steps(net: Any, steps: int, recipe: Recipe, loss: Callable[[int], Tensor]) -> None:
    """AdamW as in the paper, with the recipe's rate."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.05)
    seen: list[float] = []
    for step in range(steps):
        share = (
            0.5 * (1 + np.cos(np.pi * step / steps)) if recipe.schedule == "cosine" else 0.1 ** (step >= 0.7 * steps)
        )
        optimizer.param_groups[0]["lr"] = recipe.rate * share * min(1, (step + 1) / 20)
        optimizer.zero_grad(set_to_none=True)
        value = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        seen.append(float(value.detach()))
        if len(seen) == 100:
            print(f"    step {step + 1}: {mean(seen):.3f}", flush=True)
            seen = []


def train_tracker(
    clips: SegmentedClips, segmenter: Mask2Former, seed: int, extent: Extent, recipe: Recipe, device: str
) -> ReferringTracker:
    """A tracker over what the frozen segmenter says of `clips`."""
    torch.manual_seed(seed)
    random = np.random.default_rng((seed, 1))
    net = ReferringTracker(TrackerSettings(**(widths(segmenter, extent) | dict(recipe.tracker))))
    if recipe.start == "minvis":
        initialize_from_minvis(net, segmenter.net)
    net.to(device)

    def loss(step: int) -> Tensor:
        seen = draw_clips(clips, random, recipe.batch or extent.batch, recipe.frames).to(device)
        pairs = guide_by_segmenter(seen) if step < recipe.guided * extent.steps else None
        normed = follow_clips(net, seen, lambda x: disturb_queries(x, recipe.noise))
        return sum(compute_losses(net, layer, net.classify(layer), seen, pairs) for layer in normed)  # type: ignore[return-value]

    run_steps(net, extent.steps, recipe, loss)
    return net.eval()


def disturb_queries(matched: Tensor, share: float) -> Tensor:
    """DVIS++'s noise: in some clips (v n c) the initial values are shuffled, so that only the reference tells them."""
    noisy = torch.rand(len(matched), device=matched.device) < share
    shuffled = torch.rand(matched.shape[:2], device=matched.device).argsort(1)
    return torch.where(noisy[:, None, None], matched.gather(1, shuffled[..., None].expand_as(matched)), matched)


def widths(segmenter: Mask2Former, extent: Extent) -> dict[str, int]:
    """Of heads over the small segmenter."""
    at: Any = segmenter.net.config
    return {
        "classes": len(KINDS),
        "width": at.hidden_dim,
        "heads": at.num_attention_heads,
        "hidden": at.dim_feedforward,
        "mask_width": at.mask_feature_size,
        "layers": extent.layers,
    }


# -- refiner


def refine_clips(net: TemporalRefiner, tracks: Tensor, context: Tensor) -> Iterator[Tensor]:
    """Each layer's normed output (v t n c) of clips of the same length, all at once."""
    v, t, n, c = tracks.shape
    x = tracks
    for layer in range(net.settings.layers):
        x = net.refine_over_time(layer, x.transpose(1, 2).reshape(v * n, t, c)).reshape(v, n, t, c).transpose(1, 2)
        x = net.refine_in_frames(layer, x.reshape(v * t, n, c), context.reshape(v * t, n, c)).reshape(v, t, n, c)
        yield net.decoder_norm(x)


def classify_clips(net: TemporalRefiner, normed: Tensor) -> Tensor:
    """Class logits of each object over its whole clip (v n k1)."""
    return torch.stack([net.classify(one) for one in normed])


def train_refiner(
    clips: SegmentedClips,
    tracker: ReferringTracker,
    segmenter: Mask2Former,
    seed: int,
    extent: Extent,
    recipe: Recipe,
    device: str,
) -> TemporalRefiner:
    """A refiner over a trained tracker, which stays as it is. Guided pairs are the tracker's own."""
    torch.manual_seed(seed)
    random = np.random.default_rng((seed, 2))
    settings = widths(segmenter, extent) | dict(recipe.tracker)
    net = TemporalRefiner(RefinerSettings(**settings))  # type: ignore[arg-type]
    if recipe.start == "minvis":  # heads of the tracker, and layers that add little
        net.class_embed.load_state_dict(tracker.class_embed.state_dict())
        net.mask_embed.load_state_dict(tracker.mask_embed.state_dict())
        for name, weight in net.named_parameters():
            if name.endswith(("out_proj.weight", "out_proj.bias", "linear2.weight", "linear2.bias")) or ".2." in name:
                weight.data.mul_(0.1)
    net.to(device)
    tracker.requires_grad_(False).to(device)

    def loss(step: int) -> Tensor:
        seen = draw_clips(clips, random, recipe.batch or extent.batch, recipe.frames).to(device)
        with torch.no_grad():
            tracks, context = follow_clips(tracker, seen)[-1], tracker.alone(seen.queries.flatten(0, 1))
            guided = step < recipe.guided * extent.steps
            pairs = pair_whole_clips(tracker, tracks, tracker.classify(tracks).mean(1), seen) if guided else None
        total = torch.zeros((), device=device)
        for layer in refine_clips(net, tracks, context.view_as(tracks)):
            logits = classify_clips(net, layer)
            own = pair_whole_clips(net, layer, logits, seen) if pairs is None else pairs
            total = total + compute_losses(net, layer, logits[:, None].expand(-1, recipe.frames, -1, -1), seen, own)
        return total

    run_steps(net, extent.steps, recipe, loss)
    return net.eval()


@torch.no_grad()
def pair_whole_clips(
    net: ReferringTracker | TemporalRefiner, normed: Tensor, logits: Tensor, clips: SegmentedClips
) -> Tensor:
    """DVIS 3.3: one assignment of each whole clip by outputs (v t n c) and class logits (v n k1)."""
    found = predict_masks(net, normed, clips.pixels).transpose(1, 2).flatten(2)  # v n p
    wanted = clips.truth.float().flatten(2)
    mask = (nnf.softplus(-found) @ wanted.mT + nnf.softplus(found) @ (1 - wanted).mT) / found.shape[2]
    likely = found.sigmoid()
    dice = 1 - (2 * likely @ wanted.mT + 1) / (likely.sum(2)[:, :, None] + wanted.sum(2)[:, None] + 1)
    right = logits.softmax(-1).gather(2, clips.labels[:, None].expand(-1, logits.shape[1], -1))
    _, there = find_objects(clips)
    return pair_queries(AT.mask * mask + AT.dice * dice - AT.classes * right, torch.zeros_like(clips.labels), there)


# -- measuring


@dataclass(frozen=True)
class ClipScores:
    """What became of one clip: its predictions by category, and how often an object changed its masklet."""

    groups: tuple[GroupMatches | None, ...]
    switches: int
    objects: int


@torch.no_grad()
def measure_clip(logits: Tensor, masks: Tensor, inside: tuple[int, int], truth: Tensor, labels: Tensor) -> ClipScores:
    """One clip's answer against the truth.

    Args:
        logits: of each slot over the whole clip (n k1).
        masks: mask logits of all slots (t n h w).
        inside: h, w of the frames in the segmenter's input.
        truth: of the objects (g t H W).
        labels: of the objects.
    """
    likely = logits.softmax(-1)[:, :-1]
    best = likely.flatten().sort(descending=True, stable=True)
    slots, names = (best.indices[:TOP] // likely.shape[1]), (best.indices[:TOP] % likely.shape[1])
    found = torch.stack([resize_to_frame(one[slots], inside, SIZE) > 0 for one in masks.float()])  # t m H W
    a, b = found.flatten(2).float(), truth.transpose(0, 1).flatten(2).float()
    both, sums = a @ b.mT, a.sum(2)[..., None] + b.sum(2)[:, None]  # t m g
    iou = (both.sum(0) / (sums.sum(0) - both.sum(0)).clamp(min=1)).double().numpy()
    groups: list[GroupMatches | None] = []
    for k in range(len(KINDS)):
        rows, cols = (names == k).nonzero()[:, 0].tolist(), (labels == k).nonzero()[:, 0].tolist()
        here = [PredictedObject(k, None, 1.0, float(best.values[n])) for n in rows]  # type: ignore[arg-type]
        there = [TrueObject(g + 1, k, None, 1.0) for g in cols]  # type: ignore[arg-type]
        some = bool(rows or cols)
        groups.append(assess_predictions(here, there, iou[np.ix_(rows, cols)], ALL) if some else None)
    return ClipScores(tuple(groups), count_switches(both / (sums - both).clamp(min=1), slots), len(labels))


def count_switches(iou: Tensor, slots: Tensor) -> int:
    """How often the slot that covers an object best (IoU (t m g) of 0.5 or more) is another than the last time."""
    changed = 0
    for track in iou.unbind(2):
        last = None
        for row in track:
            if float(row.max()) >= 0.5:
                best = int(slots[row.argmax()])
                changed += last not in (None, best)
                last = best
    return changed


def compute_ap(scores: Sequence[ClipScores]) -> tuple[float, float]:
    """AP and AP50 in percent."""
    curves = [
        accumulate_curve([one.groups[k] for one in scores if one.groups[k] is not None], 100)  # type: ignore[misc]
        for k in range(len(KINDS))
    ]
    ap = np.stack([c.ap[0] for c in curves])
    return 100 * float(compute_defined_mean(ap) or 0), 100 * float(compute_defined_mean(ap[:, 0]) or 0)


def count_switch_rate(scores: Sequence[ClipScores]) -> float:
    """Changes of masklet for 100 objects."""
    return 100 * sum(one.switches for one in scores) / max(sum(one.objects for one in scores), 1)


# -- rows


@dataclass(frozen=True)
class Row:
    """A row of a table: what is trained, and what it is compared with."""

    told: str
    recipe: Recipe | None = None  # of a tracker; None: nothing is trained
    refiner: Recipe | None = None  # over the tracker of the same seed
    tracker: str = ""  # the row whose tracker the refiner is over
    against: str = ""  # the row whose difference the paper speaks of
    figure: str = ""  # the paper's
    sign: str = ""  # of the paper's difference


NOISY = Recipe(guided=0.0, noise=0.5)
ROWS: Mapping[str, Row] = {
    "minvis": Row("MinVIS", figure="41.6 (Swin-L)"),
    "bank": Row("CTVIS's memory bank, nothing trained", against="minvis"),
    "tracker": Row("referring tracker", replace(NOISY, noise=0.0), against="minvis", figure="47.1 (Swin-L)", sign="+"),
    "noisy": Row("+ DVIS++'s noise in training", NOISY, against="minvis", sign="+"),
    "standard": Row(
        "standard cross-attention",
        replace(NOISY, tracker={"attention": "standard"}),
        against="noisy",
        figure="2.9",
        sign="-",
    ),
    "unmatched": Row(
        "initial value: unmatched queries",
        replace(NOISY, tracker={"initial": "unmatched"}),
        against="noisy",
        figure="29.8",
        sign="-",
    ),
    "zero": Row(
        "initial value: zero", replace(NOISY, tracker={"initial": "zero"}), against="noisy", figure="28.9", sign="-"
    ),
    "previous": Row(
        "initial value: last outputs",
        replace(NOISY, tracker={"initial": "previous"}),
        against="noisy",
        figure="28.3",
        sign="-",
    ),
    "random": Row("the paper's random start", replace(NOISY, start="paper"), against="noisy"),
    "guided": Row("guided by the segmenter for half the steps", replace(NOISY, guided=0.5), against="noisy"),
    "slow": Row("rate 3e-4", replace(NOISY, rate=3e-4), against="noisy"),
    "cosine": Row("cosine schedule", replace(NOISY, schedule="cosine"), against="noisy"),
    "frames 3": Row("clips of 3 frames", replace(NOISY, frames=3), against="noisy", figure="28.3", sign="-"),
    "frames 11": Row("clips of 11 frames", replace(NOISY, frames=11), against="noisy", figure="29.3", sign="-"),
    "batch 1": Row("one clip a step", replace(NOISY, batch=1), against="noisy"),
}
REFINED = Recipe(frames=10, rate=1e-3, batch=6)
for name, removed, figure in (
    ("refiner", "", "49.9 (Swin-L)"),
    ("no long", "long", "31.0"),
    ("no short", "short", "31.8"),
    ("no context", "context", "30.6"),
):
    against = "refiner" if removed else "noisy"
    ROWS = {
        **ROWS,
        name: Row(
            f"refiner{' without ' + removed if removed else ''}",
            refiner=replace(REFINED, tracker={"removed": removed}),
            tracker="noisy",
            against=against,
            figure=figure,
            sign="-" if removed else "+",
        ),
    }


def measure_minvis(clips: SegmentedClips, follow: Callable[[SegmentedClips], Tensor]) -> list[ClipScores]:
    """The segmenter's own answers, in the order that `follow` gives the slots of a clip (t n)."""
    found = []
    for n in range(len(clips)):
        one = clips[n]
        order = follow(one)
        logits = one.logits.gather(1, order[..., None].expand_as(one.logits)).mean(0)
        masks = one.masks.gather(1, order[..., None, None].expand_as(one.masks))
        found.append(measure_clip(logits, masks, SIZE, one.whole[one.real], one.labels[one.real]))
    return found


def follow_by_bank(clip: SegmentedClips) -> Tensor:
    """CTVIS's matching through a clip (t n)."""
    bank, memory, orders = BankMatching(), None, []
    for queries, logits, pixels, masks in zip(clip.queries, clip.logits, clip.pixels, clip.masks, strict=True):
        slots = FrameSlots(queries[None], logits[None], pixels[None].float(), masks[None].float(), SIZE)
        tracked, memory = bank.follow(memory, slots)
        orders.append(tracked.order)
    return torch.stack(orders)


@torch.no_grad()
def measure_heads(
    clips: SegmentedClips, tracker: ReferringTracker, refiner: TemporalRefiner | None, device: str
) -> list[ClipScores]:
    """DVIS's answers, online or refined over the whole clip."""
    found = []
    for start in range(0, len(clips), 24):
        some = clips[start : start + 24]
        seen = replace(some, whole=some.whole[:, :, :0]).to(device)
        normed = follow_clips(tracker, seen)[-1]
        logits, net = tracker.classify(normed).mean(1), tracker
        if refiner is not None:
            context = tracker.alone(seen.queries.flatten(0, 1)).view_as(normed)
            *_, normed = refine_clips(refiner, normed, context)
            logits, net = torch.maximum(classify_clips(refiner, normed).softmax(-1), logits.softmax(-1)).log(), refiner
        for n in range(len(some)):
            masks = predict_masks(net, normed[n : n + 1], seen.pixels[n : n + 1])[0].cpu()
            found.append(
                measure_clip(logits[n].cpu(), masks, SIZE, some.whole[n][some.real[n]], some.labels[n][some.real[n]])
            )
    return found


@dataclass(frozen=True)
class Bench:
    """All that a row needs."""

    out: Path
    extent: Extent
    segmenter: Mask2Former
    training: SegmentedClips
    held_out: SegmentedClips
    device: str

    def measure(self, name: str, seed: int) -> list[ClipScores]:
        """Trains a row and measures it; what is trained is kept in the folder."""
        row = ROWS[name]
        if name == "minvis":
            return measure_minvis(self.held_out, lambda clip: clip.orders)
        if name == "bank":
            return measure_minvis(self.held_out, follow_by_bank)
        tracker = self.tracker(row.tracker or name, seed)
        if row.refiner is None:
            return measure_heads(self.held_out, tracker, None, self.device)
        steps = replace(self.extent, steps=self.extent.steps // 2)
        net = train_refiner(self.training, tracker, self.segmenter, seed, steps, row.refiner, self.device)
        return measure_heads(self.held_out, tracker, net, self.device)

    def tracker(self, name: str, seed: int) -> ReferringTracker:
        """The tracker of a row, trained or from the folder."""
        path, recipe = self.out / f"{name}-{seed}.safetensors", ROWS[name].recipe
        assert recipe is not None
        if not path.exists():
            net = train_tracker(self.training, self.segmenter, seed, self.extent, recipe, self.device)
            save_heads(path, KINDS, tracker=net.cpu())
        return load_tracker(path)[0].requires_grad_(False).to(self.device)


def run_rows(bench: Bench, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Every row of every seed that is not measured yet, seed by seed."""
    for seed in seeds:
        for name in names:
            path = bench.out / f"{name}-{seed}.pt"
            if path.exists() or (seed and name in ("minvis", "bank")):
                continue
            start = time.process_time()
            scores = bench.measure(name, seed)
            seconds = time.process_time() - start
            torch.save([asdict(one) for one in scores], path)
            note(bench.out / "tables_dvis.json", name, seed, summarize(scores) | {"cpu seconds": seconds})


def summarize(scores: Sequence[ClipScores]) -> dict[str, float]:
    """AP, AP50, AP of each level of occlusion, and switches."""
    ap, half = compute_ap(scores)
    levels = {level: compute_ap(scores[n :: len(LEVELS)])[0] for n, level in enumerate(LEVELS)}
    return {"AP": ap, "AP50": half, **levels, "switches": count_switch_rate(scores)}


def note(path: Path, name: str, seed: int, found: Mapping[str, float]) -> None:
    """Adds one run to the file of all, and tells it."""
    done = json.loads(path.read_text()) if path.exists() else {}
    done.setdefault(name, {})[str(seed)] = dict(found)
    path.write_text(json.dumps(done, indent=1) + "\n")
    print(name, seed, {k: round(v, 2) for k, v in found.items()}, flush=True)


def open_clips(path: Path, make: Callable[[], SegmentedClips]) -> SegmentedClips:
    """What is in a file, or what is made and put there."""
    if path.exists():
        return SegmentedClips(**torch.load(path, mmap=True))
    made = make()
    torch.save({f.name: getattr(made, f.name) for f in fields(made)}, path)
    return made


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("clips", "run", "page"))
    parser.add_argument("--out", type=Path, default=Path("out/tables-dvis"))
    parser.add_argument("--start", type=Path, default=Path(__file__).parent / "weights" / "small-segmenter.safetensors")
    parser.add_argument("--extent", choices=EXTENTS, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "page":
        print(make_page(options.out))
        return 0
    at = EXTENTS[options.extent]
    segmenter = load_mask2former(options.start, torch.device(options.device), shortest=SIZE[0])
    clips = (
        open_clips(options.out / f"{name}.pt", lambda how=how: segment_clips(segmenter, *how))
        for name, how in (
            ("training", (TRAINING, at.clips, at.length, False)),
            ("held-out", (HELD_OUT, at.videos, at.frames, True)),
        )
    )
    bench = Bench(options.out, at, segmenter, *clips, options.device)
    if options.what == "run":
        run_rows(bench, options.rows.split(","), [int(s) for s in options.seeds.split(",")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
