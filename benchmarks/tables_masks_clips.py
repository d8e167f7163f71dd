"""What the tables of the systems that propagate masks are measured on, and the measures.

Generated clips, or real ones in DAVIS layout; a segmenter that is made of the truth, with a detector's faults.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tables import switches

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.panoptic.quality import (
    WINDOWS,
    PanopticCounts,
    compute_vpq_bar,
    count_stq,
    count_window_matches,
    list_deva_windows,
)
from masklet.evaluate.panoptic.segments import build_video_table
from masklet.evaluate.vis.metrics import evaluate_class_agnostic
from masklet.evaluate.vos.davis import DavisSequence, find_davis_sequences
from masklet.evaluate.vos.measures import measure_discovery, score_given_objects
from masklet.io.formats.ytvis import write_ytvis, write_ytvis_truth
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.data.dataset_writer import make_clip_result
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import SyntheticClips

SIZE = (96, 160)
HELD_OUT = 8_000  # seed of the clips of seed 0
OBJECT = ("object",)  # the one category that there is
GROUND = (*OBJECT, "ground")  # for VPQ: what is no object is stuff


@dataclass(frozen=True)
class Scene:
    """A clip of a kind of object of which nobody says what it is."""

    name: str
    clip: TrainingClip

    @cached_property
    def images(self) -> np.ndarray:
        """The frames, uint8 [t h w 3]."""
        return self.clip.images.permute(0, 2, 3, 1).contiguous().numpy()

    @cached_property
    def truth(self) -> VideoResult:
        """What is in it; an object that is never seen is not."""
        return make_clip_result(self.clip, self.name, OBJECT)

    @cached_property
    def labels(self) -> dict[int, np.ndarray]:
        """The truth as label maps; ids are those of `truth`."""
        ids = torch.arange(1, len(self.clip.masks) + 1, dtype=torch.uint8)[:, None, None]
        maps = [(self.clip.masks[:, t] * ids).amax(0) for t in range(len(self.clip.images))]
        return {t: labels.numpy() for t, labels in enumerate(maps)}


def generated(seed: int, level: str, videos: int, frames: int, size: tuple[int, int] = SIZE) -> list[Scene]:
    """The clips of a seed."""
    source = SyntheticClips(SyntheticSettings(size=size, level=level))
    clips = [source.clip(seed_item_generator(HELD_OUT + seed, n), frames) for n in range(videos)]
    return [Scene(f"{n:04d}", replace(c, labels=torch.zeros_like(c.labels))) for n, c in enumerate(clips)]


def real(data: Path, videos: int | None = None, frames: int | None = None) -> Iterable[Scene]:
    """dogs-jump and the sequences of DAVIS 2016, one at a time; all of them and all frames, or the first."""
    folder = data / "videos" / "davis2017_240p" / "dogs-jump"
    pages = dict(enumerate(sorted((folder / "masks").glob("*.png"))))
    dogs = [DavisSequence(folder.name, folder / "frames", pages, len(pages))] if pages else []
    for sequence in [*dogs, *find_davis_sequences(data / "davis16")][:videos]:
        yield read(sequence, frames)


def read(sequence: DavisSequence, frames: int | None) -> Scene:
    """A sequence on disk, annotated in every frame."""
    truth = sequence.truth()
    files = sorted(p for p in sequence.images.iterdir() if p.suffix in (".jpg", ".png"))[:frames]
    images = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in files])
    ids = sorted({int(i) for page in truth.values() for i in np.unique(page)} - {0, 255})
    masks = torch.from_numpy(np.stack([[truth[t] == i for t in range(len(files))] for i in ids]))
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
    return Scene(
        sequence.name, TrainingClip(pictures, masks, masks.flatten(2).any(2), torch.zeros(len(ids), dtype=torch.long))
    )


# -- a segmenter made of the truth

MISSED = -1.3  # of the latent quality, standard normal: objects below it are not detected (one in ten)
MEMORY = 0.8  # how far a frame's latent quality is that of the frame before
SCORE = 3.0, 1.5  # the score is the sigmoid of this plus this times the latent quality: half are above 0.95
OUTLINE = 0.04  # deviation of an outline, in roots of areas, at quality 0
TOUCH, MERGED = 3, 0.3  # pixels between two objects that may be taken for one, and how often they are
FALSE = 0.25  # false detections that begin in a frame; each stays where it is for two frames on average
FALSE_SCORE = 1.0, 1.5  # logits of their scores: mean and deviation


class NoisyTruth:
    """The truth as a detector of middling quality sees it. All that is random comes from a seed.

    Each object has a latent quality that drifts from frame to frame; its score, whether it is missed and how exact
    its outline is all hang on it. Objects that touch are at times taken for one. False detections come and go.
    """

    categories = OBJECT
    look_ahead = 0

    def __init__(self, scene: Scene, random: np.random.Generator) -> None:
        masks = scene.clip.masks.numpy()
        quality = drifting(random, masks.shape[:2])
        blobs = false_masks(random, masks.shape[1], masks.shape[2:])
        self.found = [
            seen(random, masks[:, t], quality[:, t], [b for b in blobs if t in b[1]]) for t in range(masks.shape[1])
        ]

    def empty(self) -> None:
        """It remembers nothing."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """What was drawn for each frame."""
        return [self.found[f.index] for f in frames], None


Blob = tuple[np.ndarray, range, float]  # mask, frames, score


def drifting(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal numbers [g t], each near the one before."""
    z = random.standard_normal(shape)
    for t in range(1, shape[1]):
        z[:, t] = MEMORY * z[:, t - 1] + math.sqrt(1 - MEMORY**2) * z[:, t]
    return z


