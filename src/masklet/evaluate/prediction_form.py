"""Predictions in the form that a metric reads, also where they are what `masklet run` wrote."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.wording import name_argument
from masklet.evaluate.ground_truth import find_panoptic_truth
from masklet.evaluate.panoptic.vspw import NAMES as VSPW_NAMES
from masklet.evaluate.panoptic.vspw import find_vspw_masks, read_vspw_names
from masklet.evaluate.vos.files import find_truth_folder, list_pngs
from masklet.io.formats.json_entry import JsonEntry, read_json_object
from masklet.io.formats.split import find_category_id, read_categories
from masklet.io.formats.submission import (
    RESULT,
    Submission,
    SubmissionTarget,
    find_result_files,
    read_dataset_split,
)
from masklet.io.video.source_names import sort_naturally
from masklet.io.video.sources import list_own_frame_names

LISTED = {  # metrics that read a form with ids, which the ground truth lists: that form
    **dict.fromkeys(("ytvis", "ytvis-agnostic", "ytvis-errors", "tube-boundary", "ap-pool"), "ytvis"),
    "ovis": "ovis",
    **dict.fromkeys(("vpq", "stq", "vipseg"), "vipseg"),
}
OWN = ("tracking",)  # metrics that read results themselves
PAGES = ("davis", "davis-unsupervised", "davis16", "vos-benchmark", "lvos", "mose", "mosev2")  # label images by video
INSIDE = {"vipseg": "", "ytvis": "results.json", "ovis": "results.json", "mose": "Annotations"}  # of a zip


@contextmanager
def convert_predictions(metric: str, gt: Path, pred: Path) -> Iterator[Path]:
    """The predictions `pred` as `metric` reads them with the ground truth `gt`, for as long as the context is open.

    Results of ours are written in that form to a temporary folder; anything else is `pred` itself. Videos that have no
    result are the metric's to judge. Raises InputError where a result does not fit the videos or the metric reads none.
    """
    if metric in OWN or not (
        pred.name == RESULT or (pred.is_dir() and (any(pred.glob(RESULT)) or any(pred.glob(f"*/{RESULT}"))))
    ):
        yield pred
        return
    if metric in WRITERS:
        with open_converted_folder(metric, pred) as folder:
            yield WRITERS[metric](gt, find_result_files([pred]), folder)
        return
    target = get_prediction_target(metric, gt)
    submission = Submission.check(target, find_result_files([pred]), allow_missing=True)
    with open_converted_folder(metric, pred) as folder:
        submission.write(folder / "results.zip")
        with ZipFile(folder / "results.zip") as archive:
            archive.extractall(folder)
        yield folder / INSIDE[target.form]


@contextmanager
def open_converted_folder(metric: str, pred: Path) -> Iterator[Path]:
    """A temporary folder for the results `pred` in the form of a `metric`; what is wrong in it is told of `pred`."""
    with tempfile.TemporaryDirectory(prefix="masklet-eval-") as folder:
        try:
            yield Path(folder)
        except InputError as error:
            raise InputError(str(error).replace(folder, f"{pred} in the form of {metric}")) from error


def get_prediction_target(metric: str, gt: Path) -> SubmissionTarget:
    """The form of a metric's predictions."""
    if metric in LISTED:
        form = LISTED[metric]
        return SubmissionTarget(form, read_dataset_split(find_panoptic_truth(gt) if form == "vipseg" else gt))
    if metric in PAGES:
        places = (gt / "Annotations" / "480p", gt / "Annotations", gt)
        return SubmissionTarget("mose", frames=next(p for p in places if p.is_dir()))
    raise InputError(f"{metric}: reads no {RESULT}; give predictions in the form that is handed in")


def write_sav_predictions(gt: Path, results: Sequence[Path], folder: Path) -> Path:
    """The files `results` as SA-V's masks in a `folder`, in the frames that `gt` annotates; object n of a video is its
    n-th folder there.

    Raises InputError where a result is of no video of `gt`, or has an object that it lacks.
    """
    for path in results:
        result = VideoResult.load(path)
        objects = [p for p in sort_naturally((gt / result.name).glob("*")) if p.is_dir()]
        if not objects:
            raise InputError(f"{path}: {result.name} is no video of {gt}; leave it out")
        masklets = {m.id: m for m in result.masklets}
        if odd := sorted(masklets.keys() - set(range(1, len(objects) + 1))):
            raise InputError(f"{path}: object {odd[0]}, where {gt / result.name} has {len(objects)}; track those")
        names = sorted({page.stem for one in objects for page in one.glob("*.png")})
        frames = dict(zip(names, index_annotated_frames(result, names), strict=True))
        for number, one in enumerate(objects, start=1):
            seen = masklets[number].sightings if number in masklets else {}
            (folder / result.name / one.name).mkdir(parents=True)
            for page in one.glob("*.png"):
                mask = seen.get(frames[page.stem])
                pixels = mask.mask.decode_pixels() if mask else np.zeros(result.size, bool)
                Image.fromarray(pixels).save(folder / result.name / one.name / page.name)
    return folder


