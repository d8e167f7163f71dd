"""Objects of annotated images as a promptable network sees them: a crop, the object's mask in it, a first prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from masklet.core.errors import InputError
from masklet.core.instances import Box, Point
from masklet.train.data.framing import (
    Affine,
    ClipView,
    RgbImage,
    apply_mirroring,
    join_affines,
    make_rotation,
    transform_image,
    transform_mask,
)
from masklet.train.data.stills import Stills, apply_random_light

Soft = Float32[np.ndarray, "s s"]


@dataclass(frozen=True)
class PromptCropSampling:
    """How prompts and views are drawn. Shares are probabilities, lengths are those of what they are named after."""

    side: int = 192  # of a crop, pixels
    least: int = 700  # pixels of an object
    boxes: float = 0.42  # share of prompts that begin with a box,
    corrections: float = 0.1  # with somebody's wrong mask and a click; the others with a click
    whole: float = 0.5  # share of clicks that see the whole image; the others see its answer and look again
    jitter: float = 0.06  # by which a box is wrong, in its sides
    views: tuple[float, float] = (1.15, 1.9)  # sides of a near view, in longer sides of the object
    wholes: tuple[float, float] = (0.6, 1.05)  # of a view of the whole, in longer sides of the image
    angle: float = 10.0  # degrees, largest turn, in a third of the views
    light: float = 0.2  # largest change of brightness, contrast and saturation
    worse: float = 0.1  # share of views that are blurred, noisy or badly compressed
    pasted: float = 0.12  # share of views with an object of another image
    depths: tuple[float, ...] = (0.05, 0.4, 0.7)  # a click lies among this share of the deepest pixels
    rounds: tuple[float, ...] = (0.45, 0.25, 0.15, 0.15)  # probability of so many clicks more
    hinted: float = 0.75  # share of batches in which a detector's maps are seen, where there is one
    again: float = 0.5  # share of boxes whose first further click is none: the answer is looked at again


@dataclass(frozen=True)
class PromptCrop:
    """One object to be drawn. Places are pixels of the crop."""

    image: UInt8[np.ndarray, "s s 3"]
    mask: Soft  # what is to be drawn, 0 to 1
    points: tuple[Point, ...]
    box: Box | None
    earlier: Soft | None  # somebody's wrong mask
    wide: PromptCrop | None = None  # the view whose answer is seen in this one
    to_wide: Affine | None = None  # from pixels of this crop to those of the wide one


@dataclass(frozen=True)
class StillsShare:
    """A set of stills, and how often it is drawn beside the others."""

    stills: Stills
    ratio: float
    left_out: tuple[str, ...] = ()  # categories that are no objects
    name: str = "a set of stills"  # for whoever gave it

    def large_objects(self, n: int, least: int) -> list[int]:
        """The objects of an image that can be asked for."""
        names = (self.stills.categories[label] for label in self.stills.labels(n))
        return [
            k
            for k, (mask, name) in enumerate(zip(self.stills.masks(n), names, strict=True))
            if mask.area >= least and name not in self.left_out
        ]


class PromptCrops:
    """Draws objects of several sets."""

    def __init__(self, shares: Sequence[StillsShare], sampling: PromptCropSampling | None = None) -> None:
        """Raises InputError where a set has no object that could be drawn."""
        self.shares, self.sampling = tuple(shares), sampling or PromptCropSampling()
        least = self.sampling.least
        self._images = [[n for n in range(len(s.stills)) if s.large_objects(n, least)] for s in self.shares]
        for share, images in zip(self.shares, self._images, strict=True):
            if not images:
                raise InputError(f"{share.name}: no object of {least} pixels or more; give images with larger ones")
        ratios = np.array([share.ratio for share in shares])
        self._ratios = ratios / ratios.sum()

    def crop(self, random: np.random.Generator) -> PromptCrop:
        """A random object of the sets as a crop with its first prompt; objects that are hardly seen are passed over."""
        found = None
        while found is None:
            found = self._tried(random)
        return found

    def _tried(self, random: np.random.Generator) -> PromptCrop | None:
        """The object that is drawn; None where too little of it is left to see."""
        sampling = self.sampling
        image, masks, n = self._object(random)
        kind = random.random()
        prompted = "box" if kind < sampling.boxes else "wrong" if kind < sampling.boxes + sampling.corrections else ""
        near = draw_near_view(random, masks[n], sampling)
        if random.random() < sampling.pasted:
            image, masks = self._pasted(random, image, masks, n)
        image = apply_image_degradation(random, apply_random_light(random, image, sampling.light), sampling.worse)
        if prompted:
            return draw_first_prompt(
                random, PromptCrop(*crop_object(image, masks[n], near), (), None, None), masks, near, self
            )
        wide_view = draw_wide_view(random, image.shape[:2], masks[n], sampling)
        wide = add_first_click(random, PromptCrop(*crop_object(image, masks[n], wide_view), (), None, None), sampling)
        if wide is None or random.random() < sampling.whole:
            return wide
        return make_near_crop(wide, PromptCrop(*crop_object(image, masks[n], near), (), None, None), near, wide_view)

    def _object(self, random: np.random.Generator) -> tuple[RgbImage, list[Bool[np.ndarray, "h w"]], int]:
        """A image, its masks, and the one that is asked for."""
        row = int(random.choice(len(self.shares), p=self._ratios))
        share, images = self.shares[row], self._images[row]
        n = images[int(random.integers(len(images)))]
        chosen = int(random.choice(share.large_objects(n, self.sampling.least)))
        return share.stills.image(n), [mask.decode().numpy() for mask in share.stills.masks(n)], chosen

    def _pasted(
        self, random: np.random.Generator, image: RgbImage, masks: list[Bool[np.ndarray, "h w"]], n: int
    ) -> tuple[RgbImage, list[Bool[np.ndarray, "h w"]]]:
        """The image with an object of another one near the one that is asked for, partly over it."""
        other, others, k = self._object(random)
        (x0, y0, x1, y1), (u0, v0, u1, v1) = find_mask_bounds(masks[n]), find_mask_bounds(others[k])
        scale = random.uniform(0.4, 1.2) * max(x1 - x0, y1 - y0) / max(u1 - u0, v1 - v0)
        x, y = random.uniform(x0 - 0.3 * (x1 - x0), x1 + 0.3 * (x1 - x0)), random.uniform(y0, y1)
        affine = np.array([[scale, 0, x - scale * (u0 + u1) / 2], [0, scale, y - scale * (v0 + v1) / 2]])
        view = ClipView((image.shape[0], image.shape[1]), affine)
        over = transform_mask(others[k], view)
        if (masks[n] & (over < 0.5)).sum() < 0.5 * masks[n].sum():
            return image, masks
        mixed = image + (transform_image(other, view).astype(np.float32) - image) * over[..., None]
        return mixed.astype(np.uint8), [mask & (over < 0.5) for mask in masks]


# -- views


def draw_near_view(
    random: np.random.Generator, mask: Bool[np.ndarray, "h w"], sampling: PromptCropSampling
) -> ClipView:
    """A square around the object `mask`, `sampling.views` times as long as its longer side and drawn by `random`, which
    may turn and mirror it. The mask must not be empty.
    """
    x0, y0, x1, y1 = find_mask_bounds(mask)
    longer = max(x1 - x0, y1 - y0)
    side = longer * random.uniform(*sampling.views)
    free = max(side - longer, 0.0) / 2
    x, y = (x0 + x1) / 2 + random.uniform(-free, free), (y0 + y1) / 2 + random.uniform(-free, free)
    return make_square_view(random, (x, y), side, sampling)


def draw_wide_view(
    random: np.random.Generator, size: tuple[int, ...], mask: Bool[np.ndarray, "h w"], sampling: PromptCropSampling
) -> ClipView:
    """A square that shows most of an image of `size` (h, w), with the centre of the object `mask` in its middle two
    thirds before it is turned. `sampling` gives the range of its side, `random` draws side and place.
    """
    h, w = size[:2]
    side = max(h, w) * random.uniform(*sampling.wholes)
    ys, xs = np.nonzero(mask)
    x, y = (
        np.clip(
            random.uniform(min(s - side / 2, side / 2), max(s - side / 2, side / 2)),
            v.mean() - side / 3,
            v.mean() + side / 3,
        )
        for v, s in ((xs, w), (ys, h))
    )
    return make_square_view(random, (float(x), float(y)), side, sampling)


def make_square_view(
    random: np.random.Generator, at: tuple[float, float], side: float, sampling: PromptCropSampling
) -> ClipView:
    """The view of the square of `side` image pixels around the place `at` (x, y), scaled to `sampling.side` pixels;
    `random` turns a third of such views and mirrors half.
    """
    scale = sampling.side / side
    middle = sampling.side / 2
    affine = np.array([[scale, 0, middle - scale * at[0]], [0, scale, middle - scale * at[1]]])
    if random.random() < 1 / 3:
        affine = join_affines(
            affine, make_rotation(float(random.uniform(-sampling.angle, sampling.angle)), (middle, middle))
        )
    return ClipView((sampling.side, sampling.side), apply_mirroring(affine, sampling.side, random.random() < 0.5))


def crop_object(image: RgbImage, mask: Bool[np.ndarray, "h w"], view: ClipView) -> tuple[RgbImage, Soft]:
    """The image and an object's mask in a view."""
    return transform_image(image, view), transform_mask(mask, view)


