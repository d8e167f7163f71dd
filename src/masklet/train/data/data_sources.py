"""Data by name: what it means, and how stills of a folder become clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.wording import name_argument
from masklet.train.data.category_maps import has_same_categories, map_categories
from masklet.train.data.clips import ClipSource, UncategorisedSource
from masklet.train.data.framing import FixedFraming, Framing
from masklet.train.data.mixture import ClipMixture
from masklet.train.data.pasting import MovingStills
from masklet.train.data.scenes import RANGES, SyntheticSettings
from masklet.train.data.stills import (
    CropSettings,
    PseudoVideos,
    StillCrops,
    Stills,
    find_still_files,
    read_still_categories,
)
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.data.videos import Footage, FrameSampling, VideoClips, read_vipseg_footage, read_ytvis_footage
from masklet.train.tasks.nano import LIVELY

SYNTHETIC = "synthetic"
IMAGES, FRAMES = "images", "JPEGImages"  # folders by which a set of stills and a set of videos are known
HQ_YTVIS = "ytvis_hq-train.json"
TRUTHS = ("annotations.json", "instances.json", "train.json", HQ_YTVIS)  # of a set of videos
EXPORTED = "instances.json"  # of a set of videos that `masklet export ytvis-set` wrote, beside `IMAGES`
TRAIN = "train"  # the folder of a data set, as YouTube-VIS and OVIS unpack, whose videos are trained on
TRAIN_TRUTHS = (
    *("train.json", "annotations_train.json", "annotations/train.json", "annotations/annotations_train.json"),
    *("annotations/instances_train.json", "train/instances.json", "train/train.json", HQ_YTVIS),
)
PANOPTIC, PANOPTIC_TRUTHS = "panomasksRGB", ("panoptic_gt_VIPSeg_train.json", "panoptic_gt.json")  # of VIPSeg

FromStills = Callable[[Stills, Framing, bool], ClipSource]  # the last: whether they are varied
CONSECUTIVE = FrameSampling()
Read = tuple[list[Footage], tuple[str, ...]]


def create_still_crops(stills: Stills, framing: Framing, varied: bool) -> ClipSource:
    """Clips of one image of `stills` each, all frames alike, in views of `framing`; `varied` adds mosaics, pasted
    objects and changes of light.
    """
    return StillCrops(stills, framing, None if varied else CropSettings(mosaic=0, paste=0, light=0))


def create_turning_stills(stills: Stills, framing: Framing, varied: bool) -> ClipSource:
    """Images of `stills` that turn, in views of `framing`, as DVIS makes videos of them; `varied` is not used."""
    return PseudoVideos(stills, framing)


def create_moving_stills(stills: Stills, framing: Framing, varied: bool) -> ClipSource:
    """Cut-outs that move, bend, hide and return over an image of `stills`, filmed by a camera that moves, too. Only the
    size of `framing` counts; `varied` is not used.
    """
    return MovingStills(stills, replace(LIVELY, size=require_one_size(framing)))


@dataclass(frozen=True)
class ClipMaking:
    """How clips are made of data.

    Attributes:
        framing: draws the views; of generated clips the size.
        stills: makes clips of a folder of stills.
        varied: whether clips of stills are varied at random.
        sampling: which frames of a video make a clip.
        ratio: how often each of several data is drawn from; none: equally often.
    """

    framing: Framing
    stills: FromStills
    varied: bool = True
    sampling: FrameSampling = CONSECUTIVE
    ratio: tuple[float, ...] = ()


def is_generated(name: str) -> bool:
    """Whether clips of this name are generated: never twice the same ones."""
    word, _, level = name.partition(":")
    return word == SYNTHETIC and (not level or level in RANGES)


def require_one_size(framing: Framing) -> tuple[int, int]:
    """The size of views that are all of one. Raises InputError where they are not."""
    if not isinstance(framing, FixedFraming):
        raise InputError(
            f"clips that are generated, or of cut-outs that move, have one size: give {name_argument('size')}, height "
            "and width"
        )
    return framing.size


def create_clip_source(data: Sequence[str], making: ClipMaking) -> ClipSource:
    """One source of all that `data` names, in the form of `making`. Stills beside videos are trained on under the
    categories of the videos (`map_categories`). Raises InputError as `open_clip_source` does, and where categories
    differ otherwise.
    """
    videos = {name: open_clip_source(name, making) for name in data if not is_still_folder(name)}
    categories = next(iter(videos.values())).categories if videos else None
    return join_clip_sources([videos.get(name) or open_stills(name, making, categories) for name in data], making.ratio)


def create_object_source(data: Sequence[str], making: ClipMaking) -> ClipSource:
    """As `create_clip_source`, but with the single category "object": the categories of `data` need not be alike.
    `making` is as there; raises InputError as it does.
    """
    opened = [open_stills(name, making) if is_still_folder(name) else open_clip_source(name, making) for name in data]
    return join_clip_sources([UncategorisedSource(source) for source in opened], making.ratio)


def join_clip_sources(sources: Sequence[ClipSource], ratio: Sequence[float] = ()) -> ClipSource:
    """One source of several, as often as `ratio` says, by default each as often as any other. Raises InputError where
    their categories differ, or there is not one number for each.
    """
    return sources[0] if len(sources) == 1 and not ratio else ClipMixture(sources, ratio or [1.0] * len(sources))


def is_still_folder(name: str) -> bool:
    """Whether a name is that of a folder with a set of stills."""
    path = Path(name)
    if is_generated(name) or not os.path.isdir(name) or (path / FRAMES).is_dir() or (path / PANOPTIC).is_dir():
        return False
    return find_still_files(path)[1].is_dir() and not (path / EXPORTED).is_file()


def open_stills(name: str, making: ClipMaking, categories: Sequence[str] | None = None) -> ClipSource:
    """Clips of the stills in the folder `name`, as `making` says, under `categories` where there are some. Raises
    InputError where it cannot be read, or none of its categories is one of these.
    """
    path = Path(name)
    if categories is None:
        return making.stills(Stills(path), making.framing, making.varied)
    own = read_still_categories(path)
    same = has_same_categories(own, categories)
    mapped = dict(zip(own, categories, strict=True)) if same else map_categories(own, categories)
    if not mapped:
        raise InputError(
            f"{name_argument('data', name)}: none of its categories ({', '.join(own[:3])}, ...) is one of those of "
            "the videos "
            f"({', '.join(categories[:3])}, ...)"
        )
    return making.stills(Stills(path, mapped.get, categories), making.framing, making.varied)


def open_clip_source(name: str, making: ClipMaking) -> ClipSource:
    """Clips that are generated, or of a set of videos in a folder, as `name` has it: "synthetic", "synthetic:LEVEL" or
    a path; made as `making` says. Raises InputError where the name is neither.
    """
    framing = making.framing
    if is_generated(name):
        size = require_one_size(framing)
        return SyntheticClips(SyntheticSettings(size=size, level=name.partition(":")[2] or None))
    path = Path(name)
    if not os.path.isdir(name):  # which no name is too long for
        levels = ", ".join(f"{SYNTHETIC}:{known}" for known in RANGES)
        raise InputError(f"{name_argument('data', name)}: no such folder; give one, or {SYNTHETIC}, or {levels}")
    return VideoClips(*read_footage(path), framing, making.sampling)


def read_footage(path: Path) -> Read:
    """The annotated videos of a folder, and their categories. Raises InputError where it holds none."""
    if (path / FRAMES).is_dir():
        return read_ytvis_footage(find_truth_file(path, TRUTHS), path / FRAMES)
    if (path / PANOPTIC).is_dir():
        return read_vipseg_footage(find_truth_file(path, PANOPTIC_TRUTHS), path / PANOPTIC, path / IMAGES)
    if (path / EXPORTED).is_file() and (path / IMAGES).is_dir():
        return read_ytvis_footage(path / EXPORTED, path / IMAGES)
    if (path / TRAIN / FRAMES).is_dir():
        return read_ytvis_footage(find_truth_file(path, TRAIN_TRUTHS), path / TRAIN / FRAMES)
    if (path / TRAIN).is_dir():
        return read_ytvis_footage(find_truth_file(path, TRAIN_TRUTHS), path / TRAIN)
    raise InputError(
        f"{name_argument('data', path)}: neither a set of stills (annotations.json and {IMAGES}/, COCO's instance "
        f"form) nor one of videos (a json and {FRAMES}/, YouTube-VIS's form, or what masklet export ytvis-set writes; "
        f"{IMAGES}/ and {PANOPTIC}/, VIPSeg's; train/, OVIS's)"
    )


def find_truth_file(folder: Path, names: Sequence[str]) -> Path:
    """The annotations of a set of videos, by the names that they may have."""
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise InputError(
            f"{name_argument('data', folder)}: has videos, but none of {', '.join(names)} with the annotations"
        )
    return found[0]
