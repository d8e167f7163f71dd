"""BURST's three tasks against the numbers of its program, and of a variant with mask IoU."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from masklet.evaluate.tracking.burst import evaluate_burst, evaluate_burst_masks
from masklet.evaluate.tracking.burst_counts import BurstCounts, compute_box_similarity, count_burst_split
from masklet.evaluate.tracking.measures import HotaCounts, compute_track_ap

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden"))
SETS = sorted(GOLDEN.glob("metrics/burst/*/expected.json"))
TASKS = {"class_guided": "guided", "exemplar_guided": "exemplar"}
COUNTS = {"HOTA_TP": "tp", "HOTA_FN": "fn", "HOTA_FP": "fp"}


@pytest.fixture(scope="module", params=SETS or [None], ids=lambda p: p.parent.name if p else "none")
def golden(request):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}/metrics/burst: set MASKLET_GOLDEN")
    folder = request.param.parent
    result = count_burst_split(folder / "gt", folder / "pred.json", compute_box_similarity)
    return json.loads(request.param.read_text()), folder, result


def agree(counts, wanted):
    for theirs, ours in COUNTS.items():
        assert getattr(counts, ours).tolist() == wanted[theirs]
    for name in counts.rates.keys() & wanted.keys():
        assert counts.rates[name] == pytest.approx(wanted[name], abs=1e-9), name


@pytest.mark.parametrize("task", TASKS)
def test_every_class_and_alpha(golden, task):
    expected, _, result = golden
    ours = [result.total.classes[c] for c in sorted(result.total.reported)]  # the program's order of its names
    wanted = list(expected[task]["per_class"].values())
    assert len(ours) == len(wanted)
    for counts, row in zip(ours, wanted, strict=True):
        agree(getattr(counts, TASKS[task]), row)
        assert compute_track_ap(counts.tracks) == pytest.approx(row["track_AP_by_threshold"], abs=1e-9)
        assert counts.ap == pytest.approx(row["track_mAP"], abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_classes_together(golden, task):
    expected, _, result = golden
    counts = [getattr(result.total.classes[c], TASKS[task]) for c in result.total.reported]
    agree(sum(counts, start=HotaCounts.none()), expected[task]["detection_averaged"])
    for name, wanted in expected[task]["class_averaged"].items():
        if name in counts[0].rates:
            assert sum(c.rates[name] for c in counts) / len(counts) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("split", ["all", "common", "uncommon"])
def test_open_world(golden, split):
    expected, _, result = golden
    wanted = expected["open_world"][split]
    agree(result.total.open_world[split], wanted["combined"])
    assert len(result.videos) == len(wanted["per_sequence"])
    for name, counts in result.videos.items():
        ours = "-" + name.replace("/", "-")  # the program puts the split's name before it
        row = next(row for key, row in wanted["per_sequence"].items() if key.endswith(ours))
        means = counts.open_world[split].means
        assert {key: means[key] for key in row} == pytest.approx(row, abs=1e-9)


def test_reports(golden):
    expected, folder, _ = golden
    variant = next(v for k, v in expected.items() if k.startswith("variant_with_mask_iou"))
    for measure, tasks in ((evaluate_burst, expected), (evaluate_burst_masks, variant)):
        report = measure(folder / "gt", folder / "pred.json")
        for task in tasks.keys() & {*TASKS, "open_world"}:
            for name, row in tasks[task].get("summary", tasks[task]).items():
                for split, wanted in row.items():
                    got = (report.scores if split == "all" else report.parts[split])[f"{task.replace('_', '-')} {name}"]
                    assert got == pytest.approx(wanted, abs=1e-9)


def test_sequences_of_a_split_add_up(golden):
    _, folder, result = golden
    parts = [
        count_burst_split(folder / "gt", folder / "pred.json", compute_box_similarity, [name]).total
        for name in result.videos
    ]
    total = sum(parts, start=BurstCounts.none())
    assert total.reported == result.total.reported
    for c in total.reported:
        assert (total.classes[c].guided.tp == result.total.classes[c].guided.tp).all()
        assert total.classes[c].ap == pytest.approx(result.total.classes[c].ap, abs=1e-12)
