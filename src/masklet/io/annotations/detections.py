"""Detections made elsewhere, in whatever form they come: a `DetectionSet`, each entry with the frame it means."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from masklet.core.annotations import DetectionSet, FoundObject, FrameEntry, FramePlace, Size, drop_suffix
from masklet.core.errors import InputError
from masklet.core.files import read_bytes, read_text
from masklet.core.image_files import read_image_size
from masklet.core.instances import NAMELESS
from masklet.core.limits import check_number, is_finite_number, is_whole_number, parse_whole_number, quote_value
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, merge_rles
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.annotations.array_masks import read_array_names, read_array_objects, read_array_size
from masklet.io.annotations.label_image import (
    ALPHA,
    DECLARATION,
    IDS,
    LabelImage,
    read_declared_meaning,
    read_label_image,
)
from masklet.io.annotations.tools import (
    is_label_studio,
    read_cvat,
    read_label_studio,
    read_mot,
    read_parquet,
    read_tar,
)
from masklet.io.formats.burst import read_burst
from masklet.io.formats.json_entry import JsonEntry, parse_coco_mask, read_json_file
from masklet.io.formats.mots import NUMBERED, read_mots
from masklet.io.formats.panoptic import read_panoptic
from masklet.io.formats.ytvis import read_ytvis, read_ytvis_truth
from masklet.io.video.alpha import iterate_opaque_masks
from masklet.io.video.frame_source import format_size
from masklet.io.video.sources import make_natural_key

RESULT, RECIPE = "masklets.json", "recipe.json"  # as a run writes them
FORM = (
    "a json of detections (COCO, COCO-VID, YouTube-VIS, BURST, LabelMe, Label Studio, masklets.json), CVAT's xml, or a "
    "folder of label images"
)
LIST_KEYS = ("annotations", "detections", "predictions", "results")  # of an object, that hold its detections
NAME_KEYS = ("file_name", "filename", "image_name", "image")  # of a frame's file, in an entry
FRAME_KEYS = ("frame", "frame_index", "frame_id")  # numbers from 0, in an entry or in its image


def read_detections(path: Path) -> DetectionSet:
    """What a file or folder says of objects in frames.

    Args:
        path: of a json file (COCO results, with `images` or without, COCO-VID, YouTube-VIS results or truth, BURST,
            LabelMe, Label Studio, masklets.json), CVAT's xml, a MOTS or MOT txt, a parquet or tar of `masklet export`,
            a mov or webm of an object that is cut out; or of a folder of label images (also with DEVA's json beside
            them), of LabelMe's jsons or of Ultralytics' txts, a file a frame, or with a folder of these for each video;
            or of a folder of such movs or webms, one an object.

    Raises:
        InputError: it is none of these, or an entry is malformed; the file and the entry are named.
    """
    if path.is_dir():
        return read_detection_folder(path)
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return read_cutout_videos(path, [path])
    if suffix in TOOLS:
        return TOOLS[suffix](path, compute_named_hash(path))
    if suffix == ".txt":
        lines = _read_lines(path)
        if not lines or "," in lines[0]:  # a video without detections has no line
            return read_mot(path, lines, compute_named_hash(path))
        return describe_results(path, [read_mots(path, NUMBERED)])
    return read_detection_json(path)


VIDEOS = (".mov", ".webm")  # of objects that are cut out
TOOLS = {".xml": read_cvat, ".parquet": read_parquet, ".tar": read_tar}  # by suffix


def compute_named_hash(path: Path) -> dict[str, str]:
    """{name: sha256} of a file."""
    return {path.name: hashlib.sha256(read_bytes(path, FORM)).hexdigest()}


# -- results


def describe_results(path: Path, results: Sequence[VideoResult]) -> DetectionSet:
    """The masks of results as detections, with their names and scores: that of a detection in its frame, elsewhere the
    object's.
    """
    names = tuple(dict.fromkeys(r.name_of(m) for r in results for m in r.masklets))
    entries = [
        FrameEntry(
            FramePlace(r.name, t),
            partial(_take_mask, f"{path}: {r.name}, frame {t}", s.mask, find_score(m, s), label),
            partial(getattr, s.mask, "size"),
        )
        for r in results
        for m in r.masklets
        for label in [names.index(r.name_of(m))]
        for t, s in m.sightings.items()
    ]
    listed = [FramePlace(r.name, t) for r in results for t in range(r.length)]
    things = {r.name_of(m) for r in results for m in r.masklets if m.is_thing}
    stuff = tuple(name for name in names if name not in things)
    return DetectionSet(str(path), names, entries, listed, compute_named_hash(path), stuff)


def find_score(masklet: Masklet, sighting: Sighting) -> float:
    """How sure a `sighting` of a `masklet` is as a detection, 0 to 1."""
    return sighting.score if sighting.source is Source.DETECTED else masklet.score


def _take_mask(where: str, mask: Rle, score: float, label: int, size: Size) -> Sequence[FoundObject]:
    if mask.size != size:
        raise InputError(f"{where}: the mask is {format_size(mask.size)}, the video {format_size(size)}")
    return [FoundObject(score, label, mask)]


# -- json


def read_detection_json(path: Path) -> DetectionSet:
    """A json file of detections, in the form that its content shows."""
    content = read_json_file(path, FORM)
    if isinstance(content, dict):
        if str(content.get("format", "")).startswith("masklet/"):
            return describe_results(path, [VideoResult.load(path)])
        if "sequences" in content:
            return describe_results(path, read_burst(path))
        if "shapes" in content:
            return read_labelme_files(path, [path])
        entries = content.get("annotations")
        if isinstance(entries, list) and any(isinstance(e, dict) and "segmentations" in e for e in entries):
            return describe_results(path, read_ytvis_truth(path))
    if is_label_studio(content):
        return read_label_studio(path, content, compute_named_hash(path))
    if isinstance(content, list) and any(isinstance(e, dict) and "segmentations" in e for e in content):
        found = describe_results(path, read_ytvis(path))
        return found if len({p.video for p in found.listed}) > 1 else _forget_video(found)
    return read_coco_detections(path, content)


def _forget_video(found: DetectionSet) -> DetectionSet:
    """Without the video's name, which is only a number there."""
    entries = [FrameEntry(FramePlace(index=e.place.index), e.read, e.measure) for e in found.entries]
    listed = [FramePlace(index=p.index) for p in found.listed]
    return replace(found, entries=entries, listed=listed)


