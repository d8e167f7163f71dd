"""How much memory a video took."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Begins to measure anew, where the machine can: else the peak is that of the process since its start."""
    with suppress(OSError):
        RESET.write_text("5")
    if has_used_cuda():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def has_used_cuda() -> bool:
    """Whether this process has begun to use a CUDA device."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def measure_peak_memory() -> int:
    """Bytes of memory that this process has held at most since the last reset."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_peak_device_memory() -> int:
    """Bytes that this process has taken at most of a CUDA device since the last reset; 0 where it used none."""
    if not has_used_cuda():
        return 0
    return max(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
