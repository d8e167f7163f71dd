"""Kills at any moment, and what they may leave behind; for tests and benchmarks."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from masklet.run.claims import FOLDER

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.utime"}


def find_leftovers(out: Path) -> list[str]:
    """What is no result, and should not be there after a run."""
    whole = {"manifest.jsonl", FOLDER, "failed"}
    odd_ones = [p for p in out.iterdir() if p.name not in whole and not (p / "masklets.json").exists()]
    within = [p for p in out.rglob("*") if "partial" in p.name or p.suffix == ".tmp"]
    claims = [p for p in (out / FOLDER).rglob("*") if p.is_file() and p.name != ".lock"]
    return sorted(str(p) for p in {*odd_ones, *within, *claims})


def hash_results(out: Path) -> dict[str, str]:
    """What tells results from others: sha256 of the files of every video, by their names."""
    files = [path for folder in out.iterdir() if (folder / "masklets.json").exists() for path in folder.rglob("*")]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


def run_in_child(work: Callable[[], object], kill_at: int) -> int:
    """Runs `work` in a child process that is killed at its `kill_at`-th change to the files of out/, counted from 1; 0
    is never. Returns how many changes there were, or 0 where it was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        changes = 0

        def count(event: str, told: tuple[object, ...]) -> None:
            nonlocal changes
            changed = event in CHANGES or (event == "open" and isinstance(told[2], int) and told[2] & WRITES)
            if changed and "out/" in f"{told[0]}/":
                changes += 1
                if changes == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
            os.write(writing, str(changes).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        changes = int(told.read() or 0)
    os.waitpid(child, 0)
    return changes