def read_coco_detections(path: Path, content: Any) -> DetectionSet:
    """COCO's forms: a list of results, or an object with `annotations` and, maybe, `images`, `videos`, `categories`."""
    given = list_given_detections(content)
    if given is None:
        raise InputError(f"{path}: neither a list of detections nor an object with 'annotations'; give {FORM}")
    entries = [JsonEntry(f"{path}: entry {n}", e) for n, e in enumerate(given)]
    for entry in entries:
        check_detection(entry)
    whole = JsonEntry(str(path), content if isinstance(content, dict) else {})
    names, images, sizes = read_category_names(whole), read_image_places(whole), read_image_sizes(whole)
    known = sorted({*names, *(entry.whole("category_id") for entry in entries)})
    places = tell_videos_apart(entries, [find_entry_place(entry, images) for entry in entries])
    found = [
        FrameEntry(
            place,
            partial(_read_coco_entry, entry, known.index(entry.whole("category_id"))),
            tell_size(find_coco_size(entry, sizes)),
        )
        for place, entry in zip(places, entries, strict=True)
    ]
    listed = list(images.values()) or places
    stuff = read_stuff_ids(whole)
    return DetectionSet(
        str(path),
        tuple(names.get(id, str(id)) for id in known),
        found,
        listed,
        compute_named_hash(path),
        tuple(names[id] for id in known if id in stuff),
    )


def tell_videos_apart(entries: Sequence[JsonEntry], places: Sequence[FramePlace]) -> list[FramePlace]:
    """The `places` of `entries`, with the ids of their videos for names where these are several and nothing else says
    which they are.
    """
    ids = [entry.content.get("video_id") for entry in entries]
    if len({str(id) for id in ids}) < 2:
        return list(places)
    return [
        p if p.video is not None or id is None else replace(p, video=str(id)) for p, id in zip(places, ids, strict=True)
    ]


