"""Wall and CPU seconds of whole commands, beside another checkout's: in turn, in one run, the masks compared.

    git worktree add /tmp/before 7c51b1e
    python benchmarks/paired.py --before /tmp/before --frames FOLDER --only run,track,nano,start,first,busy

`FOLDER` holds one video's frames, such as blackswan's. `first` is how much CPU time of one thread goes by until the
first frame is done, beside what `import torch` takes, of which there is no less. `busy` is `run` beside a process that
never rests; it is told as a ratio to the share of the cores that is left. Without `--before` this checkout is measured
alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from masklet.core.cores import count_usable_cores
from masklet.core.result import VideoResult

HERE = Path(__file__).resolve().parent.parent
FRAMES = Path(os.environ.get("MASKLET_DAVIS", HERE.parent / "shared/data/davis16")) / "JPEGImages/480p/blackswan"
COMMANDS: Mapping[str, Sequence[str]] = {  # what follows the frames
    "run": ("run",),
    "track": ("track", "--prompt", "0:1:{point}"),
    "nano": ("run", "--segmenter", "nano"),
    "fast": ("run", "--preset", "fast"),
    "start": ("track", "--prompt", "0:1:{point}", "--end", "1", "--no-overlay"),
}
TORCH = "import gc; gc.disable(); import os, torch; os._exit(0)"  # without the search for garbage, and the end


@dataclass(frozen=True)
class Measurement:
    """One command, once."""

    wall: float  # seconds
    cpu: float  # seconds, user and system, of all its threads
    peak: float  # MiB


def main() -> int:
    """Measures what the command line asks for."""
    options = parse_options()
    frames = sorted(options.frames.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        clip = Path(scratch) / options.frames.name
        clip.mkdir()
        for frame in frames[: options.most]:
            shutil.copy(frame, clip)
        for name in options.only.split(","):
            compare(name, clip, options)
    return 0


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--frames", type=Path, default=FRAMES, help="a folder of frames")
    parser.add_argument("--most", type=int, default=50, help="frames of it that are used")
    parser.add_argument("--point", default="point=420,240", help="what track is given in the first frame")
    parser.add_argument("--only", default="run,track,nano,start,busy", help="names, with commas between them")
    parser.add_argument("--times", type=int, default=3, help="runs of each, of which the middle one is told")
    return parser.parse_args()


def compare(name: str, clip: Path, options: argparse.Namespace) -> None:
    """Prints one line about a command: before, now, their ratio, and how alike the masks are."""
    count = len(list(clip.iterdir()))
    if name == "busy":
        tell_busy(clip, options)
        return
    if name == "first":
        tell_first(clip, options)
        return
    trees = {"before": options.before, "now": HERE} if options.before else {"now": HERE}
    found: dict[str, list[Measurement]] = {tree: [] for tree in trees}
    for _ in range(options.times):
        for tree, folder in trees.items():
            found[tree].append(measure(name, folder, clip, clip.parent / tree, options.point))
    middle = {tree: Measurement(*map(median, zip(*map(as_row, runs), strict=True))) for tree, runs in found.items()}
    for tree, m in middle.items():
        each = f"{m.wall / count:6.3f} s and {m.cpu / count:6.3f} CPU s a frame"
        print(f"{name:6} {tree:6} {m.wall:7.2f} s  {m.cpu:7.2f} CPU s  {each}  {m.peak:5.0f} MiB", flush=True)
    if options.before:
        before, now = middle["before"], middle["now"]
        alike = compare_masks(clip.parent / "before" / clip.name, clip.parent / "now" / clip.name)
        print(f"{name:6} ratio  wall {before.wall / now.wall:.2f}, CPU {before.cpu / now.cpu:.2f}; {alike}", flush=True)


def tell_first(clip: Path, options: argparse.Namespace) -> None:
    """Prints the CPU seconds until the first frame of `track` and of `run` is done, and those of `--help` and of
    importing torch, each in turn; of every tree.
    """
    help_alone, torch_alone = ("-m", "masklet", "--help"), ("-c", TORCH)
    trees = {"before": options.before, "now": HERE} if options.before else {"now": HERE}
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.times + 1):  # the first of each reads from disk and compiles
        for tree, folder in trees.items():
            for name in ("track", "run"):
                seconds = measure_first(name, folder, clip, clip.parent / tree, options.point)
                found.setdefault((tree, name), []).append(seconds)
            for name, words in (("--help", help_alone), ("torch", torch_alone)):
                found.setdefault((tree, name), []).append(measure_words(words, folder, clip.parent, until="")[1])
    middle = {key: median(seconds[1:]) for key, seconds in found.items()}
    for tree in trees:
        torch, *others = (middle[tree, name] for name in ("torch", "track", "run", "--help"))
        told = zip(("track", "run", "--help"), others, strict=True)
        each = ", ".join(f"{name} {seconds:.2f} CPU s ({seconds / torch:.2f})" for name, seconds in told)
        print(f"first  {tree:6} {each}; import torch {torch:.2f} (1.00)", flush=True)


def measure_first(name: str, tree: Path, clip: Path, out: Path, point: str) -> float:
    """CPU seconds of a command of a checkout over the `clip` until its first frame is done, by one thread."""
    shutil.rmtree(out, ignore_errors=True)
    words = [word.format(point=point) for word in COMMANDS[name]]
    words = ["-m", "masklet", words[0], str(clip), "-o", str(out), *words[1:], "--end", "1", "--no-overlay"]
    return measure_words([*words, "--json-log"], tree, out.parent, until='"progress"')[0]


def measure_words(words: Sequence[str], tree: Path, folder: Path, until: str) -> tuple[float, float]:
    """CPU seconds of Python with some arguments, of a checkout, in a `folder`: until a line that holds `until` is
    written, and in all.
    """
    path = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *words], env=path, stdout=subprocess.PIPE, cwd=folder, text=True)
    assert process.stdout is not None
    first = 0.0
    for line in process.stdout:
        if until in line and not first:
            first = read_cpu_seconds(process.pid)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return first, used.ru_utime + used.ru_stime


def read_cpu_seconds(pid: int) -> float:
    """User's and system's of a process that runs, by Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def as_row(m: Measurement) -> tuple[float, float, float]:
    """Its three numbers."""
    return m.wall, m.cpu, m.peak


