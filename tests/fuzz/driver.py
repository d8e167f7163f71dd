"""Runs the fuzzer's inputs in a process of their own, and notes crashes, hangs, tracebacks and files in wrong places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

TESTS = Path(__file__).resolve().parent.parent
PATIENCE = 10.0  # seconds for one input
START = 180.0  # seconds for the imports, on a busy machine
GOOD = ("done", "refused")
Case = tuple[str, int]


@dataclass
class Found:
    """What became of all inputs."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    findings: list[tuple[Case, str, str]] = field(default_factory=list)  # input, status, detail

    def note(self, case: Case, status: str, detail: str) -> None:
        self.counts[case[0]][status] += 1
        if status not in GOOD:
            self.findings.append((case, status, detail))

    def table(self) -> str:
        """A line for each kind, and one for each different finding."""
        columns = ("done", "refused", "traceback", "crash", "hang", "outside", "command")
        lines = ["kind".ljust(16) + "".join(c.rjust(11) for c in ("inputs", *columns))]
        for kind, count in [*sorted(self.counts.items()), ("all", sum(self.counts.values(), Counter[str]()))]:
            numbers = (count.total(), *(count[c] for c in columns))
            lines.append(kind.ljust(16) + "".join(str(n).rjust(11) for n in numbers))
        groups: dict[str, list[Case]] = defaultdict(list)
        for case, status, detail in self.findings:
            groups[f"{case[0]}: {status}: {detail}"].append(case)
        shown = sorted(groups.items(), key=lambda item: -len(item[1]))
        return "\n".join([*lines, *(f"{len(cases)} x {what} (input {cases[0][1]})" for what, cases in shown)])


class Worker:
    """The process, whose answers are waited for no longer than its input may take."""

    def __init__(self, seed: int, root: Path) -> None:
        paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.log = (root.parent / "stderr.txt").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", str(seed), str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env,
        )  # fmt: skip
        self.lines: Queue[str] = Queue()
        self.listener = Thread(target=self._listen, daemon=True)
        self.listener.start()
        if self.wait(START).strip() != "ready":
            self.log.seek(0)
            raise RuntimeError(f"the fuzzer's process does not start: {self.log.read()[-2000:].decode()}")

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def wait(self, seconds: float) -> str:
        """The next line; "" where the process has ended. Raises Empty where it takes longer."""
        return self.lines.get(timeout=seconds)

    def run(self, case: Case) -> tuple[str, str]:
        """Status and detail of one input; after a crash or a hang the process is gone."""
        assert self.process.stdin
        self.process.stdin.write(f"{case[0]} {case[1]}\n")
        self.process.stdin.flush()
        try:
            line = self.wait(PATIENCE)
        except Empty:
            self.end()
            return "hang", f"over {PATIENCE:.0f} s"
        if not line:
            self.log.seek(0)
            said = self.log.read().decode(errors="replace").strip().splitlines()
            return "crash", f"exit status {self.process.wait()} {' '.join(said[-2:])[:200]}"
        said = json.loads(line)
        return said["status"], said["detail"]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def run_fuzzer(cases: Sequence[Case], seed: int) -> Found:
    """All inputs one after the other, in as few processes as they leave alive."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="masklet-fuzz-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        left = iter(cases)
        while (case := next(left, None)) is not None:
            with _worker(seed, root) as worker:
                while case is not None:
                    found.note(case, *worker.run(case))
                    if worker.process.poll() is not None:
                        break
                    case = next(left, None)
    return found


@contextmanager
def _worker(seed: int, root: Path) -> Iterator[Worker]:
    worker = Worker(seed, root)
    try:
        yield worker
    finally:
        if not worker.log.closed:
            worker.end()


def list_cases(kinds: Sequence[str], inputs: int) -> list[Case]:
    """The inputs, dealt out to the kinds in turn."""
    return [(kinds[n % len(kinds)], n // len(kinds)) for n in range(inputs)]
