"""DVIS's tables in small: Tables 5 to 8, I and II.

    python benchmarks/tables_dvis.py clips         # once: what the frozen segmenter says of generated clips
    python benchmarks/tables_dvis.py run           # every row over three seeds; goes on where it was stopped
    python benchmarks/tables_dvis.py compare       # what changes from row to row, with a bootstrap over clips and seeds
    python benchmarks/tables_dvis.py page          # the tables as Markdown; --docs docs: into the documentation too

On a GPU, in under ten minutes a call, each going on where the last one ended:

    python benchmarks/tables_dvis.py run --extent large --device cuda --minutes 7 --rows noisy,zero,standard

The segmenter is frozen: what it says of a clip is computed once (`clips`), and only trackers and refiners are trained.
The world: stars, rings and squares, no two alike, that hide each other and vanish behind bushes and poles.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from tables_dvis_clips import EXTENTS, KINDS, SIZE, Extent, SegmentedClips, segment_clips
from tables_dvis_scores import (
    RANGES,
    ClipScores,
    bootstrap_change,
    compute_ap,
    count_switch_rate,
    measure_clip,
    read_scores,
)
from tables_dvis_training import (
    Recipe,
    classify_clips,
    follow_clips,
    predict_masks,
    refine_clips,
    train_refiner,
    train_tracker,
)
from torch import Tensor

from masklet.core.matching import solve_assignment
from masklet.core.slots import FrameSlots
from masklet.models.mask2former.segmenter import Mask2Former, load_mask2former
from masklet.models.query_video.heads import load_refiner, load_tracker, save_heads
from masklet.nn.referring_tracker import ReferringTracker
from masklet.nn.temporal_refiner import TemporalRefiner
from masklet.systems.ctvis import BankMatching

SEEDS = (0, 1, 2)
TRAINING, HELD_OUT = 1_000, 7_000  # seeds of clips


@dataclass(frozen=True)
class Row:
    """What is trained and measured."""

    told: str
    recipe: Recipe | None = None  # of a tracker; None: nothing is trained, or a refiner alone
    refiner: Recipe | None = None  # over the tracker of the same seed
    window: int = 0  # frames that a refiner sees at once when it is measured; 0: all


@dataclass(frozen=True)
class Line:
    """A line of a table: a row, and what the paper says of it."""

    row: str
    paper: str = ""
    against: str = ""  # the row whose difference the paper speaks of
    sign: str = ""  # of the paper's difference


PLAIN = Recipe(guided=0.0)
NOISY = replace(PLAIN, noise=0.5)
SMALL = replace(NOISY, start="minvis")
REFINED = Recipe(frames=10, batch=6)
ROWS: dict[str, Row] = {
    "minvis": Row("MinVIS"),
    "oracle": Row("MinVIS's slots in the truth's order"),
    "bank": Row("CTVIS's memory bank, nothing trained"),
    "tracker": Row("referring tracker, without noise", PLAIN),
    "noisy": Row("referring tracker: matched queries, five frames", NOISY),
    "unmatched": Row("unmatched queries", replace(NOISY, tracker={"initial": "unmatched"})),
    "zero": Row("zero", replace(NOISY, tracker={"initial": "zero"})),
    "previous": Row("the last outputs", replace(NOISY, tracker={"initial": "previous"})),
    "standard": Row("standard cross-attention", replace(NOISY, tracker={"attention": "standard"})),
    "small": Row("referring, from small layers", SMALL),
    "small standard": Row("standard, from small layers", replace(SMALL, tracker={"attention": "standard"})),
    "random": Row("referring, all at random", replace(NOISY, start="paper")),
    "random standard": Row("standard, all at random", replace(NOISY, start="paper", tracker={"attention": "standard"})),
    "frames 3": Row("clips of 3 frames", replace(NOISY, frames=3)),
    "frames 11": Row("clips of 11 frames", replace(NOISY, frames=11)),
    "guided": Row("guided by the segmenter for half the steps, as in the paper", replace(NOISY, guided=0.5)),
    "cosine": Row("cosine schedule", replace(NOISY, schedule="cosine")),
    "batch 1": Row("one clip a step", replace(NOISY, batch=1)),
    "refiner": Row("tracker and temporal refiner", refiner=REFINED),
    "no long": Row("without long-term attention", refiner=replace(REFINED, tracker={"removed": "long"})),
    "no short": Row("without short-term convolution", refiner=replace(REFINED, tracker={"removed": "short"})),
    "no context": Row("without cross-attention", refiner=replace(REFINED, tracker={"removed": "context"})),
    "refiner 5": Row("refiner trained with clips of 5", refiner=replace(REFINED, frames=5)),
    "window 1": Row("refined frame by frame", refiner=REFINED, window=1),
    "window 5": Row("in windows of 5", refiner=REFINED, window=5),
    "window 10": Row("in windows of 10", refiner=REFINED, window=10),
}
TABLES: dict[str, tuple[Line, ...]] = {
    "Table 5: parts": (
        Line("minvis", "41.6: 64.8 / 49.0 / 20.5"),
        Line("oracle", "", "minvis"),
        Line("bank", "", "minvis"),
        Line("tracker", "47.1: 64.7 / 54.2 / 24.8", "minvis", "+ (heavy +)"),
        Line("noisy", "", "minvis", "+ (heavy +)"),
        Line("refiner", "49.9: 67.1 / 56.0 / 29.8", "noisy", "+ (heavy +)"),
    ),
    "Table 6: initial value": (
        Line("noisy", "30.5"),
        Line("unmatched", "29.8", "noisy", "-"),
        Line("zero", "28.9", "unmatched", "-"),
        Line("previous", "28.3", "zero", "-"),
    ),
    "Table 7: cross-attention": (
        Line("small", "30.5"),
        Line("small standard", "2.9", "small", "-"),
        Line("random", "30.5"),
        Line("random standard", "2.9", "random", "-"),
        Line("noisy", "30.5"),
        Line("standard", "2.9", "noisy", "-"),
    ),
    "Table 8: parts of the refiner": (
        Line("refiner", "32.2"),
        Line("no long", "31.0", "refiner", "-"),
        Line("no short", "31.8", "refiner", "-"),
        Line("no context", "30.6", "refiner", "-"),
    ),
    "Table I: clips in training": (
        Line("frames 3", "28.3", "noisy", "-"),
        Line("noisy", "29.5"),
        Line("frames 11", "29.3", "noisy", "-"),
        Line("refiner 5", "32.1 (11 frames: 32.9)", "refiner", "-"),
    ),
    "Table II: window of the refiner": (
        Line("window 1", "30.0", "refiner", "-"),
        Line("window 5", "", "refiner", "-"),
        Line("window 10", "31.7", "refiner", "-"),
        Line("refiner", "33.8"),
    ),
    "Also tried": (
        Line("guided", "", "noisy"),
        Line("cosine", "", "noisy"),
        Line("batch 1", "", "noisy"),
    ),
}


def measure_minvis(clips: SegmentedClips, follow: Callable[[SegmentedClips], Tensor]) -> list[ClipScores]:
    """The segmenter's own answers, in the order that `follow` gives the slots of a clip (t n)."""
    found = []
    for n in range(len(clips)):
        one = clips[n]
        order = follow(one)
        logits = one.logits.gather(1, order[..., None].expand_as(one.logits)).mean(0)
        masks = one.masks.gather(1, order[..., None, None].expand_as(one.masks))
        truth = one.whole[one.real], one.labels[one.real], one.occlusion[one.real]
        found.append(measure_clip(logits, masks, SIZE, *truth))
    return found


