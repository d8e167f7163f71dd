"""Detector `nanodet`: boxes of COCO's 80 categories by NanoDet-g, whose weights come with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.part_facts import CPU
from masklet.models.boxes import Boxes, box_nms
from masklet.nn.fused_convolution import fuse_convolutions, leave_weights_undrawn
from masklet.nn.nanodet import STRIDES, NanoDetNetwork, decode_logits
from masklet.weights.store import ZOO, PackagedWeights, read_packaged
from masklet.weights.strict import lay_out_for_convolution

PACKAGED = "nanodet"  # in the zoo
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # BGR in 0 to 255
COARSEST = STRIDES[-1]  # pixels; the network's image has sides that are multiples of it
COCO_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)  # COCO's order


@dataclass(frozen=True)
class NanoDetSettings:
    """How frames are looked at, and what is kept of the cells' boxes."""

    long_side: int = 416  # of the network's image, pixels, rounded to a multiple of 32
    threshold: float = 0.05  # boxes score more
    nms_iou: float = 0.6  # of two boxes of one category that overlap by more, the one of higher score stays
    max_boxes: int = 100  # of a frame, those of highest score
    max_candidates: int = 1000  # before non-maximum suppression; bounds its time


class NanoDet:
    """NanoDet-g (R. Lyu 2020): boxes with COCO's 80 names. It is a `text.TextDetector` whose prompts are such names."""

    categories: tuple[str, ...] = COCO_NAMES

    def __init__(
        self,
        network: NanoDetNetwork,
        settings: NanoDetSettings | None = None,
        *,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            network: in eval mode, on the device it shall run on.
            settings: how frames are looked at, and what is kept.
            weights: sha256 of the weight files, by name.
        """
        self.network, self.settings, self.weights = network, settings or NanoDetSettings(), weights or {}
        self.threshold = self.settings.threshold
        self.description = f"nanodet, {self.settings.long_side} px, {self.threshold:g}"

    @torch.no_grad()
    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Boxes:
        """The boxes of one image (RGB) in its pixels, within its borders, the one of highest score first; labels are
        indices of `categories`.
        """
        h, w = image.shape[:2]
        rows, columns = compute_input_size((h, w), self.settings.long_side)
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
        device = next(self.network.parameters()).device
        levels = self.network(normalize_bgr(small).to(device))
        scores, boxes = (x.cpu() for x in decode_logits([logits[0] for logits in levels]))
        # Cut at the border first: what is cut overlaps otherwise than what was offered.
        candidates = choose_candidates(scores, boxes, self.settings).within((rows, columns))
        kept = apply_category_nms(candidates, self.settings.nms_iou)
        best = kept[kept.scores.argsort(descending=True, stable=True)[: self.settings.max_boxes]]
        scale = torch.tensor([w / columns, h / rows]).repeat(2)
        return Boxes(best.corners * scale, best.scores, best.labels).within((h, w))

    def query(self, prompts: Sequence[str]) -> Int64[Tensor, " p"]:
        """The labels of some names. Raises InputError for a name that is none of COCO's."""
        return torch.tensor([find_label(prompt) for prompt in prompts], dtype=torch.int64)

    def find(self, frame: Frame, query: Int64[Tensor, " p"]) -> Boxes:
        """The boxes of some categories in a frame; labels are indices of the query."""
        found = self.detect(frame.image)
        rows, prompts = (found.labels[:, None] == query).nonzero(as_tuple=True)
        return Boxes(found.corners[rows], found.scores[rows], prompts)


# -- before the network


def compute_input_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """The size (h, w) at which a frame of `size` is looked at: its aspect, as near as multiples of 32 allow.

    >>> compute_input_size((480, 640), 416), compute_input_size((1920, 1080), 416), compute_input_size((2, 900), 416)
    ((320, 416), (416, 224), (32, 416))
    """
    cells = long_side / max(size) / COARSEST
    return max(round(size[0] * cells), 1) * COARSEST, max(round(size[1] * cells), 1) * COARSEST


def normalize_bgr(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    """An image (RGB) as the network takes it: BGR, normalised."""
    bgr = image[..., ::-1].astype(np.float32)
    bgr -= np.array(MEAN, np.float32)
    bgr /= np.array(STD, np.float32)
    return torch.from_numpy(bgr).permute(2, 0, 1)[None]  # in channels_last already


# -- after it


def choose_candidates(scores: Float[Tensor, "n 80"], boxes: Float[Tensor, "n 4"], settings: NanoDetSettings) -> Boxes:
    """Every pair of a cell and a category that scores above the threshold, at most `max_candidates` of them.

    Args:
        scores: of the categories in each cell, 0 to 1.
        boxes: of each cell, x0, y0, x1, y1.
        settings: the threshold and the limit.
    """
    cells, labels = (scores > settings.threshold).nonzero(as_tuple=True)
    found = Boxes(boxes[cells], scores[cells, labels], labels)
    return found[found.scores.topk(min(settings.max_candidates, len(found))).indices]


def apply_category_nms(found: Boxes, iou: float) -> Boxes:
    """Non-maximum suppression in each category for itself: of two boxes that overlap by more than `iou`, the one of
    higher score stays.
    """
    own = [(found.labels == label).nonzero()[:, 0] for label in sorted(set(found.labels.tolist()))]
    kept = [rows[box_nms(found.corners[rows], found.scores[rows], iou)] for rows in own]
    return found[torch.cat(kept)] if kept else found


# -- by name


def find_label(name: str) -> int:
    """The label of one of COCO's names. Raises InputError for others.

    >>> find_label("dog")
    16
    """
    if name in COCO_NAMES:
        return COCO_NAMES.index(name)
    near = get_close_matches(name, COCO_NAMES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"nanodet: {name!r} is none of the 80 things it knows; {hint}they are: {', '.join(COCO_NAMES)}")


def load_nanodet(
    settings: NanoDetSettings | None = None, device: torch.device = CPU, file: PackagedWeights = ZOO[PACKAGED]
) -> NanoDet:
    """The packaged detector: float32, eval, no gradients.

    Args:
        settings: how frames are looked at, and what is kept.
        device: where the network computes.
        file: with the weights, and the sha256 they must have.

    Raises:
        InputError: the weights are damaged or not there.
    """
    return NanoDet(_load_network(file, str(device)), settings, weights={file.name: file.sha256})


def load_nanodet_network(device: torch.device = CPU) -> NanoDetNetwork:
    """The packaged network, the same at every call: its convolutions fused. Raises InputError as `load_nanodet`."""
    return _load_network(ZOO[PACKAGED], str(device))


@cache
def _load_network(file: PackagedWeights, device: str) -> NanoDetNetwork:
    network = read_nanodet_network(file).to(device)
    fuse_convolutions(network)
    return network


def read_nanodet_network(file: PackagedWeights = ZOO[PACKAGED]) -> NanoDetNetwork:
    """The packaged network, layer by layer: float32, eval, no gradients. Raises InputError as `load_nanodet`."""
    with leave_weights_undrawn():
        network = NanoDetNetwork().requires_grad_(False).eval()
    network.load_state_dict(lay_out_for_convolution(read_packaged(file)), assign=True)
    return network
