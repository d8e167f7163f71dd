"""DAVIS: its metrics over folders in its layout, and the layout with images for those who make predictions.

Pont-Tuset et al., The 2017 DAVIS Challenge, and Caelles et al., The 2019 DAVIS Challenge. Numbers are those of the
program davis2017-evaluation, with what it does unexpectedly; the golden test compares with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from masklet.core.annotations import FrameMatcher, FramePlace, VideoFrames
from masklet.core.errors import InputError
from masklet.core.files import read_text
from masklet.core.image_files import open_image
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.report import Report
from masklet.evaluate.vos.files import (
    Notes,
    Row,
    VosClip,
    build_vos_clip,
    build_vos_report,
    compute_column_means,
    find_truth_folder,
    group_rows_by_video,
    list_pngs,
    list_video_names,
    score_vos_clips,
)
from masklet.evaluate.vos.label_maps import VOID, LabelFrame, LabelMap, read_labels
from masklet.evaluate.vos.measures import (
    JF,
    ObjectScore,
    ProposalScores,
    drop_first_and_last,
    list_object_ids,
    match_proposals,
    score_frame_objects,
)
from masklet.io.video.images import is_image_file
from masklet.io.video.source_names import sort_naturally

RESOLUTION = "480p"  # the one that is evaluated, where a folder has several
PARTS = (f"Annotations/{RESOLUTION}", "Annotations")  # where annotations are in a folder in DAVIS layout
UNSUPERVISED_PARTS = (f"Annotations_unsupervised/{RESOLUTION}", *PARTS)
COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SEMI = (
    "davis2017-evaluation, semi-supervised: mean over objects, 0 to 1; the first and last frame do not count; the "
    "objects are ids 1 to the highest in the first annotation; void (255) is background"
)
UNSUPERVISED = (
    "davis2017-evaluation, unsupervised: mean over objects, 0 to 1; all frames count; proposals (at most 20) are "
    "assigned to the objects of the first annotation; void (255) is left out; as in the program's own table, the "
    "rows of a video are numbered in the order of the proposals, 'object' and 'proposal' say whose they are"
)
SINGLE = (
    "DAVIS 2016: one object a video, all that is not black; J and F as davis2017-evaluation has them, 0 to 1; the "
    "first and last frame do not count"
)
PROPOSALS = 20  # the most that the unsupervised track allows
LONG = "decay is wrong or undefined: the official program counts frames in eight bits"
EIGHT_BITS = 256  # from this many frames on, decay is an overflow
Rows = dict[str, Row]  # of "video/object"


def evaluate_davis_semi(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """J and F of DAVIS 2017, semi-supervised, as the program davis2017-evaluation computes them.

    Args:
        gt: DAVIS's folder (Annotations/480p/<video>/<frame>.png, ImageSets/2017/val.txt), or the folder with the
            videos' folders.
        pred: <video>/<frame>.png, palette PNGs; nobody looks at a video's first and last frame.
        videos: those to evaluate; None: the list of ImageSets, else all that have annotations.
        watch: told of progress, in frames.

    Raises:
        InputError: a file is missing, cannot be read or does not fit; an id is above the number of objects.
    """
    return evaluate_semi_supervised(
        "davis-semi", SEMI, find_truth_folder(gt, *PARTS), pred, videos, _read_video_list(gt, "2017"), watch
    )


def evaluate_semi_supervised(
    metric: str,
    protocol: str,
    truth: Path,
    pred: Path,
    videos: Collection[str] | None,
    listed: Collection[str] | None,
    watch: Watch,
) -> Report:
    """Scores as semi-supervised DAVIS does; the report is called `metric`, and `protocol` tells of its rules.

    `truth` and `pred` hold <video>/<frame>.png. Scored are `videos`, where that is None the `listed` ones, else all;
    `watch` is told of frames. Raises InputError as `evaluate_davis_semi` does.
    """
    notes = Notes()
    names = list_video_names(truth, pred, videos, notes, listed)
    clips = [_build_davis_clip(name, truth, pred, notes, given=True) for name in names]
    objects: Rows = {}
    for clip, frames in score_vos_clips(clips, _score_semi_frame, metric, watch):
        objects |= {f"{clip.name}/{i}": _build_davis_row([scores[i] for scores, _ in frames]) for i in clip.objects}
        ids = set[int]().union(*(there for _, there in frames))
        if ids - {VOID, *clip.objects}:
            notes.add("objects that are not in the first annotation are not evaluated", clip.name)
        if VOID in ids:
            notes.add("void pixels (255) count as background", clip.name)
    return _build_davis_report(metric, protocol, objects, notes, (truth, pred))


def _build_davis_clip(name: str, truth: Path, pred: Path, notes: Notes, given: bool) -> VosClip:
    """A video, its objects those of the first annotation; where that is `given`, the first and last frame are left out.

    Ids are counted, not looked up: one that is missing below the highest is an object that is never there.
    """
    files = list_pngs(truth / name)
    clip = build_vos_clip(name, truth / name, pred / name, drop_first_and_last(files) if given else files, notes)
    first = read_labels(truth / name / files[0])
    if not first.highest:
        notes.add("no object in the first annotation, so the video adds nothing", name)
    if first.highest > len(set(first.boxes) - {VOID}):
        notes.add("ids are missing in the first annotation and count as objects without a pixel", name)
    if first.highest and len(clip.frames) >= EIGHT_BITS:
        notes.add(LONG, name)
    return replace(clip, objects=tuple(range(1, first.highest + 1)))


def _score_semi_frame(clip: VosClip, frame: str) -> tuple[dict[int, JF], Collection[int]]:
    """J and F of the objects, and the ids that the truth has."""
    found, truth = clip.read(frame)
    most = len(clip.objects)
    alone = "" if most else " (255 is void; what is white on black is scored by davis16)"
    _check_highest_id(clip, frame, found, most, f"the first annotation of {clip.name} has {most} objects{alone}")
    return score_frame_objects(found, truth, clip.objects), truth.boxes.keys()


def _check_highest_id(clip: VosClip, frame: str, found: LabelFrame, most: int, why: str) -> None:
    if (highest := max(found.boxes, default=0)) > most:
        raise InputError(f"{clip.found / frame}: id {highest}, but {why}; number the objects from 1 on without gaps")


def evaluate_davis_unsupervised(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """J and F of DAVIS 2017/2019, unsupervised (multi-object): proposals are assigned to objects.

    `gt`, `pred`, `videos`, `watch` and errors are as in `evaluate_davis_semi`, but that all frames count; annotations
    are those of Annotations_unsupervised where they are there, the list that of ImageSets/2019 before 2017.
    """
    truth = find_truth_folder(gt, *UNSUPERVISED_PARTS)
    notes = Notes()
    names = list_video_names(truth, pred, videos, notes, _read_video_list(gt, "2019", "2017"))
    clips = [_build_davis_clip(name, truth, pred, notes, given=False) for name in names]
    objects: Rows = {}
    for clip, frames in score_vos_clips(clips, _score_proposals, "davis-unsupervised", watch):
        for row, ((proposal, object), values) in enumerate(match_proposals(frames).items(), start=1):
            objects[f"{clip.name}/{row}"] = {**_build_davis_row(values), "object": object, "proposal": proposal}
    return _build_davis_report("davis-unsupervised", UNSUPERVISED, objects, notes, (truth, pred))


def _score_proposals(clip: VosClip, frame: str) -> ProposalScores:
    found, truth = clip.read(frame)
    _check_highest_id(clip, frame, found, PROPOSALS, f"the most that may be proposed is {PROPOSALS}")
    return ProposalScores.of(found, truth, len(clip.objects))


def evaluate_davis16(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = discard_progress
) -> Report:
    """J and F of DAVIS 2016: one object a video, in black and white images.

    `gt`, `pred`, `videos`, `watch` and errors are as in `evaluate_davis_semi`; the list is that of ImageSets/2016. What
    is not black is the object, in any mode of image.
    """
    truth = find_truth_folder(gt, *PARTS)
    notes = Notes()
    names = list_video_names(truth, pred, videos, notes, _read_video_list(gt, "2016"))
    clips = [
        build_vos_clip(name, truth / name, pred / name, drop_first_and_last(list_pngs(truth / name)), notes, (1,))
        for name in names
    ]
    notes.add(LONG, *(clip.name for clip in clips if len(clip.frames) >= EIGHT_BITS))
    objects: Rows = {}
    for clip, frames in score_vos_clips(clips, _score_single_object, "davis16", watch):
        objects[f"{clip.name}/1"] = _build_davis_row([scores for scores, _ in frames])
        if any(mixed for _, mixed in frames):
            notes.add("masks with several values besides 0; each of them counts as inside", clip.name)
    return _build_davis_report("davis16", SINGLE, objects, notes, (truth, pred))


def _score_single_object(clip: VosClip, frame: str) -> tuple[JF, bool]:
    found, truth = clip.read_masks(frame)
    return score_frame_objects(found, truth, (1,))[1], found.mixed or truth.mixed


def _read_video_list(gt: Path, *years: str) -> list[str] | None:
    """The validation videos that DAVIS's own list names; None where there is no list."""
    for path in (gt / "ImageSets" / year / "val.txt" for year in years):
        if path.is_file():
            return read_text(path, "DAVIS's list of names, one a line").split()
    return None


