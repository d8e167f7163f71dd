"""Writes images as a video."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Self

import av
import numpy as np
from jaxtyping import UInt8

from masklet.core.errors import InputError
from masklet.core.result import VideoResult

CRF = 20  # quality, from 0, which loses nothing, to 51
TICKS = 90_000  # a second, of frames with times of their own


class VideoCodec(NamedTuple):
    """How frames become packets."""

    encoder: str
    pixel_format: str  # in the file
    options: Mapping[str, str]
    array_format: str = "rgb24"  # of the arrays that are written
    even: int = 1  # what sides are multiples of
    suffix: str = ".mp4"
    threads: int = 2


H264 = VideoCodec("libx264", "yuv420p", {"preset": "veryfast"}, even=2)
ALPHA_CODECS = {  # which keep transparency
    # Two threads of it now and then write pixels of nothing into the alpha of small frames.
    "prores": VideoCodec("prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "8"}, "rgba", 1, ".mov", 1),
    "qtrle": VideoCodec("qtrle", "argb", {}, "rgba", 1, ".mov"),
    "vp9": VideoCodec("libvpx-vp9", "yuva420p", {"crf": "20", "b": "0", "cpu-used": "4"}, "rgba", 1, ".webm"),
}


class VideoWriter:
    """H.264 in mp4 that browsers play: yuv420p, even sides (an odd one repeats its last row or column)."""

    codec = H264

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: float | Fraction,
        pixel_aspect: float = 1.0,
        timed: bool = False,
        crf: int = CRF,
    ) -> None:
        """
        Args:
            path: the file.
            size: h, w in pixels.
            rate: frames per second.
            pixel_aspect: width of a pixel over its height, as players are to show it.
            timed: whether each frame is written with a time of its own.
            crf: quality, from 0, which loses nothing, to 51.
        """
        codec = self.codec
        self._pad = [*((0, -n % codec.even) for n in size), (0, 0)]
        self._file: Any = self._open(path)
        exact = Fraction(rate).limit_denominator(1001) or Fraction(25)
        self._stream = self._file.add_stream(codec.encoder, rate=exact, options={"crf": str(crf), **codec.options})
        self._stream.height, self._stream.width = (n + -n % codec.even for n in size)
        self._stream.pix_fmt = codec.pixel_format
        self._stream.thread_count = codec.threads
        self._stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect).limit_denominator(1000)
        self._timed, self._begun = timed, False
        self._last, self._step = 0, round(TICKS / exact)  # the last frame's time and how long it is shown, in ticks
        if timed:  # without B-frames, or the container would take the order of decoding for the length
            self._stream.codec_context.max_b_frames = 0
            self._stream.codec_context.time_base = Fraction(1, TICKS)

    def _open(self, path: Path) -> Any:
        return av.open(str(path), "w", options={} if path.suffix == ".webm" else {"movflags": "+faststart"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            packets = self._stream.encode()
            if self._timed and packets:
                packets[-1].duration = round(Fraction(self._step, TICKS) / packets[-1].time_base)
            self._file.mux(packets)
        self._file.close()

    def write(self, image: UInt8[np.ndarray, "h w c"], time: float = 0.0) -> None:
        """Adds the next frame of the video, an RGB image of the size that the writer was made for.

        `time` is seconds from the first frame, for a writer of times; each is shown until the next, the last for as
        long as the one before.
        """
        even = np.pad(image, self._pad, mode="edge") if any(map(sum, self._pad)) else image
        frame = av.VideoFrame.from_ndarray(even, format=self.codec.array_format)
        if self._timed:
            frame.pts, frame.time_base = self._stamp(time), Fraction(1, TICKS)
        self._file.mux(self._stream.encode(frame))

    def _stamp(self, time: float) -> int:
        """A time in ticks, after the one before it."""
        stamp = max(round(time * TICKS), self._last + 1) if self._begun else 0
        if self._begun:
            self._step = stamp - self._last
        self._last, self._begun = stamp, True
        return stamp


class AlphaVideoWriter(VideoWriter):
    """A video of RGBA images that keeps which pixels are transparent."""

    def __init__(self, path: Path, result: VideoResult, codec: VideoCodec) -> None:
        """
        Args:
            path: the file.
            result: whose video it is: its size, times and shape of a pixel are the same.
            codec: one of `ALPHA_CODECS`.
        """
        self.codec = codec
        super().__init__(path, result.size, result.rate, result.pixel_aspect, bool(result.times))


class LiveVideoWriter(VideoWriter):
    """A video that can be watched while it is written, each frame with its time: mp4 in fragments, by the file's suffix
    Matroska (.mkv) or MPEG-TS (.ts), which is also what a named pipe gets.
    """

    codec = H264._replace(options={**H264.options, "tune": "zerolatency"})

    def __init__(self, path: Path, size: tuple[int, int], rate: float, pixel_aspect: float = 1.0) -> None:
        """
        Args:
            path: a file, or a named pipe that somebody reads.
            size: h, w in pixels.
            rate: frames per second.
            pixel_aspect: width of a pixel over its height, as players are to show it.

        Raises:
            InputError: nobody reads the pipe in time.
            OSError: it cannot be written.
        """
        self._pipe: Any = None
        super().__init__(path, size, rate, pixel_aspect, timed=True)
        self._stream.gop_size = max(round(rate), 1)

    def _open(self, path: Path) -> Any:
        live = {"flush_packets": "1", "movflags": "frag_keyframe+empty_moov+default_base_moof"}
        if not path.is_fifo():
            return av.open(str(path), "w", options=live)
        self._pipe = os.fdopen(wait_for_pipe_reader(path), "wb", buffering=0)
        return av.open(self._pipe, "w", format="mpegts", options=live)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            super().__exit__(kind, *error)
        finally:
            if self._pipe is not None:
                self._pipe.close()


def wait_for_pipe_reader(path: Path, wait: float = 30.0) -> int:
    """A named pipe, open for writing, once somebody reads it. Raises InputError where nobody does within `wait` s."""
    end = time.monotonic() + wait
    while True:
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        else:
            os.set_blocking(pipe, True)
            return pipe
        if time.monotonic() > end:
            raise InputError(f"{path}: nobody read this pipe within {wait:g} s; start what reads, then this")
        time.sleep(0.1)
