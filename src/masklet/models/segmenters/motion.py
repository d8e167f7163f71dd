"""Segmenter `motion`: finds things that move against the background, whatever they are. Nothing is trained.

Optical flow without the camera's motion says roughly where things move; one ridge regression from the encoder's
features to motion, updated frame by frame, learns what they look like and what the background looks like; local
colour makes the outlines tight. cards/motion.md says what it reaches and where it fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import sqrt

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int32, Shaped, UInt8
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.masks import stack_masks
from masklet.models.encoder import STRIDE, Encoder, FlowFinder
from masklet.nn.flow import (
    FLOW_SCALE,
    compute_planar_flow,
    estimate_camera_motion,
    measure_unexplained_variance,
)
from masklet.nn.outline import Image, Map, fit_guided_filter, refine_mask_by_colour

CELL = round(STRIDE * FLOW_SCALE)  # flow pixels per feature cell
CHANNELS = 128  # of the encoder's keys
BIAS = 0.3  # the constant feature, about as large as the others
CUT = 0.6  # share of the variance left unexplained above which two frames are not neighbours

FADING = 0.98  # weight of the appearance model's past at every frame
FOREGROUND = 0.1  # share of its weight that goes to what moves, whatever its area
ENOUGH = 0.01  # mean motion from which a frame counts in full
RIDGE = 0.01  # of the mean of the normal equations' diagonal

STILL = 0.5  # pixels a frame at flow resolution: slower things do not move
SLOW = 0.7  # pixels a frame: a thing that moves like this may be parallax, and scores 0.7 of a fast one
NOISE_SCALES = 4.0  # robust scales of the background's residual flow that count as still
AROUND = 13  # flow pixels across of the surroundings whose contrast is measured
CONTRAST = 3.0  # grey levels of standard deviation at which a flow is half believed
CENTRE = 0.8  # standard deviation of the weight of the image's middle, half widths
FAINT = 0.05  # saliency below which nothing is looked for
REACH = 20  # flow pixels around a region in which its outline is sought
MOST = 16  # regions of one frame that are looked at
SMALLEST = 0.0008  # share of the image below which a region is noise
LEAST_PART = 0.003  # share of the image below which a region is not cut
SPREADS = 4.0  # two motions are as far apart as this many standard deviations of each,
STEEP, EVEN = 20.0, 0.41  # of the chance that a mask is right, in its expected IoU
OPPOSED = 1.2  # and as this many times the faster: they move against each other, as the limbs of one thing rarely do

Grid = Float32[np.ndarray, "r c"]  # a value for every feature cell
Mask = Bool[np.ndarray, "h w"]
Flow = Float32[np.ndarray, "h w 2"]
Grey = UInt8[np.ndarray, "h w"]
Regions = Int32[np.ndarray, "h w"]
Keys = Float16[Tensor, "128 r c"]
Cells = Float64[Tensor, "n 129"]


@dataclass(frozen=True)
class AppearanceModel:
    """What moves and what does not, by their features: normal equations of a ridge regression, fading."""

    gram: Float64[Tensor, "d d"]
    moment: Float64[Tensor, " d"]


@dataclass(frozen=True)
class MotionMemory:
    """What the frames so far leave behind; its size does not depend on how many they were."""

    grey: UInt8[Tensor, "h w"]  # the previous frame's working image; 0 x 0 before the first
    appearance: AppearanceModel
    left: UInt8[Tensor, "y x"]  # the last frame before some that are like no other, should it go on from there
    gap: int  # how many these are


@dataclass(frozen=True)
class MotionView:
    """A frame against one of its neighbours, at flow resolution."""

    rest: Flow  # the flow that the camera's motion leaves, pixels a frame, forward in time
    scale: float  # of its length in the background, pixels
    unexplained: float  # share of the frame's variance that is not found in the neighbour

    @property
    def holds(self) -> bool:
        """Whether the two are of one scene."""
        return self.unexplained <= CUT


@dataclass(frozen=True)
class MotionEvidence:
    """What one frame says of its moving things."""

    image: Image  # at flow resolution
    speed: Map  # pixels a frame
    moving: Map  # 0 to 1; where nothing contrasts, less
    soft: Map  # rough soft mask of all moving things
    regions: Regions  # its connected parts, from 1; 0: background
    reliable: float  # 0 to 1, how well the flow explains the frame


class Motion:
    """Class-agnostic discovery of moving things. A score is the chance that the mask is right (IoU > 0.5)."""

    conf = 0.69  # SAM2BMP's thresholds for these scores: an expected IoU of 0.45 (cards/motion.md)
    low_conf = 0.69  # no proposals: completion reaches the frames before the first confident one anyway

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.categories: tuple[str, ...] = ("object",)
        self.look_ahead = 1

    def empty(self) -> MotionMemory:
        """The memory before the first frame."""
        none = torch.zeros(0, 0, dtype=torch.uint8)
        return MotionMemory(none, init_appearance(), none, 0)

    def segment(
        self, memory: MotionMemory, frames: Sequence[Frame], future: Sequence[Frame]
    ) -> tuple[list[Detections], MotionMemory]:
        """Finds moving things in `frames`, which follow those of `memory`; the first of `future` serves the last
        frame's flow. Gives one `Detections` a frame, best first, and the memory after them.
        """
        found = []
        following: list[Frame | None] = [*frames[1:], *future[:1], None]
        for frame, after in zip(frames, following, strict=False):
            detections, memory = self._step(memory, frame, after)
            found.append(detections)
        return found, memory

    def _step(self, memory: MotionMemory, frame: Frame, after: Frame | None) -> tuple[Detections, MotionMemory]:
        features, flows = self.encoder(frame), self.encoder.flows
        keys, grey = features.keys, features.grey
        image = scale_by_area(features.guide.numpy(), (keys.shape[1] * CELL, keys.shape[2] * CELL))
        before = compare_with_past(memory, grey, flows)
        ahead = [compute_motion_view(grey, self.encoder(after).grey, 1, flows)] if after else []
        views = before + [view for view in ahead if view.holds]
        known = (
            memory.appearance if before or not views else init_appearance()
        )  # in a new scene what was learnt misleads
        found = Detections.none(frame.size)
        if views:
            evidence, known = weigh_evidence(image, views, keys, known)
            found = collect_detections(frame, list(extract_candidates(frame.image, evidence)))
            found = replace(found, scores=estimate_chance(found.scores))
        left, gap = keep_known_frame(memory) if not views else (torch.zeros(0, 0, dtype=torch.uint8), 0)
        return found, MotionMemory(grey, known, left, gap)


def compare_with_past(memory: MotionMemory, grey: UInt8[Tensor, "h w"], flows: FlowFinder) -> list[MotionView]:
    """A frame against the last one, or if it does not go on from that, against the one before those like no other.
    `grey` is its working image; `flows` finds the flow between two.
    """
    others = [(memory.grey, 1), (memory.left, memory.gap + 1)]
    views = (compute_motion_view(grey, other, -ago, flows) for other, ago in others if other.shape == grey.shape)
    return list(islice((view for view in views if view.holds), 1))


def keep_known_frame(memory: MotionMemory) -> tuple[Tensor, int]:
    """The last frame before those like no other, after one more of them, and how many these are."""
    return (memory.left if memory.gap else memory.grey), memory.gap + 1


def compute_motion_view(
    grey: UInt8[Tensor, "h w"], other: UInt8[Tensor, "h w"], step: int, flows: FlowFinder
) -> MotionView:
    """What moves in the frame `grey` beside the camera, by the flow, which `flows` finds, to another one, `other`, of
    the same size and `step` frames later (below 0: earlier).
    """
    flow = flows.find(grey, other)
    start, end = flows.shrink(grey), flows.shrink(other)
    motion, scale = estimate_camera_motion(flow[CELL // 2 :: CELL, CELL // 2 :: CELL])
    rest = (flow - compute_planar_flow(motion, *start.shape)) / np.float32(step)
    return MotionView(rest, scale / abs(step), measure_unexplained_variance(start, end, flow))


def select_slowest_flow(views: list[MotionView]) -> Flow:
    """At every pixel the slowest of the views: what appears from behind something has no true flow to that side,
    but one to the other.
    """
    flow, slowest = views[0].rest, _measure_squared_speed(views[0].rest)
    for view in views[1:]:
        speed = _measure_squared_speed(view.rest)
        slower = speed < slowest
        flow, slowest = np.where(slower[..., None], view.rest, flow), np.where(slower, speed, slowest)
    return flow


def _measure_squared_speed(flow: Flow) -> Map:
    """The square of each pixel's speed."""
    x, y = flow[..., 0], flow[..., 1]
    return np.asarray(x * x + y * y)


