"""Writes generated clips as a set of videos: frames, and ground truth in OVIS's form."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.ytvis import write_ytvis_truth
from masklet.io.output_folder import OutputFolder
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.data.scenes import RANGES
from masklet.train.data.synthetic import SyntheticClips

TRUTH, FRAMES = "annotations.json", "JPEGImages"
QUALITY = 95  # of JPEG


def write_dataset(
    source: SyntheticClips, folder: Path, videos: int, frames: int, seed: int, overwrite: bool = False
) -> Path:
    """Writes <folder>/JPEGImages/<video>/<frame>.jpg and <folder>/annotations.json, whose path it returns: `videos`
    clips of `source`, each of so many `frames`; `overwrite` replaces what is in the `folder`.

    Every annotation has OVIS's words for its frames, every video its mean score of occlusion and the level of that. The
    same `seed` gives the same set. Raises InputError where the folder is filled already, or cannot be written, or
    `videos` or `frames` is below 1.
    """
    if videos < 1 or frames < 1:
        raise InputError(f"{videos} videos of {frames} frames make no set; give at least one of each")
    with OutputFolder(folder.parent, folder.name, overwrite) as partial:
        results, occlusion, words = [], [], []
        for n in range(videos):
            made = source.annotated(seed_item_generator(seed, n), frames)
            name = f"{n:04d}"
            write_frames(made.clip, partial / FRAMES / name)
            results.append(make_clip_result(made.clip, name, source.categories))
            occlusion.append(made.occlusion)
            words += made.words
        write_ytvis_truth(results, partial / TRUTH)
        _add_occlusion(partial / TRUTH, occlusion, words)
    return folder / TRUTH


def write_frames(clip: TrainingClip, folder: Path) -> None:
    """One JPEG a frame, 00000.jpg on."""
    folder.mkdir(parents=True)
    for t, image in enumerate(clip.images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{t:05d}.jpg", quality=QUALITY, subsampling=0)


def make_clip_result(clip: TrainingClip, name: str, categories: tuple[str, ...]) -> VideoResult:
    """The objects of `clip` as masklets of the video `name`, in their order, ids from 1, labels of `categories`."""
    t, _, h, w = clip.images.shape
    masklets = []
    for n, (masks, label) in enumerate(zip(clip.masks, clip.labels.tolist(), strict=True)):
        seen = {f: Sighting(Rle.encode(m), Source.DETECTED, 1.0, label) for f, m in enumerate(masks) if m.any()}
        masklets += [Masklet(n + 1, seen, label, 1.0)] if seen else []
    return VideoResult(name, (h, w), t, 25.0, tuple(masklets), categories, Provenance("synthetic"))


def name_occlusion_level(occlusion: float) -> str:
    """The level that a score of occlusion lies in; the lower one on their border.

    >>> name_occlusion_level(0.25), name_occlusion_level(0.3)
    ('light', 'moderate')
    """
    return next(name for name, (_, high) in RANGES.items() if occlusion <= high)


def _add_occlusion(path: Path, occlusion: list[float], words: list[list[str | None]]) -> None:
    """Adds to the ground truth what OVIS has beyond YouTube-VIS."""
    content = json.loads(path.read_bytes())
    for video, score in zip(content["videos"], occlusion, strict=True):
        video |= {"occlusion": round(score, 4), "level": name_occlusion_level(score)}
    for annotation, row in zip(content["annotations"], words, strict=True):
        annotation["occlusion"] = row
    path.write_text(json.dumps(content))
