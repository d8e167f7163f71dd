"""Training a segmenter of learnt queries on single frames: Mask2Former's set prediction (Cheng et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from masklet.core.frames import Frame
from masklet.models.mask2former.networks import (
    MEAN,
    MULTIPLE,
    STD,
    QueryNetwork,
    compute_square_size,
    infer_query_sizes,
    wrap_query_network,
)
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.train.assignment import compute_query_costs, find_cheapest_pairs, fit_maps, mark_unused_queries
from masklet.train.data.category_maps import has_same_categories, normalize_category
from masklet.train.data.clips import ClipSource, TrainingClip, seed_item_generator
from masklet.train.data.framing import GREY
from masklet.train.loop.prefetch import PrefetchableTask
from masklet.train.losses import (
    LossSettings,
    QueryPairs,
    Rand,
    build_class_targets,
    compute_class_loss,
    compute_mask_losses,
    make_uniform_sampler,
)
from masklet.train.scoring import compute_image_scores

HELD_OUT = 1_000_003  # the seed of clips for validation, of no training run


@dataclass(frozen=True)
class LayerPredictions:
    """What the queries say after each layer of the decoder, and before the first."""

    logits: Float[Tensor, "l b n k1"]
    masks: Float[Tensor, "l b n h w"]
    pixels: Float[Tensor, "b c h w"]  # what the masks are made from


@dataclass(frozen=True)
class ImageTruth:
    """The objects of one image."""

    masks: Float[Tensor, "g h w"]
    labels: Int64[Tensor, " g"]


class PixelClassSegmenter(nn.Module):
    """A segmenter, and a head that is there in training only: it names each pixel's class from the mask features.

    Queries learn late, from few masks an image; this tells the features below them what matters, from the first step
    (an auxiliary semantic loss, as in MaX-DeepLab, Wang et al. 2021, 3.3).
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.head = nn.Conv2d(infer_query_sizes(net.config).mask_width, net.config.num_labels + 1, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)


class SegmenterTask(PrefetchableTask[list[TrainingClip]]):
    """A `Task`: any Mask2Former or EoMT of transformers' form, on frames of clips."""

    def __init__(
        self,
        net: Any,
        source: ClipSource,
        held_out: Sequence[TrainingClip],
        save: Callable[[Path], None],
        *,
        clips: int = 4,
        frames: int = 1,
        at: LossSettings | None = None,
        pixel_classes: float = 1.0,
    ) -> None:
        """
        Args:
            net: a `Mask2FormerForUniversalSegmentation` or an EoMT with the source's categories, on the device of
                training.
            source: what it is trained on; clips of several sizes are padded to one.
            held_out: what it is validated on.
            save: writes the net's weights.
            clips: clips that go through the network together.
            frames: consecutive frames of each; every one is an image of its own.
            at: weights and points of the losses; None: as published, with as many points as suit the size.
            pixel_classes: weight of the auxiliary loss (`PixelClassSegmenter`).
        """
        self.module = PixelClassSegmenter(net.requires_grad_(True)).to(net.class_predictor.weight.device)
        self.pixel_classes = pixel_classes
        self.net, self.source, self.held_out, self.writes = net, source, held_out, save
        self.clips, self.frames, self.at = clips, frames, at
        self.device = net.class_predictor.weight.device

    def draw(self, random: np.random.Generator) -> list[TrainingClip]:
        """As many clips as go through the network together."""
        return [self.source.clip(random, self.frames) for _ in range(self.clips)]

    def loss_of(self, step: int, drawn: list[TrainingClip], random: np.random.Generator) -> dict[str, Tensor]:
        """Class, mask and dice losses of the clips `drawn`, each the sum over the decoder's layers; and that of the
        pixels' classes. `random` draws the points of the masks. The same in every `step`.
        """
        freeze_batch_norms(self.net)
        network = wrap_query_network(self.net)
        drawn = pad_to_one_size([fit_clip_to_network(clip, network) for clip in drawn])
        images = torch.cat([clip.images for clip in drawn]).to(self.device)
        truths = [truth for clip in drawn for truth in collect_image_truths(clip, self.device, network.multiple)]
        found = predict_layers(self.net, prepare_images(images, network.multiple))
        at = self.at or LossSettings(points=choose_point_count(images.shape[2:]))
        losses = compute_set_losses(found, truths, make_uniform_sampler(random, self.device), at)
        pixels = compute_pixel_class_loss(self.module.head(found.pixels), truths)
        return {**losses, "pixels": self.pixel_classes * pixels}

    def validate(self) -> dict[str, float]:
        """COCO's AP on the held-out frames, in percent (`scoring.compute_image_scores`)."""
        if not self.held_out:
            return {}
        segmenter = Mask2Former(self.net, threshold=0.0, categories=self.source.categories)
        found = [
            segmenter.at_side(min(clip.images.shape[2:])).segment(None, make_segmenter_frames(clip), [])[0]
            for clip in self.held_out
        ]
        return compute_image_scores(self.held_out, found, self.source.categories)

    def save(self, path: Path) -> None:
        """Writes the weights so far to `path`, by the function given for it."""
        self.writes(path)


