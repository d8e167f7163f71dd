"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from masklet.core.errors import InputError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when all of it is on the disk; on any error, nothing is left.

    Raises InputError where it cannot be written.
    """
    made: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".partial", delete=False
        ) as file:
            made = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
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
