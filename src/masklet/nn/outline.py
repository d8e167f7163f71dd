"""Tight outlines: a rough soft mask, sharpened by local colour and by the image's edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

Map = Float32[np.ndarray, "h w"]
Image = UInt8[np.ndarray, "h w 3"]  # RGB

BINS = 16  # colour bins on each axis of Lab
CHROMA = 1.6  # natural colours fill little of the a and b axes: stretched by this before they are binned
RARE = 2e-4  # share of the pixels below which a colour says nothing
SURE = 0.03  # a soft mask is trusted no further than this from 0 and 1


# Bins of the 256 values of L, a and b.
_SCALE = np.arange(256)
_SPREAD = np.clip((_SCALE - 128) * CHROMA + 128, 0, 255).astype(np.int32)
_TABLE = (np.stack([_SCALE, _SPREAD, _SPREAD], axis=1)[None] * BINS // 256).astype(np.uint8)


def quantize_colours(image: Image) -> Int32[np.ndarray, "h w"]:
    """The colour bin of every pixel."""
    light, a, b = cv2.split(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), _TABLE))
    bins: Int32[np.ndarray, "h w"] = light.astype(np.int32)
    for axis in (a, b):
        bins *= BINS
        bins += axis
    return bins


def compute_colour_histogram(bins: Int32[np.ndarray, "h w"], weights: Map) -> Float64[np.ndarray, " b"]:
    """The share of every colour, blurred a little across neighbouring colours."""
    counts = np.bincount(bins.ravel(), weights.ravel(), BINS**3).reshape(BINS, BINS, BINS)
    for _ in range(3):  # each axis in turn comes first
        blurred = 0.5 * counts
        blurred[1:] += 0.25 * counts[:-1]
        blurred[:-1] += 0.25 * counts[1:]
        blurred[[0, -1]] += 0.25 * counts[[0, -1]]  # beyond the border it is as at the border
        counts = np.ascontiguousarray(blurred.transpose(1, 2, 0))
    shares: Float64[np.ndarray, " b"] = counts.ravel() / max(counts.sum(), 1e-6)
    return shares


def refine_mask_by_colour(
    image: Image, rough: Map, near: Bool[np.ndarray, "h w"], rounds: int = 3, most: float = 2.0
) -> Map:
    """The soft mask `rough` (0 to 1) with the odds of every pixel's colour in `image` inside against outside, learnt
    from the mask itself in `rounds` rounds.

    The idea of GrabCut (Rother et al. 2004) with histograms, and without a cut. Only pixels in `near` count, 0
    elsewhere. A colour moves the log odds by `most` at most.
    """
    bins, prior = quantize_colours(image), _convert_to_log_odds(rough)
    soft: Map = rough * near
    for _ in range(rounds):
        inside, outside = compute_colour_histogram(bins, soft), compute_colour_histogram(bins, (1 - soft) * near)
        odds = np.log((inside + RARE) / (outside + RARE)).clip(-most, most)
        soft = (near / (1 + np.exp(-prior - odds.take(bins)))).astype(np.float32)
    return soft


def _convert_to_log_odds(soft: Map) -> Float[np.ndarray, "h w"]:
    p = soft.clip(SURE, 1 - SURE)
    odds: Float[np.ndarray, "h w"] = np.log(p / (1 - p))
    return odds


@dataclass(frozen=True)
class LocalLinearMask:
    """At every pixel, a mask as a linear function of the colour around it."""

    slope: tuple[Map, Map, Map]  # for red, green and blue
    offset: Map

    def at(self, image: UInt8[np.ndarray, "y x 3"]) -> Float32[np.ndarray, "y x"]:
        """The mask's value at every pixel of an image of any size that shows the same."""
        size = image.shape[0], image.shape[1]
        soft = _resize_plane(self.offset, size).copy()
        for slope, plane in zip(self.slope, _split_planes(image), strict=True):
            soft += _resize_plane(slope, size) * plane
        return soft


def fit_guided_filter(image: Image, soft: Map, radius: int = 10, flat: float = 1e-3) -> LocalLinearMask:
    """The guided filter (He et al. 2010) of the mask `soft` (0 to 1) with the colours of `image` as its guide, kept as
    lines so that it can be read at a finer resolution (He and Sun 2015). `radius` in pixels; contrasts below the
    variance `flat` are smoothed over.
    """

    def mean(x: Map) -> Map:
        averaged: Map = cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
        return averaged

    soft = np.ascontiguousarray(soft)
    guide = _split_planes(image)
    centre, level = [mean(x) for x in guide], mean(soft)
    shared = [mean(x * soft) - c * level for x, c in zip(guide, centre, strict=True)]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    spread = [mean(guide[i] * guide[j]) - centre[i] * centre[j] + np.float32(flat * (i == j)) for i, j in pairs]
    slope = _apply_symmetric_inverse(spread, shared)
    offset = level - sum(s * c for s, c in zip(slope, centre, strict=True))
    red, green, blue = (mean(s) for s in slope)
    return LocalLinearMask((red, green, blue), mean(offset))


def _split_planes(image: Image) -> list[Map]:
    """Red, green and blue, 0 to 1; each by itself, which is faster than side by side."""
    return [plane.astype(np.float32) / 255 for plane in cv2.split(np.ascontiguousarray(image))]


def _resize_plane(x: Map, size: tuple[int, int]) -> Float32[np.ndarray, "y x"]:
    resized: Map = x if x.shape == size else cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized


def _apply_symmetric_inverse(upper: list[Map], right: list[Map]) -> list[Map]:
    """A symmetric 3 x 3 system at every pixel, by cofactors: many times faster than a batched solver."""
    a, b, c, d, e, f = upper
    x, y, z = right
    bc, ac, ab = c * e - b * f, b * e - c * d, b * c - a * e
    aa, bb, cc = d * f - e * e, a * f - c * c, a * d - b * b
    scale = 1 / (a * aa + b * bc + c * ac)
    return [(aa * x + bc * y + ac * z) * scale, (bc * x + bb * y + ab * z) * scale, (ac * x + ab * y + cc * z) * scale]
