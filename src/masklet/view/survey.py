"""What is found out about a result beside its being shown: when each object is seen, then where mistakes may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.statistics import LOOK_BACK, SuspiciousFrame, find_jumps, find_switches
from masklet.core.timeline import PresenceTrack, guess_presence, trace_presence
from masklet.core.tracks import Masklet

WINDOW = 32  # frames whose masks are measured at once: short, for others wait meanwhile
QUICK = 2_000  # sightings of an object that are looked at while somebody waits
QUIET = 0.4  # seconds after which nobody is taken to wait for a frame
MOST = 5_000  # suspicious frames that are kept: nobody looks at more


class Courtesy:
    """When somebody last waited for a frame: what is looked through meanwhile stands back then."""

    def __init__(self) -> None:
        self.asked = -QUIET

    def note(self) -> None:
        """Somebody waits for a frame now."""
        self.asked = time.monotonic()

    def wait(self, stopped: threading.Event) -> None:
        """Returns when nobody has waited for a while, or it was `stopped`."""
        while (left := self.asked + QUIET - time.monotonic()) > 0 and not stopped.wait(left):
            pass


COURTESY = Courtesy()  # of all videos that a server shows


@dataclass
class Survey:
    """One result, looked through on a thread of its own, so that an hour of it opens at once."""

    result: VideoResult
    before: Survey | None = None  # of the result that this one was edited from: what is the same is taken over
    suspicious: list[SuspiciousFrame] = field(default_factory=list)  # by frame, as far as it is looked through
    done: float = 0.0  # share of the work
    damage: str = ""  # why it ended early
    _tracks: dict[int, PresenceTrack] = field(default_factory=dict)  # by id
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> Survey:
        """Begins on a thread; returns itself."""
        threading.Thread(target=self.run, name="survey", daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends early: the result is not shown any more."""
        self._stopped.set()

    def run(self) -> None:
        """Looks through the whole result."""
        known = self.before.list_known_tracks() if self.before else {}
        self.before = None  # or all that ever was would be held
        try:
            for share in self._work(known):
                self.done = share
                COURTESY.wait(self._stopped)
                if self._stopped.is_set():
                    return
        except InputError as error:
            self.damage = str(error)
        self.done = 1.0

    def find_track(self, masklet: Masklet) -> PresenceTrack:
        """When an object is seen; unknown where nobody has looked yet, and looking takes a while."""
        found = self._tracks.get(masklet.id)
        if found is None and len(masklet.sightings) <= QUICK:
            return trace_presence(masklet, self.result.length)
        return guess_presence(masklet, self.result.length) if found is None else found

    def list_known_tracks(self) -> Mapping[int, tuple[Masklet, PresenceTrack]]:
        """The tracks so far with their masklets, by what is the same object as long as its masks are."""
        return {id(m.sightings): (m, self._tracks[m.id]) for m in self.result.masklets if m.id in self._tracks}

    def _work(self, known: Mapping[int, tuple[Masklet, PresenceTrack]]) -> Iterator[float]:
        """The work in steps; how much is done after each."""
        length, masklets = self.result.length, self.result.masklets
        for n, m in enumerate(masklets):
            taken = known.get(id(m.sightings))
            self._tracks[m.id] = taken[1] if taken else trace_presence(m, length)
            yield 0.1 * (n + 1) / len(masklets)
        spans = [(m, *self._tracks[m.id].span) for m in masklets if self._tracks[m.id].count]
        switches = sorted(find_switches(spans))
        for start in range(0, length, WINDOW):
            stop = min(start + WINDOW, length)
            window = self.result.read_window(max(start - LOOK_BACK, 0), stop)
            found = [s for s in find_jumps(window) if s.frame >= start]
            found += [s for s in switches if start <= s.frame < stop]
            self.suspicious += sorted(found)
            if len(self.suspicious) >= MOST:
                return
            yield 0.1 + 0.9 * stop / length