def false_masks(random: np.random.Generator, frames: int, size: tuple[int, int]) -> list[Blob]:
    """Ellipses where there is nothing."""
    made: list[Blob] = []
    for t in range(frames):
        for _ in range(random.poisson(FALSE)):
            axes = random.uniform(0.05, 0.2, 2) * min(size)
            centre = random.uniform(0, 1, 2) * size[::-1]
            mask = np.zeros(size, np.uint8)
            cv2.ellipse(mask, (tuple(centre), tuple(2 * axes), random.uniform(0, 180)), 1, -1)
            score = sigmoid(random.normal(*FALSE_SCORE))
            made.append((mask > 0, range(t, t + int(random.geometric(0.5))), score))
    return made


def seen(random: np.random.Generator, masks: np.ndarray, quality: np.ndarray, blobs: Sequence[Blob]) -> Detections:
    """One frame's detections."""
    found = [
        (outlined(random, mask, z), sigmoid(SCORE[0] + SCORE[1] * z))
        for mask, z in zip(masks, quality, strict=True)
        if mask.any() and z > MISSED
    ]
    found = merged(found) if random.random() < MERGED else found
    found += [(mask, score) for mask, _, score in blobs]
    if not found:
        return Detections.none((masks.shape[1], masks.shape[2]))
    rows = torch.from_numpy(np.stack([mask for mask, _ in found]))
    return Detections(rows, torch.tensor([s for _, s in found]), torch.zeros(len(found), dtype=torch.long))


def outlined(random: np.random.Generator, mask: np.ndarray, quality: float) -> np.ndarray:
    """The mask, somewhat larger or smaller."""
    pixels = round(random.normal() * OUTLINE * math.sqrt(mask.sum()) * math.exp(-quality / 2))
    change = cv2.dilate if pixels > 0 else cv2.erode
    made = change(mask.astype(np.uint8), kernel(abs(pixels))) > 0
    return made if made.any() else mask


