"""Files in VIPSeg's layout, read and counted as VPQ and STQ need it.

gt/panoptic_gt.json, gt/panomasksRGB/<video>/<frame>.png; pred/pred.json, pred/pan_pred/<video>/<frame>.png. A pixel
(R, G, B) belongs to the segment R + 256 G + 65536 B. Every png is read once, one video at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.protocols import Watch
from masklet.evaluate.panoptic import (
    MATCH,
    WHOLE,
    WINDOWS,
    PanopticCounts,
    StqCounts,
    deva_windows,
    overlaps,
    stq_counts,
    vipseg_windows,
    window_counts,
)
from masklet.evaluate.report import Scores
from masklet.evaluate.segments import ABSENT, VOID, Frame, IdMap, Segment, VideoTable, shared_pixels
from masklet.evaluate.workers import cores, in_order, silent
from masklet.io.entry import Entry, read_object

GT_FORM = "VIPSeg's panoptic_gt.json with 'annotations' and 'categories'"
PRED_FORM = "a pred.json with 'annotations', as VIPSeg's evaluation reads it"


@dataclass(frozen=True)
class FrameFiles:
    """One frame on both sides: its entry in the JSON and its png."""

    truth: Entry
    truth_png: Path
    found: Entry
    found_png: Path


@dataclass
class Split:
    """What the two JSON files list; `notes` counts what the official programs accept in silence."""

    categories: Mapping[int, int]  # id: place
    names: Sequence[str]
    things: Bool[np.ndarray, " c"]
    videos: Mapping[str, Sequence[FrameFiles]]
    inputs: tuple[Path, ...]
    notes: Counter[str] = field(default_factory=Counter)


def read_split(gt: Path, pred: Path, videos: Collection[str] | None = None) -> Split:
    """The frames to compare, all or of some videos. Raises InputError where a file is not of its form, or where a
    video or a frame has no prediction."""
    truth_file = read_object(gt / "panoptic_gt.json", GT_FORM, "annotations", "categories")
    found_file = read_object(pred / "pred.json", PRED_FORM, "annotations")
    truth, found = _by_video(truth_file), _by_video(found_file)
    wanted = list(truth) if videos is None else [name for name in truth if name in videos]
    if unknown := set(videos or ()) - truth.keys():
        raise InputError(f"{truth_file.where}: no video {_some(unknown)}; it has {_some(truth)}")
    if missing := set(wanted) - found.keys():
        raise InputError(f"{found_file.where}: no video {_some(missing)}; predict it, or name the videos to score")
    paired = {name: list(_pair(gt, pred, name, truth[name], found[name])) for name in wanted}
    if not any(paired.values()):
        raise InputError(f"{truth_file.where}: no frame in any video; nothing can be scored")
    inputs = (gt / "panoptic_gt.json", gt / "panomasksRGB", pred / "pred.json", pred / "pan_pred")
    split = Split(*_categories(truth_file), {name: frames for name, frames in paired.items() if frames}, inputs)
    split.notes["predicted videos without ground truth: ignored"] += len(found.keys() - truth.keys())
    spare = sum(len(found[name]) - len(paired[name]) for name in wanted)
    split.notes["predicted frames without ground truth: ignored"] += spare
    return split


def _by_video(file: Entry) -> dict[str, dict[str, Entry]]:
    """Video: frame (its file's name without suffix): entry. Raises InputError where one is listed twice."""
    videos: dict[str, dict[str, Entry]] = {}
    for video in file.entries("annotations"):
        listed = list(video.entries("annotations"))
        frames = {Path(frame.text("file_name")).stem: frame for frame in listed}
        if len(frames) < len(listed):
            raise video.wrong("a frame is listed twice; keep one of them")
        if str(video.get("video_id")) in videos:
            raise video.wrong(f"the video {video.get('video_id')!r} is listed twice; keep one of them")
        videos[str(video.get("video_id"))] = frames
    return videos


def _pair(
    gt: Path, pred: Path, video: str, truth: Mapping[str, Entry], found: Mapping[str, Entry]
) -> Iterator[FrameFiles]:
    if missing := truth.keys() - found.keys():
        raise InputError(f"{pred / 'pred.json'}: video {video} has no frame {_some(missing)}; predict it too")
    for name, entry in truth.items():
        png = Path(video) / f"{name}.png"
        yield FrameFiles(entry, gt / "panomasksRGB" / png, found[name], pred / "pan_pred" / png)


def _categories(file: Entry) -> tuple[dict[int, int], list[str], Bool[np.ndarray, " c"]]:
    listed = list(file.entries("categories"))
    places = {category.whole("id"): n for n, category in enumerate(listed)}
    if len(places) < len(listed):
        raise InputError(f"{file.where}: a category's id is given twice; keep one of them")
    names = [f"{c.whole('id')} {c.content.get('name', '')}".rstrip() for c in listed]
    return places, names, np.array([c.whole("isthing") != 0 for c in listed], bool)


def _some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_ids(path: Path) -> IdMap:
    """A panoptic png's ids. Raises InputError where it cannot be read or is not of three colours."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA"):
                raise InputError(f"{path}: a png of mode {image.mode}; ids are colours, so it must be RGB")
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's words for a damaged file
        raise InputError(f"{path}: cannot be read ({error})") from None
    return (pixels.view("<u4")[..., 0] & 0xFFFFFF).astype(np.int32)


def read_frame(files: FrameFiles, split: Split) -> Frame:
    """One frame of both sides.

    Raises InputError where the sizes differ, a category is not listed, or a prediction's png and list disagree.
    """
    truth, found = read_ids(files.truth_png), read_ids(files.found_png)
    if truth.shape != found.shape:
        raise InputError(f"{files.found_png}: {found.shape} pixels (h, w), the ground truth has {truth.shape}")
    pairs, pixels = shared_pixels(truth, found)
    listed = _segments(files.truth, split.categories, areas=True), _segments(files.found, split.categories, areas=False)
    drawn, there = set(pairs[:, 1].tolist()), listed[1].keys()
    if wrong := sorted((drawn - there - {VOID}) | (there - drawn)):
        where = "the list but not in the png" if wrong[0] in there else "the png but not in the list"
        raise files.found.wrong(f"segment {wrong[0]} is in {where} {files.found_png}; make them agree")
    return Frame(pairs, pixels, *listed)


def _segments(frame: Entry, categories: Mapping[int, int], areas: bool) -> dict[int, Segment]:
    """A frame's list. Only the ground truth's areas and crowds count."""
    segments: dict[int, Segment] = {}
    for entry in frame.entries("segments_info"):
        id, category = entry.whole("id"), entry.whole("category_id")
        if category not in categories or id in segments:
            raise entry.wrong(f"segment {id}: " + ("is listed twice" if id in segments else f"no category {category}"))
        crowd = areas and entry.content.get("iscrowd", 0) == 1
        segments[id] = Segment(categories[category], entry.whole("area") if areas else 0, crowd)
    return segments


def read_video(frames: Sequence[FrameFiles], split: Split, pool: ThreadPoolExecutor) -> VideoTable:
    """A video's table, frame by frame. Raises InputError as `read_frame`."""
    tables = list(in_order(pool, lambda files: read_frame(files, split), frames, ahead=2 * cores()))
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
class Counts:
    """All that is counted in a video or a split; counts of parts add up to those of the whole."""

    deva: Mapping[int, PanopticCounts]  # by the window's frames; a shorter video is one window
    vipseg: Mapping[int, PanopticCounts]  # a shorter video has no window
    stq: StqCounts  # as the official program, which takes the segment that is listed first for a crowd
    defined: StqCounts  # as the paper, without that crowd
    short: Mapping[int, int]  # videos with fewer frames than the window

    @staticmethod
    def of(video: VideoTable, things: Bool[np.ndarray, " c"]) -> Counts:
        """Those of one video."""
        short = {k: int(k != WHOLE and video.length < k) for k in WINDOWS}
        deva = {k: window_counts(video, deva_windows(video.length, k), len(things)) for k in WINDOWS}
        vipseg = {
            k: deva[k] if vipseg_windows(video.length, k)[0] else PanopticCounts.none(len(things)) for k in WINDOWS
        }
        return Counts(deva, vipseg, stq_counts(video, things), stq_counts(video, things, crowds=()), short)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            {k: self.deva[k] + other.deva[k] for k in WINDOWS},
            {k: self.vipseg[k] + other.vipseg[k] for k in WINDOWS},
            self.stq + other.stq,
            self.defined + other.defined,
            {k: self.short[k] + other.short[k] for k in WINDOWS},
        )


