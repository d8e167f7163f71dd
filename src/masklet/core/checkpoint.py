"""What a run over a long video keeps of itself every so many frames, so that another process goes on from there.

Memories and states are values, and every change of a track book is a record in a file that only grows: a checkpoint is
the state, and how much of the files belongs to it. It counts when its state is on the disk, whole, and not before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.memory import load_memory, save_memory
from masklet.core.spill import DamagedSpillError, Spill
from masklet.core.tracks import Fork, TrackBook

STATE = "state.safetensors"
BOOK = "book"


@dataclass(frozen=True)
class SavedRun:
    """A run as it was after some frame."""

    phase: str  # such as "forward"
    frame: int  # forward the next one, backward the last one
    state: Any  # the system's own, in this phase
    carried: Any = None  # what the phases before left for those after
    forks: Mapping[int, Sequence[Fork]] = field(default_factory=dict)  # of the track book
    spills: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name: bytes and CRC-32 of the file


class Checkpoints:
    """The checkpoints of one run, and what an earlier process left to go on from. Without a folder there are none, and
    all else is the same.

    Attributes:
        saved: the run as an earlier process left it; None where there is nothing to go on from.
        carried: what a phase leaves for those after it: a value, which is saved along.
    """

    def __init__(
        self, folder: Path | None = None, every: int = 0, tell: Callable[[str], None] = lambda sentence: None
    ) -> None:
        """
        Args:
            folder: of this run alone; made, and removed by `remove`.
            every: frames from one checkpoint to the next; 0: none are written.
            tell: is given sentences on what could not be read or written.
        """
        self.saved: SavedRun | None = None
        self.carried: Any = None
        self._folder, self._every, self._tell = folder, every if folder else 0, tell
        self._since = 0
        self._spills: dict[str, Spill] = {}
        self._book: TrackBook | None = None
        if folder is not None and (folder / STATE).exists():
            self._restore(folder)

    def _restore(self, folder: Path) -> None:
        try:
            saved = load_memory(folder / STATE, device=None)
            if not isinstance(saved, SavedRun):
                raise DamagedSpillError(f"{STATE} is no state of a run")
            self._spills = {name: Spill.restore(folder / name, *told) for name, told in saved.spills.items()}
            self.saved, self.carried = saved, saved.carried
        except (InputError, DamagedSpillError, OSError) as error:
            self._spills = {}
            self._tell(f"the checkpoint cannot be used ({error}); the video is begun anew")
            self.remove()

    def open_spill(self, name: str) -> Spill:
        """The file `name` of this run, with what belongs to the checkpoint in it."""
        if name not in self._spills:
            self._spills[name] = Spill(self._make_path(name))
        return self._spills[name]

    def _make_path(self, name: str) -> Path | None:
        """Where a file of this run lies; None where there is no place for it."""
        if not self._every or self._folder is None:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / name).touch()
        except OSError as error:
            self.stop(error.strerror or str(error))
            return None
        return self._folder / name

    def open_book(self) -> TrackBook:
        """The track book of this run, with what belongs to the checkpoint in it."""
        self._book = TrackBook.restore(self.open_spill(BOOK), self.saved.forks if self.saved else {})
        return self._book

    def count_frame(self) -> None:
        """One more frame is done."""
        self._since += 1

    @property
    def is_due(self) -> bool:
        """Whether so many frames are done since the last checkpoint that the next one should be written."""
        return 0 < self._every <= self._since

    def save(self, phase: str, frame: int, state: Any) -> None:
        """Writes a checkpoint: the run is in this `phase` at this `frame`, in this `state`. What cannot be written is
        told, and the run goes on without.
        """
        self._since = 0
        assert self._folder is not None
        try:
            spills = {name: spill.sync() for name, spill in self._spills.items()}
            forks = self._book.forks if self._book else {}
            save_memory(SavedRun(phase, frame, state, self.carried, forks, spills), self._folder / STATE)
        except TypeError as error:
            self.stop(str(error))
        except (InputError, OSError) as error:
            self._tell(f"no checkpoint was written at frame {frame}: {error}")

    def stop(self, reason: str) -> None:
        """No more checkpoints are written, for a `reason` that is told where there were to be some."""
        if self._every:
            self._every = 0
            self._tell(f"no checkpoints are written: {reason}")

    def remove(self) -> None:
        """Removes the folder; what is open stays readable for this process."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
