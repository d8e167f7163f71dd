"""MOSE version 2 against MOSE-api's score.py: every frame, every object, the means."""

from __future__ import annotations

import pytest
from vos_sets import same, sets, unpacked

from masklet.evaluate.vos.label_maps import read_labels
from masklet.evaluate.vos.mose import evaluate_mose_v2, score_mose_object

CURVES = {"J_frames": "j", "F_new_frames": "f_new", "F_frames": "f"}


@pytest.fixture(scope="module", params=sets("mosev2"), ids=lambda p: p.name if p else "none")
def golden(request, tmp_path_factory):
    return unpacked(request.param, tmp_path_factory)


def test_every_frame(golden):
    data, expected = golden
    for name, wanted in expected["per_object"].items():
        video, _, object = name.rpartition("_")
        names = sorted(p.name for p in (data / "Annotations" / video).glob("*.png"))[1:-1]
        frames = [[read_labels(data / part / video / n) for n in names] for part in ("pred", "Annotations")]
        scores = [score_mose_object(p, t, int(object)) for p, t in zip(*frames, strict=True)]
        for key, measure in CURVES.items():
            for t, (score, value) in enumerate(zip(scores, wanted[key], strict=True)):
                same(getattr(score, measure), value, f"{name} {key} {t}")


def test_every_object_and_the_means(golden):
    data, expected = golden
    report = evaluate_mose_v2(data, data / "pred")
    for key, value in expected["global"].items():
        same(report.scores[key], value, key)
    assert {name.replace("/", "_") for name in report.objects} == expected["per_object"].keys()
    for name, row in report.objects.items():
        for key, value in row.items():
            same(value, expected["per_object"][name.replace("/", "_")][key], f"{name} {key}")
