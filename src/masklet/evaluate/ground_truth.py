"""What `--gt` must be for each metric: looked at first, so that a wrong folder is not blamed on the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from masklet.core.errors import InputError
from masklet.io.formats.submission import RESULT

VIDEOS_JSON = "the ground truth's json, with videos, categories and annotations"
VIPSEG = "a folder with panoptic_gt.json and panomasksRGB"
BURST = "a folder with all_classes.json, common_classes.json and uncommon_classes.json"
DAVIS = "DAVIS's folder (Annotations/480p/<video>/<frame>.png), or one with a folder of label images for each video"
OBJECTS = "a folder with <video>/<object>/<frame>.png"
VSPW = "VSPW's folder (data/<video>/mask/<frame>.png), or one with a folder of label images for each video"


def check_ground_truth(metric: str, gt: Path) -> None:
    """Raises InputError, in words that name `--gt`, where a path cannot be the ground truth of a built-in metric."""
    if metric not in TRUTHS:
        return
    is_truth, form = TRUTHS[metric]
    if is_truth(gt):
        return
    ours = gt.name == RESULT or (gt.is_dir() and (any(gt.glob(RESULT)) or any(gt.glob(f"*/{RESULT}"))))
    swapped = ": that is what masklet found; is it the other way round, --pred?" if ours else ""
    raise InputError(f"--gt {gt}{swapped}: {metric} takes {form}")


def _is_json_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".json" and path.name != RESULT


def _has_files(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).is_file() for name in names)


def _has_images(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)


_PAGES = _has_images("*/*.png", "Annotations/*/*.png", "Annotations*/480p/*/*.png")
TRUTHS: Mapping[str, tuple[Callable[[Path], bool], str]] = {
    **dict.fromkeys(
        ("ytvis", "ytvis-agnostic", "ytvis-errors", "ovis", "tube-boundary", "ap-pool", "ap-pool-lvis"),
        (_is_json_file, VIDEOS_JSON),
    ),
    **dict.fromkeys(("vpq", "stq", "vipseg"), (_has_files("panoptic_gt.json"), VIPSEG)),
    **dict.fromkeys(("burst", "burst-masks"), (_has_files("all_classes.json"), BURST)),
    **dict.fromkeys(
        ("davis", "davis-unsupervised", "davis16", "vos-benchmark", "lvos", "mose", "mosev2"), (_PAGES, DAVIS)
    ),
    "sav": (_has_images("*/*/*.png"), OBJECTS),
    "vspw": (_has_images("*/*.png", "data/*/mask/*.png"), VSPW),
}