def merged(found: list[tuple[np.ndarray, float]]) -> list[tuple[np.ndarray, float]]:
    """The first two that touch, as one."""
    for a in range(len(found)):
        near = cv2.dilate(found[a][0].astype(np.uint8), kernel(TOUCH)) > 0
        for b in range(a + 1, len(found)):
            if (near & found[b][0]).any():
                both = found[a][0] | found[b][0], min(found[a][1], found[b][1])
                return [f for n, f in enumerate(found) if n not in (a, b)] + [both]
    return found


def kernel(radius: int) -> np.ndarray:
    """A disk."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + math.exp(-x))


# -- measures


@dataclass(frozen=True)
class Answer:
    """What was found in a scene, beside what is there."""

    truth: VideoResult
    labels: Mapping[int, np.ndarray]
    found: VideoResult
    noted: Mapping[str, Sequence[bool]]  # of frames of objects, by what it says of them

    @staticmethod
    def of(scene: Scene, found: VideoResult, noted: Mapping[str, Sequence[bool]]) -> Answer:
        """Without the pictures and without names of things."""
        nameless = tuple(replace(m, label=0) for m in found.masklets)
        found = replace(found, name=scene.name, categories=OBJECT, masklets=nameless)
        return Answer(scene.truth, scene.labels, found, noted)


Scores = dict[str, float]


def automatic(answers: Sequence[Answer], folder: Path) -> Scores:
    """Class-agnostic video AP, changes of id for 100 objects, best single masklet's J; AP and J in percent."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ytvis_truth([a.truth for a in answers], folder / "truth.json")
    write_ytvis([a.found for a in answers], folder / "found.json")
    report = evaluate_class_agnostic(folder / "truth.json", folder / "found.json")
    counted = [switches(a.truth, a.found) for a in answers]
    best = [j for a in answers for _, j in measure_discovery(a.found, a.labels).best.values()]
    changed = 100 * sum(s for s, _ in counted) / sum(n for _, n in counted)
    return {"AP": 100 * float(report.scores["AP"] or 0), "switches": changed, "best J": 100 * float(np.mean(best))}


def panoptic(answers: Sequence[Answer], folder: Path) -> Scores:
    """`automatic`, and DEVA's VPQ of the objects and STQ; what no object covers is one segment of stuff."""
    counts, quality = {k: PanopticCounts.none(2) for k in WINDOWS}, None
    for answer in answers:
        video, names, things = build_video_table(grounded(answer.truth), grounded(answer.found))
        assert names == GROUND, names
        counts = {k: c + count_window_matches(video, list_deva_windows(video.length, k), 2) for k, c in counts.items()}
        one = count_stq(video, things, crowds=())
        quality = quality + one if quality else one
    assert quality
    bar = compute_vpq_bar({k: float(c.pq[0]) for k, c in counts.items()})
    return {"VPQ": 100 * float(bar or 0), "STQ": 100 * quality.stq, **automatic(answers, folder)}


def grounded(result: VideoResult) -> VideoResult:
    """The result with one more masklet, of all that the others leave free."""
    free = {}
    for t in range(result.length):
        left = torch.ones(result.size, dtype=torch.bool)
        for _, sighting in result.at(t):
            left &= ~sighting.mask.decode()
        free |= {t: Sighting(Rle.encode(left), Source.DETECTED, 1.0, 1)} if left.any() else {}
    rest = Masklet(max((m.id for m in result.masklets), default=0) + 1, free, 1, 1.0, is_thing=False)
    return replace(result, categories=GROUND, masklets=(*result.masklets, rest))


def prompted(answers: Sequence[Answer], folder: Path) -> Scores:
    """J&F of the objects of the first frame, and the shares of what was noted of their frames; in percent."""
    objects = [score.jf for a in answers for score in score_given_objects(a.found, a.labels).values()]
    notes: dict[str, list[bool]] = {}
    for answer in answers:
        for name, values in answer.noted.items():
            notes.setdefault(name, []).extend(values)
    return {"J&F": 100 * float(np.mean(objects)), **{k: 100 * float(np.mean(v)) for k, v in notes.items() if v}}