def make_near_crop(wide: PromptCrop, near: PromptCrop, view: ClipView, wide_view: ClipView) -> PromptCrop | None:
    """The crop `near` (seen through `view`) with the click made in the crop `wide` (seen through `wide_view`), and the
    way back to it. None where the object or the click is not in the near view.
    """
    back = join_affines(compute_inverse_affine(view.affine), wide_view.affine)
    to_near = join_affines(compute_inverse_affine(wide_view.affine), view.affine)
    [point] = wide.points
    x, y = to_near[:, :2] @ [point.x, point.y] + to_near[:, 2]
    if not near.mask.any() or not (0 <= x < len(near.mask) and 0 <= y < len(near.mask)):
        return None
    return replace(near, points=(replace(point, x=float(x), y=float(y)),), wide=wide, to_wide=back)


def compute_inverse_affine(affine: Affine) -> Affine:
    """The affine that takes back."""
    inverse = np.linalg.inv(affine[:, :2])
    return np.hstack([inverse, -(inverse @ affine[:, 2])[:, None]])


def find_mask_bounds(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask that is not empty; x1 and y1 are one past the last."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def apply_image_degradation(random: np.random.Generator, image: RgbImage, share: float) -> RgbImage:
    """The image `image`, with probability `share` blurred, noisy or badly compressed, as `random` draws it."""
    if random.random() >= share:
        return image
    kind = random.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.5, 2.0)))
    if kind == 1:
        noise = random.normal(0, random.uniform(2, 15), image.shape).astype(np.float32)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(15, 60))])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))


