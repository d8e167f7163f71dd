"""Training a propagator of SAM 2's kind on clips: a prompt in the first frame, then prediction after prediction,
through the same functions as in use (Ravi et al. 2024, appendix D).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float
from torch import Tensor, nn

from masklet.core.frames import Frame
from masklet.core.instances import Box, Point, Prediction, Prompt
from masklet.core.masks import mask_iou
from masklet.core.protocols import Propagator
from masklet.models.sam2.core import ABSENT
from masklet.train.data.clips import ClipSource, TrainingClip
from masklet.train.loop.prefetch import PrefetchableTask
from masklet.train.losses import dice_loss

TRIES = 20  # clips without an object that could be asked for, after which one is drawn anew
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al. 2017)
JITTER = 0.1  # of a box's sides: how far its corners are off (SAM 2, appendix D)


F = TypeVar("F")  # one frame's features
M = TypeVar("M")  # a memory


@runtime_checkable
class TrainablePropagator(Propagator[F, M], Protocol[F, M]):
    """A propagator over a network whose weights change."""

    def renew(self) -> None:
        """Computes anew what depends on the weights alone, after they have changed."""
        ...


@dataclass(frozen=True)
class PromptSampling:
    """What is asked of a clip, and what wrong answers cost."""

    frames: int = 4
    objects: int = 2  # at most
    smallest: float = 0.002  # of the frame, that the object covers where it is asked for
    boxes: float = 0.15  # share of the objects that are asked for by a box
    clicks: float = 0.1  # the same by a click
    focal: float = 20.0
    dice: float = 1.0
    quality: float = 1.0
    presence: float = 1.0
    others: float = 0.0  # share of its mask losses that a hypothesis other than the best has; SAM 2: none


Mislead = Callable[[Any, Any, Any, Prediction, TrainingClip, np.random.Generator], Any]


def keep_memory(
    propagator: Any, memory: Any, features: Any, belief: Prediction, clip: TrainingClip, random: np.random.Generator
) -> Any:
    """A `Mislead` that gives back `memory`, whatever `propagator`, `features`, `belief`, `clip` and `random` are."""
    return memory


@dataclass(frozen=True)
class PromptedClip:
    """A clip, and the objects that are asked for in its first frame."""

    clip: TrainingClip
    rows: list[int]


class PropagatorTask(PrefetchableTask[PromptedClip]):
    """A `Task`: SAM 2, EdgeTAM excepted, or `Nano`, on clips. Its image encoder should hold still."""

    def __init__(
        self,
        net: nn.Module,
        propagator: Callable[[int], TrainablePropagator[Any, Any]],
        source: ClipSource,
        held_out: Sequence[TrainingClip],
        save: Callable[[Path], None],
        *,
        asking: PromptSampling | None = None,
        mislead: Mislead = keep_memory,
    ) -> None:
        """
        Args:
            net: what of it requires gradients is trained.
            propagator: one over `net`, made with `gradients=True`, for clips of some short side in pixels.
            source: what it is trained on.
            held_out: what it is validated on.
            save: writes the network's weights.
            asking: what is asked; None: a mask, a box or a click in the first of four frames.
            mislead: changes the memory after each frame, so that the network learns to do without parts of it.
        """
        self.module, self.propagator, self.source, self.held_out, self.writes = net, propagator, source, held_out, save
        self.asking, self.mislead = asking or PromptSampling(), mislead

    def draw(self, random: np.random.Generator) -> PromptedClip:
        """A clip with objects that can be asked for."""
        for _ in range(TRIES):
            clip = self.source.clip(random, self.asking.frames)
            clip = reverse_clip_time(clip) if random.random() < 0.5 else clip
            rows = find_visible_objects(clip, self.asking.smallest)
            if rows:
                chosen = random.permutation(rows)[: int(random.integers(1, self.asking.objects + 1))]
                return PromptedClip(clip, chosen.tolist())
        return self.draw(random)

    def loss_of(self, step: int, drawn: PromptedClip, random: np.random.Generator) -> dict[str, Tensor]:
        """Losses by name of the clip `drawn`, whose first frame `random` prompts: means over objects, and over the
        frames after the first and what was answered there to boxes and clicks. The same in every `step`.
        """
        clip, rows = drawn.clip, drawn.rows
        propagator = self.propagator(min(clip.images.shape[2:]))
        propagator.renew()
        features = propagator.encode(make_propagator_frames(clip))
        prompts = {row: draw_prompt(clip.masks[row, 0], random, self.asking) for row in rows}
        memory, answer = propagator.prompt(propagator.empty(), features[0], prompts)
        losses = self._answered(answer, prompts, clip)
        for t in range(1, len(features)):
            belief = propagator.predict(memory, features[t])
            losses.append(compute_belief_losses(belief, clip.masks[rows, t], self.asking))
            belief = clear_absent_masks(belief)
            memory = propagator.commit(memory, features[t], belief)
            memory = self.mislead(propagator, memory, features[t], belief, clip, random)
        return {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}

    def _answered(
        self, answer: Prediction, prompts: dict[int, Prompt], clip: TrainingClip
    ) -> list[dict[str, Float[Tensor, ""]]]:
        """The losses of what was made of boxes and clicks; masks are answered as they are."""
        told = [n for n, row in enumerate(answer.ids) if not isinstance(prompts[row], Tensor)]
        truth = clip.masks[[answer.ids[n] for n in told], 0]
        return [compute_belief_losses(answer.only(told), truth, self.asking)] if told else []

    def validate(self) -> dict[str, float]:
        """The mean mask IoU of held-out objects after a given mask, and the mean error of what is said of it."""
        found = [score for clip in self.held_out for score in self._scores(clip)]
        if not found:
            return {}
        iou, error = np.array(found).T
        return {"iou": float(iou.mean()), "quality error": float(error.mean())}

    def save(self, path: Path) -> None:
        """Writes the weights so far to `path`, by the function given for it."""
        self.writes(path)

    @torch.no_grad()
    def _scores(self, clip: TrainingClip) -> list[tuple[float, float]]:
        """IoU and the error of the predicted one, of every object in every frame that shows it."""
        propagator, rows = self.propagator(min(clip.images.shape[2:])), find_visible_objects(clip, self.asking.smallest)
        propagator.renew()
        first, *others = propagator.encode(make_propagator_frames(clip))
        memory, _ = propagator.prompt(propagator.empty(), first, {row: clip.masks[row, 0] for row in rows})
        scores = []
        for t, features in enumerate(others, start=1):
            belief = clear_absent_masks(propagator.predict(memory, features))
            memory = propagator.commit(memory, features, belief)
            masks, quality = belief.masks(features.size), belief.best.quality[:, 0]
            for row, mask, said in zip(rows, masks, quality.tolist(), strict=True):
                if clip.masks[row, t].any():
                    iou = float(mask_iou(mask[None], clip.masks[row, t][None])[0, 0])
                    scores.append((iou, abs(iou - said)))
        return scores


def make_propagator_frames(clip: TrainingClip) -> list[Frame]:
    """A clip's frames, as a propagator takes them."""
    return [Frame(t, image.permute(1, 2, 0).contiguous().numpy()) for t, image in enumerate(clip.images)]


