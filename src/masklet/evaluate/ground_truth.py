"""What `--gt` and `--pred` must be for each metric: looked at first, so that a wrong file is blamed on its own side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.wording import name_argument
from masklet.io.formats.submission import RESULT

VIDEOS_JSON = "the ground truth's json, with videos, categories and annotations"
PANOPTIC_TRUTHS = ("panoptic_gt.json", "panoptic_gt_VIPSeg_val.json")  # the second, as VIPSeg itself calls it
VIPSEG = f"a folder with {' or '.join(PANOPTIC_TRUTHS)}, and panomasksRGB"
BURST = "a folder with all_classes.json, common_classes.json and uncommon_classes.json"
DAVIS = "DAVIS's folder (Annotations/480p/<video>/<frame>.png), or one with a folder of label images for each video"
OBJECTS = "a folder with <video>/<object>/<frame>.png"
IMAGES_JSON = "LVIS's json, with images, categories and annotations"
META = "the split's folder, with its *meta.json and Annotations/<video>/<frame>.png"
TRACKS = "masklets.json, a json of tracks, a folder with a folder of label images for each video"
VSPW = "VSPW's folder (data/<video>/mask/<frame>.png), or one with a folder of label images for each video"


def find_panoptic_truth(gt: Path) -> Path:
    """The json of VIPSeg's ground truth in the folder `gt`; where there is none, the one that is missing."""
    there = [gt / name for name in PANOPTIC_TRUTHS if (gt / name).is_file()]
    return there[0] if there else gt / PANOPTIC_TRUTHS[0]


def check_ground_truth(metric: str, gt: Path) -> None:
    """Raises InputError, in words that name `gt`, where a path cannot be the ground truth of a built-in metric."""
    if metric not in TRUTHS:
        return
    is_truth, form = TRUTHS[metric]
    if is_truth(gt):
        if metric in LISTS and _has_first_character(gt, b"["):
            told = f"a list, as predictions are; is it the other way round, {name_argument('pred')}?"
            raise InputError(f"{name_argument('gt', gt)}: {told} {metric} takes {form}")
        return
    ours = gt.name == RESULT or (gt.is_dir() and (any(gt.glob(RESULT)) or any(gt.glob(f"*/{RESULT}"))))
    swapped = f": that is what masklet found; is it the other way round, {name_argument('pred')}?" if ours else ""
    raise InputError(f"{name_argument('gt', gt)}{swapped}: {metric} takes {form}")


def check_predictions(metric: str, pred: Path) -> None:
    """Raises InputError, in words that name `pred`, where a path cannot be the predictions of a built-in metric."""
    ours = pred.name == RESULT or (pred.is_dir() and (any(pred.glob(RESULT)) or any(pred.glob(f"*/{RESULT}"))))
    if ours or metric not in PREDICTIONS:
        return
    is_prediction, form = PREDICTIONS[metric]
    if not is_prediction(pred):
        raise InputError(f"{name_argument('pred', pred)}: {metric} takes {form}, or what masklet run wrote")
    if metric in LISTS and _has_first_character(pred, b"{"):
        told = f"no list, as results are, but an object; is it the other way round, {name_argument('gt')}?"
        raise InputError(f"{name_argument('pred', pred)}: {told}")


def _has_first_character(path: Path, mark: bytes) -> bool:
    """Whether the first character of a file, but for space, is `mark`; no file that cannot be read begins with it."""
    try:
        with path.open("rb") as file:
            return file.read(1024).lstrip().startswith(mark)
    except OSError:
        return False


def _is_json_file(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".json" and path.name != RESULT


def _has_files(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).is_file() for name in names)


def _has_panoptic_truth(path: Path) -> bool:
    return find_panoptic_truth(path).is_file()


def _has_images(*patterns: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and any(next(path.glob(pattern), None) for pattern in patterns)


def _has_something(path: Path) -> bool:
    """Whether there may be videos: a file, or a folder that is not empty."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _has_meta(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*meta.json")) and (path / "Annotations").is_dir()


_PAGES = _has_images("*/*.png", "Annotations/*/*.png", "Annotations*/480p/*/*.png")
# Metrics whose predictions are a list.
LISTS = ("ytvis", "ytvis-agnostic", "ytvis-errors", "ovis", "tube-boundary", "ap-pool", "ap-pool-lvis")
TRUTHS: Mapping[str, tuple[Callable[[Path], bool], str]] = {
    **dict.fromkeys(LISTS, (_is_json_file, VIDEOS_JSON)),
    "ap-pool-lvis": (_is_json_file, IMAGES_JSON),
    "tracking": (_has_something, TRACKS),
    **dict.fromkeys(("vpq", "stq", "vipseg"), (_has_panoptic_truth, VIPSEG)),
    **dict.fromkeys(("burst", "burst-masks"), (_has_files("all_classes.json"), BURST)),
    **dict.fromkeys(("davis", "davis-unsupervised", "davis16", "vos-benchmark", "mose"), (_PAGES, DAVIS)),
    **dict.fromkeys(("lvos", "mosev2"), (_has_meta, META)),
    "sav": (_has_images("*/*/*.png"), OBJECTS),
    "vspw": (_has_images("*/*.png", "data/*/mask/*.png"), VSPW),
}
PREDICTIONS: Mapping[str, tuple[Callable[[Path], bool], str]] = {
    **dict.fromkeys(LISTS, (_is_json_file, "a results.json")),
    **dict.fromkeys(("vpq", "stq", "vipseg"), (_has_files("pred.json"), "a folder with pred.json and pan_pred")),
    **dict.fromkeys(("burst", "burst-masks"), (_is_json_file, "a json in BURST's form, with sequences")),
    "tracking": (_has_something, TRACKS),
    "sav": (_has_images("*/*/*.png"), OBJECTS),
    **dict.fromkeys(
        ("davis", "davis-unsupervised", "davis16", "vos-benchmark", "lvos", "mose", "mosev2", "vspw"),
        (_has_images("*/*.png"), "a folder with a folder of label images for each video"),
    ),
}
