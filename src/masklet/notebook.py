"""Results in notebooks: what `VideoResult` shows of itself there."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError, escape_control_characters
from masklet.core.result import VideoResult
from masklet.exports import export_results
from masklet.io.video.sources import find_own_video, reopen_video
from masklet.view.notebook_bars import is_in_notebook
from masklet.view.strip import choose_strip_frames, render_strip
from masklet.view.strokes import Rgb

MOST_READ = 600  # frames of a file, which is decoded from its beginning, for a strip
MOST_EMBEDDED = 24 << 20  # bytes of a video within a notebook
WIDEST = 720  # pixels of it


def render_result_html(result: VideoResult) -> str:
    """A strip of frames and the objects (`view.strip.render_strip`), with the video's images where its source is there,
    as large and as long as the result, and read quickly.
    """
    return render_strip(result, _read_strip_images(result))


def _read_strip_images(result: VideoResult) -> Mapping[int, Rgb]:
    source = find_own_video(result)
    if not source or (result.length > MOST_READ and Path(source).is_file()):
        return {}
    try:
        with reopen_video(result, source, {}) as video:
            if video.size != result.size or len(video) != result.length:
                return {}
            return {t: frame.image for t in choose_strip_frames(result.length) for frame in video.read(t, t + 1)}
    except (InputError, OSError):  # a picture is not worth an error
        return {}


def show_result(result: VideoResult, frames: Any, folder: str | Path | None, settings: Mapping[str, Any]) -> None:
    """Shows a result over its video, within a notebook; elsewhere writes the overlay and says where it is.

    Args:
        result: of one video.
        frames: the video, as a source or a `Video`; None for the one that the result was made from.
        folder: a new folder for the overlay; None for a temporary one.
        settings: of `masklet export overlay`, such as {"trails": 20}.

    Raises:
        InputError: there is no video, or it is not the one that the result is of.
    """
    video = find_own_video(result) if frames is None else frames
    if isinstance(video, str) and not video:
        told = f"its video {result.provenance.source!r:.80} is not there"
        raise InputError(f"{result.name}: {told}; give it: result.show(frames=...)")
    path = _write_overlay(result, video, folder, settings)
    if is_in_notebook() and path.stat().st_size <= MOST_EMBEDDED:
        _display_video(path, result)
        if folder is None:
            shutil.rmtree(path.parents[len(Path(result.name).parts)])
    else:
        sys.stdout.write(f"{escape_control_characters(path)}\n")


def _write_overlay(result: VideoResult, video: Any, folder: str | Path | None, settings: Mapping[str, Any]) -> Path:
    out = Path(tempfile.mkdtemp(prefix="masklet-")) / "overlay" if folder is None else Path(folder)
    export_results([result], "overlay", out, {result.name: video}, settings=settings)
    return out / f"{result.name}.mp4"


def _display_video(path: Path, result: VideoResult) -> None:
    ipython = import_module("IPython.display")  # there is one: this is a notebook
    width = min(round(result.size[1] * result.pixel_aspect), WIDEST)
    ipython.display(ipython.Video(str(path), embed=True, width=width, html_attributes="controls loop muted"))
