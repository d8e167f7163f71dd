"""Batches that are disturbed: kills at random moments, bad clips, several runs over one list, and what safety costs.

python benchmarks/kills.py [random|workers|bad|shared|speed|overhead ...]     (all without a word; small clips)

The parts that go wrong on demand are those of the tests (tests/plugin/odd.py); `speed` and `overhead` run real ones.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PLUGIN = Path(__file__).resolve().parent.parent / "tests" / "plugin"
sys.path.insert(0, str(PLUGIN))

import kills  # noqa: E402
import odd  # noqa: E402

PARTS = ("--segmenter", "odd", "--propagator", "still", "-o", "out")
OUT = Path("out")
WAYS = {
    "killed": odd.KILLED,
    "hangs": odd.HANGS,
    "no-memory": odd.NO_MEMORY,
    "aborts": odd.ABORTS,
    "ends": odd.ENDS,
    "exits": odd.EXITS,
    "raises": odd.RAISES,
}


def start(*words: str, **options: object) -> subprocess.Popen[str]:
    """`masklet run` as a process of its own."""
    command = [sys.executable, "-m", "masklet", "run", *words]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]


def run(*words: str) -> tuple[int, str]:
    """Its exit status and what it said on standard error."""
    process = start(*words)
    said = process.communicate()[1]
    return process.returncode, said


def states() -> Counter[tuple[str, str]]:
    """How often the manifest says what of which video."""
    lines = [json.loads(line) for line in (OUT / "manifest.jsonl").read_text().splitlines()]
    return Counter((line["video"], line["state"]) for line in lines)


def kill_at_random_times(count: int = 50) -> None:
    """A run in one process, killed at a random time, and the next run, in children of this process: no start-up."""
    from typer.testing import CliRunner

    from masklet.cli import app

    names = [f"clip{n}" for n in range(6)]
    for name in names:
        odd.write_clip(Path(name), length=6)
    words = ["run", *names, *PARTS, "-q"]
    CliRunner().invoke(app, words)  # everything is imported
    whole = kills.hash_results(OUT)
    shutil.rmtree(OUT)

    def begin() -> int:
        child = os.fork()
        if child == 0:
            os._exit(CliRunner().invoke(app, words).exit_code)
        return child

    since = time.monotonic()
    os.waitpid(begin(), 0)
    lasts, chance, left, done = time.monotonic() - since, random.Random(0), 0, Counter[int]()
    for _ in range(count):
        shutil.rmtree(OUT, ignore_errors=True)
        child = begin()
        time.sleep(chance.uniform(0, lasts))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done[len(list(OUT.glob("*/masklets.json")))] += 1
        left += OUT.exists() and kills.find_leftovers(OUT) != []
        status = os.waitstatus_to_exitcode(os.waitpid(begin(), 0)[1])
        assert (status, kills.hash_results(OUT), kills.find_leftovers(OUT)) == (0, whole, [])
    print(f"{count} kills at random times of a run of {lasts:.1f} s over {len(names)} clips: all equal after the next,")
    print(f"  nothing left; {left} kills had left something; clips done at the kill: {dict(sorted(done.items()))}")


def kill_workers(count: int = 10) -> None:
    """Runs with two workers of which a random process is killed: the first, which ends all, or a worker."""
    names = [f"clip{n}" for n in range(6)]
    for name in names:
        odd.write_clip(Path(name), odd.SLOW)
    words = (*names, *PARTS, "--jobs", "2", "--json-log", "--retries", "1")
    assert run(*words)[0] == 0
    whole, chance, who = kills.hash_results(OUT), random.Random(1), Counter[str]()
    for _ in range(count):
        shutil.rmtree(OUT)
        process = start(*words)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 2))
        workers = [json.loads(p.read_text())["process"] for p in (OUT / kills.FOLDER / "claims").glob("*.json")]
        victim = chance.choice([process.pid, *workers])
        who["first process" if victim == process.pid else "worker"] += 1
        os.kill(victim, signal.SIGKILL)
        process.communicate()
        if victim != process.pid:
            assert process.returncode == 0  # the video was tried again
        else:
            assert run(*words)[0] == 0
        assert (kills.hash_results(OUT), kills.find_leftovers(OUT)) == (whole, [])
    print(f"{count} kills with two workers ({dict(who)}): all equal, nothing left")


def mix_bad_clips(count: int = 200) -> None:
    """Bad clips among good ones."""
    from PIL import Image

    for name, how in WAYS.items():
        odd.write_clip(Path("bad", name), how)
    Path("bad/damaged.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(500))
    Path("bad/empty").mkdir()
    Image.new("1", (70_000, 100)).save("bad/too-large.png")
    bad = sorted(map(str, Path("bad").iterdir()))
    good = [f"good/{n:03}" for n in range(count - len(bad))]
    for name in good:
        odd.write_clip(Path(name))
    sources = sorted([*good, *bad], key=lambda name: Path(name).name[::-1])
    Path("list.txt").write_text("\n".join(sources))
    words = ("--list", "list.txt", *PARTS, "--jobs", "2", "--timeout", "3", "--retries", "0", "--no-overlay")
    since = time.monotonic()
    status, said = run(*words)
    there = {p: p.stat().st_mtime_ns for p in OUT.glob("*/masklets.json")}
    told = states()
    failed = [video for (video, state), _ in told.items() if state == "failed"]
    print(f"{len(sources)} clips, {len(bad)} bad: {len(there)} done, {len(failed)} failed, exit {status}, ", end="")
    print(f"{time.monotonic() - since:.0f} s")
    print(said[said.index("not done:") :])
    assert (status, len(there), len(failed)) == (1, len(good), len(bad)) and max(told.values()) == 1
    status, _ = run(*words)
    again = states() - told
    assert {p: p.stat().st_mtime_ns for p in OUT.glob("*/masklets.json")} == there and status == 1
    assert Counter(state for _, state in again.elements()) == {"kept": len(good), "failed": len(bad)}
    assert kills.find_leftovers(OUT) == []
    status, said = run(*words, "--failed-only", "--dry-run")
    print("the same command again: the good ones kept as they are, the bad ones tried; nothing left")


def share_one_list(count: int = 100) -> None:
    """Two and four runs of one process each over one list."""
    names = [f"clip{n:03}" for n in range(count)]
    for name in names:
        odd.write_clip(Path(name))
    for runs in (2, 4):
        shutil.rmtree(OUT, ignore_errors=True)
        processes = [start(*names, *PARTS, "--no-overlay", "-q") for _ in range(runs)]
        for process in processes:
            process.communicate()
        told = states()
        done = Counter(video for (video, state), n in told.items() for _ in range(n) if state == "done")
        assert done == Counter(names) and kills.find_leftovers(OUT) == []
        lines = [json.loads(line) for line in (OUT / "manifest.jsonl").read_text().splitlines()]
        shares = Counter(line["process"] for line in lines if line["state"] == "done")
        status = [process.returncode for process in processes]
        print(f"{runs} runs over {count} clips: each done once, by {sorted(shares.values())}; exit {status}")


def draw_real_clips(count: int, length: int) -> list[str]:
    """Clips for parts that ship."""
    for n in range(count):
        odd.write_clip(Path(f"real{n:02}"), length=length, size=(120, 160))
    return [f"real{n:02}" for n in range(count)]


def compare_jobs(pairs: int = 3) -> None:
    """Two jobs against one job of one thread, in turn."""
    names = draw_real_clips(16, 24)
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    words = (*names, "-o", "out", "-q", "--no-overlay", "--segmenter", "nano", "--propagator", "nano")
    ratios = []
    for _ in range(pairs):
        took = []
        for jobs in ("1", "2"):
            shutil.rmtree(OUT, ignore_errors=True)
            since = time.monotonic()
            process = start(*words, "--jobs", jobs, env=one)
            process.communicate()
            assert process.returncode == 0
            took.append(time.monotonic() - since)
        ratios.append(took[0] / took[1])
        print(f"  one job {took[0]:.1f} s, two {took[1]:.1f} s: {ratios[-1]:.2f} times (load {os.getloadavg()[0]:.1f})")
    print(f"two jobs are {statistics.median(ratios):.2f} times one job of one thread (median of {pairs} pairs)")


def measure_overhead(pairs: int = 15) -> None:
    """A video by `process_video`, and by what it calls without claim, recipe and manifest, in turn."""
    from masklet.api import run_system
    from masklet.io.video.sources import open_video
    from masklet.run.batch import process_video
    from masklet.run.plan import RunOptions, plan_jobs
    from masklet.run.video_list import list_videos
    from masklet.view.progress import QuietReporter

    names = draw_real_clips(1, 12)
    options = RunOptions(OUT, list_videos(names, None), segmenter="nano", propagator="nano", overlay=False)
    [job] = plan_jobs(options)
    Path("bare").mkdir()
    ratios = []
    for pair in range(pairs + 1):
        shutil.rmtree(OUT, ignore_errors=True)
        since = time.process_time(), time.monotonic()
        with open_video(names[0]) as video:
            run_system(job.make(video), video, names[0]).save(Path("bare/masklets.json"))
        half = time.process_time(), time.monotonic()
        assert process_video(job, QuietReporter()).state == "done"
        end = time.process_time(), time.monotonic()
        if pair:  # the first one loads
            ratios.append([(c - b) / (b - a) - 1 for a, b, c in zip(since, half, end, strict=True)])
    cpu, wall = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"claim, recipe and manifest cost {cpu:+.1%} of the CPU time, {wall:+.1%} of the time of a clip of 12 frames "
    )
    print(f"  of 160x120 ({half[1] - since[1]:.2f} s; median of {pairs} pairs; load {os.getloadavg()[0]:.1f})")


PROOFS = {
    "random": kill_at_random_times,
    "workers": kill_workers,
    "bad": mix_bad_clips,
    "shared": share_one_list,
    "speed": compare_jobs,
    "overhead": measure_overhead,
}


def main() -> None:
    """Each proof in a folder of its own."""
    for name in sys.argv[1:] or PROOFS:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            os.chdir(folder)
            odd.install(Path(folder) / "site", PLUGIN)
            os.environ["PYTHONPATH"] = os.pathsep.join([f"{folder}/site", *filter(None, [PATHS])])
            sys.path.insert(0, f"{folder}/site")
            PROOFS[name]()
            sys.path.remove(f"{folder}/site")
            os.chdir("/")


PATHS = os.environ.get("PYTHONPATH", "")

if __name__ == "__main__":
    main()
