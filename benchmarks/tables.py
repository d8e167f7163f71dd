"""The papers' tables in small: trains and measures every row on generated clips, over three seeds.

    python benchmarks/tables.py segmenter          # once: a small Mask2Former that all rows start from
    python benchmarks/tables.py rocovis            # RoCoVIS, Table 2
    python benchmarks/tables.py dvis               # DVIS, Tables 5 to 8 and II
    python benchmarks/tables.py page               # docs/tables.md from what was measured

Every run resumes where it was left. The world: three kinds of shapes, two to four a clip, half of them look-alikes of
another one, that cross, vanish behind things, leave and come back.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from masklet.api import open_source
from masklet.core.result import VideoResult
from masklet.evaluate.vis.metrics import evaluate_ap_pool_video, evaluate_tube_boundary, evaluate_youtube_vis
from masklet.io.formats.ytvis import write_ytvis, write_ytvis_truth
from masklet.models.mask2former.segmenter import load_mask2former
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, load_small, save_small
from masklet.models.query_video.heads import load_refiner, load_tracker
from masklet.models.query_video.slot_weights import load_slot_model
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.systems import dvis, minvis, rocovis
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.dataset_writer import make_clip_result
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.loop.loop import Task, TrainingPlan, train
from masklet.train.losses import LossSettings
from masklet.train.tasks.dvis import DvisTraining, RefinerTask, TrackerTask, initialize_from_minvis
from masklet.train.tasks.rocovis import RocovisTask, RocovisTraining
from masklet.train.tasks.segmenter import SegmenterTask, choose_point_count, draw_held_out_clips

SIZE, KINDS, SEEDS = (64, 96), ("star", "ring", "square"), (0, 1, 2)
STILL = SyntheticSettings(size=SIZE, categories=KINDS, objects=(2, 4), radius=(0.18, 0.32), blur=0.0, noise=2.0)
WORLD = SyntheticSettings(
    size=SIZE,
    categories=KINDS,
    objects=(2, 4),
    radius=(0.18, 0.32),
    blur=0.0,
    noise=2.0,
    lookalikes=0.5,
    exits=0.3,
    hides=0.3,
)
SMALL = SmallMask2FormerSettings(queries=12)
RATE = 2e-4
HELD_OUT = 7_000  # seed of the clips that are measured on
SLOW = "model.pixel_level_module.encoder."


@dataclass(frozen=True)
class Extent:
    """How long things are trained, and on how much they are measured."""

    segmenter: int = 3000  # steps of 8 pictures
    steps: int = 300  # of a row, of one clip of 5 frames
    videos: int = 40
    frames: int = 20


def segmenter(out: Path, extent: Extent) -> None:
    """What all rows start from."""
    source = SyntheticClips(STILL)
    net = create_small_mask2former(SMALL, KINDS)
    task = SegmenterTask(
        net, source, draw_held_out_clips(source, 100), lambda p: save_small(p, net, SMALL, SIZE), clips=8
    )
    rates = (("net." + SLOW + "net.", 0.1),)
    plan = TrainingPlan(extent.segmenter, lr=1e-3, warm_up=100, factors=rates, validate_every=250, save_every=100)
    train(task, out, plan, {"task": "segmenter", "world": "table"})


Truth = tuple[np.ndarray, VideoResult]  # pictures, and what is in them

# -- rows


def longer(start: Path, seed: int) -> Task:
    """The segmenter, trained on as many more pictures as the other rows see."""
    net: Any = load_small(start).net.requires_grad_(True)
    return SegmenterTask(net, SyntheticClips(WORLD), [], lambda p: save_small(p, net, SMALL, SIZE), clips=1, frames=5)


def slots(row: str) -> Callable[[Path, int], Task]:
    """A row of RoCoVIS's Table 2."""

    def task(start: Path, seed: int) -> Task:
        at = RocovisTraining(row=row, similarity=0.0)
        return RocovisTask(load_small(start).net, SyntheticClips(WORLD), at, seed=seed, shortest=SIZE[0])

    return task


def tracker(**settings: Any) -> Callable[[Path, int], Task]:
    """DVIS's tracker over the frozen segmenter; unless said otherwise of three blocks."""
    return lambda start, seed: tracking(start, seed, TrackerSettings(**({**widths(), "layers": 3} | settings)))


