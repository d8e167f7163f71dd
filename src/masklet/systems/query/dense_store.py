"""The large part of every frame, kept between the two passes: where it was made, on the host, on disk, or nowhere.

On an accelerator it stays there while there is room, in bfloat16: nothing is copied, written or computed again. What
there is no room for goes to the host in full, and from there to disk, as everything does on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.features import MIB, FeatureStore

FREE_SHARE = 0.25  # of the memory that is free on a device when the first frame comes: the passes need the rest


@dataclass(frozen=True)
class DenseFeatures:
    """The large part of one frame."""

    maps: Float[Tensor, "d h w"]
    inside: tuple[int, int]


class DenseStore(FeatureStore[DenseFeatures]):
    """Dense features by frame. What `get` does not find, the caller computes again."""

    def __init__(self, memory: int = 64 * MIB, disk: int = 4096 * MIB, device: int = 0) -> None:
        """Budgets in bytes: `memory` and `disk` of the host, `device` of the accelerator, where a quarter of what is
        free is the most.
        """
        super().__init__(memory, disk)
        self._device_room: int | None = None
        self._device_most = device
        self._near: dict[int, DenseFeatures] = {}

    def __enter__(self) -> DenseStore:
        return self

    def keep(self, index: int, features: DenseFeatures) -> None:
        """Keeps a copy of one frame's features where there is room for it."""
        maps = features.maps.detach()
        if not self._keep_near(index, maps, features.inside):
            super().keep(index, DenseFeatures(maps.to("cpu", copy=True), features.inside))

    def __contains__(self, index: int) -> bool:
        """Whether a frame's features were kept."""
        return index in self._near or super().__contains__(index)

    def get(self, index: int) -> DenseFeatures | None:
        """The features of a frame in float32, or None where they were not kept."""
        near = self._near.get(index)
        return super().get(index) if near is None else DenseFeatures(near.maps.float(), near.inside)

    def drop(self, index: int) -> None:
        """Forgets one frame's features, if they were kept, which makes room."""
        near = self._near.pop(index, None)
        if near is None:
            super().drop(index)
        else:
            self._device_room = (self._device_room or 0) + near.maps.nbytes

    def _keep_near(self, index: int, maps: Tensor, inside: tuple[int, int]) -> bool:
        """Keeps them on their device, if that is not the host and there is room."""
        if not is_accelerator(maps.device):
            return False
        if self._device_room is None:
            self._device_room = min(self._device_most, int(FREE_SHARE * count_free_bytes(maps.device)))
        size = maps.numel() * torch.bfloat16.itemsize
        if size > self._device_room:
            return False
        self._device_room -= size
        self._near[index] = DenseFeatures(maps.to(torch.bfloat16, copy=True), inside)
        return True


def is_accelerator(device: torch.device) -> bool:
    """Whether a device has memory of its own."""
    return device.type == "cuda"


def count_free_bytes(device: torch.device) -> int:
    """Of a device's memory, what nobody has taken."""
    return int(torch.cuda.mem_get_info(device)[0])
