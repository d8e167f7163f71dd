"""Images of more than 8 bits a value: what of their values is black, and what is white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from masklet.io.video.orientation import Orientation

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras have, in files of 16
EXIF_ORIENTATIONS = {  # by EXIF's number: rows and columns swapped, upside down, mirrored
    1: Orientation(),
    2: Orientation(False, False, True),
    3: Orientation(False, True, True),
    4: Orientation(False, True, False),
    5: Orientation(True, False, False),
    6: Orientation(True, False, True),
    7: Orientation(True, True, True),
    8: Orientation(True, True, False),
}


class ValueRange(NamedTuple):
    """Values between which those of an image lie."""

    low: float  # black
    high: float  # white

    def squeeze(self, values: np.ndarray) -> UInt8[np.ndarray, "..."]:
        """Values as 0 to 255; what lies outside is black or white, what is no number black.

        >>> ValueRange(0, 4095).squeeze(np.array([0, 4095, 9999])).tolist()
        [0, 255, 255]
        """
        scaled = (values.astype(np.float64) - self.low) * (255 / ((self.high - self.low) or 1))
        return (np.nan_to_num(scaled, nan=0.0).clip(0, 255) + 0.5).astype(np.uint8)

    def describe(self) -> str:
        """What a result says of it."""
        return f"values from {self.low:g} (black) to {self.high:g} (white) were brought to 8 bits"


def choose_range(images: Sequence[np.ndarray]) -> ValueRange:
    """The range of all `images`, of one kind of values: 0 to 1 or to 255 of floats that fill it, the least depth of a
    camera that holds whole numbers, else from the least value to the greatest.
    """
    finite = [image[np.isfinite(image)] for image in images]
    low = min((float(v.min()) for v in finite if v.size), default=0.0)
    high = max((float(v.max()) for v in finite if v.size), default=0.0)
    if low >= 0 and images[0].dtype.kind == "f":
        return ValueRange(0, 1) if high <= 1 else ValueRange(0, 255) if 127 < high <= 255 else ValueRange(low, high)
    if low >= 0 and high < 2 ** DEPTHS[-1]:
        return ValueRange(0, next(2**bits - 1 for bits in DEPTHS if high < 2**bits))
    return ValueRange(low, high)


class RunningRange:
    """The range of images that come one by one: of the first, a wider one from that on which needs it."""

    def __init__(self) -> None:
        self._range: ValueRange | None = None

    def squeeze(self, values: np.ndarray) -> UInt8[np.ndarray, "..."]:
        """The values of the next image as 0 to 255."""
        own = choose_range([values])
        if self._range is None or own.low < self._range.low or own.high > self._range.high:
            self._range = own
        return self._range.squeeze(values)

    def describe(self) -> str:
        """What a result says of it, after an image."""
        return "" if self._range is None else self._range.describe()


def has_deep_values(image: Image.Image) -> bool:
    """Whether an image that is open has more than 8 bits a value."""
    return image.mode[0] in "IF" or ";16" in find_raw_mode(image)


def find_raw_mode(image: Image.Image) -> str:
    """How values lie in the file of an image that has only been opened, such as RGB;16B; "" where nothing says."""
    tiles: Any = getattr(image, "tile", None)
    told = tiles[0][3] if tiles else ""
    told = told[0] if isinstance(told, tuple) and told else told
    return told if isinstance(told, str) else ""


def read_deep_values(image: Image.Image, path: Path) -> np.ndarray:
    """The values of an image that has been opened from `path`, [h w] or [h w c] of RGB, upright."""
    if image.mode[0] in "IF":
        return np.asarray(ImageOps.exif_transpose(image))
    orientation = EXIF_ORIENTATIONS.get(int(image.getexif().get(0x0112, 1)) if image.format == "TIFF" else 1)
    return (orientation or Orientation()).apply(read_foreign_values(path))


def read_page_values(image: Image.Image, path: Path, page: int) -> np.ndarray:
    """The values of a page of a file, [h w] or [h w c] of RGB, to which an `image` that is open has been turned."""
    return np.asarray(image) if image.mode[0] in "IF" else read_foreign_page(path, page)


def read_foreign_tiff(path: Path) -> np.ndarray:
    """The values of a TIFF that Pillow cannot read, such as RGB floats. Raises UnidentifiedImageError where a file is
    none.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UnidentifiedImageError(f"cannot identify image file {path}")
    return read_foreign_values(path)


def read_foreign_page(path: Path, page: int) -> np.ndarray:
    """As `read_foreign_values`, of one page of a TIFF, counted from 0."""
    import cv2

    try:
        done, pages = cv2.imreadmulti(str(path), page, 1, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error:
        done, pages = False, ()
    if not done or len(pages) != 1:
        raise UnidentifiedImageError(f"cannot identify page {page} of image file {path}")
    return order_channels(np.asarray(pages[0]))


def read_foreign_values(path: Path) -> np.ndarray:
    """The values of an image as [h w] or [h w c] of RGB by OpenCV, which reads kinds that Pillow does not.

    Raises UnidentifiedImageError where it cannot, either.
    """
    import cv2

    data = np.fromfile(path, np.uint8)
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if values is None:
        raise UnidentifiedImageError(f"cannot identify image file {path}")
    return order_channels(values)


def order_channels(values: np.ndarray) -> np.ndarray:
    """What OpenCV reads, with red before blue."""
    grey = values.ndim == 2
    return values if grey else np.ascontiguousarray(values[..., [2, 1, 0, *range(3, values.shape[2])]])
