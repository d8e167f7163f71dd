"""Training of DVIS (Zhang et al. 2023, 3.2, 3.3 and 4.1): the referring tracker over a frozen segmenter, then the
temporal refiner over both, each with every layer supervised.

For the first half of the steps the pairs of queries and objects come from what is frozen: from the segmenter for the
tracker, from the tracker for the refiner. After that every layer is matched by its own predictions.

Everything but the segmenter computes in float32 unless bfloat16 is asked for, also on a GPU: its part is small. With
100 queries and images of 480 x 864 pixels that hold 20 objects, a step of the tracker (5 frames) keeps 0.3 GB for its
gradients, one of the refiner (21 frames) 1.4 GB; weights and AdamW's state are 0.16 and 0.23 GB (counted on a CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.protocols import SlotSegmenter
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import list_mask_layers
from masklet.models.query_video.heads import UNTOLD, HeadsOrigin, save_heads
from masklet.nn.referring_tracker import Disturbance, ReferringTracker
from masklet.nn.temporal_refiner import TemporalRefiner
from masklet.train.assignment import (
    ClipTargets,
    Free,
    Labels,
    collect_targets,
    fit_clip_to_input,
    mark_all_queries,
    mark_unused_queries,
    match_first_appearance,
    match_whole_clip,
    take_last_frame_labels,
    take_own_labels,
)
from masklet.train.data.category_maps import has_same_categories
from masklet.train.data.clips import ClipSource, TrainingClip, seed_item_generator
from masklet.train.loop.prefetch import PrefetchableTask
from masklet.train.losses import (
    LossSettings,
    QueryPairs,
    Rand,
    compute_clip_losses,
    compute_frame_losses,
    make_uniform_sampler,
)
from masklet.train.scoring import answer_clip, compute_clip_scores

STRIDE = 4  # of a segmenter's maps in its input

FREE: Mapping[str, Free] = {"once": mark_unused_queries, "released": mark_all_queries}
LABELS: Mapping[str, Labels] = {"own": take_own_labels, "released": take_last_frame_labels}


@dataclass(frozen=True)
class DvisTraining:
    """Settings of both trainings; the paper's where two values are named. "released" are defects of the program that
    made the official weights (docs/dvis.md), for comparison.
    """

    steps: int  # of the training; the first half of them is guided
    frames: int = 5  # of a clip; the paper's refiner has 21
    reverse: float = 0.0  # probability that a clip is played backward; as released 0.5 for the refiner
    losses: LossSettings = field(default_factory=LossSettings)
    given: Literal["once", "released"] = "once"  # a query; released: maybe to several objects (online)
    labels: Literal["own", "released"] = "own"  # released: as annotated in the last frame
    noise: Literal["none", "shuffled", "mixed"] = "none"  # of the tracker's matched queries (DVIS++)
    noisy: float = 0.5  # share of the frames with that noise
    precision: Literal["float32", "bfloat16"] = "float32"  # of the heads; the frozen segmenter has its own

    def __post_init__(self) -> None:
        if self.steps < 1 or self.frames < 1:
            raise InputError(f"steps = {self.steps}, frames = {self.frames}: both count from 1 on")
        if not 0 <= self.noisy <= 1:
            raise InputError(f"noisy = {self.noisy:g}: it is a share of the frames, 0 to 1")

    def guided(self, step: int) -> bool:
        """Whether what is frozen decides the pairs. The step decides, so a run that resumes goes on as it was."""
        return step < self.steps // 2


def compute_in(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """What heads on a `device` are computed in, whatever surrounds them."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


REFINER_FRAMES, REFINER_REVERSE = 21, 0.5  # DVIS 4.1, and the released configurations


def make_refiner_training(steps: int, frames: int = REFINER_FRAMES) -> DvisTraining:
    """The paper's settings for the refiner."""
    return DvisTraining(steps, frames, REFINER_REVERSE)