def reverse_clip_time(clip: TrainingClip) -> TrainingClip:
    """The clip with time running the other way."""
    return TrainingClip(clip.images.flip(0), clip.masks.flip(1), clip.present.flip(1), clip.labels)


def find_visible_objects(clip: TrainingClip, smallest: float) -> list[int]:
    """The objects that cover at least that share of the first frame."""
    area = clip.masks[:, 0].flatten(1).float().mean(1)
    return [int(row) for row in (area >= smallest).nonzero()[:, 0]]


def draw_prompt(mask: Bool[Tensor, "h w"], random: np.random.Generator, asking: PromptSampling) -> Prompt:
    """The `mask` (not empty) itself, its box or a click on it, as `random` decides by the shares of `asking`."""
    draw = random.random()
    if draw < asking.boxes:
        return draw_loose_box(mask, random)
    return draw_inner_point(mask, random) if draw < asking.boxes + asking.clicks else mask


def draw_loose_box(mask: Bool[Tensor, "h w"], random: np.random.Generator) -> Box:
    """The box of a mask, its corners off by some of its sides."""
    ys, xs = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    y0, x0, y1, x1 = int(ys[0]), int(xs[0]), int(ys[-1]) + 1, int(xs[-1]) + 1
    off = random.normal(0, JITTER, 4).clip(-2 * JITTER, 2 * JITTER) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    h, w = mask.shape
    return Box(
        float(np.clip(x0 + off[0], 0, x1 - 1)),
        float(np.clip(y0 + off[1], 0, y1 - 1)),
        float(np.clip(x1 + off[2], x0 + 1, w)),
        float(np.clip(y1 + off[3], y0 + 1, h)),
    )