# -- prompts


def draw_first_prompt(
    random: np.random.Generator,
    crop: PromptCrop,
    masks: Sequence[Bool[np.ndarray, "h w"]],
    view: ClipView,
    crops: PromptCrops,
) -> PromptCrop | None:
    """The `crop` with a box, or a wrong mask and a click that corrects it, in the shares of `crops.sampling`. `masks`
    are those of all objects of the image, for mistakes, and `view` brings them into the crop; `random` decides. None
    where the object is not seen or the mask not wrong.
    """
    sampling = crops.sampling
    inside = crop.mask > 0.5
    if not inside.any():
        return None
    if random.random() * (sampling.boxes + sampling.corrections) < sampling.boxes:
        return replace(crop, box=draw_shaken_box(random, find_mask_bounds(inside), sampling.jitter))
    others = [other for other in (transform_mask(mask, view) > 0.5 for mask in masks) if other.any()]
    wrong = draw_mistaken_mask(random, inside, others)
    point = draw_correction(random, wrong, inside, sampling.depths)
    return None if point is None else replace(crop, points=(point,), earlier=soften_mask(random, wrong))


def draw_shaken_box(random: np.random.Generator, box: tuple[int, int, int, int], jitter: float) -> Box:
    """The `box` (x0, y0, x1, y1, pixels) as somebody draws it by hand: `random` moves each edge, by at most twice
    `jitter` of the side that it ends.
    """
    x0, y0, x1, y1 = box
    dx, dy = random.normal(0, jitter, (2, 2)).clip(-2 * jitter, 2 * jitter)
    w, h = x1 - x0, y1 - y0
    return Box(x0 + dx[0] * w, y0 + dy[0] * h, x1 + dx[1] * w, y1 + dy[1] * h)


def add_first_click(random: np.random.Generator, crop: PromptCrop, sampling: PromptCropSampling) -> PromptCrop | None:
    """The `crop` with a click that `random` places on its object, by `sampling.depths`; None if it is not seen."""
    inside = crop.mask > 0.5
    if not inside.any():
        return None
    return replace(crop, points=(draw_click(random, inside, sampling.depths),))


def draw_click(random: np.random.Generator, region: Bool[np.ndarray, "s s"], depths: Sequence[float]) -> Point:
    """A pixel well within the `region`, in its middle more often than not: one of the deepest, their share drawn from
    `depths` (0 to 1) by `random`. The region must not be empty.
    """
    depth = measure_depth(region)
    share = float(random.choice(depths))
    deep = np.flatnonzero(depth >= np.quantile(depth[region], 1 - share))
    y, x = divmod(int(random.choice(deep)), region.shape[1])
    return Point(x + 0.5, y + 0.5)


