"""Masklets drawn over their video: a tint, a contour and a label each, in the colour of the id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from masklet.core.result import VideoResult
from masklet.core.tracks import Source

if TYPE_CHECKING:
    from masklet.core.instances import FrameMasks  # which loads torch

Rgb = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are one past the last

# Each colour is as far as can be from those before it, in OKLab, by the least of what is seen with normal
# vision and with each kind of dichromacy (Machado et al. 2009); all are light enough to carry black text.
PALETTE = (
    *((255, 102, 0), (34, 119, 255), (102, 255, 238), (221, 153, 255), (238, 238, 0), (187, 85, 170)),
    *((0, 204, 136), (255, 170, 0), (221, 0, 221), (255, 102, 204), (170, 221, 119), (0, 170, 0)),
)
INK = (0, 0, 0)
LABEL = 4  # how much worse it is to cover a label than an object
LITTLE = 0.05  # share of a label's pixels that may lie on an object without a better place being sought
SHOWN = 0.3  # scores below this are not written on labels
TINT = 0.4  # how much of the colour lies over the object


@dataclass(frozen=True)
class DrawingStyle:
    """How objects are drawn over a frame."""

    opacity: float = TINT  # how much of the colour lies over the object, 0 to 1
    labels: bool = True  # whether each has its name, id and score
    contours: bool = True  # whether each has an outline


PLAIN = DrawingStyle()


@dataclass(frozen=True)
class DrawnObject:
    """One object as it is to be seen in one frame."""

    id: int
    name: str
    score: float  # 0 to 1
    mask: Mask
    dashed: bool = False  # its contour: the object was completed backward in time


def collect_drawn_objects(result: VideoResult, frame: int) -> list[DrawnObject]:
    """The objects of a result in one frame, with the masklets' names and scores.

    Raises InputError on a frame that is not there.
    """
    return [
        DrawnObject(m.id, result.name_of(m), m.score, s.mask.decode_pixels(), s.source is Source.BACKWARD)
        for m, s in result.at(frame)
    ]


def collect_live_objects(masks: FrameMasks, categories: Sequence[str]) -> list[DrawnObject]:
    """The objects that a stream answers for one frame, with its scores for this frame."""
    rows = zip(masks.ids, masks.labels.tolist(), masks.scores.tolist(), masks.masks, strict=True)
    return [
        DrawnObject(i, categories[label] if label >= 0 else "object", score, mask.cpu().numpy())
        for i, label, score, mask in rows
        if mask.any()
    ]


def pick_object_colour(id: int) -> tuple[int, int, int]:
    """An object's colour (RGB): the same in every frame and video, far from those of the next ids."""
    return PALETTE[(id - 1) % len(PALETTE)]


def draw_result(image: Rgb, result: VideoResult, frame: int, style: DrawingStyle = PLAIN) -> Rgb:
    """A copy of `image`, which is the given `frame` of a result's video, with the objects of `result` drawn over it in
    a `style`.

    Raises InputError on a frame that is not there.
    """
    return draw_objects(image, collect_drawn_objects(result, frame), style)


def draw_objects(image: Rgb, objects: Sequence[DrawnObject], style: DrawingStyle = PLAIN) -> Rgb:
    """A copy of a frame with the objects drawn over it in a `style`; the frame itself stays as it is.

    Line width and text grow with the frame. Labels go where they hide no object, as far as there is room.
    """
    canvas, side = image.copy(), min(image.shape[:2])
    line, text = max(1, round(side / 300)), max(11, round(side / 32))
    taken = np.zeros(image.shape[:2], dtype=np.uint8)  # what labels should not cover
    seen = [(thing, box) for thing in objects if (box := find_bounding_box(thing.mask))]
    for thing, box in sorted(seen, key=lambda s: -np.count_nonzero(s[0].mask)):  # the small ones on top
        _paint_object(canvas, taken, thing, box, line, style)
    for thing, box in seen if style.labels else ():
        _draw_label(canvas, taken, thing, box, text)
    return canvas


def find_bounding_box(mask: Mask) -> Rectangle | None:
    """The box of a mask's pixels; None where it has none."""
    cols, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return (int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1) if len(cols) else None


def _paint_object(
    canvas: Rgb, taken: UInt8[np.ndarray, "h w"], thing: DrawnObject, box: Rectangle, line: int, style: DrawingStyle
) -> None:
    """Lays an object's colour over it, and takes its place."""
    x0, y0, x1, y1 = box
    inside = np.ascontiguousarray(thing.mask[y0:y1, x0:x1]).view(np.uint8)
    taken[y0:y1, x0:x1] |= inside
    region = canvas[y0:y1, x0:x1]
    cv2.copyTo(cv2.LUT(region, compute_tint_table(pick_object_colour(thing.id), style.opacity)), inside, region)
    if not style.contours:
        return
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
    _draw_outline(canvas, contours, thing, line)


