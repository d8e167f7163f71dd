"""Features kept for the backward sweep, within a budget."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from masklet.core.scratch import make_scratch_folder

F = TypeVar("F")
MIB = 2**20
SPARED = 512 * MIB  # of the disk, which results and others need


def count_tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in a value made of dataclasses, mappings and sequences."""
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return sum(count_tensor_bytes(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, dict):
        return count_tensor_bytes(value.values())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return sum(count_tensor_bytes(v) for v in value)
    return 0


class FeatureStore(Generic[F]):
    """Features by frame: in memory up to a budget, beyond it on disk up to another, beyond both not at all.

    What `get` does not find, the caller computes again. The folder on disk is the run's own and goes with it.
    """

    def __init__(self, memory: int = 64 * MIB, disk: int = 4096 * MIB) -> None:
        self._room, self._disk_room = memory, disk
        self._held: dict[int, F] = {}
        self._spilled: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> FeatureStore[F]:
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def keep(self, index: int, features: F) -> None:
        """Keeps one frame's features where there is room for them."""
        size = count_tensor_bytes(features)
        if size <= self._room:
            self._room -= size
            self._held[index] = features
        elif size <= self._disk_room:
            self._disk_room -= size
            self._spill(index, features)

    def __contains__(self, index: int) -> bool:
        """Whether a frame's features were kept."""
        return index in self._held or index in self._spilled

    def get(self, index: int) -> F | None:
        """The features of a frame, or None where they were not kept."""
        if index in self._spilled:
            with self._find_path(index).open("rb") as file:
                found: F = pickle.load(file)  # written by this very run, into a folder only it can read
            return found
        return self._held.get(index)

    def drop(self, index: int) -> None:
        """Forgets one frame's features, if they were kept, which makes room."""
        found = self.get(index)
        if index in self._held:
            del self._held[index]
            self._room += count_tensor_bytes(found)
        elif index in self._spilled:
            self._spilled.remove(index)
            self._find_path(index).unlink(missing_ok=True)
            self._disk_room += count_tensor_bytes(found)

    def _find_path(self, index: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / str(index)

    def _spill(self, index: int, features: F) -> None:
        try:
            if self._folder is None:
                self._folder = make_scratch_folder("features")
            if shutil.disk_usage(self._folder.name).free < SPARED + count_tensor_bytes(features):
                raise OSError("the disk is nearly full")
            with self._find_path(index).open("wb") as file:
                pickle.dump(features, file, protocol=5)
        except OSError:  # the disk is nearly full, or there is none: this frame and the later ones are computed again
            self._disk_room = 0
            return
        self._spilled.add(index)
