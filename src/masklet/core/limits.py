"""The most that is taken of anything: sizes, lengths, counts, names. Every reader asks here before it allocates.

A number that is not here is bounded by the file that it stands in: a list has no more entries than its file has bytes.
What is here is written in a few bytes and costs gigabytes, or leads where nothing should go.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Integral, Real
from reprlib import Repr
from typing import Any

from masklet.core.errors import InputError

LARGEST_SIDE = 65_535  # pixels of a frame's or an image's side; JPEG's and WebP's most too
MOST_PIXELS = 1 << 27  # of a frame or an image: one of 16K has 132.7 million; pycocotools counts in 32 bits
MOST_FRAMES = 2_160_000  # of a video: a day at 25 frames per second
LARGEST_RATE = 1e6  # frames per second
LARGEST_ASPECT = 100.0  # width of a pixel over its height, or the other way round
MOST_OBJECTS = 100_000  # of a video
MOST_CATEGORIES = 100_000
MOST_MASK_PIXELS = 1 << 34  # of all masks of a frame together, as some consumers unpack them at once
MOST_OUTLINE = 1 << 23  # pixels along the edges of one mask's polygons, which pycocotools walks one by one
LARGEST_NUMBER = 2**53  # a whole number: what JSON keeps exactly
LONGEST_NAME = 255  # bytes of a file's name, on every common disk
LONGEST_PATH = 1_024  # bytes of a name with folders in it
LONGEST_TEXT = 10_000  # characters of a category's name or an expression
LONGEST_EDIT = 10_000_000  # characters of a line of a result's log: it may name all objects
LARGEST_JSON = 1 << 32  # bytes of a file
MOST_ARRAY_BYTES = 1 << 32  # of an array in a file
MOST_ROW_BYTES = 1 << 26  # of one that has a number or a text for each object
DEEPEST_JSON = 64  # lists and objects within one another

# The most of whole numbers that are settings of systems and parts, by their names. Above it they would take all memory,
# or more time than anybody has; those that only count frames or pixels, or bound what is there anyway, have high ones.
MOST_OF_SETTINGS = {
    "anchors": 1_000,  # frames that are remembered, as the three after it
    "conditioning": 1_000,
    "pointers": 1_000,
    "remembered": 1_000,
    "samples": 1_000,
    "around": 1_000,  # pixels
    "context": 100,  # cells across
    "radius": 1_000,  # pixels
    "paths": 100,
    "clip": 1_000,  # frames at once, as the three after it
    "frames": 1_000,
    "window": 1_000,
    "backward_window": MOST_FRAMES,
    "long_side": 4_096,  # pixels that a network sees, as the next
    "size": 4_096,
    "points_per_side": 256,
    "max_boxes": 10_000,
    "at_once": 1_000,  # phrases, boxes or frames that go through a network together
    "top_k": 10_000,
    "max_candidates": 100_000,
    "max_objects": MOST_OBJECTS,
    "top": MOST_OBJECTS,
    "smallest": MOST_PIXELS,
    "every": MOST_FRAMES,
    "max_lost": MOST_FRAMES,
    "max_missed": MOST_FRAMES,
    "settled": MOST_FRAMES,
    "twin_frames": MOST_FRAMES,
    "confirm": MOST_FRAMES,
    "feature_memory": 1 << 40,  # bytes, as the next
    "feature_disk": 1 << 44,
    "feature_device": 1 << 40,
}

# Settings of systems and parts that are a score, a mask IoU or a share, by their names: from 0 to 1. Beyond it nothing
# is ever found, or nothing dropped, and no word is said of it.
SHARES = frozenset(
    {
        *("conf", "low_conf", "min_score", "threshold", "quality", "stability", "sure"),
        *("match_iou", "novel_iou", "nms_iou", "nms", "drift_iou", "twin_iou"),
        *("key_ratio", "twin_join", "overlap"),
    }
)

_QUOTE = Repr()
_QUOTE.maxstring = _QUOTE.maxother = _QUOTE.maxlong = 40
_QUOTE.maxlevel = 2


def quote_value(value: object) -> str:
    """A value of a file as a message shows it: 40 characters of it at most, however large it is.

    >>> quote_value("cat"), quote_value([[[1]]]), len(quote_value("x" * 10**6))
    ("'cat'", '[[[...]]]', 40)
    """
    try:
        return _QUOTE.repr(value)[:40]
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of very many digits"


# -- numbers


def is_whole_number(value: Any) -> bool:
    """Whether a value is a whole number from 0 to `LARGEST_NUMBER`, Python's or numpy's; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) <= LARGEST_NUMBER


