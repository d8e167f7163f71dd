"""Which part of an image a clip shows, at which size: drawn once, the same for all frames of the clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8, UInt16

from masklet.core.rle import Rle
from masklet.train.data.clips import TrainingClip

Size = tuple[int, int]  # h, w
Affine = Float[np.ndarray, "2 3"]  # from the image's pixels to the clip's, both from the corner of the first pixel on
RgbImage = UInt8[np.ndarray, "_ _ 3"]
Ids = UInt16[np.ndarray, "_ _"]  # 0: no object, then n + 1

TRIES = 20  # clips without an object, after which one is given all the same
GREY = (124, 116, 104)  # the mean of ImageNet's images, where there is no image


@dataclass(frozen=True)
class ClipView:
    """What a clip shows."""

    size: Size
    affine: Affine


@runtime_checkable
class Framing(Protocol):
    """Draws a view of images of some size."""

    def view(self, random: np.random.Generator, size: Size) -> ClipView:
        """A view of images of `size`."""
        ...


@dataclass(frozen=True)
class FixedFraming:
    """Views of one size: the image fills it, then is scaled and moved at random, half of them mirrored."""

    size: Size
    scale: tuple[float, float] = (1.0, 1.5)  # beside the size at which the image just covers the view
    flip: float = 0.5  # probability

    def view(self, random: np.random.Generator, size: Size) -> ClipView:
        """A crop where the image is larger than the view; where it is smaller, it lies in the view."""
        (h, w), (h0, w0) = self.size, size
        scale = max(h / h0, w / w0) * float(np.exp(random.uniform(*np.log(self.scale))))
        x, y = (random.uniform(0, 1) * (side - scale * side0) for side, side0 in ((w, w0), (h, h0)))
        return ClipView(
            self.size, apply_mirroring(np.array([[scale, 0, x], [0, scale, y]]), w, random.random() < self.flip)
        )


@dataclass(frozen=True)
class ShortSideFraming:
    """DVIS's: the short side from a list, a crop now and then, half of them mirrored."""

    short: tuple[int, ...] = (240, 360, 480)  # pixels
    longest: int = 1333  # of the long side
    crop: float = 0.5  # probability
    crop_short: tuple[int, ...] = (400, 500, 600)  # of the image that is cropped
    crop_side: tuple[int, int] = (384, 600)  # smallest and largest side of a crop
    flip: float = 0.5  # probability

    def view(self, random: np.random.Generator, size: Size) -> ClipView:
        """The whole image, or a crop of it brought to one of the short sides."""
        origin, part = (0, 0), size
        if random.random() < self.crop:
            scale = compute_fit_scale(size, int(random.choice(self.crop_short)), self.longest)
            sides = random.integers(self.crop_side[0], self.crop_side[1] + 1, 2)
            part = (min(size[0], round(sides[0] / scale)), min(size[1], round(sides[1] / scale)))
            origin = (int(random.integers(size[0] - part[0] + 1)), int(random.integers(size[1] - part[1] + 1)))
        scale = compute_fit_scale(part, int(random.choice(self.short)), self.longest)
        h, w = (max(1, round(side * scale)) for side in part)
        sy, sx = h / part[0], w / part[1]
        affine = np.array([[sx, 0, -origin[1] * sx], [0, sy, -origin[0] * sy]])
        return ClipView((h, w), apply_mirroring(affine, w, random.random() < self.flip))


def compute_fit_scale(size: Size, short: int, longest: int) -> float:
    """The scale that brings the short side of `size` (h, w) to `short` pixels, or the long one to `longest` if smaller.

    >>> compute_fit_scale((100, 400), 200, 1333), compute_fit_scale((100, 400), 200, 400)
    (2.0, 1.0)
    """
    return min(short / min(size), longest / max(size))


def apply_mirroring(affine: Affine, width: int, flip: bool) -> Affine:
    """The affine, followed by exchanging left and right of a view `width` pixels wide where `flip` is true."""
    return join_affines(affine, np.array([[-1.0, 0, width], [0, 1, 0]])) if flip else affine


