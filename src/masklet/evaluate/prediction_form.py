"""Predictions in the form that a metric reads, also where they are what `masklet run` wrote."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

from masklet.core.errors import InputError
from masklet.io.formats.submission import RESULT, Submission, SubmissionTarget, find_result_files, read_dataset_split

LISTED = {  # metrics that read a form with ids: that form, and where the ground truth lists them
    **dict.fromkeys(("ytvis", "ytvis-agnostic", "tube-boundary", "ap-pool"), ("ytvis", "")),
    "ovis": ("ovis", ""),
    **dict.fromkeys(("vpq", "stq", "vipseg"), ("vipseg", "panoptic_gt.json")),
}
PAGES = ("davis", "davis-unsupervised", "davis16", "vos-benchmark", "lvos", "mose", "mosev2")  # label images by video
INSIDE = {"vipseg": "", "ytvis": "results.json", "ovis": "results.json", "mose": "Annotations"}  # of a zip


@contextmanager
def convert_predictions(metric: str, gt: Path, pred: Path) -> Iterator[Path]:
    """The predictions `pred` as `metric` reads them with the ground truth `gt`, for as long as the context is open.

    Results of ours are written in that form to a temporary folder; anything else is `pred` itself. Videos that have no
    result are the metric's to judge. Raises InputError where a result does not fit the videos or the metric reads none.
    """
    if not (pred.name == RESULT or (pred.is_dir() and (any(pred.glob(RESULT)) or any(pred.glob(f"*/{RESULT}"))))):
        yield pred
        return
    target = get_prediction_target(metric, gt)
    submission = Submission.check(target, find_result_files([pred]), allow_missing=True)
    with tempfile.TemporaryDirectory(prefix="masklet-eval-") as folder:
        submission.write(Path(folder) / "results.zip")
        with ZipFile(Path(folder) / "results.zip") as archive:
            archive.extractall(folder)
        yield Path(folder) / INSIDE[target.form]


def get_prediction_target(metric: str, gt: Path) -> SubmissionTarget:
    """The form of a metric's predictions."""
    if metric in LISTED:
        form, list_ = LISTED[metric]
        return SubmissionTarget(form, read_dataset_split(gt / list_ if list_ else gt))
    if metric in PAGES:
        places = (gt / "Annotations" / "480p", gt / "Annotations", gt)
        return SubmissionTarget("mose", frames=next(p for p in places if p.is_dir()))
    raise InputError(f"{metric}: reads no {RESULT}; give predictions in the form that is handed in")
