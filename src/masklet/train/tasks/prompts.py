"""Training the promptable mask network with simulated clicks (SAM, appendix A: a first prompt, then corrections where
the answer so far is wrong).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.instances import Point
from masklet.models.nano.image_predictor import draw_prompt_maps, normalize_crops
from masklet.nn.nanodet import NanoDetNetwork
from masklet.nn.prompt_network import PromptNetwork
from masklet.train.data.prompt_crops import PromptCrop, PromptCrops, draw_correction
from masklet.train.loop.prefetch import PrefetchableTask

OTHERS = 0.1  # weight of the hypotheses that are not the best


@dataclass(frozen=True)
class PromptBatch:
    """Crops that go through the network together, and how many more clicks they get."""

    crops: tuple[PromptCrop, ...]
    rounds: int
    hinted: bool  # whether a detector's maps are seen


class PromptTask(PrefetchableTask[PromptBatch]):
    """A `Task`: masks of crops."""

    def __init__(
        self,
        net: PromptNetwork,
        source: PromptCrops,
        validate: Callable[[], dict[str, float]],
        save: Callable[[Path], None],
        crops: int = 8,
        detector: NanoDetNetwork | None = None,
    ) -> None:
        """
        Args:
            net: is trained.
            source: of crops.
            validate: gives scores on held-out images.
            save: writes the weights.
            crops: that go through the network together.
            detector: whose maps are seen in a share of the batches.
        """
        self.detector = detector
        self.module, self.source, self.scores, self.writes, self.crops = net, source, validate, save, crops
        self.device = next(net.parameters()).device

    def draw(self, random: np.random.Generator) -> PromptBatch:
        """As many crops as go through the network together."""
        chances = self.source.sampling.rounds
        rounds = int(random.choice(len(chances), p=chances))
        hinted = bool(random.random() < self.source.sampling.hinted)
        return PromptBatch(tuple(self.source.crop(random) for _ in range(self.crops)), rounds, hinted)

    def loss_of(self, step: int, drawn: PromptBatch, random: np.random.Generator) -> dict[str, Tensor]:
        """Cross-entropy and Dice of the masks, and the error of the expected IoU, after the first prompt and the rounds
        of clicks that `drawn` asks for, placed by `random`. The same in every `step`.
        """
        crops = drawn.crops
        detector = self.detector if drawn.hinted else None
        look = self.module.look(self._images(crops), detector)
        maps = torch.stack([self._maps(crop) for crop in crops])
        self._see_wide(crops, maps, detector)
        doubtful = torch.tensor([crop.box is None and crop.earlier is None for crop in crops])
        for _ in range(drawn.rounds):
            with torch.no_grad():
                logits, quality = self.module(look, maps)
            answers = choose_shown_hypothesis(logits, quality, doubtful)
            crops, maps = self._corrected(crops, answers, random)
            doubtful = torch.zeros(len(crops), dtype=torch.bool)
        truth = torch.stack([torch.from_numpy(crop.mask) for crop in crops]).to(self.device)
        logits, quality = self.module(look, maps)
        return compute_prompt_losses(logits, quality, nnf.avg_pool2d(truth[:, None], 2)[:, 0], doubtful.to(self.device))

    def validate(self) -> dict[str, float]:
        """Scores on what is not trained on."""
        return self.scores()

    def save(self, path: Path) -> None:
        """Writes the weights so far to `path`, by the function given for it."""
        self.writes(path)

    def _images(self, crops: Sequence[PromptCrop]) -> Float[Tensor, "b 3 s s"]:
        return normalize_crops([crop.image for crop in crops]).to(self.device)

    def _maps(self, crop: PromptCrop) -> Float[Tensor, "m s s"]:
        return torch.from_numpy(draw_prompt_maps(crop.points, crop.box, crop.earlier, len(crop.mask))).to(self.device)

    def _see_wide(
        self, crops: Sequence[PromptCrop], maps: Float[Tensor, "b m s s"], detector: NanoDetNetwork | None
    ) -> None:
        """Writes the answers in wide views into the maps of the near ones."""
        rows = [n for n, crop in enumerate(crops) if crop.wide]
        wides = [crop.wide for crop in crops if crop.wide]
        if not rows:
            return
        with torch.no_grad():
            logits, quality = self.module(
                self.module.look(self._images(wides), detector), torch.stack([self._maps(w) for w in wides])
            )
        soft = choose_shown_hypothesis(logits, quality, torch.ones(len(rows), dtype=torch.bool)).sigmoid()
        for n, one in zip(rows, soft, strict=True):
            maps[n, 3] = 2 * sample_wide_logits(one, crops[n]) - 1

    def _corrected(
        self, crops: Sequence[PromptCrop], answers: Float[Tensor, "b s2 s2"], random: np.random.Generator
    ) -> tuple[tuple[PromptCrop, ...], Float[Tensor, "b m s s"]]:
        """The crops with a click more each, which see the answers."""
        large = nnf.interpolate(answers[:, None].float(), scale_factor=2.0, mode="bilinear")[:, 0].cpu()
        found = []
        for crop, logits in zip(crops, large, strict=True):
            inside = (logits > 0).numpy()
            point = self._draw_correction(random, crop, inside)
            points = crop.points if point is None else (*crop.points, point)
            found.append(replace(crop, points=points, earlier=logits.sigmoid().numpy()))
        return tuple(found), torch.stack([self._maps(crop) for crop in found])

    def _draw_correction(
        self, random: np.random.Generator, crop: PromptCrop, found: Bool[np.ndarray, "s s"]
    ) -> Point | None:
        """A click on what is wrong in the mask `found`; at times none for a box, which is looked at again."""
        sampling = self.source.sampling
        if crop.box and not crop.points and random.random() < sampling.again:
            return None
        return draw_correction(random, found, crop.mask > 0.5, sampling.depths)


def choose_shown_hypothesis(
    logits: Float[Tensor, "b k s s"], quality: Float[Tensor, "b k"], doubtful: Tensor
) -> Float[Tensor, "b s s"]:
    """The mask logits of the answer that is shown: where the prompt is `doubtful` (a single click) the hypothesis of
    highest expected IoU `quality`, else the first of `logits`.
    """
    best = torch.where(doubtful.to(quality.device), 1 + quality[:, 1:].argmax(1), 0)
    return logits[torch.arange(len(logits)), best]


def sample_wide_logits(soft: Float[Tensor, "s2 s2"], crop: PromptCrop) -> Float[Tensor, "s s"]:
    """A wide view's answer in the near one; 0 where the wide one does not reach."""
    side = len(crop.mask)
    assert crop.to_wide is not None
    matrix = torch.tensor(crop.to_wide, dtype=torch.float32, device=soft.device)
    # Of both, from -1 to 1 over the sides, as `affine_grid` has it.
    move = matrix[:, 2] * (2 / side) + matrix[:, :2].sum(1) - 1
    grid = nnf.affine_grid(torch.cat([matrix[:, :2], move[:, None]], 1)[None], [1, 1, side, side], align_corners=False)
    return nnf.grid_sample(soft[None, None], grid, align_corners=False)[0, 0]


