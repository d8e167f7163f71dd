"""The tables of the systems that propagate masks: their rows are the papers', their signs are right, and they run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402
import tables_masks as bench  # noqa: E402
from tables_masks_clips import (  # noqa: E402
    OBJECT,
    Answer,
    NoisyTruth,
    Scene,
    automatic,
    drifting,
    generated,
    grounded,
    merged,
    panoptic,
    prompted,
    real,
)
from tables_masks_parts import (  # noqa: E402
    Bench,
    ByDetection,
    Counted,
    ShortTrack,
    Unaligned,
    flown,
    given,
    still,
    watched,
)
from tables_masks_rows import TABLES, Row, answered, shifted  # noqa: E402

from masklet.core.frames import Frame  # noqa: E402
from masklet.core.instances import Branches, Detections  # noqa: E402
from masklet.models.encoder import Encoder  # noqa: E402
from masklet.models.nano.network import NanoSettings, create_nano, read_nano, save_nano  # noqa: E402
from masklet.models.sam2.memory import ReliableFrames  # noqa: E402
from masklet.systems.deva.online import propagate_between_frames  # noqa: E402
from masklet.systems.sam2long import MemoryTree  # noqa: E402
from masklet.train.data.clips import TrainingClip, seed_item_generator  # noqa: E402

PAPERS = {  # every figure of the papers' tables, in their order
    "SAM2BMP, Table 5": [43.2, 48.5, 51.2, 52.3, 52.7],
    "SAM2BMP, Table 4": [49.9, 51.0, 51.9, 52.7, 52.0],
    "SAM2Long, Table 5": [76.3, 80.1, 80.8, 80.7],
    "SAM2Long, Table 6": [80.0, 80.8, 80.2, 77.8],
    "SAM2Long, Table 7": [80.4, 80.8, 80.5],
    "SAM2Long, Table 8": [80.2, 80.8, 80.5],
    "DEVA, Table 5: clip": [36.4, 36.3, 38.3, 38.5, 38.3],
    "DEVA, Table 5: how": [38.4, 38.3, 35.7, 32.8],
    "DEVA, Table 6": [27.6, 28.6, 28.0, 28.2, 33.2, 36.4],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nano propagator, as small as it gets."""
    path = tmp_path_factory.mktemp("nano") / "nano.safetensors"
    settings = NanoSettings(side=64, layers=1, width=32)
    save_nano(path, create_nano(settings), settings)
    return path


@pytest.fixture(scope="module")
def parts(weights: Path) -> Bench:
    return Bench(Encoder(64), read_nano(weights)[0], lambda scene: NoisyTruth(scene, seed_item_generator(0, 0)))


def moving_square(frames: int = 4, step: int = 3) -> Scene:
    """A bright square that walks to the right over noise."""
    masks = torch.zeros(1, frames, 48, 80, dtype=torch.bool)
    for t in range(frames):
        masks[0, t, 16:32, 10 + step * t : 26 + step * t] = True
    noise = np.random.default_rng(0).integers(0, 60, (48, 80))
    inside = np.random.default_rng(1).integers(120, 255, (16, 16))
    images = np.repeat(noise[None, None], 3, 1).repeat(frames, 0)
    for t in range(frames):
        images[t, :, 16:32, 10 + step * t : 26 + step * t] = inside
    pictures = torch.from_numpy(images.astype(np.uint8))
    return Scene("square", TrainingClip(pictures, masks, masks.flatten(2).any(2), torch.zeros(1, dtype=torch.long)))


class Seen(NoisyTruth):
    """Detections without a fault, but for frames in which nothing is seen."""

    def __init__(self, scene: Scene, blind: tuple[int, ...] = ()) -> None:
        masks = scene.clip.masks
        one = torch.ones(len(masks)), torch.zeros(len(masks), dtype=torch.long)
        none = Detections.none((masks.shape[2], masks.shape[3]))
        self.found = [none if t in blind else Detections(masks[:, t], *one) for t in range(masks.shape[1])]


# -- rows