def follow_by_bank(clip: SegmentedClips) -> Tensor:
    """CTVIS's matching through a clip (t n)."""
    bank, memory, orders = BankMatching(), None, []
    for queries, logits, pixels, masks in zip(clip.queries, clip.logits, clip.pixels, clip.masks, strict=True):
        slots = FrameSlots(queries[None], logits[None], pixels[None].float(), masks[None].float(), SIZE)
        tracked, memory = bank.follow(memory, slots)
        orders.append(tracked.order)
    return torch.stack(orders)


def follow_by_truth(clip: SegmentedClips) -> Tensor:
    """The slot that covers each object best, of equal ones the one that names it best, as track 0, 1, ... (t n)."""
    orders = []
    for logits, masks, truth in zip(clip.logits, clip.masks, clip.truth.transpose(0, 1), strict=True):
        found, wanted = (masks > 0).flatten(1).float(), (truth[clip.real] > 0.5).flatten(1).float()
        both = found @ wanted.T
        iou = both / (found.sum(1)[:, None] + wanted.sum(1) - both).clamp(min=1)
        fit = iou + 0.2 * logits.softmax(1)[:, clip.labels[clip.real]]
        rows, objects = solve_assignment(-fit.numpy())
        own = rows[objects.argsort()]
        orders.append(torch.from_numpy(np.append(own, np.setdiff1d(np.arange(len(found)), own))))
    return torch.stack(orders)


