"""Label and mask images, read by one rule: what is one value is a mask, several values are ids.

Grey and palette images hold values, 16 bit ones too; colour images hold r + 256 g + 65536 b, or the grey value where
all three are equal. Transparency that differs says where a cut-out object is. 255 beside other ids is void, as in
DAVIS; alone it is an object. Many shades up to white, which is by far the most frequent, are a soft mask, cut at half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.image_files import open_image

VOID = 255
SHADES = 16  # more values than these, up to white, which is `FREQUENT` times as frequent, are a soft mask
FREQUENT = 4
COLOURS = 256  # more colours than these in what is not transparent are a picture, not ids; also one for 4 pixels
MODES = ("1", "L", "P", "I;16", "I;16B", "I", "RGB", "RGBA", "LA", "PA")


@dataclass(frozen=True, eq=False)
class LabelImage:
    """The value of every pixel: 0 is no object."""

    path: Path
    values: Int32[np.ndarray, "h w"]
    of_ids: bool = False  # whether its values are ids for sure, as in a palette image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The values of objects, ascending."""
        found = [int(v) for v in np.unique(self.values) if v]
        return tuple(v for v in found if v != VOID or len(found) == 1)

    @property
    def is_mask(self) -> bool:
        """Whether it shows one object alone, whatever its value."""
        return len(self.ids) == 1 and not self.of_ids

    def select(self, id: int) -> Bool[np.ndarray, "h w"]:
        """The pixels of an object: of a mask all, else those of value `id`. Raises InputError where there are none."""
        if not self.ids:
            raise InputError(f"{self.path}: no pixel that is not black; mark the object in it")
        if not self.is_mask and id not in self.ids:
            some = ", ".join(map(str, self.ids[:8])) + (", ..." if len(self.ids) > 8 else "")
            raise InputError(f"{self.path}: no pixel of value {id}; it holds the values {some}")
        mask: Bool[np.ndarray, "h w"] = self.values == (self.ids[0] if self.is_mask else id)
        return mask


def read_label_image(path: Path) -> LabelImage:
    """A label or mask image. Raises InputError where it cannot be read, or it cannot be told what its pixels mean."""
    image = open_image(path)
    if image.mode not in MODES:
        raise InputError(f"{path}: an image of mode {image.mode}; give a grey, palette, RGB or 16 bit image of values")
    if image.mode in ("RGBA", "LA", "PA"):
        return LabelImage(path, _read_transparent(path, image))
    return LabelImage(path, _cut_soft_mask(_read_values(image)), image.mode == "P")


def _read_values(image: Image.Image) -> Int32[np.ndarray, "h w"]:
    pixels = np.asarray(image).astype(np.int32)
    if pixels.ndim == 2:
        return pixels
    r, g, b = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    grey = (r == g).all() and (g == b).all()
    values: Int32[np.ndarray, "h w"] = r if grey else r + 256 * g + 65536 * b
    return values


def _read_transparent(path: Path, image: Image.Image) -> Int32[np.ndarray, "h w"]:
    """Of an image whose transparency is the same everywhere, its values; else its values where it is opaque, or a mask
    of that where they are a picture's. Raises InputError where both could be meant.
    """
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    values = _read_values(image.convert("L" if image.mode == "LA" else "RGB"))
    if (alpha == alpha[0, 0]).all():
        return _cut_soft_mask(values)
    opaque = alpha >= 128
    shades = len(np.unique(values[opaque]))
    if 1 < shades <= min(COLOURS, opaque.sum() // 4):
        raise InputError(
            f"{path}: {shades} colours, and some of it transparent: give an image of ids without transparency, or one "
            "colour for one object"
        )
    return opaque.astype(np.int32)


def _cut_soft_mask(values: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """The values; of a soft mask, 1 where they are at least half of the brightest."""
    shades, counts = np.unique(values[values > 0], return_counts=True)
    if len(shades) <= SHADES or shades[-1] not in (255, 65535) or counts[-1] < FREQUENT * counts[:-1].max():
        return values
    inside: Int32[np.ndarray, "h w"] = (values >= shades[-1] / 2).astype(np.int32)
    return inside