@torch.no_grad()
def initialize_from_minvis(tracker: ReferringTracker, segmenter: Any) -> None:
    """Gives a new tracker the segmenter's own heads, and layers that add little: it begins about as MinVIS, and has to
    learn only what MinVIS gets wrong. Ours; the paper begins with random heads.

    Args:
        tracker: as wide as the segmenter's queries.
        segmenter: a Mask2Former or an EoMT of transformers (the latter has GELU where the tracker has ReLU).
    """
    for name, weight in tracker.named_parameters():
        if name.endswith(("out_proj.weight", "out_proj.bias", "linear2.weight", "linear2.bias")):
            weight.mul_(0.1)
    own: list[Any] = [tracker.class_embed, *tracker.mask_embed.layers]
    for mine, theirs in zip(own, [segmenter.class_predictor, *list_mask_layers(segmenter)], strict=True):
        mine.weight.copy_(theirs.weight)
        mine.bias.copy_(theirs.bias)


def predict_clip_masks(
    network: ReferringTracker | TemporalRefiner, normed: Float[Tensor, "t n c"], features: Float[Tensor, "t d h w"]
) -> Float[Tensor, "t n h w"]:
    """Mask logits of a clip: `network` compares each frame's normalised queries `normed` with its pixel `features`."""
    return torch.stack([network.predict_masks(q, f) for q, f in zip(normed, features, strict=True)])


@dataclass(frozen=True)
class SegmentedClip:
    """A clip as a segmenter sees it, and what there is to see."""

    slots: FrameSlots
    targets: ClipTargets


class FrozenSegmenter:
    """Clips through a segmenter that is not trained."""

    def __init__(self, segmenter: SlotSegmenter, source: ClipSource, settings: DvisTraining) -> None:
        """Raises InputError where the clips' categories are not the segmenter's."""
        ours, theirs = tuple(source.categories), tuple(segmenter.categories)
        if not has_same_categories(ours, theirs):
            raise InputError(
                f"the clips have {len(ours)} categories ({ours[0]}, ...), the segmenter {len(theirs)} ({theirs[0]}, "
                "...); train with a segmenter of these categories: `masklet train segmenter` makes one"
            )
        self._segmenter, self._source, self._settings = segmenter, source, settings
        self.categories = theirs

    def draw(self, random: np.random.Generator) -> TrainingClip:
        """One more clip, not yet seen."""
        clip = self._source.clip(random, self._settings.frames)
        return play_backward(clip) if random.random() < self._settings.reverse else clip

    @torch.no_grad()
    def seen(self, clip: TrainingClip) -> SegmentedClip:
        """The segmenter's slots of a given clip, and its objects as targets, at the size of the segmenter's input and
        on its device. No gradients.
        """
        slots = self._segmenter.slots([Frame(t, np.asarray(im.permute(1, 2, 0))) for t, im in enumerate(clip.images)])
        h, w = slots.mask_logits.shape[-2:]
        clip = fit_clip_to_input(clip, slots.inside, (h * STRIDE, w * STRIDE))
        targets = collect_targets(clip, len(self.categories), LABELS[self._settings.labels])
        on = slots.queries.device
        return SegmentedClip(slots, ClipTargets(targets.masks.to(on), targets.visible.to(on), targets.labels.to(on)))


def play_backward(clip: TrainingClip) -> TrainingClip:
    """The clip with the order of its frames reversed: images, masks and presence."""
    return replace(clip, images=clip.images.flip(0), masks=clip.masks.flip(1), present=clip.present.flip(1))


