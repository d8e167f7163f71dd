"""DVIS's tables in small: trackers and refiners, trained many clips at a time over what the segmenter says.

The losses are those of `masklet.train`, but over all cells of a mask in place of points, and over all clips of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from tables_dvis_clips import KINDS, MOST, Extent, SegmentedClips
from torch import Tensor

from masklet.core.matching import solve_assignment
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.train.losses import LossSettings, compute_class_loss
from masklet.train.tasks.dvis import initialize_from_minvis

AT = LossSettings()

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
    """What it costs that a query is an object (v n g), in the frame in which that is `first` (v g) seen.

    `logits` (v t n k1) and `masks` (v t n h w) are predictions of the same clips.
    """
    rows = torch.arange(len(clips), device=first.device)[:, None]
    found = masks[rows, first].float().flatten(3)  # v g n p
    wanted = clips.truth[rows, torch.arange(MOST, device=first.device), first].float().flatten(2)[:, :, None]  # v g 1 p
    likely = found.sigmoid()
    mask = (found * (1 - wanted) - likely.clamp(min=1e-12).log()).mean(3)  # binary cross-entropy
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
    seen = replace(seen, pixels=seen.pixels.float())
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
