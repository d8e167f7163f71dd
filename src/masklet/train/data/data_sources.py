"""Data by name: what `--data` means, and how stills of a folder become clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from masklet.core.errors import InputError
from masklet.train.data.clips import ClipSource, UncategorisedSource
from masklet.train.data.framing import FixedFraming
from masklet.train.data.mixture import ClipMixture
from masklet.train.data.pasting import MovingStills
from masklet.train.data.scenes import RANGES, SyntheticSettings
from masklet.train.data.stills import CropSettings, PseudoVideos, StillCrops, Stills
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.data.videos import VideoClips, read_vipseg_footage, read_ytvis_footage
from masklet.train.tasks.nano import LIVELY

SYNTHETIC = "synthetic"
IMAGES, FRAMES = "images", "JPEGImages"  # folders by which a set of stills and a set of videos are known
TRUTHS = ("annotations.json", "instances.json", "train.json")  # of a set of videos
PANOPTIC, PANOPTIC_TRUTHS = "panomasksRGB", ("panoptic_gt_VIPSeg_train.json", "panoptic_gt.json")  # of VIPSeg

FromStills = Callable[[Stills, FixedFraming, bool], ClipSource]  # the last: whether they are varied


def create_still_crops(stills: Stills, framing: FixedFraming, varied: bool) -> ClipSource:
    """Clips of one image of `stills` each, all frames alike, in views of `framing`; `varied` adds mosaics, pasted
    objects and changes of light.
    """
    return StillCrops(stills, framing, None if varied else CropSettings(mosaic=0, paste=0, light=0))


def create_turning_stills(stills: Stills, framing: FixedFraming, varied: bool) -> ClipSource:
    """Images of `stills` that turn, in views of `framing`, as DVIS makes videos of them; `varied` is not used."""
    return PseudoVideos(stills, framing)


def create_moving_stills(stills: Stills, framing: FixedFraming, varied: bool) -> ClipSource:
    """Cut-outs that move, bend, hide and return over an image of `stills`, filmed by a camera that moves, too. Only the
    size of `framing` counts; `varied` is not used.
    """
    return MovingStills(stills, replace(LIVELY, size=framing.size))


def is_generated(name: str) -> bool:
    """Whether clips of this name are generated: never twice the same ones."""
    word, _, level = name.partition(":")
    return word == SYNTHETIC and (not level or level in RANGES)


def create_clip_source(data: Sequence[str], framing: FixedFraming, stills: FromStills, varied: bool) -> ClipSource:
    """One source of all that `data` names, each as often as any other; `framing`, `stills` and `varied` are as in
    `open_clip_source`. Raises InputError as it does, and where the categories differ.
    """
    return join_clip_sources([open_clip_source(name, framing, stills, varied) for name in data])


def create_object_source(data: Sequence[str], framing: FixedFraming, stills: FromStills, varied: bool) -> ClipSource:
    """As `create_clip_source`, but with the single category "object": the categories of `data` need not be alike.
    `framing`, `stills` and `varied` are as in `open_clip_source`; raises InputError as it does.
    """
    return join_clip_sources([UncategorisedSource(open_clip_source(name, framing, stills, varied)) for name in data])


def join_clip_sources(sources: Sequence[ClipSource]) -> ClipSource:
    """One source of several, each as often as any other. Raises InputError where their categories differ."""
    return sources[0] if len(sources) == 1 else ClipMixture(sources, [1.0] * len(sources))


def open_clip_source(name: str, framing: FixedFraming, stills: FromStills, varied: bool) -> ClipSource:
    """Clips that are generated, or of a set in a folder, as `name` has it: "synthetic", "synthetic:LEVEL" or a path.
    `framing` gives the views, and the size of generated frames; `stills` makes clips of a folder of stills, `varied` at
    random or not. Raises InputError where the name is neither.
    """
    if is_generated(name):
        return SyntheticClips(SyntheticSettings(size=framing.size, level=name.partition(":")[2] or None))
    path = Path(name)
    if not os.path.isdir(name):  # which no name is too long for
        levels = ", ".join(f"{SYNTHETIC}:{known}" for known in RANGES)
        raise InputError(f"--data {name}: no such folder; give one, or {SYNTHETIC}, or {levels}")
    if (path / FRAMES).is_dir():
        return VideoClips(*read_ytvis_footage(find_truth_file(path, TRUTHS), path / FRAMES), framing)
    if (path / PANOPTIC).is_dir():
        return VideoClips(
            *read_vipseg_footage(find_truth_file(path, PANOPTIC_TRUTHS), path / PANOPTIC, path / IMAGES), framing
        )
    if (path / IMAGES).is_dir():
        return stills(Stills(path), framing, varied)
    raise InputError(
        f"--data {name}: neither a set of stills (annotations.json and {IMAGES}/, COCO's instance form) nor one of "
        f"videos (a json and {FRAMES}/, YouTube-VIS's form; {IMAGES}/ and {PANOPTIC}/, VIPSeg's)"
    )


def find_truth_file(folder: Path, names: Sequence[str]) -> Path:
    """The annotations of a set of videos, by the names that they may have."""
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise InputError(f"--data {folder}: has videos, but none of {', '.join(names)} with the annotations")
    return found[0]
