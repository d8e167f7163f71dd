"""DVIS's tables in small: Tables 5 to 8, I and II, and why a referring tracker stays unused or is used.

    python benchmarks/tables_dvis.py clips         # once: what the frozen segmenter says of generated clips
    python benchmarks/tables_dvis.py run           # every row over three seeds; goes on where it was stopped
    python benchmarks/tables_dvis.py page          # the tables, with a bootstrap over clips and seeds, as Markdown

On a GPU, in under ten minutes a call, each going on where the last one ended:

    python benchmarks/tables_dvis.py run --extent large --device cuda --rows noisy,tracker,standard --seeds 0

The segmenter is frozen: what it says of a clip is computed once (`clips`), and only trackers and refiners are trained.
The world: stars, rings and squares, most of them look-alikes of another one, that cross and hide each other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from tables_dvis_clips import EXTENTS, KINDS, LEVELS, SIZE, Extent, SegmentedClips, segment_clips
from tables_dvis_scores import (
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
from masklet.models.query_video.heads import load_tracker, save_heads
from masklet.nn.referring_tracker import ReferringTracker
from masklet.nn.temporal_refiner import TemporalRefiner
from masklet.systems.ctvis import BankMatching

SEEDS = (0, 1, 2)
TRAINING, HELD_OUT = 1_000, 7_000  # seeds of clips


@dataclass(frozen=True)
class Row:
    """A row of a table: what is trained, and what it is compared with."""

    told: str
    recipe: Recipe | None = None  # of a tracker; None: nothing is trained
    refiner: Recipe | None = None  # over the tracker of the same seed
    tracker: str = ""  # the row whose tracker the refiner is over
    against: str = ""  # the row whose difference the paper speaks of
    figure: str = ""  # the paper's
    sign: str = ""  # of the paper's difference


NOISY = Recipe(guided=0.0, noise=0.5)
ROWS: dict[str, Row] = {
    "minvis": Row("MinVIS", figure="41.6 (Swin-L)"),
    "oracle": Row("MinVIS's slots in the truth's order: what matching alone could give", against="minvis"),
    "bank": Row("CTVIS's memory bank, nothing trained", against="minvis"),
    "tracker": Row("referring tracker", replace(NOISY, noise=0.0), against="minvis", figure="47.1 (Swin-L)", sign="+"),
    "noisy": Row("+ DVIS++'s noise in training", NOISY, against="minvis", sign="+"),
    "standard": Row(
        "standard cross-attention",
        replace(NOISY, tracker={"attention": "standard"}),
        against="noisy",
        figure="2.9",
        sign="-",
    ),
    "unmatched": Row(
        "initial value: unmatched queries",
        replace(NOISY, tracker={"initial": "unmatched"}),
        against="noisy",
        figure="29.8",
        sign="-",
    ),
    "zero": Row(
        "initial value: zero", replace(NOISY, tracker={"initial": "zero"}), against="noisy", figure="28.9", sign="-"
    ),
    "previous": Row(
        "initial value: last outputs",
        replace(NOISY, tracker={"initial": "previous"}),
        against="noisy",
        figure="28.3",
        sign="-",
    ),
    "random": Row("the paper's random start", replace(NOISY, start="paper"), against="noisy"),
    "guided": Row("guided by the segmenter for half the steps", replace(NOISY, guided=0.5), against="noisy"),
    "slow": Row("rate 3e-4", replace(NOISY, rate=3e-4), against="noisy"),
    "cosine": Row("cosine schedule", replace(NOISY, schedule="cosine"), against="noisy"),
    "frames 3": Row("clips of 3 frames", replace(NOISY, frames=3), against="noisy", figure="28.3", sign="-"),
    "frames 11": Row("clips of 11 frames", replace(NOISY, frames=11), against="noisy", figure="29.3", sign="-"),
    "batch 1": Row("one clip a step", replace(NOISY, batch=1), against="noisy"),
}
REFINED = Recipe(frames=10, batch=6)
for _name, _removed, _figure in (
    ("refiner", "", "49.9 (Swin-L)"),
    ("no long", "long", "31.0"),
    ("no short", "short", "31.8"),
    ("no context", "context", "30.6"),
):
    _recipe = replace(REFINED, tracker={"removed": _removed})
    _told, _against = (f"refiner without {_removed}", "refiner") if _removed else ("+ temporal refiner", "noisy")
    ROWS[_name] = Row(_told, None, _recipe, "noisy", _against, _figure, "-" if _removed else "+")


def measure_minvis(clips: SegmentedClips, follow: Callable[[SegmentedClips], Tensor]) -> list[ClipScores]:
    """The segmenter's own answers, in the order that `follow` gives the slots of a clip (t n)."""
    found = []
    for n in range(len(clips)):
        one = clips[n]
        order = follow(one)
        logits = one.logits.gather(1, order[..., None].expand_as(one.logits)).mean(0)
        masks = one.masks.gather(1, order[..., None, None].expand_as(one.masks))
        found.append(measure_clip(logits, masks, SIZE, one.whole[one.real], one.labels[one.real]))
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
    clips: SegmentedClips, tracker: ReferringTracker, refiner: TemporalRefiner | None, device: str
) -> list[ClipScores]:
    """DVIS's answers, online or refined over the whole clip."""
    found = []
    for start in range(0, len(clips), 24):
        some = clips[start : start + 24]
        seen = replace(some, whole=some.whole[:, :, :0]).to(device)
        normed = follow_clips(tracker, seen)[-1]
        logits, net = tracker.classify(normed).mean(1), tracker
        if refiner is not None:
            context = tracker.alone(seen.queries.flatten(0, 1)).view_as(normed)
            *_, normed = refine_clips(refiner, normed, context)
            logits, net = torch.maximum(classify_clips(refiner, normed).softmax(-1), logits.softmax(-1)).log(), refiner
        for n in range(len(some)):
            masks = predict_masks(net, normed[n : n + 1], seen.pixels[n : n + 1])[0].cpu()
            found.append(
                measure_clip(logits[n].cpu(), masks, SIZE, some.whole[n][some.real[n]], some.labels[n][some.real[n]])
            )
    return found


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
        tracker = self.tracker(row.tracker or name, seed)
        if row.refiner is None:
            return measure_heads(self.held_out, tracker, None, self.device)
        steps = replace(self.extent, steps=self.extent.steps // 2)
        net = train_refiner(self.training, tracker, self.segmenter, seed, steps, row.refiner, self.device)
        return measure_heads(self.held_out, tracker, net, self.device)

    def tracker(self, name: str, seed: int) -> ReferringTracker:
        """The tracker of a row, trained or from the folder."""
        path, recipe = self.out / f"{name}-{seed}.safetensors", ROWS[name].recipe
        assert recipe is not None
        if not path.exists():
            net = train_tracker(self.training, self.segmenter, seed, self.extent, recipe, self.device)
            save_heads(path, KINDS, tracker=net.cpu())
        return load_tracker(path)[0].requires_grad_(False).to(self.device)


def run_rows(bench: Bench, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Every row of every seed that is not measured yet, seed by seed."""
    for seed in seeds:
        for name in names:
            path = bench.out / f"{name}-{seed}.pt"
            if path.exists() or (seed and name in FOLLOWED):
                continue
            start = time.process_time()
            scores = bench.measure(name, seed)
            seconds = time.process_time() - start
            torch.save([asdict(one) for one in scores], path)
            note(bench.out / "tables_dvis.json", name, seed, summarize(scores) | {"cpu seconds": seconds})


def summarize(scores: Sequence[ClipScores]) -> dict[str, float]:
    """AP, AP50, AP of each level of occlusion, and switches."""
    ap, half = compute_ap(scores)
    levels = {level: compute_ap(scores[n :: len(LEVELS)])[0] for n, level in enumerate(LEVELS)}
    return {"AP": ap, "AP50": half, **levels, "switches": count_switch_rate(scores)}


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


# -- the page


def make_page(out: Path) -> str:
    """What was measured so far, as Markdown."""
    done = json.loads((out / "tables_dvis.json").read_text())
    titles = ["", "paper", "AP", "AP50", *LEVELS, "switches", "against", "our change of AP", "paper's sign"]
    head = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    return "\n".join([*head, *(tell_row(out, name, done) for name in ROWS if name in done)])


def tell_row(out: Path, name: str, done: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A line of the page."""
    row, seeds = ROWS[name], sorted(done[name])
    cells = [row.told, row.figure]
    cells += [tell_spread([done[name][s][m] for s in seeds]) for m in ("AP", "AP50", *LEVELS, "switches")]
    pairs = list_pairs(name, done)
    if not pairs:
        return f"| {' | '.join([*cells, '', '', ''])} |"
    changes = [done[name][s]["AP"] - done[row.against][other]["AP"] for s, other in pairs]
    low, high = bootstrap_change(
        [read_scores(out / f"{name}-{s}.pt") for s, _ in pairs],
        [read_scores(out / f"{row.against}-{other}.pt") for _, other in pairs],
    )
    signs = "/".join("+" if change > 0 else "-" for change in changes)
    told = f"{signs} ({mean(changes):+.2f}, {low:+.2f} to {high:+.2f})"
    return f"| {' | '.join([*cells, ROWS[row.against].told, told, row.sign])} |"


def list_pairs(name: str, done: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    """The seeds of a row, each with that of the row it is compared with: 0 of one that is not trained."""
    others = done.get(ROWS[name].against, {})
    fixed = ROWS[name].against in FOLLOWED
    return [(s, "0" if fixed else s) for s in sorted(done[name]) if ("0" if fixed else s) in others]


def tell_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("clips", "run", "page"))
    parser.add_argument("--out", type=Path, default=Path("out/tables-dvis"))
    parser.add_argument("--start", type=Path, default=Path(__file__).parent / "weights" / "small-segmenter.safetensors")
    parser.add_argument("--extent", choices=EXTENTS, default="small")
    parser.add_argument("--steps", type=int, help="of a training; else the extent's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "page":
        print(make_page(options.out))
        return 0
    at = EXTENTS[options.extent]
    at = replace(at, steps=options.steps or at.steps)
    segmenter = load_mask2former(options.start, torch.device(options.device), shortest=SIZE[0])
    segmenter.at_once = 1 if options.device == "cpu" else at.length  # a clip is one call
    clips = (
        open_clips(options.out / f"{name}.pt", lambda how=how: segment_clips(segmenter, *how))
        for name, how in (
            ("training", (TRAINING, at.clips, at.length, False)),
            ("held-out", (HELD_OUT, at.videos, at.frames, True)),
        )
    )
    bench = Bench(options.out, at, segmenter, *clips, options.device)
    if options.what == "run":
        run_rows(bench, options.rows.split(","), [int(s) for s in options.seeds.split(",")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
