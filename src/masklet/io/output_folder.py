"""Folders of results that appear whole or not at all."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.files import explain_write_error
from masklet.core.limits import check_file_name
from masklet.core.scratch import is_process_alive
from masklet.core.wording import name_argument


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Within the block, an OSError from writing to `path` becomes an InputError that tells the user what to do."""
    try:
        yield
    except OSError as error:
        raise explain_write_error(path, error) from error


def refuse_to_replace(out: Path, inputs: Iterable[Path]) -> None:
    """Raises InputError where the folder `out` is one of the `inputs` or one of them lies in it: it would be replaced
    with what is made of it.
    """
    for path in inputs:
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(
                f"{out}: the results would replace what they are made from ({path}); choose another folder"
            )


def advise_overwriting() -> str:
    """What to do where results are there already."""
    return f"add {name_argument('overwrite', True)} to replace them"


class OutputFolder:
    """OUT/<name>, filled under another name and given its own when everything is in it.

    Whatever ends the work early leaves nothing but, after a kill, a hidden folder that the next run on this
    machine removes.
    """

    def __init__(self, out: Path, name: str, overwrite: bool) -> None:
        """The folder `out`/`name`; what is in it already is replaced where `overwrite` is set, else refused."""
        check_file_name("output folder", name)
        self.name, self.path, self.overwrite = name, out / name, overwrite
        self._partial = out / f".{name[:40]}{get_partial_mark()}{os.getpid()}"
        self._old = out / f".old{get_partial_mark()}{os.getpid()}"

    def check_free(self) -> None:
        """Raises InputError where there are results already that must not be replaced, or something that is no folder,
        such as a file or a device, which is none of ours.
        """
        with explain_write_errors(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise InputError(f"{self.path}: is there and no folder; choose another one")
            filled = self.path.is_dir() and any(self.path.iterdir())
        if filled and not self.overwrite:
            raise InputError(f"{self.path}: there are results already; {advise_overwriting()}")

    def __enter__(self) -> Path:
        self.check_free()
        with explain_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_dead_partials(self.path.parent)
            self._clear()  # of an earlier process of this number, as in a container that is started again
            self._partial.mkdir()
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        with explain_write_errors(self.path):
            try:
                if error is None:
                    self._appear()
            finally:
                self._clear()
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):  # that one is a reader's
                raise error

    def _appear(self) -> None:
        """Takes the place of what was there; between the two there is only a moment. What appeared meanwhile stays."""
        self.check_free()
        if self.path.exists() or self.path.is_symlink():
            self.path.replace(self._old)
        self._partial.replace(self.path)

    def _clear(self) -> None:
        remove_path(self._partial)
        remove_path(self._old)


def get_partial_mark() -> str:
    """What is in the name of an unfinished folder before its process: others may share the disk, not the numbers."""
    return f".partial-{platform.node() or 'here'}-"


def remove_dead_partials(out: Path) -> None:
    """Removes the unfinished folders in `out` of processes of this machine that are no more."""
    for left in out.iterdir():
        process = left.name.rpartition(get_partial_mark())[2] if left.name.startswith(".") else ""
        if process.isdecimal() and not is_process_alive(int(process)):
            remove_path(left)


def remove_partials(out: Path, host: str, process: int) -> None:
    """Removes the unfinished folders in `out` of a process of a host that is known to be dead."""
    for left in out.glob(f".*.partial-{escape(host)}-{process}"):
        remove_path(left)


def remove_path(path: Path) -> None:
    """Removes a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
