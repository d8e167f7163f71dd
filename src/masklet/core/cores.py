"""How many cores this process may use. Nothing heavy is imported: it is asked before torch is."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def count_usable_cores(cgroup: Path = CGROUP) -> int:
    """The cores that this process may run on, no more than the quota of its container (cgroup 2, else 1) pays for."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_quota(cgroup)
    return own if quota is None else max(min(own, ceil(quota)), 1)


def read_quota(cgroup: Path) -> float | None:
    """How many cores' time a container pays for, by the files in `cgroup`; None where it has no limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            return float(quota) / float(period) if float(quota) > 0 else None
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            continue
    return None
