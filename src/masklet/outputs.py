"""What a run leaves in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from masklet.core.frames import Video
from masklet.core.protocols import Watch
from masklet.core.result import VideoResult
from masklet.io.davis import write_davis
from masklet.io.encode import VideoWriter
from masklet.io.ytvis import write_ytvis
from masklet.view.drawing import draw

FORMATS: Mapping[str, Callable[[VideoResult, Video, Path], None]] = {
    "davis": lambda result, video, folder: write_davis(result, folder / "davis", getattr(video, "frame_names", None)),
    "ytvis": lambda result, video, folder: write_ytvis([result], folder / "ytvis.json"),
}


def write_outputs(
    result: VideoResult, video: Video, folder: Path, formats: Sequence[str], overlay: bool, watch: Watch
) -> None:
    """masklets.json, the formats asked for, and overlay.mp4."""
    result.save(folder / "masklets.json")
    for name in formats:
        FORMATS[name](result, video, folder)
    if overlay:
        write_overlay(result, video, folder / "overlay.mp4", watch)


def write_overlay(result: VideoResult, video: Video, path: Path, watch: Watch) -> None:
    """The video with its masklets drawn in."""
    with VideoWriter(path, result.size, result.rate) as writer:
        for frame in video:
            writer.write(draw(frame.image, result, frame.index))
            watch("overlay", frame.index + 1, result.length, len(result.masklets))