def weigh_evidence(
    image: Image, views: list[MotionView], keys: Keys, known: AppearanceModel
) -> tuple[MotionEvidence, AppearanceModel]:
    """Motion of one frame, what is `known` of the movers' appearance with this frame added, and the two together.

    `image` is the frame at flow resolution, `views` at least one comparison with a neighbour, `keys` the encoder's
    features of its cells. Gives the evidence, and the appearance model with this frame.
    """
    size = image.shape[:2]
    flow = select_slowest_flow(views)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    reliable = 1 - max(view.unexplained for view in views) / CUT
    grid = keys.shape[1], keys.shape[2]
    scale = float(np.mean([view.scale for view in views]))
    moving = estimate_moving_share(scale_by_area(speed, grid), scale)
    measured = scale_by_area(measure_texture(compute_luminance(image)), grid)
    centre = compute_centre_prior(*moving.shape)
    cells = make_regression_inputs(keys)
    known = update_appearance(known, cells, moving**2 * centre, measured, reliable)
    saliency: Map = predict_moving(known, cells).reshape(grid) * np.sqrt(moving * centre)
    saliency = cv2.resize(saliency, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    level = max(compute_otsu_threshold(saliency), FAINT)
    regions = split_regions(cv2.connectedComponents((saliency > level).astype(np.uint8))[1], flow)
    soft = (saliency / (2 * level)).clip(0, 1)
    return MotionEvidence(
        image, speed, scale_bilinear(moving * np.sqrt(measured), size), soft, regions, reliable
    ), known


def estimate_moving_share(speed: Grid, scale: float) -> Grid:
    """How surely each cell moves, 0 to 1: one half at a speed that is well above the background's noise, what
    counts as still, and (as there often is parallax) the valley between slow and fast.
    """
    level = max(NOISE_SCALES * scale, STILL, 2 * compute_otsu_threshold(np.sqrt(speed)) ** 2)
    return speed**2 / (speed**2 + np.float32(level) ** 2)


def measure_texture(grey: Grey) -> Map:
    """How much of a flow was measured, 0 to 1: where nothing contrasts, as in smoke, it was filled in."""
    level = grey.astype(np.float32)
    variance = cv2.blur(level * level, (AROUND, AROUND)) - cv2.blur(level, (AROUND, AROUND)) ** 2
    contrast = variance.clip(min=0)
    return contrast / (contrast + np.float32(CONTRAST) ** 2)


def init_appearance() -> AppearanceModel:
    """The appearance model before the first frame."""
    d = CHANNELS + 1
    return AppearanceModel(torch.zeros(d, d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64))


def update_appearance(
    known: AppearanceModel, cells: Cells, moving: Grid, measured: Grid, reliable: float
) -> AppearanceModel:
    """The appearance model `known` with one more frame. Movers and background have fixed shares of the weight, so that
    small things count.

    `cells` are the frame's inputs of the regression; `moving` and `measured` say of each cell, 0 to 1, how surely it
    moves and how far its flow can be measured; `reliable`, 0 to 1, weighs the frame. What moves but was not measured to
    is no example of either.
    """
    y = torch.from_numpy(moving.ravel()).double()
    trust = reliable * min(1.0, float(y.mean()) / ENOUGH)
    z = y * torch.from_numpy(measured.ravel()).double()
    inside = trust * FOREGROUND * z / z.sum().clamp(min=1e-6)
    outside = trust * (1 - FOREGROUND) * (1 - y) / (1 - y).sum().clamp(min=1e-6)
    gram = (cells * (inside + outside)[:, None]).T @ cells
    return AppearanceModel(FADING * known.gram + gram, FADING * known.moment + cells.T @ inside)


def predict_moving(known: AppearanceModel, cells: Cells) -> Float32[np.ndarray, " n"]:
    """How much every cell, by its inputs of the regression, looks like what moves, 0 to 1."""
    d = len(known.moment)
    damping = RIDGE * max(float(known.gram.trace()) / d, 1e-9)
    weights = torch.linalg.solve(known.gram + damping * torch.eye(d, dtype=torch.float64), known.moment)
    likely: Float32[np.ndarray, " n"] = (cells @ weights).clamp(0, 1).float().numpy()
    return likely


def make_regression_inputs(keys: Keys) -> Cells:
    """The regression's inputs, one row a cell."""
    cells = torch.full((keys.shape[1] * keys.shape[2], CHANNELS + 1), BIAS, dtype=torch.float64)
    cells[:, :CHANNELS] = keys.flatten(1).T
    return cells


def extract_candidates(full: Image, evidence: MotionEvidence) -> Iterator[tuple[Mask, float]]:
    """The outline, at the size of `full`, and the score of every region that is large enough."""
    for k in select_heaviest_regions(evidence.regions, evidence.soft):
        near = mask_near_region(evidence.regions, k)
        x, y, w, h = cv2.boundingRect(near.astype(np.uint8))
        here = slice(y, y + h), slice(x, x + w)
        image, near = evidence.image[here], near[here]
        lines = fit_guided_filter(image, refine_mask_by_colour(image, evidence.soft[here], near))
        soft = (lines.at(image) * near).clip(0, 1)
        inside = select_largest_component(soft > 0.5)
        if inside.sum() < SMALLEST * evidence.soft.size:
            continue
        there = scale_window(here, evidence.soft.shape, full.shape)
        mask = np.zeros(full.shape[:2], dtype=bool)
        fine = lines.at(full[there])
        mask[there] = select_largest_component(fine * scale_bilinear(near.astype(np.float32), fine.shape) > 0.5)
        if mask.any():
            yield mask, score_motion_mask(evidence, here, soft, inside)


def score_motion_mask(evidence: MotionEvidence, here: tuple[slice, slice], soft: Map, inside: Mask) -> float:
    """Expected mask IoU of the mask `inside`, by its own `soft` mask (0 to 1), less where little of it moves, where it
    moves slowly, and where the flow does not explain the frame. Both lie in the window `here` of the `evidence`.
    """
    crisp = float(soft[inside].sum() / (inside.sum() + soft[~inside].sum()))
    moving = float(evidence.moving[here][inside].mean())
    speed = float(np.median(evidence.speed[here][inside]))
    return crisp * sqrt(moving * evidence.reliable * speed**2 / (speed**2 + SLOW**2))


def split_regions(regions: Regions, flow: Flow) -> Regions:
    """Regions in which two things that move differently touch, cut in two. In place of the old ones."""
    parts = regions.copy()
    for k in range(1, int(regions.max()) + 1):
        inside = np.nonzero(regions == k)
        if len(inside[0]) < 2 * LEAST_PART * regions.size:
            continue
        second = np.zeros(regions.shape, dtype=bool)
        second[inside] = find_second_motion(flow[inside])
        first = (regions == k) & ~second
        if is_separate_thing(first) and is_separate_thing(second):
            parts[second] = parts.max() + 1
    return parts


def find_second_motion(flow: Float32[np.ndarray, "n 2"], rounds: int = 5) -> Bool[np.ndarray, " n"]:
    """Which of a region's pixels move in the second of two ways; none where one way describes them all.

    Two means, from the two sides of the mean along the direction in which the flows differ most.
    """
    centred = flow - flow.mean(0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    second = centred @ axis > 0
    total = flow.sum(0, dtype=np.float64)
    for _ in range(rounds):
        count = np.count_nonzero(second)
        if count in (0, len(flow)):
            return np.zeros(len(flow), dtype=bool)
        b = flow.T @ second.astype(np.float32) / np.float32(count)
        a = ((total - b * float(count)) / (len(flow) - count)).astype(np.float32)
        second = (flow - (a + b) / 2) @ (b - a) > 0  # nearer to b
    if second.all() or not second.any():
        return np.zeros(len(flow), dtype=bool)
    apart = float(np.linalg.norm(b - a))
    spread = float(np.sqrt(np.square(flow - np.where(second[:, None], b, a)).sum(1).mean()))
    fastest = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    differ = apart > max(SPREADS * spread, OPPOSED * fastest, 3 * STILL)
    return second if differ else np.zeros(len(flow), dtype=bool)


def is_separate_thing(mask: Mask) -> bool:
    """Whether a part of a region is a thing of its own: large enough and, but for specks, in one piece."""
    return bool(mask.sum() >= LEAST_PART * mask.size and select_largest_component(mask).sum() >= 0.85 * mask.sum())


def select_heaviest_regions(regions: Regions, soft: Map) -> list[int]:
    """The regions that are large enough, most mass first, at most `MOST`."""
    mass, area = np.bincount(regions.ravel(), soft.ravel()), np.bincount(regions.ravel())
    order = 1 + np.argsort(-mass[1:], kind="stable")[:MOST]
    return [int(k) for k in order if area[k] >= SMALLEST * regions.size]


def mask_near_region(regions: Regions, k: int) -> Mask:
    """The region and what is near it, without other regions."""
    own = regions == k
    square = np.ones((2 * REACH + 1, 2 * REACH + 1), dtype=np.uint8)
    near: Mask = cv2.dilate(own.astype(np.uint8), square) > 0
    free: Mask = near & (own | (regions == 0))
    return free


def select_largest_component(mask: Mask) -> Mask:
    """The largest connected part (neighbours: 8) of a mask; an empty mask stays empty."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) == 1:
        return mask
    largest: Mask = parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return largest


def estimate_chance(expected: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
    """How likely masks are right (IoU > 0.5), by what `score_motion_mask` says of them; fitted on videos for training.

    >>> [round(float(p), 2) for p in estimate_chance(torch.tensor([0.3, 0.45, 0.6]))]
    [0.1, 0.69, 0.98]
    """
    return (STEEP * (expected - EVEN)).sigmoid()


def collect_detections(frame: Frame, found: list[tuple[Mask, float]]) -> Detections:
    """Candidates as detections, best first."""
    found.sort(key=lambda one: -one[1])
    return Detections(
        stack_masks([torch.from_numpy(mask) for mask, _ in found], frame.size),
        torch.tensor([score for _, score in found], dtype=torch.float32),
        torch.zeros(len(found), dtype=torch.int64),
    )


def scale_window(window: tuple[slice, slice], size: Sequence[int], to: Sequence[int]) -> tuple[slice, slice]:
    """A `window` (rows, columns) of an image of `size` (h, w, ...), as the same window of the image resized to size
    `to`; at least one pixel each way.
    """
    y, x = (
        slice(round(part.start * n / m), max(round(part.stop * n / m), round(part.start * n / m) + 1))
        for part, m, n in zip(window, size[:2], to[:2], strict=True)
    )
    return y, x


def compute_luminance(image: Image) -> Grey:
    """Converts an RGB image to grey levels, 0 to 255."""
    grey: Grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey


def scale_by_area(image: Shaped[np.ndarray, "h w *c"], size: Sequence[int]) -> Shaped[np.ndarray, "h2 w2 *c"]:
    """Area average; to `size` (h, w)."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def scale_bilinear(image: Map, size: Sequence[int]) -> Float32[np.ndarray, "h2 w2"]:
    """Bilinear; to `size` (h, w)."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def compute_centre_prior(h: int, w: int) -> Grid:
    """The weight of the image's middle (a prior: people point cameras at things)."""
    x, y = (2 * np.arange(w) + 1 - w) / w, (2 * np.arange(h) + 1 - h) / h
    return np.exp(-(x[None] ** 2 + y[:, None] ** 2) / (2 * CENTRE**2)).astype(np.float32)


def compute_otsu_threshold(values: Float32[np.ndarray, "h w"], bins: int = 128) -> float:
    """The threshold with the greatest variance between the two sides (Otsu 1979)."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return high
    counts, edges = np.histogram(values, bins, (low, high))
    middle, below = (edges[:-1] + edges[1:]) / 2, np.cumsum(counts)
    moment = np.cumsum(counts * middle)
    between = (moment[-1] * below / below[-1] - moment) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return float(edges[1 + between[:-1].argmax()])
