"""What BURST's scores are made of: class-guided, exemplar-guided and open-world, counted as its program does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from masklet.core.errors import InputError
from masklet.core.limits import quote_value
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Scores
from masklet.evaluate.tracking.burst_files import (
    DISTRACTORS,
    GT_FORM,
    PRED_FORM,
    BurstFile,
    BurstFrame,
    BurstTruth,
    find_lone_zero_track,
    read_burst_file,
    read_burst_predictions,
    read_burst_truth,
)
from masklet.evaluate.tracking.measures import (
    EPSILON,
    HotaCounts,
    TrackFrame,
    TrackMatches,
    compute_track_ap,
    count_hota,
    match_tracks,
)

SPLITS = ("all", "common", "uncommon")
OBJECT = 1  # the id of the open world's only class; also that of TAO's "acorn"
SURE = 0.5  # similarity from which on a prediction is about some true object

Similarity = Callable[[BurstFrame, BurstFrame], Float[np.ndarray, "g p"]]


def compute_box_similarity(truth: BurstFrame, found: BurstFrame) -> Float[np.ndarray, "g p"]:
    """IoU of the masks' boxes, in whole pixels: what BURST's program does."""
    return _compute_coco_iou(truth.boxes, found.boxes)


def compute_mask_similarity(truth: BurstFrame, found: BurstFrame) -> Float[np.ndarray, "g p"]:
    """IoU of the masks: what BURST's paper says."""
    return _compute_coco_iou(truth.masks, found.masks)


def _compute_coco_iou(truth: Any, found: Any) -> Float[np.ndarray, "g p"]:
    if not len(truth) or not len(found):
        return np.zeros((len(truth), len(found)))
    return np.asarray(coco.iou(truth, found, [0] * len(found)))


@dataclass(frozen=True)
class BurstFramePair:
    """One frame with something in it to find."""

    truth: BurstFrame
    found: BurstFrame
    similarity: Float[np.ndarray, "g p"]


NOTHING = BurstFrame.of([])


def collect_frame_pairs(
    truth: BurstTruth, found: Mapping[str, BurstFrame], similarity: Similarity
) -> list[BurstFramePair]:
    """Pairs each frame in which `truth` shows something with what was predicted there; other frames do not count.

    `found` holds the predictions by image, none where it lacks one; `similarity` compares the shapes of both sides.
    """
    pages = [(page, found.get(image, NOTHING)) for image, page in truth.frames.items() if len(page.tracks)]
    return [BurstFramePair(*both, similarity(*both)) for both in pages]


def build_exemplar_guided_frames(seen: Sequence[BurstFramePair], category: int) -> list[TrackFrame]:
    """The frames of one class as the exemplar-guided task counts them: all that was predicted."""
    return [_select_class(scene, category) for scene in seen]


def build_class_guided_frames(seen: Sequence[BurstFramePair], category: int, truth: BurstTruth) -> list[TrackFrame]:
    """The frames `seen` of one `category`, without the predictions of which the labels of `truth` say nothing.

    These are any in a frame without the class (unless it is known to be absent), and unmatched ones of a class that is
    not labelled exhaustively.
    """
    return [_drop_unlabelled_tracks(frame, category, truth) for frame in build_exemplar_guided_frames(seen, category)]


def build_open_world_frames(seen: Sequence[BurstFramePair], truth: BurstTruth) -> list[TrackFrame]:
    """The frames `seen` with all classes as one; what `truth` says of that one's id decides which predictions stay."""
    frames = [TrackFrame(scene.truth.tracks, scene.found.tracks, scene.similarity) for scene in seen]
    return [_drop_unlabelled_tracks(frame, OBJECT, truth) for frame in frames]


def _select_class(scene: BurstFramePair, category: int) -> TrackFrame:
    rows, cols = scene.truth.categories == category, scene.found.categories == category
    return TrackFrame(scene.truth.tracks[rows], scene.found.tracks[cols], scene.similarity[np.ix_(rows, cols)])


def _drop_unlabelled_tracks(frame: TrackFrame, category: int, truth: BurstTruth) -> TrackFrame:
    if category not in truth.sketchy and (len(frame.truth) or category in truth.absent):
        return frame
    sure = np.where(frame.similarity < SURE - EPSILON, 0, frame.similarity)
    rows, cols = linear_sum_assignment(-sure)
    kept = np.zeros(len(frame.found), bool)
    kept[cols[sure[rows, cols] > EPSILON]] = True
    return TrackFrame(frame.truth, frame.found[kept], frame.similarity[:, kept])