FOLLOWED: Mapping[str, Callable[[SegmentedClips], Tensor]] = {  # rows for which nothing is trained
    "minvis": lambda clip: clip.orders,
    "oracle": follow_by_truth,
    "bank": follow_by_bank,
}


@torch.no_grad()
def measure_heads(
    clips: SegmentedClips, tracker: ReferringTracker, refiner: TemporalRefiner | None, device: str, window: int = 0
) -> list[ClipScores]:
    """DVIS's answers, online or refined, `window` frames at once or all."""
    found = []
    for start in range(0, len(clips), 24):
        some = clips[start : start + 24]
        seen = replace(some, whole=some.whole[:, :, :0]).to(device)
        normed = follow_clips(tracker, seen)[-1]
        logits, net = tracker.classify(normed).mean(1), tracker
        if refiner is not None:
            context = tracker.alone(seen.queries.flatten(0, 1)).view_as(normed)
            refined, own = refine_in_windows(refiner, normed, context, window or normed.shape[1])
            normed, net, logits = refined, refiner, torch.maximum(own, logits.softmax(-1)).log()
        for n in range(len(some)):
            masks = predict_masks(net, normed[n : n + 1], seen.pixels[n : n + 1])[0].cpu()
            truth = (one[n][some.real[n]] for one in (some.whole, some.labels, some.occlusion))
            found.append(measure_clip(logits[n].cpu(), masks, SIZE, *truth))
    return found


