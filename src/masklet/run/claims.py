"""Claims: who is making which video's results, so that several processes and hosts share one output folder.

A claim is a file that only one can create. It names a host and a process, and its time is renewed while that one lives:
of a process of this host that is gone, or of another host that has been silent for long, the claim is taken over.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any, Self

from masklet.core.errors import InputError
from masklet.io.output_folder import explain_write_errors, is_process_alive

FOLDER = ".masklet"  # in the output folder: claims, and what else is no result
BEAT = 5.0  # seconds between two signs of life
SILENT = 60.0  # seconds without one after which another host's claim is dead


class ClaimedError(InputError):
    """Somebody else is making these results."""


class Claim:
    """The right to make the results of one video, as long as the context is open."""

    def __init__(self, out: Path, name: str) -> None:
        """`out`: the output folder; `name`: of the video's folder in it."""
        self.name, self.path = name, out / FOLDER / "claims" / f"{name}.json"
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        """Raises ClaimedError where somebody else has it."""
        with explain_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._create():
                self._take_over()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        told = {"host": platform.node(), "process": os.getpid(), "since": time.time()}
        try:
            with self.path.open("x") as file:
                file.write(json.dumps(told))
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> None:
        """Puts a dead claim out of the way, which only one process can do. Raises ClaimedError where it is alive."""
        told = read_claim(self.path)
        if told is None:
            return
        if is_claim_alive(self.path, told):
            raise ClaimedError(
                f"{self.name}: process {told.get('process')} on {told.get('host')} is making these results; wait for "
                "it, or choose another --out"
            )
        dead = self.path.with_suffix(f".dead-{platform.node()}-{os.getpid()}")
        try:
            self.path.rename(dead)
        except FileNotFoundError:  # somebody else was faster
            return
        dead.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:
                return


def read_claim(path: Path) -> dict[str, Any] | None:
    """Who has a claim; None where nobody has it any more. One that is being written says nothing yet."""
    try:
        told = json.loads(path.read_text() or "{}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def is_claim_alive(path: Path, told: dict[str, Any]) -> bool:
    """Whether who has the claim at `path`, `told` in it, lives: a process of this host, or one that was heard of."""
    try:
        silence = time.time() - path.stat().st_mtime
    except OSError:
        return False
    process = told.get("process")
    if told.get("host") == platform.node() and isinstance(process, int):
        return process != os.getpid() and is_process_alive(process)
    return silence < SILENT
