"""What a run leaves in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from masklet.builtins import FORMATS
from masklet.core.ahead import iterate_ahead
from masklet.core.frames import Video, get_frame_names
from masklet.core.progress import Watch
from masklet.core.result import VideoResult

Names = Sequence[str] | None  # of the frames, where the source has them


def find_frame_names(video: Video, length: int) -> Names:
    """The frames' names in a folder of frames; None where they have none, or two have the same."""
    found = get_frame_names(video)
    return found[:length] if found and len(set(found)) == len(found) else None


def write_format(result: VideoResult, video: Video, folder: Path, name: str) -> None:
    """Writes the format `name` of a `result` and its `video` into a `folder`. Raises InputError where the format cannot
    say this result.
    """
    FORMATS.find(name).load()(result, find_frame_names(video, result.length), folder)


def write_overlay(result: VideoResult, video: Video, path: Path, watch: Watch) -> None:
    """The video with its masklets drawn in."""
    from masklet.io.video.encode import VideoWriter  # and FFmpeg and fonts, which nothing else here needs
    from masklet.view.drawing import draw_result

    with VideoWriter(path, result.size, result.rate, result.pixel_aspect, bool(result.times)) as writer:
        drawn = ((frame.index, draw_result(frame.image, result, frame.index)) for frame in video)
        for index, image in iterate_ahead(drawn):
            writer.write(image, result.times[index] if result.times else 0.0)
            watch("overlay", index + 1, result.length, len(result.masklets))