def compute_prompt_losses(
    logits: Float[Tensor, "b k s s"], quality: Float[Tensor, "b k"], truth: Float[Tensor, "b s s"], doubtful: Tensor
) -> dict[str, Tensor]:
    """The losses "mask", "hypotheses" and "quality" (of the expected IoU, whose logits `quality` holds) against the
    masks `truth` (0 to 1). The first answer of `logits` always learns; of the hypotheses the one that is best (Kirillov
    et al. 2023), where the prompt is `doubtful`, and the others a little.
    """
    each = compute_hypothesis_losses(logits, truth)
    weight = torch.where(doubtful, 1.0, OTHERS)
    best = each[:, 1:].amin(1) + OTHERS * each[:, 1:].mean(1)
    return {
        "mask": each[:, 0].mean(),
        "hypotheses": (weight * best).mean(),
        "quality": nnf.mse_loss(quality.sigmoid(), compute_hypothesis_iou(logits.detach(), truth)),
    }


def compute_hypothesis_losses(logits: Float[Tensor, "b k s s"], truth: Float[Tensor, "b s s"]) -> Float[Tensor, "b k"]:
    """Cross-entropy, and Dice, of each answer."""
    true = truth[:, None].expand_as(logits)
    entropy = nnf.binary_cross_entropy_with_logits(logits, true, reduction="none").mean((2, 3))
    soft = logits.sigmoid()
    dice = 1 - (2 * (soft * true).sum((2, 3)) + 1) / (soft.sum((2, 3)) + true.sum((2, 3)) + 1)
    return entropy + dice


def compute_hypothesis_iou(logits: Float[Tensor, "b k s s"], truth: Float[Tensor, "b s s"]) -> Float[Tensor, "b k"]:
    """Of each answer with the truth; 0 where both are empty."""
    found, true = logits > 0, truth[:, None] > 0.5
    return (found & true).sum((2, 3)) / (found | true).sum((2, 3)).clamp(min=1)
