"""`masklet export overlay`: videos with their masklets drawn in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from masklet.core.errors import InputError
from masklet.core.limits import parse_whole_number
from masklet.core.result import VideoResult
from masklet.io.exports.exported_results import ExportedResults
from masklet.io.video.encode import CRF, VideoWriter
from masklet.view.drawing import DrawingStyle, draw_result

WORST = 51  # of H.264's qualities


@dataclass(frozen=True)
class OverlaySettings(DrawingStyle):
    """How the videos look."""

    only: str | int = ""  # ids of the objects that are drawn, such as "3,7"; all by default
    fps: float = 0.0  # frames per second, in place of the video's own
    crf: int = CRF  # quality of the video, from 0, which loses nothing, to 51
    side_by_side: bool = False  # whether the plain frame is at the left

    def check(self) -> None:
        """Raises InputError where a setting is above what it means anything for."""
        for name, value, most in (("opacity", self.opacity, 1), ("crf", self.crf, WORST), ("smooth", self.smooth, 100)):
            if value > most:
                raise InputError(f"setting overlay.{name} = {value:g} must be a number from 0 to {most}")


def write_overlays(results: ExportedResults, folder: Path, **settings: Any) -> None:
    """Writes the videos with their masklets drawn in.

    Args:
        results: of videos that are given.
        folder: which gets <video>.mp4.
        **settings: of `OverlaySettings`.

    Raises:
        InputError: a video is not given, an id is not there, or a setting is out of range.
    """
    style = OverlaySettings(**settings)
    style.check()
    for result in results:
        results.require_video(result)
    for result in [select_objects(result, str(style.only)) for result in results]:
        path = folder / f"{result.name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = result.size[0], result.size[1] * (1 + style.side_by_side)
        timed = bool(result.times) and not style.fps
        with VideoWriter(path, size, style.fps or result.rate, result.pixel_aspect, timed, style.crf) as writer:
            for frame in results.read_frames(result):
                drawn = draw_result(frame.image, result, frame.index, style)
                pair = np.concatenate([frame.image, drawn], axis=1) if style.side_by_side else drawn
                writer.write(pair, result.times[frame.index] if timed else 0.0)


def select_objects(result: VideoResult, ids: str) -> VideoResult:
    """The result with the objects alone whose ids are in a text such as "3,7"; all where it is empty. Raises InputError
    where one is not there.
    """
    numbers = [parse_whole_number(word) for word in ids.replace(",", " ").split()]
    there = {m.id for m in result.masklets}
    if not there.issuperset(numbers):
        raise InputError(f"{result.name}: setting overlay.only = {ids!r}: there are the objects {sorted(there)[:20]}")
    return replace(result, masklets=tuple(m for m in result.masklets if not numbers or m.id in numbers))
