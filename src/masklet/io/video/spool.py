"""Frames that come only once, kept without loss in a temporary folder so that they can be read again."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.io.video.decode import convert_upright_rgb, decode_frames, find_video_stream
from masklet.io.video.frame_source import DamagedSourceError, FrameSource

STDIN = "stdin"
HOW = "pipe pictures one after the other, as `ffmpeg -i clip.mp4 -f image2pipe -c:v png -` makes them"
STARTS = {
    b"\xff\xd8\xff": "jpeg_pipe",
    b"\x89PNG": "png_pipe",
    b"P6": "ppm_pipe",
    b"P5": "pgm_pipe",
    b"BM": "bmp_pipe",
}


class SpooledFrames(FrameSource):
    """A video of frames from a one-shot iterator; their folder goes with `close`, with this object, or at exit."""

    def __init__(self, frames: Iterator[Frame], name: str, rate: float) -> None:
        super().__init__(name, name, rate)
        self._source = frames
        self._times: list[float] = []
        self._end: str | None = None  # why there is no more; "": the source is complete
        self._folder = tempfile.TemporaryDirectory(prefix="masklet-frames-", ignore_cleanup_errors=True)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def said(self) -> int:
        return 0

    def frames(self) -> Iterator[Frame]:
        n = 0
        while True:
            frame = self._load(n) if n < len(self._times) else self._pull()
            if frame is None:
                break
            yield frame
            n += 1
        if self._end:
            raise DamagedSourceError(self._end)

    def read(self, start: int, stop: int) -> list[Frame]:
        while len(self._times) < stop and self._pull() is not None:
            pass
        return [self._load(n) for n in range(start, min(stop, len(self._times)))]

    def close(self) -> None:
        self._folder.cleanup()

    def _pull(self) -> Frame | None:
        """The next frame of the source, after keeping it."""
        if self._end is not None:
            return None
        try:
            frame = next(self._source, None)
        except DamagedSourceError as reason:
            frame, self._end = None, str(reason)
        if frame is None:
            self._end = self._end or ""
            return None
        self._keep(frame)
        return frame

    def _keep(self, frame: Frame) -> None:
        try:
            Image.fromarray(frame.image).save(self._path(len(self._times)), compress_level=1)
        except OSError as error:
            raise InputError(
                f"{self.label}: frame {frame.index} cannot be kept in {self._folder.name} ({error.strerror or error}); "
                "make room there, or set TMPDIR to a folder that has it"
            ) from None
        self._times.append(frame.time)

    def _load(self, n: int) -> Frame:
        with Image.open(self._path(n)) as image:
            return Frame(n, np.array(image), self._times[n])

    def _path(self, n: int) -> Path:
        return Path(self._folder.name) / f"{n}.png"


def open_pipe(stream: BinaryIO | None = None) -> SpooledFrames:
    """The frames piped into a stream, standard input by default: images one after the other (JPEG, PNG, PPM, BMP),
    or a video in a container that can be read without seeking (Matroska, MPEG-TS, fragmented MP4). Raises InputError
    where nothing was piped, or neither images nor a video.
    """
    stream = stream or (sys.stdin.buffer if sys.stdin and not sys.stdin.isatty() else BytesIO())  # closed, a keyboard
    source = _Pipe(stream)
    if not source.head:
        raise InputError(f"{STDIN}: nothing was piped; {HOW}")
    form = next((name for start, name in STARTS.items() if source.head.startswith(start)), None)
    try:
        container = av.open(source, "r", format=form)
    except (av.FFmpegError, ValueError):
        raise InputError(f"{STDIN}: neither pictures nor a video; {HOW}") from None
    video = find_video_stream(container)
    if video is None:
        raise InputError(f"{STDIN}: holds no video stream; {HOW}")
    rate = float(video.average_rate or video.guessed_rate or 25)
    return SpooledFrames(_decode_piped_frames(container, video, rate), STDIN, rate)


def _decode_piped_frames(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, rate: float
) -> Iterator[Frame]:
    with container:
        for n, picture in enumerate(decode_frames(container, stream)):
            yield Frame(n, convert_upright_rgb(picture), n / rate)


class _Pipe:
    """A stream that can only be read, with its first bytes looked at."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head = stream.read(16)
        self._ahead = self.head

    def read(self, n: int) -> bytes:
        """Up to `n` bytes of the stream, those of the head first; none at its end."""
        out, self._ahead = self._ahead, b""
        return out or self._stream.read(n)
