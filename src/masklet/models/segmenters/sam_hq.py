"""SAM-HQ as an image model: masks of boxes and points, over the network of transformers.

Ke et al., Segment Anything in High Quality, NeurIPS 2023. The network is transformers'; what is before and after it is
ours, since its processor needs torchvision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.masks import resize_bilinear, stack_masks
from masklet.models.segmenters.prompted import iterate_good_answers
from masklet.models.segmenters.text import IMAGENET, load_saved_network, normalize_rgb
from masklet.weights.reading import read_network_config

KIND, CLASS = "sam_hq", "SamHQModel"  # in a config, and in transformers


@dataclass(frozen=True)
class SamHqFeatures:
    """What is computed once for all prompts of a frame."""

    embedding: Float[Tensor, "1 c y x"]
    early: list[Tensor]  # of the encoder's global attention, from which fine structure comes
    size: tuple[int, int]  # of the frame, h, w
    inside: tuple[int, int]  # of the image within the network's square, h, w


class SamHqMasker:
    """SAM-HQ's masks of prompts in one frame: SAM's answer and the high-quality token's, added as the release does."""

    def __init__(self, net: Any, weights: Mapping[str, str] | None = None, at_once: int = 16) -> None:
        """
        Args:
            net: a `SamHQModel` of transformers, in eval mode.
            weights: sha256 of the weight files, by name.
            at_once: prompts that go through the decoder together.
        """
        self.net, self.at_once = net, at_once
        self.weights = weights or {}
        self.side = int(net.config.vision_config.image_size)
        self.device = net.device
        self.description = f"sam-hq, {self.side} px"

    @torch.no_grad()
    def look(self, frame: Frame) -> SamHqFeatures:
        """The image encoder, at the network's side: the long side fills it, the rest is empty."""
        inside = compute_inside_size(frame.size, self.side)
        small = np.array(Image.fromarray(frame.image).resize(inside[::-1], Image.Resampling.BILINEAR))
        pixels = normalize_rgb(small.astype(np.float32) / 255, IMAGENET)
        square = torch.zeros(1, 3, self.side, self.side)
        square[:, :, : inside[0], : inside[1]] = pixels
        embedding, early = self.net.get_image_embeddings(square.to(self.net.device))
        return SamHqFeatures(embedding, list(early), frame.size, inside)

    def boxed(self, features: SamHqFeatures, boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, "n h w"]:
        """What fills each box (x0, y0, x1, y1 in the frame's pixels): one answer, as the release asks for boxes."""
        scale = self._compute_scale(features)
        found = []
        for group in torch.split(boxes * scale.repeat(2), self.at_once) if len(boxes) else ():
            logits, _ = self._decode(features, several=False, input_boxes=group[None])
            found.append((self.enlarge(logits[:, 0], features) > 0).cpu())
        return torch.cat(found) if found else stack_masks([], features.size)

    def pointed(
        self, features: SamHqFeatures, points: Float[Tensor, "n 2"], least: float
    ) -> Iterator[tuple[Float[Tensor, "h w"], float]]:
        """What may be at each of many points: the hypotheses of predicted IoU above `least`, logits at the frame's
        size, and predicted IoU. `features` are those of `look`, `points` x and y in the frame's pixels.
        """
        scaled = points * self._compute_scale(features)
        groups = torch.split(scaled, self.at_once) if len(scaled) else ()
        answers = (self._decode(features, several=True, input_points=group[None, :, None]) for group in groups)
        for logits, quality in iterate_good_answers(answers, least):
            yield self.enlarge(logits[None], features)[0], quality

    def enlarge(self, logits: Float[Tensor, "n s s"], features: SamHqFeatures) -> Float[Tensor, "n h w"]:
        """Answers at the frame's size: first at the network's, where what is beside the image is cut away."""
        h, w = features.inside
        return resize_bilinear(resize_bilinear(logits, (self.side, self.side))[:, :h, :w], features.size)

    def _compute_scale(self, features: SamHqFeatures) -> Float[Tensor, " 2"]:
        (h, w), (rows, columns) = features.size, features.inside
        return torch.tensor([columns / w, rows / h])

    @torch.no_grad()
    def _decode(
        self, features: SamHqFeatures, several: bool, **prompts: Tensor
    ) -> tuple[Float[Tensor, "n k s s"], Float[Tensor, "n k"]]:
        """The answers to a group of prompts, logits and predicted IoU."""
        found = self.net(
            image_embeddings=features.embedding,
            intermediate_embeddings=features.early,
            multimask_output=several,
            **{name: value.to(self.net.device) for name, value in prompts.items()},
        )
        return found.pred_masks[0].float(), found.iou_scores[0].float().cpu()


def compute_inside_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size (h, w) of a frame within SAM's square.

    >>> compute_inside_size((480, 854), 1024), compute_inside_size((1080, 1920), 1024)
    ((576, 1024), (576, 1024))
    """
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def is_sam_hq(folder: Path) -> bool:
    """Whether a folder that transformers saved holds a SAM-HQ."""
    config = folder / "config.json"
    return config.is_file() and read_network_config(config).get("model_type") == KIND


def load_sam_hq(folder: Path, weights: Mapping[str, str], device: torch.device) -> SamHqMasker:
    """SAM-HQ on a `device` from a `folder` that transformers saved; `weights` are its files' sha256 by name. Raises
    InputError where its weights are not the network's.
    """
    return SamHqMasker(load_saved_network(folder, CLASS).to(device), weights)
