"""Segmenter `nano`: COCO's 80 kinds of things by name. NanoDet's boxes, the image predictor's masks, and scores that
are the chance that mask and name are right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.masks import find_nonempty
from masklet.core.part_facts import CPU
from masklet.models.boxes import BoxDetector, Boxes, box_iou, box_nms
from masklet.models.nano.image_predictor import MARGIN, ImagePredictor, load_image_predictor
from masklet.models.nano.nanodet import NanoDetSettings, load_nanodet

ALL_BOXES = NanoDetSettings(threshold=0.1, max_boxes=40)  # of a frame: what scores less is hardly ever right
LIKELY_BOXES = NanoDetSettings(threshold=0.3, max_boxes=24)  # where every mask's time counts


@dataclass(frozen=True)
class Calibration:
    """What detections' chances are told from: a logistic regression, fitted on stills (cards/nano-segmenter.md)."""

    bias: float
    box: float  # weight of the logit of the box's score
    mask: float  # weight of the logit of the expected mask IoU

    def estimate(self, box: Float[Tensor, " n"], mask: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The chance that each detection is right, 0 to 1.

        Args:
            box: the detector's scores, 0 to 1.
            mask: expected mask IoU, 0 to 1.
        """
        return (self.bias + self.box * torch.logit(box, 1e-4) + self.mask * torch.logit(mask, 1e-4)).sigmoid()


ROUNDING = 1e-6  # of chances
SAME = 0.9  # box IoU above which boxes of two names are of one thing, which has one mask
NAMED = Calibration(0.3, 2.05, 0.12)


class NanoSegmenter:
    """Masks, names and chances of each frame by itself."""

    look_ahead = 0
    conf = 0.3  # SAM2BMP's thresholds for these scores: a name that many frames agree on is right
    low_conf = conf  # no proposals: completion reaches the frames before the first confident one

    def __init__(self, detector: BoxDetector, predictor: ImagePredictor, calibration: Calibration = NAMED) -> None:
        """
        Args:
            detector: finds boxes and names.
            predictor: makes masks of boxes.
            calibration: of the scores.
        """
        self.detector, self.predictor, self.calibration = detector, predictor, calibration
        self.categories = tuple(detector.categories)
        self.weights: Mapping[str, str] = {**detector.weights, **predictor.weights}
        self.description = f"nano: {detector.description}"
        self.device = predictor.device

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Detects objects in each of `frames` by itself, the likeliest first; `memory` is None, and `future` is not
        looked at. Gives one `Detections` a frame, and None.
        """
        return self.segment_above(memory, frames, future, -math.inf)

    def segment_above(
        self, memory: None, frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], None]:
        """As `segment`; boxes whose masks cannot score as much as `least`, however good, are not looked into."""
        return [self._choose(frame, least)[0] for frame in frames], None

    def segment_region(self, frame: Frame, region: Bool[Tensor, "h w"], least: float) -> Detections:
        """As `segment_above` for one frame; boxes whose masks cannot reach the `region` are not looked into."""
        every = self.detector.detect(frame.image)
        return self._judge(frame, every[find_reaching_boxes(every.corners, region)], least)[0]

    def find(self, frame: Frame) -> Detections:
        """The detections of one frame."""
        return self.find_with_evidence(frame)[0]

    def find_with_evidence(self, frame: Frame) -> tuple[Detections, Float[Tensor, "n 2"]]:
        """The detections of one frame, and what their chances were told from: the box's score and expected IoU."""
        return self._choose(frame, -math.inf)

    def _choose(self, frame: Frame, least: float) -> tuple[Detections, Float[Tensor, "n 2"]]:
        """`find_with_evidence` of the boxes that can score `least`."""
        return self._judge(frame, self.detector.detect(frame.image), least)

    def _judge(self, frame: Frame, every: Boxes, least: float) -> tuple[Detections, Float[Tensor, "n 2"]]:
        """The same of boxes that the detector has found."""
        high = self.calibration.estimate(every.scores, torch.ones(len(every))) >= least - ROUNDING
        boxes, others = every[high], every[~high].scores
        masks, quality = self._draw(frame, boxes)
        chance = self.calibration.estimate(boxes.scores, quality)
        seen = find_nonempty(masks).nonzero()[:, 0]
        order = seen[chance[seen].argsort(descending=True, stable=True)]
        evidence = torch.stack([boxes.scores, quality], 1)
        left_out = self.calibration.estimate(others, torch.full_like(others, 0.5))
        return Detections(masks[order], chance[order], boxes.labels[order], left_out), evidence[order]

    def _draw(self, frame: Frame, boxes: Boxes) -> tuple[Bool[Tensor, "n h w"], Float[Tensor, " n"]]:
        """The masks of `boxes` in a frame, and their expected IoU; a thing that goes by two names is drawn once."""
        things = boxes[box_nms(boxes.corners, boxes.scores, SAME)]
        masks, quality = self.predictor.predict_boxes(frame.image, things.corners)
        if len(things) == len(boxes):
            return masks, quality
        which = box_iou(boxes.corners, things.corners).argmax(1)
        return masks[which], quality[which]


def find_reaching_boxes(boxes: Float[Tensor, "n 4"], region: Bool[Tensor, "h w"]) -> Bool[Tensor, " n"]:
    """Which boxes (x0, y0, x1, y1, pixels) have a pixel of the `region` within them or in the margin beside them, as
    far as masks of theirs may reach.

    >>> find_reaching_boxes(torch.tensor([[0.0, 0, 4, 4], [6, 0, 8, 4]]), torch.arange(10).expand(4, 10) < 3)
    tensor([ True, False])
    """
    beside = MARGIN * (boxes[:, 2:] - boxes[:, :2]) + 1
    low, high = (boxes[:, :2] - beside).clamp(min=0).floor().long(), (boxes[:, 2:] + beside).ceil().long()
    windows = zip(low.tolist(), high.tolist(), strict=True)
    return torch.tensor([bool(region[y0:y1, x0:x1].any()) for (x0, y0), (x1, y1) in windows], dtype=torch.bool)


def load_nano_segmenter(settings: NanoDetSettings = ALL_BOXES, device: torch.device = CPU) -> NanoSegmenter:
    """The packaged one with `settings` of its detector, on a `device`. Raises InputError where a weight file is damaged
    or not there.
    """
    return NanoSegmenter(load_nanodet(settings, device), load_image_predictor(device))
