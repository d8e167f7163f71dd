"""A decoded frame as it is to be shown: turned, mirrored, over one colour, and how wide its pixels are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

WHITE = 255  # what transparent pixels are shown over
THREADED = 1 << 20  # pixels of a frame; smaller ones are converted before other threads have begun
ALPHA_NOTE = "transparent pixels were taken as they look in front of white"


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


def find_display_matrix(frame: av.VideoFrame) -> bytes:
    """A decoded frame's display matrix; the one that changes nothing where it has none."""
    if not len(frame.side_data):
        return NO_MATRIX
    found: Any = frame.side_data.get("DISPLAYMATRIX")
    return NO_MATRIX if found is None else bytes(found)


class UprightConverter:
    """Converts decoded frames one after the other; what it takes to convert is set up once for all of a kind."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a decoded frame as RGB, turned and mirrored as the recording camera says, transparent ones
        over white.
        """
        wanted = "rgba" if has_alpha(frame) else "rgb24"
        threads = 0 if frame.width * frame.height > THREADED else 1  # 0: as many as there are cores
        pixels = self._reformatter.reformat(frame, format=wanted, threads=threads).to_ndarray()
        pixels = blend_over_white(pixels) if wanted == "rgba" else pixels
        orientation = read_orientation(find_display_matrix(frame))
        return pixels if orientation == UPRIGHT else orientation.apply(pixels)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame has a channel of transparency."""
    return _format_has_alpha(frame.format.name)


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether a pixel of a decoded frame is transparent."""
    return has_alpha(frame) and bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)


@lru_cache(maxsize=256)
def _format_has_alpha(name: str) -> bool:
    return name == "pal8" or any(c.is_alpha for c in av.VideoFormat(name).components)


def blend_over_white(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """RGBA as it looks in front of white.

    >>> blend_over_white(np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], np.uint8)).tolist()
    [[[9, 9, 9], [255, 255, 255]]]
    """
    colour, alpha = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(colour)
    return ((colour * alpha + WHITE * (255 - alpha) + 127) // 255).astype(np.uint8)


def read_pixel_aspect(stream: VideoStream, matrix: bytes = NO_MATRIX) -> float:
    """Width of a pixel of a `stream` over its height as it is shown, through its display `matrix`; 1 where the file
    does not say.
    """
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return 1 / aspect if read_orientation(matrix).swapped else aspect
