"""DAVIS's forms and their kin (YouTube-VOS, MOSE, LVOS, Ref-DAVIS, Ref-YouTube-VOS): a folder of PNGs per video.

What they cannot say: names of categories, scores, things and stuff, frames per second, how a mask came about, and, but
between expressions, overlaps; where masks overlap, the smallest is on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.limits import check_file_name
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, paint_mask_numbers
from masklet.core.tracks import Sighting
from masklet.io.formats.label_png import (
    encode_png,
    list_label_pngs,
    read_label_pngs,
    split_label_image,
)
from masklet.io.formats.split import VideoObjects, build_video_result, check_frame_names, resolve_frame_names
from masklet.io.video.sources import make_natural_key

VOID = 255  # in a palette image: not annotated
BINARY = ("1", "L", "P", "RGB")  # some of DAVIS's masks are grey in RGB


def build_davis_palette() -> list[int]:
    """The colours of Pascal VOC and DAVIS: the bits of the id, dealt out to red, green and blue from the top."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * bit + c)) & 1) << (7 - bit) for bit in range(3)) for c in range(3)]
    return [int(v) for v in np.stack(channels, axis=1).ravel()]


def write_davis(result: VideoResult, folder: Path, names: Sequence[str] | None = None) -> None:
    """Writes `result` into a new `folder` as one palette PNG per frame; where masks overlap, the smallest is on top.

    `names` are the frames' names without suffix; files are 00000.png on where there are none, or two are equal.
    Raises InputError where an id is not in 1 to 255.
    """
    own = names is not None and len(set(names)) == len(names)
    check_frame_names(result.name, names or ())
    pages = encode_davis_pngs(result)
    check_palette_ids(result)
    folder.mkdir()
    for frame, page in enumerate(pages):
        (folder / f"{names[frame] if names and own else f'{frame:05d}'}.png").write_bytes(page)


def check_palette_ids(result: VideoResult) -> None:
    """Raises InputError where an object's id is not in 1 to 255, which is what a palette PNG holds."""
    wrong = next((m.id for m in result.masklets if not 1 <= m.id <= 255), None)
    if wrong is not None:
        raise InputError(f"{result.name}: object {wrong} does not fit into a palette PNG, which holds ids 1 to 255")


def encode_davis_pngs(result: VideoResult) -> Iterator[bytes]:
    """The content of each frame's palette PNG, frame by frame; ids must be in 1 to 255."""
    for frame in range(result.length):
        image = Image.fromarray(paint_label_image(result, frame))
        image.putpalette(build_davis_palette())
        yield encode_png(image)


def paint_label_image(result: VideoResult, frame: int) -> UInt8[np.ndarray, "h w"]:
    """The id of the object at every pixel of a frame, 0 where there is none."""
    seen = result.at(frame)
    ids = np.array([0, *(m.id for m, _ in seen)], np.uint8)
    page: UInt8[np.ndarray, "h w"] = ids[paint_mask_numbers([s.mask for _, s in seen], result.size)]
    return page


def read_davis(folder: Path) -> VideoResult:
    """The objects of a folder of palette (or grey) images, a pixel's value the object's id; 255 is void, no object,
    but where no image has another id, as in DAVIS 2016.

    The n-th image in the order of names is frame n. Raises InputError naming the image that cannot be used.
    """
    objects, white, length, size = VideoObjects(), VideoObjects(), 0, (0, 0)
    for frame, page in enumerate(read_label_pngs(folder, ("P", "L"), "palette images of object ids")):
        length, size = frame + 1, page.shape
        for id, mask in split_label_image(page, (0,)):
            (white if id == VOID else objects).add(id, frame, mask)
    found = objects if objects.masks else white
    return build_video_result(folder.resolve().name, size, length, found, (), folder)


def write_davis16(result: VideoResult, folder: Path, names: Sequence[str] | None = None) -> None:
    """Writes `result` into a new `folder` in DAVIS 2016's form: one object, white on black, all masklets joined.

    `names` are the frames' names without suffix, 00000 on where there are none.
    Raises InputError where `names` are not one for each frame.
    """
    _write_binary(
        folder, resolve_frame_names(result, names), ((s for _, s in result.at(t)) for t in range(result.length)), result
    )


def read_davis16(folder: Path) -> VideoResult:
    """One object, id 1: all that is not black. Raises InputError naming the image that cannot be used."""
    objects = VideoObjects()
    length, size = _read_binary(folder, objects, 1, -1)
    return build_video_result(folder.resolve().name, size, length, objects, (), folder)


def write_referring(
    result: VideoResult, folder: Path, names: Sequence[str] | None = None, expressions: Sequence[str] | None = None
) -> None:
    """Writes `result` into a new `folder` as referring segmentation: <expression>/<frame>.png, white on black.

    An expression is a category; `expressions` are the folders' names in the order of the categories, 0, 1, ... where
    none are given, and `names` the frames' without suffix, 00000 on where none are. Every expression has all frames,
    also where nothing is found; the masklets of one expression are joined, those without are left out.
    Raises InputError where `names` or `expressions` are not one for each frame or category.
    """
    frames, chosen = resolve_frame_names(result, names), expressions or [str(n) for n in range(len(result.categories))]
    if len(chosen) != len(result.categories) or len(set(chosen)) < len(chosen):
        raise InputError(f"{result.name}: {len(set(chosen))} expressions for {len(result.categories)} categories")
    for expression in chosen:
        check_file_name(result.name, expression)
    folder.mkdir()
    for label, expression in enumerate(chosen):
        pages = ([s for m, s in result.at(t) if m.label == label] for t in range(result.length))
        _write_binary(folder / expression, frames, pages, result)


def read_referring(folder: Path) -> VideoResult:
    """One masklet per expression in which anything is found, id from 1 in the order of the folders' names, which
    are the categories. Raises InputError naming the folder or image that cannot be used.
    """
    found = sorted((p for p in folder.glob("*") if p.is_dir()), key=make_natural_key)
    if not found:
        raise InputError(f"{folder}: no such folder, or none in it; give a video's folder with one per expression")
    objects, length, size = VideoObjects(), 0, (0, 0)
    for label, expression in enumerate(found):
        there = _read_binary(expression, objects, label + 1, label)
        if label and there != (length, size):
            raise InputError(f"{expression}: {there[0]} frames of {there[1]} (height, width), not {length} of {size}")
        length, size = there
    return build_video_result(folder.resolve().name, size, length, objects, [p.name for p in found], folder)


def _write_binary(
    folder: Path, names: Sequence[str], frames: Iterator[Iterator[Sighting] | list[Sighting]], result: VideoResult
) -> None:
    folder.mkdir()
    for name, sightings in zip(names, frames, strict=True):
        inside = paint_mask_numbers([s.mask for s in sightings], result.size) > 0
        (folder / f"{name}.png").write_bytes(encode_png(Image.fromarray(inside.astype(np.uint8) * 255)))


def _read_binary(folder: Path, objects: VideoObjects, id: int, label: int) -> tuple[int, tuple[int, int]]:
    """Adds the masks of one folder to `objects`, as object `id`; the number of frames, and their size (h, w)."""
    size = (0, 0)
    for frame, page in enumerate(read_label_pngs(folder, BINARY, "black and white masks")):
        size = page.shape[:2]
        objects.add(id, frame, Rle.encode_pixels(page.reshape(*size, -1).any(-1)), label=label)
    return len(list_label_pngs(folder)), size
