"""`make bench`: ours beside other people's code, in one run, taking turns; ratios by CPU time of one thread.

    python benchmarks/peers.py [--only sam2,xmem,...] [--out out/peers.json]

Networks have random weights, which time and memory do not depend on. Peers are packages of the registries; one that is
not installed is skipped by its name, with the line that installs it (best into an environment of its own, which sees
this one's packages through a .pth file). Neither side of a pair reads or decodes a video.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch

SAM2_WITHOUT_TORCHVISION = "hydra-core iopath portalocker antlr4-python3-runtime==4.9.3"


@dataclass(frozen=True)
class Peer:
    """Other people's code."""

    package: str
    module: str
    install: str

    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return find_spec(self.module) is not None


PEERS = {
    peer.package: peer
    for peer in (
        Peer("rf-sam-2", "sam2", f"pip install --no-deps rf-sam-2 {SAM2_WITHOUT_TORCHVISION}"),
        Peer("transformers", "transformers", "pip install transformers"),
        Peer("rf-cutie", "cutie", "pip install rf-cutie"),
        Peer("pycocotools", "pycocotools", "pip install pycocotools"),
        Peer("hotcoco", "hotcoco", "pip install hotcoco"),
        Peer("trackeval", "trackeval", "pip install --no-deps trackeval tabulate scikit-image lazy-loader"),
    )
}


@dataclass(frozen=True)
class Pair:
    """One thing that both do."""

    what: str
    peer: str  # its package
    turns: Callable[[], tuple[Iterator[object], Iterator[object]]]  # ours and theirs; each `next` is one turn
    rounds: int
    warm: int  # turns that do not count
    bar: float | None = None  # the greatest ratio of CPU time that is held to be good
    children: tuple[str, str] | None = None  # names of what is measured for peak memory, each in a fresh process


def measure_pair(pair: Pair) -> dict[str, Any]:
    """Median CPU seconds of a turn of ours and of theirs, and the median of their ratios, turn by turn."""
    torch.manual_seed(0)
    ours, theirs = pair.turns()
    spent = []
    for _ in range(pair.rounds):
        before = process_time()
        next(ours)
        between = process_time()
        next(theirs)
        spent.append((between - before, process_time() - between))
    spent = spent[pair.warm :]
    row = {
        "peer": f"{pair.peer} {find_version(pair.peer)}",
        "ours, CPU s": median(a for a, _ in spent),
        "theirs, CPU s": median(b for _, b in spent),
        "ratio": median(a / b for a, b in spent),
    }
    if pair.children:
        own, other = (measure_peak(child) for child in pair.children)
        row |= {"ours, peak MB": own, "theirs, peak MB": other}
    return row if pair.bar is None else {**row, "bar": pair.bar}


def find_version(package: str) -> str:
    """Of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def measure_peak(child: str) -> float:
    """Peak resident memory of a fresh process that does one side's work, in MB."""
    command = [sys.executable, __file__, "--child", child]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{child}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def read_peak() -> float:
    """Not getrusage: its peak is inherited from the process that started this one."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def run_turns(turns: Iterator[object], count: int) -> None:
    """Some turns of one side."""
    for _ in range(count):
        next(turns)


def list_pairs(small: bool) -> Mapping[str, Sequence[Pair]]:
    """All pairs by the name of their part."""
    from peers_metrics import list_metric_pairs
    from peers_networks import list_network_pairs

    return {**list_network_pairs(small), **list_metric_pairs(small)}


def measure_parts(parts: Mapping[str, Sequence[Pair]]) -> dict[str, dict[str, Any]]:
    """A row for each pair, or why it was not measured."""
    rows = {}
    for pairs in parts.values():
        for pair in pairs:
            if not PEERS[pair.peer].is_installed():
                rows[pair.what] = {"left out": f"{pair.peer} is not installed: {PEERS[pair.peer].install}"}
            else:
                rows[pair.what] = measure_pair(pair)
            print(format_row(pair.what, rows[pair.what]), flush=True)
    return rows


def format_row(what: str, row: Mapping[str, Any]) -> str:
    """A line of the table, in Markdown."""
    if "left out" in row:
        return f"| {what} | {row['left out']} | | | | | |"
    peaks = [f"{row[name]:.0f}" if name in row else "" for name in ("ours, peak MB", "theirs, peak MB")]
    bar = f"{row['bar']:.2f}" if "bar" in row else ""
    times = f"{row['ours, CPU s']:.3g} | {row['theirs, CPU s']:.3g} | {row['ratio']:.2f} | {bar}"
    return f"| {what} | {row['peer']} | {times} | {' / '.join(peaks) if peaks[0] else ''} |"


def main() -> int:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="parts, with commas: sam2, xmem, cutie, mask2former, map, hota, jf")
    parser.add_argument("--small", action="store_true", help="small networks and frames, as the tests run it")
    parser.add_argument("--out", type=Path, default=Path("out/peers.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        from peers_networks import CHILDREN

        with torch.no_grad():
            CHILDREN[options.child]()
        print(read_peak())
        return 0
    parts = list_pairs(options.small)
    chosen = {name: parts[name] for name in (options.only.split(",") if options.only else parts)}
    print("| | beside | ours, CPU s | theirs | ratio | bar | peak MB |\n|---|---|---|---|---|---|---|", flush=True)
    with torch.no_grad():
        rows = measure_parts(chosen)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"peers": {k: asdict(v) for k, v in PEERS.items()}, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
