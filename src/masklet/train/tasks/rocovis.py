"""Training of RoCoVIS (Heo et al.): end to end over clips, one frame after the other, with the functions of inference.

Every query that has been given an object keeps it (unified video label assignment, GenVIS); with UVLA++ one whose
object has disappeared is told an empty mask, and masks of queries without an object are not propagated. The rows of the
paper's ablation (Table 2) are settings: `ROWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.networks import Maps, infer_query_sizes, wrap_query_network
from masklet.models.mask2former.query_blocks import DecodedSlots
from masklet.models.query_video.genvis import GenvisNet, GenvisNetSettings
from masklet.models.query_video.rocovis import RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_model import take_last_layer
from masklet.models.query_video.slot_weights import save_slot_model
from masklet.train.assignment import (
    ClipTargets,
    Occupied,
    collect_targets,
    compute_query_costs,
    find_cheapest_pairs,
    fit_clip_to_input,
    list_seen_queries,
    list_visible_queries,
    mark_held_queries,
    mark_unused_queries,
    match_by_uvla,
    match_first_appearance,
)
from masklet.train.data.clips import ClipSource, TrainingClip, seed_item_generator
from masklet.train.loop.prefetch import PrefetchableTask
from masklet.train.losses import LossSettings, Rand, compute_similarity_loss, compute_uvla_losses, make_uniform_sampler
from masklet.train.scoring import answer_clip, compute_clip_scores
from masklet.train.tasks.dvis import compute_faithfulness_shares, measure_faithfulness
from masklet.train.tasks.segmenter import choose_point_count, fit_clip_to_network, prepare_images

# -- what is trained


@dataclass(frozen=True)
class AblationRow:
    """One row of Table 2: each adds something to the row before it."""

    build: Callable[[nn.Module], Any]  # a SlotNet over a segmenter of queries
    kind: str  # of its files
    plus: bool  # UVLA++ instead of UVLA


ROWS: Mapping[str, AblationRow] = {
    "queries": AblationRow(lambda segmenter: GenvisNet(segmenter, make_genvis_settings(segmenter)), "genvis", False),
    "direct": AblationRow(
        lambda segmenter: RocovisNet(segmenter, RocovisNetSettings(levels=0, suppress=False)), "rocovis", False
    ),
    "masks": AblationRow(lambda segmenter: RocovisNet(segmenter, RocovisNetSettings(suppress=False)), "rocovis", False),
    "uvla++": AblationRow(lambda segmenter: RocovisNet(segmenter, RocovisNetSettings()), "rocovis", True),
}


def make_genvis_settings(segmenter: Any) -> GenvisNetSettings:
    """GenVIS beside a Mask2Former or EoMT: as many object queries and heads, and feed-forward layers as wide."""
    sizes = infer_query_sizes(segmenter.config)
    return GenvisNetSettings(hidden=sizes.hidden, heads=sizes.heads, queries=segmenter.config.num_queries)


def find_ablation_row(name: str) -> AblationRow:
    """A row of Table 2. Raises InputError where there is none of this name."""
    if name not in ROWS:
        raise InputError(f"row = {name}: the rows of the ablation are {', '.join(ROWS)}")
    return ROWS[name]


# -- how


@dataclass(frozen=True)
class RocovisTraining:
    """Settings, GenVIS's where the paper has none."""

    frames: int = 5  # of a clip
    through: int = 5  # frames that gradients go back through; after as many the memory is detached
    row: str = "uvla++"  # of ROWS
    losses: LossSettings | None = None  # None: as published, with as many points as suit the size
    similarity: float = 0.5  # weight of GenVIS's loss of frame and object queries; of its row alone

    def __post_init__(self) -> None:
        if self.frames < 1 or self.through < 1:
            raise InputError(f"frames = {self.frames}, through = {self.through}: both count from 1 on")
        find_ablation_row(self.row)


@dataclass(frozen=True)
class KnownQueries:
    """Which query every object has, after each layer of the decoder; -1 of those that have none yet."""

    queries: tuple[Int64[Tensor, " g"], ...]

    @staticmethod
    def nothing(layers: int, targets: ClipTargets) -> KnownQueries:
        """Before the first frame: no object of `targets` has a query yet, after any of `layers` layers."""
        return KnownQueries((torch.full_like(targets.labels, -1),) * layers)


