"""Files in VIPSeg's layout, read and counted as VPQ and STQ need it.

gt/panoptic_gt.json, gt/panomasksRGB/<video>/<frame>.png; pred/pred.json, pred/pan_pred/<video>/<frame>.png. A pixel
(R, G, B) belongs to the segment R + 256 G + 65536 B. Frames of both sides are paired by the names of their files, as
the official programs do it, and not as `core.annotations` would. Every png is read once, one video at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from masklet.core.cores import count_usable_cores
from masklet.core.errors import InputError
from masklet.core.image_files import open_image
from masklet.core.limits import check_file_name, check_relative_path
from masklet.core.progress import Watch, discard_progress
from masklet.evaluate.ground_truth import find_panoptic_truth
from masklet.evaluate.panoptic.quality import (
    MATCH,
    WHOLE,
    WINDOWS,
    PanopticCounts,
    StqCounts,
    compute_window_overlaps,
    count_stq,
    count_window_matches,
    list_deva_windows,
    list_vipseg_windows,
)
from masklet.evaluate.panoptic.segments import (
    ABSENT,
    VOID,
    FrameOverlap,
    IdMap,
    ListedSegment,
    VideoTable,
    count_shared_pixels,
)
from masklet.evaluate.report import Scores
from masklet.evaluate.workers import run_in_order
from masklet.io.formats.json_entry import JsonEntry, read_json_object

GT_FORM = "VIPSeg's panoptic_gt.json with 'annotations' and 'categories'"
PRED_FORM = "a pred.json with 'annotations', as VIPSeg's evaluation reads it"


@dataclass(frozen=True)
class FrameFiles:
    """One frame on both sides: its entry in the JSON and its png."""

    truth: JsonEntry
    truth_png: Path
    found: JsonEntry
    found_png: Path


@dataclass
class VipsegSplit:
    """What the two JSON files list; `notes` counts what the official programs accept in silence."""

    categories: Mapping[int, int]  # id: place
    names: Sequence[str]
    things: Bool[np.ndarray, " c"]
    videos: Mapping[str, Sequence[FrameFiles]]
    inputs: tuple[Path, ...]
    notes: Counter[str] = field(default_factory=Counter)


def read_vipseg_split(gt: Path, pred: Path, videos: Collection[str] | None = None) -> VipsegSplit:
    """The frames to compare, of all videos or of those that `videos` names.

    `gt` holds panoptic_gt.json (or what `find_panoptic_truth` finds) and panomasksRGB, `pred` pred.json and pan_pred.
    Raises InputError where a file is not of its form, where a video is unknown, or where a video or a frame has no
    prediction.
    """
    listing = find_panoptic_truth(gt)
    truth_file = read_json_object(listing, GT_FORM, "annotations", "categories")
    found_file = read_json_object(pred / "pred.json", PRED_FORM, "annotations")
    truth, found = _group_frames_by_video(truth_file), _group_frames_by_video(found_file)
    wanted = list(truth) if videos is None else [name for name in truth if name in videos]
    if unknown := set(videos or ()) - truth.keys():
        raise InputError(
            f"{truth_file.where}: no video {_format_sorted_names(unknown)}; it has {_format_sorted_names(truth)}"
        )
    if missing := set(wanted) - found.keys():
        raise InputError(
            f"{found_file.where}: no video {_format_sorted_names(missing)}; predict it, or name the videos to score"
        )
    paired = {name: list(_match_frame_files(gt, pred, name, truth[name], found[name])) for name in wanted}
    if not any(paired.values()):
        raise InputError(f"{truth_file.where}: no frame in any video; nothing can be scored")
    inputs = (listing, gt / "panomasksRGB", pred / "pred.json", pred / "pan_pred")
    split = VipsegSplit(
        *_parse_categories(truth_file), {name: frames for name, frames in paired.items() if frames}, inputs
    )
    split.notes["predicted videos without ground truth: ignored"] += len(found.keys() - truth.keys())
    spare = sum(len(found[name]) - len(paired[name]) for name in wanted)
    split.notes["predicted frames without ground truth: ignored"] += spare
    return split


def _group_frames_by_video(file: JsonEntry) -> dict[str, dict[str, JsonEntry]]:
    """Video: frame (its file's name without suffix): entry. Raises InputError where one is listed twice."""
    videos: dict[str, dict[str, JsonEntry]] = {}
    for video in file.entries("annotations"):
        listed = list(video.entries("annotations"))
        frames = {check_file_name(frame.where, Path(frame.text("file_name")).stem): frame for frame in listed}
        if len(frames) < len(listed):
            raise video.wrong("a frame is listed twice; keep one of them")
        name = check_relative_path(video.where, str(video.get("video_id")))
        if name in videos:
            raise video.wrong(f"the video {name!r} is listed twice; keep one of them")
        videos[name] = frames
    return videos


def _match_frame_files(
    gt: Path, pred: Path, video: str, truth: Mapping[str, JsonEntry], found: Mapping[str, JsonEntry]
) -> Iterator[FrameFiles]:
    if missing := truth.keys() - found.keys():
        raise InputError(
            f"{pred / 'pred.json'}: video {video} has no frame {_format_sorted_names(missing)}; predict it too"
        )
    for name, entry in truth.items():
        png = Path(video) / f"{name}.png"
        yield FrameFiles(entry, gt / "panomasksRGB" / png, found[name], pred / "pan_pred" / png)


def _parse_categories(file: JsonEntry) -> tuple[dict[int, int], list[str], Bool[np.ndarray, " c"]]:
    listed = list(file.entries("categories"))
    places = {category.whole("id"): n for n, category in enumerate(listed)}
    if len(places) < len(listed):
        raise InputError(f"{file.where}: a category's id is given twice; keep one of them")
    names = [f"{c.whole('id')} {c.content.get('name', '')}".rstrip() for c in listed]
    return places, names, np.array([c.whole("isthing") != 0 for c in listed], bool)


def _format_sorted_names(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_panoptic_ids(path: Path) -> IdMap:
    """A panoptic png's ids. Raises InputError where it cannot be read or is not of three colours."""
    image = open_image(path, "give a png of the segments' ids")
    if image.mode not in ("RGB", "RGBA"):
        raise InputError(f"{path}: a png of mode {image.mode}; ids are colours, so it must be RGB")
    pixels = np.asarray(image.convert("RGBA"))
    return (pixels.view("<u4")[..., 0] & 0xFFFFFF).astype(np.int32)


def read_vipseg_frame(files: FrameFiles, split: VipsegSplit) -> FrameOverlap:
    """One frame of both sides.

    Raises InputError where the sizes differ, a category is not listed, or a prediction's png and list disagree.
    """
    truth, found = read_panoptic_ids(files.truth_png), read_panoptic_ids(files.found_png)
    if truth.shape != found.shape:
        raise InputError(f"{files.found_png}: {found.shape} pixels (h, w), the ground truth has {truth.shape}")
    pairs, pixels = count_shared_pixels(truth, found)
    listed = (
        _read_segments(files.truth, split.categories, areas=True),
        _read_segments(files.found, split.categories, areas=False),
    )
    drawn, there = set(pairs[:, 1].tolist()), listed[1].keys()
    if wrong := sorted((drawn - there - {VOID}) | (there - drawn)):
        where = "the list but not in the png" if wrong[0] in there else "the png but not in the list"
        raise files.found.wrong(f"segment {wrong[0]} is in {where} {files.found_png}; make them agree")
    return FrameOverlap(pairs, pixels, *listed)


def _read_segments(frame: JsonEntry, categories: Mapping[int, int], areas: bool) -> dict[int, ListedSegment]:
    """A frame's list. Only the ground truth's areas and crowds count."""
    segments: dict[int, ListedSegment] = {}
    for entry in frame.entries("segments_info"):
        id, category = entry.whole("id"), entry.whole("category_id")
        if category not in categories or id in segments:
            raise entry.wrong(f"segment {id}: " + ("is listed twice" if id in segments else f"no category {category}"))
        crowd = areas and entry.content.get("iscrowd", 0) == 1
        segments[id] = ListedSegment(categories[category], entry.whole("area") if areas else 0, crowd)
    return segments


def read_vipseg_video(frames: Sequence[FrameFiles], split: VipsegSplit, pool: ThreadPoolExecutor) -> VideoTable:
    """A video's table from its `frames` in order, which the threads of `pool` read.

    `split` has the categories, and its notes are added to. Raises InputError as `read_vipseg_frame`.
    """
    tables = list(
        run_in_order(pool, lambda files: read_vipseg_frame(files, split), frames, ahead=2 * count_usable_cores())
    )
    for frame in tables:
        drawn = Counter(dict.fromkeys(frame.truth, 0))
        for id, pixels in zip(frame.pairs[:, 0].tolist(), frame.pixels.tolist(), strict=True):
            drawn[id] += pixels
        split.notes["true segments in a png that its list does not name: never matched"] += len(
            drawn.keys() - frame.truth.keys() - {VOID}
        )
        split.notes["areas in panoptic_gt.json that contradict the png: VPQ uses them as they are"] += sum(
            drawn[id] != segment.area for id, segment in frame.truth.items()
        )
    return VideoTable.of(tables)


@dataclass(frozen=True)
class VipsegCounts:
    """All that is counted in a video or a split; counts of parts add up to those of the whole."""

    deva: Mapping[int, PanopticCounts]  # by the window's frames; a shorter video is one window
    vipseg: Mapping[int, PanopticCounts]  # a shorter video has no window
    stq: StqCounts  # as the official program, which takes the segment that is listed first for a crowd
    defined: StqCounts  # as the paper, without that crowd
    short: Mapping[int, int]  # videos with fewer frames than the window

    @staticmethod
    def of(video: VideoTable, things: Bool[np.ndarray, " c"]) -> VipsegCounts:
        """Counts one `video`; `things` says of each category whether it is a thing."""
        short = {k: int(k != WHOLE and video.length < k) for k in WINDOWS}
        deva = {k: count_window_matches(video, list_deva_windows(video.length, k), len(things)) for k in WINDOWS}
        vipseg = {
            k: deva[k] if list_vipseg_windows(video.length, k)[0] else PanopticCounts.none(len(things)) for k in WINDOWS
        }
        return VipsegCounts(deva, vipseg, count_stq(video, things), count_stq(video, things, crowds=()), short)

    def __add__(self, other: VipsegCounts) -> VipsegCounts:
        return VipsegCounts(
            {k: self.deva[k] + other.deva[k] for k in WINDOWS},
            {k: self.vipseg[k] + other.vipseg[k] for k in WINDOWS},
            self.stq + other.stq,
            self.defined + other.defined,
            {k: self.short[k] + other.short[k] for k in WINDOWS},
        )


@dataclass(frozen=True)
class VipsegResult:
    """A split's counts, and those of its videos and objects as a report shows them."""

    split: VipsegSplit
    total: VipsegCounts
    videos: Mapping[str, VipsegCounts]
    objects: Mapping[str, Scores]


def count_vipseg_split(
    gt: Path,
    pred: Path,
    *,
    videos: Collection[str] | None = None,
    watch: Watch = discard_progress,
    name: str = "vipseg",
) -> VipsegResult:
    """Counts a split in one pass over its pngs, one video at a time, frames shared out among the cores.

    `gt`, `pred`, `videos` and errors are as in `read_vipseg_split`; after each video `watch` is told `name`, frames
    done, frames in all and true objects so far.
    """
    split = read_vipseg_split(gt, pred, videos)
    frames, done = sum(map(len, split.videos.values())), 0
    counts: dict[str, VipsegCounts] = {}
    objects: dict[str, Scores] = {}
    with ThreadPoolExecutor(count_usable_cores()) as pool:
        for video, files in split.videos.items():
            table = read_vipseg_video(files, split, pool)
            counts[video] = VipsegCounts.of(table, split.things)
            objects |= {f"{video}/{id}": row for id, row in build_tube_rows(table, split).items()}
            done += len(files)
            watch(name, done, frames, len(objects))
    first, *others = counts.values()
    return VipsegResult(split, sum(others, start=first), counts, objects)


def build_tube_rows(video: VideoTable, split: VipsegSplit) -> dict[int, Scores]:
    """Of every true tube but crowds: frames, those in which nothing matches it, and its best IoU over the video."""
    frames, whole = (compute_window_overlaps(video, list_deva_windows(video.length, k)) for k in (1, WHOLE))
    matched = np.zeros(frames.truth.category.shape, bool)
    w, pair = np.nonzero(frames.iou > MATCH)
    matched[w, video.pairs[pair, 0]] = True
    best = np.zeros(len(video.truth.ids))
    np.maximum.at(best, video.pairs[:, 0], whole.iou[0])
    ids, listed = list(split.categories), frames.truth.category != ABSENT
    return {
        int(video.truth.ids[n]): {
            "category": ids[whole.truth.category[0, n]],
            "frames": int(listed[:, n].sum()),
            "missed frames": int((listed & ~matched)[:, n].sum()),
            "IoU": float(best[n]),
        }
        for n in np.flatnonzero((whole.truth.category[0] != ABSENT) & ~whole.truth.crowd[0])
    }
