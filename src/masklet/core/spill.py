"""Bytes of a run that outgrow memory: what was added last is held, all before it lies in a file."""

from __future__ import annotations

import os
import tempfile
import weakref
import zlib
from pathlib import Path

MIB = 2**20
ROOM = 4 * MIB  # bytes that are held before they go to the file


class DamagedSpillError(Exception):
    """A file does not hold what was written into it. The message says why."""


class Spill:
    """Records that are only added, and read again by where they begin.

    Without a path the file is a temporary one without a name, made when there is more than `ROOM`, and goes with this
    object. With a path it stays, and `sync` says how much of it is whole: another process can go on from there.
    """

    def __init__(self, path: Path | None = None) -> None:
        """`path`: of the file; what is in it already is removed."""
        self._path, self._file = path, -1
        self._flushed, self._crc = 0, 0
        self._held = bytearray()
        self._room = ROOM
        if path is not None:
            self._open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666))

    @staticmethod
    def restore(path: Path, length: int, crc: int) -> Spill:
        """The spill whose file at `path` was whole to `length` bytes, of which `crc` is the CRC-32: what was added
        later is cut off. Raises DamagedSpillError where it does not hold them, OSError where it cannot be read.
        """
        made = Spill()
        made._path = path
        made._open(os.open(path, os.O_RDWR))
        found = at = 0
        while at < length and (piece := os.pread(made._file, min(MIB, length - at), at)):
            found, at = zlib.crc32(piece, found), at + len(piece)
        if (at, found) != (length, crc):
            raise DamagedSpillError(f"{path.name} is not as it was written")
        os.truncate(made._file, length)
        made._flushed, made._crc = length, crc
        return made

    def _open(self, file: int) -> None:
        self._file = file
        weakref.finalize(self, os.close, file)

    def __len__(self) -> int:
        return self._flushed + len(self._held)

    def append(self, record: bytes) -> int:
        """Adds a record; returns where it begins."""
        at = len(self)
        self._held += record
        if len(self._held) > self._room:
            self._spill()
        return at

    def read(self, at: int, size: int) -> bytes:
        """Up to `size` bytes from `at` on; fewer at the end."""
        if at >= self._flushed:
            return bytes(self._held[at - self._flushed : at - self._flushed + size])
        found = os.pread(self._file, min(size, self._flushed - at), at)
        return found + self._held[: size - len(found)]

    def sync(self) -> tuple[int, int]:
        """Brings all to the disk; returns how many bytes the file has, and their CRC-32. Raises OSError where it cannot
        be written.
        """
        self._flush()
        os.fsync(self._file)
        return self._flushed, self._crc

    def _spill(self) -> None:
        """Makes room. Where there is no disk, all stays in memory: a result is worth more than what it takes."""
        try:
            if self._file < 0:
                with tempfile.TemporaryFile(prefix="masklet-") as file:
                    self._open(os.dup(file.fileno()))
            self._flush()
        except OSError:
            self._room = len(self._held) + 16 * ROOM  # it is tried again later

    def _flush(self) -> None:
        done = 0
        with memoryview(self._held) as held:
            while done < len(held):
                done += os.pwrite(self._file, held[done:], self._flushed + done)
            self._crc = zlib.crc32(held, self._crc)
        self._flushed += len(self._held)
        self._held.clear()
        self._room = ROOM
