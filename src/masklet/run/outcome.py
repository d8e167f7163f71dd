"""What became of each video of a run, and the manifest in which it is written down."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

MANIFEST = "manifest.jsonl"
FAILURES = "failed"  # the folder of tracebacks
DONE, KEPT, FAILED, REFUSED, CLAIMED = "done", "kept", "failed", "refused", "claimed"
STATES = {DONE: "done", KEPT: "done before", FAILED: "failed", REFUSED: "refused", CLAIMED: "made by another run"}
LISTED = 50  # videos that were not done, in a summary


@dataclass(frozen=True)
class Outcome:
    """One video's end."""

    video: str  # the name of its folder
    source: str
    state: str  # done; kept: by this recipe before; refused: done by another one; claimed: by another run; failed
    reason: str = ""  # one sentence, where it was not done
    seconds: float = 0.0
    frames: int = 0  # of those that were done, as are the next five
    objects: int = 0
    disk: int = 0  # bytes of its folder
    memory: int = 0  # bytes: the most that its process held meanwhile
    device: str = ""  # where networks computed
    device_memory: int = 0  # bytes: the most that was taken of a CUDA device
    recipe: str = ""
    foreseen: bool = True  # whether a failure is the input's, and not ours

    @property
    def is_there(self) -> bool:
        """Whether the result is there."""
        return self.state in (DONE, KEPT)


def append_to_manifest(out: Path, outcome: Outcome) -> None:
    """Adds a line; several processes may do so at once. Raises OSError where it cannot be written."""
    told = {**asdict(outcome), "time": time.time(), "host": platform.node(), "process": os.getpid()}
    handle = os.open(out / MANIFEST, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        is_cut_off = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # by a full disk
        os.write(handle, b"\n" * is_cut_off + json.dumps(told).encode() + b"\n")
    finally:
        os.close(handle)


def read_manifest(out: Path) -> Iterator[dict[str, Any]]:
    """The lines that can be read; one that was cut off is passed over."""
    try:
        text = (out / MANIFEST).read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict):
            yield told


def read_last_states(out: Path) -> dict[str, str]:
    """The state of every video by its last line in the manifest; that others were at it is no state of its own."""
    return {
        str(told.get("video")): str(told.get("state")) for told in read_manifest(out) if told.get("state") != CLAIMED
    }


def count_states(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many videos ended in each state."""
    return {state: sum(o.state == state for o in outcomes) for state in STATES}


def format_summary(outcomes: Sequence[Outcome]) -> str:
    """A batch in a line.

    >>> format_summary([Outcome("a", "a.mp4", DONE), Outcome("b", "b.mp4", KEPT), Outcome("c", "c.mp4", FAILED)])
    '3 videos: 1 done, 1 done before, 1 failed'
    """
    parts = [f"{n} {STATES[state]}" for state, n in count_states(outcomes).items() if n]
    return f"{len(outcomes)} video{'s' if len(outcomes) != 1 else ''}: {', '.join(parts)}"


def format_summary_table(outcomes: Sequence[Outcome]) -> str:
    """A batch as a table, a line for each state, and the reasons of those that were not done below it.

    >>> print(format_summary_table([Outcome("a", "a.mp4", DONE, "", 61, 1200, 3), Outcome("b", "b", FAILED, "b: bad")]))
    state                 videos     frames  objects     time
    done                       1      1,200        3  0:01:01
    failed                     1          0        0  0:00:00
    not done:
      b: bad
    """
    lines = [f"{'state':20}{'videos':>8}{'frames':>11}{'objects':>9}{'time':>9}"]
    for state, word in STATES.items():
        ended = [o for o in outcomes if o.state == state]
        if ended:
            frames, objects = sum(o.frames for o in ended), sum(o.objects for o in ended)
            time = format_duration(sum(o.seconds for o in ended))
            lines.append(f"{word:20}{len(ended):>8,}{frames:>11,}{objects:>9,}{time:>9}")
    missing = [f"  {o.reason}" for o in outcomes if not o.is_there]
    rest = [f"  and {len(missing) - LISTED} more, in {MANIFEST}"] if len(missing) > LISTED else []
    return "\n".join([*lines, *(["not done:"] if missing else []), *missing[:LISTED], *rest])


def format_duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> format_duration(3725.4)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))
