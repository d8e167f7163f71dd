"""Where the checkpoints of a video lie, and whether they are of the run that is to be done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from masklet.core.checkpoint import Checkpoints
from masklet.run.claims import FOLDER


def get_checkpoint_folder(out: Path, name: str) -> Path:
    """Where the checkpoints of a video's folder are, if there are any."""
    return out / FOLDER / "checkpoints" / name


def open_checkpoints(out: Path, name: str, recipe: str, every: int, tell: Callable[[str], None]) -> Checkpoints:
    """The checkpoints of a video; those of another recipe are removed.

    Args:
        out: the output folder of the whole run.
        name: of the video's folder in it.
        recipe: the hash of all that decides the result.
        every: frames from one to the next.
        tell: is given a sentence on what is not used, and why.
    """
    folder = get_checkpoint_folder(out, name)
    others = [path for path in folder.glob("*") if path.name != recipe]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    if others:
        tell("a checkpoint of other settings or another source was removed; the video is begun anew")
    return Checkpoints(folder / recipe, every, tell)


def remove_checkpoints(out: Path, name: str) -> None:
    """Removes the checkpoints of a video that is done, and their folder with the last of them."""
    folder = get_checkpoint_folder(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others have some
        folder.parent.rmdir()
