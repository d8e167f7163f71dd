from __future__ import annotations

import numpy as np
import pytest
from vos_folders import page, save, wander, write

from masklet.core.errors import InputError
from masklet.evaluate.vos.sav import collect_from_first_sight, evaluate_sav, evaluate_vos_benchmark, keep_all_frames

ONE = (1, 2, 10, 3, 8)
HALF = (1, 2, 6, 3, 8)


def objects(folder, video, **pages):
    for name, masks in pages.items():
        write(folder / video, name, masks, step=4)


def test_each_object_has_its_own_frames(tmp_path):
    objects(tmp_path / "gt", "v", a=[page(ONE)] * 5)
    write(tmp_path / "gt/v", "b", [page(ONE)] * 3, start=8, step=4)
    objects(tmp_path / "pred", "v", a=[page(HALF)] * 5, b=[page(ONE)] * 9)
    report = evaluate_sav(tmp_path / "gt", tmp_path / "pred")
    assert (report.objects["v/a"]["J"], report.objects["v/b"]["J"]) == (50, 100)
    assert report.scores["J"] == report.videos["v"]["J"] == 75
    assert report.scores["J&F"] == (report.scores["J"] + report.scores["F"]) / 2


def test_masks_may_be_0_and_255(tmp_path):
    objects(tmp_path / "gt", "v", a=[page(ONE)] * 4)
    objects(tmp_path / "pred", "v", a=[page((255, *ONE[1:]))] * 4)
    assert evaluate_sav(tmp_path / "gt", tmp_path / "pred").scores == {"J&F": 100, "J": 100, "F": 100}


def test_frames_before_the_first_sight_do_not_count(tmp_path):
    truth = [page(), page(), page(), page(ONE), page(), page()]
    objects(tmp_path / "gt", "v", a=truth)
    objects(tmp_path / "pred", "v", a=[page()] * 6)
    assert (
        evaluate_sav(tmp_path / "gt", tmp_path / "pred").scores["J"] == 50
    )  # 0, and 1 where both are empty afterwards
    save(tmp_path / "pred/v/a/00004.png", page(ONE))
    assert evaluate_sav(tmp_path / "gt", tmp_path / "pred").scores["J"] == 50  # 0 1 0 1: a wrong sight is one too


def test_the_ends_can_count(tmp_path):
    objects(tmp_path / "gt", "v", a=[page(ONE)] * 4)
    objects(tmp_path / "pred", "v", a=[page(), page(ONE), page(ONE), page(ONE)])
    assert evaluate_sav(tmp_path / "gt", tmp_path / "pred").scores["J"] == 100
    assert evaluate_sav(tmp_path / "gt", tmp_path / "pred", counted=keep_all_frames).scores["J"] == 75


def test_an_object_that_is_never_there_cannot_be_scored(tmp_path):
    objects(tmp_path / "gt", "v", a=[page(ONE), page(), page()])
    with pytest.raises(InputError, match=r"v/a: the object is in none of the 1 frames that count"):
        evaluate_sav(tmp_path / "gt", tmp_path / "gt")
    objects(tmp_path / "gt", "v", b=[page(ONE)] * 2)
    with pytest.raises(InputError, match=r"v/b: too few annotations"):
        evaluate_sav(tmp_path / "gt", tmp_path / "gt")


def test_predictions_of_other_objects_and_grey_ones_are_warned_of(tmp_path):
    objects(tmp_path / "gt", "v", a=[page(ONE)] * 4)
    objects(tmp_path / "pred", "v", a=[page(ONE, (2, 0, 1, 0, 1))] * 4, b=[page(ONE)] * 4)
    told = evaluate_sav(tmp_path / "gt", tmp_path / "pred").warnings
    assert told == (
        "v/b: predictions of what has no annotation are not counted",
        "v/a: masks with several values besides 0; each of them counts as inside",
    )


def test_missing_objects_are_named(tmp_path):
    objects(tmp_path / "gt", "v", a=[page(ONE)] * 4, b=[page(ONE)] * 4)
    objects(tmp_path / "pred", "v", a=[page(ONE)] * 4)
    with pytest.raises(InputError, match=r"pred/v/b is not here"):
        evaluate_sav(tmp_path / "gt", tmp_path / "pred")


def test_the_benchmark_counts_every_id_of_the_truth(tmp_path):
    write(tmp_path / "gt", "v", [page(ONE, (255, 12, 20, 3, 8))] * 4)
    write(tmp_path / "pred", "v", [page(ONE, (7, 12, 20, 3, 8))] * 4)
    report = evaluate_vos_benchmark(tmp_path / "gt", tmp_path / "pred")
    assert {name: row["J"] for name, row in report.objects.items()} == {"v/1": 100, "v/255": 0}
    assert report.warnings == ("v: ids that no annotation has are not counted",)


def test_a_video_without_an_object_adds_nothing(tmp_path):
    write(tmp_path, "u", [page()] * 4)
    assert evaluate_vos_benchmark(tmp_path, tmp_path).scores["J"] is None
    write(tmp_path, "v", [page(ONE)] * 4)
    report = evaluate_vos_benchmark(tmp_path, tmp_path)
    assert report.scores["J"] == 100 and "u: no object" in report.warnings[0]


def test_parts_of_a_set_pooled_are_the_set(tmp_path):
    for n, video in enumerate("abc"):
        write(tmp_path / "gt", video, wander(6, n))
        write(tmp_path / "pred", video, wander(6, n + 9))
    whole = evaluate_vos_benchmark(tmp_path / "gt", tmp_path / "pred")
    parts = [evaluate_vos_benchmark(tmp_path / "gt", tmp_path / "pred", videos=v) for v in (["a", "b"], ["c"])]
    assert parts[0].objects | parts[1].objects == whole.objects
    weights = [len(p.objects) for p in parts]
    assert np.average([p.scores["J&F"] for p in parts], weights=weights) == pytest.approx(whole.scores["J&F"])


def test_first_sight():
    assert collect_from_first_sight([{}, {1: (0.5, 0.5)}, {2: (0.0, 0.0)}]) == {1: [(0.5, 0.5), (1, 1)], 2: [(0, 0)]}