def tracking(start: Path, seed: int, settings: TrackerSettings) -> Task:
    """The training of a tracker."""
    torch.manual_seed(seed)
    net = ReferringTracker(settings)
    below = load_mask2former(start, torch.device("cpu"), shortest=SIZE[0])
    initialize_from_minvis(net, below.net)
    losses = LossSettings(points=choose_point_count(SIZE))
    return TrackerTask(below, net, SyntheticClips(WORLD), DvisTraining(EXTENT.steps, 5, losses=losses))


def refiner(start: Path, seed: int) -> Task:
    """DVIS's refiner over the tracker of the same seed."""
    torch.manual_seed(seed)
    net = TemporalRefiner(RefinerSettings(**widths(), layers=3))
    below = load_mask2former(start, torch.device("cpu"), shortest=SIZE[0])
    own, _ = load_tracker(OUT / "dvis" / f"tracker-{seed}" / "weights.safetensors")
    at = DvisTraining(EXTENT.steps, 10, 0.5, losses=LossSettings(points=choose_point_count(SIZE)))
    return RefinerTask(below, own, net, SyntheticClips(WORLD), at)


def widths() -> dict[str, int]:
    """Of heads over the small segmenter."""
    hidden = SMALL.hidden
    return {
        "classes": len(KINDS),
        "width": hidden,
        "heads": SMALL.heads,
        "hidden": SMALL.decoder_width,
        "mask_width": hidden,
    }


# -- systems


def as_minvis(start: Path, weights: Path) -> Any:
    """MinVIS over a segmenter."""
    return minvis.build_minvis_system(load_mask2former(weights, torch.device("cpu"), shortest=SIZE[0]))


def as_slots(kind: str) -> Callable[[Path, Path], Any]:
    """RoCoVIS or GenVIS, scored over the frames as MinVIS and DVIS are."""
    make, at = {
        "rocovis": (rocovis.build_rocovis_system, rocovis.RocovisSystemSettings()),
        "genvis": (rocovis.build_genvis_system, rocovis.GenvisSystemSettings(scores="mean")),
    }[kind]
    return lambda start, weights: make(load_slot_model(weights, kind, torch.device("cpu")), at)


def as_dvis(start: Path, weights: Path) -> Any:
    """DVIS online."""
    below = load_mask2former(start, torch.device("cpu"), shortest=SIZE[0])
    return dvis.build_dvis_system(below, load_tracker(weights)[0].requires_grad_(False), dvis.DvisSettings(top=10))


def as_refined(clip: int | None = None) -> Callable[[Path, Path], Any]:
    """DVIS offline, or semi-online in clips."""

    def made(start: Path, weights: Path) -> Any:
        below = load_mask2former(start, torch.device("cpu"), shortest=SIZE[0])
        heads = [load(weights)[0].requires_grad_(False) for load in (load_tracker, load_refiner)]
        return dvis.DvisRefined(below, *heads, dvis.DvisSettings(top=10, clip=clip))

    return made


@dataclass(frozen=True)
class Row:
    """A row of a table: what is trained, how it is run, and what it is compared with."""

    told: str
    task: Callable[[Path, int], Task] | None  # None: nothing, it is the segmenter that all rows start from
    system: Callable[[Path, Path], Any]
    against: str = ""  # the row whose difference the paper speaks of
    paper: str = ""  # its sign, measure by measure; DVIS's figures could not be read: what it published is better
    figures: str = ""  # the paper's AP^B, AP and AP^Pool
    slow: str = ""  # how the names of parameters begin that learn at a tenth of the rate
    trained: str = ""  # the row whose training it shares


