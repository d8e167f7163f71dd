"""Draws a plan of a clip: first what is visible of every thing, then the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

from masklet.train.data.scenes import ScenePlan
from masklet.train.data.shapes import REACH, Texture

FINE = 2  # samples along each side of a pixel
SUBPIXEL = 4  # bits behind the point of OpenCV's polygons
MOMENTS = 3  # images that make up a blurred one
SHUTTER = 0.7  # of the time between two frames, where there is motion blur

OVERSIZE = 1.3  # sides of a background beside those of the frame, which shows a part of it

Size = tuple[int, int]
RgbImage = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class VisibleMasks:
    """What of n things (from back to front) is visible in t frames."""

    masks: Bool[np.ndarray, "n t h w"]  # no two overlap
    hidden: Float[np.ndarray, "n t"]  # share of what the frame would show if nothing lay over it; 1 where nothing is


@dataclass(frozen=True)
class Silhouette:
    """The part of one thing's silhouette that is in the frame, in fine samples."""

    rows: slice
    cols: slice
    inside: UInt8[np.ndarray, "y x"]


def draw_thing_masks(made: ScenePlan, size: Size) -> VisibleMasks:
    """The masks. A pixel belongs to what covers most of it, on a tie to what lies farther back."""
    n, t = len(made.looks), made.frames
    times = np.arange(t, dtype=float)
    cuts = draw_silhouettes(made, made.outlines(made.at(times)[0], times), size)
    ids = np.zeros((t, size[0] * FINE, size[1] * FINE), np.uint8)
    whole = np.zeros((n, t), int)
    for thing, frame in np.ndindex(n, t):
        cut = cuts[thing][frame]
        if cut is not None:
            cv2.copyTo(cut.inside * np.uint8(thing + 1), cut.inside, ids[frame, cut.rows, cut.cols])
            whole[thing, frame] = cv2.countNonZero(cut.inside)
    visible = np.stack([count_values(i, n + 1)[1:] for i in ids], axis=1)
    masks = find_majority_ids(ids) == np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None]
    return VisibleMasks(masks, np.where(masks.any((2, 3)), 1 - visible / np.maximum(whole, 1), 1.0))


def count_values(ids: UInt8[np.ndarray, "y x"], values: int) -> Float[np.ndarray, " v"]:
    """How often each value occurs."""
    return np.asarray(cv2.calcHist([ids], [0], None, [values], [0, values])).ravel()


