"""SAM 2 as an image model, and two segmenters made of it: what is named in words, and everything.

Nothing is remembered from frame to frame, and masks of one frame may overlap: a system that wants every pixel once
lets the smaller masks win (`core.masks.resolve_overlaps_by_area`; `systems.deva` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.instances import Detections, Point
from masklet.core.masks import resize_bilinear, stack_masks
from masklet.core.part_facts import find_device
from masklet.core.rle import Rle
from masklet.models.boxes import box_nms
from masklet.models.nano.image_predictor import ImagePredictor
from masklet.models.sam2.core import Sam2Features, wrap_inference
from masklet.models.sam2.propagator import Sam2
from masklet.models.segmenters.text import TextDetector

Q = TypeVar("Q")
Fe = TypeVar("Fe")  # one frame's features

INSIDE, LOW, HIGH = 1, 2, 3  # SAM 2's marks: a point on the object, a box's first and second corner


@runtime_checkable
class BoxMasker(Protocol[Fe]):
    """Makes masks of prompts in one frame."""

    weights: Mapping[str, str]
    description: str

    def look(self, frame: Frame) -> Fe:
        """What is computed once for all prompts of a frame."""
        ...

    def boxed(self, features: Fe, boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, "n h w"]:
        """What fills each box (x0, y0, x1, y1 in the frame's pixels)."""
        ...

    def pointed(
        self, features: Fe, points: Float[Tensor, "n 2"], least: float
    ) -> Iterator[tuple[Float[Tensor, "y x"], float]]:
        """What may be at each of many points: of three hypotheses those whose predicted IoU is above `least`, one by
        one, logits (> 0: inside) and predicted IoU. `features` are those of `look`, `points` x and y in the frame's
        pixels.
        """
        ...


class PromptedMasker:
    """SAM 2 (or EdgeTAM) without its memory: the masks of prompts in one frame.

    As in the official image predictor an answer does not depend on the object score: who asks knows that it is there.
    """

    gradients = False  # it is not trained

    def __init__(self, sam2: Sam2, at_once: int | None = None) -> None:
        """`at_once`: prompts that go through the decoder together; None: 64 on a GPU; a CPU's caches hold one."""
        self.sam2, self.core = sam2, sam2.core
        self.weights: Mapping[str, str] = sam2.weights
        self.device, self.half = sam2.device, sam2.half
        self.at_once = at_once or (1 if sam2.device.type == "cpu" else 64)
        self.description = f"{type(sam2).__name__.lower()}, {sam2.side} px"
        self._positions = self._encode_positions()

    @wrap_inference
    def _encode_positions(self) -> Float[Tensor, "1 c h w"]:
        """Made under autocast, so on a GPU as precise as bfloat16; those that the core decodes with are more so."""
        return self.core.encode_image_positions()

    def look(self, frame: Frame) -> Sam2Features:
        """The image encoder: once for all prompts of a frame."""
        return self.sam2.encode([frame])[0]

    def boxed(self, features: Sam2Features, boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, "n h w"]:
        """What fills each box (x0, y0, x1, y1 in the frame's pixels): the answer of best predicted IoU of three."""
        found = [
            (resize_bilinear(logits[torch.arange(len(logits)), quality.argmax(1)], features.size) > 0).cpu()
            for logits, quality in self.answers(features, boxes.view(-1, 2, 2), (LOW, HIGH))
        ]
        return torch.cat(found) if found else stack_masks([], features.size)

    def pointed(
        self, features: Sam2Features, points: Float[Tensor, "n 2"], least: float
    ) -> Iterator[tuple[Float[Tensor, "s s"], float]]:
        """What may be at each of many points: the hypotheses of predicted IoU above `least`, logits at a quarter of the
        network's resolution, and predicted IoU. `points` are x and y in the frame's pixels.
        """
        return iterate_good_answers(self.answers(features, points[:, None], (INSIDE,)), least)

    def answers(
        self, features: Sam2Features, points: Float[Tensor, "n k 2"], marks: Sequence[int]
    ) -> Iterator[tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 3"]]]:
        """Three answers to each prompt: logits at a quarter of the network's resolution, and predicted IoU.

        Args:
            features: of the frame.
            points: those of each prompt, x and y in the frame's pixels.
            marks: what the points of every prompt are.

        Yields:
            The answers to `at_once` prompts at a time, so that memory is bounded.
        """
        h, w = features.size
        scaled = points * (self.sam2.side / torch.tensor([w, h], dtype=torch.float32))
        for group in torch.split(scaled, self.at_once) if len(scaled) else ():
            yield self._decode(features, group, marks)

    @wrap_inference
    def _decode(
        self, features: Sam2Features, points: Float[Tensor, "b k 2"], marks: Sequence[int]
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 3"]]:
        """The answers to prompts of `points` in the network's pixels."""
        sparse, dense = self.core.encode_points(points, torch.tensor(marks).expand(len(points), -1))
        coarse = self.core.attend_nothing(features).expand(len(points), -1, -1, -1)
        logits, quality, *_ = self.core.run_decoder(features, coarse, sparse, dense, self._positions, several=True)
        return logits[:, 0].float(), quality[:, 0].float().cpu()


def iterate_good_answers(
    answers: Iterable[tuple[Float[Tensor, "b k y x"], Float[Tensor, "b k"]]], least: float
) -> Iterator[tuple[Float[Tensor, "y x"], float]]:
    """Of batches of `answers`, logits and predicted IoU, those of predicted IoU above `least`, one by one."""
    for logits, quality in answers:
        for row, k in (quality > least).nonzero().tolist():
            yield logits[row, k], float(quality[row, k])


class NanoMasker:
    """nano's image predictor in the same place: it needs no download."""

    def __init__(self, predictor: ImagePredictor) -> None:
        self.predictor = predictor
        self.weights: Mapping[str, str] = predictor.weights
        self.device = predictor.device
        self.description = "nano's image predictor"

    def look(self, frame: Frame) -> Frame:
        """Every prompt is looked at in a crop of its own."""
        return frame

    def boxed(self, features: Frame, boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, "n h w"]:
        """What fills each box (x0, y0, x1, y1 in the frame's pixels)."""
        return self.predictor.predict_boxes(features.image, boxes)[0]

    def pointed(
        self, features: Frame, points: Float[Tensor, "n 2"], least: float
    ) -> Iterator[tuple[Float[Tensor, "h w"], float]]:
        """What may be at each of many points: the hypotheses of predicted IoU above `least`, logits at the frame's
        size, and predicted IoU. `features` is the frame, `points` x and y in its pixels.
        """
        return self.predictor.predict_points(features.image, [Point(x, y) for x, y in points.tolist()], least)


class TextSegmenter(Generic[Q]):
    """What is named in words: a detector's boxes, and SAM 2's masks of them. Detections score as their boxes do."""

    look_ahead = 0
    advice: ClassVar[Mapping[str, float]] = {"max_missed": 10}  # of DEVA's, as in its text demo

    def __init__(
        self, detector: TextDetector[Q], masker: BoxMasker[Any], prompts: Sequence[str], *, nms: float = 0.8
    ) -> None:
        """
        Args:
            detector: finds the boxes.
            masker: makes masks of them.
            prompts: what to find, one thing each; they are the categories, in this order.
            nms: of two boxes that overlap by more (IoU), whatever they are, the one of higher score stays.

        Raises:
            InputError: the detector cannot read the prompts.
        """
        self.detector, self.masker, self.nms = detector, masker, nms
        self.conf = self.low_conf = detector.threshold  # systems take what it gives
        self.categories = tuple(prompts)
        self.weights = {**detector.weights, **masker.weights}
        self.device = find_device(masker)
        self.description = f"text: {detector.description}, nms {nms:g}; {masker.description}"
        self._query = detector.query(self.categories)

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Detects what the prompts name in each of `frames` by itself; `memory` is None, and `future` is not looked at.
        Gives one `Detections` a frame, and None.
        """
        return [self._found(frame) for frame in frames], None

    def _found(self, frame: Frame) -> Detections:
        boxes = self.detector.find(frame, self._query).within(frame.size)
        boxes = boxes[box_nms(boxes.corners, boxes.scores, self.nms)]
        if not len(boxes):
            return Detections.none(frame.size)
        found = Detections(self.masker.boxed(self.masker.look(frame), boxes.corners), boxes.scores, boxes.labels)
        return found[found.masks.flatten(1).any(1)]


@dataclass(frozen=True)
class MaskCandidate:
    """One of the masks that a grid of points gives, with its predicted IoU."""

    mask: Rle
    quality: float


class EverythingSegmenter:
    """SAM's automatic masks (Kirillov et al. 2023, appendix B) with SAM 2: a grid of points, three masks for each,
    of which those stay that are good, stable and no twins. All are of one category; they score their predicted IoU.
    """

    categories: tuple[str, ...] = ("object",)
    look_ahead = 0

    def __init__(
        self,
        masker: BoxMasker[Any],
        points_per_side: int = 32,
        *,
        quality: float = 0.88,
        stability: float = 0.95,
        offset: float = 1.0,
        nms: float = 0.7,
        smallest: int = 0,
    ) -> None:
        """
        Args:
            masker: makes the masks.
            points_per_side: of the grid.
            quality: masks stay whose predicted IoU is above this.
            stability: and whose stability score is at least this.
            offset: of the logits, in the stability score.
            nms: of two masks whose boxes overlap by more (IoU), the one of higher predicted IoU stays.
            smallest: pixels; smaller holes are filled and smaller islands removed. 0: masks stay as they are.
        """
        self.masker, self.points_per_side = masker, points_per_side
        self.quality, self.stability, self.offset, self.nms, self.smallest = quality, stability, offset, nms, smallest
        self.weights = masker.weights
        self.device = find_device(masker)
        self.description = f"everything: {points_per_side} points a side; {masker.description}"

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Makes masks of everything in each of `frames` by itself; `memory` is None, and `future` is not looked at.
        Gives one `Detections` a frame, and None.
        """
        grid = [make_point_grid(self.points_per_side, frame.size) for frame in frames]
        return [self._found(frame, points) for frame, points in zip(frames, grid, strict=True)], None

    def segment_outside(self, frame: Frame, known: Bool[Tensor, "h w"]) -> Detections:
        """Masks of what is in a `frame` at the points of the grid that are not `known`; they may reach further."""
        points = make_point_grid(self.points_per_side, frame.size)
        x, y = points.long().unbind(1)
        return self._found(frame, points[~known[y, x]])

    def _found(self, frame: Frame, points: Float[Tensor, "n 2"]) -> Detections:
        features = self.masker.look(frame)
        found = list(self._candidates(self.masker.pointed(features, points, self.quality), frame.size))
        boxes = torch.tensor([c.mask.box for c in found], dtype=torch.float32).view(-1, 4)
        scores = torch.tensor([c.quality for c in found])
        kept = box_nms(boxes, scores, self.nms)
        masks = stack_masks([found[row].mask.decode() for row in kept.tolist()], frame.size)
        return Detections(masks, scores[kept], torch.zeros(len(kept), dtype=torch.int64))

    def _candidates(
        self, good: Iterable[tuple[Float[Tensor, "y x"], float]], size: tuple[int, int]
    ) -> Iterator[MaskCandidate]:
        """The stable ones of `good` answers, logits and predicted IoU, one by one at the frame's `size` (h, w) and run
        lengths from then on.
        """
        for logits, quality in good:
            large = resize_bilinear(logits[None], size)[0]
            if compute_stability_score(large, self.offset) >= self.stability:
                mask = (large > 0).cpu()
                kept = remove_small_regions(mask, self.smallest) if self.smallest else mask
                yield MaskCandidate(Rle.encode(kept), quality)


class NanoEverything(EverythingSegmenter):
    """The same with nano's image predictor: fewer points, and thresholds for its less certain masks."""

    conf, low_conf = 0.75, 0.7  # SAM2BMP's thresholds for these scores

    def __init__(self, predictor: ImagePredictor, **settings: Any) -> None:
        own = {"points_per_side": 12, "quality": 0.7, "stability": 0.8}
        super().__init__(NanoMasker(predictor), **{**own, **settings})


def make_point_grid(side: int, size: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """`side` x `side` points (x, y) in a frame of `size` (h, w), in the middle of equal cells, row by row."""
    at = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(at * size[0], at * size[1], indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def compute_stability_score(logits: Float[Tensor, "h w"], offset: float) -> float:
    """Mask IoU of the masks at the thresholds `offset` and `-offset` (SAM); 0 where both are empty."""
    return float((logits > offset).sum() / (logits > -offset).sum().clamp(min=1))


def remove_small_regions(mask: Bool[Tensor, "h w"], smallest: int) -> Bool[Tensor, "h w"]:
    """A mask without holes of fewer than `smallest` pixels, then without such islands; the largest island stays."""
    full = ~remove_small_components(~mask, smallest)
    left = remove_small_components(full, smallest)
    return left if left.any() else remove_small_components(full, measure_largest_component(full))


def remove_small_components(mask: Bool[Tensor, "h w"], smallest: int) -> Bool[Tensor, "h w"]:
    """The connected parts (by sides and corners) of at least `smallest` pixels."""
    parts, areas = label_components(mask)
    return torch.from_numpy((np.append(0, areas) >= smallest)[parts]) & mask


def measure_largest_component(mask: Bool[Tensor, "h w"]) -> int:
    """Pixels in the largest connected part."""
    return int(label_components(mask)[1].max(initial=1))


def label_components(mask: Bool[Tensor, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """The number of the connected part that each pixel is in (0: none), and the parts' areas from number 1 on."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8), connectivity=8)
    return parts, stats[1:, cv2.CC_STAT_AREA]
