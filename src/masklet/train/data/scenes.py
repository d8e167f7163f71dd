"""Plans of generated clips: which things there are, where they are at every moment, and what lies over what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int64

from masklet.core.errors import InputError
from masklet.io.video.frame_source import format_size
from masklet.train.data.shapes import HOLES, OUTLINES, Outline, draw_bush_outline, draw_pole_outline
from masklet.train.data.trajectories import (
    MotionSettings,
    draw_camera_path,
    draw_key_moments,
    draw_object_path,
    draw_object_paths,
    sample_spline,
    transform_by_camera,
)

CATEGORIES = tuple(OUTLINES)
RANGES = {"light": (0.0, 0.25), "moderate": (0.25, 0.5), "heavy": (0.5, 1.0)}  # OVIS's levels, both ends inclusive
SMALLEST, LARGEST = 0.08, 0.5  # radius of an object, in short sides
MOST = 30  # objects in a clip
SCREEN = 1.8  # radius of what an object vanishes behind, beside the object's
BEND = 0.05  # deviation of the waves that deform an outline, in radii


@dataclass(frozen=True)
class SyntheticSettings(MotionSettings):
    """What generated clips are like. Shares are of objects unless said otherwise."""

    objects: tuple[int, int] = (2, 5)  # fewest and most in a clip
    categories: tuple[str, ...] = CATEGORIES
    level: str | None = None  # "light", "moderate", "heavy" (OVIS); None: as it comes
    lookalikes: float = 0.3  # that copy category and colouring of another object
    hides: float = 0.15  # that vanish behind something and come back
    blur: float = 0.3  # share of clips with motion blur
    noise: float = 4.0  # greatest deviation of the pixels' noise, of 255

    def check(self) -> None:
        """Raises InputError on settings that no clip can have."""
        few, many = self.objects
        unknown = [c for c in self.categories if c not in CATEGORIES]
        if unknown or not self.categories:
            raise InputError(f"no shape is called {', '.join(unknown) or 'nothing'}; there are {', '.join(CATEGORIES)}")
        if self.level not in (None, *RANGES):
            raise InputError(f"no level of occlusion is called {self.level!r}; there are {', '.join(RANGES)}")
        if not 1 <= few <= many <= MOST:
            raise InputError(f"a clip cannot have {few} to {many} objects; give 1 to {MOST}, the fewest first")
        if not SMALLEST <= self.radius[0] <= self.radius[1] <= LARGEST:
            raise InputError(
                f"objects cannot have a radius of {self.radius[0]} to {self.radius[1]} short sides; "
                f"give {SMALLEST} to {LARGEST}, the smallest first"
            )
        if min(self.size) < 16:
            raise InputError(
                f"frames of {format_size(self.size)} are too small for shapes; give at least 16 pixels a side"
            )


@dataclass(frozen=True)
class ThingAppearance:
    """What a thing is like at any moment."""

    outline: Outline
    hole: float  # its size beside the outline's; 0: none
    paint: int  # what its texture is drawn from
    label: int  # -1: no object, it only hides others


@dataclass(frozen=True)
class ScenePlan:
    """Things from back to front and their poses at the key moments; n things, k moments, t frames."""

    frames: int
    looks: tuple[ThingAppearance, ...]
    keys: Int64[np.ndarray, " k"]  # frames, from the first to the last
    poses: Float[np.ndarray, "n k 5"]  # x, y in pixels, log radius in pixels, angle, log of width to height
    waves: Float[np.ndarray, "n 3 3"]  # amplitude, phase, turns a frame of the waves that deform an outline
    camera: Float[np.ndarray, "k 4"]  # the background's shift x, y in pixels, log zoom, angle

    def at(self, times: Float[np.ndarray, " t"]) -> tuple[Float[np.ndarray, "n t 5"], Float[np.ndarray, "t 4"]]:
        """Poses of things and camera at some moments, in frames."""
        return sample_spline(self.keys, self.poses, times, axis=1), sample_spline(self.keys, self.camera, times, axis=0)

    def outlines(
        self, poses: Float[np.ndarray, "n t 5"], times: Float[np.ndarray, " t"]
    ) -> Float[np.ndarray, "n t p 2"]:
        """Every thing's outline in the frame's pixels."""
        shapes = np.stack([look.outline for look in self.looks])[:, None]
        turn = np.arctan2(shapes[..., 1], shapes[..., 0])
        amplitude, phase, rate = np.moveaxis(self.waves, 2, 0)[..., None, None]
        orders = np.array([1, 2, 3])[:, None, None]
        bent = amplitude * np.cos(orders * turn[:, None, 0, None] + phase + 2 * np.pi * rate * times[:, None])
        return transform_shapes(shapes * (1 + bent.sum(1))[..., None], poses)


def transform_shapes(
    shapes: Float[np.ndarray, "n t p 2"], poses: Float[np.ndarray, "n t 5"]
) -> Float[np.ndarray, "n t p 2"]:
    """Shapes about the origin, stretched, turned, scaled and moved."""
    x, y, size, angle, stretch = np.moveaxis(poses, 2, 0)[..., None]
    along, across = shapes[..., 0] * np.exp(size + stretch / 2), shapes[..., 1] * np.exp(size - stretch / 2)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + along * cos - across * sin, y + along * sin + across * cos], axis=-1)


def plan_scene(random: np.random.Generator, settings: SyntheticSettings, frames: int, crowding: float) -> ScenePlan:
    """Draws a clip of so many `frames` with `random`: the things that `settings` ask for, and how they move. `crowding`
    from 0 on says how many things hide others, and how near they come.
    """
    keys = draw_key_moments(random, frames)
    camera = draw_camera_path(random, settings, keys)
    looks = draw_object_appearances(random, settings)
    poses = draw_object_paths(random, settings, keys, camera, len(looks), crowding)
    poses, hiders = _add_screens(random, settings, camera, poses)
    hiders = hiders + _draw_standing_hiders(random, settings, camera, crowding)
    order = random.permutation(len(looks)).tolist() + list(range(len(looks), len(looks) + len(hiders)))
    every = [*zip(looks, poses, strict=True), *hiders]
    return ScenePlan(
        frames,
        tuple(every[n][0] for n in order),
        keys,
        np.stack([every[n][1] for n in order]),
        _draw_waves(random, len(looks), len(hiders)),
        camera,
    )


def _draw_waves(random: np.random.Generator, objects: int, hiders: int) -> Float[np.ndarray, "n 3 3"]:
    shape = (objects + hiders, 3)
    amplitude = BEND * np.clip(random.normal(0, 1, shape), -2, 2) * [0.5, 1, 0.6]
    amplitude[objects:] = 0
    return np.stack([amplitude, random.uniform(0, 2 * np.pi, shape), random.normal(0, 0.06, shape)], axis=2)


def draw_texture_seed(random: np.random.Generator) -> int:
    """The seed of a texture: most plans are not drawn."""
    return int(random.integers(2**62))


def draw_object_appearances(random: np.random.Generator, settings: SyntheticSettings) -> list[ThingAppearance]:
    """The objects of a clip, some of them copies of one before."""
    looks: list[ThingAppearance] = []
    for _ in range(random.integers(settings.objects[0], settings.objects[1] + 1)):
        if looks and random.random() < settings.lookalikes:
            looks.append(looks[random.integers(len(looks))])
        else:
            label = int(random.integers(len(settings.categories)))
            name = settings.categories[label]
            looks.append(ThingAppearance(OUTLINES[name], HOLES.get(name, 0.0), draw_texture_seed(random), label))
    return looks


def replace_object_paths(
    random: np.random.Generator, settings: MotionSettings, made: ScenePlan, things: Sequence[int], crowding: float
) -> ScenePlan:
    """The plan `made` with other ways for the objects `things` (their rows), which `random` draws anew as `settings`
    and `crowding` say.
    """
    poses = made.poses.copy()
    for n in things:
        others = [poses[m] for m, look in enumerate(made.looks) if look.label >= 0 and m != n]
        poses[n] = draw_object_path(random, settings, made.keys, made.camera, others, crowding)
    return replace(made, poses=poses)


def remove_things(made: ScenePlan, things: Sequence[int]) -> ScenePlan:
    """The same plan with fewer things."""
    kept = [n for n in range(len(made.looks)) if n not in things]
    return replace(made, looks=tuple(made.looks[n] for n in kept), poses=made.poses[kept], waves=made.waves[kept])


def _add_screens(
    random: np.random.Generator,
    settings: SyntheticSettings,
    camera: Float[np.ndarray, "k 4"],
    poses: Float[np.ndarray, "n k 5"],
) -> tuple[Float[np.ndarray, "n k 5"], list[tuple[ThingAppearance, Float[np.ndarray, "k 5"]]]]:
    """The poses of objects of which some vanish behind something inside the clip, and what they vanish behind."""
    made, poses = [], poses.copy()
    for n in np.flatnonzero(random.random(len(poses)) < settings.hides) if len(camera) > 2 else ():
        moment = int(random.integers(1, len(camera) - 1))
        stands = poses[n, moment] + [0, 0, np.log(SCREEN), 0, -poses[n, moment, 4]]
        screen = transform_by_camera(stands, camera, moment, settings.size)
        poses[n] = _move_from_behind(random, poses[n], screen, moment, settings.size)
        made.append((ThingAppearance(draw_bush_outline(random), 0.0, draw_texture_seed(random), -1), screen))
    return poses, made


def _move_from_behind(
    random: np.random.Generator,
    pose: Float[np.ndarray, "k 5"],
    screen: Float[np.ndarray, "k 5"],
    moment: int,
    size: tuple[int, int],
) -> Float[np.ndarray, "k 5"]:
    """The way of an object so that it is behind its screen at one moment only; moments out of the frame stay."""
    frame, made = np.array(size[::-1], float), pose.copy()
    for k in range(len(pose)):
        inside = ((pose[k, :2] > 0) & (pose[k, :2] < frame)).all()
        if k != moment and inside:
            clear = np.exp(pose[k, 2]) + np.exp(screen[k, 2])
            turns = random.uniform(0, 2 * np.pi, 8)
            ways_out = screen[k, :2] + clear * np.stack([np.cos(turns), np.sin(turns)], axis=1)
            places = np.concatenate([pose[k : k + 1, :2], np.clip(ways_out, 0.08 * frame, 0.92 * frame)])
            apart = np.linalg.norm(places - screen[k, :2], axis=1)
            made[k, :2] = places[0] if apart[0] >= clear else places[apart.argmax()]
    return made


def _draw_standing_hiders(
    random: np.random.Generator, settings: SyntheticSettings, camera: Float[np.ndarray, "k 4"], crowding: float
) -> list[tuple[ThingAppearance, Float[np.ndarray, "k 5"]]]:
    """Poles and bushes that stand anywhere."""
    made = []
    for _ in range(random.poisson(1.2 * crowding)):
        pole, short = random.random() < 0.5, min(settings.size)
        width = random.uniform(0.05, 0.12) if pole else random.uniform(0.12, 0.35)
        x, y = random.uniform(0, 1, 2) * settings.size[::-1]
        stands = np.array([x, y, np.log(width * short), random.normal(0, 0.3), 0])
        look = ThingAppearance(
            draw_pole_outline(random) if pole else draw_bush_outline(random), 0.0, draw_texture_seed(random), -1
        )
        made.append((look, transform_by_camera(stands, camera, len(camera) // 2, settings.size)))
    return made
