"""Annotated videos (YouTube-VIS, OVIS, VIPSeg) as clips, drawn as DVIS draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64
from PIL import Image
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.io.formats.json_entry import read_json_object
from masklet.io.formats.panoptic import read_panoptic, read_panoptic_split
from masklet.io.formats.ytvis import TRUTH, read_ytvis_split, read_ytvis_truth
from masklet.io.video.frame_source import format_size
from masklet.io.video.images import SUFFIXES, read_rgb_image
from masklet.train.data.clips import TrainingClip
from masklet.train.data.framing import (
    ClipView,
    Framing,
    Ids,
    RgbImage,
    build_clip,
    draw_clip_with_objects,
    paint_id_map,
    transform_ids,
    transform_image,
)


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a video make a clip."""

    reach: int | None = (
        None  # frames on either side of a random one; none, or as many as the clip: each follows the last
    )
    reversal: float = 0.0  # probability that the clip runs backward; DVIS offline: 0.5
    released_start: bool = False  # as released: the last place where a clip could start is never drawn
    released_repeats: bool = False  # as released: in a video shorter than the clip, repeats come after its end

    def frames(self, random: np.random.Generator, length: int, count: int) -> Int64[np.ndarray, " t"]:
        """The numbers of `count` frames of a video of `length` frames, drawn by `random`: consecutive where no reach is
        set or `count` is 2 `reach` + 1, else a random frame and others within reach of it. Frames may repeat in short
        videos.
        """
        chosen = (
            self._consecutive(random, length, count)
            if self.reach is None or count == 2 * self.reach + 1
            else self._around(random, length, count, self.reach)
        )
        return chosen[::-1].copy() if random.random() < self.reversal else chosen

    def _consecutive(self, random: np.random.Generator, length: int, count: int) -> Int64[np.ndarray, " t"]:
        if length >= count:
            last = length - count - (1 if self.released_start and length > count else 0)
            return int(random.integers(last + 1)) + np.arange(count)
        repeats = random.integers(length, size=count - length)
        chosen = np.append(np.arange(length), repeats)
        return chosen if self.released_repeats else np.sort(chosen)

    def _around(self, random: np.random.Generator, length: int, count: int, reach: int) -> Int64[np.ndarray, " t"]:
        reference = int(random.integers(length))
        near = np.arange(max(0, reference - reach), min(length, reference + reach + 1))
        others = near[near != reference] if len(near) > 1 else near
        return np.sort(np.append(random.choice(others, count - 1), reference))


@dataclass(frozen=True)
class Footage:
    """One video: its annotation and its images."""

    truth: VideoResult
    images: tuple[Path, ...]


def read_ytvis_footage(json: Path, folder: Path) -> tuple[list[Footage], tuple[str, ...]]:
    """The videos of YouTube-VIS's or OVIS's form, and the categories; images are <folder>/<file_name>.

    Raises InputError naming what is malformed or missing.
    """
    files = [v.texts("file_names") for v in read_json_object(json, TRUTH, "videos").entries("videos")]
    pairs = zip(read_ytvis_truth(json), files, strict=True)
    return [Footage(truth, tuple(folder / f for f in names)) for truth, names in pairs], read_ytvis_split(json).names


def read_vipseg_footage(json: Path, pngs: Path, folder: Path) -> tuple[list[Footage], tuple[str, ...]]:
    """The videos of VIPSeg's form, and the categories: annotations in `json`, their panoptic maps in `pngs`, frames as
    <folder>/<video>/<frame>.jpg or the like.

    Raises InputError naming what is malformed or missing.
    """
    split, found = read_panoptic_split(json), []
    for truth in read_panoptic(json, pngs):
        at = {p.stem: p for p in (folder / truth.name).glob("*") if p.suffix.lower() in SUFFIXES}
        names = split.videos[truth.name].frames or ()
        found.append(Footage(truth, tuple(at.get(n, folder / truth.name / f"{n}.jpg") for n in names)))
    return found, split.names


class VideoClips:
    """A `ClipSource` of annotated videos. Those without an object are left out.

    A clip without an object is drawn again, up to twenty times.
    """

    def __init__(
        self,
        footage: Sequence[Footage],
        categories: tuple[str, ...],
        framing: Framing,
        sampling: FrameSampling | None = None,
    ) -> None:
        """Raises InputError where there is no video with an object, or images are missing."""
        self.footage = [f for f in footage if f.truth.masklets]
        self.categories, self.framing, self.sampling = categories, framing, sampling or FrameSampling()
        if not self.footage:
            raise InputError(f"none of the {len(footage)} videos has an object; give videos that are annotated")
        for one in self.footage:
            missing = next((p for p in one.images if not p.is_file()), None)
            if missing is not None:
                raise InputError(f"{one.truth.name}: {missing} is not there; give the folder that holds the frames")

    def __len__(self) -> int:
        return len(self.footage)

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """One more clip. Raises InputError where an image cannot be read or is not of the annotation's size."""
        return draw_clip_with_objects(
            lambda: self._clip(random, self.footage[random.integers(len(self.footage))], frames)
        )

    def _clip(self, random: np.random.Generator, one: Footage, frames: int) -> TrainingClip:
        chosen = self.sampling.frames(random, one.truth.length, frames).tolist()
        view = self.framing.view(random, one.truth.size)
        present = np.array([[t in m.sightings for t in chosen] for m in one.truth.masklets])
        images = {t: transform_image(_read_footage_image(one, t), view) for t in set(chosen)}
        ids = {t: _paint_truth_ids(one.truth, t, view) for t in set(chosen)}
        labels = [m.label for m in one.truth.masklets]
        return build_clip([images[t] for t in chosen], [ids[t] for t in chosen], labels, present)


class ReleasedLabelClips:
    """A `ClipSource` with the labels that DVIS's released program trains on, see `make_released_labels`."""

    def __init__(self, source: VideoClips) -> None:
        self.source, self.categories = source, source.categories

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """One more clip; a label may be the number of categories, "no object"."""
        made = self.source.clip(random, frames)
        return replace(made, labels=make_released_labels(made.present, made.labels, len(self.categories)))


def make_released_labels(
    present: Bool[Tensor, "g t"], labels: Int64[Tensor, " g"], classes: int
) -> Int64[Tensor, " g"]:
    """The `labels` as DVIS's released program has them: of an object that is not `present` in the last frame it is
    `classes`, "no object". Its masks are trained all the same.
    """
    return torch.where(present[:, -1], labels, classes)


def _read_footage_image(one: Footage, frame: int) -> RgbImage:
    path = one.images[frame]
    try:
        image = read_rgb_image(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); give an intact copy") from None
    if image.shape[:2] != one.truth.size:
        h, w = image.shape[:2]
        raise InputError(
            f"{path}: is {format_size((h, w))}, but its annotations "
            f"are for {format_size(one.truth.size)}; give that size"
        )
    return image


def _paint_truth_ids(truth: VideoResult, frame: int, view: ClipView) -> Ids:
    there = [(n, m.sightings[frame]) for n, m in enumerate(truth.masklets) if frame in m.sightings]
    return transform_ids(paint_id_map([s.mask for _, s in there], [n + 1 for n, _ in there], truth.size), view)