def draw_held_out_clips(source: ClipSource, clips: int, frames: int = 1) -> list[TrainingClip]:
    """As many clips as `clips` says, of `frames` frames, that no training run draws from a `source` that generates
    them; always the same ones.
    """
    return [source.clip(seed_item_generator(HELD_OUT, n), frames) for n in range(clips)]


def pad_to_one_size(clips: Sequence[TrainingClip]) -> list[TrainingClip]:
    """The clips with grey on the right and below, so that all are as high and as wide as the largest."""
    h, w = (max(clip.images.shape[axis] for clip in clips) for axis in (2, 3))
    padded = []
    for clip in clips:
        below = (0, w - clip.images.shape[3], 0, h - clip.images.shape[2])
        colours = [nnf.pad(clip.images[:, c], below, value=grey) for c, grey in enumerate(GREY)]
        padded.append(replace(clip, images=torch.stack(colours, 1), masks=nnf.pad(clip.masks, below)))
    return padded


def make_segmenter_frames(clip: TrainingClip) -> list[Frame]:
    """A clip's frames, as a segmenter takes them."""
    return [Frame(t, image.permute(1, 2, 0).contiguous().numpy()) for t, image in enumerate(clip.images)]


# -- the network


def rename_class_head(
    head: nn.Linear, old: Sequence[str], new: Sequence[str], seed: int
) -> tuple[nn.Linear, tuple[str, ...]]:
    """A head of classes for the categories `new` from one for the categories `old` (and no object, the last in both):
    what it knows of categories that are in both is kept, the others begin at random by `seed`. The head, and the
    categories that are kept.
    """
    known = {normalize_category(name): n for n, name in enumerate(old)}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = nn.Linear(head.in_features, len(new) + 1).to(head.weight)
    pairs = [(n, known[own]) for n, name in enumerate(new) if (own := normalize_category(name)) in known]
    with torch.no_grad():
        for mine, theirs in [*pairs, (len(new), len(old))]:
            made.weight[mine], made.bias[mine] = head.weight[theirs], head.bias[theirs]
    return made, tuple(new[n] for n, _ in pairs)


def fit_categories(net: Any, categories: Sequence[str], seed: int, heads: Sequence[tuple[nn.Module, str]]) -> list[str]:
    """Makes a Mask2Former `net` one for these `categories`, with new heads of classes where its own are others
    (`rename_class_head`); what is to be said of it. `heads` are the modules with a head, and its name there.
    """
    config = net.config
    old = tuple(config.id2label[n] for n in range(config.num_labels))
    if has_same_categories(old, categories):
        return []
    kept: tuple[str, ...] = ()
    for module, attribute in heads:
        made, kept = rename_class_head(getattr(module, attribute), old, categories, seed)
        setattr(module, attribute, made)
    config.id2label = dict(enumerate(categories))
    config.label2id = {name: n for n, name in enumerate(categories)}
    net.criterion.empty_weight = net.criterion.empty_weight[-1:].repeat(len(categories) + 1)  # not used, but saved
    new = [name for name in categories if name not in kept]
    listed = ", ".join(new[:5]) + (f" and {len(new) - 5} more" if len(new) > 5 else "")
    return [
        f"class head: {len(kept)} of {len(categories)} categories are known by name and kept"
        + (f"; new ones begin at random: {listed}" if new else "; their order is another one")
    ]


def fit_clip_to_network(clip: TrainingClip, network: QueryNetwork) -> TrainingClip:
    """The clip as the network looks at its frames: where that is a square of one size, as large as fits, black on the
    right or below.
    """
    side = network.square
    if side is None:
        return clip
    size = compute_square_size((clip.images.shape[2], clip.images.shape[3]), side)
    images = nnf.interpolate(clip.images.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255)
    padding = (0, side - size[1], 0, side - size[0])
    masks = fit_maps(clip.masks.float(), size, (side, side)).bool()
    return replace(clip, images=nnf.pad(images, padding).to(torch.uint8), masks=masks)


def prepare_images(images: UInt8[Tensor, "b 3 h w"], multiple: int = MULTIPLE) -> Float[Tensor, "b 3 h2 w2"]:
    """The network's input, padded as `Mask2Former.pixels` does, to a `multiple` of pixels."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    h, w = images.shape[2:]
    return nnf.pad((images.float() - mean) / std, (0, -w % multiple, 0, -h % multiple))


def predict_layers(net: Any, images: Float[Tensor, "b 3 h w"]) -> LayerPredictions:
    """One pass with gradients; Mask2Former's pixel decoder stays in float32, as the official code has it."""
    network = wrap_query_network(net)
    decoded = network.decode(network.encode(images), every=True)
    logits, masks = torch.stack(decoded.class_logits), torch.stack(decoded.mask_logits)
    return LayerPredictions(logits.float(), masks.float(), decoded.pixel_features)