def index_tracks(frames: Sequence[TrackFrame]) -> list[TrackFrame]:
    """Frames with their tracks numbered from 0 on, on each side in the order of their ids."""
    sides = [np.unique(np.concatenate([[], *ids])) for ids in ([f.truth for f in frames], [f.found for f in frames])]
    return [
        TrackFrame(np.searchsorted(sides[0], f.truth), np.searchsorted(sides[1], f.found), f.similarity) for f in frames
    ]


@dataclass(frozen=True)
class TrackTable:
    """The tracks of both sides of one sequence, in the order in which they appear, by their masks."""

    truth: Int64[np.ndarray, "g 2"]  # id, category where it is first seen
    found: Int64[np.ndarray, "d 2"]
    scores: Float[np.ndarray, " d"]  # mean over the frames
    iou: Float[np.ndarray, "d g"]  # over space and time


def build_track_table(truth: Mapping[str, BurstFrame], found: Mapping[str, BurstFrame]) -> TrackTable:
    """Overlaps of all tracks in all annotated frames, those where the ground truth shows nothing too."""
    tracks, others = _list_tracks(truth.values()), _list_tracks(found.values())
    shared, area, other_area = np.zeros((len(others), len(tracks))), np.zeros(len(tracks)), np.zeros(len(others))
    for image, page in truth.items():
        other = found.get(image, NOTHING)
        cols, rows, size, other_size = (
            _find_track_rows(tracks, page),
            _find_track_rows(others, other),
            _measure_mask_areas(page),
            _measure_mask_areas(other),
        )
        iou = _compute_coco_iou(other.masks, page.masks)
        shared[np.ix_(rows, cols)] += np.round(iou / (1 + iou) * np.add.outer(other_size, size))  # whole pixels
        area[cols] += size
        other_area[rows] += other_size
    union = np.add.outer(other_area, area) - shared
    return TrackTable(
        tracks,
        others,
        _compute_track_scores(others, found),
        np.divide(shared, union, out=np.zeros_like(shared), where=union > 0),
    )


def _list_tracks(pages: Iterable[BurstFrame]) -> Int64[np.ndarray, "n 2"]:
    rows = [np.zeros((0, 2), np.int64), *(np.stack([page.tracks, page.categories], 1) for page in pages)]
    seen = np.concatenate(rows)
    return seen[np.sort(np.unique(seen[:, 0], return_index=True)[1])]


def _find_track_rows(tracks: Int64[np.ndarray, "n 2"], page: BurstFrame) -> Int64[np.ndarray, " m"]:
    order = np.argsort(tracks[:, 0])
    return np.asarray(order[np.searchsorted(tracks[:, 0], page.tracks, sorter=order)])


def _measure_mask_areas(page: BurstFrame) -> Float[np.ndarray, " m"]:
    return np.array([coco.area(mask) for mask in page.masks], float)  # pycocotools 2.0.11 counts 255 at once


def _compute_track_scores(tracks: Int64[np.ndarray, "n 2"], pages: Mapping[str, BurstFrame]) -> Float[np.ndarray, " n"]:
    ids = np.concatenate([np.zeros(0, np.int64), *(page.tracks for page in pages.values())])
    scores = np.concatenate([np.zeros(0), *(page.scores for page in pages.values())])
    return np.array([scores[ids == id].mean() for id in tracks[:, 0]], float)


def match_class_tracks(table: TrackTable, category: int, truth: BurstTruth, zero_is_free: bool) -> TrackMatches:
    """Matches the predicted tracks of one `category` in `table`, by IoU over space and time, with the true ones.

    Predicted ones count where the sequence has a track of the class or `truth` knows it to be absent. With
    `zero_is_free` a predicted track of id 0 leaves the true track that it matches free.
    """
    rows, cols = table.found[:, 1] == category, table.truth[:, 1] == category
    if not cols.any() and category not in truth.absent:
        rows[:] = False
    fleeting = np.flatnonzero(table.found[rows, 0] == 0).tolist() if zero_is_free else []
    exhaustive = category not in truth.sketchy
    return match_tracks(table.iou[np.ix_(rows, cols)], table.scores[rows], exhaustive, fleeting)


