"""Whether results will find room on the disk, as far as that can be told before any work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.frames import Video, get_most_frames

LABEL_FORMS = ("davis", "davis-unsupervised", "davis16", "ref", "vipseg")  # an image a frame or more
DENSEST = 1032  # times that deflate, which PNG packs with, makes its input smaller at most
OVERLAY_BITS = 0.3  # a pixel; 0.35 to 0.5 in sequences of DAVIS, a tenth of it where little moves


def check_disk_room(folder: Path, video: Video, formats: Sequence[str], overlay: bool) -> str | None:
    """Compares the room on a disk with what results will take at least, and with what they usually take.

    Args:
        folder: for the results, which need not be there yet.
        video: whose results they are.
        formats: to be written besides masklets.json.
        overlay: whether overlay.mp4 is to be written.

    Returns:
        A sentence of warning where what they usually take is not there, or where nobody knows how long the video is;
        None where it is there.

    Raises:
        InputError: what they take at least is not there.
    """
    count, size = get_most_frames(video), f"{video.size[1]}x{video.size[0]}"
    pixels = (count or 1) * video.size[0] * video.size[1]
    least = sum(name in LABEL_FORMS for name in formats) * pixels // DENSEST
    usual = least + (round(pixels * OVERLAY_BITS / 8) if overlay else 0)
    free = measure_free_bytes(folder)
    if not count:
        enough = f", enough for about {free // usual:,} frames of {size}" if usual else ""
        return f"{folder}: how many frames will come is not known; {format_decimal_bytes(free)} are free there{enough}"
    amount = f"of {'' if len(video) else 'at most '}{count} frames of {size}"
    if free < least and len(video):
        raise InputError(
            f"{folder}: {format_decimal_bytes(free)} are free there, and the images {amount} take "
            f"{format_decimal_bytes(least)} at least; make room, or choose another output folder"
        )
    if free < usual:
        return (
            f"{folder}: {format_decimal_bytes(free)} are free there, and results {amount} may take about "
            f"{format_decimal_bytes(usual)}; masklets are kept where the overlay finds no room"
        )
    return None


def measure_free_bytes(folder: Path) -> int:
    """The bytes that are free on the disk of a folder, or of the nearest one above it that is there."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def format_decimal_bytes(count: float) -> str:
    """Bytes for people.

    >>> format_decimal_bytes(900), format_decimal_bytes(1_500_000), format_decimal_bytes(20_000_000_000)
    ('1 kB', '1.5 MB', '20.0 GB')
    """
    if count < 1e6:
        return f"{max(int(count / 1e3), 1)} kB"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
