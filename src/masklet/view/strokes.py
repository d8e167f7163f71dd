"""Outlines of objects: rounded, and drawn in strokes that say how a mask came about."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import cv2
import numpy as np
from jaxtyping import Int, Num, UInt8

Rgb = UInt8[np.ndarray, "h w 3"]
Colour = tuple[int, int, int]
Outline = Num[np.ndarray, "n 1 2"]  # corners x, y

BITS = 4  # of a corner's place within its pixel
INK = (0, 0, 0)


class Stroke(Enum):
    """How a line is drawn: pixels on and off, in widths of the line."""

    WHOLE = (1, 0)
    LONG = (16, 6)
    SHORT = (6, 6)

    def split(self, outline: Outline, line: int) -> list[Outline]:
        """The pieces of an outline that are drawn, for a line of this width.

        >>> points = np.arange(24)[:, None, None].repeat(2, axis=2)
        >>> [piece[[0, -1], 0, 0].tolist() for piece in Stroke.SHORT.split(points, 1)]
        [[0, 5], [12, 17]]
        """
        on, off = (n * line for n in self.value)
        return [outline[n : n + on] for n in range(0, len(outline), on + off)] if off else [outline]


def round_outline(outline: Int[np.ndarray, "n 1 2"], radius: float) -> Outline:
    """A closed outline with its corners, one a pixel, averaged over about `radius` pixels each way; 0 leaves them."""
    if not radius or len(outline) < 3:
        return outline
    far = int(3 * radius) + 1
    around = np.pad(outline[:, 0].astype(np.float32), ((far, far), (0, 0)), mode="wrap")
    return np.asarray(cv2.GaussianBlur(around, (1, 2 * far + 1), 0, sigmaY=radius)[far:-far, None])


def draw_outline(
    canvas: Rgb, outlines: Sequence[Int[np.ndarray, "_ 1 2"]], colour: Colour, line: int, stroke: Stroke, radius: float
) -> None:
    """Draws outlines in a colour, on a dark ground so that they show on any image.

    Args:
        canvas: is drawn upon.
        outlines: closed, each a corner a pixel.
        colour: RGB.
        line: width in pixels.
        stroke: how they are drawn.
        radius: over how many pixels they are rounded.
    """
    rounded = [round_outline(outline, radius) for outline in outlines]
    around = [_thin_out(outline, line, closed=True) for outline in rounded]
    cv2.polylines(canvas, around, True, INK, line + 1 + line // 2, cv2.LINE_AA, BITS)
    if stroke is Stroke.WHOLE:
        cv2.polylines(canvas, around, True, colour, line, cv2.LINE_AA, BITS)
        return
    pieces = [_thin_out(piece, line, closed=False) for outline in rounded for piece in stroke.split(outline, line)]
    cv2.polylines(canvas, pieces, False, colour, line, cv2.LINE_AA, BITS)


def _thin_out(points: Outline, line: int, closed: bool) -> Int[np.ndarray, "m 1 2"]:
    """Few corners, which is five times as fast, in fractions of a pixel as OpenCV takes them."""
    few = cv2.approxPolyDP(points.astype(np.float32), line / 2, closed)
    return np.asarray((few * (1 << BITS)).round(), np.int32)
