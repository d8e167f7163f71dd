"""Masklets drawn over their video: a tint, a contour and a label each, in the colour of the id; where asked for, the
path that each came along, a legend and the frame's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from masklet.core.result import VideoResult
from masklet.core.tables import compute_centroid
from masklet.core.tracks import Sighting, Source
from masklet.view.strokes import BITS, INK, Colour, Rgb, Stroke, draw_outline

if TYPE_CHECKING:
    from masklet.core.instances import FrameMasks  # which loads torch

Mask = Bool[np.ndarray, "h w"]
Taken = UInt8[np.ndarray, "h w"]  # how bad it is to cover a pixel: 0 nothing, 1 an object, 4 a label
Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are one past the last

# Each colour is as far as can be from those before it, in OKLab, by the least of what is seen with normal
# vision and with each kind of dichromacy (Machado et al. 2009); all are light enough to carry black text.
PALETTE = (
    *((255, 102, 0), (34, 119, 255), (102, 255, 238), (221, 153, 255), (238, 238, 0), (187, 85, 170)),
    *((0, 204, 136), (255, 170, 0), (221, 0, 221), (255, 102, 204), (170, 221, 119), (0, 170, 0)),
)
GREY = (210, 210, 210)  # of plates that belong to no object
LABEL = 4  # how much worse it is to cover a label than an object
LITTLE = 0.05  # share of a label's pixels that may lie on an object without a better place being sought
SHOWN = 0.3  # scores below this are not written on labels
MOST_LETTERINGS = 4096  # that are kept: a label of each object, some kB each
TINT = 0.4  # how much of the colour lies over the object
LEGEND = {"detected": Stroke.WHOLE, "forward": Stroke.LONG, "backward": Stroke.SHORT}  # in the legend's order
LEGEND_STROKES = {**{Source(name): stroke for name, stroke in LEGEND.items()}, Source.PROMPTED: Stroke.WHOLE}
FEW_STROKES = {source: Stroke.SHORT if source is Source.BACKWARD else Stroke.WHOLE for source in Source}


@dataclass(frozen=True)
class DrawingStyle:
    """How objects are drawn over a frame."""

    opacity: float = TINT  # how much of the colour lies over the object, 0 to 1
    labels: bool = True  # whether each has its name, id and score
    contours: bool = True  # whether each has an outline
    smooth: float = 0.0  # pixels over which outlines are rounded
    trails: int = 0  # frames of the path that each came along
    legend: bool = False  # whether outlines say how each mask came about, and a legend what they mean
    numbers: bool = False  # whether each frame has its number


PLAIN = DrawingStyle()


Point = tuple[float, float]  # x, y in pixels
Trail = Sequence[Sequence[Point]]  # where the middle of an object was, up to now; a gap begins another piece


@dataclass(frozen=True)
class DrawnObject:
    """One object as it is to be seen in one frame."""

    id: int
    name: str
    score: float  # 0 to 1
    mask: Mask
    stroke: Stroke = Stroke.WHOLE  # of its contour
    trail: Trail = ()


@dataclass(frozen=True)
class Lettering:
    """Words on a plate, where they do not belong to an object."""

    words: str
    stroke: Stroke | None = None  # an example before the words


def collect_drawn_objects(result: VideoResult, frame: int, style: DrawingStyle = PLAIN) -> list[DrawnObject]:
    """The objects of a result in one frame, with the masklets' names and scores, for a `style`.

    Raises InputError on a frame that is not there.
    """
    strokes = LEGEND_STROKES if style.legend else FEW_STROKES
    return [
        DrawnObject(
            *(m.id, result.name_of(m), m.score, s.mask.decode_pixels(), strokes[s.source]),
            collect_trail(m.sightings, frame, style.trails),
        )
        for m, s in result.at(frame)
    ]


def collect_trail(sightings: Mapping[int, Sighting], frame: int, length: int) -> Trail:
    """Where the middle of an object was in the `length` frames up to this one, in pieces without gaps.

    >>> from masklet.core.rle import Rle
    >>> dot = lambda x: Sighting(Rle.encode_pixels(np.arange(4)[None] == x), Source.FORWARD)
    >>> collect_trail({0: dot(0), 1: dot(1), 3: dot(2), 4: dot(3)}, 4, length=3)
    [[(1.5, 0.5)], [(2.5, 0.5), (3.5, 0.5)]]
    """
    pieces: list[list[Point]] = []
    before = None
    for t in range(max(frame - length, 0), frame + 1) if length else ():
        if t in sightings:
            if before != t - 1:
                pieces.append([])
            pieces[-1].append(compute_centroid(sightings[t].mask))
            before = t
    return pieces


def collect_live_objects(masks: FrameMasks, categories: Sequence[str]) -> list[DrawnObject]:
    """The objects that a stream answers for one frame, with its scores for this frame."""
    rows = zip(masks.ids, masks.labels.tolist(), masks.scores.tolist(), masks.masks, strict=True)
    return [
        DrawnObject(i, categories[label] if label >= 0 else "object", score, mask.cpu().numpy())
        for i, label, score, mask in rows
        if mask.any()
    ]


def pick_object_colour(id: int) -> Colour:
    """An object's colour (RGB): the same in every frame and video, far from those of the next ids."""
    return PALETTE[(id - 1) % len(PALETTE)]