def find_majority_ids(ids: UInt8[np.ndarray, "t y x"]) -> UInt8[np.ndarray, "t h w"]:
    """The id that most of a pixel's samples have; on a tie the lowest."""
    a, b, c, d = (ids[:, n // FINE :: FINE, n % FINE :: FINE] for n in range(FINE * FINE))
    a, b, c, d = np.minimum(a, b), np.maximum(a, b), np.minimum(c, d), np.maximum(c, d)
    a, c, b, d = np.minimum(a, c), np.maximum(a, c), np.minimum(b, d), np.maximum(b, d)
    b, c = np.minimum(b, c), np.maximum(b, c)  # now a <= b <= c <= d
    return np.asarray(np.where(a == b, a, np.where(b == c, b, np.where(c == d, c, a))))


def draw_silhouettes(
    made: ScenePlan, outlines: Float[np.ndarray, "n t p 2"], size: Size
) -> list[list[Silhouette | None]]:
    """The shape of every thing of the plan `made` at every moment, cut to the frame of `size` (h, w); None where it is
    out of the frame. `outlines` holds its corners x, y in pixels, n things at t moments.
    """
    fine = outlines * FINE
    limits = np.array([size[1], size[0]])
    low = np.clip(np.floor(outlines.min(2)).astype(int) - 1, 0, limits) * FINE  # whole pixels
    high = np.clip(np.ceil(outlines.max(2)).astype(int) + 1, 0, limits) * FINE
    # OpenCV counts from the centre of the first sample
    points = np.round((fine - low[:, :, None] - 0.5) * 2**SUBPIXEL).astype(np.int32)
    boxes = zip(low.tolist(), high.tolist(), strict=True)
    return [
        [_draw_silhouette(*item, look.hole) for item in zip(points[n], *box, strict=True)]
        for n, (look, box) in enumerate(zip(made.looks, boxes, strict=True))
    ]


def _draw_silhouette(
    points: Int32[np.ndarray, "p 2"], low: list[int], high: list[int], hole: float
) -> Silhouette | None:
    (x0, y0), (x1, y1) = low, high
    if x1 <= x0 or y1 <= y0:
        return None
    inside = np.zeros((y1 - y0, x1 - x0), np.uint8)
    rings = [points]
    if hole:
        centre = points.mean(0)
        rings.append(np.round(centre + (points - centre) * hole).astype(np.int32))
    cv2.fillPoly(inside, rings, 1, shift=SUBPIXEL)
    return Silhouette(slice(y0, y1), slice(x0, x1), inside)


def render_frames(
    made: ScenePlan, textures: Mapping[int, Texture], background: RgbImage, size: Size, blurred: bool
) -> UInt8[np.ndarray, "t h w 3"]:
    """The frames of the plan `made`, of `size` (h, w), smooth at the edges: `textures` by the `paint` of the things,
    over the image `background`, of which a frame shows a part. If `blurred`, each shows all of the time that the
    shutter is open.
    """
    moments = MOMENTS if blurred else 1
    apart = SHUTTER * ((np.arange(moments) + 0.5) / moments - 0.5)
    times = (np.arange(made.frames)[:, None] + apart).ravel()
    poses, camera = made.at(times)
    cuts = draw_silhouettes(made, made.outlines(poses, times), size)
    images = np.empty((made.frames, *size, 3), np.uint8)
    for frame in range(made.frames):
        shown = []
        for moment in range(frame * moments, (frame + 1) * moments):
            fine = _repeat_pixels(_render_background(background, camera[moment], size))
            for look, pose, cut in zip(made.looks, poses[:, moment], (c[moment] for c in cuts), strict=True):
                if cut is not None:
                    cv2.copyTo(
                        _repeat_pixels(_render_surface(textures[look.paint], pose, cut)),
                        cut.inside,
                        fine[cut.rows, cut.cols],
                    )
            shown.append(cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA))
        images[frame] = np.mean(shown, axis=0) if blurred else shown[0]
    return images


def _repeat_pixels(image: RgbImage) -> RgbImage:
    """Each pixel as its samples: edges are fine, surfaces need not be."""
    h, w = image.shape[:2]
    return np.asarray(cv2.resize(image, (w * FINE, h * FINE), interpolation=cv2.INTER_NEAREST))


def _render_background(background: RgbImage, camera: Float[np.ndarray, "4"], size: Size) -> RgbImage:
    x, y, zoom, angle = camera
    scale = np.exp(zoom) * size[1] / background.shape[1] * OVERSIZE
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array([size[1] / 2 + x, size[0] / 2 + y]) - turn @ (np.array(background.shape[1::-1]) / 2)
    return _apply_affine(background, turn, shift, size)


def _render_surface(texture: Texture, pose: Float[np.ndarray, "5"], cut: Silhouette) -> RgbImage:
    """The texture where a thing's silhouette is."""
    x, y, radius, angle, stretch = pose
    cell = 2 * REACH / len(texture)  # radii that a texture's pixel covers
    along, across = (float(np.exp(radius + s * stretch / 2)) * cell for s in (1, -1))
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    turn = np.array([[along * cos, -across * sin], [along * sin, across * cos]])
    corner = np.array([cut.cols.start, cut.rows.start]) / FINE
    shift = np.array([x, y]) - corner - turn @ np.full(2, len(texture) / 2)
    h, w = cut.inside.shape
    return _apply_affine(texture, turn, shift, (h // FINE, w // FINE))


def _apply_affine(
    image: RgbImage, turn: Float[np.ndarray, "2 2"], shift: Float[np.ndarray, "2"], size: Size
) -> RgbImage:
    affine = np.hstack([turn, (shift + turn.sum(1) / 2 - 0.5)[:, None]])  # OpenCV counts from the first pixel's centre
    return np.asarray(cv2.warpAffine(image, affine, size[::-1], borderMode=cv2.BORDER_REFLECT_101))
