"""A decoded frame as it is to be shown: turned, mirrored, over one colour, and how wide its pixels are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from masklet.io.video.orientation import NO_MATRIX, UPRIGHT, blend_over_white, read_orientation

THREADED = 1 << 20  # pixels of a frame; smaller ones are converted before other threads have begun


def find_display_matrix(frame: av.VideoFrame) -> bytes | None:
    """A decoded frame's display matrix; None where it has none."""
    try:
        beside = frame.side_data
    except ValueError:
        _name_unknown_side_data()
        beside = frame.side_data
    found: Any = beside.get("DISPLAYMATRIX") if len(beside) else None
    return None if found is None else bytes(found)


def _name_unknown_side_data() -> None:
    """Lets PyAV list what FFmpeg puts beside frames where it has no name for a kind, such as EXIF or the view of a
    stereo video: else it gives none of the others.
    """

    def name(kinds: type[Type], value: object) -> Type:
        kind: Any = object.__new__(kinds)
        kind._name_, kind._value_ = f"UNKNOWN_{value}", value
        return cast(Type, kind)

    Type._missing_ = classmethod(name)  # type: ignore[assignment,method-assign]


HOLDING = ("h264", "hevc")  # codecs that may say it at one frame for those after it


class UprightConverter:
    """Converts decoded frames one after the other; what it takes to convert is set up once for all of a kind.

    H.264 and H.265 may say how frames are shown at one of them, which holds until there is another; of others each
    frame says it.
    """

    def __init__(self, matrix: bytes | None = None) -> None:
        """`matrix`: that holds until a frame has another; None where one holds for its frame alone."""
        self._reformatter = VideoReformatter()
        self._is_held = matrix is not None
        self._matrix = matrix or NO_MATRIX

    def notice(self, frame: av.VideoFrame) -> None:
        """Takes from a decoded frame that is not converted what it says of those after it."""
        own = find_display_matrix(frame)
        if own or not self._is_held:
            self._matrix = own or NO_MATRIX

    def convert(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a decoded frame as RGB, turned and mirrored as the recording camera says, transparent ones
        over white.
        """
        wanted = "rgba" if has_alpha(frame) else "rgb24"
        threads = 0 if frame.width * frame.height > THREADED else 1  # 0: as many as there are cores
        pixels = self._reformatter.reformat(frame, format=wanted, threads=threads).to_ndarray()
        pixels = blend_over_white(pixels) if wanted == "rgba" else pixels
        return self.turn(frame, pixels)

    def turn(self, frame: av.VideoFrame, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b 3"]:
        """The `pixels` of a decoded `frame`, as they were recorded, as they are to be shown."""
        self.notice(frame)
        orientation = read_orientation(self._matrix)
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


def read_frame_rate(stream: VideoStream, default: float) -> float:
    """Frames per second of a `stream`; the `default` where the file does not say."""
    mean, least = stream.average_rate, stream.guessed_rate
    # What FFmpeg guesses is never below the mean, but where the mean is made up, of the unit of time.
    told = least if mean and least and mean > 2 * least else mean or least
    return float(told or default)


def read_pixel_aspect(stream: VideoStream, matrix: bytes = NO_MATRIX) -> float:
    """Width of a pixel of a `stream` over its height as it is shown, through its display `matrix`; 1 where the file
    does not say.
    """
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return 1 / aspect if read_orientation(matrix).swapped else aspect
