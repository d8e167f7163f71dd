"""Detections made elsewhere, behind the `Segmenter` protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.annotations import DetectionSet, FoundObject, FrameEntry, FrameMatcher, VideoFrames
from masklet.core.errors import InputError
from masklet.core.frames import Frame, Video, get_chosen_frames, get_recorded_size
from masklet.core.instances import Detections
from masklet.core.masks import reduce_mask, stack_masks
from masklet.core.part_facts import CPU
from masklet.core.rle import Rle
from masklet.models.nano.image_predictor import load_image_predictor

NO_VIDEO = VideoFrames("")


class Precomputed:
    """What a file or folder of detections says of each frame (`io.annotations.detections`)."""

    look_ahead = 0

    def __init__(
        self,
        given: DetectionSet,
        device: torch.device = CPU,
        video: VideoFrames = NO_VIDEO,
        videos: int = 1,
        recorded: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            given: what it says.
            device: where boxes without masks are filled.
            video: whose frames are meant; without one, frames are counted from 0.
            videos: that it is used for, though it names none of them.
            recorded: height and width of the frames before they were reduced, which they were where this is not None.
        """
        self.given, self.device, self.video, self.videos, self.recorded = given, device, video, videos, recorded
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
        used, whole = get_chosen_frames(video)
        frames, recorded = replace(VideoFrames.of(video), used=used, whole=whole), get_recorded_size(video)
        bound = Precomputed(
            self.given, self.device, frames, self.videos, None if recorded == tuple(video.size) else recorded
        )
        for row in sorted(row for rows in bound._matched[0].values() for row in rows):
            bound._check_size(self.given.entries[row], (video.size, recorded))
        return bound

    def _check_size(self, entry: FrameEntry, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
        """Raises InputError, before any work, where an `entry` is of frames of another size than the video's own
        `sizes`: as its frames are, and as they were before they were reduced.
        """
        h, w = sizes[0] if entry.measure is None else entry.measure()
        if (h, w) in sizes:
            return
        entry.read(sizes[0])
        if (w, h) not in sizes:  # as of an image that is turned
            raise InputError(
                f"{self.given.label}: is of frames of {w}x{h}, those of {self.video.name} are "
                f"{sizes[1][1]}x{sizes[1][0]}; give what was made of this video"
            )

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
        every = [one for row in rows for one in self._read(self.given.entries[row], frame.size)]
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

    def _read(self, entry: FrameEntry, size: tuple[int, int]) -> Sequence[FoundObject]:
        """What an `entry` says of a frame of `size`. What was made of frames before they were reduced is reduced with
        them; so are boxes that do not say of which they were.
        """
        if self.recorded is None or (entry.measure is not None and entry.measure() == size):
            return entry.read(size)
        return [reduce_object(one, self.recorded, size) for one in entry.read(self.recorded)]


def reduce_object(one: FoundObject, whole: tuple[int, int], size: tuple[int, int]) -> FoundObject:
    """What was found in a frame of the size `whole` (h, w), as it is in the same frame at a smaller `size`.

    >>> reduce_object(FoundObject(1.0, 0, None, (8, 4, 2, 2)), (20, 40), (10, 20)).box
    (4.0, 2.0, 1.0, 1.0)
    """
    mask = None if one.mask is None else Rle.encode(reduce_mask(one.mask.decode(), size))
    if one.box is None:
        return one._replace(mask=mask)
    (x, y, w, h), rows, columns = one.box, size[0] / whole[0], size[1] / whole[1]
    return one._replace(mask=mask, box=(x * columns, y * rows, w * columns, h * rows))


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
