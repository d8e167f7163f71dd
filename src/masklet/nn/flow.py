"""Optical flow, and what is left of it without the camera's own motion."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

Grey = UInt8[np.ndarray, "h w"]
Flow = Float32[np.ndarray, "h w 2"]  # pixels to the right and down
CAUCHY = 1.5  # robust scales at which a residual's weight has fallen to a quarter
NOISE = 25.0  # grey levels squared: an image that varies less than this is flat
FLOW_SCALE = 0.75  # of the working image: where flow between frames is computed
NARROW = 24  # pixels: a smaller side is padded for flow
WIDEST = 3  # times its height: a wider image is padded for flow
FINEST = 0.1  # pixels: no flow is more exact than this


def compute_dense_flow(start: Grey, end: Grey) -> Flow:
    """Where every pixel of `start` is in `end` (DIS flow, Kroeger et al. 2016, medium preset)."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    whole = (pad_for_flow(start), pad_for_flow(end))
    flow: Flow = dis.calc(*whole, None)  # type: ignore[call-overload]  # None: from scratch
    return flow[: start.shape[0], : start.shape[1]]


def pad_for_flow(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h2 w2"]:
    """An image that is so small or so wide that OpenCV's flow would crash on it, with its last row and column repeated;
    others as they are. How often it halves an image follows from the width, and rows have to be left then.
    """
    h, w = grey.shape
    below, beside = max(NARROW, -(-w // WIDEST)) - h, NARROW - w
    if below <= 0 and beside <= 0:
        return grey
    return cv2.copyMakeBorder(grey, 0, max(below, 0), 0, max(beside, 0), cv2.BORDER_REPLICATE)


def shrink_for_flow(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h2 w2"]:
    """An image at `FLOW_SCALE` of its size, by area average: flow there takes half the time and finds as much."""
    h, w = grey.shape
    return cv2.resize(grey, (round(w * FLOW_SCALE), round(h * FLOW_SCALE)), interpolation=cv2.INTER_AREA)


def enlarge_flow(flow: Float32[np.ndarray, "h w 2"], size: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 2"]:
    """A flow between images as `shrink_for_flow` gives them, for those of `size` (h, w) that they were."""
    return cv2.resize(flow, size[::-1], interpolation=cv2.INTER_LINEAR) / np.float32(FLOW_SCALE)


def measure_unexplained_variance(start: Grey, end: Grey, flow: Flow) -> float:
    """The share of the variance of `start` that is not found in `end` along `flow` (from `start` to `end`): 0.01 to 0.2
    in ordinary video, 0.5 in a whip pan, above 1 at a cut.
    """
    places = build_pixel_grid(*start.shape) + flow
    carried = cv2.remap(end, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    error = cv2.norm(carried, start, cv2.NORM_L2SQR) / start.size
    return float(error / (cv2.meanStdDev(start)[1].item() ** 2 + NOISE))


@lru_cache(maxsize=4)
def build_pixel_grid(h: int, w: int) -> Float32[np.ndarray, "h w 2"]:
    """Where every pixel of an image of `h` x `w` is: x and y."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    grid: Float32[np.ndarray, "h w 2"] = np.stack([x, y], axis=-1)
    return grid


# Which of 1, x, y, x^2, xy and y^2 each of a plane's eight numbers multiplies in its flow, sideways and down
# (Longuet-Higgins 1984).
_SIDEWAYS, _DOWN = np.zeros((8, 6)), np.zeros((8, 6))
_SIDEWAYS[[0, 1, 2, 6, 7], [0, 1, 2, 3, 4]] = 1
_DOWN[[3, 4, 5, 6, 7], [0, 1, 2, 4, 5]] = 1


@lru_cache(maxsize=4)
def build_planar_terms(h: int, w: int) -> Float64[np.ndarray, "6 n"]:
    """1, x, y, x^2, xy and y^2 at the cells of a grid, row by row; x goes from -1 to 1."""
    y, x = np.mgrid[:h, :w]
    x, y = (2 * x.ravel() + 1 - w) / w, (2 * y.ravel() + 1 - h) / w
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def compute_weighted_median(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> float:
    """The value with half of the weight below it.

    >>> compute_weighted_median(np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0]))
    3.0
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2)]])


def compute_planar_flow(motion: Float64[np.ndarray, "8"], h: int, w: int) -> Float32[np.ndarray, "h w 2"]:
    """The flow field of a plane's `motion`, its coefficients in `build_planar_basis`, on a grid of `h` x `w` cells,
    which covers the same image at any resolution.
    """
    x = ((2 * np.arange(w) + 1 - w) / w)[None]
    y = ((2 * np.arange(h) + 1 - h) / w)[:, None]
    a, flow = motion, np.empty((h, w, 2), np.float32)
    flow[..., 0] = a[0] + a[1] * x + a[6] * x * x + y * (a[2] + a[7] * x)
    flow[..., 1] = a[3] + a[5] * y + a[7] * y * y + x * (a[4] + a[6] * y)
    return flow


def estimate_camera_motion(
    flow: Float32[np.ndarray, "h w 2"], rounds: int = 8
) -> tuple[Float64[np.ndarray, "8"], float]:
    """The plane's motion that explains most of the image, and the scale of what it leaves there (pixels).

    Iteratively reweighted least squares from two starts, all of the image and its border alone, so that a
    large object in the middle does not pass for the background. No random numbers.
    """
    h, w = flow.shape[:2]
    terms, target = build_planar_terms(h, w), flow.reshape(-1, 2).T.astype(np.float64)
    starts = [np.ones(h * w), make_border_weights(h, w).ravel()]
    fits = [_fit_robustly(terms, target, start, rounds) for start in starts]
    _, motion, scale = min(fits, key=lambda fit: fit[0])
    return motion, scale


def make_border_weights(h: int, w: int, share: float = 0.15) -> Float64[np.ndarray, "h w"]:
    """Weights of `h` x `w` cells: 1 within `share` (0 to 0.5) of the image's sides, almost 0 elsewhere."""
    y, x = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    depth = np.minimum(np.minimum(y, 1 - y)[:, None], np.minimum(x, 1 - x)[None])
    return np.where(depth < share, 1.0, 1e-3)


def _fit_robustly(
    terms: Float64[np.ndarray, "6 n"],
    target: Float64[np.ndarray, "2 n"],
    start: Float64[np.ndarray, " n"],
    rounds: int,
) -> tuple[float, Float64[np.ndarray, "8"], float]:
    """The cost, the motion and the scale at which the fit from these weights arrives."""
    weights, middle = start, (len(start) - 1) // 2
    for n in range(rounds):
        weighted = terms * weights
        moments, answers = weighted @ terms.T, weighted @ target.T
        gram = _SIDEWAYS @ moments @ _SIDEWAYS.T + _DOWN @ moments @ _DOWN.T + 1e-3 * np.eye(8)
        motion = np.linalg.solve(gram, _SIDEWAYS @ answers[:, 0] + _DOWN @ answers[:, 1])
        across, down = target - np.stack([motion @ _SIDEWAYS, motion @ _DOWN]) @ terms
        rest = np.sqrt(across * across + down * down)
        median = np.partition(rest, middle)[middle] if n else compute_weighted_median(rest, start)
        scale = max(1.4826 * float(median), FINEST)
        weights = 1 / (1 + (rest / (CAUCHY * scale)) ** 2) ** 2
    return float(np.log1p(rest * rest).sum()), motion, scale
