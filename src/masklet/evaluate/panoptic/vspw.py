"""VSPW: mean IoU of categories over a set, and how consistent labels are over 8 and 16 frames.

Miao et al., VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild, CVPR 2021.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from masklet.core.errors import InputError
from masklet.core.limits import parse_whole_number
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.vos.files import (
    Notes,
    VosClip,
    build_vos_clip,
    find_truth_folder,
    list_pngs,
    list_subfolders,
    list_video_names,
    score_vos_clips,
)
from masklet.io.formats.json_entry import read_json_object

CLASSES = 124
VOIDS = (0, 254, 255)  # pixels about which the truth says nothing
WINDOWS = (8, 16)  # frames over which consistency is measured
NAMES = "label_num_dic_final.json"
PROTOCOL = (
    "VSPW, 0 to 100: mIoU is the mean over the categories that occur in truth or prediction, from the pixels of the "
    "whole set; VC over n frames is, of the pixels whose true label stays the same in n frames, the share that is "
    "labelled right in all of them, in the mean over windows, then over videos that are as long (the paper's formula); "
    "pixels of 0, 254 and 255 in the truth do not count"
)
Labels = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class PixelCounts:
    """Pixels by true and predicted label."""

    table: Int64[np.ndarray, "256 256"]

    @staticmethod
    def of(truth: Labels, found: Labels) -> PixelCounts:
        """The pixels of a frame, void ones left out."""
        both = truth.astype(np.int64) << 8 | found
        table = np.bincount(both.ravel(), minlength=1 << 16).reshape(256, 256)
        table[list(VOIDS)] = 0
        return PixelCounts(table)

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.table + other.table)

    @staticmethod
    def none() -> PixelCounts:
        """The counts of no pixel, from which a sum starts."""
        return PixelCounts(np.zeros((256, 256), np.int64))

    @property
    def ious(self) -> Mapping[int, float]:
        """IoU of each label that occurs, 0 to 1; void predictions are of no label."""
        right = np.diag(self.table)
        union = self.table.sum(0) + self.table.sum(1) - right
        there = [k for k in np.flatnonzero(union).tolist() if k not in VOIDS]
        return {k: float(right[k] / union[k]) for k in there}

    @property
    def mean_iou(self) -> float | None:
        """Mean of `ious`; None where nothing occurs."""
        ious = self.ious
        return float(np.mean(list(ious.values()))) if ious else None


def compute_consistency(truth: Sequence[Labels], found: Sequence[Labels], frames: int) -> float | None:
    """VC over `frames` frames, 0 to 1, of one video's label maps.

    Returns:
        The mean over all windows in which any pixel keeps its true label; None where there is none.

    >>> steady = [np.full((1, 4), 3, np.uint8)] * 3
    >>> flicker = [np.array([[3, 3, 3, 3]], np.uint8), np.array([[3, 3, 1, 3]], np.uint8), steady[0]]
    >>> compute_consistency(steady, flicker, 2)
    0.75
    """
    return _average(_measure_windows(zip(truth, found, strict=True), frames))


def _measure_windows(pages: Iterable[tuple[Labels, Labels]], frames: int) -> list[float]:
    held: deque[tuple[Labels, Labels]] = deque(maxlen=frames)
    values = []
    for page in pages:
        held.append(page)
        if len(held) == frames:
            first = held[0][0]
            stays = np.logical_and.reduce([~np.isin(first, VOIDS), *(truth == first for truth, _ in held)])
            right = np.logical_and.reduce([stays, *(found == first for _, found in held)])
            values += [float(right.sum() / stays.sum())] if stays.any() else []
    return values


def _average(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def evaluate_vspw(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """mIoU over the set and VC8, VC16 of VSPW, 0 to 100.

    Args:
        gt: VSPW's folder (data/<video>/mask/<frame>.png), or <video>/<frame>.png; a pixel is its category, 1 to 124.
        pred: <video>/<frame>.png in the same coding.
        videos: those to score; all that are annotated without it.
        watch: is told ("vspw", frames done, frames in all, 0).

    Raises:
        InputError: a file is missing, cannot be read or is of another size.
    """
    notes = Notes()
    truth = find_truth_folder(gt, "data")
    names = list_video_names(truth, pred, videos, notes)
    clips = [_build_clip(name, truth, pred, notes) for name in names]
    total, rows = PixelCounts.none(), dict[str, Scores]()
    for clip, pages in score_vos_clips(clips, _read_pair, "vspw", watch):
        counts = sum((PixelCounts.of(*page) for page in pages), start=PixelCounts.none())
        total += counts
        spans = {n: _average(_measure_windows(pages, n)) for n in WINDOWS}
        rows[clip.name] = _scale({"mIoU": counts.mean_iou, **{f"VC{n}": value for n, value in spans.items()}})
    means = {f"VC{n}": _average([v for row in rows.values() if (v := row[f"VC{n}"]) is not None]) for n in WINDOWS}
    labels = read_vspw_names(gt)
    parts = {labels.get(k, f"class {k}"): _scale({"IoU": iou}) for k, iou in total.ious.items()}
    return Report(
        "vspw",
        PROTOCOL,
        {**_scale({"mIoU": total.mean_iou}), **means},
        parts,
        rows,
        warnings=tuple(notes.sentences()),
        inputs=(truth, pred),
    )


def _build_clip(name: str, truth: Path, pred: Path, notes: Notes) -> VosClip:
    folder = find_vspw_masks(truth, name)
    return build_vos_clip(name, folder, pred / name, list_pngs(folder), notes)


def find_vspw_masks(truth: Path, name: str) -> Path:
    """The folder of a video's label images: <video>/mask in VSPW's own layout, else <video>."""
    return truth / name / "mask" if "mask" in list_subfolders(truth / name) else truth / name


def _read_pair(clip: VosClip, frame: str) -> tuple[Labels, Labels]:
    found, truth = clip.read(frame)
    highest = int(truth.labels[~np.isin(truth.labels, VOIDS)].max(initial=0))
    if highest > CLASSES:
        raise InputError(f"{clip.truth / frame}: label {highest}; VSPW's are 1 to {CLASSES}, and 254, 255 for void")
    return truth.labels, found.labels


def _scale(row: Scores) -> Scores:
    return {name: None if value is None else 100 * value for name, value in row.items()}


def read_vspw_names(gt: Path) -> dict[int, str]:
    """The categories' names by number, from VSPW's own list, whose numbers may be texts; none where it is not there.
    Raises InputError where a number is none.
    """
    path = gt / NAMES
    if not path.is_file():
        return {}
    listed = read_json_object(path, "VSPW's list of categories, name: number")
    numbers = {name: parse_whole_number(n) if isinstance(n := listed.get(name), str) else None for name in listed}
    return {listed.whole(name) if (n := numbers[name]) is None else n: name for name in listed}
