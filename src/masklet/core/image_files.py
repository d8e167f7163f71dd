"""Image files, opened so that none can fill the memory or do anything but be an image."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from masklet.core.errors import InputError
from masklet.core.limits import MOST_PIXELS, check_frame_size

# What masks and frames come in. Pillow knows more, some of which other programs read for it (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA", "JPEG2000")
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)  # the second where warnings are errors


def open_image(path: Path, give: str = "give an intact image") -> Image.Image:
    """An image file with its pixels read. Its size is looked at in the header, before any pixel is.

    Args:
        path: of the file.
        give: what to do where it cannot be used, for the message.

    Returns:
        The image, whose file is closed.

    Raises:
        InputError: it is not there, damaged, of another kind, or has more pixels than are taken.
    """
    with _explain_image_errors(path, give), Image.open(path, formats=FORMATS) as image:
        check_frame_size(str(path), image.height, image.width)
        check_png_sums(image)
        image.load()
        return image


def check_png_sums(image: Image.Image) -> None:
    """Raises OSError where the pixels of a PNG, opened and not yet read, are not those that its checksums are of; of
    other images nothing is known. Pillow looks at other chunks alone.
    """
    file: Any = image.fp if isinstance(image, PngImageFile) else None
    if file is None:
        return
    if isinstance(file, BytesIO):
        data = file.getvalue()
    else:
        here = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(here)
    at = data.find(b"IDAT", 8) - 4
    while at >= 8 and data[at + 4 : at + 8] == b"IDAT":
        stop = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : stop]) != int.from_bytes(data[stop : stop + 4], "big"):
            raise OSError("its checksum is not that of its pixels")
        at = stop + 4


def read_image_size(path: Path, give: str = "give an intact image") -> tuple[int, int]:
    """The size (h, w) of an image file, from its header; arguments and errors as in `open_image`."""
    with _explain_image_errors(path, give), Image.open(path, formats=FORMATS) as image:
        return check_frame_size(str(path), image.height, image.width)


@contextmanager
def _explain_image_errors(path: Path, give: str) -> Iterator[None]:
    """Within the block, what Pillow raises becomes an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except BOMBS:
        raise InputError(f"{path}: more than {MOST_PIXELS:,} pixels, too many for an image; {give}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {give}") from None
    except Exception as error:  # on damaged files Pillow's plugins raise whatever they stumble over
        said = "" if isinstance(error, UnidentifiedImageError) else f" ({getattr(error, 'strerror', None) or error})"
        raise InputError(f"{path}: not an image that can be read{said}; {give}") from None
