"""J, F and V of LVOS against lvos-evaluation: every object, the means of seen and unseen."""

from __future__ import annotations

import pytest
from vos_sets import same, sets, unpacked

from masklet.evaluate.vos.lvos import evaluate_lvos

LISTS = ("J-Recall", "J-Decay", "F-Recall", "F-Decay")


@pytest.fixture(scope="module", params=sets("lvos"), ids=lambda p: p.name if p else "none")
def golden(request, tmp_path_factory):
    data, expected = unpacked(request.param, tmp_path_factory)
    return evaluate_lvos(data, data / "pred", unseen=expected["unseen_videos"]), expected


def test_the_means(golden):
    report, expected = golden
    for key, value in expected["global"].items():
        same(report.scores[key], value, key)


def test_every_object(golden):
    report, expected = golden
    assert {name.replace("/", "_") for name in report.objects} == expected["per_object"].keys()
    for name, row in report.objects.items():
        for key, value in expected["per_object"][name.replace("/", "_")].items():
            same(row[key], value, f"{name} {key}")


def test_recall_and_decay(golden):
    report, expected = golden
    for n, name in enumerate(expected["per_object"]):
        for key in LISTS:
            same(report.objects[name.replace("_", "/")][key], expected[key][n], f"{name} {key}")
