"""A watched folder: the videos in it, and those that appear, each once and when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

from masklet.core.errors import InputError
from masklet.core.wording import name_argument
from masklet.io.video.source_names import name_source, sort_naturally
from masklet.io.video.sources import VIDEO_SUFFIXES
from masklet.run.video_list import OWN_NAMES

POLL = 1.0  # seconds between two looks
SETTLED = 3.0  # seconds without a change after which a file is taken for whole

State = tuple[int, int]  # size in bytes, time of the last change


def read_file_states(folder: Path) -> dict[Path, State]:
    """The video files in a folder that are not hidden, in natural order, as they are now. Raises InputError where it
    cannot be read.
    """
    found = {}
    try:
        for path in sort_naturally(folder.iterdir()):
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file():
                told = path.stat()
                found[path] = (told.st_size, told.st_mtime_ns)
    except FileNotFoundError:  # moved away between two looks
        if not folder.is_dir():
            raise InputError(f"{name_argument('folder', folder, option='watch')}: there is no such folder") from None
    except OSError as error:
        where = name_argument("folder", folder, option="watch")
        raise InputError(f"{where}: cannot be read ({error.strerror}); give a folder of videos") from None
    return found


def watch_folder(
    folder: Path, wait: Callable[[float], None] = sleep, clock: Callable[[], float] = monotonic
) -> Iterator[Path]:
    """The video files in a folder, and those that come later, each when it has not changed for `SETTLED` seconds; one
    that changes afterwards comes again. Does not end by itself; Ctrl-C while it waits ends it.

    Args:
        folder: that is looked at; not the folders in it.
        wait: for some seconds.
        clock: in seconds.
    """
    seen: dict[Path, tuple[State, float]] = {}
    given: dict[Path, State] = {}
    while True:
        now, states = clock(), read_file_states(folder)
        seen = {p: (s, seen[p][1] if p in seen and seen[p][0] == s else now) for p, s in states.items()}
        for path, (state, since) in seen.items():
            if state[0] and now - since >= SETTLED and given.get(path) != state:
                given[path] = state
                yield path
        try:
            wait(POLL)
        except (SystemExit, KeyboardInterrupt):
            return


class WatchedNames:
    """Names for videos that come one by one: that of the file, with its suffix where another has it already."""

    def __init__(self) -> None:
        self._taken = dict.fromkeys(OWN_NAMES, Path())

    def choose(self, path: Path) -> str:
        """The name of a file; the same one when it comes again.

        >>> names = WatchedNames()
        >>> [names.choose(Path(name)) for name in ("a.mp4", "a.mkv", "a.mp4")]
        ['a', 'a.mkv', 'a']
        """
        plain = name_source(str(path))
        name = plain if self._taken.get(plain, path) == path else path.name
        self._taken[name] = path
        return name
