"""Label and mask images, read by one rule: what is one value is a mask, several values are ids.

Grey and palette images hold values, 16 bit ones too; colour images hold r + 256 g + 65536 b, or the grey value where
all three are equal. Transparency that differs, or is declared to count, says where a cut-out object is. 255 beside
other ids is void, as in DAVIS; alone it is an object.

A soft mask is one object's probability in every pixel, and cut at half. Palette images and those with few values hold
ids. Many values are ids where they fill regions and do not shade into one another, and a soft mask where they fill
none and go up to white, which is by far the most frequent; what is neither is refused. `DECLARATION` beside an image
decides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.files import read_json
from masklet.core.image_files import open_image
from masklet.core.limits import quote_value

DECLARATION = "values.json"  # says what the values of the images beside it are: {"values": "ids"}
IDS, PROBABILITIES, ALPHA = "ids", "probabilities", "alpha"
VOID = 255
SHADES = 16  # up to so many values are ids
FREQUENT = 4  # white of a soft mask is so many times as frequent as any other value
REGIONS = 0.25  # of the pixels of most values, as a share, those that have two like neighbours where they fill regions
SMOOTH = 1 / 16  # of the greatest value: by less than this most neighbours of differing values differ in a soft mask
LOSSY = ("JPEG", "MPO")  # files whose values are not quite those that were written
NEAR, MOSTLY = 64, 0.98  # of black or white; as a share of the pixels of a mask in such a file
COLOURS = 256  # more colours than these in what is not transparent are an image, not ids; also one for 4 pixels
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


def read_label_image(path: Path, meaning: str = "") -> LabelImage:
    """A label or mask image.

    Args:
        path: of the image.
        meaning: what its values are, `IDS`, `PROBABILITIES` or `ALPHA`, of which its transparency alone counts; ""
            where the declaration beside it says so, or else the values themselves.

    Raises:
        InputError: it cannot be read, or it cannot be told what its pixels mean.
    """
    image, meaning = open_image(path), meaning or read_declared_meaning(path.parent)
    if image.mode not in MODES:
        raise InputError(f"{path}: an image of mode {image.mode}; give a grey, palette, RGB or 16 bit image of values")
    if meaning == PROBABILITIES:
        return LabelImage(path, _cut_probabilities(path, image))
    if meaning == ALPHA:
        return LabelImage(path, _read_opaque(path, image))
    if image.mode in ("RGBA", "LA", "PA"):
        return LabelImage(path, _read_transparent(path, image), meaning == IDS)
    if image.format in LOSSY and not meaning:
        return LabelImage(path, _read_lossy_mask(path, image))
    if meaning == IDS or image.mode == "P":
        return LabelImage(path, _read_values(image), of_ids=True)
    return LabelImage(path, _tell_soft_mask(path, _read_values(image)))


def read_declared_meaning(folder: Path) -> str:
    """What `DECLARATION` in a folder says that the values of its images are; "" where there is none. Raises InputError
    where it says something else than `IDS`, `PROBABILITIES` or `ALPHA`.
    """
    path = folder / DECLARATION
    if not path.is_file():
        return ""
    form = f'{{"values": "{IDS}"}}, "{PROBABILITIES}" or "{ALPHA}"'
    content = read_json(path, form)
    told = content.get("values") if isinstance(content, dict) else content
    if told not in (IDS, PROBABILITIES, ALPHA):
        raise InputError(f"{path}: says {quote_value(told)}; write {form}")
    return str(told)


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
    of that where they are an image's. Raises InputError where both could be meant.
    """
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    values = _read_values(image.convert("L" if image.mode == "LA" else "RGB"))
    if (alpha == alpha[0, 0]).all():
        return _tell_soft_mask(path, values)
    opaque = alpha >= 128
    shades = len(np.unique(values[opaque]))
    if 1 < shades <= min(COLOURS, opaque.sum() // 4):
        raise InputError(
            f"{path}: {shades} colours, and some of it transparent: give an image of ids without transparency, or one "
            "colour for one object"
        )
    return opaque.astype(np.int32)


def _read_opaque(path: Path, image: Image.Image) -> Int32[np.ndarray, "h w"]:
    """1 where an image is opaque. Raises InputError where it says nothing of that."""
    if "A" not in image.mode:
        raise InputError(f"{path}: an image of mode {image.mode}, whose transparency is to count; give an RGBA image")
    opaque: Int32[np.ndarray, "h w"] = (np.asarray(image.getchannel("A")) >= 128).astype(np.int32)
    return opaque


def _read_lossy_mask(path: Path, image: Image.Image) -> Int32[np.ndarray, "h w"]:
    """1 where an image of black and white, such as a JPEG makes of a mask, is white. Raises InputError where it is
    something else, for ids do not survive that.
    """
    grey = np.asarray(image.convert("L"))
    near = (grey < NEAR) | (grey > 255 - NEAR)
    if near.mean() < MOSTLY or grey.max() < 128:
        raise InputError(f"{path}: a JPEG, which changes values, and no mask of black and white; save labels as PNG")
    white: Int32[np.ndarray, "h w"] = (grey >= 128).astype(np.int32)
    return white


def _cut_probabilities(path: Path, image: Image.Image) -> Int32[np.ndarray, "h w"]:
    """1 where a grey value is at least half of the most that its depth holds. Raises InputError for colours."""
    if image.mode not in ("1", "L", "I;16", "I;16B", "I"):
        raise InputError(f"{path}: probabilities are grey, 8 or 16 bits, not of mode {image.mode}; give one image each")
    most = {"1": 1, "L": 255}.get(image.mode, 65535)
    inside: Int32[np.ndarray, "h w"] = (2 * np.asarray(image).astype(np.int32) >= most).astype(np.int32)
    return inside


def _tell_soft_mask(path: Path, values: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """The values where they are ids; of a soft mask, 1 where they are at least half of the brightest. Raises
    InputError where it cannot be told.
    """
    shades, counts = np.unique(values[values > 0], return_counts=True)
    if len(shades) <= SHADES:
        return values
    regions = _fill_regions(values, shades)
    white = shades[-1] in (255, 65535) and counts[-1] >= FREQUENT * counts[:-1].max()
    if regions and not white and not _is_shaded(values):
        return values
    if white and not regions:
        inside: Int32[np.ndarray, "h w"] = (values >= shades[-1] / 2).astype(np.int32)
        return inside
    raise InputError(
        f"{path}: {len(shades)} values up to {shades[-1]}, which may be ids or a soft mask; say so in a file "
        f'{DECLARATION} beside it: {{"values": "{IDS}"}} or {{"values": "{PROBABILITIES}"}}'
    )


def _fill_regions(values: Int32[np.ndarray, "h w"], shades: Int32[np.ndarray, " n"]) -> bool:
    """Whether pixels of most of the `shades` lie in regions, and not on lines as where an edge is soft."""
    here = values[:-1, :-1]
    inside = (here == values[1:, :-1]) & (here == values[:-1, 1:])
    places = np.searchsorted(shades, values[values > 0])
    alike = np.bincount(np.searchsorted(shades, here[inside & (here > 0)]), minlength=len(shades))
    return bool(np.median(alike / np.bincount(places, minlength=len(shades))) > REGIONS)


def _is_shaded(values: Int32[np.ndarray, "h w"]) -> bool:
    """Whether most neighbours of differing values differ by little."""
    steps = np.concatenate([np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)])
    steps = steps[steps > 0]
    return bool(len(steps) and np.median(steps) <= SMOOTH * values.max())
