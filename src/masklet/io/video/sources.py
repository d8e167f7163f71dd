"""Videos: from files, folders, globs, addresses, pipes and memory, all behind `core.frames.Video`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from masklet.core.errors import InputError
from masklet.core.files import path_exists
from masklet.core.frames import Video, describe_reading, get_frame_names, get_origin, read_through
from masklet.core.limits import check_frame_rate
from masklet.core.result import VideoResult, create_empty_result
from masklet.core.wording import name_argument
from masklet.io.video.datasets import guess_layouts
from masklet.io.video.frame_source import FrameSource
from masklet.io.video.image_sequence import ImagePages, ImageSequence, list_some
from masklet.io.video.images import (
    IMAGE_ERRORS,
    RATE,
    FramesInMemory,
    is_image_file,
    iterate_live_frames,
    read_image_header,
)
from masklet.io.video.network import is_address, is_camera
from masklet.io.video.selection import (
    FrameSelection,
    Position,
    SelectedFrames,
    is_choosing,
    read_recorded_selection,
)
from masklet.io.video.source_names import (
    GIVE,
    Source,
    describe_source,
    make_natural_key,
    make_unique_names,
    name_source,
    sort_naturally,
)

__all__ = [
    "begin_result",
    "describe_source",
    "find_own_video",
    "group_video_sources",
    "is_list_of_images",
    "iterate_live_frames",
    "list_own_frame_names",
    "list_video_sources",
    "make_natural_key",
    "make_unique_names",
    "name_source",
    "open_video",
    "record_source",
    "reopen_video",
]

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".mpg", ".m4v", ".gif", ".mts", ".wmv"})
MASK_FOLDERS = ("annotation", "mask", "label", "segmentation", "gt", "depth", "panomask")
DEEPEST, MOST_FOLDERS = 3, 500  # where images are looked for in a folder without any


def open_video(
    source: Any,
    rate: float = RATE,
    *,
    start: Position = 0,
    end: Position | None = None,
    stride: int = 1,
    fps: float | None = None,
    max_side: int | None = None,
    max_frames: int | None = None,
    strict: bool = False,
    allow_network: bool = False,
    device: str = "cpu",
) -> FrameSource:
    """A video that can be read more than once; closes as a context manager.

    What is done to the frames, noted or refused: docs/sources.md.

    Args:
        source: a path or glob as str or Path, an address (http, rtsp), a camera (/dev/video0), "-" for standard input,
            a list of image files, an array uint8 [t h w 3], a list or any iterable of RGB images (uint8 [h w 3], PIL
            images, frames). What can be iterated only once is kept without loss in a temporary folder.
        rate: frames per second of images, which do not say it themselves.
        start, end: the first frame that is used and the one before which they end: numbers from 0, or times such as
            "4.5s" or "1:30".
        stride: every so many-th frame is used.
        fps: at most so many frames a second are used.
        max_side: pixels of the longer side to which larger frames are reduced.
        max_frames: at most so many are used.
        strict: whether a damaged source is refused, when the damage is met.
        allow_network: whether a playlist may open the files and addresses that it names.
        device: "cuda" or "cuda:1" lets the decoder of that card decode a file, where it can; with `strict` it is left
            to the CPU, which sees more damage.

    Returns:
        The frames as uint8 RGB, counted from 0 whichever of the source's are used. `damage` says after reading why
        they ended early, if they did; `gaps` which ones could not be read, `notes` what else was done to them.

    Raises:
        InputError: nothing there, not a video, no frames; while reading: frames of differing sizes.
    """
    first = 0 if str(start) == "0" else start  # as the command line says it
    selection = FrameSelection(first, end, stride, fps, max_side, max_frames)
    selection.check()
    check_frame_rate("rate", rate)
    reading = FileReading(allow_network, "cpu" if strict else device)
    opened = _open_source(source, rate, reading)
    opened.strict = strict
    try:
        opened.check_limits()
        if strict:
            opened.check_before_reading()
        if strict and opened.lost:
            raise InputError(opened.refuse_gap())
        return opened if selection == FrameSelection() else SelectedFrames(opened, selection)
    except BaseException:
        opened.close()
        raise


def reopen_video(result: VideoResult, source: Any, reading: Mapping[str, Any]) -> FrameSource:
    """Opens the video that a `result` is of, for the same frames.

    Args:
        result: of the video.
        source: as in `open_video`.
        reading: keyword arguments of `open_video`. Where they choose no frames, those of a path are taken of which the
            result was made, if they are as many and as large as its; else all.

    Returns:
        The frames, which may be of another size and number than the result's.

    Raises:
        InputError: as `open_video`.
    """
    is_told = is_choosing(reading) or not isinstance(source, str | Path)
    if recorded := {} if is_told else read_recorded_selection(result):
        with suppress(InputError), ExitStack() as stack:
            video = stack.enter_context(open_video(source, **{**reading, **recorded}))
            if is_video_of(result, video):
                stack.pop_all()
                return video
    return open_video(source, **reading)


def record_source(source: Any, video: Video) -> str:
    """Where a `video` comes from, for the results of it: what it can be opened by again, else what was said as its
    `source`.
    """
    return get_origin(video) or describe_source(source)


def begin_result(source: Any, video: Video, version: str, name: str = "") -> VideoResult:
    """The result of a `video`, opened by `source`, of which nothing is known yet, by this `version` of the package; its
    name is the video's, unless `name` is given.
    """
    begun = create_empty_result(video)
    read, origin = describe_reading(video), record_source(source, video)
    made = replace(begun.provenance, settings=read, version=version, source=origin)
    return replace(begun, name=name or begun.name, provenance=made)


def find_own_video(result: VideoResult) -> str:
    """Where a result says that its video is; "" where nothing is there any more. A pipe or an address is not opened."""
    source = result.provenance.source
    if not source or not path_exists(Path(source)):
        return source if has_magic(source) and glob(source) else ""
    return source if Path(source).is_file() or Path(source).is_dir() else ""


def list_own_frame_names(result: VideoResult) -> Sequence[str]:
    """The names of a result's frames, where it was made from images that are still there; else none."""
    source = find_own_video(result)
    if not source or (Path(source).is_file() and not is_image_file(Path(source))):
        return ()
    with suppress(InputError), reopen_video(result, source, {}) as video:
        names = get_frame_names(video)
        return names if len(names) == result.length else ()
    return ()


