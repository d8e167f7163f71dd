"""Objects cut out of images that move over a moving background: real textures, exact masks, a video's events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from masklet.train.data.clips import TrainingClip
from masklet.train.data.framing import (
    FixedFraming,
    Ids,
    RgbImage,
    Size,
    build_clip,
    draw_clip_with_objects,
    transform_ids,
    transform_image,
)
from masklet.train.data.stills import Still, Stills, apply_light, draw_light_factors
from masklet.train.data.trajectories import (
    MotionSettings,
    draw_camera_path,
    draw_key_moments,
    draw_object_paths,
    sample_spline,
)

LEAST = 400  # pixels of an object that is worth cutting out
OVERSIZE = 1.3  # sides of the background beside those of the frame
EDGE = 0.6  # pixels: how far a pasted object's edge is smoothed


@dataclass(frozen=True)
class Cutout:
    """An object cut out of an image."""

    image: RgbImage
    inside: UInt8[np.ndarray, "h w"]  # 255 where it is
    label: int

    @property
    def radius(self) -> float:
        """Half the side of the square of its area, in pixels."""
        return float(np.sqrt(np.count_nonzero(self.inside)) / 2)


@dataclass(frozen=True)
class PastingSettings(MotionSettings):
    """What such clips are like. Shares are of objects unless said otherwise."""

    objects: tuple[int, int] = (1, 4)  # fewest and most that are pasted
    lookalikes: float = 0.2  # that are another copy of an object pasted before
    crowding: float = 0.7  # how near objects come to each other: 0 far, 1 near
    bend: float = 0.05  # largest warp of the background at the end of the clip, in short sides
    light: float = 0.2  # largest change of brightness, contrast and saturation
    zoom: tuple[float, float] = (1.0, 1.6)  # of the background, beside the size at which it just fills the frame


def extract_cutouts(still: Still) -> list[Cutout]:
    """The objects of an image that are large enough."""
    made = []
    for n, label in enumerate(still.labels):
        inside = (still.ids == n + 1).astype(np.uint8) * 255
        if cv2.countNonZero(inside) >= LEAST:
            x, y, w, h = cv2.boundingRect(inside)
            part = slice(y, y + h), slice(x, x + w)
            made.append(Cutout(still.image[part], inside[part], label))
    return made


class MovingStills:
    """A `ClipSource` for propagation: an image with its objects under a moving camera, and others' objects over it.

    Those are cut out of images of the same set; they cross, leave and return, change their size and turn.
    """

    def __init__(self, stills: Stills, settings: PastingSettings | None = None) -> None:
        self.stills, self.settings = stills, settings or PastingSettings()
        self.categories = stills.categories

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """A clip of so many `frames`, drawn with `random`; tried up to twenty times where no object is seen."""
        return draw_clip_with_objects(lambda: self._clip(random, frames))

    def _clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        number = int(random.integers(self.settings.objects[0], self.settings.objects[1] + 1))
        return paste_cutouts(random, self._cutouts(random, number), self.stills.draw(random), self.settings, frames)

    def _cutouts(self, random: np.random.Generator, number: int) -> list[Cutout]:
        found: list[Cutout] = []
        for _ in range(number):
            if found and random.random() < self.settings.lookalikes:
                found.append(found[random.integers(len(found))])
            else:
                there = extract_cutouts(self.stills.draw(random))
                found += [there[random.integers(len(there))]] if there else []
        return found


def paste_cutouts(
    random: np.random.Generator, above: Sequence[Cutout], below: Still, settings: PastingSettings, frames: int
) -> TrainingClip:
    """A clip of so many `frames`: the image `below` under a moving camera, and the cut-outs `above` that move over it,
    the last one in front. `settings` say how things move and look; `random` decides the rest.
    """
    keys = draw_key_moments(random, frames)
    camera_keys, times = draw_camera_path(random, settings, keys), np.arange(frames, dtype=float)
    camera = sample_spline(keys, camera_keys, times, axis=0)
    ground = _MovingBackground.of(random, below, settings)
    poses = np.zeros((0, frames, 5))
    if above:
        poses = sample_spline(
            keys, draw_object_paths(random, settings, keys, camera_keys, len(above), settings.crowding), times, axis=1
        )
        poses[..., 3] -= poses[:, :1, 3] * random.uniform(0.8, 1, (len(above), 1))  # real objects stand upright
    lights = draw_light_factors(random, settings.light) + np.cumsum(random.normal(0, 0.015, (frames, 6)), axis=0)
    images, ids = [], []
    for t in range(frames):
        image, there = ground.at(camera[t], t / max(frames - 1, 1))
        for n, (cutout, pose) in enumerate(zip(above, poses[:, t], strict=True)):
            _paste_cutout(image, there, cutout, pose, len(below.labels) + n + 1)
        images.append(apply_light(image, lights[t]))
        ids.append(there)
    clip = build_clip(images, ids, [*below.labels, *(c.label for c in above)])
    return TrainingClip(clip.images, clip.masks, clip.masks.flatten(2).any(2), clip.labels)


@dataclass(frozen=True)
class _MovingBackground:
    """The background: larger than the frame, moved by the camera, and bent more and more."""

    image: RgbImage
    ids: Ids
    size: Size
    bend: Float32[np.ndarray, "h w 2"]  # pixels, at the end of the clip

    @staticmethod
    def of(random: np.random.Generator, below: Still, settings: PastingSettings) -> _MovingBackground:
        """The background made of `below`, a random view larger than the frame, and how far `settings` let it bend."""
        h, w = settings.size
        framing = FixedFraming((round(h * OVERSIZE), round(w * OVERSIZE)), settings.zoom)
        view = framing.view(random, below.ids.shape)
        most = settings.bend * min(h, w)
        coarse = random.uniform(-most, most, (4, 5, 2)).astype(np.float32)
        bend = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
        return _MovingBackground(transform_image(below.image, view), transform_ids(below.ids, view), (h, w), bend)

    def at(self, camera: Float[np.ndarray, "4"], share: float) -> tuple[RgbImage, Ids]:
        """The background some share of the clip on. Beyond the image is its mirror image."""
        h, w = self.size
        dx, dy, zoom, angle = camera
        y, x = np.mgrid[:h, :w].astype(np.float32)
        x, y = x - np.float32((w - 1) / 2 + dx), y - np.float32((h - 1) / 2 + dy)
        cos, sin = (np.float32(f(-angle) * np.exp(-zoom)) for f in (np.cos, np.sin))
        at_x = cos * x - sin * y + np.float32((self.ids.shape[1] - 1) / 2) + np.float32(share) * self.bend[..., 0]
        at_y = sin * x + cos * y + np.float32((self.ids.shape[0] - 1) / 2) + np.float32(share) * self.bend[..., 1]
        image = cv2.remap(self.image, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        ids = cv2.remap(self.ids, at_x, at_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(image), np.asarray(ids)


def _paste_cutout(image: RgbImage, ids: Ids, cutout: Cutout, pose: Float[np.ndarray, "5"], id: int) -> None:
    """Pastes one object in its pose into image and ids."""
    h, w = cutout.inside.shape
    x, y, radius, angle, stretch = pose
    scale = np.exp(radius) / cutout.radius
    along, across = (scale * np.exp(s * stretch / 2) for s in (1, -1))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[along * cos, -across * sin], [along * sin, across * cos]])
    source, inside = cutout.image, cutout.inside
    if scale < 0.7:  # the warp looks at four pixels only
        small = max(1, round(w * scale)), max(1, round(h * scale))
        turn = turn * [w / small[0], h / small[1]]
        source, inside = (cv2.resize(p, small, interpolation=cv2.INTER_AREA) for p in (source, inside))
        h, w = inside.shape
    corners = np.array([[0, 0], [w, 0], [0, h], [w, h]]) - [w / 2, h / 2]
    reach = np.abs(corners @ turn.T).max(0) + 2
    centre = np.array([x, y])
    low = np.clip(np.floor(centre - reach).astype(int), 0, ids.shape[::-1])
    high = np.clip(np.ceil(centre + reach).astype(int), 0, ids.shape[::-1])
    if (high <= low).any():
        return
    shift = centre - low - turn @ [w / 2, h / 2] + turn.sum(1) / 2 - 0.5
    affine, size = np.hstack([turn, shift[:, None]]), (high - low).tolist()
    shown = cv2.warpAffine(source, affine, size, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(inside, affine, size)
    alpha = cv2.GaussianBlur(share, (3, 3), EDGE)[..., None] * np.float32(1 / 255)
    part = slice(low[1], high[1]), slice(low[0], high[0])
    image[part] = np.round(image[part] + (shown - image[part].astype(np.float32)) * alpha)
    ids[part][share >= 128] = id