def draw_result(image: Rgb, result: VideoResult, frame: int, style: DrawingStyle = PLAIN) -> Rgb:
    """A copy of `image`, which is the given `frame` of a result's video, with the objects of `result` drawn over it in
    a `style`.

    Raises InputError on a frame that is not there.
    """
    above = [Lettering(f"frame {frame}")] if style.numbers else []
    below = [Lettering(name, stroke) for name, stroke in LEGEND.items()] if style.legend else []
    return draw_objects(image, collect_drawn_objects(result, frame, style), style, above, below)


def draw_objects(
    image: Rgb,
    objects: Sequence[DrawnObject],
    style: DrawingStyle = PLAIN,
    above: Sequence[Lettering] = (),
    below: Sequence[Lettering] = (),
) -> Rgb:
    """A copy of a frame with objects drawn over it; the frame itself stays as it is.

    Line width and text grow with the frame. Labels go where they hide no object, as far as there is room.

    Args:
        image: the frame.
        objects: as they are to be seen in it.
        style: how they are drawn.
        above: what stands in the upper left corner, line by line.
        below: what stands in the lower left corner.
    """
    canvas, side = image.copy(), min(image.shape[:2])
    line, text = max(1, round(side / 300)), max(11, round(side / 32))
    taken = np.zeros(image.shape[:2], dtype=np.uint8)  # what labels should not cover
    seen = [(thing, box) for thing in objects if (box := find_bounding_box(thing.mask))]
    for thing, box in sorted(seen, key=lambda s: -np.count_nonzero(s[0].mask)):  # the small ones on top
        _paint_object(canvas, taken, thing, box, line, style)
    for thing, _ in seen:
        _draw_trail(canvas, thing, line)
    _stack_letterings(canvas, taken, above, text, at_bottom=False)
    _stack_letterings(canvas, taken, below, text, at_bottom=True)
    for thing, box in seen if style.labels else ():
        _draw_label(canvas, taken, thing, box, text)
    return canvas


def find_bounding_box(mask: Mask) -> Rectangle | None:
    """The box of a mask's pixels; None where it has none."""
    cols, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return (int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1) if len(cols) else None


def _paint_object(
    canvas: Rgb, taken: Taken, thing: DrawnObject, box: Rectangle, line: int, style: DrawingStyle
) -> None:
    """Lays an object's colour over it, and takes its place."""
    x0, y0, x1, y1 = box
    inside = np.ascontiguousarray(thing.mask[y0:y1, x0:x1]).view(np.uint8)
    taken[y0:y1, x0:x1] |= inside
    region, colour = canvas[y0:y1, x0:x1], pick_object_colour(thing.id)
    cv2.copyTo(cv2.LUT(region, compute_tint_table(colour, style.opacity)), inside, region)
    if style.contours:
        contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
        draw_outline(canvas, contours, colour, line, thing.stroke, style.smooth)


