"""Features kept for the way back, within budgets: where they were made, in the host's memory, on disk, or nowhere."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from masklet.core.feature_bytes import (
    TensorForm,
    lay_out,
    put_tensors,
    read_tensors,
    replace_inside,
    take_tensors,
    write_tensors,
)
from masklet.core.scratch import make_scratch_folder

F = TypeVar("F")
MIB = 2**20
MEMORY, DISK = 64 * MIB, 4096 * MIB  # bytes of the host
DEVICE = 16384 * MIB  # bytes of an accelerator, of a quarter of what is free at most
FREE_SHARE = 0.25  # of the memory that is free on a device when the first frame comes: the passes need the rest
SPARED = 512 * MIB  # of the disk, which results and others need
BEHIND = 2  # frames that wait to be written; whoever brings another one waits
AHEAD = 2  # frames that are read before they are asked for


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


@runtime_checkable
class KeptFeatures(Protocol):
    """One frame's features in memory."""

    @property
    def size(self) -> int: ...  # bytes of the tensors
    def restore(self) -> Any:
        """The features, on the devices where they were."""
        ...

    def take(self) -> tuple[Any, list[Tensor]]:
        """What is not a tensor in them, and the tensors, which may not be whole yet."""
        ...

    def fetch(self) -> list[Tensor]:
        """The tensors on the CPU, whole."""
        ...


@dataclass(frozen=True)
class HeldFeatures:
    """Features that stay where they were made; what is a part of something larger is copied, which lets that go."""

    features: Any
    size: int

    @staticmethod
    def of(features: Any) -> HeldFeatures:
        """Those `features`."""
        whole = all(t.untyped_storage().nbytes() <= t.nbytes for t in take_tensors(features)[1])
        kept = features if whole else replace_inside(features, Tensor, lambda tensor: tensor.detach().clone())
        return HeldFeatures(kept, count_tensor_bytes(kept))

    def restore(self) -> Any:
        """The very same."""
        return self.features

    def take(self) -> tuple[Any, list[Tensor]]:
        """What is not a tensor in them, and the tensors."""
        return take_tensors(self.features)

    def fetch(self) -> list[Tensor]:
        """The tensors on the CPU."""
        return [tensor.cpu() for tensor in self.take()[1]]


@dataclass(frozen=True)
class FetchedFeatures:
    """Features of an accelerator on their way to page-locked memory, or there."""

    rest: Any  # of them, without tensors
    tensors: Sequence[Tensor]
    size: int
    wait: Callable[[], object]  # returns when the tensors are whole

    @staticmethod
    def of(features: Any) -> FetchedFeatures:
        """A copy of `features`, which is not waited for."""
        rest, tensors = take_tensors(features)
        copies = [copy_to_host(t) if is_accelerator(t.device) else t for t in tensors]
        return FetchedFeatures(rest, copies, count_tensor_bytes(tensors), record_event())

    def restore(self) -> Any:
        """Copied back; nobody waits for it."""
        return put_tensors(self.rest, self.fetch())

    def take(self) -> tuple[Any, list[Tensor]]:
        """What is not a tensor in them, and the copies of the tensors, which may not be whole yet."""
        return self.rest, list(self.tensors)

    def fetch(self) -> list[Tensor]:
        """The copies when they are whole."""
        self.wait()
        return list(self.tensors)


@dataclass(frozen=True)
class FiledFeatures:
    """One frame's features in a file, which is whole when `written` is done."""

    rest: Any  # of them, without tensors
    forms: Sequence[TensorForm]
    path: Path
    size: int  # bytes of the tensors
    written: Future[None]
    pinned: bool  # whether they are read into page-locked memory


