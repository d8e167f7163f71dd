"""Masks as benchmarks of given objects read them: <video>/<frame>.png, or <video>/<object>/<frame>.png.

Only the frames that a data set asks for are written, under its own names of frames and objects; one without an object
is an image of nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.limits import check_relative_path
from masklet.core.result import VideoResult
from masklet.io.formats.davis import build_davis_palette, check_palette_ids, paint_label_image
from masklet.io.formats.label_png import encode_png
from masklet.io.formats.submission import create_zip_info, list_image_files
from masklet.io.video.datasets import DatasetVideo


def write_vos_video(result: VideoResult, video: DatasetVideo, folder: Path) -> None:
    """Writes the masks of a `result` of a data set's `video` into `folder`/<video>, as the data set has them.

    Raises InputError where the result is not of as many frames as the video, or an id does not fit.
    """
    names = list_frame_names(result, video)
    shown = set(video.shown or names)
    place = folder / check_relative_path(str(folder), video.name)
    pages = iterate_object_pages(result, video) if video.overlaps else iterate_label_pages(result)
    for t, inside, page in pages:
        if names[t] in shown:
            path = place / inside / f"{names[t]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(page)


def list_frame_names(result: VideoResult, video: DatasetVideo) -> list[str]:
    """The names of a `video`'s frames, without suffix. Raises InputError where the `result` has more or fewer."""
    names = [path.stem for path in list_image_files(video.source)]
    if len(names) != result.length:
        raise InputError(f"{video.name}: a result of {result.length} frames, but {video.source} has {len(names)}")
    return names


def iterate_label_pages(result: VideoResult) -> Iterator[tuple[int, str, bytes]]:
    """Each frame, "", and its palette image of ids. Raises InputError where an id is not in 1 to 255."""
    check_palette_ids(result)
    palette = build_davis_palette()
    for t in range(result.length):
        image = Image.fromarray(paint_label_image(result, t))
        image.putpalette(palette)
        yield t, "", encode_png(image)


def iterate_object_pages(result: VideoResult, video: DatasetVideo) -> Iterator[tuple[int, str, bytes]]:
    """Each frame, the folder of each of its objects, and that one's mask, white on black."""
    masks = {m.id: m for m in result.masklets}
    nothing = encode_png(Image.fromarray(np.zeros(result.size, np.uint8)))
    for id, name in enumerate(video.objects, start=1):
        seen = masks[id].sightings if id in masks else {}
        for t in range(result.length):
            pixels = seen[t].mask.decode_pixels().astype(np.uint8) * np.uint8(255) if t in seen else None
            yield t, name, nothing if pixels is None else encode_png(Image.fromarray(pixels))


def find_missing_pages(videos: Sequence[DatasetVideo], folder: Path) -> list[str]:
    """What a server would miss in a `folder` of predictions for some `videos`, a sentence for each of them."""
    wrong = []
    for video in videos:
        names = video.shown or tuple(path.stem for path in list_image_files(video.source))
        inside = video.objects if video.overlaps else ("",)
        lacking = [n for o in inside for n in names if not (folder / video.name / o / f"{n}.png").is_file()]
        if lacking:
            wrong.append(f"{video.name}: no mask of {len(lacking)} frames, the first of them {lacking[0]}; run it anew")
    return wrong


def zip_vos_folder(folder: Path, path: Path, prefix: str = "") -> None:
    """Writes all images in a `folder` of predictions into the zip `path`, under `prefix`; the same give the same bytes.

    Raises InputError where it cannot be written.
    """
    pages: Mapping[str, Path] = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*.png")}
    with write_atomically(path) as file, ZipFile(file, "w") as archive:
        for name in sorted(pages):
            archive.writestr(create_zip_info(f"{prefix}{name}"), pages[name].read_bytes())