def is_finite_number(value: Any) -> bool:
    """Whether a value is a number that a float holds, Python's or numpy's, neither infinite nor NaN; true and false are
    none.

    >>> is_finite_number(0.5), is_finite_number(float("nan")), is_finite_number(10**400), is_finite_number(True)
    (True, False, False, False)
    """
    if type(value) is float:  # next to all of the millions that are asked about
        return math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def check_whole_number(where: str, what: str, value: Any, most: int = LARGEST_NUMBER) -> int:
    """The `value`, which must be a whole number from 0 to `most`, of a file. Raises InputError that begins with `where`
    and names `what` it is.
    """
    if not is_whole_number(value):
        raise InputError(f"{where}: {what} must be a whole number from 0 on, not {quote_value(value)}")
    if value > most:
        raise InputError(f"{where}: {what} is {value}; at most {most} is taken")
    return int(value)


def check_number(where: str, what: str, value: Any) -> float:
    """The `value`, which must be a finite number, of a file. Raises InputError that begins with `where` and names
    `what` it is.
    """
    if not is_finite_number(value):
        raise InputError(f"{where}: {what} must be a number, not {quote_value(value)}")
    return float(value)


def parse_whole_number(text: str) -> int | None:
    """The whole number from 0 to `LARGEST_NUMBER` that a text is; None where it is none.

    >>> parse_whole_number("07"), parse_whole_number("-1"), parse_whole_number("9" * 5000)
    (7, None, None)
    """
    if not text.isdecimal() or len(text) > len(str(LARGEST_NUMBER)):
        return None
    return int(text) if int(text) <= LARGEST_NUMBER else None


# -- videos


def check_frame_size(where: str, height: Any, width: Any) -> tuple[int, int]:
    """The size (h, w) of a frame or an image of `height` and `width` pixels. Raises InputError that begins with `where`
    where it has no pixel, or more than are taken.
    """
    if not (is_whole_number(height) and is_whole_number(width) and height and width):
        told = f"height {quote_value(height)} and width {quote_value(width)}"
        raise InputError(f"{where}: a frame of {told} has no pixel; give whole numbers from 1 on")
    if max(height, width) > LARGEST_SIDE or height * width > MOST_PIXELS:
        raise InputError(
            f"{where}: {width}x{height} pixels are too many; at most {MOST_PIXELS:,} are taken, and {LARGEST_SIDE:,} "
            "along a side"
        )
    return height, width


def check_frame_count(where: str, frames: Any) -> int:
    """The length of a video in frames. Raises InputError that begins with `where` where it has more than are taken."""
    return check_whole_number(where, "the number of frames", frames, MOST_FRAMES)


def check_frame_rate(where: str, rate: Any) -> float:
    """The frames per second of a video. Raises InputError that begins with `where` where there is no such rate."""
    if not 0 < check_number(where, "the frames per second", rate) <= LARGEST_RATE:
        raise InputError(f"{where}: {quote_value(rate)} frames per second; give a rate above 0, to {LARGEST_RATE:.0e}")
    return float(rate)


