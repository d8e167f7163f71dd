"""YouTube-VIS's and OVIS's forms: one entry per object with a mask or null for every frame.

The results form is a list of objects; the ground truth form lists videos and categories too. What neither can say:
frames per second, things and stuff, a score per frame, how a mask came about; an empty mask is as good as null, and
an object without any pixel is left out on reading. Results name no objects, so they are counted from 1 in each video.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.limits import check_frame_size, quote_value
from masklet.core.result import VideoResult
from masklet.core.rle import decode_rle_counts
from masklet.core.tracks import Masklet
from masklet.io.formats.json_entry import (
    JsonEntry,
    format_coco_rle,
    parse_coco_mask,
    read_json_file,
    read_json_object,
)
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

TRUTH = "a ground truth json of YouTube-VIS or OVIS"
RESULTS = "a results json of YouTube-VIS or OVIS"


def write_ytvis(results: Sequence[VideoResult], path: Path, split: DatasetSplit | None = None) -> None:
    """Writes `results` to the json file `path` with the `split`'s ids of videos and categories, looked up by name.

    Without a split, video_id and category_id count from 1, in the order of the results and categories. Raises
    InputError naming the video or category that the split does not have.
    """
    numbered = (format_ytvis_entry(r, m, n) for n, r in enumerate(results, start=1) for m in r.masklets)
    entries = [e for r in results for e in format_split_entries(r, split)] if split else list(numbered)
    with write_atomically(path) as file:
        file.write(json.dumps(entries).encode())


def format_ytvis_entry(result: VideoResult, masklet: Masklet, video_id: int) -> dict[str, Any]:
    """The results entry of one `masklet` of a `result`, with this `video_id` and the category numbered from 1.

    A masklet without a name is of the first category. The entry has an RLE, or None, for every frame.
    """
    return _format_masklet_entry(result, masklet, video_id, max(masklet.label, 0) + 1)


def format_split_entries(result: VideoResult, split: DatasetSplit) -> Iterator[dict[str, Any]]:
    """The objects of one video with the split's ids of the video and the categories, looked up by name.

    Raises InputError naming the video or category that the split does not have.
    """
    if result.name not in split.videos:
        raise InputError(f"{result.name}: no video of {split.label}; leave it out")
    listed, ids = split.videos[result.name], split.category_ids
    for masklet in result.masklets:
        yield _format_masklet_entry(result, masklet, listed.id, find_category_id(result, masklet, ids))


def _format_masklet_entry(
    result: VideoResult, masklet: Masklet, video_id: int | str | None, category: int
) -> dict[str, Any]:
    seen = masklet.sightings
    return {
        "video_id": video_id,
        "category_id": category,
        "score": masklet.score,
        "segmentations": [format_coco_rle(seen[t].mask) if t in seen else None for t in range(result.length)],
    }


def write_ytvis_truth(
    results: Sequence[VideoResult], path: Path, names: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Writes `results` as ground truth to the json file `path`; videos, categories and objects count from 1, in order.

    `names` has, by video, the names of its frames without suffix, 00000 on where there are none. Scores are lost. Run
    lengths are lists, as in the official files: some tools (TrackEval) read no others there.
    Raises InputError where two results have one name, or a video's frames not one name each.
    """
    ids = index_categories(results)
    objects = [(n, r, m) for n, r in enumerate(results, start=1) for m in r.masklets]
    content = {
        "videos": [
            _format_ytvis_video(n, r, resolve_frame_names(r, (names or {}).get(r.name)))
            for n, r in enumerate(results, start=1)
        ],
        "categories": [{"id": id, "name": name} for name, id in ids.items()],
        "annotations": [
            {"id": id, **_format_ytvis_annotation(r, m, n, find_category_id(r, m, ids))}
            for id, (n, r, m) in enumerate(objects, start=1)
        ],
    }
    DatasetSplit.of(str(path), [ListedVideo(r.name, n) for n, r in enumerate(results, start=1)])
    with write_atomically(path) as file:
        file.write(json.dumps(content).encode())


def _format_ytvis_video(id: int, result: VideoResult, names: Sequence[str]) -> dict[str, Any]:
    h, w = result.size
    files = [f"{result.name}/{name}.jpg" for name in names]
    return {"id": id, "height": h, "width": w, "length": result.length, "file_names": files}


def _format_ytvis_annotation(result: VideoResult, masklet: Masklet, video_id: int, category: int) -> dict[str, Any]:
    frames = [masklet.sightings.get(t) for t in range(result.length)]
    boxes = [s.mask.box if s else None for s in frames]
    made = _format_masklet_entry(result, masklet, video_id, category)
    del made["score"]
    h, w = result.size
    return made | {
        "segmentations": [
            {"size": [h, w], "counts": decode_rle_counts(s.mask.counts).tolist()} if s else None for s in frames
        ],
        "height": h,
        "width": w,
        "length": result.length,
        "iscrowd": 0,
        "areas": [s.mask.area if s else None for s in frames],
        "bboxes": [[b[0], b[1], b[2] - b[0], b[3] - b[1]] if b else None for b in boxes],
    }