def draw_inner_point(mask: Bool[Tensor, "h w"], random: np.random.Generator) -> Point:
    """A pixel of a mask, in its inner half."""
    depth = cv2.distanceTransform(np.pad(mask.numpy().astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    ys, xs = np.nonzero(depth >= depth.max() / 2)
    n = int(random.integers(len(ys)))
    return Point(float(xs[n]) + 0.5, float(ys[n]) + 0.5)


# -- losses


def clear_absent_masks(belief: Prediction) -> Prediction:
    """What is judged absent has no mask."""
    there = belief.presence[:, :, None, None] > 0
    return replace(belief, logits=torch.where(there.to(belief.logits.device), belief.logits, ABSENT))


def compute_belief_losses(
    belief: Prediction, truth: Bool[Tensor, "n h w"], at: PromptSampling
) -> dict[str, Float[Tensor, ""]]:
    """SAM 2's losses of one frame, weighted as in `at`, of `belief` against the masks `truth`, row by row: masks cost
    what the best hypothesis does, and count only where the object is seen.

    The best is that of the least loss. Predicted IoU is told of all hypotheses as they are used.
    """
    n, k = belief.quality.shape
    device = belief.logits.device
    truth, quality, presence = truth.to(device), belief.quality.to(device), belief.presence.to(device)
    seen = truth.flatten(1).any(1).float()
    inside = truth[:, None].expand(-1, k, -1, -1).float().flatten(2)
    logits = nnf.interpolate(belief.logits, truth.shape[1:], mode="bilinear", antialias=True).flatten(2)
    focal = at.focal * focal_loss(logits, inside)
    dice = at.dice * dice_loss(logits.flatten(0, 1), inside.flatten(0, 1)).view(n, k)
    share = torch.full_like(focal, at.others).scatter(1, (focal + dice).detach().argmin(1, keepdim=True), 1.0)
    used = torch.where(presence[:, :, None] > 0, logits, ABSENT)
    wrong = (quality - measure_point_iou(used, inside)).abs().mean(1)
    there = seen.sum().clamp(min=1)
    return {
        "focal": ((focal * share).sum(1) * seen).sum() / there,
        "dice": ((dice * share).sum(1) * seen).sum() / there,
        "quality": at.quality * (wrong * seen).sum() / there,
        "presence": at.presence * nnf.binary_cross_entropy_with_logits(presence[:, 0], seen),
    }


def focal_loss(logits: Float[Tensor, "n k p"], inside: Float[Tensor, "n k p"]) -> Float[Tensor, "n k"]:
    """Lin et al. 2017, the mean over the pixels."""
    cost = nnf.binary_cross_entropy_with_logits(logits, inside, reduction="none")
    likely = logits.sigmoid()
    right = likely * inside + (1 - likely) * (1 - inside)
    weight = ALPHA * inside + (1 - ALPHA) * (1 - inside)
    return (weight * cost * (1 - right) ** GAMMA).mean(2)


@torch.no_grad()
def measure_point_iou(logits: Float[Tensor, "n k p"], inside: Float[Tensor, "n k p"]) -> Float[Tensor, "n k"]:
    """Mask IoU; 0 where both are empty."""
    found, wanted = logits > 0, inside > 0.5
    return (found & wanted).sum(2) / (found | wanted).sum(2).clamp(min=1)
