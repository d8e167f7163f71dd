"""Frames of a video as JPEGs, by number: a bounded cache over a source that is read a window at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict

import cv2
import numpy as np
from jaxtyping import UInt8

from masklet.core.errors import InputError
from masklet.core.frames import Video

AHEAD = 24  # frames that are read at once where the one before was asked for, too
MOST_BYTES = 48 << 20  # of JPEGs that are kept
QUALITY = 85  # of JPEGs, to 100
SIDES = (480, 960, 1920, 3840)  # pixels of the longer side to which frames are reduced


class FrameStore:
    """The frames of one video for a page. Threads may ask at the same time; one of them reads."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()  # by frame and side
        self._bytes = 0

    def read_jpeg(self, frame: int, side: int = SIDES[-1]) -> bytes:
        """A frame as JPEG, reduced so that its longer side is `side` pixels at most. Raises InputError where there is
        no such frame.
        """
        with self._lock:
            if (frame, side) not in self._kept:
                ahead = AHEAD if (frame - 1, side) in self._kept else 1
                self._load(frame, max(1, min(ahead, MOST_BYTES // (self.video.size[0] * self.video.size[1] * 3))), side)
            if (frame, side) not in self._kept:
                raise InputError(f"{self.video.name}: no frame {frame}")
            self._kept.move_to_end((frame, side))
            return self._kept[frame, side]

    def _load(self, start: int, count: int, side: int) -> None:
        for frame in self.video.read(start, start + count):
            self._keep((frame.index, side), encode_frame(frame.image, side))

    def _keep(self, key: tuple[int, int], data: bytes) -> None:
        self._bytes += len(data) - len(self._kept.pop(key, b""))
        self._kept[key] = data
        while self._bytes > MOST_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def choose_side(wanted: int) -> int:
    """The side to which frames are reduced for a page that shows them with `wanted` pixels across: one of a few, so
    that the cache is of use.

    >>> choose_side(700), choose_side(10_000)
    (960, 3840)
    """
    return next((side for side in SIDES if side >= wanted), SIDES[-1])


def encode_frame(image: UInt8[np.ndarray, "h w 3"], side: int, quality: int = QUALITY) -> bytes:
    """An RGB image as a JPEG file's content, reduced so that its longer side is `side` pixels at most; `quality` goes
    to 100.
    """
    h, w = image.shape[:2]
    if max(h, w) > side:
        scale = side / max(h, w)
        image = cv2.resize(image, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return data.tobytes()
