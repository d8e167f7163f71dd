"""The frames of a container that is read once, such as a pipe, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

from masklet.io.video.decode import LostFrame, decode_frames, list_video_streams
from masklet.io.video.frame_source import ReadFrame
from masklet.io.video.images import RATE
from masklet.io.video.orientation import ALPHA_NOTE, NO_MATRIX, OBLIQUE_NOTE, blend_over_white, is_oblique
from masklet.io.video.pixels import (
    HOLDING,
    UprightConverter,
    find_display_matrix,
    has_alpha,
    is_transparent,
    read_frame_rate,
    read_pixel_aspect,
)
from masklet.io.video.value_range import RunningRange

DEEP = 16  # bits in which images hold what may be fewer
WITH_ALPHA = ("vp8", "vp9")  # whose transparency is a stream of its own, which FFmpeg drops


class OneShotStream:
    """A video stream that is read once.

    `notes` are sentences on what was done to its frames, complete when they have been read; `pixel_aspect` is right
    once the first frame has been.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, label: str, rate: float | None = None) -> None:
        """
        Args:
            container: opened; closed after its frames.
            stream: the one of its streams that is meant.
            label: what the source is called in messages.
            rate: frames per second of images one after the other, which have no times; None for a video.
        """
        self.rate = rate or read_frame_rate(stream, RATE)
        self.notes = describe_streams(container, stream)
        self.pixel_aspect = read_pixel_aspect(stream)
        self._container, self._stream, self._label = container, stream, label
        self._are_images = rate is not None
        self._converter = UprightConverter(NO_MATRIX if stream.codec_context.name in HOLDING else None)
        self._range = RunningRange()

    def frames(self) -> Iterator[ReadFrame]:
        """What comes of each frame; raises DamagedSourceError where they end early."""
        first: int | None = None
        base = float(self._stream.time_base or 0)
        with self._container:
            for n, decoded in enumerate(decode_frames(self._container, self._stream, self._tell)):
                first = decoded.dts if n == 0 and not self._are_images else first
                late = None if first is None or decoded.dts is None else decoded.dts - first
                image = decoded.cause if isinstance(decoded, LostFrame) else self._convert(decoded)
                yield ReadFrame(image, n / self.rate if late is None else late * base)

    def _tell(self, told: str) -> None:
        self._note(f"{self._label}: {told}")

    def _note(self, told: str) -> None:
        if told not in self.notes:
            self.notes.append(told)

    def _convert(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        matrix = find_display_matrix(frame) or NO_MATRIX
        if matrix != NO_MATRIX:
            self.pixel_aspect = read_pixel_aspect(self._stream, matrix)
        if is_oblique(matrix):
            self._tell(OBLIQUE_NOTE)
        if ALPHA_NOTE not in self.notes and is_transparent(frame):
            self._note(ALPHA_NOTE)
        if self._are_images and max(c.bits for c in frame.format.components) == DEEP:
            return self._squeeze(frame)
        return self._converter.convert(frame)

    def _squeeze(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """An image of 16 bits, which may hold fewer, as `io.video.images` has it in files."""
        deep = np.asarray(frame.to_ndarray(format="rgba64le" if has_alpha(frame) else "rgb48le"), np.uint16)
        pixels = self._range.squeeze(deep[..., :3])
        self._tell(f"{self._range.describe()}, as the images up to there tell")
        if has_alpha(frame):
            pixels = blend_over_white(np.dstack([pixels, deep[..., 3] >> 8]).astype(np.uint8))
        return self._converter.turn(frame, pixels)


def describe_streams(container: InputContainer, taken: VideoStream) -> list[str]:
    """What a result says of the streams of a container that were not `taken`, and of what in the stream is not read."""
    others = [s for s in list_video_streams(container) if s.index != taken.index]
    notes = []
    if others:
        sizes = ", ".join(f"{s.index} ({s.codec_context.width}x{s.codec_context.height})" for s in others)
        size = f"{taken.codec_context.width}x{taken.codec_context.height}"
        notes.append(f"several video streams: number {taken.index} ({size}) was taken, not {sizes}")
    if taken.metadata.get("alpha_mode") == "1" and taken.codec_context.name in WITH_ALPHA:
        notes.append("the stream's separate channel of transparency is not read")
    return notes
