"""Claims: who is making which video's results, so that several processes and hosts share one output folder.

A claim is a file that only one can create. It names a host and a process, and its time is renewed while that one lives:
of a process of this host that is gone, or of another host that has been silent for long, the claim is taken over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from masklet.core.errors import InputError
from masklet.core.scratch import get_process_start, is_process_alive
from masklet.io.output_folder import explain_write_errors

FOLDER = ".masklet"  # in the output folder: claims, and what else is no result
BEAT = 5.0  # seconds between two signs of life
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # as USB sticks and shares say it
SILENT = 60.0  # seconds without one after which another host's claim is dead


class ClaimedError(InputError):
    """Somebody else is making these results."""


class Claim:
    """The right to make the results of one video, as long as the context is open."""

    def __init__(self, out: Path, name: str) -> None:
        """`out`: the output folder; `name`: of the video's folder in it."""
        self.name, self.path = name, get_claim_path(out, name)
        self._told = describe_this_process()
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        """Raises ClaimedError where somebody else has it."""
        with explain_write_errors(self.path):
            while not self._create():
                self._take_over()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        remove_claim(self.path, self._told)

    def _create(self) -> bool:
        """Writes the claim under another name and links it to its own: it is there whole, or not at all."""
        draft = self.path.parent / f".draft-{platform.node()}-{os.getpid()}-{threading.get_ident()}"
        draft.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another run, which is through, has just removed the empty folder
            draft.write_text(json.dumps(self._told))
            try:
                os.link(draft, self.path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._create_in_place()
            finally:
                draft.unlink()
            return True
        return False

    def _create_in_place(self) -> bool:
        """Writes the claim under its own name, on a disk without links: for a moment it says nothing yet."""
        try:
            with self.path.open("x") as file:
                file.write(json.dumps(self._told))
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> None:
        """Removes a claim that is dead. Raises ClaimedError where it is alive."""
        told = read_claim(self.path)
        if told is None:
            return
        if is_claim_alive(self.path, told):
            raise ClaimedError(
                f"{self.name}: process {told.get('process')} on {told.get('host')} is making these results; wait for "
                "it, or choose another output folder"
            )
        remove_claim(self.path, told)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:
                return


def describe_this_process() -> dict[str, Any]:
    """What a claim says of the process that has it."""
    process = os.getpid()
    return {
        "host": platform.node(),
        "process": process,
        "started": get_process_start(process),
        "since": time.time(),
    }


def remove_claim(path: Path, told: dict[str, Any]) -> None:
    """Removes the claim at `path` if it still is the one that says what was `told`, and not another one since."""
    with lock_claims(path.parent):
        if read_claim(path) == told:
            path.unlink(missing_ok=True)


@contextmanager
def lock_claims(folder: Path) -> Iterator[None]:
    """One process at a time removes claims: two that saw the same dead claim would else remove the next one, too. A
    process that dies frees the lock. It is on the output folder itself, which outlives the `folder` of the claims.
    """
    handle = os.open(folder.parent.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def remove_empty_folder(out: Path) -> None:
    """Removes the folder of claims from the output folder `out`, where nobody has one."""
    for folder in (out / FOLDER / "claims", out / FOLDER / "checkpoints", out / FOLDER):
        with suppress(OSError):  # it is not there, or something is in it
            folder.rmdir()


def list_claims(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The claims in the output folder `out`, and what each says."""
    for path in (out / FOLDER / "claims").glob("*.json"):
        told = read_claim(path)
        if told is not None:
            yield path, told


def release_claims(out: Path, host: str, process: int) -> None:
    """Frees the videos of a process of a host that is known to be dead."""
    for path, told in list_claims(out):
        if (told.get("host"), told.get("process")) == (host, process):
            remove_claim(path, told)


def release_dead_claims(out: Path) -> None:
    """Frees the videos of all that are dead, and removes drafts of claims that they left."""
    for path, told in list_claims(out):
        if not is_claim_alive(path, told):
            remove_claim(path, told)
    for draft in (out / FOLDER / "claims").glob(f".draft-{platform.node()}-*-*"):
        if not is_process_alive(int(draft.name.split("-")[-2])):
            draft.unlink(missing_ok=True)


def get_claim_path(out: Path, name: str) -> Path:
    """Where the claim of a video's folder is, if there is one."""
    return out / FOLDER / "claims" / f"{name}.json"


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
        same = told.get("started") in (None, get_process_start(process))  # and no other one of that number since
        return process != os.getpid() and same and is_process_alive(process)
    return silence < SILENT
