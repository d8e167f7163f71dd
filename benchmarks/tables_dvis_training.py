"""DVIS's tables in small: trackers and refiners, trained many clips at a time over what the segmenter says.

The losses are those of `masklet.train`, but over cells of a mask, drawn for each step, in place of points between them,
and over all clips of a step.
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
from masklet.nn.query_layers import SelfAttention
from masklet.nn.referring_tracker import ReferringTracker, StandardCrossAttention, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.train.losses import LossSettings, compute_class_loss
from masklet.train.tasks.dvis import initialize_from_minvis

AT = LossSettings()

Start = Literal["similarity", "minvis", "paper"]


@dataclass(frozen=True)
class Recipe:
    """How a tracker is trained; the paper's where there is a choice, but for its length."""

    frames: int = 5  # of a clip
    rate: float = 1e-3
    schedule: Literal["step", "cosine"] = "step"  # a tenth at 70 %, as in the paper
    batch: int = 0  # clips of a step; 0: the extent's
    guided: float = 0.5  # share of the steps in which the segmenter decides who is who
    start: Start = "similarity"  # what is alike is looked at; or as `masklet train tracker` begins; or all at random
    cells: int = 96  # of a mask, that a step looks at; 0: all
    noise: float = 0.0  # share of frames whose initial values are noisy (DVIS++)
    tracker: Mapping[str, Any] = field(default_factory=dict)  # TrackerSettings


