"""`make bench`: what a frame costs in each system, by objects, size and length; stages beside their lower bounds.

    python benchmarks/matrix.py [--minutes 10] [--systems "track, nano;run, nano"] [--out docs/performance.json]
    python benchmarks/matrix.py --all               # every row: hours
    python benchmarks/matrix.py page                # the table in docs/performance.md, from docs/performance.json

CPU seconds of one thread, which other work on the machine changes little; each row in a process of its own, of which
the peak memory is told. Frames are generated, objects are found at no cost, and where a network has no weights of its
own here (SAM 2, DEVA's, Mask2Former) it has random ones. The lower bound of a stage is what its multiplications would
take at the speed of a large product of matrices on the same core; it says nothing of what is not multiplied.

Rows that the minutes do not suffice for keep what was measured of them before, or are left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from many_objects import Discs, ToldSegmenter, Uncounted, draw_frames
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from masklet.core.frames import Frame

DOCS = Path(__file__).resolve().parent.parent / "docs"
STAGES = ("encode", "predict", "commit", "prompt", "carry", "slots", "follow", "prepare")
MARKS = "<!-- from performance.json: begin -->", "<!-- from performance.json: end -->"
IMAGES = 4  # that are shown in turn
COUNTED = 3  # frames whose multiplications are counted


@dataclass(frozen=True)
class Case:
    """One row."""

    system: str
    objects: int
    height: int
    frames: int

    @property
    def size(self) -> tuple[int, int]:
        """Of the frames: h, w, of 16 to 9."""
        return self.height, round(self.height * 16 / 9 / 2) * 2

    @property
    def name(self) -> str:
        """Under which it is kept."""
        return f"{self.system}; {self.objects} objects; {self.height}p; {self.frames} frames"


class LoopedVideo:
    """A few images, shown again and again to and fro."""

    name, rate, damage = "loop", 25.0, None

    def __init__(self, images: Sequence[np.ndarray], length: int) -> None:
        self.images, self.length = images, length
        self.size = images[0].shape[:2]

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(t) for t in range(self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        """Some frames."""
        return [self.frame(t) for t in range(start, min(stop, self.length))]

    def frame(self, t: int) -> Frame:
        """One frame."""
        return Frame(t, self.images[show_to_and_fro(t)], t / self.rate)


def show_to_and_fro(t: int) -> int:
    """Which image a frame shows.

    >>> [show_to_and_fro(t) for t in range(8)]
    [0, 1, 2, 3, 2, 1, 0, 1]
    """
    turn = t % (2 * IMAGES - 2)
    return min(turn, 2 * IMAGES - 2 - turn)


class LoopedSegmenter(ToldSegmenter):
    """Finds the discs of the image that is shown."""

    def find(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> Any:
        """The discs of each frame."""
        return super().find(memory, [Frame(show_to_and_fro(f.index), f.image) for f in frames], future)


@dataclass
class StageClock:
    """CPU seconds of a part's methods, and their multiplications; what one of them calls is its own."""

    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counted: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counter: FlopCounterMode | None = None
    busy: bool = False

    def watch(self, part: Any) -> Any:
        """The very part, its stages watched from now on."""
        for name in STAGES:
            if hasattr(part, name):
                object.__setattr__(part, name, self._wrap(name, getattr(part, name)))
        return part

    def _wrap(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            if self.busy:
                return work(*args, **more)
            self.busy, started = True, process_time()
            flops = self.counter.get_total_flops() if self.counter else 0
            try:
                return work(*args, **more)
            finally:
                self.busy = False
                self.spent[name] += process_time() - started
                self.counted[name] += (self.counter.get_total_flops() - flops) if self.counter else 0

        return run


def count_fused_convolution(x: Any, second: Any, third: Any = None, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Multiplications of oneDNN's convolution, which torch does not know to count. Where something is added, that comes
    before the weights.
    """
    weight = third if third is not None and len(third) >= 4 else second
    return int(conv_flop_count(list(x), list(weight), list(out_shape), transposed=False))


def count_fused_linear(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """The same of its linear layer."""
    return int(2 * np.prod(x) * weight[0])


def list_counted_operations() -> dict[Any, Any]:
    """oneDNN's operations and how they are counted."""
    ops: Any = torch.ops.mkldnn
    return {ops._linear_pointwise: count_fused_linear, ops._convolution_pointwise: count_fused_convolution}


# -- systems: each a function of a case, the discs, and a clock, which runs it over a video


def build_propagator(name: str) -> Any:
    """By its name; SAM 2 and DEVA's network have random weights."""
    import masklet
    from masklet.models.xmem.propagator import Xmem
    from masklet.nn.xmem import XmemNet

    torch.manual_seed(0)
    if name == "sam2-tiny@512":
        import sam2_cost as plain

        from masklet.models.sam2.propagator import Sam2

        return Sam2(plain.network("tiny", 512, plain.SURE))
    if name == "deva's network":
        return Xmem(XmemNet().eval().requires_grad_(False))
    return masklet.load(propagator=name).system.propagator


def run_track(name: str, case: Case, discs: Discs, clock: StageClock, video: LoopedVideo) -> Any:
    """`track` of the discs' masks in the first frame."""
    from masklet.systems.track import Track

    masks = dict(enumerate(discs.masks(0, case.size), 1))
    return Track(clock.watch(build_propagator(name)), {0: masks}).run(video)


def run_boxes(name: str, case: Case, discs: Discs, clock: StageClock, video: LoopedVideo) -> Any:
    """`run`: what is found in every frame, tracked."""
    from masklet import Sam2Bmp
    from masklet.systems.sam2bmp import Sam2BmpSettings

    segmenter = LoopedSegmenter(discs, Uncounted())
    settings = Sam2BmpSettings(conf=0.5, nms_iou=0.8, max_objects=case.objects)
    return Sam2Bmp(segmenter, clock.watch(build_propagator(name)), settings).run(video)


def run_deva(name: str, case: Case, discs: Discs, clock: StageClock, video: LoopedVideo) -> Any:
    """DEVA, without its pass backward."""
    from masklet.systems.deva.online import Deva, DevaSettings

    segmenter = LoopedSegmenter(discs, Uncounted())
    settings = DevaSettings(backward=False, max_objects=case.objects)
    return Deva(segmenter, clock.watch(build_propagator(name)), settings).run(video)


def run_queries(name: str, case: Case, discs: Discs, clock: StageClock, video: LoopedVideo) -> Any:
    """The systems of queries, over a Mask2Former of ResNet-50 with 100 of them."""
    from dvis import parts, segmenter
    from rocovis import network

    from masklet.models.query_video.rocovis import Rocovis
    from masklet.systems.dvis import DvisSettings, build_dvis_system
    from masklet.systems.minvis import build_minvis_system
    from masklet.systems.rocovis import build_rocovis_system

    torch.manual_seed(0)
    if name == "rocovis":
        return build_rocovis_system(Rocovis(network(1), shortest=480)).run(video)
    look = clock.watch(segmenter(torch.device("cpu")))
    if name == "minvis":
        return build_minvis_system(look).run(video)
    return build_dvis_system(look, clock.watch(parts(torch.device("cpu"))[0]), DvisSettings()).run(video)


RUNS: dict[str, tuple[Callable[..., Any], str]] = {
    **{f"track, {n}": (run_track, n) for n in ("affinity", "nano", "sam2long:nano", "sam2-tiny@512", "deva's network")},
    **{f"run, {n}": (run_boxes, n) for n in ("affinity", "nano")},
    "deva": (run_deva, "deva's network"),
    **{n: (run_queries, n) for n in ("minvis", "dvis", "rocovis")},
}
HEAVY = ("track, sam2-tiny@512", "track, deva's network", "deva")  # half a second and more for every object
OBJECTS, HEIGHTS, FRAMES = (1, 2, 5, 10, 20, 50), (240, 480, 720, 1080, 2160), (30, 100, 500, 2000)


def list_cases(everything: bool) -> list[Case]:
    """What is measured, the most wanted first: systems over objects, over sizes, over lengths; or everything."""
    queries = ("minvis", "dvis", "rocovis")
    if everything:
        every = [Case(s, n, h, t) for s in RUNS for n in OBJECTS for h in HEIGHTS for t in FRAMES]
        return [case for case in every if case.system not in queries or case.objects == 1]
    light = [name for name in RUNS if name not in (*HEAVY, *queries)]
    cases = [Case(name, n, 480, 6) for n in (1, 10) for name in light]
    cases += [Case(name, 1, 480, 3) for name in (*HEAVY, *queries)]
    cases += [Case(name, 50, 480, 6) for name in light]
    cases += [Case("track, nano", 5, h, 6) for h in HEIGHTS] + [Case("track, affinity", 2, 240, t) for t in FRAMES[:2]]
    cases += [Case(name, n, 480, 6) for n in OBJECTS for name in light] + [Case(name, 5, 480, 3) for name in HEAVY]
    cases += [Case("run, affinity", 5, h, 6) for h in HEIGHTS] + [Case("track, affinity", 2, 240, t) for t in FRAMES]
    return list(dict.fromkeys(cases))


# -- measuring


def measure_case(case: Case) -> dict[str, Any]:
    """One row, in this process."""
    torch.set_num_threads(1)
    discs = Discs.draw(case.objects, case.size)
    images, _ = draw_frames(discs, IMAGES)
    run, name = RUNS[case.system]
    clock, moments = StageClock(), [process_time()]
    video = LoopedVideo(images, case.frames)
    run(name, case, discs, clock, Counted(video, moments))
    spent = process_time() - moments[1]  # without what is built first
    stages = {k: v / case.frames for k, v in clock.spent.items()}
    peak = read_peak()
    clock = StageClock(counter=FlopCounterMode(display=False, custom_mapping=list_counted_operations()))
    assert clock.counter is not None
    with clock.counter:
        run(name, case, discs, clock, LoopedVideo(images, min(case.frames, COUNTED)))
    flops = {k: v / min(case.frames, COUNTED) for k, v in clock.counted.items()}
    speed = measure_speed()
    return {
        "s a frame": spent / case.frames,
        "stages": {**stages, "the rest": max(spent / case.frames - sum(stages.values()), 0.0)},
        "bounds": {k: v / speed for k, v in flops.items() if v},
        "peak MB": peak,
        "GFLOP/s": speed / 1e9,
    }


class Counted:
    """A video; when its first frame was asked for is noted."""

    def __init__(self, video: LoopedVideo, moments: list[float]) -> None:
        self.video, self.moments = video, moments

    def __getattr__(self, name: str) -> Any:
        return getattr(self.video, name)

    def __len__(self) -> int:
        return len(self.video)

    def __iter__(self) -> Iterator[Frame]:
        self.moments.append(process_time())
        return iter(self.video)

    def read(self, start: int, stop: int) -> list[Frame]:
        """Some frames."""
        if len(self.moments) == 1:
            self.moments.append(process_time())
        return self.video.read(start, stop)


def measure_speed() -> float:
    """Operations a second of a product of two large matrices, at the best of five."""
    a, best = torch.ones(1024, 1024), 1e9
    for _ in range(5):
        started = process_time()
        a @ a
        best = min(best, process_time() - started)
    return 2 * 1024**3 / best


def read_peak() -> float:
    """Peak resident memory of this process, in MB."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measure_alone(case: Case) -> dict[str, Any]:
    """One row, in a process of its own."""
    words = [case.system, case.objects, case.height, case.frames]
    command = [sys.executable, "-W", "ignore", __file__, "--case", json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"left out": done.stderr.strip().splitlines()[-1][:200]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measure_all(cases: Sequence[Case], minutes: float, rows: dict[str, Any], save: Callable[[], None]) -> None:
    """Measures while there is time, and saves after every row."""
    ends = perf_counter() + 60 * minutes
    for case in cases:
        if perf_counter() > ends:
            print("no time left: rows that were not measured are as they were")
            return
        rows[case.name] = {**vars(case), **measure_alone(case)}
        save()
        print(format_row(rows[case.name]), flush=True)


def describe_machine() -> dict[str, str]:
    """What the figures are of."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    wide = "AVX-512" if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "AVX2 at most"
    return {
        "processor": f"{models[0] if models else platform.processor()}, {wide}",
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "masklet": version("masklet"),
    }


# -- the page


def format_row(row: Mapping[str, Any]) -> str:
    """A line of the table, in Markdown."""
    what = f"| {row['system']} | {row['objects']} | {row['height']}p | {row['frames']} |"
    if "left out" in row:
        return f"{what} {row['left out']} | | |"
    stages = sorted(row["stages"].items(), key=lambda item: -item[1])
    told = ", ".join(format_stage(name, spent, row["bounds"].get(name)) for name, spent in stages if spent >= 0.001)
    return f"{what} {1000 * row['s a frame']:.0f} | {told} | {row['peak MB']:.0f} |"


def format_stage(name: str, spent: float, bound: float | None) -> str:
    """Milliseconds of a stage and, where it has one, its bound."""
    return f"{name} {1000 * spent:.0f}" + (f" ({1000 * bound:.0f})" if bound and bound >= 0.0005 else "")


def build_table(found: Mapping[str, Any]) -> str:
    """All rows, in Markdown."""
    machine = found["machine"]
    head = [
        f"{machine['processor']}, one thread; torch {machine['torch']}, {machine['date']}.",
        "",
        "| system | objects | size | frames | CPU ms a frame | stages (lower bound), ms | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    order = {name: n for n, name in enumerate(RUNS)}
    rows = sorted(found["rows"].values(), key=lambda r: (order[r["system"]], r["height"], r["frames"], r["objects"]))
    return "\n".join([*head, *map(format_row, rows)])


def write_page(found: Mapping[str, Any], page: Path) -> None:
    """Puts the table between the page's marks."""
    text = page.read_text()
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n\n{build_table(found)}\n\n{MARKS[1]}{after}")


def main() -> int:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "page"), default="measure")
    parser.add_argument("--all", action="store_true", help="every system x objects x size x length")
    parser.add_argument("--systems", help=f"with ; between them: {'; '.join(RUNS)}")
    parser.add_argument("--objects", type=int, help="only rows of so many")
    parser.add_argument("--height", type=int, help="only rows of this size")
    parser.add_argument("--frames", type=int, help="only rows of this length")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which no further row begins")
    parser.add_argument("--out", type=Path, default=Path("out/performance.json"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        with torch.no_grad():
            print(json.dumps(measure_case(Case(*json.loads(options.case)))))
        return 0
    if options.what == "page":
        write_page(json.loads((DOCS / "performance.json").read_text()), DOCS / "performance.md")
        return 0
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": describe_machine(), "rows": rows}
    wanted = [case for case in list_cases(options.all) if is_wanted(case, options)]
    measure_all(
        wanted, options.minutes, rows, lambda: options.out.write_text(json.dumps(found, indent=1) + "\n") and None
    )
    return 0


def is_wanted(case: Case, options: argparse.Namespace) -> bool:
    """Whether the command line asks for a case."""
    asked = {"objects": options.objects, "height": options.height, "frames": options.frames}
    named = options.systems is None or case.system in [name.strip() for name in options.systems.split(";")]
    return named and all(value is None or getattr(case, key) == value for key, value in asked.items())


if __name__ == "__main__":
    sys.exit(main())
