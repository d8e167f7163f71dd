"""Worker processes: what ends or delays one costs its video a try, and all that is said comes to one place."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import odd
import pytest
from commands import fork_masklet
from kills import find_leftovers
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.scratch import is_process_alive
from masklet.run.claims import FOLDER
from masklet.run.outcome import CLAIMED, DONE, FAILED, Outcome, read_manifest
from masklet.run.queue import VideoQueue
from masklet.run.worker_process import MOVED
from masklet.run.workers import Crew, WorkerPool

PARTS = ("--segmenter", "odd", "--propagator", "still", "-o", "out")


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", *words, *PARTS])
    return done.exit_code, done.output


def test_bad_clips_cost_themselves_and_everything_is_told(place: Path) -> None:
    ways = {"a": 0, "hangs": odd.HANGS, "b": 0, "ends": odd.ENDS, "memory": odd.NO_MEMORY, "c": 0}
    for name, how in ways.items():
        odd.write_clip(Path(name), how)
    words = [*ways, "--no-overlay", "--jobs", "2", "--timeout", "1.5", "--retries", "0", "--json-log"]
    code, said = run(*words, "--metrics-file", "m.prom")
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert code == 1 and {p.parent.name for p in Path("out").glob("*/masklets.json")} == set("abc")
    last = {str(line["video"]): line for line in read_manifest(Path("out"))}
    assert {name: line["state"] for name, line in last.items()} == {n: FAILED if w else DONE for n, w in ways.items()}
    assert last["hangs"]["reason"] == "hangs: not done within 1.5 s (--timeout)" and last["hangs"]["seconds"] >= 1.5
    assert last["ends"]["reason"] == "ends: its process ended with exit status 7"
    assert last["memory"]["reason"].startswith("memory: MemoryError")
    assert (last["a"]["frames"], last["a"]["objects"], last["a"]["device"]) == (3, 1, "cpu")
    assert last["a"]["memory"] > 10**8 and last["a"]["disk"] > 100
    ended = [e for e in events if e["event"] == "end"]
    assert {e["video"]: e["state"] for e in ended} == {n: line["state"] for n, line in last.items()}
    assert ended[-1]["videos_ended"] == ended[-1]["videos"] == 6 and ended[-1]["frames"] == 9
    assert {e["video"] for e in events if e["event"] == "error"} == {"hangs", "ends", "memory"}
    assert all("video" in e for e in events if e["event"] != "summary")
    assert events[-1] == {"event": "summary", "done": 3, "kept": 0, "failed": 3, "refused": 0, "claimed": 0}
    metrics = Path("m.prom").read_text()
    assert 'masklet_videos{state="done"} 3\n' in metrics and 'masklet_videos{state="failed"} 3\n' in metrics
    assert 'masklet_videos{state="waiting"} 0\n' in metrics and "\nmasklet_frames 9\n" in metrics
    assert find_leftovers(Path("out")) == []
    code, said = run(*words[:-8], "--failed-only", "--dry-run")
    assert code == 0 and said.startswith("hangs: to be done\nends: to be done\nmemory: to be done\n3 to be done, 9 fra")
    assert "s a frame as in 3 done before" in said
    code, said = run("a", "b", "c", "--failed-only", "--no-overlay")
    assert code == 0 and "nothing to be done" in said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_an_interrupted_batch_ends_its_workers_and_frees_its_claims(place: Path) -> None:
    odd.write_clip(Path("slow"), odd.HANGS)
    process = fork_masklet("run", "slow", *PARTS, "--timeout", "600", "--json-log")
    while b"progress" not in (line := process.stdout.readline()):
        assert line, process.finish()
    [claim] = Path("out", FOLDER, "claims").glob("*.json")
    worker = json.loads(claim.read_text())["process"]
    os.kill(process.pid, signal.SIGTERM)
    code, _, err = process.finish()
    assert code == 128 + signal.SIGTERM and b"masklet: interrupted" in err and b"Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert find_leftovers(Path("out")) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
def test_a_worker_whose_parent_is_killed_ends(place: Path) -> None:
    odd.write_clip(Path("slow"), odd.HANGS)
    child = fork_masklet("run", "slow", *PARTS, "--timeout", "600", "-q")
    claims = Path("out", FOLDER, "claims")
    until = time.monotonic() + 60
    while not (found := list(claims.glob("*.json"))):
        assert is_process_alive(child.pid) and time.monotonic() < until
        time.sleep(0.05)
    worker = json.loads(found[0].read_text())["process"]
    os.kill(child.pid, signal.SIGKILL)
    assert child.finish()[0] == -signal.SIGKILL
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists() and find_leftovers(Path("out")) == []


def test_what_only_this_process_can_read_is_refused(place: Path) -> None:
    for words in (["-", "--jobs", "2"], ["-", "--timeout", "3"]):
        code, said = run(*words)
        assert code == 2 and "worker processes cannot read it" in said
    code, said = run("a", "--timeout", "0")
    assert code == 2 and "--timeout 0: give seconds above 0" in said


class FakeJob:
    """A job of which only the name counts."""

    def __init__(self, name: str) -> None:
        self.name = name

    def end(self, state: str, reason: str = "", **more: object) -> Outcome:
        return Outcome(self.name, self.name, state, reason, **more)  # type: ignore[arg-type]


def test_the_queue_tries_again_and_looks_twice_at_what_others_do() -> None:
    a, b = FakeJob("a"), FakeJob("b")
    queue = VideoQueue([a, b], retries=1)  # type: ignore[list-item]
    assert queue.take() is a and queue.fail(a, "died", 2.0) is None  # type: ignore[arg-type]
    assert queue.take() is b and queue.settle(b, b.end(CLAIMED)) is None  # type: ignore[arg-type]
    assert queue.take() is a and len(queue) == 1
    told = queue.fail(a, "died", 1.0)  # type: ignore[arg-type]
    assert told is not None and (told.reason, told.seconds) == ("a: died, 2 times", 3.0)
    assert queue.take() is b and queue.take() is None
    assert queue.settle(b, b.end(CLAIMED)) == b.end(CLAIMED)  # type: ignore[arg-type]


class Talker:
    """A worker that says something whenever it is listened to."""

    def __init__(self) -> None:
        self.pipe, self.theirs = Pipe()
        self.job, self.asked = FakeJob("slow"), list[float | None]()

    def follow(self, kind: int, told: object, reporter: object) -> None:
        """Nothing comes of it."""

    def kill_if_late(self, timeout: float | None) -> None:
        self.asked.append(timeout)


def test_a_video_that_goes_on_telling_how_far_it_is_may_be_late_as_well() -> None:
    pool = WorkerPool(None, Crew(1, 0, 9.0), VideoQueue([]), SimpleNamespace(reporter=None))  # type: ignore[arg-type]
    talker = Talker()
    pool.workers = [talker]  # type: ignore[list-item]
    talker.theirs.send((MOVED, ("forward", 1, 2, 0)))
    pool._listen()
    assert talker.asked == [9.0]
