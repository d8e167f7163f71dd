"""Fetching weights from the hub: announced, resumed, checked, and put in place whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.files import unwritable
from masklet.models.zoo import CONFIG, TENSORS, Checkpoint, folder, hashed, mismatch, note, where

Watch = Callable[[str, int, int], None]  # file, bytes done, bytes in all

SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20  # bytes between two reports


@dataclass(frozen=True)
class Remote:
    """A file as the hub describes it."""

    url: str
    size: int
    sha256: str | None  # the hub knows it of large files only


def fetch(model: Checkpoint, watch: Watch = lambda file, done, total: None) -> Path:
    """Fetches a model into the weights folder, and gives its weight file. What was begun before is gone on with.

    Raises InputError where the hub cannot be reached, has no such model, or sends another file than it must be.
    """
    there = where(model.name)
    with _told(model):
        files = {file: describe(model, file) for file in (CONFIG, TENSORS)}
    _writable(there)
    for file, remote in files.items():
        partial = there / f".{file}.partial"
        try:
            with _told(model):
                download(remote, partial, lambda done, file=file, remote=remote: watch(file, done, remote.size))  # type: ignore[misc]
        except OSError as error:
            raise unwritable(partial, error) from None
        _accept(model, file, remote, partial)
    return there / TENSORS


def _writable(there: Path) -> None:
    try:
        there.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(there, error) from None


def _accept(model: Checkpoint, file: str, remote: Remote, partial: Path) -> None:
    """Gives a fetched file its name if it is the right one, else removes it."""
    found, final = hashed(partial), where(model.name) / file
    expected = (file == TENSORS and model.sha256) or remote.sha256
    if expected and found.sha256 != expected:
        partial.unlink()
        raise InputError(mismatch(model.name, final, found, expected, remote.size))
    if file == CONFIG:
        _parsed(model, partial)
    try:
        partial.replace(final)
    except OSError as error:
        raise unwritable(final, error) from None
    note(model.name, file, hashed(final))
