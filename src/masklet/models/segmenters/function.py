"""A plain function as a segmenter: a frame in, detections out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import UInt8

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import NAMELESS, Detections
from masklet.core.part_facts import CPU
from masklet.models.nano.image_predictor import load_image_predictor

if TYPE_CHECKING:
    import supervision

Function = Callable[[UInt8[np.ndarray, "h w 3"]], Any]


class FunctionSegmenter:
    """Asks a function for the detections of every frame by itself."""

    look_ahead = 0
    conf = low_conf = 0.0  # systems take what it gives

    def __init__(self, function: Function, name: str = "", device: torch.device = CPU) -> None:
        """
        Args:
            function: takes a frame, RGB, uint8 [h w 3], and gives `Detections` whose labels count `categories` of the
                function, if it has any, or `supervision.Detections` with masks, or with boxes alone: then nano's
                image predictor draws the masks. Categories of the latter are their `class_name`.
            name: what results call it; "": the function's own name.
            device: where the image predictor computes.
        """
        self.function, self.device = function, device
        self.description = f"function {name or getattr(function, '__name__', type(function).__name__)}"
        self.weights: Mapping[str, str] = {}
        self.categories: tuple[str, ...] = tuple(getattr(function, "categories", (NAMELESS,)))

    def empty(self) -> None:
        """Nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """The detections of each of `frames`; `memory` is None, and `future` is not looked at."""
        return [self._find(frame) for frame in frames], None

    def _find(self, frame: Frame) -> Detections:
        found = self.function(frame.image)
        if isinstance(found, Detections):
            return self._checked(found, frame)
        import supervision  # half a second, which only those pay whose function gives something else

        if isinstance(found, supervision.Detections):
            return self._checked(self._converted(found, frame), frame)
        raise InputError(
            f"{self.description}: gave {type(found).__name__} in frame {frame.index}; it must give "
            "masklet.Detections or supervision.Detections"
        )

    def _checked(self, found: Detections, frame: Frame) -> Detections:
        """Raises InputError where masks are of another size than the frame, or labels mean nothing."""
        size = tuple(found.masks.shape[1:])
        if size != frame.size:
            h, w = frame.size
            raise InputError(
                f"{self.description}: masks of {size[1]}x{size[0]} in frame {frame.index} of {w}x{h}; give them at the "
                "frame's size"
            )
        if len(found.labels) and not 0 <= int(found.labels.min()) <= int(found.labels.max()) < len(self.categories):
            raise InputError(
                f"{self.description}: label {int(found.labels.max())} in frame {frame.index}, but there are "
                f"{len(self.categories)} categories; give the function an attribute `categories`"
            )
        return found

    def _converted(self, found: supervision.Detections, frame: Frame) -> Detections:
        """supervision's detections as ours, with masks and names."""
        if found.mask is None:
            corners = torch.from_numpy(np.asarray(found.xyxy, np.float32)).view(-1, 4)
            masks, _ = load_image_predictor(self.device).predict_boxes(frame.image, corners)
        else:
            masks = torch.from_numpy(np.asarray(found.mask, bool)).view(-1, *found.mask.shape[1:])
        scores = np.ones(len(found)) if found.confidence is None else found.confidence
        names = found.data.get("class_name")
        if names is None:
            names = [NAMELESS if found.class_id is None else f"class {n}" for n in _list_class_ids(found)]
        new = [name for name in dict.fromkeys(map(str, names)) if name not in self.categories]
        self.categories = (*self.categories, *new)
        labels = [self.categories.index(str(name)) for name in names]
        return Detections(
            masks,
            torch.from_numpy(np.asarray(scores, np.float32)),
            torch.tensor(labels, dtype=torch.int64),
        )


def _list_class_ids(found: supervision.Detections) -> Sequence[int]:
    return [0] * len(found) if found.class_id is None else [int(n) for n in found.class_id]
