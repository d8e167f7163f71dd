"""Image files and images in memory as RGB, and videos of images in memory."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.image_files import check_png_sums
from masklet.io.video.frame_source import FrameSource
from masklet.io.video.orientation import ALPHA_NOTE, blend_over_white
from masklet.io.video.quick_header import read_quick_size
from masklet.io.video.value_range import (
    ValueRange,
    choose_range,
    has_deep_values,
    read_deep_values,
    read_foreign_tiff,
    read_page_values,
)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
RATE = 25.0  # frames per second where nothing says
IMAGE_ERRORS = (  # on damaged files Pillow's plugins raise whatever they stumble over
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error, Image.DecompressionBombError),
)
EXIF_KEYS = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})  # where Pillow keeps it
ORIENTATION = 0x0112  # EXIF's tag; from 5 on rows are columns


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by the suffix of its name; hidden files are none."""
    name = path.name
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def explain_image_error(error: Exception) -> str:
    """Why an image cannot be read, in words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class ImageHeader(NamedTuple):
    """What an image file says of itself before its pixels are read."""

    size: tuple[int, int]  # h, w as it is shown
    is_deep: bool  # more than 8 bits a value
    pages: int


def read_image_header(path: Path) -> ImageHeader:
    """The header of an image file. Raises one of IMAGE_ERRORS."""
    if size := read_quick_size(path):
        return ImageHeader(size, False, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            values = read_foreign_tiff(path)
            return ImageHeader((values.shape[0], values.shape[1]), True, 1)
        with image:
            w, h = image.size
            pages = getattr(image, "n_frames", 1) if image.format in ("TIFF", "WEBP", "PNG") else 1
            turned = image.format != "TIFF" and read_exif_orientation(image) >= 5  # a TIFF's size is turned already
            return ImageHeader((w, h) if turned else (h, w), has_deep_values(image), pages)


def turn_upright(image: Image.Image) -> Image.Image:
    """An image as its EXIF says, which most have none of."""
    image.load()
    return image if EXIF_KEYS.isdisjoint(image.info) else ImageOps.exif_transpose(image)


def read_exif_orientation(image: Image.Image) -> int:
    """The orientation that an image that has only been opened says, 1 to 8; 1 where it does not say."""
    if image.format == "PNG" and EXIF_KEYS.isdisjoint(image.info):
        return 1  # asking on would read all pixels
    return int(image.getexif().get(ORIENTATION, 1))


def read_rgb_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB, upright as its EXIF says. Raises one of IMAGE_ERRORS."""
    return read_image(path)[0]


def read_image(path: Path, values: ValueRange | None = None) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """An image file as RGB, upright as its EXIF says, and whether a pixel is transparent, which is shown over white.

    Args:
        path: the file.
        values: what is black and what is white where it has more than 8 bits; its own where None.

    Raises:
        OSError, or another of IMAGE_ERRORS.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large images are welcome here, odd metadata is not our business
        try:
            # A PNG is read once for its pixels and its checksums.
            image = Image.open(BytesIO(path.read_bytes()) if path.name.endswith(".png") else path)
        except UnidentifiedImageError:
            return _squeeze(read_foreign_tiff(path), values)
        with image:
            check_png_sums(image)
            if has_deep_values(image):
                return _squeeze(read_deep_values(image, path), values)
            return _convert_shallow(turn_upright(image))


def _squeeze(deep: np.ndarray, values: ValueRange | None) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """Values of more than 8 bits as RGB, and whether a pixel is transparent."""
    channels = deep if deep.ndim == 3 else deep[..., None]
    colours = 3 if channels.shape[2] >= 3 else 1
    colour, alpha = channels[..., :colours], channels[..., 3:4]
    pixels = (values or choose_range([colour])).squeeze(colour)
    pixels = pixels if colours == 3 else np.repeat(pixels, 3, axis=2)
    if not alpha.size:
        return pixels, False
    opaque = ValueRange(0, np.iinfo(deep.dtype).max if deep.dtype.kind == "u" else 1).squeeze(alpha)
    return blend_over_white(np.concatenate([pixels, opaque], axis=2)), bool(opaque.min() < 255)


def _convert_shallow(image: Image.Image) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    if not image.has_transparency_data:
        return np.array(image if image.mode == "RGB" else image.convert("RGB")), False
    pixels = np.array(image.convert("RGBA"))
    return blend_over_white(pixels), bool(pixels[..., 3].min() < 255)


def convert_page(
    image: Image.Image, path: Path, page: int, values: ValueRange | None
) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """As `read_image`, of the `page` of a file to which an `image` that is open has been turned, without EXIF."""
    return _squeeze(read_page_values(image, path, page), values) if has_deep_values(image) else _convert_shallow(image)


def convert_image(image: Image.Image, values: ValueRange | None = None) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """As `read_image`, of an image that is open already, without EXIF."""
    if has_deep_values(image):
        return _squeeze(np.asarray(image), values)
    return _convert_shallow(image)


def convert_to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels as RGB; transparent ones as in front of white, more than 8 bits brought to 8."""
    return convert_image(image)[0]


class FramesInMemory(FrameSource):
    """A video of images in memory: an array [t h w 3], or a list of arrays, images or frames."""

    def __init__(self, items: Sequence[Any], name: str, rate: float = RATE) -> None:
        super().__init__(name, name, rate)
        self.items = items
        self.start()

    def said(self) -> int:
        return len(self.items)

    def foresee_times(self) -> Sequence[float]:
        """Those of frames that have one."""
        return [one.time if isinstance(one, Frame) else n / self.rate for n, one in enumerate(self.items)]

    def frames(self) -> Iterator[Frame]:
        return (self._convert(n) for n in range(len(self.items)))

    def frames_from(self, first: int) -> Iterator[Frame]:
        return (self._convert(n) for n in range(first, len(self.items)))

    def read(self, start: int, stop: int) -> list[Frame]:
        found = [self._convert(n) for n in range(start, min(stop, len(self.items)))]
        for frame in found:
            self.check(frame)
        return found

    def _convert(self, n: int) -> Frame:
        item = self.items[n]
        if isinstance(item, Image.Image) and item.has_transparency_data:
            self.note(ALPHA_NOTE)
        return convert_to_frame(n, item, self.rate)


def iterate_live_frames(items: Iterable[Any], rate: float = RATE) -> Iterator[Frame]:
    """Frames of a live source, as they come.

    Args:
        items: RGB images of one size: uint8 arrays [h w 3], PIL images, or frames.
        rate: frames per second, for the time of those that have none.

    Raises:
        InputError: one is not an RGB image, or differs in size from the first.
    """
    size = None
    for n, item in enumerate(items):
        frame = convert_to_frame(n, item, rate)
        size = size or frame.size
        if frame.size != size:
            raise InputError(
                f"frame {n} is {frame.size[1]}x{frame.size[0]}, the first one {size[1]}x{size[0]}; "
                "give frames of one size"
            )
        yield frame


def convert_to_frame(n: int, item: Any, rate: float) -> Frame:
    """Frame `n` of a video, made of an `item`: a uint8 array [h w 3], a PIL image, or a frame, which keeps its time.

    `rate` is frames per second, for the time of the others. Raises InputError where the item is no RGB image.
    """
    if isinstance(item, Frame):
        return Frame(n, item.image, item.time, item.name)
    image = convert_to_rgb(item) if isinstance(item, Image.Image) else np.asarray(item)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"frame {n} is {image.dtype} {list(image.shape)}; give RGB images as uint8 [height, width, 3]")
    return Frame(n, image, n / rate)