class FeatureStore(Generic[F]):
    """Features by frame: on the accelerator that made them up to a budget, beyond it in the host's memory (then it is
    page-locked), beyond that on disk, each up to another; beyond all not at all.

    What `get` does not find, the caller computes again; what it finds is equal to the last bit. A thread writes to the
    disk and, where frames are asked for one after the other, reads the next ones ahead; few frames wait for it at a
    time. The folder on disk is the run's own and goes with it.
    """

    def __init__(self, memory: int = MEMORY, disk: int = DISK, device: int = DEVICE) -> None:
        """Budgets in bytes: `memory` and `disk` of the host, `device` of an accelerator, of which a quarter of what is
        free is the most.
        """
        self._room, self._disk_room, self._device_most = memory, disk, device
        self._device_room: int | None = None
        self._near: dict[int, KeptFeatures] = {}
        self._held: dict[int, KeptFeatures] = {}
        self._waiting: dict[int, KeptFeatures] = {}  # until their files are whole
        self._filed: dict[int, FiledFeatures] = {}
        self._coming: dict[int, Future[list[Tensor]]] = {}  # from their files
        self._last = 0  # frame that was asked for
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._thread = ThreadPoolExecutor(1, "features")  # begins with the first piece of work

    def __enter__(self) -> FeatureStore[F]:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._folder is not None:
            self._folder.cleanup()

    def keep(self, index: int, features: F) -> None:
        """Keeps one frame's features where there is room for them."""
        size = count_tensor_bytes(features)
        devices = [tensor.device for tensor in take_tensors(features)[1]]
        near = [device for device in devices if is_accelerator(device)]
        if near and len(near) == len(devices) and size <= (room := self._find_device_room(near[0])):
            self._device_room = room - size
            self._near[index] = HeldFeatures.of(features)
        elif size <= self._room:
            self._room -= size
            self._held[index] = (FetchedFeatures if near else HeldFeatures).of(features)
        elif size <= self._disk_room:
            self._file(index, (FetchedFeatures if near else HeldFeatures).of(features), bool(near))

    def __contains__(self, index: int) -> bool:
        """Whether a frame's features were kept."""
        return self._find_in_memory(index) is not None or index in self._filed

    def get(self, index: int) -> F | None:
        """The features of a frame, or None where they were not kept."""
        step, self._last = index - self._last, index
        kept = self._find_in_memory(index)
        if kept is None and index not in self._filed:
            return None
        found: F = self._read(index, step if abs(step) == 1 else 0) if kept is None else kept.restore()
        return found

    def drop(self, index: int) -> None:
        """Forgets one frame's features, if they were kept, which makes room."""
        if index in self._waiting:
            self._finish(index)
        if index in self._near:
            self._device_room = (self._device_room or 0) + self._near.pop(index).size
        elif index in self._held:
            self._room += self._held.pop(index).size
        elif index in self._filed:
            self._coming.pop(index, None)
            filed = self._filed.pop(index)
            filed.path.unlink(missing_ok=True)
            self._disk_room += filed.size

    def _find_in_memory(self, index: int) -> KeptFeatures | None:
        return self._near.get(index) or self._held.get(index) or self._waiting.get(index)

    def _find_device_room(self, device: torch.device) -> int:
        """Bytes that may still be taken there."""
        if self._device_room is None:
            self._device_room = min(self._device_most, int(FREE_SHARE * count_free_bytes(device)))
        return self._device_room

    def _file(self, index: int, features: KeptFeatures, pinned: bool) -> None:
        """Lets the thread write a frame, when it is done with all but the last ones. Where the disk is nearly full, or
        there is none, this frame and the later ones are computed again.
        """
        for earlier in list(self._waiting):
            if len(self._waiting) >= BEHIND or self._filed[earlier].written.done():
                self._finish(earlier)
        try:
            folder = self._find_folder(features.size + sum(kept.size for kept in self._waiting.values()))
        except OSError:
            self._disk_room = 0
            return
        if features.size > self._disk_room:  # an earlier one could not be written
            return
        rest, tensors = features.take()
        forms, path = lay_out(tensors), folder / str(index)
        written = self._thread.submit(lambda: write_tensors(path, features.fetch(), forms))
        self._disk_room -= features.size
        self._waiting[index] = features
        self._filed[index] = FiledFeatures(rest, forms, path, features.size, written, pinned)

    def _find_folder(self, size: int) -> Path:
        """The folder of files. Raises OSError where it has no room for `size` bytes."""
        if self._folder is None:
            self._folder = make_scratch_folder("features")
        if shutil.disk_usage(self._folder.name).free < SPARED + size:
            raise OSError("the disk is nearly full")
        return Path(self._folder.name)

    def _finish(self, index: int) -> None:
        """Waits until a frame's file is whole. Where it cannot be written the frame stays in memory, for it was said
        to be kept, and no other one is written.
        """
        kept, filed = self._waiting.pop(index), self._filed[index]
        try:
            filed.written.result()
        except OSError:
            del self._filed[index]
            self._held[index], self._room, self._disk_room = kept, self._room - kept.size, 0

    def _read(self, index: int, step: int) -> Any:
        """A frame from its file; the thread reads those that follow by `step` meanwhile (0: none)."""
        tensors = self._coming.pop(index, None) or self._begin_reading(index)
        following = [t for n in range(1, AHEAD + 1) if step and (t := index + n * step) in self._filed]
        after = [t for t in following if t not in self._waiting]
        self._coming = {t: self._coming.get(t) or self._begin_reading(t) for t in after}
        return put_tensors(self._filed[index].rest, tensors.result())

    def _begin_reading(self, index: int) -> Future[list[Tensor]]:
        filed = self._filed[index]
        return self._thread.submit(read_tensors, filed.path, filed.forms, pinned=filed.pinned)


def is_accelerator(device: torch.device) -> bool:
    """Whether a device has memory of its own."""
    return device.type == "cuda"


def count_free_bytes(device: torch.device) -> int:
    """Of a device's memory, what nobody has taken."""
    return int(torch.cuda.mem_get_info(device)[0])


def copy_to_host(tensor: Tensor) -> Tensor:
    """A copy in page-locked memory, which is whole when the event that is recorded next has come."""
    copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)


def record_event() -> Callable[[], object]:
    """Waits, when it is called, for all that the accelerator was told to do before."""
    make_event: Any = torch.cuda.Event
    event = make_event()
    event.record()
    wait: Callable[[], object] = event.synchronize
    return wait