def is_video_of(result: VideoResult, video: Video) -> bool:
    """Whether a `video` has as many frames as a `result`, and as large ones."""
    if video.size == result.size and len(video) != result.length:
        read_through(video)  # what a container says of its length may be wrong
    return video.size == result.size and len(video) == result.length


class FileReading(NamedTuple):
    """How video files are read."""

    allow_network: bool  # whether a playlist may open other files and addresses
    device: str  # whose decoder is used, where it has one


def _open_source(source: Any, rate: float, reading: FileReading) -> FrameSource:
    """The whole of a source."""
    if isinstance(source, str | Path):
        return _open_path(str(source), rate, reading)
    if is_list_of_images(source):
        paths = [Path(p) for p in source]
        return ImageSequence(paths, str(paths[0].parent), name_source(tuple(map(str, paths))), rate)
    if isinstance(source, np.ndarray) or (isinstance(source, Sequence) and not isinstance(source, bytes)):
        return FramesInMemory(list(source) if isinstance(source, np.ndarray) else source, "frames", rate)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        from masklet.io.video.spool import SpooledFrames

        return SpooledFrames(iterate_live_frames(source, rate), "frames", rate)
    raise InputError(f"{type(source).__name__} is no source of frames; {GIVE}")


def is_list_of_images(source: Any) -> bool:
    """Whether a source is a list of the paths of image files.

    >>> is_list_of_images(["0.png", "1.png"]), is_list_of_images(["a.mp4", "b.mp4"])
    (True, False)
    """
    if not isinstance(source, list | tuple) or not source:
        return False
    return all(isinstance(p, str | Path) and is_image_file(Path(p)) for p in source)


def _open_path(source: str, rate: float, reading: FileReading) -> FrameSource:
    path = Path(source)
    if source == "-" or is_address(source):
        return _open_stream(source, rate)
    try:
        if path.is_dir():
            return _open_image_folder(path, rate)
        if path.is_fifo() or is_camera(path):
            return _open_stream(source, rate)
        if path.is_file() and is_image_file(path):
            return _open_image_file(path, rate)
        if path.exists() or not has_magic(source):
            from masklet.io.video.hardware import find_hardware_decoder  # and FFmpeg, which images do not need
            from masklet.io.video.video_file import VideoFile

            return VideoFile(path, reading.allow_network, find_hardware_decoder(reading.device))
    except OSError as error:
        raise InputError(f"{source}: {(error.strerror or str(error)).lower()}; {GIVE}") from None
    return _open_glob(source, rate, reading)


def _open_stream(source: str, rate: float) -> FrameSource:
    """What can be read once: standard input, an address, a named pipe or a camera."""
    from masklet.io.video.spool import open_address, open_fifo, open_pipe  # and FFmpeg, which images do not need

    if source == "-":
        return open_pipe(rate=rate)
    is_live = is_address(source) or is_camera(Path(source))
    return open_address(source) if is_live else open_fifo(Path(source), rate)


def _open_glob(source: str, rate: float, reading: FileReading) -> FrameSource:
    found = _find_glob_matches(source)
    if all(is_image_file(p) for p in found):
        return ImageSequence(found, source, name_source(source), rate)
    if len(found) > 1:
        raise InputError(f"{source}: matches {len(found)} files that are not all images; give one video")
    return _open_path(str(found[0]), rate, reading)