def refine_in_windows(net: TemporalRefiner, tracks: Tensor, context: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Refined tracks (v t n c) of clips, and their class probabilities (v n k1), the mean over the windows."""
    parts = zip(tracks.split(window, 1), context.split(window, 1), strict=True)
    refined = [[*refine_clips(net, *part)][-1] for part in parts]
    likely = torch.stack([classify_clips(net, one).softmax(-1) for one in refined])
    return torch.cat(refined, 1), likely.mean(0)


@dataclass(frozen=True)
class Bench:
    """All that a row needs."""

    out: Path
    extent: Extent
    segmenter: Mask2Former
    training: SegmentedClips
    held_out: SegmentedClips
    device: str

    def measure(self, name: str, seed: int) -> list[ClipScores]:
        """Trains a row and measures it; what is trained is kept in the folder."""
        row = ROWS[name]
        if name in FOLLOWED:
            return measure_minvis(self.held_out, FOLLOWED[name])
        if row.refiner is None:
            return measure_heads(self.held_out, self.tracker(name, seed), None, self.device)
        own = next(one for one, other in ROWS.items() if other.refiner == row.refiner)  # windows share a refiner
        return measure_heads(
            self.held_out, self.tracker("noisy", seed), self.refiner(own, seed), self.device, row.window
        )

    def tracker(self, name: str, seed: int) -> ReferringTracker:
        """The tracker of a row, trained or from the folder."""
        path, recipe = self.out / f"{name}-{seed}.safetensors", ROWS[name].recipe
        assert recipe is not None
        if not path.exists():
            net = train_tracker(self.training, self.segmenter, seed, self.extent, recipe, self.device)
            save_heads(path, KINDS, tracker=net.cpu())
        return load_tracker(path)[0].requires_grad_(False).to(self.device)

    def refiner(self, name: str, seed: int) -> TemporalRefiner:
        """The refiner of a row over the tracker of the same seed, trained or from the folder."""
        path, recipe = self.out / f"{name}-{seed}.safetensors", ROWS[name].refiner
        assert recipe is not None
        if not path.exists():
            tracker, half = self.tracker("noisy", seed), replace(self.extent, steps=self.extent.steps // 2)
            net = train_refiner(self.training, tracker, self.segmenter, seed, half, recipe, self.device)
            save_heads(path, KINDS, tracker=tracker.cpu(), refiner=net.cpu())
        return load_refiner(path)[0].requires_grad_(False).to(self.device)


def run_rows(bench: Bench, names: Sequence[str], seeds: Sequence[int], minutes: float) -> None:
    """Every row of every seed that is not measured yet, seed by seed; none begins after so many minutes."""
    begun = time.monotonic()
    for seed in seeds:
        for name in names:
            path = bench.out / f"{name}-{seed}.pt"
            if path.exists() or (seed and name in FOLLOWED) or time.monotonic() - begun >= 60 * minutes:
                continue
            start = time.process_time()
            scores = bench.measure(name, seed)
            seconds = time.process_time() - start
            torch.save([asdict(one) for one in scores], path)
            note(bench.out / "tables_dvis.json", name, seed, summarize(scores) | {"cpu seconds": seconds})


def summarize(scores: Sequence[ClipScores]) -> dict[str, float]:
    """AP and AP50 of all objects and of each level of occlusion, and switches."""
    found = {}
    for level, (ap, half) in compute_ap(scores).items():
        found |= {"AP": ap, "AP50": half} if level == "all" else {level: ap, f"{level} 50": half}
    return found | {"switches": count_switch_rate(scores)}


def note(path: Path, name: str, seed: int, found: Mapping[str, float]) -> None:
    """Adds one run to the file of all, and tells it."""
    done = json.loads(path.read_text()) if path.exists() else {}
    done.setdefault(name, {})[str(seed)] = dict(found)
    path.write_text(json.dumps(done, indent=1) + "\n")
    print(name, seed, {k: round(v, 2) for k, v in found.items()}, flush=True)


def open_clips(path: Path, make: Callable[[], SegmentedClips]) -> SegmentedClips:
    """What is in a file, or what is made and put there."""
    if path.exists():
        return SegmentedClips(**torch.load(path, mmap=True))
    made = make()
    torch.save({f.name: getattr(made, f.name) for f in fields(made)}, path)
    return made


# -- what changes, and the page


def compare_rows(out: Path, times: int) -> None:
    """Adds to the file of all runs how each row differs from the one it is compared with, where both are measured: for
    AP and for AP under heavy occlusion the change seed by seed, and its interval by `times` draws of clips and seeds.
    """
    path = out / "tables_dvis.json"
    done = json.loads(path.read_text())
    done["changes"] = {}
    for line in (line for lines in TABLES.values() for line in lines if line.against and line.row in done):
        pairs = list_pairs(line.row, line.against, done)
        if pairs:
            done["changes"][f"{line.row}, {line.against}"] = compare_pairs(out, line, pairs, done, times)
    path.write_text(json.dumps(done, indent=1) + "\n")


def compare_pairs(
    out: Path, line: Line, pairs: Sequence[tuple[str, str]], done: Mapping[str, Any], times: int
) -> dict[str, Any]:
    """One difference: by measure the changes of all seeds, and both ends of the interval."""
    ours = [read_scores(out / f"{line.row}-{seed}.pt") for seed, _ in pairs]
    theirs = [read_scores(out / f"{line.against}-{seed}.pt") for _, seed in pairs]
    found = {}
    for measure, level in (("AP", 0), ("heavy", len(RANGES) - 1)):
        changes = [done[line.row][a][measure] - done[line.against][b][measure] for a, b in pairs]
        found[measure] = {"seeds": changes, "interval": bootstrap_change(ours, theirs, level, times)}
    return found


def list_pairs(name: str, other: str, done: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    """The seeds of a row, each with that of the row it is compared with: 0 of one that is not trained."""
    pairs = ((seed, "0" if other in FOLLOWED else seed) for seed in sorted(done[name]))
    return [pair for pair in pairs if pair[1] in done.get(other, {})]


WORLD_NAME = "occlusion"  # of the runs of this world in the documentation's JSON
MEASURES = ("AP", "AP50", *(one.name for one in RANGES[1:]), "heavy 50", "switches")


def make_page(done: Mapping[str, Any]) -> list[str]:
    """The tables as Markdown, as far as they are measured."""
    tables = []
    for title, lines in TABLES.items():
        told = [tell_line(line, done) for line in lines if line.row in done]
        if any(line.against and line.row in done for line in lines):  # else there is nothing to compare
            columns = [title, "paper", "seeds", *MEASURES, "against", "change of AP", "of heavy", "paper's sign"]
            tables.append("\n".join([f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *told]))
    return tables


def update_docs(docs: Path, done: Mapping[str, Any]) -> None:
    """Puts all runs into the documentation's JSON, and the tables in the place of those of the same title on its page.
    Tells which table has no place there yet.
    """
    kept, page = docs / "tables_dvis.json", docs / "tables.md"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {WORLD_NAME: done}, indent=1) + "\n")
    text = page.read_text()
    for table in make_page(done):
        title = table.split(" | ", 1)[0]
        text, places = re.subn(rf"^{re.escape(title)} \|.*?(?=\n\n)", lambda _, new=table: new, text, flags=re.M | re.S)
        if not places:
            print(f"{page}: no table begins with {title}")
    page.write_text(text)


def tell_line(line: Line, done: Mapping[str, Any]) -> str:
    """A line of the page."""
    runs, change = [*done[line.row].values()], done.get("changes", {}).get(f"{line.row}, {line.against}")
    figures = [tell_spread([one[measure] for one in runs]) for measure in MEASURES]
    told = [line.against, tell_change(change["AP"]), tell_change(change["heavy"])] if change else [""] * 3
    cells = [ROWS[line.row].told, line.paper, str(len(runs)), *figures, *told, line.sign]
    return f"| {' | '.join(cells)} |"


def tell_change(change: Mapping[str, Any]) -> str:
    """The signs of all seeds, the mean, and the interval."""
    signs = "/".join("+" if one > 0 else "-" if one < 0 else "0" for one in change["seeds"])
    low, high = change["interval"]
    return f"{signs} {mean(change['seeds']):+.2f} ({low:+.2f} to {high:+.2f})"


def tell_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("clips", "run", "compare", "page"))
    parser.add_argument("--out", type=Path, default=Path("out/tables-dvis"))
    parser.add_argument("--start", type=Path, default=Path(__file__).parent / "weights" / "small-segmenter.safetensors")
    parser.add_argument("--extent", choices=EXTENTS, default="small")
    parser.add_argument("--steps", type=int, help="of a training; else the extent's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no row is begun")
    parser.add_argument("--times", type=int, default=400, help="that clips and seeds are drawn for an interval")
    parser.add_argument(
        "--docs", type=Path, help="folder whose tables.md and tables_dvis.json `page` brings up to date"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "page":
        done = json.loads((options.out / "tables_dvis.json").read_text())
        print("\n\n".join(make_page(done)))
        if options.docs:
            update_docs(options.docs, done)
    elif options.what == "compare":
        compare_rows(options.out, options.times)
    else:
        bench = open_bench(options)
        if options.what == "run":
            run_rows(bench, options.rows.split(","), [int(s) for s in options.seeds.split(",")], options.minutes)
    return 0


def open_bench(options: argparse.Namespace) -> Bench:
    """Segmenter and clips, which are made where they are not there yet."""
    at = EXTENTS[options.extent]
    at = replace(at, steps=options.steps or at.steps)
    segmenter = load_mask2former(options.start, torch.device(options.device), shortest=SIZE[0])
    segmenter.at_once = at.frames  # a clip is one call
    wanted = {"training": (TRAINING, at.clips, at.length, False), "held-out": (HELD_OUT, at.videos, at.frames, True)}
    clips = (
        open_clips(options.out / f"{name}.pt", lambda how=how: segment_clips(segmenter, *how))
        for name, how in wanted.items()
    )
    return Bench(options.out, at, segmenter, *clips, options.device)


if __name__ == "__main__":
    sys.exit(main())