def convert_number(value: Any) -> Any:
    """A number of numpy or torch as Python's, which every form can say; any other value as it is.

    >>> import numpy as np
    >>> convert_number(np.int64(3)), convert_number(0.5), convert_number("3")
    (3, 0.5, '3')
    """
    return value.item() if getattr(value, "ndim", None) == 0 else value


def check_count(where: str, what: str, count: int, most: int) -> int:
    """The `count` of `what` there is, such as objects. Raises InputError that begins with `where` above `most`."""
    if count > most:
        raise InputError(f"{where}: {count} {what}; at most {most} are taken")
    return count


def check_mask_pixels(where: str, masks: int, size: tuple[int, int]) -> None:
    """Raises InputError that begins with `where` where so many `masks` of `size` (h, w), those of one frame, unpack to
    more than is taken.
    """
    if masks * size[0] * size[1] > MOST_MASK_PIXELS:
        raise InputError(
            f"{where}: {masks} masks of {size[1]}x{size[0]} pixels in one frame; at most {MOST_MASK_PIXELS:,} pixels "
            "are taken, so leave some out"
        )


# -- texts and names


def check_text(where: str, what: str, value: Any, longest: int = LONGEST_TEXT) -> str:
    """The `value`, which must be a text of at most `longest` characters, of a file, such as a category's name; it may
    be empty. Raises InputError that begins with `where` and says `what` it is.
    """
    if not isinstance(value, str):
        raise InputError(f"{where}: {what} must be a text, not {quote_value(value)}")
    if len(value) > longest:
        raise InputError(f"{where}: {what} has {len(value)} characters; at most {longest} are taken")
    return value


def check_file_name(where: str, name: Any) -> str:
    """A name that becomes the name of one file or folder.

    Args:
        where: in what the name stands, for the message.
        name: the name, as a file or a caller gave it.

    Returns:
        The name.

    Raises:
        InputError: it is empty, too long, "." or "..", or has a separator or NUL in it, so that what is written under
            it could be in another place.
    """
    if isinstance(name, str) and "/" in name:
        raise InputError(f"{where}: the name {quote_value(name)} has a separator in it; give a plain name")
    return check_relative_path(where, name, LONGEST_NAME)


def check_relative_path(where: str, name: Any, longest: int = LONGEST_PATH) -> str:
    """A name that becomes a file or folder within another one, such as a video's, which some data sets call
    dataset/sequence. Every part of it is a file's name.

    Args:
        where: in what the name stands, for the message.
        name: the name, as a file or a caller gave it.
        longest: bytes of the whole name.

    Returns:
        The name.

    Raises:
        InputError: a part of it is no file's name, or it is absolute.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: the name must be a text that is not empty, not {quote_value(name)}")
    # A backslash is a separator where zips and folders are unpacked under Windows; within a name it does no harm.
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{where}: the name {quote_value(name)} leads out of its folder; give a plain name")
    if measure_name(name) > longest or max(map(measure_name, parts)) > LONGEST_NAME:
        raise InputError(
            f"{where}: the name {quote_value(name)} is too long; a file's has {LONGEST_NAME} bytes at most"
        )
    return name


def measure_name(name: str) -> int:
    """The bytes of a name on the disk; more than any disk takes where it cannot be one there."""
    try:
        return len(os.fsencode(name))
    except UnicodeEncodeError:
        return LARGEST_JSON


# -- JSON


def check_plain_json(where: str, value: Any) -> Any:
    """A value of a file of any kind that is kept as it is and written again. Raises InputError that begins with `where`
    where it holds a number that is not finite, or is nested too deeply.
    """
    layer = [value]
    for _ in range(DEEPEST_JSON):
        if any(isinstance(v, float) and not math.isfinite(v) for v in layer):
            raise InputError(f"{where}: holds a number that is not finite; give one that is")
        layer = [inner for v in layer for inner in _list_inner_values(v)]
        if not layer:
            return value
    raise InputError(f"{where}: lists and objects are nested more than {DEEPEST_JSON} deep; give a plain value")


def _list_inner_values(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
