"""What a session keeps of a video's frames: a few images, and features on the disk beyond those in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from masklet.core.errors import InputError
from masklet.core.features import MIB, FeatureStore
from masklet.core.frames import Frame, Video

F = TypeVar("F")

IMAGES = 96 * MIB  # of frames in memory
WINDOW = 8  # frames that are read at once: a video file is decoded from a key frame on


class FrameCache:
    """A video's frames by their index, the last ones in memory. Several threads may ask."""

    def __init__(self, video: Video, most: int = IMAGES) -> None:
        """`most`: bytes of the images of `video` that are held."""
        self._video, self._lock = video, Lock()
        held = max(most // (3 * video.size[0] * video.size[1]), 1)
        self._held, self._window = held, max(min(held // 2, WINDOW), 1)
        self._frames: OrderedDict[int, Frame] = OrderedDict()

    def read(self, index: int) -> Frame:
        """The frame of an `index`, which is in the video. Raises InputError where it cannot be read."""
        with self._lock:
            if index not in self._frames:
                start = index - index % self._window
                for frame in self._video.read(start, start + self._window):
                    self._frames[frame.index] = frame
            if index not in self._frames:
                raise InputError(f"{self._video.name}: frame {index} cannot be read; the video ends before it")
            self._frames.move_to_end(index)
            while len(self._frames) > self._held:
                self._frames.popitem(last=False)
            return self._frames[index]


class RecentFeatures(Generic[F]):
    """Features of the frames that were asked for last, within what a `FeatureStore` takes."""

    def __init__(self, store: FeatureStore[F]) -> None:
        """`store`: where they are kept."""
        self._store = store
        self._order: OrderedDict[int, None] = OrderedDict()

    def get(self, index: int, make: Callable[[], F]) -> F:
        """The features of a frame, which `make` computes where they are not kept."""
        found = self._store.get(index)
        if found is None:
            found = make()
            self._store.keep(index, found)
            while index not in self._store and self._order:
                self._store.drop(self._order.popitem(last=False)[0])
                self._store.keep(index, found)
        if index in self._store:
            self._order[index] = None
            self._order.move_to_end(index)
        return found
