"""Results in any of the benchmarks' forms, told apart by what lies there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.io.formats.burst import read_burst
from masklet.io.formats.cocovid import read_cocovid
from masklet.io.formats.davis import read_davis
from masklet.io.formats.json_entry import read_json_file
from masklet.io.formats.mots import read_mots
from masklet.io.formats.split import DatasetSplit
from masklet.io.formats.submission import RESULT, find_result_files
from masklet.io.formats.ytvis import read_ytvis, read_ytvis_split, read_ytvis_truth
from masklet.io.video.sources import make_natural_key

LABELS = ("Annotations/480p", "Annotations")  # where a data set's folder keeps its label images
FORMS = (
    "masklets.json or what masklet run wrote, a json of YouTube-VIS, COCO-VID or BURST, MOTS txt, or a folder with a "
    "folder of label images for each video"
)


def read_results(path: Path, truth: Path | None = None) -> dict[str, VideoResult]:
    """The videos of a file or folder, by name.

    Args:
        path: of a masklets.json, the folder of such that `masklet run` wrote, a json of YouTube-VIS (ground truth, or
            results), COCO-VID or BURST, a MOTS txt or a folder of them, or a folder of label images (DAVIS's layout).
        truth: YouTube-VIS's ground truth json, which gives the numbers in results their videos and names.

    Raises:
        InputError: it is none of these, or an entry is malformed.
    """
    results = _read_folder(path) if path.is_dir() else _read_file(path, truth)
    if not results:
        raise InputError(f"{path}: no video in it; give {FORMS}")
    return {result.name: result for result in results}


def _read_folder(path: Path) -> list[VideoResult]:
    if any(path.glob(RESULT)) or any(path.glob(f"*/{RESULT}")):
        return [VideoResult.load(found) for found in find_result_files([path])]
    texts = sorted(path.glob("*.txt"), key=make_natural_key)
    if texts:
        return [read_mots(found) for found in texts]
    root = next((path / part for part in LABELS if (path / part).is_dir()), path)
    folders = sorted((p for p in root.iterdir() if p.is_dir() and any(p.glob("*.png"))), key=make_natural_key)
    return [read_davis(folder) for folder in folders or ([root] if any(root.glob("*.png")) else [])]


def _read_file(path: Path, truth: Path | None) -> list[VideoResult]:
    if path.suffix.lower() == ".txt":
        return [read_mots(path)]
    content = read_json_file(path, FORMS)
    if isinstance(content, list):
        return read_ytvis(path, _find_split(truth))
    keys: Mapping[str, Any] = content if isinstance(content, dict) else {}
    if str(keys.get("format", "")).startswith("masklet/"):
        return [VideoResult.load(path)]
    if "sequences" in keys:
        return read_burst(path)
    entries = keys.get("annotations")
    if isinstance(entries, list) and "images" in keys:
        return read_cocovid(path)
    if isinstance(entries, list):
        return read_ytvis_truth(path)
    raise InputError(f"{path}: none of the forms that are known; give {FORMS}")


def _find_split(truth: Path | None) -> DatasetSplit | None:
    return read_ytvis_split(truth) if truth is not None and truth.suffix.lower() == ".json" else None
