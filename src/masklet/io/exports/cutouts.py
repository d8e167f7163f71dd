"""Objects cut out of their videos, transparent around: a PNG a frame, or a video."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet
from masklet.io.annotations.label_image import ALPHA, DECLARATION
from masklet.io.exports.exported_results import ExportedResults
from masklet.io.formats.label_png import encode_png
from masklet.io.video.encode import ALPHA_CODECS, AlphaVideoWriter

AT_ONCE = 8  # videos that are written while the frames are read once
SMALLEST = 2  # pixels of a side of an alpha video


def write_cutouts(results: ExportedResults, folder: Path, crop: bool = False) -> None:
    """Writes each object cut out of its video, as images.

    Args:
        results: of videos that are given.
        folder: which gets <video>/<object>/<frame>.png with transparency where the object is not; frames in which it is
            not seen have none.
        crop: true for images no larger than the object, which masklet cannot read back

    Raises:
        InputError: a video is not given.
    """
    for result in results:
        results.require_video(result)
    for result in results:
        names = results.name_frames(result)
        for m in result.masklets:
            inner = folder / result.name / f"{m.id:03d}"
            inner.mkdir(parents=True)
            (inner / DECLARATION).write_text(json.dumps({"values": ALPHA}))
        for frame in results.read_frames(result):
            for m, seen in result.at(frame.index):
                made = cut_out(frame.image, seen.mask.decode_pixels())
                x0, y0, x1, y1 = seen.mask.box
                shown = np.ascontiguousarray(made[y0:y1, x0:x1]) if crop else made
                path = folder / result.name / f"{m.id:03d}" / f"{names[frame.index]}.png"
                path.write_bytes(encode_png(Image.fromarray(shown)))


def write_cutout_videos(
    results: ExportedResults, folder: Path, codec: Literal["prores", "qtrle", "vp9"] = "prores"
) -> None:
    """Writes each object cut out of its video, as a video as long and as large.

    Args:
        results: of videos that are given.
        folder: which gets <video>/<object>.mov with transparency where the object is not; .webm of vp9.
        codec: prores for editors, qtrle, which loses nothing, or vp9 for browsers

    Raises:
        InputError: a video is not given, or is too small to be encoded.
    """
    for result in results:
        results.require_video(result)
        if min(result.size) < SMALLEST:
            raise InputError(f"{result.name}: frames of one row or column are too small for a video; take rgba")
    for result in results:
        for first in range(0, len(result.masklets), AT_ONCE):
            _write_some(results, result, folder / result.name, result.masklets[first : first + AT_ONCE], codec)


def _write_some(
    results: ExportedResults, result: VideoResult, folder: Path, masklets: Sequence[Masklet], codec: str
) -> None:
    """The videos of some objects, the frames read once."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen, nothing = ALPHA_CODECS[codec], np.zeros(result.size, bool)
    with ExitStack() as stack:
        paths = [folder / f"{m.id:03d}{chosen.suffix}" for m in masklets]
        writers = [stack.enter_context(AlphaVideoWriter(path, result, chosen)) for path in paths]
        for frame in results.read_frames(result):
            time = result.times[frame.index] if result.times else 0.0
            for m, writer in zip(masklets, writers, strict=True):
                seen = m.sightings.get(frame.index)
                writer.write(cut_out(frame.image, seen.mask.decode_pixels() if seen else nothing), time)


def cut_out(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """An image within a mask, transparent black around it.

    >>> cut_out(np.full((1, 2, 3), 9, np.uint8), np.array([[True, False]])).tolist()
    [[[9, 9, 9, 255], [0, 0, 0, 0]]]
    """
    return np.dstack([image * mask[..., None], mask * np.uint8(255)])
