"""Files that are there whole or not at all."""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from masklet.core.errors import InputError
from masklet.core.limits import LARGEST_JSON

CHUNK = 1 << 20  # bytes that are read at once
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when all of it is on the disk; on any error, nothing is left.

    Raises InputError where it cannot be written, or something is there that is no file, such as a device or a pipe: it
    would be lost.
    """
    if path_exists(path) and not path.is_file():
        raise InputError(f"{path}: is there and no file; choose another path")
    made: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".partial", delete=False
        ) as file:
            made = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(PermissionError):  # a disk without rights of its own, such as a USB stick
            made.chmod(0o666 & ~_get_umask())  # a temporary file is its owner's alone
        made.replace(path)
    except BaseException as error:
        if made is not None:
            made.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise explain_write_error(path, error) from None
        raise


def _get_umask() -> int:
    mask = os.umask(0o077)  # there is no way to read it but to set it
    os.umask(mask)
    return mask


def explain_write_error(path: Path, error: OSError) -> InputError:
    """What to tell the user when something cannot be written."""
    if error.errno in FULL:
        return InputError(f"{path}: the disk is full ({error.strerror}); make room, or choose another folder")
    return InputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder")


def read_json(path: Path, form: str, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        form: what the file should be, for the message.
        object_pairs_hook: makes an object of its names and values, as of `json.loads`.

    Returns:
        What the file holds; Python reads NaN and Infinity too, so numbers are to be checked.

    Raises:
        InputError: it cannot be read, is too large, is no JSON or is cut off.
    """
    data = read_bytes(path, form)
    try:
        return json.loads(data, object_pairs_hook=object_pairs_hook)
    except UnicodeDecodeError:  # which says what is odd about some byte
        raise InputError(f"{path}: not JSON, or cut off; give {form}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut off ({error}); give {form}") from None


def read_bytes(path: Path, form: str, most: int = LARGEST_JSON) -> bytes:
    """All of a file or a pipe of at most `most` bytes; `form` is what it should be, for the message. Raises InputError
    where it cannot be read, is larger, or is a device, which may never end.
    """
    try:
        with path.open("rb") as file:
            kind = os.fstat(file.fileno())
            if stat.S_ISREG(kind.st_mode):
                data = file.read() if kind.st_size <= most else None
            elif stat.S_ISFIFO(kind.st_mode):
                data = _read_pipe(file, most)
            else:
                raise InputError(f"{path}: a device, not a file; give {form}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give {form}") from None
    except ValueError:  # NUL, or half a character, in the name
        raise InputError(f"{path}: no name of a file; give {form}") from None
    if data is None:
        raise InputError(f"{path}: larger than {most:,} bytes; give {form}")
    return data


def _read_pipe(file: IO[bytes], most: int) -> bytes | None:
    """All that comes out of a pipe; None where that is more than `most` bytes."""
    data = bytearray()
    while piece := file.read(CHUNK):
        data += piece
        if len(data) > most:
            return None
    return bytes(data)


def read_text(path: Path, form: str) -> str:
    """A text file in UTF-8, or in UTF-16 with the mark with which programs of Windows begin it; the mark is no part of
    the text. `form` is what the file should be, for the message. Raises InputError where it cannot be read.
    """
    data = read_bytes(path, form)
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in UTF-8; give {form}") from None


def path_exists(path: Path) -> bool:
    """Whether there is a file or a folder of this name; not where there can be none, such as of a name too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
