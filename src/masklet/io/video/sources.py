"""Videos: from files, folders, globs, pipes and memory, all behind `core.frames.Video`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from re import split
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.io.video.decode import convert_upright_rgb, decode_frames, find_video_stream
from masklet.io.video.frame_source import DamagedSourceError, FrameSource
from masklet.io.video.images import RATE, FramesInMemory, ImageSequence, is_image_file, iterate_live_frames
from masklet.io.video.spool import STDIN, SpooledFrames, open_pipe

__all__ = ["iterate_live_frames", "list_video_sources", "make_unique_names", "open_video"]

GIVE = "give a video file, a folder of images, a glob, or - for a pipe"


def open_video(source: Any, rate: float = RATE) -> FrameSource:
    """A video that can be read more than once; closes as a context manager.

    Args:
        source: a path or glob as str or Path, "-" for standard input, an array uint8 [t h w 3], a list or any
            iterable of RGB images (uint8 [h w 3], PIL images, frames). What can be iterated only once is kept
            without loss in a temporary folder.
        rate: frames per second of images, which do not say it themselves.

    Returns:
        The frames as uint8 RGB. `damage` says after reading why they ended early, if they did.

    Raises:
        InputError: nothing there, not a video, no frames; while reading: frames of differing sizes.
    """
    if isinstance(source, str | Path):
        return _open_path(str(source), rate)
    if isinstance(source, np.ndarray) or (isinstance(source, Sequence) and not isinstance(source, bytes)):
        return FramesInMemory(list(source) if isinstance(source, np.ndarray) else source, "frames", rate)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return SpooledFrames(iterate_live_frames(source, rate), "frames", rate)
    raise InputError(f"{type(source).__name__} is no source of frames; {GIVE}")


def _open_path(source: str, rate: float) -> FrameSource:
    path = Path(source)
    if source == "-":
        return open_pipe()
    try:
        if path.is_dir():
            return _open_image_folder(path, rate)
        if path.exists() or not has_magic(source):
            return VideoFile(path)
    except OSError as error:
        raise InputError(f"{source}: {(error.strerror or str(error)).lower()}; {GIVE}") from None
    found = _find_glob_matches(source)
    if all(is_image_file(p) for p in found):
        return ImageSequence(found, source, name_source(source), rate)
    if len(found) > 1:
        raise InputError(f"{source}: matches {len(found)} files that are not all images; give one video")
    return _open_path(str(found[0]), rate)


def _open_image_folder(path: Path, rate: float) -> ImageSequence:
    found = sorted((p for p in path.iterdir() if is_image_file(p)), key=make_natural_key)
    if not found:
        raise InputError(f"{path}: a folder without images; give a video file or a folder of jpg or png frames")
    return ImageSequence(found, str(path), name_source(str(path)), rate)


def make_natural_key(path: Path) -> tuple[tuple[int, int | str], ...]:
    """A sort key that counts: 2.png before 10.png."""
    parts = split(r"(\d+)", str(path))
    return (*tuple((0, int(p)) if p.isdecimal() else (1, p) for p in parts if p), (1, str(path)))


def _find_glob_matches(pattern: str) -> list[Path]:
    found = sorted((Path(p) for p in glob(pattern, recursive=True)), key=make_natural_key)
    if not found:
        raise InputError(f"{pattern}: matches no file; {GIVE}")
    return found


def list_video_sources(argument: str) -> list[str]:
    """The videos that one argument of the command line means: a glob of videos means each of them.

    A glob of images is one video of frames. Raises InputError where a glob matches nothing, or images and videos.
    """
    if argument == "-" or not has_magic(argument) or Path(argument).exists():
        return [argument]
    found = _find_glob_matches(argument)
    pictures = [p for p in found if is_image_file(p)]
    if len(pictures) == len(found):
        return [argument]
    if pictures:
        raise InputError(f"{argument}: matches images and other files ({found[0].name}, ...); narrow it down")
    return [str(p) for p in found]


def name_source(source: str) -> str:
    """What a video is called: a file's stem, a folder's name, for a glob that of the folder it looks in."""
    if source == "-":
        return STDIN
    path = Path(source)
    if not path.exists() and has_magic(source):
        path = next(p for p in path.parents if not has_magic(str(p)))
    name = path.resolve().name if path.is_dir() else path.stem
    return name.lstrip(".-") or "video"


def make_unique_names(given: Sequence[str]) -> list[str]:
    """A name for each source; equal ones are numbered, in order: clip, clip-2, clip-3."""
    taken: set[str] = set()
    names = []
    for name in map(name_source, given):
        free = (name if n == 1 else f"{name}-{n}" for n in range(1, len(given) + 1))
        names.append(next(n for n in free if n not in taken))
        taken.add(names[-1])
    return names


class FrameMark(NamedTuple):
    """Where one frame of a file is found again."""

    pts: int | None  # in the stream's time base
    key: bool  # decoding can start here


class VideoFile(FrameSource):
    """A video file. Windows are read from the key frame before them."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), name_source(str(path)), RATE)
        self.path = path
        self._marks: list[FrameMark] = []
        self._claim: int | None = None
        self._check_file()
        with self._open() as (_, stream):
            self.rate = float(stream.average_rate or stream.guessed_rate or RATE)
            self._base = float(stream.time_base or 1 / RATE)
            self._claim = stream.frames or None
        self.start()

    def _check_file(self) -> None:
        try:
            with self.path.open("rb") as file:
                if not file.read(1):
                    raise InputError(f"{self.path}: the file is empty; give a video")
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file; {GIVE}") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); {GIVE}") from None

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            container = av.open(f"file:{self.path}")  # the prefix, or a colon in the name would be a protocol
        except (av.FFmpegError, UnicodeError, ValueError) as error:
            why = getattr(error, "strerror", None) or "its name is not UTF-8"
            raise InputError(f"{self.path}: not a video that can be read ({why}); {GIVE}") from None
        with container:
            stream = find_video_stream(container)
            if stream is None:
                raise InputError(f"{self.path}: no video stream; {GIVE}")
            yield container, stream

    def said(self) -> int:
        if self._claim is None:
            self._claim = self._count()
        return self._claim

    def _count(self) -> int:
        """How many packets the file has, for containers that do not count them."""
        n = 0
        with self._open() as (container, stream):
            try:
                for packet in container.demux(stream):
                    n += packet.size > 0
            except av.FFmpegError:  # the frames before it are what can be hoped for
                pass
        return n

    def frames(self) -> Iterator[Frame]:
        for n, picture in enumerate(self._pictures()):
            yield self._frame(n, picture)

    def _frame(self, n: int, picture: av.VideoFrame) -> Frame:
        start, now = self._marks[0].pts, self._marks[n].pts
        time = n / self.rate if start is None or now is None else (now - start) * self._base
        return Frame(n, convert_upright_rgb(picture), time)

    def _pictures(self) -> Iterator[av.VideoFrame]:
        """All frames from the first on, decoded, their marks noted on the way."""
        with self._open() as (container, stream):
            for n, picture in enumerate(decode_frames(container, stream)):
                if n == len(self._marks):
                    self._marks.append(FrameMark(picture.pts, bool(picture.key_frame)))
                yield picture

    def read(self, start: int, stop: int) -> list[Frame]:
        self._mark(stop)
        stop = min(stop, len(self._marks))
        if start >= stop:
            return []
        for key in self._entries(start):
            found = self._from_key(key, start, stop)
            if found is not None:
                return found
        return self._from_first(start, stop)

    def _mark(self, stop: int) -> None:
        """Makes sure that the frames before `stop` have been seen once."""
        if len(self._marks) >= stop or self._length is not None:
            return
        try:
            for n, _ in enumerate(self._pictures()):
                if n + 1 >= stop:
                    return
        except DamagedSourceError:
            return

    def _entries(self, start: int) -> list[int]:
        """The two key frames before a frame, the nearest first; none where timestamps tell nothing."""
        stamps = [m.pts for m in self._marks]
        if None in stamps or any(a >= b for a, b in itertools.pairwise(stamps)):  # type: ignore[operator]
            return []
        keys = [n for n in range(1, start + 1) if self._marks[n].key]
        return keys[:-3:-1]

    def _from_key(self, key: int, start: int, stop: int) -> list[Frame] | None:
        """The window, decoded from a key frame on; None where the container does not lead there."""
        wanted = {self._marks[n].pts: n for n in range(start, stop)}
        found: list[Frame] = []
        with self._open() as (container, stream):
            try:
                container.seek(self._marks[key].pts or 0, stream=stream)
                for seen, picture in enumerate(decode_frames(container, stream)):
                    if seen == 0 and not (picture.key_frame and picture.pts in {m.pts for m in self._marks[: key + 1]}):
                        return None
                    if picture.pts in wanted:
                        found.append(self._frame(wanted[picture.pts], picture))
                    if len(found) == len(wanted):
                        break
            except (av.FFmpegError, DamagedSourceError):
                pass
        return found if [f.index for f in found] == list(range(start, stop)) else None

    def _from_first(self, start: int, stop: int) -> list[Frame]:
        found: list[Frame] = []
        try:
            for n, picture in enumerate(self._pictures()):
                if n >= start:
                    found.append(self._frame(n, picture))
                if n + 1 == stop:
                    break
        except DamagedSourceError:  # cannot be: these frames have been decoded before
            raise InputError(f"{self.path}: changed while it was read; run again") from None
        return found