def freeze_batch_norms(net: nn.Module) -> None:
    """Batch norms go on with the statistics that they have: the batches here are too small for their own. An EoMT stays
    as it is in use: nothing in it is random.
    """
    if wrap_query_network(net).square is not None:
        net.eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


# -- losses


def collect_image_truths(clip: TrainingClip, device: torch.device, multiple: int = MULTIPLE) -> list[ImageTruth]:
    """What is to be found in each frame of a clip: the objects with a pixel in it, padded as the image is, to a
    `multiple` of pixels.
    """
    h, w = clip.masks.shape[2:]
    masks = nnf.pad(clip.masks, (0, -w % multiple, 0, -h % multiple)).to(device)
    seen: Bool[Tensor, "g t"] = masks.flatten(2).any(2)
    labels = clip.labels.to(device)
    return [ImageTruth(masks[rows, t].float(), labels[rows]) for t, rows in enumerate(seen.unbind(1))]


def choose_point_count(size: Sequence[int]) -> int:
    """Points of a mask: a twelfth of the pixels, which at 388 by 388 is the published number, and not more.

    >>> choose_point_count((1024, 1024)), choose_point_count((96, 160))
    (12544, 1280)
    """
    return min(int(size[0] * size[1] / 12), LossSettings.points)


def compute_set_losses(
    found: LayerPredictions, truths: Sequence[ImageTruth], rand: Rand, at: LossSettings
) -> dict[str, Tensor]:
    """The losses ("class", "mask", "dice") of all layers of `found`, added up: every image's objects `truths` are
    matched anew in each (3.2.2, deep supervision). `at` holds weights and points; `rand` draws the points.
    """
    layers = [
        compute_layer_losses(logits, masks, truths, rand, at)
        for logits, masks in zip(found.logits, found.masks, strict=True)
    ]
    return {name: torch.stack([layer[name] for layer in layers]).sum() for name in layers[0]}


def compute_layer_losses(
    logits: Float[Tensor, "b n k1"],
    masks: Float[Tensor, "b n h w"],
    truths: Sequence[ImageTruth],
    rand: Rand,
    at: LossSettings,
) -> dict[str, Tensor]:
    """The losses of one layer, class `logits` and mask logits `masks` of b images, against the objects `truths` of
    each: the sum over all masks of the images, divided by their number. `at` holds weights and points; `rand` draws the
    points.
    """
    _, n, k1 = logits.shape
    pairs = [
        match_image_queries(own, inside, truth, rand, at)
        for own, inside, truth in zip(logits, masks, truths, strict=True)
    ]
    targets = [build_class_targets(p, truth.labels, n, k1 - 1) for p, truth in zip(pairs, truths, strict=True)]
    told = compute_mask_losses(
        torch.cat([own[p.queries] for own, p in zip(masks, pairs, strict=True)]),
        torch.cat([truth.masks[p.objects] for truth, p in zip(truths, pairs, strict=True)]),
        sum(len(truth.labels) for truth in truths),
        at.points,
        rand,
        at,
    )
    return {"class": at.classes * compute_class_loss(logits, torch.stack(targets), at.no_object), **told}


def compute_pixel_class_loss(logits: Float[Tensor, "b k1 h w"], truths: Sequence[ImageTruth]) -> Float[Tensor, ""]:
    """Cross-entropy of each cell's class, the last one where there is no object."""
    told = torch.stack([build_class_map(truth, logits.shape[1] - 1, logits.shape[2:]) for truth in truths])
    return nnf.cross_entropy(logits.float(), told)


def build_class_map(truth: ImageTruth, classes: int, size: Sequence[int]) -> Int64[Tensor, "h w"]:
    """The class at the middle of each cell of a grid of `size` (h, w) over the image of `truth`; `classes`, their
    number, without an object.
    """
    masks = nnf.interpolate(truth.masks[:, None], tuple(size), mode="nearest-exact")[:, 0] > 0
    told = torch.full(tuple(size), classes, device=masks.device)
    for mask, label in zip(masks, truth.labels, strict=True):
        told[mask] = label
    return told


def match_image_queries(
    logits: Float[Tensor, "n k1"], masks: Float[Tensor, "n h w"], truth: ImageTruth, rand: Rand, at: LossSettings
) -> QueryPairs:
    """Which query is which object of `truth`, in one image, by class `logits` and mask logits `masks`. `at` holds
    weights and points of the costs; `rand` draws the points.
    """
    cost = compute_query_costs(logits, masks, truth.labels, truth.masks, at.points, rand, at)
    return find_cheapest_pairs(cost, mark_unused_queries(len(cost), truth.labels[:0]))