def test_every_row_of_the_papers_is_there() -> None:
    titles = {title: (table, rows) for table in TABLES.values() for title, rows in table.titles.items()}
    for begin, figures in PAPERS.items():
        [(table, names)] = [at for title, at in titles.items() if title.startswith(begin)]
        assert [table.rows[n].paper for n in names if table.rows[n].paper is not None] == figures
    assert len(titles) == len(PAPERS)


def test_rows_are_shown_and_compared_with_rows() -> None:
    for table in TABLES.values():
        assert {name for names in table.titles.values() for name in names} == set(table.rows)
        assert {row.against for row in table.rows.values()} - {""} <= set(table.rows)
        for row in table.rows.values():
            assert row.run or row.figures.startswith("not run")


def test_rows_that_share_a_training_name_the_row_that_trains() -> None:
    for rows in tables.TABLES.values():
        for row in rows.values():
            assert not row.trained or rows[row.trained].task is row.task


def test_what_a_trained_row_is_compared_with_is_a_row_of_its_table() -> None:
    for rows in tables.TABLES.values():
        for row in rows.values():
            assert (row.against in rows and len(row.paper) == len(tables.MEASURES)) or row.against == row.paper == ""


def test_a_trained_rows_cells() -> None:
    rows = {
        "a": tables.Row("A", None, tables.as_minvis),
        "b": tables.Row("B", None, tables.as_minvis, "a", "+-0", "1 / 2 / 3"),
        "c": tables.Row("C", None, tables.as_minvis, "a", "+++"),
    }
    at = dict.fromkeys(tables.MEASURES, 10.0) | {"switches": 7.0}
    found = {"a": {"0": at, "1": at}, "b": {"1": at | {"AP^B": 9.0}, "0": at | {"AP^B": 12.0, "AP": 8.0}}}
    made = [line.split(" | ") for line in tables.lines(rows, found)]
    assert len(made) == 4  # the last row was not run
    assert made[2][2:8] == ["10.0 ± 0.0"] * 3 + ["7.0 ± 0.0", "", ""]
    assert made[3][:2] == ["| B", "1 / 2 / 3"] and made[3][6:8] == ["A", "+ / - / 0"]
    assert made[3][8:] == [
        "+/- (+0.5)",
        "in the mean, 1 of 2",
        "-/0 (-1.0)",
        "in the mean, 1 of 2",
        "0/0 (+0.0)",
        "yes |",
    ]


def test_a_threshold_keeps_its_distance_from_the_default() -> None:
    assert shifted(0.95, 0.45) == 0.45
    assert shifted(0.97, 0.95) == pytest.approx(0.97)
    assert shifted(0.80, 0.5) < 0.5 < shifted(0.97, 0.5) < 1


# -- signs


@pytest.mark.parametrize(
    ("paper", "ours", "said"),
    [
        ("+", [1.0, 0.2, 3.0], "yes"),
        ("+", [1.0, -0.2, 3.0], "in the mean, 2 of 3"),
        ("+", [1.0, 0.2, -3.0], "no, 2 of 3"),
        ("-", [0.0, 0.0, 0.0], "no, 0 of 3"),
        ("0", [0.001, -0.001], "yes"),
    ],
)
def test_whether_signs_agree(paper: str, ours: list[float], said: str) -> None:
    assert bench.verdict(paper, ours) == said


def test_a_rows_cells() -> None:
    rows = {"a": Row("A", 50.0, None), "b": Row("B", 51.0, None, "a"), "c": Row("C", None, None, "a")}
    table = replace(TABLES["sam2bmp"], rows=rows)
    found = {
        "a": {"0": {"AP": 10.0}, "1": {"AP": 20.0}},
        "b": {"1": {"AP": 19.0}, "0": {"AP": 13.0}, "2": {"AP": 1.0}},
        "c": {"0": {"AP": 10.0}},
    }
    assert bench.changes(found, "b", "a", "AP") == [3.0, -1.0]  # by seed, of those that both have
    assert bench.lines(table, ("a", "b", "c"), found, ("AP",), ()) == [
        "|  | paper: AP | AP | against | paper's change | our change, AP | same sign |",
        "|---|---|---|---|---|---|---|",
        "| A | 50.0 | 15.0 ± 7.1 |  |  |  |  |",
        "| B | 51.0 | 11.0 ± 9.2 | A | +1.0 | +/- (+1.0) | in the mean, 1 of 2 |",
        "| C |  | 10.0 | A |  | 0 (+0.0) |  |",
    ]
    assert bench.lines(table, ("b",), found, ("AP",), ())[2] == "| B | 51.0 | 11.0 ± 9.2 |  |  |  |  |"


