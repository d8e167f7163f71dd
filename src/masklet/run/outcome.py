"""What became of each video of a run, and the manifest in which it is written down."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

MANIFEST = "manifest.jsonl"
DONE, KEPT, FAILED, REFUSED, CLAIMED = "done", "kept", "failed", "refused", "claimed"


@dataclass(frozen=True)
class Outcome:
    """One video's end."""

    video: str  # the name of its folder
    source: str
    state: str  # done; kept: by this recipe before; refused: done by another one; claimed: by another run; failed
    reason: str = ""  # one sentence, where it was not done
    seconds: float = 0.0
    frames: int = 0
    objects: int = 0
    recipe: str = ""
    foreseen: bool = True  # whether a failure is the input's, and not ours

    @property
    def is_there(self) -> bool:
        """Whether the result is there."""
        return self.state in (DONE, KEPT)


def append_to_manifest(out: Path, outcome: Outcome) -> None:
    """Adds a line; several processes may do so at once."""
    told = {**asdict(outcome), "time": time.time(), "host": platform.node(), "process": os.getpid()}
    line = (json.dumps(told) + "\n").encode()
    handle = os.open(out / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def read_manifest(out: Path) -> Iterator[dict[str, object]]:
    """The lines that can be read; one that was cut off is passed over."""
    try:
        text = (out / MANIFEST).read_text()
    except OSError:
        return
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def format_summary(outcomes: list[Outcome]) -> str:
    """A batch in a line.

    >>> format_summary([Outcome("a", "a.mp4", DONE), Outcome("b", "b.mp4", KEPT), Outcome("c", "c.mp4", FAILED)])
    '3 videos: 1 done, 1 done before, 1 failed'
    """
    words = {DONE: "done", KEPT: "done before", FAILED: "failed", REFUSED: "refused", CLAIMED: "made by another run"}
    counts = {state: sum(o.state == state for o in outcomes) for state in words}
    parts = [f"{n} {words[state]}" for state, n in counts.items() if n]
    return f"{len(outcomes)} video{'s' if len(outcomes) != 1 else ''}: {', '.join(parts)}"