@dataclass(frozen=True)
class ClassCounts:
    """One class: what was counted for the class-guided and for the exemplar-guided task, and its tracks."""

    guided: HotaCounts
    exemplar: HotaCounts
    tracks: tuple[TrackMatches, ...]

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.guided + other.guided, self.exemplar + other.exemplar, self.tracks + other.tracks)

    @property
    def ap(self) -> float:
        """TrackMAP of the class, 0 to 1; 0 without a true track."""
        found = compute_track_ap(self.tracks)
        return 0.0 if found is None else float(found.mean())


@dataclass(frozen=True)
class BurstCounts:
    """What was counted of a sequence or a split; counts of parts add up to those of the whole."""

    classes: Mapping[int, ClassCounts]  # of all that occurs or is predicted; those to report: `reported`
    reported: frozenset[int]
    open_world: Mapping[str, HotaCounts]  # all, common, uncommon

    def __add__(self, other: BurstCounts) -> BurstCounts:
        both = [c for c in self.classes if c in other.classes]
        classes = {**self.classes, **other.classes, **{c: self.classes[c] + other.classes[c] for c in both}}
        joined = {name: self.open_world[name] + other.open_world[name] for name in SPLITS}
        return BurstCounts(classes, self.reported | other.reported, joined)

    @staticmethod
    def none() -> BurstCounts:
        """The counts of no sequence, from which a sum over sequences starts."""
        return BurstCounts({}, frozenset(), dict.fromkeys(SPLITS, HotaCounts.none()))


def count_sequence(
    truths: Mapping[str, BurstTruth],
    found: Mapping[str, BurstFrame],
    similarity: Similarity,
    zero_is_free: bool = False,
) -> tuple[BurstCounts, dict[int, Scores]]:
    """Counts one sequence; `truths` are those of the files for all, common and uncommon classes.

    `found` holds the predictions by image, `similarity` compares shapes, `zero_is_free` is as in `match_class_tracks`.
    Also, of every true track: its class, its frames, in how many nothing reaches half a similarity, and the IoU over
    space and time of the best predicted track.
    """
    views = {name: collect_frame_pairs(truth, found, similarity) for name, truth in truths.items()}
    worlds = {
        name: count_hota(index_tracks(build_open_world_frames(views[name], truth))) for name, truth in truths.items()
    }
    truth, seen, table = truths["all"], views["all"], build_track_table(truths["all"].frames, found)
    there = frozenset(int(c) for scene in seen for c in scene.truth.categories)
    classes = {}
    for category in sorted(there | {int(c) for c in table.found[:, 1]} | _list_predicted_categories(seen)):
        classes[category] = ClassCounts(
            count_hota(index_tracks(build_class_guided_frames(seen, category, truth))),
            count_hota(index_tracks(build_exemplar_guided_frames(seen, category))),
            (match_class_tracks(table, category, truth, zero_is_free),),
        )
    return BurstCounts(classes, there - DISTRACTORS, worlds), _build_track_rows(table, seen)


def _list_predicted_categories(seen: Sequence[BurstFramePair]) -> set[int]:
    return {int(c) for scene in seen for c in scene.found.categories}


def _build_track_rows(table: TrackTable, seen: Sequence[BurstFramePair]) -> dict[int, Scores]:
    frames, missed = Counter[int](), Counter[int]()
    for scene in seen:
        frames.update(scene.truth.tracks.tolist())
        missed.update(scene.truth.tracks[~(scene.similarity >= SURE).any(1)].tolist())
    best = table.iou.max(0, initial=0)
    return {
        id: {"category": category, "frames": frames[id], "missed frames": missed[id], "IoU": float(iou)}
        for (id, category), iou in zip(table.truth.tolist(), best, strict=True)
    }


@dataclass(frozen=True)
class BurstResult:
    """A split's counts, those of its sequences, and its objects as a report shows them."""

    total: BurstCounts
    videos: Mapping[str, BurstCounts]
    objects: Mapping[str, Scores]
    warnings: tuple[str, ...]
    inputs: tuple[Path, ...]
    names: Mapping[int, str]  # of the categories, where the ground truth says them


