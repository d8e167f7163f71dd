"""Images on their way to a GPU: through two page-locked buffers, so that one is copied while the other is filled."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor


class PinnedUpload:
    """Copies arrays to a `device`; to a CPU they are handed on as they are.

    A copy from page-locked memory does not wait: the thread that prepares frames goes on while it is under way. Before
    a buffer is filled again its last copy is waited for.
    """

    def __init__(
        self,
        device: torch.device,
        lock_pages: Callable[[Tensor], Tensor] = Tensor.pin_memory,
        make_event: Callable[[], Any] | None = None,
    ) -> None:
        """`lock_pages` makes the buffers of tensors, `make_event` what is recorded after a copy and waited for."""
        self.device, self._lock_pages = device, lock_pages
        self._make_event = make_event or (torch.cuda.Event if device.type == "cuda" else None)
        self._slots: list[tuple[Tensor, Any] | None] = [None, None]
        self._turn, self._alone = 0, Lock()

    def __reduce__(self) -> tuple[Any, ...]:  # of copies: each has buffers of its own
        return PinnedUpload, (self.device,)

    def __call__(self, array: np.ndarray) -> Tensor:
        """The array on the device."""
        given = torch.from_numpy(array)
        if self._make_event is None:
            return given.to(self.device)
        with self._alone:
            buffer = self._wait_for_buffer(given)
            buffer.copy_(given)
            sent, event = buffer.to(self.device, non_blocking=True), self._make_event()
            event.record()
            self._slots[self._turn] = buffer, event
            self._turn = 1 - self._turn
        return sent

    def _wait_for_buffer(self, like: Tensor) -> Tensor:
        """The buffer whose turn it is, no longer in use; a new one where what it held was of another shape."""
        slot = self._slots[self._turn]
        if slot is None:
            return self._lock_pages(torch.empty_like(like))
        buffer, event = slot
        event.synchronize()
        same = buffer.shape == like.shape and buffer.dtype == like.dtype
        return buffer if same else self._lock_pages(torch.empty_like(like))
