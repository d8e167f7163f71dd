"""Segmenter `nano`: a dense head (CondInst) over the packaged encoder's features, which the propagators share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.masks import mask_nms, matrix_nms, resize_bilinear
from masklet.models.encoder import DEEP, MEAN, STD, DeepBackbone, Encoder, EncoderFeatures, EnlargingEncoder
from masklet.nn.dense_head import DenseHead, DenseHeadSettings
from masklet.nn.fused_convolution import fuse_convolutions
from masklet.weights.format import copy_module_weights, explain_damage, read_described, write_described
from masklet.weights.store import ZOO, compute_hash, verify_packaged
from masklet.weights.strict import load_exactly

KIND = "nano-segmenter"  # in the metadata of its files
PACKAGED = "nano-segmenter"  # in the zoo
SURE = 8.0  # logit of a mask above which nothing is surer


@dataclass(frozen=True)
class DenseChoice:
    """What is chosen of the cells' masks."""

    least: float = 0.02  # score of a cell that is looked at
    looked_at: int = 400  # cells of highest score
    nms: float = 0.8  # of two masks that overlap by more (IoU), the one of higher score stays
    sharpness: float = 1.0  # of what overlapping masks take from each other's scores
    most: int = 100  # detections


class DenseSegmenter:
    """Masks, names and scores of each frame by itself. A score is the mask IoU that the head expects times the
    probability of the name.
    """

    look_ahead = 0
    conf, low_conf = 0.3, 0.2  # SAM2BMP's thresholds for these scores: above, 69 % and 50 % of masks are right
    advice: ClassVar[Mapping[str, float]] = {
        "score_gamma": 1.0  # that many frames agree says more of an object than these scores do
    }

    def __init__(
        self,
        head: DenseHead,
        categories: Sequence[str],
        encoder: Encoder,
        *,
        choice: DenseChoice | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            head: of `read_dense`.
            categories: that it names.
            encoder: whose features are used, the same as the propagator's so that a frame is encoded once.
            choice: what is chosen of its masks.
            weights: sha256 of the head's file, by name.
        """
        self.head, self.choice = head.to(encoder.device), choice or DenseChoice()
        self.encoder = EnlargingEncoder(encoder)  # small things are found in enlarged frames only
        self.categories = tuple(categories)
        self.deeper = DeepBackbone().to(encoder.device)
        fuse_convolutions(self.deeper)
        self.weights = {**encoder.weights, DEEP: ZOO[DEEP].sha256, **(weights or {})}
        self.description = f"nano, {encoder.short} px"

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Detects objects in each of `frames` by itself; `memory` is None, and `future` is not looked at. Gives one
        `Detections` a frame, and None.
        """
        return self.segment_above(memory, frames, future, -math.inf)

    def segment_above(
        self, memory: None, frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], None]:
        """As `segment`; masks that score less than `least` are not enlarged."""
        return [self._find(self.encoder(frame), least) for frame in frames], None

    @torch.no_grad()
    def _find(self, features: EncoderFeatures, least: float) -> Detections:
        logits, scores, names = decode_proposals(self.head, self.deeper, features, self.choice)
        scores, labels = self._rate(scores, names)
        high = scores >= least
        masks = resize_cell_masks(logits[high], features.size)
        there = masks.flatten(1).any(1)
        masks, kept, labels = (x[there].cpu() for x in (masks, scores[high], labels[high]))
        return Detections(masks, kept, labels, scores[~high].cpu())

    def _rate(
        self, scores: Float[Tensor, " n"], names: Float[Tensor, "n k"]
    ) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
        """Scores and labels of what scores so as an object and has these logits of names."""
        likely, labels = names.softmax(1).max(1)
        return scores * likely, labels


class ObjectSegmenter(DenseSegmenter):
    """The same without names: whatever is an object, also of kinds that it was never told. A score is the mask IoU
    that the head expects.
    """

    conf, low_conf = 0.4, 0.3  # above, 58 % and 40 % of masks are right

    def __init__(self, named: DenseSegmenter) -> None:
        """`named`: the segmenter with names."""
        super().__init__(named.head, ("object",), named.encoder, choice=named.choice, weights=named.weights)
        self.description = f"{named.description}, without names"

    def _rate(
        self, scores: Float[Tensor, " n"], names: Float[Tensor, "n k"]
    ) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
        return scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device)


