"""Sources without an end, frame by frame as they come: pipes, cameras, addresses. What has passed is not kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from av.container import InputContainer

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.limits import LARGEST_ASPECT
from masklet.io.video.decode import find_video_stream
from masklet.io.video.frame_source import DamagedSourceError, fill_gaps, format_size
from masklet.io.video.image_pipe import iterate_piped_images
from masklet.io.video.images import RATE
from masklet.io.video.network import is_address, is_camera, open_live
from masklet.io.video.one_pass import OneShotStream
from masklet.io.video.source_names import STDIN, name_source
from masklet.io.video.sources import open_video
from masklet.io.video.spool import (
    HOW,
    PipeStream,
    find_image_form,
    open_named_pipe,
    open_pipe_container,
    open_pipe_stream,
)

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before another try
BRIEF = {"analyzeduration": "500000"}  # for FFmpeg: microseconds after which it knows what is in a stream
ENDLESS = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp")  # which end only where the connection does


class _Unnoted(dict[int, str]):
    """Takes note of nothing: an endless source may lose frames without end."""

    def __setitem__(self, key: int, value: str) -> None:
        pass


class LiveFrames:
    """The frames of a source as they come, counted from 0, all of one size; times in seconds from the first.

    It looks like a `Video` to those who check prompts: its size is that of the first frame, its length 0, unknown.
    `damage` says, after the last frame, why there are no more where somebody hung up or they cannot be read on.
    """

    def __init__(
        self, source: str, reconnect: int = 0, tell: Callable[[str], None] = lambda sentence: None, rate: float = RATE
    ) -> None:
        """
        Args:
            source: "-", a named pipe, a camera, an address; or a file, a folder or a glob, which end.
            reconnect: tries in a row to open an address or a camera again that ends or cannot be read on.
            tell: is given a sentence on each.
            rate: frames per second of images, which do not say it themselves.

        Raises:
            InputError: it cannot be opened, or holds no frame.
        """
        self.name, self.rate = name_source(source), rate
        self.pixel_aspect = 1.0  # width of a pixel over its height
        self.damage: str | None = None
        self._source, self._reconnect, self._tell = source, reconnect, tell
        self._frames = self._count_frames()
        first = next(self._frames, None)
        if first is None:
            raise InputError(f"{source}: holds no frame; give a video with at least one")
        self.size = first.size
        self._first: Frame | None = first

    def __len__(self) -> int:
        return 0

    def read(self, start: int, stop: int) -> list[Frame]:
        """Nothing: what has passed is gone."""
        return []

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        for frame in self._frames:
            if frame.size != self.size:
                told = f"{format_size(frame.size)}, the first one {format_size(self.size)}"
                raise InputError(f"{self._source}: frame {frame.index} is {told}; give frames of one size")
            yield frame

    def _count_frames(self) -> Iterator[Frame]:
        """The frames of all connections, one after the other."""
        numbers, left, wait = count(), self._reconnect, FIRST_WAIT
        begun, last = None, 0.0  # when, by this machine's clock, the first frame came; the last one's time
        while True:
            offset = 0.0 if begun is None else max(time.monotonic() - begun, last + 1 / self.rate)
            reason = "the connection ended"
            try:
                for frame in self._connect():
                    begun = time.monotonic() if begun is None else begun
                    left, wait, last = self._reconnect, FIRST_WAIT, frame.time + offset
                    yield Frame(next(numbers), frame.image, last, frame.name)
                if not self._ends_with_connection():
                    return
            except (InputError, DamagedSourceError) as error:
                if begun is None and isinstance(error, InputError):
                    raise
                reason = str(error)
            reason = reason if reason.startswith(self._source) else f"{self._source}: {reason}"
            if not left:
                self.damage = reason
                return
            self._tell(f"{reason}; it is opened again ({left} {'try' if left == 1 else 'tries'} left)")
            time.sleep(wait)
            left, wait = left - 1, min(2 * wait, LONGEST_WAIT)

    def _ends_with_connection(self) -> bool:
        """Whether the end of the source means that somebody hung up."""
        return self._source.partition("://")[0].lower() in ENDLESS or is_camera(Path(self._source))

    def _connect(self) -> Iterator[Frame]:
        """The frames up to the end or to where they cannot be read on."""
        path = Path(self._source)
        if is_address(self._source) or is_camera(path):
            return self._decode(open_live(self._source, BRIEF))
        if self._source == "-":
            return self._read_pipe(open_pipe_stream(), STDIN)
        if path.is_fifo():
            return self._read_pipe(open_pipe_stream(open_named_pipe(path), self._source), self._source)
        return self._read_file()

    def _read_pipe(self, source: PipeStream, label: str) -> Iterator[Frame]:
        if find_image_form(source.head):
            return fill_gaps(iterate_piped_images(source, self.rate), _Unnoted())
        return self._decode(open_pipe_container(source, label, BRIEF)[0])

    def _decode(self, container: InputContainer) -> Iterator[Frame]:
        video = find_video_stream(container)
        if video is None:
            raise InputError(f"{self._source}: holds no video stream that can be decoded; {HOW}")
        stream = OneShotStream(container, video, self._source)
        self.rate = stream.rate
        for frame in fill_gaps(stream.frames(), _Unnoted()):
            told = stream.pixel_aspect  # by its first frame
            self.pixel_aspect = told if 1 / LARGEST_ASPECT <= told <= LARGEST_ASPECT else 1.0
            yield frame

    def _read_file(self) -> Iterator[Frame]:
        with open_video(self._source, self.rate) as video:
            self.rate, self.pixel_aspect = video.rate, video.pixel_aspect
            yield from video
            self.damage = video.damage