def _open_image_file(path: Path, rate: float) -> FrameSource:
    """One image as a video of one frame, or of its pages."""
    pages = count_pages(path)
    name = name_source(str(path))
    return ImagePages(path, str(path), name, rate) if pages > 1 else ImageSequence([path], str(path), name, rate)


def count_pages(path: Path) -> int:
    """How many pages an image file has; 1 where it cannot be read."""
    try:
        return read_image_header(path).pages
    except IMAGE_ERRORS:
        return 1


def _open_image_folder(path: Path, rate: float) -> FrameSource:
    found = sort_naturally(p for p in path.iterdir() if is_image_file(p))
    if not found:
        raise InputError(f"{path}: a folder without images{_suggest_inside(path)}")
    if len(found) == 1 and count_pages(found[0]) > 1:
        return ImagePages(found[0], str(found[0]), name_source(str(path)), rate)
    return ImageSequence(found, str(path), name_source(str(path)), rate)


def _suggest_inside(folder: Path) -> str:
    """What to give in place of a folder without images, by what lies in it."""
    frames = _find_frame_folders(folder)
    if frames:
        best = min(frames, key=lambda p: (_is_mask_folder(p, folder), len(p.parts), make_natural_key(p)))
        beside = [p for p in frames if p.parent == best.parent]
        all_of_them = f", or all {len(beside)} there as '{best.parent}/*'" if len(beside) > 1 else ""
        return f"; those lie further inside: give one video such as {best}{all_of_them}{_suggest_layout(folder)}"
    videos = sort_naturally(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        held = list_some([p.name for p in videos])
        return f", but with videos ({held}); give one of them, or all as '{folder}/*{videos[0].suffix}'"
    return f"; give a video file or a folder of jpg or png frames{_suggest_layout(folder)}"


def _suggest_layout(folder: Path) -> str:
    named = guess_layouts(folder)
    return f"; or, as it may be {', '.join(named)}, the root with {name_argument('dataset', named[0])}" if named else ""


def _is_mask_folder(path: Path, root: Path) -> bool:
    inside = str(path.relative_to(root)).lower()
    return any(word in inside for word in MASK_FOLDERS)


def _find_frame_folders(folder: Path) -> list[Path]:
    """Folders with images in a folder, not deeper than three below it."""
    level, found, seen = [folder], list[Path](), 0
    for _ in range(DEEPEST):
        inside = [p for parent in level for p in sort_naturally(parent.iterdir()) if p.is_dir()]
        level = inside[: MOST_FOLDERS - seen]
        seen += len(level)
        found += [p for p in level if any(is_image_file(one) for one in p.iterdir())]
    return found


def _find_glob_matches(pattern: str) -> list[Path]:
    found = sort_naturally(Path(p) for p in glob(pattern, recursive=True))
    path = Path(pattern)
    if not found and path.parent.is_dir():  # whose own name has brackets in it
        found = sort_naturally(Path(p) for p in glob(str(Path(escape(str(path.parent))) / path.name)))
    if not found:
        raise InputError(f"{pattern}: matches no file; {GIVE}")
    return found


def check_source_exists(source: str) -> None:
    """Raises InputError for a path where nothing is; what a pipe, an address or a glob gives is not looked at."""
    if source != "-" and not is_address(source) and not has_magic(source) and not path_exists(Path(source)):
        raise InputError(f"{source}: no such file; {GIVE}")


def list_video_sources(argument: str) -> list[str]:
    """The videos that one argument of the command line means: a glob of videos means each of them.

    A glob of images is one video of frames. Raises InputError where a glob matches nothing, or images and videos.
    """
    if argument == "-" or is_address(argument) or not has_magic(argument) or Path(argument).exists():
        return [argument]
    found = _find_glob_matches(argument)
    images = [p for p in found if is_image_file(p)]
    if len(images) == len(found):
        return [argument]
    if images:
        raise InputError(f"{argument}: matches images and other files ({found[0].name}, ...); narrow it down")
    return [str(p) for p in found]


def group_video_sources(arguments: Sequence[str]) -> list[Source]:
    """The videos that the arguments of the command line mean: as `list_video_sources`, and image files of one folder,
    as a shell makes them of frames/*.png, are one video, in the order of their numbers.
    """
    folders: dict[Path, list[Path]] = {}
    for one in map(Path, arguments):
        if is_image_file(one) and one.is_file():
            folders.setdefault(one.parent, []).append(one)
    groups: list[Source] = []
    for argument in arguments:
        path = Path(argument)
        if len(folders.get(path.parent, ())) < 2 or path not in folders[path.parent]:
            groups += list_video_sources(argument)
        elif path == folders[path.parent][0]:
            groups.append(tuple(map(str, sort_naturally(dict.fromkeys(folders[path.parent])))))
    return groups