def decode_proposals(
    head: DenseHead, deeper: DeepBackbone, features: EncoderFeatures, choice: DenseChoice
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, " n"], Float[Tensor, "n k"]]:
    """Decodes the masks of one frame: logits at stride 4, scores as objects, and logits of names, the best first.

    The `head` is run on `features` and on what the `deeper` backbone makes of them; `choice` says which cells' masks
    are kept. Of masks that overlap, the lesser ones have less of a score.
    """
    to = next(head.parameters())
    keys, detail, strength = (x[None].to(to) for x in (features.keys, features.detail, features.strength))
    cells = head(keys, detail, deeper(keys, strength), extract_image(features).to(to))
    scores = cells.scores[0].sigmoid()
    chosen = scores.topk(min(choice.looked_at, len(scores))).indices
    chosen = chosen[scores[chosen] > choice.least]
    logits = head.masks(cells, 0, chosen)
    seen = (logits > 0).flatten(1).any(1)
    logits, chosen = logits[seen], chosen[seen]
    kept = mask_nms(logits > 0, scores[chosen], choice.nms)
    own = matrix_nms(logits[kept] > 0, scores[chosen[kept]], choice.sharpness)
    best = own.argsort(descending=True, stable=True)[: choice.most]
    logits, chosen = logits[kept[best]], chosen[kept[best]]
    return logits, own[best], head.names(cells, 0, chosen, logits)


def resize_cell_masks(logits: Float[Tensor, "n y x"], size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """Masks of a size; a cell that is beyond doubt does not push the outline into its neighbour."""
    return resize_bilinear(logits.clamp(-SURE, SURE), size) > 0


def extract_image(features: EncoderFeatures) -> Float[Tensor, "1 3 h w"]:
    """The encoder's image in ImageNet's normalisation."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return (features.guide.permute(2, 0, 1)[None].float() - mean) / std


# -- files


def save_dense(path: Path, head: DenseHead, settings: DenseHeadSettings, categories: Sequence[str]) -> None:
    """Writes a `head`, its `settings` and the `categories` that it names to one safetensors file at `path`, in float16,
    for `read_dense`. Raises InputError where it cannot be written.
    """
    about = {"settings": asdict(settings), "categories": list(categories)}
    write_described(path, KIND, copy_module_weights(head, torch.float16), about)


@dataclass(frozen=True)
class DenseCheckpoint:
    """What a file holds."""

    head: DenseHead  # float32, eval, no gradients, CPU
    settings: DenseHeadSettings
    categories: tuple[str, ...]


def read_dense(path: Path) -> DenseCheckpoint:
    """A file that `save_dense` wrote. Raises InputError where it is of something else or damaged."""
    what = "a nano segmenter, as `masklet train segmenter --from nano` writes them"
    held = read_described(path, KIND, what)
    with explain_damage(path):
        told = held.about["settings"]
        settings = DenseHeadSettings(**{f.name: int(told[f.name]) for f in fields(DenseHeadSettings)})
        categories = tuple(str(name) for name in held.about["categories"])
        head = DenseHead(len(categories), settings)
    return DenseCheckpoint(
        load_exactly(head, held.tensors, path, "the nano segmenter that it says it is"), settings, categories
    )


def load_dense(path: Path | None, encoder: Encoder) -> DenseSegmenter:
    """The segmenter with the weights of a file that `save_dense` wrote; None: the packaged ones.

    Raises InputError where the file is of something else, damaged or not there.
    """
    if path and not path.is_file():
        raise InputError(f"{path}: no such file; train one with `masklet train segmenter --from nano`")
    path = path or verify_packaged(ZOO[PACKAGED])
    held = read_dense(path)
    return DenseSegmenter(held.head, held.categories, encoder, weights={path.name: compute_hash(path).sha256})
