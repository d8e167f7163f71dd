"""How a recorded image becomes the one that is shown: turned, mirrored, over one colour."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

WHITE = 255  # what transparent pixels are shown over
ALPHA_NOTE = "transparent pixels were taken as they look in front of white"
OBLIQUE_NOTE = "the file asks to be shown at an angle that is no quarter of a turn; the nearest quarter was taken"


class Orientation(NamedTuple):
    """How a recorded image becomes the one that is shown: first rows and columns change places, then each may turn."""

    swapped: bool = False  # rows are columns
    upside_down: bool = False
    mirrored: bool = False

    def apply(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
        """The pixels as they are shown, in one piece of memory."""
        turned = pixels.transpose(1, 0, 2) if self.swapped else pixels
        rows, columns = (slice(None, None, -1 if back else 1) for back in (self.upside_down, self.mirrored))
        return np.ascontiguousarray(turned[rows, columns])


UPRIGHT = Orientation()
NO_MATRIX = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], np.int32).tobytes()


@lru_cache(maxsize=16)
def read_orientation(matrix: bytes) -> Orientation:
    """The orientation of a display matrix, nine int32 by rows, of which the first four turn; by the nearest quarter.

    A pixel at x, y is shown at a x + c y, b x + d y for [a b; c d].
    """
    a, b, _, c, d = (int(n) for n in np.frombuffer(matrix, np.int32, 5))
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    return Orientation(swapped, (b if swapped else d) < 0, (c if swapped else a) < 0)


def is_oblique(matrix: bytes) -> bool:
    """Whether a display matrix turns by something else than quarters, or shears."""
    a, b, _, c, d = (abs(int(n)) for n in np.frombuffer(matrix, np.int32, 5))
    return min(a + d, b + c) > 0.02 * max(a + d, b + c)


def blend_over_white(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """RGBA as it looks in front of white.

    >>> blend_over_white(np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], np.uint8)).tolist()
    [[[9, 9, 9], [255, 255, 255]]]
    """
    colour, alpha = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(colour)
    return ((colour * alpha + WHITE * (255 - alpha) + 127) // 255).astype(np.uint8)