@dataclass(frozen=True)
class Result:
    """A split's counts, and those of its videos and objects as a report shows them."""

    split: Split
    total: Counts
    videos: Mapping[str, Counts]
    objects: Mapping[str, Scores]


def count(
    gt: Path, pred: Path, *, videos: Collection[str] | None = None, watch: Watch = silent, name: str = "vipseg"
) -> Result:
    """Counts a split in one pass over its pngs, one video at a time, frames shared out among the cores."""
    split = read_split(gt, pred, videos)
    frames, done = sum(map(len, split.videos.values())), 0
    counts: dict[str, Counts] = {}
    objects: dict[str, Scores] = {}
    with ThreadPoolExecutor(cores()) as pool:
        for video, files in split.videos.items():
            table = read_video(files, split, pool)
            counts[video] = Counts.of(table, split.things)
            objects |= {f"{video}/{id}": row for id, row in object_rows(table, split).items()}
            done += len(files)
            watch(name, done, frames, len(objects))
    first, *others = counts.values()
    return Result(split, sum(others, start=first), counts, objects)


def object_rows(video: VideoTable, split: Split) -> dict[int, Scores]:
    """Of every true tube but crowds: frames, those in which nothing matches it, and its best IoU over the video."""
    frames, whole = (overlaps(video, deva_windows(video.length, k)) for k in (1, WHOLE))
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