def write_burst_predictions(gt: Path, results: Sequence[Path], folder: Path) -> Path:
    """The files `results` in BURST's form in a `folder`, in the frames that `gt` annotates, their names being those of
    its categories.

    A result is of the sequence that is called dataset/name or name. Raises InputError where one is of none, or has an
    object of an unknown category.
    """
    content = read_json_object(gt / "all_classes.json", "BURST's ground truth", "sequences", "categories")
    listed = {entry.text("seq_name"): entry for entry in content.entries("sequences")}
    ids = {name: id for id, name in read_categories(content).items()}
    sequences = [_format_burst_prediction(path, VideoResult.load(path), listed, ids) for path in results]
    path = folder / "burst.json"
    path.write_text(json.dumps({"split": content.text("split"), "sequences": sequences}))
    return path


def _format_burst_prediction(
    path: Path, result: VideoResult, listed: Mapping[str, JsonEntry], ids: Mapping[str, int]
) -> dict[str, Any]:
    entry = listed.get(result.name.rpartition("/")[2])
    if entry is None:
        raise InputError(f"{path}: {result.name} is no sequence of the ground truth; leave it out")
    images = entry.texts("annotated_image_paths")
    frames = index_annotated_frames(result, [Path(image).stem for image in images])
    return {
        **{key: entry.get(key) for key in ("seq_name", "dataset", "width", "height")},
        "annotated_image_paths": images,
        "track_category_ids": {str(m.id): find_category_id(result, m, ids) for m in result.masklets},
        "segmentations": [
            {str(m.id): {"rle": s.mask.counts.decode(), "score": m.score} for m, s in result.at(t)} for t in frames
        ],
    }


def index_annotated_frames(result: VideoResult, names: Sequence[str]) -> list[int]:
    """The frames of a result that are called `names`.

    Its source's own images say so by their names; without them names that are numbers are frames, from 0; else there
    must be a name for every frame. Raises InputError where none of these fits.
    """
    own = {name: t for t, name in enumerate(list_own_frame_names(result))}
    if own.keys() >= set(names):
        return [own[name] for name in names]
    if len(names) == result.length:
        return list(range(result.length))
    if all(name.isdecimal() and int(name) < result.length for name in names):
        return [int(name) for name in names]
    raise InputError(
        f"{result.name}: {len(names)} frames are annotated, the result has {result.length}, and nothing says which of "
        "them these are; keep the folder of frames where it was, or track the annotated frames"
    )


def write_vspw_predictions(gt: Path, results: Sequence[Path], folder: Path) -> Path:
    """The files `results` as label images of VSPW's categories in a `folder`, in the frames that `gt` annotates; of two
    objects the surer one is seen. Raises InputError where a result is of no video of `gt`, or an object is of no
    category of its list.
    """
    ids = {name: number for number, name in read_vspw_names(gt).items()}
    if not ids:
        raise InputError(
            f"{name_argument('gt', gt)}: no {VSPW_NAMES}, which gives the names of objects their numbers; put it there"
        )
    for path in results:
        result = VideoResult.load(path)
        truth = find_vspw_masks(find_truth_folder(gt, "data"), result.name)
        names = list_pngs(truth)
        if not names:
            raise InputError(f"{path}: {result.name} is no video of {gt}; leave it out")
        frames = index_annotated_frames(result, [Path(name).stem for name in names])
        (folder / result.name).mkdir(parents=True)
        for t, name in zip(frames, names, strict=True):
            page = np.zeros(result.size, np.uint8)
            for m, s in sorted(result.at(t), key=lambda seen: seen[0].score):
                page[s.mask.decode_pixels()] = find_category_id(result, m, ids)
            Image.fromarray(page).save(folder / result.name / name)
    return folder


WRITERS: Mapping[str, Callable[[Path, Sequence[Path], Path], Path]] = {
    "sav": write_sav_predictions,
    "vspw": write_vspw_predictions,
    **dict.fromkeys(("burst", "burst-masks"), write_burst_predictions),
}