# -- what it is measured on


def test_detections_come_from_the_seed() -> None:
    [scene] = generated(3, "moderate", 1, 12, (48, 80))
    one, same, other = (NoisyTruth(scene, seed_item_generator(0, n)) for n in (1, 1, 2))
    assert all(torch.equal(a.masks, b.masks) for a, b in zip(one.found, same.found, strict=True))
    assert any(
        a.masks.shape != b.masks.shape or (a.masks != b.masks).any()
        for a, b in zip(one.found, other.found, strict=True)
    )
    assert all(((d.scores > 0) & (d.scores < 1)).all() and d.masks.flatten(1).any(1).all() for d in one.found)


def test_quality_drifts() -> None:
    z = drifting(np.random.default_rng(0), (200, 50))
    assert z.std() == pytest.approx(1, abs=0.05)
    assert np.mean(z[:, 1:] * z[:, :-1]) == pytest.approx(0.8, abs=0.05)


def test_what_touches_may_be_one() -> None:
    left, right, far = (np.zeros((20, 40), bool) for _ in range(3))
    left[5:10, 5:10] = right[5:10, 12:16] = far[5:10, 30:35] = True
    assert len(merged([(left, 0.9), (far, 0.8)])) == 2
    rest, both = merged([(left, 0.9), (far, 0.8), (right, 0.7)])
    assert (rest[0] == far).all() and (both[0] == (left | right)).all() and both[1] == 0.7


def test_the_truth_scores_all_there_is(tmp_path: Path) -> None:
    scenes = generated(0, "moderate", 2, 8, (48, 80))
    answers = [Answer.of(s, s.truth, {"apart": [True, False]}) for s in scenes]
    assert panoptic(answers, tmp_path) == pytest.approx(
        {"VPQ": 100, "STQ": 100, "AP": 100, "switches": 0, "best J": 100}
    )
    assert prompted(answers, tmp_path) == pytest.approx({"J&F": 100, "apart": 50})


def test_a_false_masklet_costs_panoptic_quality(tmp_path: Path) -> None:
    scene = moving_square()
    true = scene.truth.masklets[0]
    false = moving_square(step=0).truth.masklets[0]
    far = replace(
        false,
        id=2,
        sightings={
            t: replace(s, mask=grounded(scene.truth).masklets[1].sightings[t].mask) for t, s in false.sightings.items()
        },
    )
    answer = Answer.of(scene, replace(scene.truth, masklets=(true, far)), {})
    assert panoptic([answer], tmp_path)["VPQ"] == pytest.approx(100 * 1 / 1.5)  # tp 1, fp 1
    assert automatic([answer], tmp_path)["best J"] == 100


def test_nothing_found_is_worth_nothing(tmp_path: Path) -> None:
    scene = moving_square()
    answer = Answer.of(scene, replace(scene.truth, masklets=()), {})
    assert panoptic([answer], tmp_path) == {"VPQ": 0, "STQ": 0, "AP": 0, "switches": 0, "best J": 0}


def test_pathways_apart_and_frames_to_remember_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    at, half = torch.tensor, torch.full((3, 2), 0.5)
    presence = at([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])
    belief = Branches(
        (1, 2, 3),
        torch.zeros(3, 2, 4, 4),
        half,
        presence,
        origins=at([[0, 0], [0, 1], [0, 0]]),
        hypotheses=at([[2, 2], [1, 1], [1, 0]]),
        totals=torch.zeros(3, 2, dtype=torch.float64),
    )
    monkeypatch.setattr(MemoryTree, "predict", lambda tree, memory, features: belief)
    for limit, reliable in ((0.3, [True, True, False]), (0.5, [False, False, False])):
        tree = Counted(SimpleNamespace(policy=ReliableFrames(limit)))
        assert tree.predict(None, None) is belief
        assert tree.noted == {"apart": [False, True, True], "reliable": reliable}


