"""How a system tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Watch = Callable[[str, int, int | None, int], None]  # phase, frames done, frames in all if known, objects


def discard_progress(phase: str, done: int, total: int | None, objects: int) -> None:
    """A watcher that says nothing of the `phase`, of how many frames of the `total` are `done`, and of how many
    `objects`.
    """
