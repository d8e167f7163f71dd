"""What generated clips are made of: outlines, the ways they deform, and textures."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

Outline = Float[np.ndarray, "_ 2"]  # x, y about the origin, at most about 1 away from it
Texture = UInt8[np.ndarray, "_ _ 3"]

POINTS = 64  # of an outline
SIDE = 48  # pixels of an object's texture
REACH = 1.5  # half the width of what the texture covers, in radii of the object

_TURN = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)


def _make_polar_outline(radius: Float[np.ndarray, " n"] | float) -> Outline:
    return np.asarray(np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1) * np.broadcast_to(radius, POINTS)[:, None])


def _sample_along_line(corners: list[tuple[float, float]]) -> Outline:
    """Points at even distances along a closed line."""
    closed = np.array([*corners, corners[0]])
    at = np.append(0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1)))
    where = np.linspace(0, at[-1], POINTS, endpoint=False)
    return np.stack([np.interp(where, at, closed[:, k]) for k in (0, 1)], axis=1)


def _list_regular_corners(corners: int, start: float = -np.pi / 2) -> list[tuple[float, float]]:
    turns = start + np.arange(corners) * 2 * np.pi / corners
    return [(float(np.cos(t)), float(np.sin(t))) for t in turns]


def _make_star() -> Outline:
    tips, dents = _list_regular_corners(5), _list_regular_corners(5, -np.pi / 2 + np.pi / 5)
    return _sample_along_line([p for tip, (x, y) in zip(tips, dents, strict=True) for p in (tip, (0.42 * x, 0.42 * y))])


def _make_cross() -> Outline:
    arm = 0.3
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    turned = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in quarter]
    return _sample_along_line([turned[k][n] for n in range(4) for k in range(3)])


def _make_gear() -> Outline:
    teeth = [(r * np.cos(t), r * np.sin(t)) for n in range(8) for t, r in _make_tooth(n * np.pi / 4)]
    return _sample_along_line([(float(x), float(y)) for x, y in teeth])


def _make_tooth(at: float) -> list[tuple[float, float]]:
    return [(at - 0.22, 0.7), (at - 0.16, 1.0), (at + 0.16, 1.0), (at + 0.22, 0.7)]


def _make_leaf() -> Outline:
    along = np.cos(_TURN)
    return np.stack([along, 0.42 * np.sin(_TURN) * np.abs(np.sin(_TURN)) ** 0.5 * (1 - 0.25 * along)], axis=1)


def _make_crescent() -> Outline:
    outer = np.linspace(0.35 * np.pi, 1.65 * np.pi, POINTS // 2)
    x, y = np.cos(outer), np.sin(outer)
    inner = np.stack([0.1 + 0.62 * np.cos(outer[::-1]), 0.72 * np.sin(outer[::-1])], axis=1)
    return np.asarray(np.concatenate([np.stack([x, y], axis=1), inner]) + np.array([0.25, 0]))


OUTLINES: dict[str, Outline] = {
    "disc": _make_polar_outline(0.9),
    "square": _sample_along_line([(-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)]),
    "triangle": _sample_along_line(_list_regular_corners(3)),
    "star": _make_star(),
    "cross": _make_cross(),
    "ring": _make_polar_outline(0.95),
    "gear": _make_gear(),
    "leaf": _make_leaf(),
    "crescent": _make_crescent(),
    "arrow": _sample_along_line([(-1, -0.22), (0.1, -0.22), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.22), (-1, 0.22)]),
}
HOLES: dict[str, float] = {"ring": 0.55, "gear": 0.4}  # where an outline has a hole: its size beside the outline's


def draw_bush_outline(random: np.random.Generator) -> Outline:
    """An outline of no category: a bush."""
    waves = range(2, 8)
    radius = 0.8 + sum(random.normal(0, 0.3 / k) * np.cos(k * _TURN + random.uniform(0, 2 * np.pi)) for k in waves)
    return _make_polar_outline(np.clip(radius, 0.6, 1.2))


def draw_pole_outline(random: np.random.Generator) -> Outline:
    """An outline of no category: a pole with uneven sides, as long as any frame."""
    half, length = POINTS // 2, 12.0
    y = np.linspace(-length, length, half)
    sides = [1 + 0.15 * np.sin(y * random.uniform(0.5, 3) + random.uniform(0, 7)) for _ in range(2)]
    left, right = np.stack([-sides[0], y], axis=1), np.stack([sides[1], y[::-1]], axis=1)
    return np.concatenate([left, right])


def draw_random_colour(random: np.random.Generator) -> Float[np.ndarray, " 3"]:
    """RGB from 0 to 255, of any hue, more often strong than pale."""
    hue, strength, light = random.uniform(0, 6), random.beta(2, 1.5), random.uniform(50, 235)
    pure = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return np.asarray(light * (1 - strength * (1 - pure)))


def draw_noise(random: np.random.Generator, size: tuple[int, int], scales: tuple[int, ...]) -> Float[np.ndarray, "h w"]:
    """Smooth noise of `size` (h, w), of deviation about 1, drawn by `random`: the sum of several `scales`, each given
    as cells along the height.
    """
    h, w = size
    total = np.zeros(size, np.float32)
    for n, cells in enumerate(scales):
        coarse = random.standard_normal((cells + 1, max(2, cells * w // h + 1)), np.float32)
        total += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) * np.float32(0.8**n)
    return np.asarray(total / np.float32(len(scales) ** 0.5))


def _draw_stripes(random: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle, pitch = random.uniform(0, np.pi), random.uniform(4, 12)
    return np.asarray(np.sin(pitch * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform(0, 7)) > 0)


def _draw_spots(random: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    pitch = random.uniform(5, 10)
    return np.asarray(np.cos(pitch * x + random.uniform(0, 7)) + np.cos(pitch * y + random.uniform(0, 7)) > 0.7)


def _draw_patches(random: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return draw_noise(random, (len(y), x.shape[1]), (4, 8)) > 0.3


def _draw_halves(random: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = random.uniform(0, 2 * np.pi)
    return np.asarray(x * np.cos(angle) + y * np.sin(angle) > random.uniform(-0.3, 0.3))


def _draw_plain(random: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.zeros((len(y), x.shape[1]), bool)


PATTERNS: tuple[Callable[..., np.ndarray], ...] = (_draw_stripes, _draw_spots, _draw_patches, _draw_halves, _draw_plain)


def draw_texture(random: np.random.Generator, side: int = SIDE) -> Texture:
    """Two colours in a pattern, with light from one side and grain."""
    y, x = np.ogrid[-REACH : REACH : side * 1j, -REACH : REACH : side * 1j]
    pattern = PATTERNS[random.integers(len(PATTERNS))](random, x, y)
    made = np.where(pattern[..., None], draw_random_colour(random), draw_random_colour(random)).astype(np.float32)
    angle = random.uniform(0, 2 * np.pi)
    light = 14 * (x * np.cos(angle) + y * np.sin(angle)) + 12 * draw_noise(random, (side, side), (4, 16))
    return np.asarray(np.clip(made + light[..., None], 0, 255).astype(np.uint8))


def draw_backdrop(random: np.random.Generator, size: tuple[int, int], pieces: int) -> UInt8[np.ndarray, "h w 3"]:
    """A background of `size` (h, w) by `random`: a gradient, noise of several scales, now and then stripes, and
    `pieces` pieces of shapes as clutter.
    """
    h, w = size
    y, x = np.ogrid[-1 : 1 : h * 1j, -w / h : w / h : w * 1j]
    ends = [draw_random_colour(random) for _ in range(3)]
    angle = random.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + 0.35 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1).astype(np.float32)[..., None]
    made = ends[0].astype(np.float32) * share + ends[1].astype(np.float32) * (1 - share)
    blend = np.clip(0.5 + 0.5 * draw_noise(random, size, (3, 7, 15)), 0, 1)[..., None]
    made = made + (ends[2].astype(np.float32) - made) * blend * np.float32(random.uniform(0.2, 0.8))
    if random.random() < 0.3:
        made += (_draw_stripes(random, 2 * x, 2 * y) * random.uniform(10, 40))[..., None].astype(np.float32)
    made += draw_noise(random, size, (40,))[..., None] * np.float32(random.uniform(2, 14))
    image = np.ascontiguousarray(np.clip(made, 0, 255).astype(np.uint8))
    for _ in range(pieces):
        _draw_piece(random, image)
    return image


def _draw_piece(random: np.random.Generator, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """A part of a category's outline, as a broken or half hidden object would show; never a whole one."""
    h, w = image.shape[:2]
    outline = OUTLINES[list(OUTLINES)[random.integers(len(OUTLINES))]]
    start, length = random.integers(POINTS), random.integers(POINTS // 6, POINTS // 2)
    part = outline[(start + np.arange(length)) % POINTS]
    angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0.05, 0.2) * h
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (part @ turn * radius + random.uniform(0, 1, 2) * [w, h]).astype(np.int32)
    ink = draw_random_colour(random).tolist()
    if random.random() < 0.5:
        cv2.fillPoly(image, [points], ink)
    else:
        cv2.polylines(image, [points], False, ink, int(random.integers(1, 4)), cv2.LINE_AA)