def join_affines(first: Affine, then: Affine) -> Affine:
    """One affine after the other."""
    return np.asarray(then[:, :2] @ first + np.array([[0, 0, 1.0]]) * then[:, 2:])


def make_rotation(angle: float, centre: tuple[float, float]) -> Affine:
    """A turn by an angle in degrees about x, y."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn, about = np.array([[cos, -sin], [sin, cos]]), np.array(centre)
    return np.hstack([turn, (about - turn @ about)[:, None]])


def transform_image(image: RgbImage, view: ClipView) -> RgbImage:
    """The image in a view; smooth also where it is made much smaller."""
    return _apply_view(image, view, GREY)


def transform_mask(mask: Bool[np.ndarray, "_ _"], view: ClipView) -> Float32[np.ndarray, "_ _"]:
    """How much of each pixel of a view lies in a mask, 0 to 1."""
    return _apply_view(mask.view(np.uint8) * np.uint8(255), view, 0).astype(np.float32) / 255


def _apply_view(image: UInt8[np.ndarray, "..."], view: ClipView, border: Any) -> UInt8[np.ndarray, "..."]:
    scale = float(np.sqrt(abs(np.linalg.det(view.affine[:, :2]))))
    affine = view.affine
    if scale < 0.7:  # the warp looks at four pixels only
        h, w = (max(1, round(side * scale)) for side in image.shape[:2])
        affine = affine * np.array([image.shape[1] / w, image.shape[0] / h, 1])
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return np.asarray(
        cv2.warpAffine(
            image, _convert_to_centres(affine), view.size[::-1], borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )
    )


def transform_ids(ids: Ids, view: ClipView) -> Ids:
    """The id map of an image as a view shows it: each pixel takes its nearest one, 0 (no object) beyond the border."""
    return np.asarray(cv2.warpAffine(ids, _convert_to_centres(view.affine), view.size[::-1], flags=cv2.INTER_NEAREST))


def _convert_to_centres(affine: Affine) -> Affine:
    """OpenCV counts from the first pixel's centre."""
    return np.hstack([affine[:, :2], (affine[:, 2] + affine[:, :2].sum(1) / 2 - 0.5)[:, None]])


def draw_clip_with_objects(made: Callable[[], TrainingClip]) -> TrainingClip:
    """The first clip that has an object; the last one of twenty all the same."""
    clip = made()
    for _ in range(TRIES - 1):
        if len(clip.labels):
            break
        clip = made()
    return clip


def paint_id_map(masks: Sequence[Rle], places: Sequence[int], size: Size) -> Ids:
    """One id map of `size` (h, w) of `masks` that may overlap, as in `core.masks.resolve_overlaps_by_area`: the
    smallest wins, on a tie the first. The pixels of masks[n] get the id places[n]; `places` count from 1, all others
    are 0.
    """
    ids = np.zeros(size, np.uint16)
    for n in sorted(range(len(masks)), key=lambda n: (-masks[n].area, -n)):
        ids[masks[n].decode().numpy()] = places[n]
    return ids


def build_clip(
    images: list[RgbImage], ids: list[Ids], labels: list[int], annotated: np.ndarray | None = None
) -> TrainingClip:
    """A clip of the frames `images` and objects n + 1 of the id maps `ids`, with `labels[n]`; objects without a pixel
    in the clip are left out.

    `annotated` bool [g t] says where an object is known, also where the view does not show it; all frames by default.
    """
    every = np.stack(ids)
    there = [n for n in range(len(labels)) if (every == n + 1).any()]
    masks = every[None] == (np.array(there, np.uint16) + 1).reshape(-1, 1, 1, 1)
    known = np.ones((len(labels), len(ids)), bool) if annotated is None else annotated
    return TrainingClip(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(masks),
        torch.from_numpy(known[there]),
        torch.tensor([labels[n] for n in there], dtype=torch.int64),
    )