class RocovisTask(PrefetchableTask[TrainingClip]):
    """A `Task`: all weights of a slot model are trained, or of GenVIS's those that are not its Mask2Former's."""

    def __init__(
        self,
        segmenter: Any,
        source: ClipSource,
        settings: RocovisTraining = RocovisTraining(),
        held_out: Sequence[TrainingClip] = (),
        *,
        device: torch.device | None = None,
        seed: int = 0,
        shortest: int = 480,
        net: Any = None,
    ) -> None:
        """
        Args:
            segmenter: a Mask2Former or EoMT with the source's categories; trained on images, it is the start.
            source: clips to train on.
            settings: of the training.
            held_out: clips to validate on.
            device: where it is trained; None: the CPU.
            seed: of the new weights.
            shortest: pixels of the short side of the clips: the weights' file tells it to those who run it.
            net: the row's network, which was trained before, over this segmenter, with gradients where it is trained;
                None: a new one.

        Raises InputError where the source has other categories than the segmenter.
        """
        names = tuple(segmenter.config.id2label[n] for n in range(segmenter.config.num_labels))
        if names != tuple(source.categories):
            raise InputError(
                f"the clips have {len(source.categories)} categories ({source.categories[0]}, ...), the segmenter "
                f"{len(names)} ({names[0]}, ...); train with a segmenter of these categories"
            )
        self.settings, self.row = settings, find_ablation_row(settings.row)
        self.device = device or torch.device("cpu")
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            begun = self.row.build(segmenter.requires_grad_(True)) if net is None else net
        self.module: Any = begun.to(self.device)
        self.source, self.held_out, self.shortest = source, held_out, shortest

    def draw(self, random: np.random.Generator) -> TrainingClip:
        """A clip of the source to train on, as long as the settings say."""
        return self.source.clip(random, self.settings.frames)

    def loss_of(self, step: int, drawn: TrainingClip, random: np.random.Generator) -> dict[str, Tensor]:
        """Losses of the clip `drawn`: "class", "mask" and "dice", each summed over the layers, the mean over the
        frames; of GenVIS "similarity", too. `random` draws the points of the masks. The same in every `step`.
        """
        return self.clip_losses(drawn, make_uniform_sampler(random, self.device))

    def clip_losses(self, clip: TrainingClip, rand: Rand) -> dict[str, Tensor]:
        """As `loss_of`, of a given clip, frame by frame; `rand` draws the points of the masks."""
        net, at = self.module, self.settings
        images, targets = self._seen(clip)
        encoded, memory, known, total = net.encode(images), net.empty(), None, dict[str, Tensor]()
        for t in range(len(images)):
            if t and t % at.through == 0:
                memory = memory.detached()
            features = tuple(maps[t : t + 1] for maps in encoded)
            decoded = net.decoded(memory, features)
            known = known or KnownQueries.nothing(len(decoded.class_logits), targets)
            shown = select_target_frame(targets, t)
            losses, known = self._frame_losses(decoded, shown, known, rand)
            if self.row.kind == "genvis" and at.similarity:
                losses["similarity"] = self._similarity(decoded, features, shown, known, rand)
            for name, loss in losses.items():
                total[name] = total.get(name, torch.zeros((), device=self.device)) + loss / len(images)
            slots = take_last_layer(decoded)
            memory = net.commit(memory, features, slots, self.trust(known, slots))
        return total

    def _similarity(
        self, decoded: DecodedSlots, features: Maps, targets: ClipTargets, known: KnownQueries, rand: Rand
    ) -> Float[Tensor, ""]:
        """GenVIS's similarity loss in one frame: the segmenter's queries, matched with the objects that are seen, and
        the last layer's object queries that have one.
        """
        own, visible = known.queries[-1], targets.visible[:, 0]
        seen, has = visible.nonzero()[:, 0], (visible & (own >= 0)).nonzero()[:, 0]
        logits, masks = self.module.name_frame_queries(features)
        at = self._losses(targets)
        inside = targets.masks[seen, 0]
        cost = compute_query_costs(logits[0], masks[0], targets.labels[seen], inside, at.points, rand, at)
        pairs = find_cheapest_pairs(cost, mark_unused_queries(len(cost), own[:0]))
        frame, video = self.module.embed_for_similarity(features, decoded.queries)
        similarity = compute_similarity_loss(frame[0][pairs.queries], video[0][own[has]], seen[pairs.objects], has)
        return self.settings.similarity * similarity

    def trust(self, known: KnownQueries, slots: FrameSlots) -> Float[Tensor, "1 n"]:
        """With UVLA++ queries that are an object, visible or not; without, all."""
        everyone = torch.ones_like(slots.class_logits[..., 0])
        if not self.row.plus:
            return everyone
        return everyone * mark_held_queries(known.queries[-1], everyone.shape[1])

    def _frame_losses(
        self, decoded: DecodedSlots, targets: ClipTargets, known: KnownQueries, rand: Rand
    ) -> tuple[dict[str, Tensor], KnownQueries]:
        """Of all layers in one frame; and which query every object has after it."""
        at = self._losses(targets)
        visible = targets.visible[:, 0]
        total, after = dict[str, Tensor](), []
        for logits, masks, before in zip(decoded.class_logits, decoded.mask_logits, known.queries, strict=True):
            masks = masks.transpose(0, 1)  # one video, its frame: n 1 h w
            own = match_by_uvla(logits[0].float(), masks.float(), targets, before, rand, at, OCCUPIED[self.row.plus])
            told = visible | (own >= 0) if self.row.plus else visible
            losses = compute_uvla_losses(
                logits.float(),
                masks[None],
                targets.masks,
                targets.labels,
                own[None],
                rand,
                at,
                visible=visible,
                supervised=told,
            )
            after.append(own)
            for name, loss in losses.items():
                total[name] = total[name] + loss if name in total else loss
        return total, KnownQueries(tuple(after))

    def _losses(self, targets: ClipTargets) -> LossSettings:
        return self.settings.losses or LossSettings(points=choose_point_count(targets.masks.shape[2:]))

    def _seen(self, clip: TrainingClip) -> tuple[Float[Tensor, "t 3 h w"], ClipTargets]:
        """A clip as the network's input, and what there is to see in it."""
        network = wrap_query_network(self.module.segmenter)
        clip = fit_clip_to_network(clip, network)
        images = prepare_images(clip.images.to(self.device), network.multiple)
        h, w = images.shape[2:]
        targets = collect_targets(
            fit_clip_to_input(clip, (clip.images.shape[2], clip.images.shape[3]), (h, w)), len(self.source.categories)
        )
        return images, ClipTargets(*(x.to(self.device) for x in (targets.masks, targets.visible, targets.labels)))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Video AP over the held-out clips, and how well slots stay on their objects, with the trust of inference: see
        `dvis.measure_faithfulness`.
        """
        found, answers = [], []
        for n, clip in enumerate(self.held_out):
            images, targets = self._seen(clip)
            logits, masks = self._followed(images)
            rand = make_uniform_sampler(seed_item_generator(0, n), self.device)
            pairs = match_first_appearance(logits, masks, targets, rand, self._losses(targets))
            found.append(measure_faithfulness(masks[:, pairs.queries], targets, pairs))
            answers.append(answer_clip(logits.float().mean(0).softmax(-1), masks, targets, self.source.categories))
        return compute_clip_scores(answers) | compute_faithfulness_shares(found)

    def _followed(self, images: Float[Tensor, "t 3 _ _"]) -> tuple[Float[Tensor, "t n k1"], Float[Tensor, "t n h w"]]:
        """Class and mask logits of a clip, as at inference."""
        net = self.module
        memory, found = net.empty(), []
        for image in images:
            features = net.encode(image[None])
            slots = take_last_layer(net.decoded(memory, features))
            memory = net.commit(memory, features, slots, net.trust(slots))
            found.append(slots)
        return torch.cat([s.class_logits for s in found]), torch.cat([s.mask_logits for s in found])

    def save(self, path: Path) -> None:
        """Writes the weights as `slot_weights.load_slot_model` reads them."""
        save_slot_model(path, self.row.kind, self.module, self.shortest)


OCCUPIED: Mapping[bool, Occupied] = {True: list_seen_queries, False: list_visible_queries}


def select_target_frame(targets: ClipTargets, t: int) -> ClipTargets:
    """All objects of a clip, in one of its frames."""
    return ClipTargets(targets.masks[:, t : t + 1], targets.visible[:, t : t + 1], targets.labels)
