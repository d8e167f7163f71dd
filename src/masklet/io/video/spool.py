"""Frames that come only once, kept without loss in a temporary folder so that they can be read again."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.scratch import make_scratch_folder
from masklet.io.video.decode import check_stream_size, find_video_stream
from masklet.io.video.frame_source import DamagedSourceError, FrameSource, fill_gaps
from masklet.io.video.images import RATE
from masklet.io.video.network import open_live
from masklet.io.video.one_pass import OneShotStream
from masklet.io.video.source_names import STDIN, name_source

HOW = "pipe images one after the other, as `ffmpeg -i clip.mp4 -f image2pipe -c:v png -` makes them"
HEAD = 64  # bytes that are looked at
PADDING = (b"free", b"skip", b"wide")  # boxes of MP4 that say nothing
WAIT = 30  # seconds for somebody to write into a named pipe
STARTS = {
    b"\xff\xd8\xff": "jpeg_pipe",
    b"\x89PNG": "png_pipe",
    b"P6": "ppm_pipe",
    b"P5": "pgm_pipe",
    b"BM": "bmp_pipe",
}


class SpooledFrames(FrameSource):
    """A video of frames from a one-shot iterator; their folder goes with `close`, with this object, or at exit."""

    def __init__(
        self, frames: Iterator[Frame], name: str, rate: float, label: str = "", lost: dict[int, str] | None = None
    ) -> None:
        """`lost` is where those who make the `frames` enter what they put a copy for."""
        super().__init__(label or name, name, rate)
        self.lost = {} if lost is None else lost
        self._source = frames
        self.piped: BinaryIO | None = None  # what is closed with it
        self._kept: list[tuple[float, str]] = []  # their times and names
        self._end: str | None = None  # why there is no more; "": the source is complete
        self._folder = make_scratch_folder("frames")
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
            frame = self._load(n) if n < len(self._kept) else self._pull()
            if frame is None:
                break
            yield frame
            n += 1
        if self._end:
            raise DamagedSourceError(self._end)

    def read(self, start: int, stop: int) -> list[Frame]:
        while len(self._kept) < stop and self._pull() is not None:
            pass
        return [self._load(n) for n in range(start, min(stop, len(self._kept)))]

    def close(self) -> None:
        self._folder.cleanup()
        if self.piped:
            self.piped.close()

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
            Image.fromarray(frame.image).save(self._path(len(self._kept)), compress_level=1)
        except OSError as error:
            raise InputError(
                f"{self.label}: frame {frame.index} cannot be kept in {self._folder.name} ({error.strerror or error}); "
                "make room there, or set TMPDIR to a folder that has it"
            ) from None
        self._kept.append((frame.time, frame.name))

    def _load(self, n: int) -> Frame:
        with Image.open(self._path(n)) as image:
            return Frame(n, np.array(image), *self._kept[n])

    def _path(self, n: int) -> Path:
        return Path(self._folder.name) / f"{n}.png"


def open_pipe(stream: BinaryIO | None = None, rate: float = RATE, label: str = STDIN) -> SpooledFrames:
    """The frames piped into a stream: images one after the other (JPEG, PNG, PPM, BMP), or a video in a container
    that can be read without seeking (Matroska, MPEG-TS, fragmented MP4).

    Args:
        stream: what is read; standard input by default.
        rate: frames per second of images, which do not say it.
        label: what the source is called in messages: its path, or stdin.

    Raises:
        InputError: nothing was piped, or neither images nor a video.
    """
    source = open_pipe_stream(stream, label)
    container, is_images = open_pipe_container(source, label)
    name = STDIN if label == STDIN else name_source(label)
    return spool_container(container, label, name, rate if is_images else None)


def open_pipe_stream(stream: BinaryIO | None = None, label: str = STDIN) -> PipeStream:
    """A stream, standard input by default, whose first bytes are known. Raises InputError, which begins with `label`,
    where nothing was piped.
    """
    stream = stream or (sys.stdin.buffer if sys.stdin and not sys.stdin.isatty() else BytesIO())  # closed, a keyboard
    source = PipeStream(stream)
    if not source.head:
        raise InputError(f"{label}: nothing was piped; {HOW}")
    return source


def find_image_form(head: bytes) -> str | None:
    """What FFmpeg calls a stream of images that begins with `head`; None where it is none."""
    return next((name for start, name in STARTS.items() if head.startswith(start)), None)


def has_late_index(head: bytes) -> bool:
    r"""Whether an MP4 that begins with `head` has its frames before its index, as cameras and many programs write it.

    >>> has_late_index(b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x08free" + b"\0\0\x10\0mdat")
    True
    """
    at = int.from_bytes(head[:4], "big") if head[4:8] == b"ftyp" else len(head)
    while head[at + 4 : at + 8] in PADDING and (size := int.from_bytes(head[at : at + 4], "big")) >= 8:
        at += size
    return head[at + 4 : at + 8] == b"mdat"


def open_pipe_container(
    source: PipeStream, label: str, options: Mapping[str, str] | None = None
) -> tuple[InputContainer, bool]:
    """What is piped, opened with `options` of FFmpeg, and whether that is images one after the other, which do not say
    their rate. Raises InputError, which begins with `label`, where it is neither images nor a video.
    """
    form = find_image_form(source.head)
    if has_late_index(source.head):
        raise InputError(
            f"{label}: an MP4 whose index comes after its frames cannot be read from a pipe; give the file itself, or "
            "pipe it as `ffmpeg -i clip.mp4 -c copy -f matroska -` makes it"
        )
    try:
        container = av.open(source, "r", format=form, options=dict(options or {}), metadata_errors="replace")
        return container, form is not None
    except (av.FFmpegError, ValueError):
        raise InputError(f"{label}: neither images nor a video; {HOW}") from None


def open_fifo(path: Path, rate: float = RATE) -> SpooledFrames:
    """What somebody writes into a named pipe, as standard input. Raises InputError where nobody does in time."""
    file = open_named_pipe(path)
    try:
        made = open_pipe(file, rate, str(path))
    except BaseException:
        file.close()
        raise
    made.piped = file
    return made


def open_named_pipe(path: Path) -> BinaryIO:
    """A named pipe into which somebody writes. Raises InputError where nobody does in time."""
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # which waits for nobody
    waiting = select.poll()
    waiting.register(reading, select.POLLIN)
    if not waiting.poll(WAIT * 1000):
        os.close(reading)
        raise InputError(f"{path}: nobody wrote into this pipe within {WAIT} s; start what writes, then this")
    os.set_blocking(reading, True)
    return os.fdopen(reading, "rb")


def open_address(source: str) -> SpooledFrames:
    """The video at a network address, or of a camera such as /dev/video0, as it comes. Raises InputError where there
    is none.
    """
    return spool_container(open_live(source), source, name_source(source), None)


def spool_container(container: InputContainer, label: str, name: str, rate: float | None) -> SpooledFrames:
    """The video in a container that is read once.

    Args:
        container: opened; closed at its end.
        label: what the source is called in messages.
        name: of the video.
        rate: frames per second; None takes the stream's own times.
    """
    video = find_video_stream(container)
    if video is None:
        raise InputError(f"{label}: holds no video stream that can be decoded; {HOW}")
    check_stream_size(label, video)
    lost: dict[int, str] = {}
    stream = OneShotStream(container, video, label, rate)
    made = SpooledFrames(fill_gaps(stream.frames(), lost), name, stream.rate, label, lost)
    made.notes, made.pixel_aspect = stream.notes, stream.pixel_aspect
    return made


class PipeStream:
    """A stream that can only be read, with its first bytes looked at."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head = stream.read(HEAD)
        self._ahead = self.head

    def read(self, n: int) -> bytes:
        """Up to `n` bytes of the stream, those that are there, those of the head first; none at its end."""
        out, self._ahead = self._ahead, b""
        return out or getattr(self._stream, "read1", self._stream.read)(n)