def _draw_outline(canvas: Rgb, contours: Sequence[np.ndarray], thing: DrawnObject, line: int) -> None:
    """A contour in the object's colour, on a dark ground so that it shows on any image."""
    around = [cv2.approxPolyDP(c, line / 2, True) for c in contours]  # few points: five times as fast
    cv2.polylines(canvas, around, True, INK, line + 1 + line // 2, cv2.LINE_AA)
    if thing.dashed:
        strokes = [cv2.approxPolyDP(d, line / 2, False) for d in split_into_dashes(contours, 6 * line)]
        cv2.polylines(canvas, strokes, False, pick_object_colour(thing.id), line, cv2.LINE_AA)
    else:
        cv2.polylines(canvas, around, True, pick_object_colour(thing.id), line, cv2.LINE_AA)


@lru_cache(maxsize=len(PALETTE))
def compute_tint_table(over: tuple[int, int, int], opacity: float = TINT) -> UInt8[np.ndarray, "1 256 3"]:
    """By channel, what every value becomes under a colour of this `opacity`, 0 to 1."""
    values = np.arange(256)[None, :, None] * (1 - opacity) + np.asarray(over) * opacity
    return values.round().astype(np.uint8)


def split_into_dashes(contours: Sequence[np.ndarray], length: int) -> list[np.ndarray]:
    """Every other stretch of `length` points."""
    return [c[i : i + length] for c in contours for i in range(0, len(c), 2 * length)]


def _draw_label(canvas: Rgb, taken: UInt8[np.ndarray, "h w"], thing: DrawnObject, box: Rectangle, text: int) -> None:
    """Writes an object's name, id and score on a plate of its colour, and takes the plate's place."""
    letters = render_lettering(format_caption(thing), text)
    x, y = find_label_place(box, letters.shape, taken)
    plate = np.s_[y : y + letters.shape[0], x : x + letters.shape[1]]
    ink = letters[: canvas.shape[0], : canvas.shape[1], None]  # a frame may be smaller than a label
    canvas[plate] = (np.asarray(pick_object_colour(thing.id)) * (1 - ink)).astype(np.uint8)
    taken[plate] = LABEL


def format_caption(thing: DrawnObject) -> str:
    """What stands on an object's label: a score that says little is not shown.

    >>> [format_caption(DrawnObject(3, "dog", score, np.ones((1, 1), bool))) for score in (0.72, 0.06)]
    ['dog 3  0.72', 'dog 3']
    """
    return f"{thing.name} {thing.id}" + (f"  {thing.score:.2f}" if thing.score >= SHOWN else "")


@lru_cache(maxsize=512)
def render_lettering(words: str, size: int) -> Float[np.ndarray, "y x"]:
    """Words in letters of `size` pixels with a margin around them; 1 is full ink, 0 none."""
    font = ImageFont.load_default(size)
    _, top, _, bottom = (round(v) for v in font.getbbox(words + "Áy"))  # every label equally high
    canvas = Image.new("L", (round(font.getlength(words)) + size, bottom - top + size // 2))
    ImageDraw.Draw(canvas).text((size // 2, size // 4 - top), words, fill=255, font=font)
    return np.asarray(canvas, dtype=np.float32) / 255


def find_label_place(box: Rectangle, size: tuple[int, int], taken: UInt8[np.ndarray, "h w"]) -> tuple[int, int]:
    """Where the corner (x, y) of a label of `size` (h, w) goes: the first place that hides next to nothing.

    Above the object's `box`, below, at its sides, at last within it; where all hide something, where it is least.
    `taken` says by pixel how bad it is to cover it: 0 nothing, 1 an object, 4 a label.
    """
    x0, y0, x1, y1 = box
    h, w = size
    middle, level, gap = (x0 + x1 - w) // 2, (y0 + y1 - h) // 2, h // 6
    spots = [(middle, y0 - h - gap), (middle, y1 + gap), (x1 + gap, level), (x0 - w - gap, level)]
    spots = [move_into_frame(spot, size, taken.shape) for spot in [*spots, (middle, y0)]]
    hidden = [taken[y : y + h, x : x + w].mean() for x, y in spots]
    return next((s for s, cost in zip(spots, hidden, strict=True) if cost < LITTLE), spots[np.argmin(hidden)])


def move_into_frame(spot: tuple[int, int], size: tuple[int, int], frame: tuple[int, ...]) -> tuple[int, int]:
    """The place (x, y) nearest to `spot` at which a label of `size` (h, w) lies within the `frame` (h, w)."""
    return max(0, min(spot[0], frame[1] - size[1])), max(0, min(spot[1], frame[0] - size[0]))


def build_contact_sheet(images: Sequence[Rgb], columns: int, gap: int = 4) -> Rgb:
    """One image of several `images` of equal size, row by row in `columns`, with `gap` white pixels between them."""
    h, w = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=np.uint8)
    for at, image in enumerate(images):
        y, x = at // columns * (h + gap), at % columns * (w + gap)
        sheet[y : y + h, x : x + w] = image
    return sheet