MEASURES = ("AP^B", "AP", "AP^Pool")
GENVIS, ROCOVIS, BELOW = as_slots("genvis"), as_slots("rocovis"), "segmenter." + SLOW
TABLES: Mapping[str, Mapping[str, Row]] = {
    "rocovis": {
        "minvis": Row("MinVIS", longer, as_minvis, figures="34.1 / 49.6 / 49.3", slow="net." + SLOW),
        "queries": Row("queries propagated (GenVIS)", slots("queries"), GENVIS, "minvis", "+++", "35.6 / 51.4 / 50.1"),
        "direct": Row(
            "+ direct query decoding", slots("direct"), ROCOVIS, "queries", "+++", "37.0 / 53.5 / 54.3", slow=BELOW
        ),
        "masks": Row(
            "+ instance mask propagation", slots("masks"), ROCOVIS, "direct", "+--", "37.5 / 52.3 / 52.7", slow=BELOW
        ),
        "uvla++": Row("+ UVLA++", slots("uvla++"), ROCOVIS, "masks", "+++", "39.0 / 54.1 / 54.8", slow=BELOW),
    },
    "dvis": {
        "minvis": Row("MinVIS", None, as_minvis),
        "tracker": Row("referring tracker", tracker(), as_dvis, "minvis", "+++"),
        "refiner": Row("+ temporal refiner", refiner, as_refined(), "tracker", "+++"),
        "previous": Row("initial value: last outputs", tracker(initial="previous"), as_dvis, "tracker", "---"),
        "zero": Row("initial value: zero", tracker(initial="zero"), as_dvis, "tracker", "---"),
        "standard": Row("standard cross-attention", tracker(attention="standard"), as_dvis, "tracker", "---"),
        "1 block": Row("tracker of one block", tracker(layers=1), as_dvis, "tracker", "---"),
        "6 blocks": Row("tracker of six blocks", tracker(layers=6), as_dvis, "tracker", "+++"),
        "clip 1": Row("refined frame by frame", refiner, as_refined(1), "refiner", "---", trained="refiner"),
        "clip 5": Row("refined in clips of 5", refiner, as_refined(5), "refiner", "---", trained="refiner"),
        "clip 10": Row("refined in clips of 10", refiner, as_refined(10), "refiner", "---", trained="refiner"),
    },
}


def measured(table: str, row: str, seed: int, start: Path, truths: Sequence[Truth]) -> dict[str, float]:
    """Trains a row and measures it."""
    at = TABLES[table][row]
    row = at.trained or row
    out = OUT / table / f"{row}-{seed}"
    if at.task is None:
        out.mkdir(parents=True, exist_ok=True)
        return scores(at.system(start, start), truths, out)
    torch.manual_seed(seed)
    slow = ((at.slow, 0.1),) if at.slow else ()
    plan = TrainingPlan(EXTENT.steps, lr=RATE, warm_up=20, factors=slow, seed=seed, save_every=50)
    if train(at.task(start, seed), out, plan, {"task": row, "table": table}) < EXTENT.steps:
        sys.exit(f"{out}: stopped; the same command goes on")
    return scores(at.system(start, out / "weights.safetensors"), truths, out)


# -- measuring


def clips(extent: Extent) -> list[Truth]:
    """Videos and their truths."""
    source, found = SyntheticClips(WORLD), []
    for n in range(extent.videos):
        clip = source.clip(seed_item_generator(HELD_OUT, n), extent.frames)
        found.append((clip.images.permute(0, 2, 3, 1).numpy(), make_clip_result(clip, f"{n:04d}", KINDS)))
    return found


def scores(system: Any, videos: Sequence[Truth], out: Path) -> dict[str, float]:
    """AP, AP^B and AP^Pool in percent, and how often an object changes its id, for 100 objects."""
    truths = [truth for _, truth in videos]
    results = [seen(system, images, truth.name) for images, truth in videos]
    write_ytvis_truth(truths, out / "truth.json")
    write_ytvis(results, out / "found.json")
    ap = {
        name: 100 * float(metric(out / "truth.json", out / "found.json").scores["AP"] or 0)
        for name, metric in (
            ("AP", evaluate_youtube_vis),
            ("AP^B", evaluate_tube_boundary),
            ("AP^Pool", evaluate_ap_pool_video),
        )
    }
    counted = [switches(t, r) for t, r in zip(truths, results, strict=True)]
    return {**ap, "switches": 100 * sum(s for s, _ in counted) / sum(n for _, n in counted)}


def seen(system: Any, images: np.ndarray, name: str) -> VideoResult:
    """What a system finds."""
    with open_source(images) as video:
        return replace(system.run(video, lambda *_: None), name=name)


