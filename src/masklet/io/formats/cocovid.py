"""COCO-VID's form: COCO's images and annotations, with the video and frame of an image and the instance of a mask.

What it cannot say: things and stuff, frames per second, how a mask came about. A masklet's score is written with each
of its annotations, and the mean of theirs is read; ground truth has none and scores 1. A masklet without a name comes
back as an "object".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from masklet.core.files import write_atomically
from masklet.core.limits import MOST_FRAMES, check_whole_number
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.io.formats.json_entry import JsonEntry, Size, format_coco_rle, parse_coco_mask, read_json_object
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

COCOVID = "a COCO-VID json"


def write_cocovid(results: Sequence[VideoResult], path: Path, names: Mapping[str, Sequence[str]] | None = None) -> None:
    """Writes `results` to the json file `path`, with videos, images, categories and annotations numbered from 1.

    `names` has, by video, the names of its frames without suffix, 00000 on where there are none. 'instance_id' is the
    masklet's id, unique in its video. Raises InputError where two results have one name, or a video's frames not one
    each.
    """
    DatasetSplit.of(str(path), [ListedVideo(r.name) for r in results])
    ids = index_categories(results)
    images = [(n, r, t) for n, r in enumerate(results, start=1) for t in range(r.length)]
    files = [f"{r.name}/{name}.jpg" for r in results for name in resolve_frame_names(r, (names or {}).get(r.name))]
    numbers = count(1)
    content = {
        "videos": [{"id": n, "name": r.name} for n, r in enumerate(results, start=1)],
        "categories": [{"id": id, "name": name} for name, id in ids.items()],
        "images": [
            {"id": i, "video_id": n, "frame_id": t, "file_name": file, "height": r.size[0], "width": r.size[1]}
            for i, ((n, r, t), file) in enumerate(zip(images, files, strict=True), start=1)
        ],
        "annotations": [
            {"id": next(numbers), "image_id": i, "video_id": n, **annotation}
            for i, (n, r, t) in enumerate(images, start=1)
            for annotation in _format_cocovid_annotations(r, t, ids)
        ],
    }
    with write_atomically(path) as file:
        file.write(json.dumps(content).encode())


def _format_cocovid_annotations(result: VideoResult, frame: int, ids: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for masklet, sighting in result.at(frame):
        yield {
            "instance_id": masklet.id,
            "category_id": find_category_id(result, masklet, ids),
            "score": masklet.score,
            "iscrowd": 0,
            "area": sighting.mask.area,
            "bbox": compute_coco_box(sighting.mask),
            "segmentation": format_coco_rle(sighting.mask),
        }


def compute_coco_box(mask: Rle) -> list[int]:
    """The box of a mask as COCO has it: x, y, width and height in pixels."""
    x0, y0, x1, y1 = mask.box
    return [x0, y0, x1 - x0, y1 - y0]


@dataclass
class _CocovidVideo:
    """One video while the file is read."""

    name: str
    size: Size | None = None
    frames: set[int] = field(default_factory=set)
    objects: VideoObjects = field(default_factory=VideoObjects)


def read_cocovid(path: Path) -> list[VideoResult]:
    """The videos of a file, frame by 'frame_id' (from 0), object by 'instance_id' or 'track_id'.

    Crowd flags and boxes are not read; a video without an image is left out, as nothing says its size. Raises
    InputError naming the entry that is malformed, given twice, or of an image, video or category that is not listed.
    """
    content = read_json_object(path, COCOVID, "videos", "images", "annotations", "categories")
    categories = read_categories(content)
    split = DatasetSplit.of(
        str(path), [ListedVideo(v.text("name"), v.whole("id")) for v in content.entries("videos")], categories
    )
    videos = {v.id: _CocovidVideo(v.name) for v in split.videos.values()}
    images: dict[int, tuple[_CocovidVideo, int]] = {}
    for image in content.entries("images"):
        id = image.whole("id")
        if id in images:
            raise image.wrong(f"the image id {id} is given twice; keep one of them")
        images[id] = _read_cocovid_image(image, videos.get(image.whole("video_id")))
    for annotation in content.entries("annotations"):
        _read_cocovid_annotation(annotation, images, split)
    found = [v for v in videos.values() if v.size is not None]
    return [
        build_video_result(v.name, v.size, max(v.frames) + 1, v.objects, split.names, path) for v in found if v.size
    ]


def _read_cocovid_image(image: JsonEntry, video: _CocovidVideo | None) -> tuple[_CocovidVideo, int]:
    frame, size = check_whole_number(image.where, "'frame_id'", image.get("frame_id"), MOST_FRAMES - 1), image.size()
    if video is None:
        raise image.wrong(f"video {image.get('video_id')} is not in 'videos'")
    if frame in video.frames:
        raise image.wrong(f"frame {frame} of {video.name} is given twice; keep one of them")
    if video.size not in (None, size):
        raise image.wrong(f"frame {frame} of {video.name} is {size} (height, width), earlier ones {video.size}")
    video.frames.add(frame)
    video.size = size
    return video, frame


def _read_cocovid_annotation(
    annotation: JsonEntry, images: Mapping[int, tuple[_CocovidVideo, int]], split: DatasetSplit
) -> None:
    image, category = annotation.whole("image_id"), annotation.whole("category_id")
    if image not in images:
        raise annotation.wrong(f"image {image} is not in 'images'")
    if category not in split.categories:
        raise annotation.wrong(f"category {category} is not in 'categories'")
    video, frame = images[image]
    id = annotation.whole("instance_id" if "instance_id" in annotation else "track_id")
    place = f"{video.name}, frame {frame}, object {id}"
    size = video.size or (0, 0)
    mask = parse_coco_mask(f"{annotation.where}: {place}", annotation.get("segmentation"), size)
    label = split.labels[category]
    if not video.objects.add(id, frame, mask, annotation.number("score", 1.0), label):
        raise annotation.wrong(f"{place} is given twice; keep one of them")
    if video.objects.labels[id] != label:
        raise annotation.wrong(f"{place} is of category {category}, and of another in an earlier frame")