def draw_correction(
    random: np.random.Generator,
    found: Bool[np.ndarray, "s s"],
    true: Bool[np.ndarray, "s s"],
    depths: Sequence[float],
) -> Point | None:
    """A click where the mask `found` differs from the `true` one, more often in the larger error; `random` decides. It
    lies in the deepest place or at a share of `depths`. None where the mask is right.
    """
    missed, added = true & ~found, found & ~true
    if not missed.any() and not added.any():
        return None
    share = missed.sum() / (missed.sum() + added.sum())
    inside = bool(share > 0.5) if random.random() < 0.7 else bool(random.random() < share)
    region = missed if inside else added
    if not region.any():
        inside, region = not inside, (added if inside else missed)
    return replace(
        find_deepest_pixel(region) if random.random() < 0.6 else draw_click(random, region, depths), inside=inside
    )


def find_deepest_pixel(region: Bool[np.ndarray, "s s"]) -> Point:
    """The pixel that is furthest from the region's border."""
    y, x = divmod(int(measure_depth(region).argmax()), region.shape[1])
    return Point(x + 0.5, y + 0.5)


def measure_depth(region: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Each pixel's distance from what is not in the region; the border of the image counts as that."""
    padded = cv2.copyMakeBorder(region.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1])


def draw_mistaken_mask(
    random: np.random.Generator, true: Bool[np.ndarray, "s s"], others: Sequence[Bool[np.ndarray, "s s"]]
) -> Bool[np.ndarray, "s s"]:
    """The `true` mask as a tracker gets it wrong: another object's too, a part of it, too wide or narrow, moved, or
    blotted, each equally often by `random`. `others` are the masks of the crop, at least one; the object's own may be
    among them.
    """
    kind = int(random.integers(1 + len(MISTAKES)))
    return MISTAKES[kind](random, true) if kind < len(MISTAKES) else add_other(random, true, others)


def add_other(
    random: np.random.Generator, true: Bool[np.ndarray, "s s"], others: Sequence[Bool[np.ndarray, "s s"]]
) -> Bool[np.ndarray, "s s"]:
    """The `true` mask joined with one that `random` draws from `others`; where that adds nothing, with itself moved."""
    other = others[int(random.integers(len(others)))]
    across = float(np.sqrt(true.sum()))
    return np.asarray(true | (other if (other & ~true).any() else shift_mask(true, random.uniform(-across, across, 2))))


def cut_part(random: np.random.Generator, true: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """What lies on one side of a line."""
    angle, (ys, xs) = random.uniform(0, 2 * np.pi), np.nonzero(true)
    along = xs * np.cos(angle) + ys * np.sin(angle)
    part = true.copy()
    gone = along > np.quantile(along, random.uniform(0.3, 0.8))
    part[ys[gone], xs[gone]] = False
    return part


def change_width(random: np.random.Generator, true: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """The mask dilated or eroded at its border, by up to about 0.15 of the square root of its area."""
    width = 2 * int(random.uniform(0.03, 0.15) * np.sqrt(true.sum())) + 3
    morph = cv2.dilate if random.random() < 0.5 else cv2.erode
    return np.asarray(morph(true.view(np.uint8), np.ones((width, width), np.uint8)) > 0)


def move_mask(random: np.random.Generator, true: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """The mask moved by at most 0.4 of the square root of its area, in x and in y."""
    return shift_mask(true, random.uniform(-0.4, 0.4, 2) * np.sqrt(true.sum()))


def blot_mask(random: np.random.Generator, true: Bool[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """With an ellipse more or less."""
    y, x = random.uniform(0, len(true), 2)
    radius = random.uniform(0.2, 0.6) * np.sqrt(true.sum())
    blot = np.zeros(true.shape, np.uint8)
    cv2.ellipse(blot, ((x, y), (2 * radius, random.uniform(0.5, 2) * radius), random.uniform(0, 180)), 1, -1)
    return np.asarray((true | (blot > 0)) if random.random() < 0.5 else (true & (blot == 0)))


MISTAKES = (cut_part, change_width, move_mask, blot_mask)


def shift_mask(mask: Bool[np.ndarray, "s s"], by: Float[np.ndarray, " 2"]) -> Bool[np.ndarray, "s s"]:
    """The mask moved by x, y."""
    matrix = np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float32)
    return np.asarray(cv2.warpAffine(mask.view(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST)).view(bool)


def soften_mask(random: np.random.Generator, mask: Bool[np.ndarray, "s s"]) -> Soft:
    """A mask as probabilities, sharp or not."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), random.uniform(0.3, 3.0)))
