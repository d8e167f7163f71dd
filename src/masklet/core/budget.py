"""How much memory a run may take, what that holds, and what does not fit. Without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.wording import name_argument

GIB = 2**30
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
SHARE = 0.8  # of what is free as the run begins: others want some too
PROGRAM = 512 * 2**20  # bytes that libraries and small networks take; nano's were measured
LEAST = 2 * PROGRAM  # below this nothing runs well
FEATURES = 16  # part of the budget that features for the way back may take; beyond it they go to disk
MEMINFO = Path("/proc/meminfo")
GROUPS = (  # files of a control group: what it may hold, and what it holds
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that one process may hold."""

    total: int

    def __str__(self) -> str:
        return format_bytes(self.total)

    @property
    def features(self) -> int:
        """Bytes of features that are kept in memory."""
        return self.total // FEATURES

    def count_objects(self, each: int) -> int:
        """How many objects of so many bytes `each` fit at once; 0: nobody knows, as many as are wanted.

        >>> MemoryBudget(2 * GIB).count_objects(10 * 2**20)
        140
        """
        return max(self.total - PROGRAM - self.features, 0) // max(each, 1)

    def divide(self, processes: int) -> MemoryBudget:
        """What each of some processes may hold."""
        return MemoryBudget(self.total // processes)


def estimate_need(objects: int, each: int) -> MemoryBudget:
    """The budget in which so many objects of so many bytes `each` fit."""
    need = (PROGRAM + objects * each) * FEATURES // (FEATURES - 1)
    return MemoryBudget(-(-need // 2**20) * 2**20)


def parse_memory(text: str) -> MemoryBudget:
    """A budget as a user writes it: a number with K, M, G or T. Raises InputError where it is none, or too little.

    >>> parse_memory("1.5G"), parse_memory("2048 MB")
    (MemoryBudget(total=1610612736), MemoryBudget(total=2147483648))
    """
    found = FORM.fullmatch(text.strip())
    if not found:
        raise InputError(f"{name_argument('memory', text)}: write a number of bytes with K, M, G or T, such as 4G")
    budget = MemoryBudget(int(float(found[1]) * UNITS[found[2].upper()]))
    if budget.total < LEAST:
        raise InputError(f"{name_argument('memory', text)}: at least {format_bytes(LEAST)} are needed")
    return budget


def find_memory_budget() -> MemoryBudget:
    """A share of what is free on this machine, or in the control group that this process is in."""
    free = [left for left in (read_free_memory(MEMINFO), *(read_group_room(*files) for files in GROUPS)) if left]
    return MemoryBudget(int(SHARE * min(free, default=4 * GIB)))


def read_free_memory(file: Path) -> int | None:
    """Bytes that are available by the kernel's `file`; None where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def read_group_room(limit: Path, used: Path) -> int | None:
    """Bytes that a control group has left by the files of its `limit` and of what is `used`; None where there is no
    limit.
    """
    try:
        most, held = limit.read_text().strip(), used.read_text().strip()
    except OSError:
        return None
    return max(int(most) - int(held), 1) if most.isdecimal() and held.isdecimal() else None


def format_bytes(count: int) -> str:
    """Bytes in words.

    >>> format_bytes(1610612736), format_bytes(700 * 2**20)
    ('1.50 GB', '700 MB')
    """
    return f"{count / GIB:.2f} GB" if count >= GIB else f"{count / 2**20:.0f} MB"
