"""VIPSeg's panoptic form: <folder>/<video>/<frame>.png with id = R + 256 G + 65536 B, and a json of the segments.

No two segments share a pixel: things lie over stuff, and of each the smaller over the larger; a segment that is
hidden in a frame is not listed there. All stuff of one category in a video is one segment (`VideoIds`). What the form
cannot say: frames per second, how a mask came about. A masklet's score is written with each of its segments (merged
stuff: that of the first), and the mean of theirs is read; ground truth has none and scores 1. A masklet without a name
comes back as an "object".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, paint_mask_numbers
from masklet.core.tracks import Masklet, Sighting
from masklet.io.formats.json_entry import JsonEntry, Size, read_json_object
from masklet.io.formats.label_png import Page, encode_png, read_label_png
from masklet.io.formats.postprocess import FrameSegment, VideoIds
from masklet.io.formats.split import (
    DatasetSplit,
    ListedVideo,
    VideoObjects,
    build_video_result,
    find_category_id,
    index_categories,
    read_categories,
    resolve_frame_names,
)

FORM = "a panoptic json as of VIPSeg"
MODES = ("RGB",)
MOST = (1 << 24) - 1  # the highest id
WHAT = "a panoptic image with id = R + 256 G + 65536 B"


def write_panoptic(
    results: Sequence[VideoResult],
    folder: Path,
    names: Mapping[str, Sequence[str]] | None = None,
    categories: Mapping[int, str] | None = None,
) -> None:
    """Writes `results` into `folder`: pan_pred/<video>/<frame>.png, and pred.json with the videos and categories.

    `names` has, by video, the names of its frames without suffix, 00000 on where there are none. `categories` are
    id: name of the data set; without them the names of the results are numbered from 0. Raises InputError where an
    object's category is not among them, or its id not in 1 to 2^24 - 1, or two results have one name.
    """
    ids = {name: id for id, name in categories.items()} if categories else index_categories(results, first=0)
    DatasetSplit.of(str(folder), [ListedVideo(r.name) for r in results])
    stuff = {find_category_id(r, m, ids) for r in results for m in r.masklets if not m.is_thing}
    content: dict[str, list[Any]] = {
        "videos": [],
        "annotations": [],
        "categories": [{"id": id, "name": name, "isthing": int(id not in stuff)} for name, id in ids.items()],
    }
    for result in results:
        check_panoptic_ids(result)
    for result in results:
        frames = resolve_frame_names(result, (names or {}).get(result.name))
        (folder / "pan_pred" / result.name).mkdir(parents=True)
        annotation = PanopticVideo(result, frames, ids)
        for name, page in annotation.pages():
            (folder / "pan_pred" / result.name / name).write_bytes(page)
        content["videos"].append(_format_panoptic_video(result, frames))
        content["annotations"].append(annotation.listed())
    with write_atomically(folder / "pred.json") as file:
        file.write(json.dumps(content).encode())


def _format_panoptic_video(result: VideoResult, names: Sequence[str]) -> dict[str, Any]:
    h, w = result.size
    images = [{"id": f"{result.name}_{n}", "file_name": f"{n}.png", "width": w, "height": h} for n in names]
    return {"video_id": result.name, "images": images}


@dataclass
class PanopticVideo:
    """One video on its way out: first its pages, then the list of what was in them."""

    result: VideoResult
    names: Sequence[str]
    categories: Mapping[str, int]  # name: id
    _frames: list[dict[str, Any]] = field(default_factory=list)

    def pages(self) -> Iterator[tuple[str, bytes]]:
        """The name and the content of each frame's PNG file, in order."""
        ids = VideoIds()
        for frame, name in enumerate(self.names):
            page, segments = paint_panoptic_frame(self.result, frame, self.categories, ids)
            self._frames.append({"file_name": f"{name}.png", "segments_info": segments})
            rgb = np.stack([page >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
            yield f"{name}.png", encode_png(Image.fromarray(rgb))

    def listed(self) -> dict[str, Any]:
        """The video's entry in 'annotations', with the segments of the frames that `pages` has yielded."""
        return {"video_id": self.result.name, "annotations": self._frames}


def paint_panoptic_frame(
    result: VideoResult, frame: int, categories: Mapping[str, int], ids: VideoIds
) -> tuple[Page, list[dict[str, Any]]]:
    """The label image [h w] of one `frame` of a `result`, 0 where there is no segment, and its list of segments.

    `categories` are name: id; `ids` are the video's, to be used for all its frames in order. A segment has id,
    category_id, isthing, score and area in pixels. Raises InputError where a category is not among `categories`.
    """
    seen, page = result.at(frame), np.zeros(result.size, np.int32)
    listed: dict[int, dict[str, Any]] = {}
    for masklet, mask in (
        *_paint_panoptic_masks(seen, False, result.size),
        *_paint_panoptic_masks(seen, True, result.size),
    ):
        category = find_category_id(result, masklet, categories)
        id = ids.of(FrameSegment(masklet.id, category, masklet.is_thing))
        page[mask] = id
        listed.setdefault(
            id, {"id": id, "category_id": category, "isthing": int(masklet.is_thing), "score": masklet.score}
        )
    areas = dict(zip(*(v.tolist() for v in np.unique(page, return_counts=True)), strict=True))
    return page, [segment | {"area": areas[id]} for id, segment in listed.items() if id in areas]


def check_panoptic_ids(result: VideoResult) -> None:
    """Raises InputError where an object's id is not in 1 to 2^24 - 1, which is what three bytes hold."""
    wrong = next((m.id for m in result.masklets if not 1 <= m.id <= MOST), None)
    if wrong is not None:
        raise InputError(f"{result.name}: object {wrong} does not fit; panoptic ids are 1 to {MOST}")


def _paint_panoptic_masks(
    seen: Iterable[tuple[Masklet, Sighting]], is_thing: bool, size: Size
) -> list[tuple[Masklet, Any]]:
    chosen = [(m, s) for m, s in seen if m.is_thing == is_thing]
    numbers = paint_mask_numbers([s.mask for _, s in chosen], size)
    return [(m, numbers == n) for n, (m, _) in enumerate(chosen, start=1)]


def read_panoptic_split(path: Path) -> DatasetSplit:
    """The videos and categories of a panoptic json: of its lists, or, where it has none, those that occur.

    Raises InputError naming the entry that is malformed.
    """
    return _parse_panoptic_split(path, read_json_object(path, FORM))


def _parse_panoptic_split(path: Path, content: JsonEntry) -> DatasetSplit:
    if "videos" in content:
        videos = [_parse_panoptic_video(v, "images") for v in content.entries("videos")]
    else:
        videos = [_parse_panoptic_video(v, "annotations") for v in content.entries("annotations")]
    if "categories" in content:
        stuff = {c.whole("id") for c in content.entries("categories") if "isthing" in c and not c.whole("isthing")}
        return DatasetSplit.of(str(path), videos, read_categories(content), stuff)
    frames = [f for v in content.entries("annotations") for f in v.entries("annotations")]
    found = {s.whole("category_id") for f in frames for s in f.entries("segments_info")}
    return DatasetSplit.of(str(path), videos, {id: str(id) for id in found})


def _parse_panoptic_video(video: JsonEntry, key: str) -> ListedVideo:
    images, name = list(video.entries(key)), video.text("video_id")
    frames = tuple(PurePath(i.text("file_name")).stem for i in images)
    if not frames or len(set(frames)) < len(frames):
        raise video.wrong(f"video {name} has {len(set(frames))} different images in a list of {len(frames)}")
    sizes = {i.size() for i in images if "height" in i}
    if len(sizes) > 1:
        raise video.wrong(f"the images of video {name} differ in size; list those of one size")
    return ListedVideo(name, size=next(iter(sizes), None), frames=frames)


def read_panoptic(path: Path, pngs: Path, split: DatasetSplit | None = None) -> Iterator[VideoResult]:
    """The videos of the panoptic json `path`, one at a time; their images are <pngs>/<video>/<frame>.png.

    With the ground truth's `split` a prediction has that one's frames, also those that it leaves out. A segment whose
    id changes its category is a masklet for each category, the later ones under ids above all others. Crowd flags,
    areas and boxes are not read. Raises InputError naming the file and the entry: a segment without pixels or pixels
    without a segment, what is given twice, or not listed in the split.
    """
    content = read_json_object(path, FORM, "annotations")
    split = split or _parse_panoptic_split(path, content)
    annotations: dict[str, JsonEntry] = {}
    for video in content.entries("annotations"):
        name = video.text("video_id")
        if name in annotations or name not in split.videos:
            raise video.wrong(f"video {name} is {'given twice' if name in annotations else f'not in {split.label}'}")
        annotations[name] = video
    for listed in split.videos.values():
        yield _read_panoptic_video(path, pngs / listed.name, listed, annotations.get(listed.name), split)


def _read_panoptic_video(
    path: Path, folder: Path, listed: ListedVideo, video: JsonEntry | None, split: DatasetSplit
) -> VideoResult:
    frames, size, objects = listed.frames or (), listed.size, VideoObjects()
    pages = _index_panoptic_frames(video, frames) if video else {}
    names = _map_masklet_ids([s for page in pages.values() for s in page.entries("segments_info")])
    for frame, page in sorted(pages.items()):
        image = folder / f"{frames[frame]}.png"
        pixels = read_label_png(image, MODES, WHAT, size).astype(np.int32)
        size = pixels.shape[:2]
        _read_panoptic_frame(image, pixels @ np.array([1, 256, 65536], np.int32), page, frame, objects, split, names)
    if size is None:
        raise InputError(f"{path}: no image says the size of video {listed.name}; give the split's json too")
    return build_video_result(listed.name, size, len(frames), objects, split.names, path)


def _index_panoptic_frames(video: JsonEntry, frames: Sequence[str]) -> dict[int, JsonEntry]:
    """{frame index: its entry}; raises InputError where a frame is given twice or not one of `frames`."""
    at, found = {name: t for t, name in enumerate(frames)}, {}
    for page in video.entries("annotations"):
        name = PurePath(page.text("file_name")).stem
        if name not in at or at[name] in found:
            raise page.wrong(f"frame {name} is {'given twice' if name in at else 'not one of the video'}")
        found[at[name]] = page
    return found


def _map_masklet_ids(segments: Sequence[JsonEntry]) -> dict[tuple[int, int], int]:
    """{(segment id, category): masklet id}; an id that comes with a second category gets a free one for it."""
    pairs = dict.fromkeys((s.whole("id"), s.whole("category_id")) for s in segments)
    free = max((id for id, _ in pairs), default=0) + 1
    names: dict[tuple[int, int], int] = {}
    for id, category in pairs:
        new = id in names.values()
        names[id, category] = free if new else id
        free += new
    return names


def _read_panoptic_frame(
    image: Path,
    page: Page,
    listed: JsonEntry,
    frame: int,
    objects: VideoObjects,
    split: DatasetSplit,
    names: Mapping[tuple[int, int], int],
) -> None:
    segments: dict[int, JsonEntry] = {}
    for segment in listed.entries("segments_info"):
        id, category = segment.whole("id"), segment.whole("category_id")
        if id in segments or not id:
            raise segment.wrong(f"segment {id} is {'given twice' if id else 'void, which is no segment'}")
        if category not in split.categories:
            raise segment.wrong(f"segment {id}: category {category} is not in {split.label}")
        segments[id] = segment
    there = set(np.unique(page).tolist()) - {0}
    if there != segments.keys():
        odd = min(there ^ segments.keys())
        raise listed.wrong(f"segment {odd} is {'only in' if odd in there else 'not in'} the image {image}")
    for id, segment in segments.items():
        category = segment.whole("category_id")
        is_thing = bool(segment.whole("isthing")) if "isthing" in segment else category not in split.stuff
        name, score = names[id, category], segment.number("score", 1.0)
        objects.add(name, frame, Rle.encode_pixels(page == id), score, split.labels[category], is_thing)