def follow_clips(
    net: ReferringTracker, clips: SegmentedClips, disturb: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Each layer's normed output (l v t n c): what `net` makes of clips of the same length, all at once. What is looked
    at in all frames is projected once; a test holds it against the network itself.
    """
    queries, last = clips.queries, None
    matched = queries.gather(2, clips.orders[..., None].expand_as(queries))
    crosses = [layer.multihead_attn for layer in net.transformer_cross_attention_layers]
    seen = [project_keys(attention, queries) for attention in crosses]
    outputs: list[Tensor] = []
    for t in range(queries.shape[1]):
        frame = queries[:, t]
        x = frame if last is None else net.initialize(frame, disturb(matched[:, t]), last)
        layers = []
        for n, cross in enumerate(net.transformer_cross_attention_layers):
            looking = x if last is None else last
            kept = looking if isinstance(cross, StandardCrossAttention) else x
            x = cross.norm(kept + look_at_keys(crosses[n], looking, *(one[:, t] for one in seen[n])))
            x = net.transformer_ffn_layers[n](look_at_each_other(net.transformer_self_attention_layers[n], x))
            layers.append(x)
        last = x
        outputs.append(torch.stack(layers))
    normed: Tensor = net.decoder_norm(torch.stack(outputs, 2))
    return normed


def project_keys(attention: torch.nn.MultiheadAttention, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (v t h n d) of what is looked at (v t n c)."""
    c = attention.embed_dim
    both = nnf.linear(seen, attention.in_proj_weight[c:], attention.in_proj_bias[c:])
    keys, values = both.unflatten(-1, (2, attention.num_heads, attention.head_dim)).permute(3, 0, 1, 4, 2, 5)
    return keys, values


def look_at_keys(attention: torch.nn.MultiheadAttention, looking: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What `looking` (v n c) finds among projected keys and values (v h m d)."""
    c = attention.embed_dim
    asked = nnf.linear(looking, attention.in_proj_weight[:c], attention.in_proj_bias[:c])
    found = nnf.scaled_dot_product_attention(
        asked.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2), keys, values
    )
    return attention.out_proj(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def look_at_each_other(layer: SelfAttention, x: Tensor) -> Tensor:
    """`layer` of x (v n c), without the wrapping of PyTorch's module: a third of its time at this size."""
    attention = layer.self_attn
    every = nnf.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    asked, keys, values = every.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
    found = nnf.scaled_dot_product_attention(asked, keys, values)
    return layer.norm(x + attention.out_proj(found.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


def predict_masks(net: ReferringTracker | TemporalRefiner, normed: Tensor, pixels: Tensor) -> Tensor:
    """Mask logits (v t n h w) of normed outputs (v t n c)."""
    return torch.einsum("vtnd,vtdhw->vtnhw", net.mask_embed(normed), pixels.float())


Predictor = Callable[[Tensor, int], Tensor]  # mask logits (r n p) of some clips in a frame


@torch.no_grad()
def compute_costs(logits: Tensor, predict: Predictor, clips: SegmentedClips) -> Tensor:
    """What it costs that a query is an object (v n g), in the frame in which that is first seen; 0 where it never is.

    `logits` (v t n k1) are class logits; `predict` gives the mask logits of the same queries.
    """
    first, there = find_objects(clips)
    likely = logits.softmax(-1)
    costs = logits.new_zeros(len(clips), logits.shape[2], MOST)
    for t in first[there].unique().tolist():
        new = (first == t) & there
        rows = new.any(1).nonzero()[:, 0]
        found, wanted = predict(rows, t).float(), clips.truth[rows, :, t].flatten(2).float()
        right = likely[rows, t].gather(2, clips.labels[rows][:, None].expand(-1, logits.shape[2], -1))
        cost = compare_masks(found, wanted) - AT.classes * right
        costs[rows] = torch.where(new[rows][:, None], cost, costs[rows])
    return costs


def compare_masks(found: Tensor, wanted: Tensor) -> Tensor:
    """The cost (v n g) of mask logits (v n p) against masks (v g p): weighted cross-entropy and dice."""
    mask = (nnf.softplus(-found) @ wanted.mT + nnf.softplus(found) @ (1 - wanted).mT) / found.shape[2]
    likely = found.sigmoid()
    dice = 1 - (2 * likely @ wanted.mT + 1) / (likely.sum(2)[:, :, None] + wanted.sum(2)[:, None] + 1)
    return AT.mask * mask + AT.dice * dice


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
    return clips.visible.int().argmax(2), clips.visible.any(2) & clips.real


def guide_by_segmenter(clips: SegmentedClips) -> Tensor:
    """Pairs by the segmenter's own answers, in the order of the tracks (v g)."""
    rows = clips.orders
    logits = clips.logits.gather(2, rows[..., None].expand(*rows.shape, clips.logits.shape[-1]))
    masks = clips.masks.gather(2, rows[..., None, None].expand_as(clips.masks)).flatten(3)
    return pair_queries(compute_costs(logits, lambda some, t: masks[some, t], clips), *find_objects(clips))


def pair_by_own(
    net: ReferringTracker | TemporalRefiner, normed: Tensor, logits: Tensor, clips: SegmentedClips
) -> Tensor:
    """Pairs by a layer's own answers (v g)."""

    def predict(rows: Tensor, t: int) -> Tensor:
        return net.mask_embed(normed[rows, t]) @ clips.pixels[rows, t].flatten(2)  # type: ignore[no-any-return]

    return pair_queries(compute_costs(logits, predict, clips), *find_objects(clips))


def compute_losses(
    net: ReferringTracker | TemporalRefiner, normed: Tensor, logits: Tensor, clips: SegmentedClips, pairs: Tensor | None
) -> Tensor:
    """The sum of the losses of one layer's output (v t n c): class, mask and dice of all frames, over all cells.

    `logits` (v t n k1) are its class logits; `pairs` None: by its own predictions.
    """
    _, there = find_objects(clips)
    if pairs is None:
        pairs = pair_by_own(net, normed.detach(), logits.detach(), clips)
    v, t, n, k1 = logits.shape
    targets = torch.full((v, n + 1), k1 - 1, device=logits.device)  # the last column takes what is no object
    targets.scatter_(1, pairs.where(there, torch.tensor(n, device=pairs.device)), clips.labels)
    told = targets[:, None, :n].expand(v, t, n).flatten(0, 1)
    chosen = normed.gather(2, pairs[:, None, :, None].expand(v, t, MOST, normed.shape[3]))
    found = (net.mask_embed(chosen) @ clips.pixels.flatten(3)).transpose(1, 2)[there]  # objects, frames, cells
    wanted = clips.truth[there].float().flatten(2)
    likely = found.sigmoid()
    mask = nnf.binary_cross_entropy_with_logits(found, wanted)
    dice = (1 - (2 * (likely * wanted).sum(2) + 1) / (likely.sum(2) + wanted.sum(2) + 1)).mean()
    return AT.classes * compute_class_loss(logits.flatten(0, 1), told, AT.no_object) + AT.mask * mask + AT.dice * dice


def draw_clips(
    clips: SegmentedClips, random: np.random.Generator, count: int, frames: int, cells: int = 0
) -> SegmentedClips:
    """Windows of some clips, half of them backward in time; of masks and pixels only so many `cells`, if any are said,
    the same of all clips (v t ... 1 cells).
    """
    start = int(random.integers(clips.queries.shape[1] - frames + 1))
    rows = torch.from_numpy(random.integers(len(clips), size=count))
    seen = clips.window(start, start + frames)[rows]
    if cells:
        some = torch.from_numpy(random.permutation(seen.truth.shape[-2] * seen.truth.shape[-1])[:cells])
        few = {name: getattr(seen, name).flatten(-2)[..., None, some] for name in ("pixels", "masks", "truth")}
        seen = replace(seen, **few)
    seen = replace(seen, pixels=seen.pixels.float())
    return seen.reversed() if random.random() < 0.5 else seen


def run_steps(net: Any, steps: int, recipe: Recipe, loss: Callable[[int], Tensor]) -> None:
    """AdamW as in the paper, with the recipe's rate."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.05, fused=True)
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
    if recipe.start != "paper":
        initialize_from_minvis(net, segmenter.net)
    if recipe.start == "similarity":
        look_at_what_is_alike(net)
    net.to(device)

    def loss(step: int) -> Tensor:
        seen = draw_clips(clips, random, recipe.batch or extent.batch, recipe.frames, recipe.cells).to(device)
        pairs = guide_by_segmenter(seen) if step < recipe.guided * extent.steps else None
        normed = follow_clips(net, seen, lambda x: disturb_queries(x, recipe.noise))
        return sum(compute_losses(net, layer, net.classify(layer), seen, pairs) for layer in normed)  # type: ignore[return-value]

    run_steps(net, extent.steps, recipe, loss)
    return net.eval()


SHARPNESS = 2.0  # of the first look: as many times Xavier's weights


@torch.no_grad()
def look_at_what_is_alike(net: ReferringTracker) -> None:
    """Cross-attention of a new tracker that begins as a soft form of MinVIS's matching: keys are projected like what
    looks, so that a track finds the frame's query that is most like its last output; and it gets that as it is.
    """
    for layer in net.transformer_cross_attention_layers:
        attention: Any = layer.multihead_attn
        looks, keys, values = attention.in_proj_weight.chunk(3)
        looks.mul_(SHARPNESS)
        keys.copy_(looks)
        values.copy_(torch.eye(len(values)))
        attention.out_proj.weight.copy_(torch.eye(len(values)))


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
    if recipe.start != "paper":  # heads of the tracker, and layers that add little
        net.class_embed.load_state_dict(tracker.class_embed.state_dict())
        net.mask_embed.load_state_dict(tracker.mask_embed.state_dict())
        for name, weight in net.named_parameters():
            if name.endswith(("out_proj.weight", "out_proj.bias", "linear2.weight", "linear2.bias")) or ".2." in name:
                weight.data.mul_(0.1)
    net.to(device)
    tracker.requires_grad_(False).to(device)

    def loss(step: int) -> Tensor:
        seen = draw_clips(clips, random, recipe.batch or extent.batch, recipe.frames, recipe.cells).to(device)
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
    right = logits.softmax(-1).gather(2, clips.labels[:, None].expand(-1, logits.shape[1], -1))
    _, there = find_objects(clips)
    costs = compare_masks(found, clips.truth.float().flatten(2)) - AT.classes * right
    return pair_queries(costs, torch.zeros_like(clips.labels), there)
