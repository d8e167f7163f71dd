"""Annotations and predictions as folders of PNGs, one a video, and what is made of their frames' scores.

Which frame a file means is the benchmarks' own rule, not that of `core.annotations`: the official programs pair files
whose names are the same, letter for letter, and sort them as text. Where people may mean something else by their names
a report warns of it. Frames are read and scored a few at a time, on all cores; only numbers outlive their frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from masklet.core.cores import count_usable_cores
from masklet.core.errors import InputError
from masklet.core.limits import check_relative_path
from masklet.core.progress import Watch
from masklet.evaluate.report import Report, Scores
from masklet.evaluate.vos.label_maps import LabelFrame, read_labels, read_mask_frame
from masklet.evaluate.workers import run_in_order
from masklet.io.formats.json_entry import Size
from masklet.io.video.source_names import find_regular_step, sort_naturally

R = TypeVar("R")
Row = Mapping[str, float]  # NaN: undefined
FEW = 3  # names that are told of many
AHEAD = 4  # frames under way per core


class Notes(dict[str, list[str]]):
    """What is to be warned of, and of which videos or objects."""

    def add(self, what: str, *names: str) -> None:
        """Notes that `what` is true of these `names` of videos or objects; it becomes one sentence for all of them."""
        self.setdefault(what, []).extend(names)

    def surplus(self, found: Path, names: Collection[str], prefix: str = "") -> None:
        """Warns of folders in `found`, predictions, that are not in `names`; `prefix` goes before their name."""
        more = sorted(set(list_subfolders(found)) - set(names))
        self.add("predictions of what has no annotation are not counted", *(prefix + name for name in more))

    def frames(self, name: str, truth: Sequence[str], found: Sequence[str]) -> None:
        """Warns of files whose names may mean another frame than the one with which the benchmark pairs them.

        Args:
            name: of the video, or of the object in it.
            truth, found: names of the files that are annotated and predicted.
        """
        spare = set(found) - set(truth)
        if spare and set(truth) - set(found):
            self.add("not all images are called as the frames are; masks may be those of other frames", name)
        elif spare and find_regular_step(truth) == 1:  # where only some frames are annotated, others are no surprise
            self.add("predicted images that are of no annotated frame are not counted", name)
        if list(truth) != [p.name for p in sort_naturally(map(Path, truth))]:
            self.add("frames stand in the order of their names as text, as in the official program: 10 before 9", name)

    def sentences(self) -> list[str]:
        """A warning for each kind that there is."""
        return [f"{format_first_names(names)}: {what}" for what, names in self.items() if names]


@dataclass(frozen=True)
class VosClip:
    """One video, or one object of it, whose frames are read in pairs."""

    name: str
    truth: Path
    found: Path
    frames: tuple[str, ...]  # names of the files that are evaluated
    objects: tuple[int, ...] = ()  # ids that are evaluated, where they are known beforehand

    def read(self, frame: str) -> tuple[LabelFrame, LabelFrame]:
        """A frame's prediction and truth. InputError where one cannot be read or they differ in size."""
        return self._pair(frame, read_labels)

    def read_masks(self, frame: str) -> tuple[LabelFrame, LabelFrame]:
        """A frame's prediction and truth where images hold one object's mask: all that is not black has id 1.

        Raises InputError as `read` does.
        """
        return self._pair(frame, read_mask_frame)

    def _pair(self, frame: str, read: Callable[[Path, Size | None], LabelFrame]) -> tuple[LabelFrame, LabelFrame]:
        truth = read(self.truth / frame, None)
        return read(self.found / frame, truth.size), truth


def build_vos_clip(
    name: str, truth: Path, found: Path, frames: Sequence[str], notes: Notes, objects: Sequence[int] = ()
) -> VosClip:
    """The clip `name` of the PNGs `frames` in the folders `truth` and `found`; `objects` are the ids to score. `notes`
    gets what is odd about their names.

    Raises InputError where one of the files or folders is not there, or where there is no frame.
    """
    if not frames:
        raise InputError(f"{truth}: too few annotations, none is evaluated; leave it out")
    if not found.is_dir():
        raise InputError(f"{found} is not here; every evaluated video needs a folder of predictions")
    there = {folder: list_pngs(folder) for folder in (truth, found)}
    for folder, files in there.items():
        missing = sorted(set(frames) - set(files))
        if missing:
            raise InputError(f"{folder}: no {format_first_names(missing)}, of {len(frames)} frames that are evaluated")
    notes.frames(name, there[truth], there[found])
    return VosClip(name, truth, found, tuple(frames), tuple(objects))