def switches(truth: VideoResult, found: VideoResult, least: float = 0.5) -> tuple[int, int]:
    """How often the masklet that covers an object best (mask IoU of `least`) is another than the last time; objects."""
    changed = 0
    for masklet in truth.masklets:
        last = None
        for t, sighting in sorted(masklet.sightings.items()):
            there = [m for m in found.masklets if t in m.sightings]
            overlaps = [iou(sighting.mask.decode(), m.sightings[t].mask.decode()) for m in there]
            if overlaps and max(overlaps) >= least:
                best = there[int(np.argmax(overlaps))].id  # of equal ones the one with the higher score
                changed += last not in (None, best)
                last = best
    return changed, len(truth.masklets)


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two masks."""
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


# -- the page

Found = Mapping[str, Mapping[str, Mapping[str, float]]]  # row: seed: measure


def sign(change: float) -> str:
    """Of a change, in steps of a hundredth of a percent."""
    return "0" if abs(change) < 0.005 else "+" if change > 0 else "-"


def changes(found: Found, row: str, against: str, measure: str) -> list[float]:
    """By seed, of those that both rows have."""
    both = sorted(found.get(row, {}).keys() & found.get(against, {}).keys())
    return [found[row][s][measure] - found[against][s][measure] for s in both]


def verdict(paper: str, ours: Sequence[float]) -> str:
    """Whether a change is of the paper's sign: in all seeds, in the mean and some of them, or not."""
    same = sum(sign(c) == paper for c in ours)
    if same == len(ours):
        return "yes"
    return f"{'in the mean' if sign(mean(ours)) == paper else 'no'}, {same} of {len(ours)}"


def by_seed(ours: Sequence[float]) -> str:
    """The signs, and the mean."""
    return "/".join(sign(c) for c in ours) + f" ({mean(ours):+.1f})"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def lines(rows: Mapping[str, Row], found: Found) -> list[str]:
    """A table in Markdown, each row with the one that it is compared with."""
    names = (*MEASURES, "switches")
    told = [t for m in MEASURES for t in (f"our change, {m}", "same sign")]
    titles = ["", f"paper: {' / '.join(MEASURES)}", *names, "against", "paper's change", *told]
    made = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name, row in rows.items():
        if name in found:
            cells = [row.told, row.figures, *(spread([one[n] for one in found[name].values()]) for n in names)]
            cells += [rows[row.against].told if row.against else "", " / ".join(row.paper)]
            cells += [c for n, m in enumerate(MEASURES) for c in compared(row, n, changes(found, name, row.against, m))]
            made.append(f"| {' | '.join(cells)} |")
    return made


def compared(row: Row, measure: int, ours: Sequence[float]) -> list[str]:
    """A row's cells about one measure."""
    return [by_seed(ours), verdict(row.paper[measure], ours)] if ours else ["", ""]


def page(path: Path) -> None:
    """Prints what was measured so far, as Markdown."""
    done = json.loads(path.read_text())
    for table, found in done.items():
        print("\n".join([f"## {table}", "", *lines(TABLES[table.partition(",")[0]], found), ""]))


def add(path: Path, table: str, row: str, seed: int, found: Mapping[str, float]) -> None:
    """Notes one run."""
    done = json.loads(path.read_text()) if path.exists() else {}
    done.setdefault(table, {}).setdefault(row, {})[str(seed)] = dict(found)
    path.write_text(json.dumps(done, indent=1) + "\n")


OUT, EXTENT = Path("out/tables"), Extent()


def main() -> int:
    """Runs what the command line names."""
    global OUT, EXTENT  # where runs are, and how long they are: the same for all of this process
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("segmenter", *TABLES, "page"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--start", type=Path, help="weights of the segmenter; else those of `segmenter`")
    parser.add_argument("--rows", default="", help="with commas; else all")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--steps", type=int, default=EXTENT.steps)
    parser.add_argument("--videos", type=int, default=EXTENT.videos)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    OUT, EXTENT = options.out, Extent(steps=options.steps, videos=options.videos)
    torch.set_num_threads(options.threads)
    if options.what == "segmenter":
        segmenter(OUT / "segmenter", EXTENT)
    elif options.what == "page":
        page(OUT / "tables.json")
    else:
        start = options.start or OUT / "segmenter" / "weights.safetensors"
        truths = clips(EXTENT)
        for seed in map(int, options.seeds.split(",")):
            for row in options.rows.split(",") if options.rows else TABLES[options.what]:
                found = measured(options.what, row, seed, start, truths)
                print(options.what, row, seed, {k: round(v, 2) for k, v in found.items()}, flush=True)
                add(OUT / "tables.json", options.what, row, seed, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