def read_ytvis_split(path: Path) -> DatasetSplit:
    """The videos and categories of a ground truth file; also of one without annotations, as of validation splits.

    A video is called after the folder of its frames. Raises InputError naming the entry that is malformed.
    """
    content = read_json_object(path, TRUTH, "videos", "categories")
    return _parse_ytvis_split(path, content)


def _parse_ytvis_split(path: Path, content: JsonEntry) -> DatasetSplit:
    return DatasetSplit.of(str(path), map(_parse_ytvis_video, content.entries("videos")), read_categories(content))


def _parse_ytvis_video(video: JsonEntry) -> ListedVideo:
    files = [PurePosixPath(f) for f in video.texts("file_names")]
    if not files or ("length" in video and video.whole("length") != len(files)):
        raise video.wrong(f"{len(files)} file_names for a length of {video.content.get('length')}")
    name = files[0].parent.name or str(video.whole("id"))
    return ListedVideo(name, video.whole("id"), video.size(), tuple(f.stem for f in files))


def read_ytvis_truth(path: Path) -> list[VideoResult]:
    """The videos of a ground truth file, objects under their annotation's id, all of score 1.

    Crowd flags, areas, boxes and occlusion levels are not read. Raises InputError naming the file and the entry that
    is malformed, given twice, or of a video or category that is not listed.
    """
    content = read_json_object(path, TRUTH, "videos", "categories", "annotations")
    split, ids = _parse_ytvis_split(path, content), set()
    objects = {v.id: VideoObjects() for v in split.videos.values()}
    for annotation in content.entries("annotations"):
        id = annotation.whole("id")
        if id in ids:
            raise annotation.wrong(f"the annotation id {id} is given twice; keep one of them")
        ids.add(id)
        _read_ytvis_object(annotation, split, objects, id, 1.0)
    return _build_ytvis_results(path, split, objects)


def read_ytvis(path: Path, split: DatasetSplit | None = None) -> list[VideoResult]:
    """The videos of a results file: all of the `split`, also those without an object.

    Without a split, those that occur, called by their ids, and categories likewise; at the length and size of the
    masks. Raises InputError naming the file and the entry that is malformed or not of the split.
    """
    content = read_json_file(path, RESULTS)
    if not isinstance(content, list):
        raise InputError(f"{path}: holds no list of objects, so it is not {RESULTS}")
    entries = [JsonEntry(f"{path}: [{n}]", item) for n, item in enumerate(content)]
    split = split or _infer_ytvis_split(path, entries)
    objects = {v.id: VideoObjects() for v in split.videos.values()}
    for found in entries:
        known = objects.get(found.whole("video_id"))
        _read_ytvis_object(found, split, objects, len(known.masks) + 1 if known else 0, found.number("score"))
    return _build_ytvis_results(path, split, objects)


def _infer_ytvis_split(path: Path, entries: Iterable[JsonEntry]) -> DatasetSplit:
    videos: dict[int, ListedVideo] = {}
    for found in entries:
        id, masks = found.whole("video_id"), found.items("segmentations")
        size = next((_parse_mask_size(found, m) for m in masks if isinstance(m, dict)), None)
        if id not in videos or videos[id].size is None:
            videos[id] = ListedVideo(str(id), id, size, tuple(f"{t:05d}" for t in range(len(masks))))
    nowhere = next((v.id for v in videos.values() if v.size is None), None)
    if nowhere is not None:
        raise InputError(f"{path}: video {nowhere} has no mask that says its size; give the split's json too")
    categories = {found.whole("category_id") for found in entries}
    return DatasetSplit.of(str(path), videos.values(), {id: str(id) for id in categories})


def _parse_mask_size(found: JsonEntry, mask: dict[str, Any]) -> tuple[int, int]:
    size = mask.get("size")
    if not isinstance(size, list) or len(size) != 2:
        raise found.wrong(f"a mask's 'size' must be its height and width, not {quote_value(size)}")
    return check_frame_size(f"{found.where}: a mask", *size)


def _read_ytvis_object(
    found: JsonEntry, split: DatasetSplit, objects: Mapping[int | str | None, VideoObjects], id: int, score: float
) -> None:
    """Adds the masks of one entry, as object `id`, to its video's objects."""
    video_id, category, masks = found.whole("video_id"), found.whole("category_id"), found.items("segmentations")
    listed = next((v for v in split.videos.values() if v.id == video_id), None)
    if listed is None or listed.frames is None or listed.size is None:
        raise found.wrong(f"video {video_id} is not in {split.label}")
    if category not in split.categories:
        raise found.wrong(f"video {video_id}: category {category} is not in {split.label}")
    if len(masks) != len(listed.frames):
        raise found.wrong(f"video {video_id}: {len(masks)} segmentations for {len(listed.frames)} frames")
    objects[video_id].masks[id] = {}
    for frame, shape in enumerate(masks):
        if shape is not None:
            mask = parse_coco_mask(f"{found.where}: video {video_id}, frame {frame}", shape, listed.size)
            objects[video_id].add(id, frame, mask, score, split.labels[category])


def _build_ytvis_results(
    path: Path, split: DatasetSplit, objects: Mapping[int | str | None, VideoObjects]
) -> list[VideoResult]:
    return [
        build_video_result(v.name, v.size, len(v.frames), objects[v.id], split.names, path)
        for v in split.videos.values()
        if v.size is not None and v.frames is not None
    ]