def _draw_trail(canvas: Rgb, thing: DrawnObject, line: int) -> None:
    """The path that an object came along, on a dark ground, to a dot where it is."""
    if not thing.trail:
        return
    paths = [((np.array(piece) - 0.5) * (1 << BITS)).round().astype(np.int32) for piece in thing.trail]
    colour = pick_object_colour(thing.id)
    for ink, width in ((INK, line + 3), (colour, line + 1)):
        cv2.polylines(canvas, [path[:, None] for path in paths], False, ink, width, cv2.LINE_AA, BITS)
    x, y = paths[-1][-1].tolist()
    for ink, radius in ((INK, 2 * line + 3), (colour, 2 * line + 2)):
        cv2.circle(canvas, (x, y), radius << BITS, ink, cv2.FILLED, cv2.LINE_AA, BITS)


def _stack_letterings(canvas: Rgb, taken: Taken, lines: Sequence[Lettering], text: int, at_bottom: bool) -> None:
    """Writes lines into a left corner, one under the other, and takes their places."""
    plates = [_render_plate(line, text) for line in lines]
    widest = max((plate.shape[1] for plate in plates), default=0)
    plates = [np.pad(p, ((0, 0), (0, widest - p.shape[1]), (0, 0)), mode="edge") for p in plates]
    y = canvas.shape[0] - sum(len(plate) for plate in plates) if at_bottom else 0
    for plate in plates:
        shown = plate[: max(canvas.shape[0] - max(y, 0), 0), : canvas.shape[1]]  # a frame may be smaller than it
        place = np.s_[max(y, 0) : max(y, 0) + shown.shape[0], : shown.shape[1]]
        canvas[place], taken[place] = shown, LABEL
        y += len(plate)


def _render_plate(lettering: Lettering, text: int) -> Rgb:
    """Words in black on grey, behind an example of a stroke where there is one."""
    letters = render_lettering(lettering.words, text)
    plate: Rgb = (np.asarray(GREY) * (1 - letters[..., None])).astype(np.uint8)
    if lettering.stroke is None:
        return plate
    example, line = np.full((len(plate), 4 * text, 3), GREY, np.uint8), max(1, text // 7)
    y, x = len(plate) // 2, np.arange(text // 2, 4 * text)
    for piece in lettering.stroke.split(np.stack([x, np.full_like(x, y)], axis=1)[:, None], line):
        cv2.polylines(example, [piece.astype(np.int32)], False, INK, line)
    return np.hstack([example, plate])


@lru_cache(maxsize=len(PALETTE))
def compute_tint_table(over: Colour, opacity: float = TINT) -> UInt8[np.ndarray, "1 256 3"]:
    """By channel, what every value becomes under a colour of this `opacity`, 0 to 1."""
    values = np.arange(256)[None, :, None] * (1 - opacity) + np.asarray(over) * opacity
    return values.round().astype(np.uint8)


def _draw_label(canvas: Rgb, taken: Taken, thing: DrawnObject, box: Rectangle, text: int) -> None:
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


def render_lettering(words: str, size: int) -> Float[np.ndarray, "y x"]:
    """Words in letters of `size` pixels with a margin around them; 1 is full ink, 0 none."""
    return _render_letters(words, size).astype(np.float32) / 255


@lru_cache(maxsize=MOST_LETTERINGS)
def _render_letters(words: str, size: int) -> UInt8[np.ndarray, "y x"]:
    font = _load_font(size)
    _, top, _, bottom = (round(v) for v in font.getbbox(words + "Áy"))  # every label equally high
    canvas = Image.new("L", (round(font.getlength(words)) + size, bottom - top + size // 2))
    ImageDraw.Draw(canvas).text((size // 2, size // 4 - top), words, fill=255, font=font)
    return np.asarray(canvas)


@lru_cache(maxsize=8)
def _load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def find_label_place(box: Rectangle, size: tuple[int, int], taken: Taken) -> tuple[int, int]:
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
