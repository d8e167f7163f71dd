"""J and F of SA-V and of vos-benchmark against sav_benchmark.py: every object, the means, with and without the ends."""

from __future__ import annotations

import pytest
from vos_sets import same, sets, unpacked

from masklet.evaluate.vos.measures import drop_first_and_last
from masklet.evaluate.vos.sav import evaluate_sav, evaluate_vos_benchmark, keep_all_frames

RUNS = {
    "sav": (evaluate_sav, "gt", "pred", drop_first_and_last),
    "sav_no_skip": (evaluate_sav, "gt", "pred", keep_all_frames),
    "multi": (evaluate_vos_benchmark, "multi_gt", "multi_pred", drop_first_and_last),
    "multi_no_skip": (evaluate_vos_benchmark, "multi_gt", "multi_pred", keep_all_frames),
}


@pytest.fixture(scope="module", params=sets("sav"), ids=lambda p: p.name if p else "none")
def golden(request, tmp_path_factory):
    return unpacked(request.param, tmp_path_factory)


@pytest.mark.parametrize("run", RUNS)
def test_every_object_and_the_means(golden, run):
    data, expected = golden
    evaluate, truth, found, counted = RUNS[run]
    report, wanted = evaluate(data / truth, data / found, counted=counted), expected[run]
    for key in ("J&F", "J", "F"):
        same(report.scores[key], wanted[key], key)
    objects = {f"{video}/{i}": row for video, rows in wanted["per_object"].items() for i, row in rows.items()}
    assert report.objects.keys() == objects.keys()
    for name, (j, f) in objects.items():
        same(report.objects[name]["J"], j, f"{name} J")
        same(report.objects[name]["F"], f, f"{name} F")
