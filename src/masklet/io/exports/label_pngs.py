"""Forms of one PNG a frame or an object: SA-V's folder an object, Pascal VOC's masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, paint_mask_numbers
from masklet.io.exports.exported_results import IMAGES, ExportedResults
from masklet.io.formats.davis import build_davis_palette, check_palette_ids, paint_label_image
from masklet.io.formats.label_png import encode_png
from masklet.io.formats.split import find_category_id, index_categories

MOST_CLASSES = 254  # of Pascal VOC's palette, whose 0 is background and 255 void


def write_sav(results: ExportedResults, folder: Path) -> None:
    """Writes SA-V's form into `folder`: masks/<video>/<object>/<frame>.png for every object and frame, white on black,
    an object's id in three digits; and images/<video>/<frame>.jpg of videos that are given.
    """
    for result in results:
        names = results.name_frames(result)
        nothing = _encode_mask(None, result)
        for m in result.masklets:
            (folder / "masks" / result.name / f"{m.id:03d}").mkdir(parents=True)
        for t in results.iterate_frame_numbers(result):
            for m in result.masklets:
                page = _encode_mask(m.sightings[t].mask, result) if t in m.sightings else nothing
                (folder / "masks" / result.name / f"{m.id:03d}" / f"{names[t]}.png").write_bytes(page)
    results.write_images(folder / IMAGES)


def _encode_mask(mask: Rle | None, result: VideoResult) -> bytes:
    pixels = np.zeros(result.size, bool) if mask is None else mask.decode_pixels()
    return encode_png(Image.fromarray(pixels.astype(np.uint8) * np.uint8(255)))


def write_voc(results: ExportedResults, folder: Path) -> None:
    """Writes Pascal VOC's masks into `folder`.

    Args:
        results: of videos.
        folder: which gets SegmentationClass/ and SegmentationObject/<video>/<frame>.png, labelmap.txt,
            ImageSets/Segmentation/train.txt and, of videos that are given, JPEGImages/<video>/<frame>.jpg.

    Raises:
        InputError: an id is above 254, or there are more than 254 names: 255 is void.
    """
    classes = index_categories(results)
    if len(classes) > MOST_CLASSES:
        raise InputError(f"voc: {len(classes)} names; Pascal VOC's palette holds {MOST_CLASSES}")
    for result in results:
        check_palette_ids(result)
        if any(m.id > MOST_CLASSES for m in result.masklets):
            raise InputError(f"{result.name}: object 255 does not fit into Pascal VOC's palette, where it is void")
    listed = []
    for result in results:
        for kind in ("SegmentationClass", "SegmentationObject"):
            (folder / kind / result.name).mkdir(parents=True)
        names = results.name_frames(result)
        for t in results.iterate_frame_numbers(result):
            page = _paint_classes(result, t, classes)
            _write_palette_png(folder / "SegmentationClass" / result.name / f"{names[t]}.png", page)
            objects = paint_label_image(result, t)
            _write_palette_png(folder / "SegmentationObject" / result.name / f"{names[t]}.png", objects)
            listed.append(f"{result.name}/{names[t]}\n")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("".join(listed))
    (folder / "labelmap.txt").write_text(format_labelmap(classes))
    results.write_images(folder / "JPEGImages")


def _paint_classes(result: VideoResult, frame: int, classes: Mapping[str, int]) -> np.ndarray:
    seen = result.at(frame)
    values = np.array([0, *(find_category_id(result, m, classes) for m, _ in seen)], np.uint8)
    page: np.ndarray = values[paint_mask_numbers([s.mask for _, s in seen], result.size)]
    return page


def _write_palette_png(path: Path, page: np.ndarray) -> None:
    image = Image.fromarray(page)
    image.putpalette(build_davis_palette())
    path.write_bytes(encode_png(image))


def format_labelmap(classes: Mapping[str, int]) -> str:
    """The colours of Pascal VOC's classes as CVAT and datumaro list them.

    >>> print(format_labelmap({"cat": 1}))
    # label:color_rgb:parts:actions
    background:0,0,0::
    cat:128,0,0::
    <BLANKLINE>
    """
    colours = np.array(build_davis_palette()).reshape(-1, 3)
    rows = [f"{name}:{','.join(map(str, colours[id].tolist()))}::" for name, id in {"background": 0, **classes}.items()]
    return "\n".join(["# label:color_rgb:parts:actions", *rows, ""])