# -- DEVA's baselines


def test_detections_that_are_missed_come_back_as_others(parts: Bench) -> None:
    scene = moving_square(6)
    for blind, masklets in (((), 1), ((3,), 2)):
        found = watched(ByDetection(Seen(scene, blind), still, parts), scene)
        assert len(found.masklets) == masklets
        assert sum(len(m.sightings) for m in found.masklets) == 6 - len(blind)
        assert found.categories == OBJECT


def test_flow_carries_what_is_too_fast_for_its_mask(parts: Bench) -> None:
    scene = moving_square(2, step=7)  # mask IoU (16 - 7) / (16 + 7) < 0.5
    counts = [len(watched(ByDetection(Seen(scene), carry, parts), scene).masklets) for carry in (still, flown)]
    assert counts == [2, 1]
    frames = [Frame(t, image) for t, image in enumerate(scene.images)]
    moved = flown(scene.clip.masks[:, 0], *frames)
    assert (moved & scene.clip.masks[:, 1]).sum() > 0.8 * scene.clip.masks[:, 1].sum()


def test_unaligned_masks_stay_where_they_are(parts: Bench) -> None:
    scene = moving_square()
    carrier = parts.nano(kind=Unaligned)
    source, target = carrier.encode([Frame(t, scene.images[t]) for t in (2, 0)])
    belief = propagate_between_frames(carrier, {1: scene.clip.masks[0, 2]}, source, target)
    assert torch.equal(belief.masks((48, 80))[0], scene.clip.masks[0, 2])


def test_short_track_remembers_one_frame(parts: Bench) -> None:
    scene = moving_square()
    carrier = parts.nano(kind=ShortTrack)
    memory = carrier.empty()
    for t, features in enumerate(carrier.encode([Frame(t, image) for t, image in enumerate(scene.images)])):
        memory = carrier.commit(memory, features, carrier.predict(memory, features))
        if t == 0:
            memory, _ = carrier.prompt(memory, features, {1: scene.clip.masks[0, 0]})
    [bank] = memory.banks.values()
    assert len(bank.prompted) == 1 and not bank.recent


# -- all of it


@pytest.mark.parametrize(("table", "row"), [("sam2bmp", "all"), ("sam2long", "P2"), ("deva", "n2")])
def test_a_row_runs_and_is_not_run_again(
    table: str,
    row: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        told = ("tables", table, "--nano", str(weights), "--out", str(tmp_path), "--videos", "1", "--short", "64")
        monkeypatch.setattr(sys, "argv", [*told, "--rows", row, "--seeds", "0", *arguments])
        return bench.main(), *capsys.readouterr()

    code, said, _ = run("--frames", "4")
    assert code == 0 and f"{row} 0 " in said
    [key] = json.loads((tmp_path / "masks.json").read_text())["made with"]
    found = json.loads((tmp_path / "masks.json").read_text())[key][row]["0"]
    assert {*TABLES[table].compared, *TABLES[table].shown, "seconds"} <= set(found)
    assert run("--frames", "4") == (0, "", "")
    code, _, error = run("--frames", "5")
    assert code == 2 and "name another --out" in error
    code, _, error = run("--nano", str(tmp_path / "none"))
    assert code == 2 and "--nano" in error
    code, _, error = run("--frames", "4", "--rows", "nonsense")
    assert code == 2 and "no row 'nonsense'" in error

    monkeypatch.setattr(sys, "argv", ["tables", "page", "--out", str(tmp_path)])
    assert bench.main() == 0
    assert TABLES[table].rows[row].told in capsys.readouterr().out


def test_real_clips(data: Path, parts: Bench, tmp_path: Path) -> None:
    [scene] = real(data, videos=1, frames=3)
    assert scene.images.shape[0] == len(scene.labels) == 3
    assert scene.images.shape[1:3] == scene.truth.size
    assert prompted([answered(parts, scene, TABLES["sam2long"].rows["sam2"].run)], tmp_path)["J&F"] > 20


def test_first_masks_are_given(parts: Bench) -> None:
    scene = moving_square()
    assert torch.equal(given(scene)[0][1], scene.clip.masks[0, 0])
