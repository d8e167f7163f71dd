"""Label images: one PNG a frame, in a folder a video."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.image_files import open_image
from masklet.core.rle import Rle
from masklet.io.formats.json_entry import Size
from masklet.io.video.frame_source import format_size
from masklet.io.video.sources import make_natural_key

Page = Integer[np.ndarray, "h w"]


def list_label_pngs(folder: Path) -> list[Path]:
    """The PNGs of a folder in the order of their names, numbers counted. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of one video's label images")
    found = sorted((p for p in folder.glob("*.png") if not p.name.startswith(".")), key=make_natural_key)
    if not found:
        raise InputError(f"{folder}: no png in this folder; give the folder of one video's label images")
    return found


def read_label_png(path: Path, modes: Collection[str], what: str, size: Size | None) -> Any:
    """The pixels [h w] or [h w c] of the image file `path`.

    Raises InputError where it cannot be read, is not of the `modes` (Pillow's names), or, if a `size` (h, w) is
    given, not of that; the message asks for `what`, the kind of image that is meant.
    """
    image = open_image(path, f"give {what}")
    pixels, mode = np.array(image), image.mode
    if mode not in modes:
        raise InputError(f"{path}: an image of mode {mode}; give {what}, which is of mode {' or '.join(modes)}")
    if size is not None and pixels.shape[:2] != size:
        raise InputError(
            f"{path}: {format_size(pixels.shape[:2])} pixels, "
            f"the video has {format_size(size)}; give frames of one size"
        )
    return pixels


def read_label_pngs(folder: Path, modes: Collection[str], what: str) -> Iterator[Any]:
    """The pixels of every PNG of a `folder`, [h w] or [h w c], in the order of their names.

    Raises InputError where there is none, one is not of the `modes` or sizes differ; `what` is as in `read_label_png`.
    """
    size = None
    for path in list_label_pngs(folder):
        page = read_label_png(path, modes, what, size)
        size = page.shape[:2]
        yield page


def split_label_image(page: Page, nothing: Collection[int]) -> Iterator[tuple[int, Rle]]:
    """The values of a label image with the RLE of each one's pixels; values in `nothing` mean no object."""
    for value in np.unique(page).tolist():
        if value not in nothing:
            yield value, Rle.encode_pixels(page == value)


def encode_png(image: Image.Image) -> bytes:
    """An image as a PNG file's content."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
