"""Masks, soft or hard, with scores, as arrays in npz files: one file a frame.

| key | holds |
|---|---|
| `masks` [n h w] | bool, or 0 and 1; or probabilities: floats from 0 to 1, uint8 up to 255, uint16 up to 65535 |
| `scores` [n] | 0 to 1; without it 1 |
| `labels` [n] | places in `categories`, from 0; without it nothing has a name |
| `categories` [c] | names; without it the labels are the names |
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.lib import format as npy

from masklet.core.annotations import FoundObject, Size
from masklet.core.errors import InputError
from masklet.core.instances import NAMELESS
from masklet.core.limits import MOST_ARRAY_BYTES, MOST_CATEGORIES, MOST_ROW_BYTES, check_count, check_text
from masklet.core.rle import Rle
from masklet.io.video.frame_source import format_size

FORM = "an npz with 'masks' [n h w] and, if you like, 'scores' [n], 'labels' [n] and 'categories' [c]"
UNSURE = 128  # whole numbers of 8 bits from 2 up to below it are neither 0 and 1 nor the probabilities of a mask
ERRORS = (OSError, BadZipFile, ValueError, KeyError, EOFError, SyntaxError, RuntimeError, zlib.error)


def read_array_names(path: Path) -> Sequence[str]:
    """What the objects of a file are called, one name each. Raises InputError where it is not of this form."""
    arrays = read_arrays(path, ("labels", "categories"))
    names = _read_categories(path, arrays.get("categories"))
    count = read_array_header(path, "masks")[0][0]
    labels = _check_row(path, "labels", arrays.get("labels"), count, "iu")
    if labels is None:
        return [NAMELESS] * count
    if not all(0 <= n < (len(names) or MOST_CATEGORIES) for n in labels):
        raise InputError(
            f"{path}: 'labels' are {min(labels)} to {max(labels)}; give places from 0 on in 'categories', which "
            f"has {len(names)}"
        )
    return [names[n] if names else str(n) for n in labels]


def read_array_size(path: Path) -> Size:
    """Height and width of a file's masks, by its header. Raises InputError where it has none."""
    _, h, w = read_array_header(path, "masks")[0]
    return h, w


def read_array_objects(path: Path, known: Sequence[str], size: Size) -> Sequence[FoundObject]:
    """The objects of a frame.

    Args:
        path: of its npz file.
        known: the categories, in which labels are places.
        size: of the frame, (h, w).

    Raises:
        InputError: an array is of another shape or kind, or it cannot be told what the masks hold.
    """
    count = read_array_header(path, "masks")[0][0]
    if (held := read_array_size(path)) != size:
        raise InputError(f"{path}: the masks are {format_size(held)}, the video {format_size(size)}")
    arrays, names = read_arrays(path, ("masks", "scores")), read_array_names(path)
    scores = _check_row(path, "scores", arrays.get("scores"), count, "f")
    if scores is not None and not all(0 <= score <= 1 for score in scores):
        raise InputError(f"{path}: 'scores' must be from 0 to 1")
    rows = zip(cut_array_masks(path, arrays["masks"]), scores or [1.0] * count, names, strict=True)
    return [FoundObject(score, known.index(name), Rle.encode_pixels(mask)) for mask, score, name in rows]


def cut_array_masks(path: Path, masks: Shaped[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Masks where their values mean at least one half. Raises InputError where it cannot be told what they mean."""
    kind = masks.dtype
    if kind.kind not in "bfiu":
        raise InputError(f"{path}: 'masks' of {kind} are no numbers; give bool, floats from 0 to 1, or whole numbers")
    if kind.kind == "b":
        return masks
    most = masks.max(initial=0)
    if kind.kind == "f" and masks.min(initial=0) >= 0 and most <= 1:  # false of what is no number
        return masks >= 0.5
    if kind.kind in "iu" and masks.min(initial=0) >= 0 and most <= 1:
        return masks > 0
    if (kind == np.uint8 and most >= UNSURE) or (kind == np.uint16 and most >= 257 * UNSURE):
        return masks >= (np.iinfo(kind).max + 1) // 2
    raise InputError(
        f"{path}: 'masks' of {kind} from {masks.min(initial=0):g} to {most:g} are neither masks nor probabilities; "
        "give bool, floats from 0 to 1, or whole numbers of 8 or 16 bits up to 255 or 65535"
    )


def _read_categories(path: Path, given: Any) -> list[str]:
    if given is None:
        return []
    if given.ndim != 1 or given.dtype.kind != "U":
        raise InputError(f"{path}: 'categories' must be a list of texts, not {list(given.shape)} of {given.dtype}")
    check_count(str(path), "categories", len(given), MOST_CATEGORIES)
    return [check_text(str(path), "a category", name) for name in given.tolist()]


def _check_row(path: Path, key: str, given: Any, count: int, kinds: str) -> list[Any] | None:
    """One number for each object; None where there are none."""
    if given is None:
        return None
    if given.shape != (count,) or given.dtype.kind not in kinds:
        raise InputError(
            f"{path}: {key!r} is {list(given.shape)} of {given.dtype}; give {count} numbers, one for each of the masks"
        )
    return list(given.tolist())


# -- the files


def read_arrays(path: Path, keys: Sequence[str]) -> Mapping[str, Any]:
    """The arrays of an npz file under those of `keys` that it has. Raises InputError where one cannot be read."""
    with _explain_array_errors(path), ZipFile(path) as archive:
        there = [key for key in keys if f"{key}.npy" in archive.namelist()]
        for key in there:
            _read_header(archive, key)
        return {key: _read_array(archive, key) for key in there}


def read_array_header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape [n h w] and kind of an array that must be there. Raises InputError where it is not."""
    with _explain_array_errors(path), ZipFile(path) as archive:
        shape, kind = _read_header(archive, key)
        if len(shape) != 3:
            raise ValueError(f"{key!r} is {list(shape)}")
        return shape, kind


@contextmanager
def _explain_array_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); give {FORM}") from None


def _read_header(archive: ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(f"{key}.npy") as file:
        read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, kind = read(file)
    most = MOST_ARRAY_BYTES if key == "masks" else MOST_ROW_BYTES
    if kind.hasobject or prod(shape) * kind.itemsize > most:
        raise ValueError(f"{key!r} is {list(shape)} of {kind}, and at most {most:,} bytes are taken")
    return shape, kind


def _read_array(archive: ZipFile, key: str) -> Any:
    with archive.open(f"{key}.npy") as file:
        return npy.read_array(file, allow_pickle=False)