def sum_layer_losses(layers: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each loss over all layers."""
    total: dict[str, Tensor] = {}
    for layer in layers:
        for name, loss in layer.items():
            total[name] = total[name] + loss if name in total else loss
    return total


def shuffle_queries(queries: Float[Tensor, "n c"], rand: Rand) -> Float[Tensor, "n c"]:
    """The same `queries` in an order that `rand` draws: none says any more who it was."""
    return queries[rand(len(queries)).argsort()]


def mix_queries(queries: Float[Tensor, "n c"], rand: Rand) -> Float[Tensor, "n c"]:
    """Each of the `queries` mixed with another one, both drawn by `rand`: a weighted sum, 0 to 1 of the other."""
    share = rand(len(queries), 1)
    return (1 - share) * queries + share * shuffle_queries(queries, rand)


NOISES: Mapping[str, Callable[[Tensor, Rand], Tensor]] = {"shuffled": shuffle_queries, "mixed": mix_queries}


def make_query_noise(settings: DvisTraining, rand: Rand) -> Disturbance | None:
    """DVIS++'s training noise (Zhang et al. 2023, "DVIS++"): matched queries that are wrong more often than matching
    makes them, so that a tracker looks at the tracks' last outputs. None where `settings` have none; `rand` draws.
    """
    if settings.noise == "none":
        return None
    noise = NOISES[settings.noise]
    return lambda queries: noise(queries, rand) if float(rand(1)) < settings.noisy else queries


class TrackerTask(PrefetchableTask[TrainingClip]):
    """A `Task`: the tracker is trained, its segmenter is not."""

    def __init__(
        self,
        segmenter: SlotSegmenter,
        tracker: ReferringTracker,
        source: ClipSource,
        settings: DvisTraining,
        held_out: Sequence[TrainingClip] = (),
        origin: HeadsOrigin = UNTOLD,
    ) -> None:
        """
        Args:
            segmenter: stays as it is, on the tracker's device.
            tracker: of as many classes as the segmenter.
            source: clips to train on, with the segmenter's categories.
            settings: of the training.
            held_out: clips to validate on.
            origin: what the weights' file says of the segmenter.
        """
        self.origin = origin
        self.module, self.settings, self.held_out = tracker, settings, held_out
        self._frozen = FrozenSegmenter(segmenter, source, settings)
        self._device = tracker.class_embed.weight.device

    def draw(self, random: np.random.Generator) -> TrainingClip:
        """A clip of the source to train on, played backward as often as the settings say."""
        return self._frozen.draw(random)

    def loss_of(self, step: int, drawn: TrainingClip, random: np.random.Generator) -> dict[str, Tensor]:
        """The losses "class", "mask" and "dice" of the clip `drawn`, each the sum over the layers. `step` decides
        whether the frozen segmenter or the layers themselves give the pairs; `random` draws the points of the masks.
        """
        with compute_in(self.settings.precision, self._device):
            seen, rand = self._frozen.seen(drawn), make_uniform_sampler(random, self._device)
            layers, order, _ = self.module(seen.slots.queries, disturb=make_query_noise(self.settings, rand))
            pairs = self._guide(seen, order, rand) if self.settings.guided(step) else None
            return sum_layer_losses(self._layer(normed, seen, pairs, rand) for normed in layers)

    def _guide(self, seen: SegmentedClip, order: Int64[Tensor, "t n"], rand: Rand) -> QueryPairs:
        """Pairs by the segmenter's own predictions, in the order of the tracks."""
        logits, masks = (
            torch.stack([one[rows] for one, rows in zip(held, order, strict=True)])
            for held in (seen.slots.class_logits, seen.slots.mask_logits)
        )
        return self._paired(logits, masks, seen.targets, rand)

    def _paired(
        self, logits: Float[Tensor, "t n k1"], masks: Float[Tensor, "t n h w"], targets: ClipTargets, rand: Rand
    ) -> QueryPairs:
        at = self.settings
        return match_first_appearance(logits, masks, targets, rand, at.losses, FREE[at.given])

    def _own(self, normed: Float[Tensor, "t n c"], seen: SegmentedClip, rand: Rand) -> QueryPairs:
        """Pairs by a layer's own predictions."""
        with torch.no_grad():
            masks = predict_clip_masks(self.module, normed, seen.slots.pixel_features)
            return self._paired(self.module.classify(normed), masks, seen.targets, rand)

    def _layer(
        self, normed: Float[Tensor, "t n c"], seen: SegmentedClip, pairs: QueryPairs | None, rand: Rand
    ) -> dict[str, Tensor]:
        """The losses of one layer."""
        if pairs is None:
            pairs = self._own(normed, seen, rand)
        masks = predict_clip_masks(self.module, normed[:, pairs.queries], seen.slots.pixel_features)
        truth = seen.targets.masks, seen.targets.labels
        return compute_frame_losses(self.module.classify(normed), masks, *truth, pairs, rand, self.settings.losses)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Video AP over the held-out clips, and how well tracks stay on their objects: see `measure_faithfulness`."""
        found, answers = [], []
        for n, clip in enumerate(self.held_out):
            seen, rand = self._frozen.seen(clip), make_uniform_sampler(seed_item_generator(0, n), self._device)
            normed = self.module(seen.slots.queries)[0][-1]
            pairs, likely = self._own(normed, seen, rand), self.module.classify(normed).mean(0).softmax(-1)
            masks = predict_clip_masks(self.module, normed, seen.slots.pixel_features)
            found.append(measure_faithfulness(masks[:, pairs.queries], seen.targets, pairs))
            answers.append(answer_clip(likely, masks, seen.targets, self._frozen.categories))
        return compute_clip_scores(answers) | compute_faithfulness_shares(found)

    def save(self, path: Path) -> None:
        """Writes the tracker as `query_heads.load_tracker` reads it."""
        save_heads(path, self._frozen.categories, self.origin, tracker=self.module)


class RefinerTask(PrefetchableTask[TrainingClip]):
    """A `Task`: the refiner is trained, its segmenter and tracker are not."""

    def __init__(
        self,
        segmenter: SlotSegmenter,
        tracker: ReferringTracker,
        refiner: TemporalRefiner,
        source: ClipSource,
        settings: DvisTraining,
        held_out: Sequence[TrainingClip] = (),
        origin: HeadsOrigin = UNTOLD,
    ) -> None:
        """
        Args:
            segmenter: stays as it is, on the refiner's device.
            tracker: trained before; stays as it is.
            refiner: of as many classes as both.
            source: clips to train on, with the segmenter's categories.
            settings: of the training, such as `make_refiner_training(steps)`.
            held_out: clips to validate on.
            origin: what the weights' file says of the segmenter.
        """
        self.origin = origin
        self.module, self.settings, self.held_out = refiner, settings, held_out
        self._tracker = tracker.eval()
        self._frozen = FrozenSegmenter(segmenter, source, settings)
        self._device = refiner.class_embed.weight.device

    def draw(self, random: np.random.Generator) -> TrainingClip:
        """A clip of the source to train on, played backward as often as the settings say."""
        return self._frozen.draw(random)

    def loss_of(self, step: int, drawn: TrainingClip, random: np.random.Generator) -> dict[str, Tensor]:
        """The losses "class", "mask" and "dice" of the clip `drawn`, each the sum over the layers. `step` decides
        whether the frozen tracker or the layers themselves give the pairs; `random` draws the points of the masks.
        """
        with compute_in(self.settings.precision, self._device):
            seen, rand = self._frozen.seen(drawn), make_uniform_sampler(random, self._device)
            tracks, context = self._tracked(seen)
            pairs = self._guide(tracks, seen, rand) if self.settings.guided(step) else None
            return sum_layer_losses(self._layer(normed, seen, pairs, rand) for normed in self.module(tracks, context))

    @torch.no_grad()
    def _tracked(self, seen: SegmentedClip) -> tuple[Float[Tensor, "t n c"], Float[Tensor, "t n c"]]:
        """The tracks, and what the refiner looks at."""
        queries = seen.slots.queries
        return self._tracker(queries)[0][-1], self._tracker.alone(queries)

    @torch.no_grad()
    def _guide(self, tracks: Float[Tensor, "t n c"], seen: SegmentedClip, rand: Rand) -> QueryPairs:
        """Pairs by the tracker's predictions, its class logits averaged over the clip."""
        masks = predict_clip_masks(self._tracker, tracks, seen.slots.pixel_features).transpose(0, 1)
        logits = self._tracker.classify(tracks).mean(0)
        return match_whole_clip(logits, masks, seen.targets, rand, self.settings.losses)

    @torch.no_grad()
    def _own(self, normed: Float[Tensor, "t n c"], seen: SegmentedClip, rand: Rand) -> QueryPairs:
        """Pairs by a layer's own predictions."""
        masks = predict_clip_masks(self.module, normed, seen.slots.pixel_features).transpose(0, 1)
        return match_whole_clip(self.module.classify(normed), masks, seen.targets, rand, self.settings.losses)

    def _layer(
        self, normed: Float[Tensor, "t n c"], seen: SegmentedClip, pairs: QueryPairs | None, rand: Rand
    ) -> dict[str, Tensor]:
        """The losses of one layer."""
        if pairs is None:
            pairs = self._own(normed, seen, rand)
        masks = predict_clip_masks(self.module, normed[:, pairs.queries], seen.slots.pixel_features).transpose(0, 1)
        truth = seen.targets.masks, seen.targets.labels
        return compute_clip_losses(self.module.classify(normed), masks, *truth, pairs, rand, self.settings.losses)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Video AP over the held-out clips, scored by refiner and tracker as released, and how well refined tracks stay
        on their objects: see `measure_faithfulness`.
        """
        found, answers = [], []
        for n, clip in enumerate(self.held_out):
            seen, rand = self._frozen.seen(clip), make_uniform_sampler(seed_item_generator(0, n), self._device)
            tracks, context = self._tracked(seen)
            *_, normed = self.module(tracks, context)
            pairs, tracked = self._own(normed, seen, rand), self._tracker.classify(tracks).mean(0).softmax(-1)
            likely = torch.maximum(self.module.classify(normed).softmax(-1), tracked)
            masks = predict_clip_masks(self.module, normed, seen.slots.pixel_features)
            found.append(measure_faithfulness(masks[:, pairs.queries], seen.targets, pairs))
            answers.append(answer_clip(likely, masks, seen.targets, self._frozen.categories))
        return compute_clip_scores(answers) | compute_faithfulness_shares(found)

    def save(self, path: Path) -> None:
        """Writes the refiner, and the tracker that it belongs to, as `query_heads.load_refiner` reads it."""
        save_heads(path, self._frozen.categories, self.origin, tracker=self._tracker, refiner=self.module)


# -- validation


def measure_frame_iou(one: Bool[Tensor, "t m h w"], other: Bool[Tensor, "t g h w"]) -> Float[Tensor, "t m g"]:
    """IoU of all masks of each frame; 0 of two empty ones."""
    a, b = one.flatten(2).float(), other.flatten(2).float()
    both = a @ b.mT
    return both / (a.sum(2)[..., None] + b.sum(2)[:, None] - both).clamp(min=1)


def measure_faithfulness(
    masks: Float[Tensor, "t m h w"], targets: ClipTargets, pairs: QueryPairs
) -> Float[Tensor, " 3"]:
    """Over objects, in the frames in which they are visible: on how many their track still lies (IoU 0.5 or more), on
    how many it lies more on another object; and how many there are. `masks` holds the mask logits of the queries of
    `pairs`, in that order, `targets` the objects.
    """
    maps = nnf.interpolate(masks, targets.masks.shape[-2:], mode="bilinear") > 0
    iou = measure_frame_iou(maps, targets.masks.transpose(0, 1) > 0.5)
    own = iou.gather(2, pairs.objects.expand(len(masks), -1)[..., None])[..., 0]
    there = targets.visible.T[:, pairs.objects]
    kept, swapped = (own >= 0.5) & there, (iou.amax(2) > own) & there
    return torch.stack([kept.sum(), swapped.sum(), targets.visible.sum()]).float()


def compute_faithfulness_shares(found: Sequence[Float[Tensor, " 3"]]) -> dict[str, float]:
    """Shares over all clips; none where there was no object."""
    kept, swapped, there = torch.stack([*found]).sum(0).tolist() if found else (0.0, 0.0, 0.0)
    return {"kept": kept / there, "swapped": swapped / there} if there else {}
