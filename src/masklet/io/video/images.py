"""Frames that can be got one by one: image files, and images in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.io.video.frame_source import DamagedSourceError, FrameSource

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
RATE = 25.0  # frames per second where nothing says


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by the suffix of its name; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


class ImageSequence(FrameSource):
    """A video of image files, one a frame."""

    def __init__(self, paths: Sequence[Path], label: str, name: str, rate: float = RATE) -> None:
        super().__init__(label, name, rate)
        self.paths = tuple(paths)
        self.frame_names = tuple(p.stem for p in paths)
        self.start()

    def said(self) -> int:
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        return (self._frame(n) for n in range(len(self.paths)))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [self._frame(n) for n in range(start, min(stop, len(self)))]

    def _frame(self, n: int) -> Frame:
        try:
            return Frame(n, read_rgb_image(self.paths[n]), n / self.rate)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DamagedSourceError(f"{self.paths[n].name}: {_explain_image_error(error)}") from None


def _explain_image_error(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_rgb_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB, upright as its EXIF says. Raises OSError, ValueError, SyntaxError or PIL's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large images are welcome here, odd metadata is not our business
        with Image.open(path) as image:
            return convert_to_rgb(ImageOps.exif_transpose(image))


def convert_to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels as RGB; transparency is dropped, 16 bits are brought to 8."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return np.repeat(((wide * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


class FramesInMemory(FrameSource):
    """A video of images in memory: an array [t h w 3], or a list of arrays, images or frames."""

    def __init__(self, items: Sequence[Any], name: str, rate: float = RATE) -> None:
        super().__init__(name, name, rate)
        self.items = items
        self.start()

    def said(self) -> int:
        return len(self.items)

    def frames(self) -> Iterator[Frame]:
        return (convert_to_frame(n, item, self.rate) for n, item in enumerate(self.items))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [convert_to_frame(n, self.items[n], self.rate) for n in range(start, min(stop, len(self.items)))]


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
        return Frame(n, item.image, item.time)
    image = convert_to_rgb(item) if isinstance(item, Image.Image) else np.asarray(item)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"frame {n} is {image.dtype} {list(image.shape)}; give RGB pictures as uint8 [height, width, 3]"
        )
    return Frame(n, image, n / rate)
