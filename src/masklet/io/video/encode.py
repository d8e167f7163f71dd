"""Writes images as a video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8


class VideoWriter:
    """H.264 in mp4 that browsers play: yuv420p, even sides (an odd one repeats its last row or column)."""

    def __init__(self, path: Path, size: tuple[int, int], rate: float | Fraction) -> None:
        """`size` is h, w in pixels, `rate` frames per second."""
        self._pad = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        self._file: Any = av.open(str(path), "w", options={"movflags": "+faststart"})
        exact = Fraction(rate).limit_denominator(1001) or Fraction(25)
        self._stream = self._file.add_stream("libx264", rate=exact, options={"crf": "20", "preset": "veryfast"})
        self._stream.height, self._stream.width = (n + n % 2 for n in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 2

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._file.mux(self._stream.encode())
        self._file.close()

    def write(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds the next frame of the video, an RGB image of the size that the writer was made for."""
        frame = av.VideoFrame.from_ndarray(np.pad(image, self._pad, mode="edge"), format="rgb24")
        self._file.mux(self._stream.encode(frame))
