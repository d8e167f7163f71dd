"""How things and the camera move through a clip: key moments, and smooth curves between them.

A pose is x, y in pixels, log radius in pixels, angle, log of width to height; the camera's pose is the background's
shift x, y in pixels, log zoom, angle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64


@dataclass(frozen=True)
class MotionSettings:
    """How things move through a clip. Shares are of objects."""

    size: tuple[int, int] = (96, 160)  # h, w of the frames
    exits: float = 0.2  # that leave the frame and come back
    visits: float = 0.15  # that come in late or leave for good
    rests: float = 0.25  # that stand still while the camera moves
    radius: tuple[float, float] = (0.12, 0.3)  # of an object, in short sides
    speed: float = 0.08  # of an object, in short sides a frame
    camera: float = 0.04  # speed of the camera, likewise


def sample_spline(
    keys: Int64[np.ndarray, " k"], values: Float[np.ndarray, "..."], times: Float[np.ndarray, " t"], axis: int
) -> Float[np.ndarray, "..."]:
    """A smooth curve (Catmull and Rom's) through `values`, which lie along `axis` at the moments `keys` (ascending),
    taken at `times`, of the same unit; constant outside the keys. The result has the times along `axis`.
    """
    values = np.moveaxis(values, axis, 0)
    if len(keys) == 1:
        return np.moveaxis(np.repeat(values, len(times), axis=0), 0, axis)
    slopes = np.gradient(values, keys, axis=0)
    times = np.clip(times, keys[0], keys[-1])
    left = np.clip(np.searchsorted(keys, times, side="right") - 1, 0, len(keys) - 2)
    step = (keys[left + 1] - keys[left]).astype(float)
    shape = (-1,) + (1,) * (values.ndim - 1)
    u, step = ((times - keys[left]) / step).reshape(shape), step.reshape(shape)
    made = (
        (1 + 2 * u) * (1 - u) ** 2 * values[left]
        + u * (1 - u) ** 2 * step * slopes[left]
        + u * u * (3 - 2 * u) * values[left + 1]
        + u * u * (u - 1) * step * slopes[left + 1]
    )
    return np.moveaxis(made, 0, axis)


def draw_key_moments(random: np.random.Generator, frames: int) -> Int64[np.ndarray, " k"]:
    """The first frame, the last, and at least one between: movement changes there, some frames apart."""
    legs = max(min(2, frames - 1), round((frames - 1) / random.uniform(2.5, 6)))
    return np.unique(np.round(np.linspace(0, frames - 1, legs + 1)).astype(np.int64))


def draw_camera_path(
    random: np.random.Generator, settings: MotionSettings, keys: Int64[np.ndarray, " k"]
) -> Float[np.ndarray, "k 4"]:
    """The camera's pose at each of `keys`: a random walk with the speed and frame size of `settings`, zoom limited."""
    steps = random.normal(0, 1, (len(keys), 4)) + random.normal(0, 1, 4)  # it mostly goes on as it went
    steps *= settings.camera * np.array([min(settings.size), min(settings.size), 0.5, 0.4])
    walk: Float[np.ndarray, "k 4"] = np.cumsum(steps * np.diff(keys, prepend=keys[0])[:, None], axis=0)
    walk[:, 2] = np.clip(walk[:, 2], -0.5, 0.5)
    return walk


def draw_object_paths(
    random: np.random.Generator,
    settings: MotionSettings,
    keys: Int64[np.ndarray, " k"],
    camera: Float[np.ndarray, "k 4"],
    objects: int,
    crowding: float,
) -> Float[np.ndarray, "n k 5"]:
    """The poses of so many `objects` at each of `keys`, drawn one after the other: see `draw_object_path`, which
    explains `random`, `settings`, `camera` and `crowding`.
    """
    made: list[Float[np.ndarray, "k 5"]] = []
    for _ in range(objects):
        made.append(draw_object_path(random, settings, keys, camera, made, crowding))
    return np.stack(made)


def draw_object_path(
    random: np.random.Generator,
    settings: MotionSettings,
    keys: Int64[np.ndarray, " k"],
    camera: Float[np.ndarray, "k 4"],
    others: Sequence[Float[np.ndarray, "k 5"]],
    crowding: float,
) -> Float[np.ndarray, "k 5"]:
    """An object's pose at each of `keys` (frame numbers), drawn by `random`: a way of its own, or that of something at
    rest in the world, which moves as `camera`, the camera's poses at the keys, has it. `settings` give sizes, speeds
    and shares; `others` are poses of objects drawn before, and `crowding` says how near it comes to them: 0 far, 1
    near.
    """
    pose = _draw_moving_path(random, settings, keys, others, crowding)
    if random.random() >= settings.rests:
        return pose
    moment = int(random.integers(len(keys)))
    return transform_by_camera(pose[moment], camera, moment, settings.size)


def _draw_moving_path(
    random: np.random.Generator,
    settings: MotionSettings,
    keys: Int64[np.ndarray, " k"],
    others: Sequence[Float[np.ndarray, "k 5"]],
    crowding: float,
) -> Float[np.ndarray, "k 5"]:
    short, k = min(settings.size), len(keys)
    radius = short * np.exp(random.uniform(*np.log(settings.radius)))
    pose = np.zeros((k, 5))
    pose[:, 2] = np.log(radius) + np.cumsum(random.normal(0, 0.1, k))
    pose[:, 3] = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.4, k))
    pose[:, 4] = random.normal(0, 0.15) + random.normal(0, 0.1, k)
    outside = draw_absences(random, settings, k)
    pose[:, :2] = _draw_positions(
        random, settings, keys, outside, 1.6 * float(np.exp(pose[:, 2].max())), others, crowding
    )
    return pose


