"""JSON that others wrote, read with the place of everything at hand, so that a mistake in it can be named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from masklet.core.errors import InputError
from masklet.core.files import read_json
from masklet.core.limits import (
    check_frame_size,
    check_number,
    check_whole_number,
    is_whole_number,
    quote_value,
)
from masklet.core.rle import Rle, check_polygon, encode_polygons
from masklet.io.video.frame_source import format_size

Size = tuple[int, int]  # h, w


class JsonEntry:
    """An object of a JSON file and where it is. Every method raises InputError that names the place."""

    def __init__(self, where: str, content: Any) -> None:
        self.where, self.content = where, content
        if isinstance(content, _DuplicateKeyObject):
            raise self.wrong(f"{content.key!r} is given twice; keep one of them")
        if not isinstance(content, dict):
            raise self.wrong(f"must be an object with named values, not {quote_value(content)}")

    def wrong(self, what: str) -> InputError:
        """The InputError to raise when `what` is wrong with the entry; its message begins with the place."""
        return InputError(f"{self.where}: {what}")

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def get(self, key: str) -> Any:
        """The value at `key`, of any kind; it must be there."""
        if key not in self.content:
            raise self.wrong(f"{key!r} is missing")
        return self.content[key]

    def whole(self, key: str) -> int:
        """The value at `key`, which must be a whole number from 0 on."""
        return check_whole_number(self.where, repr(key), self.get(key))

    def number(self, key: str, default: float | None = None) -> float:
        """The value at `key`, which must be a finite number; `default`, if given, where it is missing or null."""
        value = self.content.get(key)
        if value is None and default is not None:
            return default
        return check_number(self.where, repr(key), value)

    def text(self, key: str) -> str:
        """The value at `key`, which must be a text that is not empty."""
        value = self.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(f"{key!r} must be a text, not {quote_value(value)}")
        return value

    def items(self, key: str) -> list[Any]:
        """The value at `key`, which must be a list; its elements may be of any kind."""
        value = self.get(key)
        if not isinstance(value, list):
            raise self.wrong(f"{key!r} must be a list, not {quote_value(value)}")
        return value

    def texts(self, key: str) -> list[str]:
        """The value at `key`, which must be a list of texts, none of them empty."""
        values = self.items(key)
        for n, value in enumerate(values):
            if not isinstance(value, str) or not value:
                raise self.wrong(f"{key}[{n}] must be a text, not {quote_value(value)}")
        return values

    def entry(self, key: str) -> JsonEntry:
        """The value at `key`, which must be an object; its place is this one's with the key."""
        return JsonEntry(f"{self.where}: {key}", self.get(key))

    def entries(self, key: str) -> Iterator[JsonEntry]:
        """The elements of the list at `key`, each of which must be an object; its place names its number from 0."""
        return (JsonEntry(f"{self.where}: {key}[{n}]", item) for n, item in enumerate(self.items(key)))

    def size(self) -> Size:
        """The entry's 'height' and 'width' as (h, w), at least a pixel each."""
        return check_frame_size(self.where, self.whole("height"), self.whole("width"))

    def find_size(self, height: str, width: str) -> Size | None:
        """The (h, w) that the entry says under these keys; None where it says none that can be."""
        h, w = self.content.get(height), self.content.get(width)
        return (h, w) if is_whole_number(h) and is_whole_number(w) and h > 0 and w > 0 else None


class _DuplicateKeyObject(dict[str, Any]):
    """An object in which a key is given twice."""

    key = ""


def _mark_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    marked, keys = _DuplicateKeyObject(made), [k for k, _ in pairs]
    marked.key = next(k for k in keys if keys.count(k) > 1)
    return marked


def read_json_file(path: Path, form: str) -> Any:
    """The content of the JSON file `path`. Raises InputError where it cannot be read; `form` says what to give then."""
    return read_json(path, form, _mark_duplicate_keys)


def read_json_object(path: Path, form: str, *needed: str) -> JsonEntry:
    """The object that the JSON file `path` holds, which must have all keys in `needed`.

    Raises InputError where the file cannot be read or a key is missing; `form` says what to give then.
    """
    content = read_json_file(path, form)
    missing = [k for k in needed if not isinstance(content, dict) or k not in content]
    if missing:
        raise InputError(f"{path}: holds no {' and no '.join(map(repr, missing))}, so it is not {form}")
    return JsonEntry(str(path), content)


def read_json_line(where: str, line: str) -> JsonEntry:
    """The object that one `line` of JSON lines holds. Raises InputError that begins with `where`, the line's place."""
    try:
        return JsonEntry(where, json.loads(line, object_pairs_hook=_mark_duplicate_keys))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); give one object a line") from None


def format_coco_rle(mask: Rle) -> dict[str, Any]:
    """An RLE as COCO's JSON has it: 'size' [h, w] and compressed 'counts'."""
    return {"size": list(mask.size), "counts": mask.counts.decode()}


def parse_coco_mask(where: str, shape: Any, size: Size) -> Rle:
    """The mask that `shape` means, in any of COCO's three ways: compressed RLE, RLE as a list of counts, polygons.

    Raises InputError, beginning with `where`, where it does not decode or is not of `size` (h, w).
    """
    try:
        return _parse_coco_polygons(shape, size) if isinstance(shape, list) else _parse_coco_rle(shape, size)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _parse_coco_rle(shape: Any, size: Size) -> Rle:
    if not isinstance(shape, dict) or not isinstance(shape.get("size"), list) or "counts" not in shape:
        raise ValueError(f"a mask must be run lengths with 'size' and 'counts', or polygons, not {quote_value(shape)}")
    if not all(is_whole_number(n) for n in shape["size"]) or tuple(shape["size"]) != size:
        raise ValueError(f"the mask's size is {quote_value(shape['size'])}, the frame's {list(size)} (height, width)")
    counts = shape["counts"]
    if isinstance(counts, list):
        return Rle.from_counts(counts, size)
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError(f"'counts' must be COCO run lengths, not {quote_value(counts)}")
    return Rle.checked(size, counts.encode())


def _parse_coco_polygons(polygons: list[Any], size: Size) -> Rle:
    for polygon in polygons or [None]:  # in a data set's file that is a mistake, which cutting it off would hide
        if (np.abs(check_polygon(polygon)) > 2 * max(size)).any():
            raise ValueError(f"a polygon lies far outside the {format_size(size)} pixels of the frame")
    return encode_polygons(polygons, size)