def _build_davis_report(metric: str, protocol: str, objects: Rows, notes: Notes, inputs: tuple[Path, ...]) -> Report:
    videos = {name: compute_column_means(rows, COLUMNS) for name, rows in group_rows_by_video(objects).items()}
    return build_vos_report(
        metric, protocol, compute_column_means(objects.values(), COLUMNS), objects, videos, notes, inputs
    )


def _build_davis_row(values: Sequence[JF]) -> Row:
    """One object's statistics under the program's names."""
    score = ObjectScore.of(values, compute_eight_bit_quarters)
    row = (score.jf, score.j.mean, score.j.recall, score.j.decay, score.f.mean, score.f.recall, score.f.decay)
    return dict(zip(COLUMNS, row, strict=True))


def compute_eight_bit_quarters(frames: int) -> tuple[slice, slice]:
    """DAVIS's quarters as its program finds them: their end frames are counted in eight bits."""
    starts = (np.round(np.linspace(1, frames, 5) + 1e-10) - 1).astype(int).astype(np.uint8)
    ends = starts + np.uint8(1)
    return slice(int(starts[0]), int(ends[1])), slice(int(starts[3]), int(ends[4]))


@dataclass(frozen=True)
class DavisSequence:
    """One sequence: its frames on disk and, by frame index, where its annotations are."""

    name: str
    images: Path
    annotations: Mapping[int, Path]
    length: int  # frames

    def truth(self) -> dict[int, LabelMap]:
        """The annotated frames' objects, by the data sets' own rule, which decides over all frames of a sequence.

        Palette images hold ids (DAVIS 2017). Others that hold 255 are one object's mask, any other value than
        0 being inside (DAVIS 2016). InputError where no frame shows an object.
        """
        pages = {t: open_image(path, "give palette images of object ids") for t, path in self.annotations.items()}
        values = {t: _read_label_values(page) for t, page in pages.items()}
        if _is_binary(values, palette=all(page.mode == "P" for page in pages.values())):
            values = {t: (v > 0).astype(np.uint8) for t, v in values.items()}
        if not any(list_object_ids(v) for v in values.values()):
            raise InputError(f"{self.name}: no object in any annotation; leave this sequence out")
        return values


