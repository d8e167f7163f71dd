"""Small videos made for the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

H, W = 48, 64


def picture(t: int, size: tuple[int, int] = (H, W)) -> np.ndarray:
    """A pattern that moves, with the frame's number as a bar of brightness."""
    h, w = size
    base = np.random.default_rng(0).integers(0, 255, (-(-h // 8), -(-w // 8), 3), np.uint8).repeat(8, 0).repeat(8, 1)
    image = np.roll(base[:h, :w], 2 * t, axis=1)
    image[:8, :8] = (t * 5) % 256
    return image


def write_clip(
    path: Path,
    codec: str = "libx264",
    frames: int = 30,
    size: tuple[int, int] = (H, W),
    pixels: str = "yuv420p",
    options: Mapping[str, str] = {},
    container: Mapping[str, str] = {},
    times: Sequence[int] | None = None,  # in thousandths of a second
) -> Path:
    """A clip of 10 frames a second, or with a time for each frame."""
    with av.open(str(path), "w", options=dict(container)) as file:
        stream = file.add_stream(codec, rate=Fraction(10), options={"g": "12", **options})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for t in range(len(times) if times else frames):
            frame = av.VideoFrame.from_ndarray(picture(t, size))
            if times:
                frame.pts, frame.time_base = times[t], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