def find_truth_folder(root: Path, *parts: str) -> Path:
    """The folder that has the videos' folders: the first of the parts that is there, else the root itself."""
    if not root.is_dir():
        raise InputError(f"{root} is not here; give the folder with the annotations")
    return next((root / part for part in parts if (root / part).is_dir()), root)


def list_video_names(
    truth: Path, found: Path, videos: Collection[str] | None, notes: Notes, listed: Collection[str] | None = None
) -> list[str]:
    """The videos to evaluate, in the order of their names: `videos`, else the `listed` ones, else all annotated.

    Raises InputError where there is none, or where one has no folder in `truth` or `found`. Without `videos`, `notes`
    gets the predictions of others.
    """
    default = list_subfolders(truth) if listed is None else listed
    names = sorted(set(default if videos is None else videos))
    if not names:
        raise InputError(f"{truth}: no video to evaluate; give a folder with a folder of PNGs for each video")
    for name in names:
        check_relative_path(str(truth), name)
    for folder in (truth, found):
        missing = [name for name in names if not (folder / name).is_dir()]
        if missing:
            raise InputError(
                f"{folder}: no folder {format_first_names(missing)}, of {len(names)} videos that are evaluated"
            )
    if videos is None:
        notes.surplus(found, names)
    return names


def list_subfolders(folder: Path) -> list[str]:
    """Names of the folders in one, in order; none where it is not there."""
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(p.name for p in there if p.is_dir() and not p.name.startswith("."))


def list_pngs(folder: Path) -> list[str]:
    """Names of the PNGs in a folder, in order."""
    return sorted(p.name for p in folder.glob("*.png") if not p.name.startswith("."))


def format_first_names(names: Sequence[str]) -> str:
    """The first few names of a list."""
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def score_vos_clips(
    clips: Sequence[VosClip], work: Callable[[VosClip, str], R], phase: str, watch: Watch
) -> Iterator[tuple[VosClip, list[R]]]:
    """Yields each of `clips` with what `work` makes of its frames, in order; they are shared out among the cores.

    After each clip `watch` is told `phase`, frames done, frames in all and the clip's objects.
    """
    total, done = sum(len(clip.frames) for clip in clips), 0
    items = ((clip, frame) for clip in clips for frame in clip.frames)
    threads = count_usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        results = run_in_order(pool, lambda item: work(*item), items, AHEAD * threads)
        for clip in clips:
            yield clip, list(islice(results, len(clip.frames)))
            done += len(clip.frames)
            watch(phase, done, total, len(clip.objects))


def compute_column_means(rows: Iterable[Row], columns: Sequence[str]) -> dict[str, float]:
    """The plain mean of each column; NaN where one of its values is."""
    held = list(rows)
    return {c: float(np.mean([row[c] for row in held])) if held else math.nan for c in columns}


def build_vos_report(
    metric: str,
    protocol: str,
    scores: Row,
    objects: Mapping[str, Row],
    videos: Mapping[str, Row],
    notes: Notes,
    inputs: Iterable[Path],
) -> Report:
    """The report of a `metric` with its `protocol`, in which what is undefined (NaN) is None.

    `scores` is the headline, `objects` has a row for each "video/object", `videos` one for each video; warnings come
    from `notes`, and `inputs` are the files and folders that were read.
    """
    per_video, per_object = ({name: replace_nan(row) for name, row in table.items()} for table in (videos, objects))
    return Report(
        metric,
        protocol,
        replace_nan(scores),
        videos=per_video,
        objects=per_object,
        warnings=tuple(notes.sentences()),
        inputs=tuple(inputs),
    )


def replace_nan(row: Row) -> Scores:
    """A row in which what is undefined is None."""
    return {name: None if math.isnan(value) else value for name, value in row.items()}


def group_rows_by_video(objects: Mapping[str, Row]) -> dict[str, list[Row]]:
    """The rows of "video/object" under their video."""
    found: dict[str, list[Row]] = {}
    for name, row in objects.items():
        found.setdefault(name.rpartition("/")[0], []).append(row)
    return found