def _read_label_values(page: Image.Image) -> LabelMap:
    pixels: UInt8[np.ndarray, "h w *c"] = np.asarray(page).astype(np.uint8)
    return pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)  # some DAVIS masks are grey in RGB


def _is_binary(values: Mapping[int, LabelMap], palette: bool) -> bool:
    found = {int(v) for page in values.values() for v in np.unique(page)}
    return VOID in found and (not palette or found <= {0, VOID})


def find_davis_sequences(folder: Path, names: tuple[str, ...] = ()) -> list[DavisSequence]:
    """The sequences under a folder in DAVIS layout, or the named ones. InputError where one is not there."""
    images, annotations = (_find_resolution_folder(folder / part) for part in ("JPEGImages", "Annotations"))
    there = sorted(p.name for p in images.iterdir() if p.is_dir() and (annotations / p.name).is_dir())
    missing = sorted(set(names) - set(there))
    if missing or not there:
        raise InputError(f"{folder}: no sequence {', '.join(missing) or 'at all'}; it has {', '.join(there)}")
    return [_build_davis_sequence(images / name, annotations / name) for name in names or there]


def _find_resolution_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not here; give a folder in DAVIS layout (JPEGImages/480p/<sequence>/*.jpg, "
            "Annotations/480p/<sequence>/*.png)"
        )
    found = sorted(p for p in folder.iterdir() if p.is_dir())
    if not found:
        raise InputError(f"{folder} is empty; it should hold a folder such as {RESOLUTION}")
    return next((p for p in found if p.name == RESOLUTION), found[0])


def _build_davis_sequence(images: Path, annotations: Path) -> DavisSequence:
    frames = sort_naturally(p for p in images.iterdir() if is_image_file(p))
    found = sort_naturally(annotations.glob("*.png"))
    masks = _match_annotations(images.name, VideoFrames(images.name, len(frames), [p.stem for p in frames]), found)
    if len(masks) < 3:
        raise InputError(f"{images.name}: {len(masks)} annotated frames; three are the least that can be scored")
    return DavisSequence(images.name, images, masks, len(frames))


def _match_annotations(name: str, video: VideoFrames, found: Sequence[Path]) -> dict[int, Path]:
    """The annotations `found` by the frame that each means. Raises InputError where one is of none: scores would be
    those of other frames.
    """
    places = [FramePlace(name=p.name) for p in found]
    matcher = FrameMatcher(str(found[0].parent) if found else name, places, video)
    frames = matcher.group(places)
    if matcher.notes:
        raise InputError(f"{matcher.notes[0]}; call annotations as their frames are called")
    return {t: found[n] for t, [n, *_] in frames.items()}