def count_burst_split(
    gt: Path, pred: Path, similarity: Similarity, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> BurstResult:
    """Counts a split, one sequence at a time, its shapes compared by `similarity`.

    `gt`, `pred`, `videos` and `watch` are as in `burst.evaluate_burst`. Raises InputError where a file or an entry
    cannot be used.
    """
    truths = {name: read_burst_file(gt / f"{name}_classes.json", GT_FORM) for name in SPLITS}
    found = read_burst_file(pred, PRED_FORM)
    names = select_sequences(truths["all"], found, videos)
    images = {name: frozenset(truths["all"].sequences[name].texts("annotated_image_paths")) for name in names}
    zero, done = find_lone_zero_track(found, images), 0
    counts: dict[str, BurstCounts] = {}
    objects: dict[str, Scores] = {}
    for name in names:
        entries = {split: truths[split].sequences.get(name) for split in SPLITS}
        read = {split: read_burst_truth(entry) if entry else EMPTY for split, entry in entries.items()}
        pages = read_burst_predictions(found.sequences.get(name), truths["all"].sequences[name].size(), images[name])
        counts[name], rows = count_sequence(read, pages, similarity, name == zero)
        objects |= {f"{name}/{id}": row for id, row in rows.items()}
        done += len(images[name])
        watch("burst", done, sum(map(len, images.values())), len(objects))
    warnings = tuple(list_burst_warnings(found, truths["all"], names, images, zero))
    inputs = (*(listing.path for listing in truths.values()), pred)
    return BurstResult(
        sum(counts.values(), start=BurstCounts.none()), counts, objects, warnings, inputs, truths["all"].names
    )


EMPTY = BurstTruth({}, frozenset(), frozenset())


def select_sequences(truth: BurstFile, found: BurstFile, videos: Collection[str] | None) -> list[str]:
    """The sequences to score, all of `truth` or those of `videos`, in the order of the official program.

    That order decides between equal scores. Raises InputError where `found` is of another split, a name is unknown or
    no sequence is left.
    """
    if found.split is not None and found.split != truth.split:
        raise InputError(f"{found.path}: of the split {found.split!r}, the ground truth is of {truth.split!r}")
    if unknown := set(videos or ()) - truth.sequences.keys():
        raise InputError(f"{truth.path}: no sequence {sorted(unknown)[0]}; name them as dataset/sequence")
    names = [name for name in truth.sequences if videos is None or name in videos]
    if not names:
        raise InputError(f"{truth.path}: no sequence at all; nothing can be scored")
    _check_common_images(truth, found, names)
    return sorted(names, key=lambda name: name.replace("/", "-"))


def _check_common_images(truth: BurstFile, found: BurstFile, names: Sequence[str]) -> None:
    """Raises InputError where no image of any sequence is in both files: then their images are called differently.

    Images are paired by their whole path, as in the official program, and not as `core.annotations` does.
    """
    paths = {n: truth.sequences[n].texts("annotated_image_paths") for n in names if n in found.sequences}
    ours = {n: found.sequences[n].texts("annotated_image_paths") for n in paths}
    annotated, predicted = ([(n, p) for n, there in side.items() for p in there] for side in (paths, ours))
    if annotated and predicted and not set(annotated) & set(predicted):
        (name, wanted), (_, given) = annotated[0], predicted[0]
        raise InputError(
            f"{found.path}: none of its images is annotated; in {name} the first is {quote_value(given)}, in the "
            f"ground truth {quote_value(wanted)}; call them as there"
        )


def list_burst_warnings(
    found: BurstFile, truth: BurstFile, names: Sequence[str], images: Mapping[str, Collection[str]], zero: str | None
) -> Iterable[str]:
    """A sentence for each thing that the official program accepts in silence.

    These are sequences of `names` that `found` lacks, those that it has and `truth` lacks, annotated `images`
    that it does not list in a sequence, and the sequence `zero` of `find_lone_zero_track`.
    """
    if missing := [name for name in names if name not in found.sequences]:
        yield f"{len(missing)} of {len(names)} sequences have no prediction ({missing[0]}): all in them is missed"
    if extra := found.sequences.keys() - truth.sequences.keys():
        yield f"{len(extra)} predicted sequences without ground truth ({min(extra)}): ignored"
    paths = {n: set(found.sequences[n].texts("annotated_image_paths")) for n in names if n in found.sequences}
    if lacking := [n for n in paths if set(images[n]) - paths[n]]:
        yield f"{len(lacking)} sequences have annotated images without prediction ({lacking[0]}): all in them is missed"
    if zero is not None:
        yield f"{zero}: a predicted track 0, which BURST's program matches without taking the true track"
