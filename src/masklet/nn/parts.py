"""Which parts of a mask belong to its object: those near its main part, or near where it was already.

Features name classes, not individuals: what looks alike elsewhere, or comes out from behind an object, is another one.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

NEAR = 0.25  # distance from the main part within which a part is the object's, in sides of the square of its area
KNOWN = 0.5  # the same for a part that was the object's in the last frame
CLOSE = 8.0  # pixels within which it always is
SPECK = 0.02  # share of the main part's area from which a part says how scattered an object is

Map = Float32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


def measure_component_spread(mask: Mask) -> float:
    """How far the parts of a mask lie from the largest, in sides of the square of its area; 0 for one part.

    >>> mask = np.zeros((9, 40), bool)
    >>> mask[:9, :9] = mask[:3, 27:30] = True
    >>> round(measure_component_spread(mask), 1)
    2.0
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count <= 2:
        return 0.0
    areas = stats[1:, cv2.CC_STAT_AREA]
    far = measure_component_distances(labels, count, 1 + int(areas.argmax()))[1:]
    return float(far[areas >= SPECK * areas.max()].max() / np.sqrt(areas.max()))


def detached_components(logits: Map, before: Map, scattered: float) -> Mask:
    """The pixels of a mask's parts that belong to something else.

    Args:
        logits: of the mask, in its box or any larger window.
        before: where the object was, carried here, 0 to 1; the main part is the one that is likeliest and was there.
        scattered: as far apart as the object's parts were where it was given (`measure_component_spread`).
    """
    inside = logits > 0
    if not inside.any():  # maybe without a pixel, which OpenCV does not survive
        return inside
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
    if count <= 2:
        return np.zeros_like(inside)
    areas = stats[:, cv2.CC_STAT_AREA]
    weights = (before + np.float32(0.02)) / (1 + np.exp(-logits))
    main = 1 + int(sum_over_components(labels, count, weights)[1:].argmax())
    known = sum_over_components(labels, count, before) > 0.5 * areas
    reach = np.where(known, max(NEAR + scattered, KNOWN), NEAR + scattered) * np.sqrt(areas[main])
    away = measure_component_distances(labels, count, main) > np.maximum(reach, CLOSE)
    away[0] = False
    return np.asarray(away[labels])


def sum_over_components(labels: Int32[np.ndarray, "h w"], count: int, weights: Map) -> Float64[np.ndarray, " n"]:
    """The sum of `weights` over the pixels of each of `count` components, numbered by `labels`; 0 is the background."""
    return np.bincount(labels.ravel(), weights.ravel(), count)


def measure_component_distances(labels: Int32[np.ndarray, "h w"], count: int, main: int) -> Float32[np.ndarray, " n"]:
    """The distance in pixels from component `main` to the nearest pixel of each of `count` components, numbered by
    `labels`; of 0, the background: infinite.
    """
    away = cv2.distanceTransform((labels != main).view(np.uint8), cv2.DIST_L2, 3)
    parts = np.flatnonzero(labels)
    nearest = np.full(count, np.inf, np.float32)
    np.minimum.at(nearest, labels.ravel()[parts], away.ravel()[parts])  # slow but for equal types
    return nearest
