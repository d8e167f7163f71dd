"""The papers' tables in small, of the systems that propagate masks. Nothing is trained: a seed is a set of clips.

    python benchmarks/tables_masks.py sam2bmp     # Tables 4 and 5
    python benchmarks/tables_masks.py sam2long    # Tables 5 to 8
    python benchmarks/tables_masks.py deva        # Tables 5 and 6
    python benchmarks/tables_masks.py page        # what was measured, as Markdown

With --segmenter NAME in place of detections made from the truth; with --real on ../shared/data's clips. Every run
resumes where it was left, row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import torch
from tables import SEEDS, Found, add, by_seed, changes, sign, spread, verdict
from tables_masks_clips import NoisyTruth, Scene, generated, real
from tables_masks_parts import Bench
from tables_masks_rows import TABLES, Row, Table, answered

from masklet.core.errors import InputError
from masklet.core.protocols import Segmenter
from masklet.models.encoder import Encoder
from masklet.models.nano.network import read_nano
from masklet.models.nano.propagator import PACKAGED
from masklet.parts import check_choice, load_segmenter
from masklet.train.data.clips import seed_item_generator
from masklet.weights.store import ZOO, compute_hash, verify_packaged

NOISY = "noisy-truth"
REAL = "real"
HERE = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MASKLET_DATA", HERE.parent / "shared/data"))
# On real clips not all that is there is annotated: what is compared, and what is shown besides.
ON_REAL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "sam2bmp": ("best J", ("AP", "switches")),
    "sam2long": ("J&F", ("apart", "reliable")),
    "deva": ("best J", ("AP", "switches")),
}

# -- running


def noisy(seed: int) -> Callable[[Scene], Segmenter[Any]]:
    """The segmenter of every scene, made of its truth."""
    return lambda scene: NoisyTruth(scene, seed_item_generator(seed, crc32(scene.name.encode())))


def key_of(table: str, options: argparse.Namespace) -> str:
    """What the results of a run are filed under."""
    parts = [table, *([] if table == "sam2long" else [options.segmenter]), *([REAL] if options.real else [])]
    return ", ".join(parts)


def scenes(table: Table, options: argparse.Namespace, seed: int) -> Iterable[Scene]:
    """The clips that a seed stands for."""
    at = table.extent
    if options.real:
        return real(options.data, options.videos, options.frames)
    return generated(seed, at.level, options.videos or at.videos, options.frames or at.frames)


def extent(table: Table, options: argparse.Namespace) -> str:
    """The same in words."""
    if options.real:
        return f"{options.videos or 'all'} real ones, {options.frames or 'all'} frames"
    at = table.extent
    return f"{options.videos or at.videos} generated, {at.level} occlusion, {options.frames or at.frames} frames"


def measured(table: Table, row: Row, bench: Bench, videos: Iterable[Scene], folder: Path) -> dict[str, float]:
    """One row on one set of clips."""
    assert row.run
    start = time.process_time()
    answers = [answered(bench, scene, row.run) for scene in videos]
    found = table.measure(answers, folder)
    return {k: round(v, 4) for k, v in found.items()} | {"seconds": round(time.process_time() - start, 1)}


def fresh(path: Path, key: str, made_with: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured before under this key. InputError where that was with something else."""
    done = json.loads(path.read_text()) if path.exists() else {}
    earlier = done.setdefault("made with", {}).setdefault(key, dict(made_with))
    if earlier != made_with:
        raise InputError(f"{path}: {key} was measured with {earlier}, not {dict(made_with)}; name another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(done, indent=1) + "\n")
    return dict(done.get(key, {}))


def run(name: str, options: argparse.Namespace) -> None:
    """All rows of a system's tables that are not there yet."""
    table, path, encoder = TABLES[name], options.out / "masks.json", Encoder(options.short)
    net, made_with = propagator(options.nano or verify_packaged(ZOO[PACKAGED]))
    made_with |= {"clips": extent(table, options), "short": options.short}
    one = None if options.segmenter == NOISY else load_segmenter(options.segmenter, encoder)
    if one and name != "sam2long":
        made_with["segmenter"] = sorted(sha[:16] for sha in getattr(one, "weights", {}).values())
    key = key_of(name, options)
    done = fresh(path, key, made_with)
    wanted = [check_choice("row", r, table.rows) for r in options.rows.split(",")] if options.rows else list(table.rows)
    for seed in SEEDS[:1] if options.real else map(int, options.seeds.split(",")):
        bench = Bench(encoder, net, (lambda scene: one) if one else noisy(seed))
        left = [r for r in wanted if table.rows[r].run and str(seed) not in done.get(r, {})]
        videos = scenes(table, options, seed) if left and not options.real else ()
        for row in left:
            videos = scenes(table, options, seed) if options.real else videos
            found = measured(table, table.rows[row], bench, videos, options.out / "masks")
            print(key, row, seed, {k: round(v, 2) for k, v in found.items()}, flush=True)
            add(path, key, row, seed, found)


def propagator(weights: Path) -> tuple[Any, dict[str, Any]]:
    """The network of a file, and what to note of it. InputError where there is none."""
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; name weights of the nano propagator with --nano")
    net, _ = read_nano(weights)
    return net, {"nano": compute_hash(weights).sha256[:16]}


# -- the page


def judged(table: Table, name: str, against: str, found: Found, measure: str) -> list[str]:
    """A row's cells about one measure: our change by seed, its mean, and whether the sign is the paper's."""
    ours = changes(found, name, against, measure)
    if not ours:
        return ["", ""]
    paper = table.change(name, against)
    return [by_seed(ours), "" if paper is None else verdict(sign(paper), ours)]


def lines(table: Table, names: Sequence[str], found: Found, compared: Sequence[str], shown: Sequence[str]) -> list[str]:
    """One table in Markdown. What a row is compared with is a row of the same table."""
    titles = ["", f"paper: {table.headline}", *compared, *shown, "against", "paper's change"]
    titles += [t for m in compared for t in (f"our change, {m}", "same sign")]
    made = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for name in names:
        row, own = table.rows[name], found.get(name, {})
        against = row.against if row.against in names else ""
        paper = "" if row.paper is None else f"{row.paper:.1f}" + (f" ({row.figures})" if row.figures else "")
        change = table.change(name, against)
        cells = [row.told, paper, *(spread_of(own, m) for m in (*compared, *shown))]
        cells += [table.rows[against].told if against else "", "" if change is None else f"{change:+.1f}"]
        cells += [c for m in compared for c in judged(table, name, against, found, m)]
        made.append(f"| {' | '.join(cells)} |")
    return made


def spread_of(own: Mapping[str, Mapping[str, float]], measure: str) -> str:
    """Mean and deviation over the seeds; nothing where it was not measured."""
    values = [one[measure] for one in own.values() if measure in one]
    return spread(values) if values else ""


def page(path: Path) -> None:
    """Prints all that was measured so far, as Markdown."""
    done = json.loads(path.read_text())
    for key, made_with in done.pop("made with").items():
        name, found = key.partition(",")[0], done.get(key, {})
        table, (one, besides) = TABLES[name], ON_REAL[name]
        compared, shown = ((one,), besides) if key.endswith(REAL) else (table.compared, table.shown)
        if found:
            print(f"## {key}\n\n{made_with}\n\n{table.note}\n")
            for title, names in table.titles.items():
                print("\n".join([f"### {title}", "", *lines(table, names, found, compared, shown), ""]))


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=(*TABLES, "page"))
    parser.add_argument("--out", type=Path, default=Path("out/tables"), help="folder of masks.json")
    parser.add_argument("--nano", type=Path, help="weights of the nano propagator; else the packaged ones")
    parser.add_argument("--segmenter", default=NOISY, help=f"{NOISY}, or a name that masklet knows")
    parser.add_argument("--real", action="store_true", help="DAVIS 2016 and dogs-jump in place of generated clips")
    parser.add_argument("--data", type=Path, default=DATA, help="where they are (MASKLET_DATA)")
    parser.add_argument("--rows", default="", help="with commas; else all")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--videos", type=int, help="clips of a seed, or of the real ones")
    parser.add_argument("--frames", type=int, help="of a clip")
    parser.add_argument("--short", type=int, default=320, help="short side of what the encoder sees, pixels")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    try:
        page(options.out / "masks.json") if options.what == "page" else run(options.what, options)
    except InputError as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
