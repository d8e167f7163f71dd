"""Detections made elsewhere, behind the `Segmenter` protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.annotations import DetectionSet, FoundObject, FrameMatcher, VideoFrames
from masklet.core.frames import Frame, Video
from masklet.core.instances import Detections
from masklet.core.masks import stack_masks
from masklet.core.part_facts import CPU
from masklet.models.nano.image_predictor import load_image_predictor

NO_VIDEO = VideoFrames("")


class Precomputed:
    """What a file or folder of detections says of each frame (`io.annotations.detections`)."""

    look_ahead = 0

    def __init__(
        self, given: DetectionSet, device: torch.device = CPU, video: VideoFrames = NO_VIDEO, videos: int = 1
    ) -> None:
        """
        Args:
            given: what it says.
            device: where boxes without masks are filled.
            video: whose frames are meant; without one, frames are counted from 0.
            videos: that it is used for, though it names none of them.
        """
        self.given, self.device, self.video, self.videos = given, device, video, videos
        self.categories = given.categories
        self.advice = {"stuff": given.stuff}  # for systems that tell things from stuff
        self.weights: Mapping[str, str] = given.hashes
        self.description = f"detections in {given.label}"

    @property
    def notes(self) -> Sequence[str]:
        """What a result must tell of how its frames were found."""
        shared = f"{self.given.label}: says nothing of videos, and was used for each of {self.videos}"
        return [*self._matched[1], *([shared] if self.videos > 1 else [])]

    @cached_property
    def _matched(self) -> tuple[Mapping[int, Sequence[int]], Sequence[str]]:
        """Entries by frame, and what is to be told of them."""
        matcher = FrameMatcher(self.given.label, self.given.listed, self.video)
        return matcher.group([entry.place for entry in self.given.entries]), matcher.notes

    def bind_video(self, video: Video) -> Precomputed:
        """The same for the frames of one `video`. Raises InputError where none of its entries is of one of them."""
        bound = Precomputed(self.given, self.device, VideoFrames.of(video), self.videos)
        rows = sorted(row for rows in bound._matched[0].values() for row in rows)
        for entry in (self.given.entries[row] for row in rows):  # so that what does not fit is refused before any work
            if entry.measure is not None and entry.measure() != video.size:
                entry.read(video.size)
        return bound

    def share(self, videos: int) -> Precomputed:
        """The same for several `videos` that it does not name, which its notes say."""
        return Precomputed(self.given, self.device, self.video, videos)

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Looks up the detections on record for each of `frames`, by its index; `memory` is None, and `future` is not
        looked at. Raises InputError where a mask is not of the frame's size.
        """
        return self.segment_above(memory, frames, future, -math.inf)

    def segment_above(
        self, memory: None, frames: Sequence[Frame], future: Sequence[Frame], least: float
    ) -> tuple[list[Detections], None]:
        """As `segment`; masks that score less than `least` are not decoded, boxes not drawn."""
        return [self._find(frame, least) for frame in frames], None

    def _find(self, frame: Frame, least: float) -> Detections:
        rows = self._matched[0].get(frame.index, ())
        every = [one for row in rows for one in self.given.entries[row].read(frame.size)]
        scores = torch.tensor([one.score for one in every])
        high = scores >= least
        found = [one for one, kept in zip(every, high.tolist(), strict=True) if kept]
        masks = fill_missing_masks(frame, found, self.device)
        return Detections(
            masks,
            scores[high],
            torch.tensor([one.label for one in found], dtype=torch.int64),
            scores[~high],
        )


def fill_missing_masks(frame: Frame, found: Sequence[FoundObject], device: torch.device) -> Bool[Tensor, "n h w"]:
    """The masks of what was `found` in a `frame`; those of boxes alone as nano's image predictor draws them on a
    `device`, or the box where it draws nothing.
    """
    h, w = frame.size
    masks = [torch.zeros(h, w, dtype=torch.bool) if one.mask is None else one.mask.decode() for one in found]
    boxed = [(row, clip_box(one.box, frame.size)) for row, one in enumerate(found) if one.mask is None and one.box]
    boxed = [(row, box) for row, box in boxed if box[0] < box[2] and box[1] < box[3]]
    if boxed:
        corners = torch.tensor([box for _, box in boxed], dtype=torch.float32)
        drawn = load_image_predictor(device).predict_boxes(frame.image, corners)[0]
        for (row, (x0, y0, x1, y1)), mask in zip(boxed, drawn, strict=True):
            masks[row] = mask
            if not mask.any():
                masks[row][int(y0) : max(round(y1), int(y0) + 1), int(x0) : max(round(x1), int(x0) + 1)] = True
    return stack_masks(masks, frame.size)


def clip_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The corners x0, y0, x1, y1 of a box [x, y, w, h] within a frame of `size` (h, w).

    >>> clip_box((-5, 2, 1e9, 3), (4, 6))
    (0.0, 2.0, 6.0, 4.0)
    """
    x, y, w, h = box
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(size[1])), min(y + h, float(size[0]))
    return float(x0), float(y0), float(x1), float(y1)
