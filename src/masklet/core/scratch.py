"""Temporary folders that a killed process leaves behind, and that the next one removes."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

PREFIX = "masklet-"


def make_scratch_folder(kind: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that goes with its object; those that dead processes of this machine left are removed first.

    `kind` says what it is for. Raises OSError where none can be made.
    """
    remove_dead_folders(Path(tempfile.gettempdir()))
    prefix = f"{PREFIX}{kind}-{platform.node()}-{os.getpid()}-"
    return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def remove_dead_folders(parent: Path) -> None:
    """Removes scratch folders in `parent` of processes of this machine that are no more."""
    for folder in parent.glob(f"{PREFIX}*-{platform.node()}-*-*"):
        process = folder.name.split("-")[-2]
        if process.isdecimal() and not is_process_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def is_process_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine, whoever owns it. One that has ended does not, though its
    parent has not asked how, as in a container whose first process never asks.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return not read_process_facts(process).startswith("Z")


def get_process_start(process: int) -> str:
    """What tells a process from another one that has its number later; "" where the machine does not say."""
    return " ".join(read_process_facts(process).split()[19:20])  # ticks from the machine's start to its own


def read_process_facts(process: int) -> str:
    """What Linux says of a process from its state on; "" where the machine says nothing, or there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].strip()
    except OSError:
        return ""
