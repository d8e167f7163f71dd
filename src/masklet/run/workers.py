"""Several worker processes over one list of videos, shared by claims; one that dies costs its video a try.

Every worker is this program again, with the same arguments: its models are loaded once, and it passes over what others
have claimed or done.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import sleep

from masklet.core.cores import count_usable_cores
from masklet.run.claims import FOLDER, read_claim
from masklet.run.outcome import FAILED, RUN, Outcome, append_to_manifest

WORKER = "MASKLET_WORKER"  # in a worker's environment: its number
GIVEN_UP = "given-up"  # beside the claims: videos that killed too many workers
POLL = 0.2  # seconds


def get_worker_number() -> int | None:
    """Which worker this process is; None where it is none."""
    told = os.environ.get(WORKER)
    return int(told) if told is not None and told.isdecimal() else None


def order_for_worker(names: Sequence[str], number: int) -> list[str]:
    """The videos in the order in which worker `number` tries them, so that workers seldom meet.

    >>> order_for_worker(["a", "b", "c"], 1)
    ['b', 'c', 'a']
    """
    start = number % max(len(names), 1)
    return [*names[start:], *names[:start]]


def is_given_up(out: Path, name: str) -> bool:
    """Whether a video has killed too many workers of this run."""
    return (out / FOLDER / GIVEN_UP / name).exists()


def run_workers(out: Path, count: int, retries: int, arguments: Sequence[str]) -> Counter[str]:
    """Runs `count` workers with the `arguments` of this command until each of them has passed through all videos.

    A worker that dies by a signal is started again; the video that it had claimed in `out` has then killed it, and is
    given up after `retries` more tries. Returns how often each video has killed one.
    """
    for left in (out / FOLDER / GIVEN_UP).glob("*"):
        left.unlink()
    threads = str(max(count_usable_cores() // count, 1))
    kills: Counter[str] = Counter()
    workers = {n: start_worker(n, threads, arguments) for n in range(count)}
    try:
        while workers:
            sleep(POLL)
            for n, worker in list(workers.items()):
                if worker.poll() is None:
                    continue
                del workers[n]
                if worker.returncode < 0 or worker.returncode == 128 + 9:
                    for name in find_claimed(out, worker.pid):
                        kills[name] += 1
                        if kills[name] > retries:
                            give_up(out, name, worker.returncode)
                    workers[n] = start_worker(n, threads, arguments)
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.wait()
    return kills


def start_worker(number: int, threads: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """One worker; what it says of its videos comes through."""
    env = {**os.environ, WORKER: str(number), RUN: str(os.getpid()), "OMP_NUM_THREADS": threads}
    return subprocess.Popen([sys.executable, "-m", "masklet", *arguments], env=env, stdin=subprocess.DEVNULL)


def find_claimed(out: Path, process: int) -> list[str]:
    """The videos that a process of this machine has claimed."""
    claims = (out / FOLDER / "claims").glob("*.json")
    return [path.stem for path in claims if (read_claim(path) or {}).get("process") == process]


def give_up(out: Path, name: str, status: int) -> None:
    """Notes that a video has killed too many workers, the last with this exit `status`."""
    mark = out / FOLDER / GIVEN_UP / name
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    reason = f"{name}: its process was ended by signal {-status} each time; it may need more memory than there is"
    append_to_manifest(out, Outcome(name, name, FAILED, reason, foreseen=False))