def list_given_detections(content: Any) -> list[Any] | None:
    """The detections in the content of a json: of a list, of an object that holds one, or of an object with a list for
    each frame by its number or its file's name; None where it is none of these.
    """
    if not isinstance(content, dict):
        return content if isinstance(content, list) else None
    for key in LIST_KEYS:
        if isinstance(content.get(key), list):
            return list(content[key])
    lists = [(str(name), one) for name, one in content.items() if isinstance(one, list)]
    if not lists or len(lists) < len(content) or not all(isinstance(e, dict) for _, one in lists for e in one):
        return None
    if any(key in e for _, one in lists for e in one for key in (*FRAME_KEYS, *NAME_KEYS, "image_id")):
        return None  # then the names are of something else
    return [{**e, ("frame" if name.isdecimal() else "file_name"): name} for name, one in lists for e in one]


def check_detection(entry: JsonEntry) -> None:
    """Raises InputError where an entry has no category, a score that is none, or neither a mask nor a box."""
    if not isinstance(entry.content, dict):
        raise InputError(f"{entry.where}: not an object but {type(entry.content).__name__}")
    category = entry.content.get("category_id")
    if not is_count(category):
        raise InputError(f"{entry.where}: 'category_id' must be a whole number from 0, not {category!r:.40}")
    score = entry.content.get("score", 1.0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{entry.where}: 'score' must be a number from 0 to 1, not {score!r:.40}")
    if not entry.content.get("segmentation") and entry.content.get("bbox") is None:
        raise InputError(f"{entry.where}: neither 'segmentation' nor 'bbox'; give a mask or a box")


def is_count(value: Any) -> bool:
    """Whether a JSON value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_category_names(content: JsonEntry) -> dict[int, str]:
    """The names of the categories by their ids. Raises InputError naming the one that is malformed."""
    given = content.content.get("categories") or []
    names: dict[int, str] = {}
    for n, category in enumerate(given if isinstance(given, list) else [given]):
        if not isinstance(category, dict) or not is_count(category.get("id")) or "name" not in category:
            raise InputError(f"{content.where}: category {n}: must be an object with 'id', a whole number, and 'name'")
        names[category["id"]] = str(category["name"])
    return names


def read_stuff_ids(content: JsonEntry) -> frozenset[int]:
    """The ids of the categories that are no things, by their `isthing`."""
    if not content.content.get("categories"):
        return frozenset()
    return frozenset(c.whole("id") for c in content.entries("categories") if not is_thing(c))


def read_image_places(content: JsonEntry) -> dict[Any, FramePlace]:
    """The frame that each of the file's `images` is, by its id."""
    if not content.content.get("images"):
        return {}
    listed = content.entries("videos") if "videos" in content else ()
    videos = {check_image_id(v, v.get("id")): str(v.get("name")) for v in listed}
    several = len(videos) > 1
    folders = {name_folder(image) for image in content.entries("images")}
    places: dict[Any, FramePlace] = {}
    for image in content.entries("images"):
        id = check_image_id(image, image.get("id"))
        told = image.content.get("video_id")
        id = (check_image_id(image, told), id) if id in places and told is not None else id
        if id in places:
            raise image.wrong(f"the image id {quote_value(image.get('id'))} is given twice; keep one of them")
        number = next((image.get(k) for k in FRAME_KEYS if k in image), None)
        if number is not None and not is_count(number):
            raise image.wrong(f"the number of a frame must be a whole number from 0, not {number!r:.40}")
        name = image.content.get("file_name")
        given = image.content.get("video_id")
        video = None if given is None else videos.get(check_image_id(image, given))
        if video is None and (several or name is None) and videos:
            raise image.wrong(f"video {image.content.get('video_id')} is not in 'videos'")
        if video is None and len(folders) > 1 and given is None:
            video = name_folder(image)
        places[id] = FramePlace(video, None, number, None if name is None else str(name))
    unnumbered = all(p.number is None and p.name is None for p in places.values())
    return {i: FramePlace(p.video, number=i, is_id=True) for i, p in places.items()} if unnumbered else places


def read_image_sizes(content: JsonEntry) -> dict[Any, Size]:
    """Height and width of the file's `images` that say them, by id; not of an id that several have."""
    images = list(content.entries("images")) if content.content.get("images") else []
    counts = Counter(image.get("id") for image in images)
    sizes = {image.get("id"): image.find_size("height", "width") for image in images}
    return {id: size for id, size in sizes.items() if size is not None and counts[id] == 1}


def find_coco_size(entry: JsonEntry, sizes: Mapping[Any, Size]) -> Size | None:
    """Height and width of the frame that an entry was made of: of its mask's run lengths, else of its image; None where
    neither says it.
    """
    shape, id = entry.content.get("segmentation"), entry.content.get("image_id")
    told = shape.get("size") if isinstance(shape, dict) else None
    if isinstance(told, list) and len(told) == 2 and all(map(is_count, told)):
        return told[0], told[1]
    return sizes.get(id) if isinstance(id, int | float | str) else None


def tell_size(size: Size | None) -> Callable[[], Size] | None:
    """What `FrameEntry.measure` is for a `size` that is known, and for none."""
    return None if size is None else partial(tuple[int, int], size)


def name_folder(image: JsonEntry) -> str | None:
    """The folder in the name of an image's file, its video where a file has several; None where it has none."""
    folder = PurePosixPath(str(image.content.get("file_name") or "").replace("\\", "/")).parent
    return str(folder) if folder.name else None


def check_image_id(entry: JsonEntry, id: Any) -> Any:
    """The id of an image or a video, a number or a text. Raises InputError where it is something else."""
    if not isinstance(id, int | float | str):
        raise entry.wrong(f"an id must be a number or a text, not {quote_value(id)}")
    return id


def find_entry_place(entry: JsonEntry, images: Mapping[Any, FramePlace]) -> FramePlace:
    """The frame that an entry says: by its own number, by its image, by its own file, or by its image's id."""
    video = entry.content.get("video_name") or entry.content.get("video")
    video = None if video is None else str(video)
    direct = next((entry.get(k) for k in FRAME_KEYS if k in entry), None)
    if isinstance(direct, str) and (not direct.isdecimal() or direct != str(int(direct[:20]))):  # as 00012.png, 00012
        return FramePlace(video, name=direct)
    if direct is not None:
        return FramePlace(video, index=_read_frame_number(entry, direct))
    if images and "image_id" in entry:
        return find_listed_image(entry, images)
    name = next((n for k in NAME_KEYS if isinstance(n := entry.content.get(k), str) and n), None)
    id = entry.content.get("image_id")
    if name is None and isinstance(id, str) and id:
        name = id
    if name is not None:
        return FramePlace(video, name=name)
    return FramePlace(video, number=_read_frame_number(entry, id), is_id=True)


def find_listed_image(entry: JsonEntry, images: Mapping[Any, FramePlace]) -> FramePlace:
    """The place of an entry's image in a file's list. Raises InputError where that is none, or of several videos."""
    id = check_image_id(entry, entry.get("image_id"))
    if id not in images:
        raise entry.wrong(f"image {quote_value(id)} is not in 'images'")
    others = [key for key in images if isinstance(key, tuple) and key[1] == id]
    if not others:
        return images[id]
    video = entry.content.get("video_id")
    if video is None:
        raise entry.wrong(f"image {quote_value(id)} is of several videos; say which with 'video_id'")
    return images.get((video, id), images[id])


def _read_frame_number(entry: JsonEntry, given: Any) -> int:
    """The whole number that an entry gives as such, as a text, or with a decimal point and nothing after it."""
    number: Any = parse_whole_number(given) if isinstance(given, str) else given
    number = int(number) if isinstance(number, float) and number.is_integer() else number
    if not is_whole_number(number):
        raise InputError(
            f"{entry.where}: 'frame' (or 'frame_index', 'image_id', 'file_name') must be a whole number from 0, or the "
            f"name of an image, not {quote_value(given)}"
        )
    return int(number)


def _read_coco_entry(entry: JsonEntry, label: int, size: Size) -> Sequence[FoundObject]:
    score, shape = float(entry.content.get("score", 1.0)), entry.content.get("segmentation")
    box = None if entry.content.get("bbox") is None else parse_box(entry, entry.get("bbox"))
    if not shape:  # [] and null, as detectors of boxes write them
        return [FoundObject(score, label, None, box)]
    return [FoundObject(score, label, parse_coco_mask(entry.where, shape, size), box)]


def parse_box(entry: JsonEntry, given: Any) -> tuple[float, float, float, float]:
    """x, y, width and height in pixels. Raises InputError where they are no four finite numbers."""
    numbers = given if isinstance(given, list) else []
    if len(numbers) != 4 or not all(map(is_finite_number, numbers)):
        raise InputError(
            f"{entry.where}: 'bbox' must be four numbers, x, y, width and height, not {quote_value(given)}"
        )
    x, y, w, h = (float(v) for v in numbers)
    return x, y, w, h


# -- folders


def read_detection_folder(path: Path) -> DetectionSet:
    """A folder with a file for each frame, or with such a folder for each video or object; or VIPSeg's form."""
    if (path / "pred.json").is_file() and (path / "pan_pred").is_dir():
        return describe_results(path / "pred.json", list(read_panoptic(path / "pred.json", path / "pan_pred")))
    if files := _list_files(path, ".png"):
        return read_label_folder(path, [(None, files)])
    if files := _list_files(path, ".npz"):
        return read_array_folder(path, [(None, files)])
    if files := _list_segment_files(path):
        return read_labelme_files(path, files)
    if files := _list_files(path, ".txt"):
        return read_ultralytics_files(path, files)
    if videos := [p for suffix in VIDEOS for p in _list_files(path, suffix)]:
        return read_cutout_videos(path, videos)
    inner = _list_page_folders(path)
    if is_object_folders(inner):
        return read_object_folders(path, inner)
    if pages := [*inner, *_list_pages_in_sets(path)]:
        return read_label_folder(path, [(p.relative_to(path).as_posix(), _list_files(p, ".png")) for p in pages])
    arrays = [(p.name, files) for p in sorted(path.iterdir()) if p.is_dir() and (files := _list_files(p, ".npz"))]
    if arrays:
        return read_array_folder(path, arrays)
    raise refuse_detection_folder(path)


def _list_page_folders(folder: Path) -> list[Path]:
    """The folders in a `folder` that hold pngs."""
    return [p for p in sorted(folder.iterdir(), key=make_natural_key) if p.is_dir() and _list_files(p, ".png")]


def _list_pages_in_sets(path: Path) -> list[Path]:
    """The folders of videos called set/video in `path`; those of the objects of one video, or in that of a result, are
    none.
    """
    inner = [p for p in sorted(path.iterdir(), key=make_natural_key) if p.is_dir() and not _list_files(p, ".png")]
    sets = [_list_page_folders(p) for p in inner if not (p / RESULT).is_file()]
    return [page for pages in sets if not is_object_folders(pages) for page in pages]


def is_object_folders(folders: Sequence[Path]) -> bool:
    """Whether `folders` are those of objects, not of videos: numbers of up to three digits, or ids as we write them, of
    which one is below 1000; or those of which `DECLARATION` says that they hold cut-outs.

    >>> [is_object_folders([Path(n) for n in names]) for names in (("7", "12"), ("007", "1000"), ("0007", "1000"))]
    [True, True, False]
    """
    names = [p.name for p in folders]
    if not names or not all(map(str.isdecimal, names)):
        return False
    is_padded = any(len(name) > 3 and name.startswith("0") for name in names)
    if min(map(len, names)) <= 3 and not is_padded:
        return True
    return all(read_declared_meaning(p) == ALPHA for p in folders)


def refuse_detection_folder(path: Path) -> InputError:
    """What is said of a folder that holds no detections; of one with results which of them may be meant."""
    result = next((p for form in (RESULT, f"*/{RESULT}") for p in sorted(path.glob(form))), None)
    if result is not None:
        return InputError(f"{path}: a folder of results; give the file of one, such as {result}")
    return InputError(f"{path}: no png in this folder; give one label image per frame, or one npz")


def _list_files(folder: Path, suffix: str) -> list[Path]:
    found = (p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith("."))
    return sorted(found, key=make_natural_key)


def read_label_folder(path: Path, videos: Sequence[tuple[str | None, Sequence[Path]]]) -> DetectionSet:
    """Label images, a pixel's value the instance that it belongs to; with DEVA's jsons beside them, what these say of
    the values. Without them all score 1 and have no name.
    """
    told = {video: read_segment_list(files[0].parent) for video, files in videos}
    ids = sorted({s.category for page in told.values() for segments in page.values() for s in segments.values()})
    entries = [
        FrameEntry(
            FramePlace(video, name=file.name),
            partial(_read_labels, file, told[video], ids),
            partial(read_image_size, file),
        )
        for video, files in videos
        for file in files
    ]
    names = {id: name for video, files in videos for id, name in read_folder_categories(files[0].parent).items()}
    categories = tuple(names.get(id, str(id)) for id in ids) or (NAMELESS,)
    segments = [s for pages in told.values() for page in pages.values() for s in page.values()]
    things = {s.category for s in segments if s.is_thing}
    folders = [files[0].parent for _, files in videos]
    stuff = {*(set(ids) - things), *(id for folder in folders for id in read_folder_stuff(folder))}
    return DetectionSet(
        str(path),
        categories,
        entries,
        [e.place for e in entries],
        {},
        tuple(names.get(id, str(id)) for id in ids if id in stuff),
    )


def read_array_folder(path: Path, videos: Sequence[tuple[str | None, Sequence[Path]]]) -> DetectionSet:
    """Masks as arrays (`io.annotations.array_masks`): the files of each of the `videos`, None where it has no name."""
    names = tuple(dict.fromkeys(n for _, files in videos for file in files for n in read_array_names(file)))
    entries = [
        FrameEntry(
            FramePlace(video, name=file.name), partial(read_array_objects, file, names), partial(read_array_size, file)
        )
        for video, files in videos
        for file in files
    ]
    hashes = {name: sha for _, files in videos for file in files for name, sha in compute_named_hash(file).items()}
    return DetectionSet(str(path), names or (NAMELESS,), entries, [e.place for e in entries], hashes)


def read_object_folders(path: Path, folders: Sequence[Path]) -> DetectionSet:
    """A folder of masks for each object of one video, called by its number, as SA-V and Ref-DAVIS have it."""
    entries = [
        FrameEntry(FramePlace(name=file.name), partial(_read_object_mask, file, n), partial(read_image_size, file))
        for n, folder in enumerate(folders)
        for file in _list_files(folder, ".png")
    ]
    return DetectionSet(str(path), tuple(p.name for p in folders), entries, [e.place for e in entries], {})


def read_cutout_videos(path: Path, files: Sequence[Path]) -> DetectionSet:
    """A video for each object, called by its number, transparent where the object is not. They are decoded at once, and
    held as run lengths.
    """
    entries, longest = [], 0
    for n, file in enumerate(files):
        for t, mask in enumerate(iterate_opaque_masks(file)):
            longest = max(longest, t + 1)
            if mask.area:
                where = f"{file}: frame {t}"
                read = partial(_take_mask, where, mask, 1.0, n)
                entries.append(FrameEntry(FramePlace(index=t), read, partial(getattr, mask, "size")))
    hashes = {name: sha for file in files for name, sha in compute_named_hash(file).items()}
    listed = [FramePlace(index=t) for t in range(longest)]
    return DetectionSet(str(path), tuple(file.stem for file in files), entries, listed, hashes)


def _read_object_mask(path: Path, label: int, size: Size) -> Sequence[FoundObject]:
    return [FoundObject(1.0, label, one.mask) for one in _read_labels(path, {}, (), size)]


class ListedSegment(NamedTuple):
    """What a json says of one value of a label image."""

    category: int
    score: float
    is_thing: bool


def _list_segment_files(folder: Path) -> list[Path]:
    """The jsons of a folder, but not those that say of it what it is: label images, or a result."""
    return [p for p in _list_files(folder, ".json") if p.name not in (DECLARATION, RESULT, RECIPE)]


def read_segment_list(folder: Path) -> dict[str, dict[int, ListedSegment]]:
    """What jsons beside label images say of their values: by the image's stem and the value, as DEVA's detections and
    VIPSeg's panoptic jsons have it.
    """
    found: dict[str, dict[int, ListedSegment]] = {}
    for file in _list_segment_files(folder):
        content = read_json_file(file, "a json of segments")
        pages = content.get("annotations", [content]) if isinstance(content, dict) else [{"segments_info": content}]
        for page in _iterate_pages(pages):
            name = drop_suffix(str(page.get("file_name") or page.get("image_id") or file.name))
            entries = [JsonEntry(f"{file}: {name}, segment {n}", s) for n, s in enumerate(page["segments_info"])]
            found[name] = {e.whole("id"): _read_segment(e) for e in entries}
    return found


def _read_segment(entry: JsonEntry) -> ListedSegment:
    category = entry.whole("category_id") if "category_id" in entry else 0
    return ListedSegment(category, read_score(entry), is_thing(entry))


def is_thing(entry: JsonEntry) -> bool:
    """Whether a category or a segment is a thing; all are that do not say otherwise. Raises InputError where what it
    says is neither true nor false.
    """
    told = entry.content.get("isthing", True)
    if told not in (0, 1):
        raise entry.wrong(f"'isthing' must be true or false, 1 or 0, not {quote_value(told)}")
    return bool(told)


def read_score(entry: JsonEntry) -> float:
    """The score of an entry, 0 to 1; 1 where it has none."""
    score = entry.number("score", 1.0)
    if not 0 <= score <= 1:
        raise entry.wrong(f"'score' must be a number from 0 to 1, not {quote_value(score)}")
    return score


def _iterate_pages(pages: Any) -> Iterator[dict[str, Any]]:
    """The entries with segments of a list, or of lists within it, as of several videos."""
    for page in pages if isinstance(pages, list) else []:
        if isinstance(page, dict) and isinstance(page.get("segments_info"), list):
            yield page
        elif isinstance(page, dict):
            yield from _iterate_pages(page.get("annotations"))


def read_folder_categories(folder: Path) -> dict[int, str]:
    """The names of categories in the jsons beside label images."""
    return {id: name for content in _read_named(folder) for id, name in read_category_names(content).items()}


def read_folder_stuff(folder: Path) -> frozenset[int]:
    """The ids of the categories that the jsons beside label images call stuff."""
    return frozenset(id for content in _read_named(folder) for id in read_stuff_ids(content))


def _read_named(folder: Path) -> list[JsonEntry]:
    """The jsons beside label images that name categories."""
    contents = [read_json_file(file, "a json of segments") for file in _list_segment_files(folder)]
    return [JsonEntry(str(folder), c) for c in contents if isinstance(c, dict) and "categories" in c]


def _read_labels(
    path: Path, told: Mapping[str, Mapping[int, ListedSegment]], ids: Sequence[int], size: Size
) -> Sequence[FoundObject]:
    image = read_label_image(path, IDS if told else "")
    if image.size != size:
        raise InputError(f"{path}: the labels are {format_size(image.size)}, the video {format_size(size)}")
    if not told:
        return [FoundObject(1.0, 0, mask) for _, mask in iterate_label_masks(image)]
    own = told.get(path.stem, {})
    return [
        FoundObject(own[id].score, ids.index(own[id].category), mask)
        for id, mask in iterate_label_masks(image)
        if id in own
    ]


def iterate_label_masks(image: LabelImage) -> Iterator[tuple[int, Rle]]:
    """The values of a label image with their masks."""
    for id in image.ids:
        yield id, Rle.encode_pixels(image.values == id)


def read_labelme_files(path: Path, files: Sequence[Path]) -> DetectionSet:
    """LabelMe's jsons, one a frame: polygons, rectangles and circles under their labels."""
    pages = [JsonEntry(str(file), read_json_file(file, "a LabelMe json")) for file in files]
    labels = [shape.text("label") for page in pages for shape in page.entries("shapes")]
    names = tuple(dict.fromkeys(labels)) or (NAMELESS,)
    entries = []
    for file, page in zip(files, pages, strict=True):
        image = page.content.get("imagePath") or file.name
        place = FramePlace(name=str(image).replace("\\", "/"))
        size = tell_size(page.find_size("imageHeight", "imageWidth"))
        entries += [
            FrameEntry(place, partial(_read_labelme_object, g, names), size) for g in _group_labelme_shapes(page)
        ]
    listed = [FramePlace(name=str(p.content.get("imagePath") or f.name)) for f, p in zip(files, pages, strict=True)]
    hashes = {name: sha for file in files for name, sha in compute_named_hash(file).items()}
    return DetectionSet(str(path), names, entries, listed, hashes)


def _group_labelme_shapes(page: JsonEntry) -> list[list[JsonEntry]]:
    """The shapes of a frame by object: those of one label and one "group_id" are one."""
    groups: dict[Any, list[JsonEntry]] = {}
    for n, shape in enumerate(page.entries("shapes")):
        group = shape.content.get("group_id")
        groups.setdefault(n if group is None else (shape.text("label"), str(group)), []).append(shape)
    return list(groups.values())


def _read_labelme_object(shapes: Sequence[JsonEntry], names: Sequence[str], size: Size) -> Sequence[FoundObject]:
    """One object; boxes of a group stay apart, for they have no mask yet."""
    found = [one for shape in shapes for one in _read_labelme_shape(shape, names, size)]
    masks = [one.mask for one in found if one.mask is not None]
    if len(masks) < 2:
        return found
    return [found[0]._replace(mask=merge_rles(masks)), *(one for one in found if one.mask is None)]


def _read_labelme_shape(shape: JsonEntry, names: Sequence[str], size: Size) -> Sequence[FoundObject]:
    kind, points = shape.content.get("shape_type", "polygon"), shape.get("points")
    try:
        corners = np.array(points, np.float64).reshape(-1, 2)
    except (ValueError, TypeError):
        raise shape.wrong("'points' must be pairs of numbers") from None
    label = names.index(shape.text("label"))
    if kind == "rectangle" and len(corners) == 2:
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        return [FoundObject(1.0, label, None, (float(x0), float(y0), float(x1 - x0), float(y1 - y0)))]
    if kind == "circle" and len(corners) == 2:
        angles = np.linspace(0, 2 * np.pi, 65)[:-1, None]
        corners = corners[0] + np.hypot(*(corners[1] - corners[0])) * np.hstack([np.cos(angles), np.sin(angles)])
    elif kind != "polygon":
        raise shape.wrong(f"a shape of kind {kind!r}; draw polygons, rectangles or circles")
    return [FoundObject(1.0, label, parse_coco_mask(shape.where, [corners.ravel().tolist()], size))]


def read_ultralytics_files(path: Path, files: Sequence[Path]) -> DetectionSet:
    """Ultralytics' txts, one a frame: a class and a polygon, or a box by its centre, in shares of the image, and a
    score behind a box.
    """
    entries, classes = [], set()
    for file in files:
        for n, line in enumerate(_read_lines(file), start=1):
            where, numbers = f"{file}: line {n}", line.split()
            if not numbers:
                continue
            try:
                class_id, values = int(numbers[0]), [float(v) for v in numbers[1:]]
                check_number(where, "a number", sum(map(abs, values)))
            except ValueError:
                raise InputError(f"{where}: a class and numbers are needed, not {quote_value(line)}") from None
            if len(values) not in (4, 5) and (len(values) < 6 or len(values) % 2):
                raise InputError(f"{where}: a class with a box (4 numbers) or a polygon (pairs) is needed")
            classes.add(class_id)
            read = partial(_read_ultralytics_line, where, class_id, values)
            entries.append((FramePlace(name=file.name), read))
    known = sorted(classes)
    found = [FrameEntry(place, partial(read, known)) for place, read in entries]
    hashes = {name: sha for file in files for name, sha in compute_named_hash(file).items()}
    listed = [FramePlace(name=file.name) for file in files]
    return DetectionSet(str(path), tuple(map(str, known)) or (NAMELESS,), found, listed, hashes)


def _read_ultralytics_line(
    where: str, class_id: int, values: Sequence[float], known: Sequence[int], size: Size
) -> Sequence[FoundObject]:
    (h, w), label = size, known.index(class_id)
    if len(values) in (4, 5):
        x, y, bw, bh = values[:4]
        box = ((x - bw / 2) * w, (y - bh / 2) * h, bw * w, bh * h)
        return [FoundObject(values[4] if len(values) == 5 else 1.0, label, None, box)]
    polygon = (np.array(values).reshape(-1, 2) * (w, h)).ravel().tolist()
    return [FoundObject(1.0, label, parse_coco_mask(where, [polygon], size))]


def _read_lines(path: Path) -> list[str]:
    return read_text(path, "a txt of Ultralytics").splitlines()