def measure(name: str, tree: Path, clip: Path, out: Path, point: str) -> Measurement:
    """One command of a checkout over the `clip`."""
    command, *more = (word.format(point=point) for word in COMMANDS[name])
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "masklet", command, str(clip), "-o", str(out), *more]
    path = {**os.environ, "PYTHONPATH": str(tree / "src")}
    started = time.perf_counter()
    process = subprocess.Popen(words, env=path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=out.parent)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: {said.decode()[-2000:]}")
    return Measurement(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def compare_masks(before: Path, now: Path) -> str:
    """How many masklets two results have, and the mean and least IoU of those of one id, frame by frame."""
    old, new = (VideoResult.open(folder / "masklets.json") for folder in (before, now))
    pairs = {m.id: m for m in old.masklets}
    ious = [
        measure_iou(pairs[m.id].sightings.get(t), m.sightings.get(t))
        for m in new.masklets
        if m.id in pairs
        for t in {*m.sightings, *pairs[m.id].sightings}
    ]
    told = f"mean IoU {np.mean(ious):.5f}, least {min(ious):.3f}" if ious else "none to compare"
    return f"masklets {len(old.masklets)} and {len(new.masklets)}: {told}"


def measure_iou(a: object, b: object) -> float:
    """Of two sightings' masks; 0 where there is one alone."""
    if a is None or b is None:
        return 0.0
    one, other = (s.mask.decode_pixels() for s in (a, b))  # type: ignore[attr-defined]
    either = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / either) if either else 1.0


@contextmanager
def keep_one_core_busy() -> Iterator[None]:
    """A process that never rests, on the first core that there is."""
    core = min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", spin])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def tell_busy(clip: Path, options: argparse.Namespace) -> None:
    """Prints how much longer `run` takes beside a busy process than by the share of the cores that it has left."""
    alone, beside = [], []
    for _ in range(options.times):
        alone.append(measure("run", HERE, clip, clip.parent / "now", options.point).wall)
        with keep_one_core_busy():
            beside.append(measure("run", HERE, clip, clip.parent / "now", options.point).wall)
    cores, slower = count_usable_cores(), median(beside) / median(alone)
    share = (cores - 1) / cores if cores > 1 else 0.5
    print(
        f"busy   now    {median(alone):7.2f} s alone, {median(beside):7.2f} s beside a busy process: {slower:.2f}, "
        f"{slower * share:.2f} times what {share:.0%} of {cores} cores would take (at most 1.3)",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
