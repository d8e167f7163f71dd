"""JSON files of predictions, read twice: once for what they say of every object, and its masks when they are needed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.io.formats.json_entry import Size, parse_coco_mask

EMPTY, OPENING, GAP, CLOSING = (re.compile(rf"\s*{p}\s*") for p in (r"\[\s*\]", r"(\[)", r"([,\]])", r"\]"))
CHUNK = 1 << 20  # bytes

Span = tuple[int, int]  # where an entry starts in its file, and its length


def stream_json_entries(path: Path) -> Iterator[tuple[Any, Span]]:
    """The entries of a JSON file that is one list, one at a time. Raises InputError where it is none.

    Their texts, but for ASCII, are not to be read.
    """
    decoder, gap, text, number, start, held = json.JSONDecoder(), OPENING, "", 0, 0, [0]
    for piece in _read_chunks(path, held):
        text, at = text + piece, 0
        while (found := gap.match(text, at)) and found[1] != "]":
            try:
                entry, end = decoder.raw_decode(text, found.end())
            except (ValueError, RecursionError):
                break  # perhaps the rest of it is in the next piece
            if end == len(text):
                break  # a number may go on
            yield entry, (start + found.end(), end - found.end())
            gap, number, at = GAP, number + 1, end
        text, start, held[0] = text[at:], start + at, len(text) - at
    if not (CLOSING if number else EMPTY).fullmatch(text):
        where = f"after [{number - 1}]" if number else "or not a list"
        raise InputError(f"{path}: not JSON, or cut off, {where}")


def _read_chunks(path: Path, held: Sequence[int]) -> Iterator[str]:
    """A file in pieces, each as long as what is `held` back of those before, which is read again with it: an entry
    without end then costs no more than its length, times a little.
    """
    try:
        with path.open("rb") as file:
            while piece := file.read(max(CHUNK, held[0])):
                yield piece.decode("latin-1")  # one character a byte, so that places are those in the file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_entry_at(file: int, span: Span) -> Any:
    """An entry of an open file (its descriptor) once more; bytes that are no UTF-8 passed the first time."""
    return json.loads(os.pread(file, span[1], span[0]).decode(errors="replace"))


def encode_object_masks(where: str, listed: list[Any], size: Size) -> list[bytes | None]:
    """An object's masks as COCO's compressed RLE, None where it is absent.

    `listed` has null, RLE or polygons for every frame of `size` (h, w). Raises InputError, beginning with `where`, that
    names the frame at fault. What is compressed already is not looked at.
    """
    shape, masks = list(size), list[bytes | None]()
    for t, mask in enumerate(listed):
        if isinstance(mask, dict) and mask.get("size") == shape and isinstance(mask.get("counts"), str):
            masks.append(mask["counts"].encode(errors="surrogatepass"))  # damage, which decoding finds
        else:
            masks.append(None if mask is None else parse_coco_mask(f"{where}: frame {t}", mask, size).counts)
    return masks
