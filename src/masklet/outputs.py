"""What a run leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from masklet.builtins import FORMATS
from masklet.core.errors import InputError
from masklet.core.frames import Video, get_frame_names
from masklet.core.limits import parse_whole_number
from masklet.core.progress import Watch
from masklet.core.result import VideoResult
from masklet.io.exports.exported_results import ExportedResults
from masklet.io.formats.burst import write_burst
from masklet.io.formats.cocovid import write_cocovid
from masklet.io.formats.davis import write_davis, write_davis16, write_referring
from masklet.io.formats.mots import write_mots
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.postprocess import limit_objects
from masklet.io.formats.ytvis import write_ytvis
from masklet.io.video.encode import VideoWriter
from masklet.view.drawing import TINT, DrawingStyle, draw_result

Names = Sequence[str] | None  # of the frames, where the source has them


def find_frame_names(video: Video, length: int) -> Names:
    """The frames' names in a folder of frames; None where they have none, or two have the same."""
    found = get_frame_names(video)
    return found[:length] if found and len(set(found)) == len(found) else None


def map_frame_names(result: VideoResult, names: Names) -> Mapping[str, Sequence[str]] | None:
    """The frames' names by video."""
    return None if names is None else {result.name: names}


def put_davis(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts DAVIS 2017's palette PNGs of `result` into `folder`; `names` are its frames'."""
    write_davis(result, folder / "davis", names)


def put_davis16(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts DAVIS 2016's black and white PNGs of `result` into `folder`; `names` are its frames'."""
    write_davis16(result, folder / "davis16", names)


def put_davis_unsupervised(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts DAVIS 2017's palette PNGs of the 20 best objects of `result` into `folder`; `names` are its frames'."""
    write_davis(limit_objects(result), folder / "davis-unsupervised", names)


def put_ref(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts a folder of PNGs for each object (Ref-DAVIS) of `result` into `folder`; `names` are its frames'."""
    write_referring(result, folder / "ref", names)


def put_ytvis(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts ytvis.json of `result` into `folder`; `names` are its frames'."""
    write_ytvis([result], folder / "ytvis.json")


def put_burst(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts burst.json of `result` into `folder`; `names` are its frames'."""
    write_burst([result], folder / "burst.json", map_frame_names(result, names))


def put_vipseg(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts VIPSeg's panoptic PNGs of `result` into `folder`; `names` are its frames'."""
    write_panoptic([result], folder / "vipseg", map_frame_names(result, names))


def put_mots(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts mots.txt of `result` into `folder`; `names` are its frames'."""
    write_mots(result, folder / "mots.txt")


def put_cocovid(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts cocovid.json of `result` into `folder`; `names` are its frames'."""
    write_cocovid([result], folder / "cocovid.json", map_frame_names(result, names))


def write_formats(result: VideoResult, video: Video, folder: Path, formats: Sequence[str]) -> list[str]:
    """The formats asked for; returns what a format cannot say of this result."""
    failed = []
    for name in formats:
        try:
            FORMATS.find(name).load()(result, find_frame_names(video, result.length), folder)
        except InputError as error:  # the result itself is not lost by that
            failed.append(f"{name}: {error}")
    return failed


def write_overlay(result: VideoResult, video: Video, path: Path, watch: Watch) -> None:
    """The video with its masklets drawn in."""
    with VideoWriter(path, result.size, result.rate, result.pixel_aspect, bool(result.times)) as writer:
        for frame in video:
            time = result.times[frame.index] if result.times else 0.0
            writer.write(draw_result(frame.image, result, frame.index), time)
            watch("overlay", frame.index + 1, result.length, len(result.masklets))


def write_overlays(
    results: ExportedResults,
    folder: Path,
    opacity: float = TINT,
    labels: bool = True,
    contours: bool = True,
    only: str | int = "",
    fps: float = 0.0,
    side_by_side: bool = False,
) -> None:
    """Writes the videos with their masklets drawn in.

    Args:
        results: of videos that are given.
        folder: which gets <video>.mp4.
        opacity: how much of the colour lies over an object, 0 to 1
        labels: false leaves out names, ids and scores
        contours: false leaves out the outlines
        only: ids of the objects that are drawn, such as "3,7"; all by default
        fps: frames per second, in place of the video's own
        side_by_side: true for the plain frame at the left

    Raises:
        InputError: a video is not given, an id is not there, or the opacity is above 1.
    """
    if opacity > 1:
        raise InputError(f"setting overlay.opacity = {opacity:g} must be a number from 0 to 1")
    for result in results:
        results.require_video(result)
    shown = [select_objects(result, str(only)) for result in results]
    style = DrawingStyle(opacity, labels, contours)
    for result in shown:
        path = folder / f"{result.name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = result.size[0], result.size[1] * (1 + side_by_side)
        timed = bool(result.times) and not fps
        with VideoWriter(path, size, fps or result.rate, result.pixel_aspect, timed) as writer:
            for frame in results.read_frames(result):
                drawn = draw_result(frame.image, result, frame.index, style)
                pair = np.concatenate([frame.image, drawn], axis=1) if side_by_side else drawn
                writer.write(pair, result.times[frame.index] if timed else 0.0)


def select_objects(result: VideoResult, ids: str) -> VideoResult:
    """The result with the objects alone whose ids are in a text such as "3,7"; all where it is empty. Raises InputError
    where one is not there.
    """
    numbers = [parse_whole_number(word) for word in ids.replace(",", " ").split()]
    there = {m.id for m in result.masklets}
    odd = next((n for n in numbers if n not in there), 0)
    if odd != 0:
        raise InputError(f"{result.name}: setting overlay.only = {ids!r}: there are the objects {sorted(there)[:20]}")
    return replace(result, masklets=tuple(m for m in result.masklets if not numbers or m.id in numbers))
