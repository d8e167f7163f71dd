"""J and F of DAVIS against the program davis2017-evaluation: every frame, every object, the means."""

from __future__ import annotations

import pytest
from vos_sets import same, sets, unpacked

from masklet.evaluate.vos.davis import evaluate_davis_semi, evaluate_davis_unsupervised
from masklet.evaluate.vos.label_maps import read_labels
from masklet.evaluate.vos.measures import ProposalScores, drop_first_and_last, match_proposals, score_frame_objects

TASKS = {
    "semi-supervised": (evaluate_davis_semi, "pred_semisupervised"),
    "unsupervised": (evaluate_davis_unsupervised, "pred_unsupervised"),
}


@pytest.fixture(scope="module", params=sets("davis"), ids=lambda p: p.name if p else "none")
def golden(request, tmp_path_factory):
    return unpacked(request.param, tmp_path_factory)


def pairs(data, task, name):
    """Predictions and truths of a sequence, frame by frame; and the number of objects."""
    names = sorted(p.name for p in (data / "Annotations/480p" / name).glob("*.png"))
    frames = [[read_labels(data / part / name / n) for n in names] for part in (TASKS[task][1], "Annotations/480p")]
    return list(zip(*frames, strict=True)), frames[1][0].highest


def close(curves, wanted, where):
    assert len(curves) == len(wanted["J"]), where
    for n, curve in enumerate(curves):
        for side, measure in enumerate(("J", "F")):
            assert len(curve) == len(wanted[measure][n])
            for t, (got, value) in enumerate(zip(curve, wanted[measure][n], strict=True)):
                same(got[side], value, f"{where} row {n} frame {t} {measure}")


def test_every_frame_of_given_objects(golden):
    data, expected = golden
    for name, wanted in expected["semi-supervised"]["per_frame"].items():
        frames, objects = pairs(data, "semi-supervised", name)
        scores = [score_frame_objects(p, t, range(1, objects + 1)) for p, t in drop_first_and_last(frames)]
        close([[s[i] for s in scores] for i in range(1, objects + 1)], wanted, name)


def test_every_frame_of_assigned_proposals(golden):
    data, expected = golden
    for name, wanted in expected["unsupervised"]["per_frame"].items():
        frames, objects = pairs(data, "unsupervised", name)
        close(list(match_proposals([ProposalScores.of(p, t, objects) for p, t in frames]).values()), wanted, name)


@pytest.mark.parametrize("task", TASKS)
def test_every_object_and_the_means(golden, task):
    data, expected = golden
    evaluate, part = TASKS[task]
    report, wanted = evaluate(data, data / part), expected[task]
    for key, value in wanted["global"].items():
        same(report.scores[key], value, key)
    assert {name.replace("/", "_") for name in report.objects} == wanted["per_object"].keys()
    for name, row in report.objects.items():
        for key, value in wanted["per_object"][name.replace("/", "_")].items():
            same(row[key], value, f"{name} {key}")


@pytest.mark.parametrize("task", TASKS)
def test_long_sequences_are_warned_of(golden, task):
    data, expected = golden
    evaluate, part = TASKS[task]
    lengths = {name: len(rows["J"][0]) for name, rows in expected[task]["per_frame"].items()}
    told = [w for w in evaluate(data, data / part).warnings if "eight bits" in w]
    assert bool(told) == (max(lengths.values()) >= 256)