def draw_absences(random: np.random.Generator, settings: MotionSettings, moments: int) -> Bool[np.ndarray, " k"]:
    """At which of so many `moments` an object is out of the frame: never, between two visits, before or after one.
    `settings.exits` and `settings.visits` are the chances, `random` decides.
    """
    outside, draw = np.zeros(moments, bool), random.random()
    if moments > 2 and draw < settings.exits:
        outside[random.integers(1, moments - 1)] = True
    elif moments > 1 and settings.exits <= draw < settings.exits + settings.visits:
        cut = random.integers(1, moments)
        outside[cut:] = True
        outside ^= random.random() < 0.5
    return outside


def _draw_positions(
    random: np.random.Generator,
    settings: MotionSettings,
    keys: Int64[np.ndarray, " k"],
    outside: Bool[np.ndarray, " k"],
    reach: float,
    others: Sequence[Float[np.ndarray, "k 5"]],
    crowding: float,
) -> Float[np.ndarray, "k 2"]:
    """Where an object is at the key moments: a walk both ways from where it is out of the frame, or from anywhere."""
    frame = np.array(settings.size[::-1], float)
    anchor = int(np.flatnonzero(outside)[0]) if outside.any() else int(random.integers(len(keys)))
    path = np.zeros((len(keys), 2))
    path[anchor] = _choose_position(random, random.uniform(0.1, 0.9, (8, 2)) * frame, others, anchor, crowding)
    if outside[anchor]:
        path[anchor] = _move_out_of_frame(path[anchor], frame, reach)
    walk = [*range(anchor - 1, -1, -1), *range(anchor + 1, len(keys))]
    for key in walk:
        last = path[key + 1 if key < anchor else key - 1]
        far = settings.speed * min(settings.size) * abs(keys[key] - keys[key + 1 if key < anchor else key - 1])
        steps = last + random.normal(0, far, (8, 2))
        if outside[key]:
            path[key] = _move_out_of_frame(last, frame, reach)
        else:
            path[key] = _choose_position(random, np.clip(steps, 0.08 * frame, 0.92 * frame), others, key, crowding)
    return path


def _move_out_of_frame(
    point: Float[np.ndarray, "2"], frame: Float[np.ndarray, "2"], reach: float
) -> Float[np.ndarray, "2"]:
    """The point moved over the nearest border, out of sight."""
    past = np.array([point[0], point[1], frame[0] - point[0], frame[1] - point[1]])
    side, moved = int(past.argmin()), point.copy()
    moved[side % 2] = -reach if side < 2 else frame[side % 2] + reach
    return moved


def _choose_position(
    random: np.random.Generator,
    candidates: Float[np.ndarray, "c 2"],
    others: Sequence[Float[np.ndarray, "k 5"]],
    key: int,
    crowding: float,
) -> Float[np.ndarray, "2"]:
    """One of some places: far from the other objects, or near one of them, as crowding has it."""
    draw = random.random()
    if not others or 0.35 < draw < 0.65:
        return np.asarray(candidates[0])
    places = np.stack([o[key, :2] for o in others])
    gap = np.linalg.norm(candidates[:, None] - places, axis=2).min(1)
    return np.asarray(candidates[gap.argmin() if draw < crowding else gap.argmax()])


def transform_by_camera(
    stands: Float[np.ndarray, "5"], camera: Float[np.ndarray, "k 4"], moment: int, size: tuple[int, int]
) -> Float[np.ndarray, "k 5"]:
    """The poses of something at rest in the world, as seen under each pose of `camera`; at index `moment` it is
    `stands` itself. Turn and zoom are about the middle of the frame, of `size` (h, w) in pixels.
    """
    turned = camera - camera[moment]
    centre, zoom = np.array(size[::-1]) / 2, np.exp(turned[:, 2])
    about, cos, sin = stands[:2] - centre, np.cos(turned[:, 3]), np.sin(turned[:, 3])
    x = centre[0] + zoom * (about[0] * cos - about[1] * sin) + turned[:, 0]
    y = centre[1] + zoom * (about[0] * sin + about[1] * cos) + turned[:, 1]
    return np.stack([x, y, stands[2] + turned[:, 2], stands[3] + turned[:, 3], np.full(len(camera), stands[4])], axis=1)
