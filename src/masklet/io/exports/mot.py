"""MOTChallenge's text of boxes: frame, id, left, top, width, height, score, -1, -1, -1, all counted from 1."""

from __future__ import annotations

from pathlib import Path

from masklet.core.result import VideoResult
from masklet.io.exports.exported_results import IMAGES, ExportedResults


def write_mot(results: ExportedResults, folder: Path) -> None:
    """Writes `folder`/<video>.txt of every result, and images/<video>/000001.jpg on of videos that are given. Masks and
    names are lost.
    """
    for result in results:
        path = folder / f"{result.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(f"{row}\n" for t in results.iterate_frame_numbers(result) for row in list_rows(result, t))
        )
        if results.has_video(result):
            numbered = [f"{t:06d}" for t in range(1, result.length + 1)]
            results.write_images_of(result, folder / IMAGES / result.name, numbered)


def list_rows(result: VideoResult, frame: int) -> list[str]:
    """The lines of a frame."""
    rows = []
    for m, seen in result.at(frame):
        x0, y0, x1, y1 = seen.mask.box
        rows.append(f"{frame + 1},{m.id},{x0 + 1},{y0 + 1},{x1 - x0},{y1 - y0},{m.score},-1,-1,-1")
    return rows
