"""Generated clips: textured shapes that move, bend, cross, hide and return, exactly annotated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from masklet.evaluate.vis.average_precision import compute_occlusion_score
from masklet.evaluate.vis.files import LEVELS as SEVERITY
from masklet.train.data.clips import TrainingClip
from masklet.train.data.render import OVERSIZE, VisibleMasks, draw_thing_masks, render_frames
from masklet.train.data.scenes import (
    RANGES,
    ScenePlan,
    SyntheticSettings,
    plan_scene,
    remove_things,
    replace_object_paths,
)
from masklet.train.data.shapes import draw_backdrop, draw_texture

SLIGHT, SEVERE = 0.05, 0.5  # hidden shares from which on OVIS's words apply; its annotators judged by eye
CROWDING = {"light": 0.1, "moderate": 0.8, "heavy": 2.0}  # of the first plan that is tried
TRIES = 100  # plans that may miss the wanted occlusion
REPAIRS = 30  # of one plan
LEAST = 0.002  # of the frame, in the frame where most is seen of an object
WHOLE = 0.4  # of the object itself, in some frame


@dataclass(frozen=True)
class AnnotatedClip:
    """A clip and how much of each object is hidden."""

    clip: TrainingClip
    hidden: Float[np.ndarray, "g t"]  # share of what the frame would show if nothing lay over it; 1 where absent

    @property
    def words(self) -> list[list[str | None]]:
        """OVIS's word for every object in every frame; None where it is absent."""
        return name_hidden_shares(self.hidden)

    @property
    def occlusion(self) -> float:
        """The mean over the objects of OVIS's score."""
        return compute_clip_occlusion(self.hidden)


def name_hidden_shares(hidden: Float[np.ndarray, "g t"]) -> list[list[str | None]]:
    """OVIS's words for shares that are hidden.

    >>> name_hidden_shares(np.array([[0.02, 0.3, 0.5, 1.0]]))
    [['no_occlusion', 'slight_occlusion', 'severe_occlusion', None]]
    """
    names = [*SEVERITY, None]
    return [[names[n] for n in row] for row in np.digitize(hidden, [SLIGHT, SEVERE, 1.0]).tolist()]


def compute_clip_occlusion(hidden: Float[np.ndarray, "g t"]) -> float:
    """The mean over the objects of OVIS's score."""
    return float(
        np.mean([compute_occlusion_score([SEVERITY[w] for w in row if w]) for row in name_hidden_shares(hidden)])
    )


class SyntheticClips:
    """A `ClipSource` that needs no data."""

    def __init__(self, settings: SyntheticSettings | None = None) -> None:
        """Raises InputError on settings that no clip can have."""
        self.settings = settings or SyntheticSettings()
        self.settings.check()
        self.categories = self.settings.categories

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """A generated clip of so many `frames`: `random` alone decides what is in it."""
        return self.annotated(random, frames).clip

    def annotated(self, random: np.random.Generator, frames: int) -> AnnotatedClip:
        """One more clip, and how much of each object is hidden in every frame."""
        made, drawn = self._accepted(random, frames)
        return _make_annotated_clip(made, drawn, self._images(random, made))

    def _accepted(self, random: np.random.Generator, frames: int) -> tuple[ScenePlan, VisibleMasks]:
        """The first plan of the wanted occlusion, or of all that were tried the one that comes nearest."""
        low, high = RANGES.get(self.settings.level or "", (0.0, 1.0))
        tried = []
        for made, drawn, at in self._plans(random, frames, (low + high) / 2):
            tried.append((max(low - at, at - high), made, drawn))
            if low <= at <= high:
                break
        _, made, drawn = min(tried, key=lambda one: one[0])
        return made, drawn

    def _plans(
        self, random: np.random.Generator, frames: int, wanted: float
    ) -> Iterator[tuple[ScenePlan, VisibleMasks, float]]:
        """Plans, each more or less crowded than the last, and their occlusion."""
        crowding = CROWDING.get(self.settings.level or "", random.uniform(0, 2))
        for _ in range(TRIES):
            made, drawn = self._told(random, plan_scene(random, self.settings, frames, crowding), crowding)
            at = compute_clip_occlusion(drawn.hidden[list_plan_objects(made)])
            yield made, drawn, at
            crowding = crowding * 1.15 + 0.02 if at < wanted else crowding / 1.15

    def _told(self, random: np.random.Generator, made: ScenePlan, crowding: float) -> tuple[ScenePlan, VisibleMasks]:
        """The plan with other ways for those objects that nobody could name; without them where there is no room."""
        drawn = draw_thing_masks(made, self.settings.size)
        for n in range(REPAIRS):
            unclear = find_hidden_objects(made, drawn)
            if not len(unclear):
                break
            made = replace_object_paths(random, self.settings, made, unclear.tolist(), crowding / 1.1**n)
            drawn = draw_thing_masks(made, self.settings.size)
        else:
            made = remove_things(made, find_hidden_objects(made, drawn).tolist())
            if not len(list_plan_objects(made)):
                return self._told(random, plan_scene(random, self.settings, made.frames, 0), 0)
            drawn = draw_thing_masks(made, self.settings.size)
        return made, drawn

    def _images(self, random: np.random.Generator, made: ScenePlan) -> UInt8[np.ndarray, "t h w 3"]:
        h, w = self.settings.size
        background = draw_backdrop(random, (round(h * OVERSIZE), round(w * OVERSIZE)), int(random.integers(0, 12)))
        textures = {look.paint: draw_texture(np.random.default_rng(look.paint)) for look in made.looks}
        images = render_frames(made, textures, background, (h, w), bool(random.random() < self.settings.blur))
        return apply_exposure(random, images, random.uniform(0, self.settings.noise))


def list_plan_objects(made: ScenePlan) -> Int[np.ndarray, " g"]:
    """Which things of a plan are objects."""
    return np.flatnonzero([look.label >= 0 for look in made.looks])


def find_hidden_objects(made: ScenePlan, drawn: VisibleMasks) -> Int[np.ndarray, " g"]:
    """The objects that show themselves well enough in no frame."""
    rows = list_plan_objects(made)
    least = LEAST * drawn.masks.shape[2] * drawn.masks.shape[3]
    shown = (drawn.masks[rows].sum((2, 3)) >= least) & (drawn.hidden[rows] <= 1 - WHOLE)
    return np.asarray(rows[~shown.any(1)])


def apply_exposure(
    random: np.random.Generator, images: UInt8[np.ndarray, "t h w 3"], noise: float
) -> UInt8[np.ndarray, "t h w 3"]:
    """The `images` as a camera takes them: brightness that drifts by `random`, and noise of standard deviation `noise`,
    in steps of 0 to 255.
    """
    t, h, w, _ = images.shape
    gain = 1 + np.cumsum(random.normal(0, 0.02, t))
    grain = random.standard_normal((h, w, 3), np.float32) * np.float32(noise)
    made = np.empty_like(images)
    for n in range(t):
        rolled = np.roll(grain, random.integers(0, [h, w]).tolist(), (0, 1))
        made[n] = np.clip(images[n] * np.float32(gain[n]) + rolled, 0, 255)
    return made


def _make_annotated_clip(made: ScenePlan, drawn: VisibleMasks, images: UInt8[np.ndarray, "t h w 3"]) -> AnnotatedClip:
    rows = list_plan_objects(made)
    masks = torch.from_numpy(drawn.masks[rows])
    labels = torch.tensor([made.looks[n].label for n in rows], dtype=torch.int64)
    stacked = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return AnnotatedClip(TrainingClip(stacked, masks, masks.flatten(2).any(2), labels), drawn.hidden[rows])
