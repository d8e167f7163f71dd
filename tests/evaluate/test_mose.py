from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import vos as plain
from vos_folders import page, wander, write

from masklet.core.errors import InputError
from masklet.evaluate.vos.contours import build_disk
from masklet.evaluate.vos.davis import evaluate_davis_semi
from masklet.evaluate.vos.label_maps import LabelFrame
from masklet.evaluate.vos.mose import (
    MoseFrameScore,
    build_mose_disks,
    evaluate_mose_v1,
    evaluate_mose_v2,
    find_visibility_runs,
    score_mose_object,
)

ONE = (1, 2, 10, 3, 8)
LARGE = (80, 100)  # below a diagonal of 70 pixels, the tolerance is less than a pixel and off its centre
maps = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.tuples(*[arrays(np.uint8, size, elements=st.sampled_from([0, 0, 1]))] * 2)
)


def meta(folder, **videos):
    folder.mkdir(exist_ok=True)
    listed = {name: {"objects": objects, "length": 3, "height": None} for name, objects in videos.items()}
    (folder / "meta.json").write_text(json.dumps({"videos": listed}))


def test_tolerance_follows_the_object_up_to_a_cap():
    assert build_mose_disks(100, (480, 854)) == (build_disk(1.0), build_disk(8.0))
    assert build_mose_disks(101, (480, 854)) == (build_disk(2.0), build_disk(8.0))
    cap = 0.008 * np.sqrt(480**2 + 854**2)
    assert build_mose_disks(4901, (480, 854)) == (build_disk(cap), build_disk(cap))  # a radius of 8 would be above 7.84
    assert build_mose_disks(0, (480, 854)) == (build_disk(cap), build_disk(cap))


@given(maps)
def test_a_frame_is_the_definition(pair):
    found, truth = (p == 1 for p in pair)
    score = score_mose_object(LabelFrame(pair[0]), LabelFrame(pair[1]), 1)
    union = (found | truth).sum()
    assert score.j == ((found & truth).sum() + 1) / (union + 1)
    assert score.visible == truth.any()
    cap = 0.008 * np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)  # below a pixel in all of these
    wanted = plain.boundary_f_of(found, truth, cap) if cap > 0.56 else None
    assert wanted is None or score.f == score.f_new == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("shift", [0, 1, 2, 9, 60])
def test_large_frames_are_the_definition(shift):
    truth, found = page((1, 20, 40, 30, 60), size=(90, 160)), page((1, 20, 40, 30 + shift, 60 + shift), size=(90, 160))
    score = score_mose_object(LabelFrame(found), LabelFrame(truth), 1)
    radius = 0.008 * np.sqrt(90**2 + 160**2)  # 1.47: the cap
    assert score.f == score.f_new == pytest.approx(plain.boundary_f_of(found == 1, truth == 1, radius), abs=1e-12)
    small = score_mose_object(LabelFrame(np.where(found, 1, 0).astype(np.uint8)[:45]), LabelFrame(truth[:45]), 1)
    assert 0 <= small.f_new <= small.f <= 1 or small.f == small.f_new


def test_the_wider_tolerance_reaches_farther():
    size = (480, 854)
    score = score_mose_object(*(LabelFrame(page((1, 50, 52, x, x + 2), size=size)) for x in (50, 57)), 1)
    assert (score.f_new, score.f > 0) == (0, True)  # five pixels apart: more than 1, less than 8


def frame(visible, j=1.0, f=1.0):
    return MoseFrameScore(j, f, 0.0, bool(visible))


def test_runs_begin_after_the_first_frame():
    shown = [frame(v, j=t) for t, v in enumerate([0, 0, 1, 1, 0, 1])]
    assert [[f.j for f in run] for run in find_visibility_runs(shown, visible=True)] == [[2, 3], [5]]
    assert [[f.j for f in run] for run in find_visibility_runs(shown, visible=False)] == [[4]]
    assert find_visibility_runs([frame(False)] * 3, visible=False) == []


def test_disappearance_and_reappearance(tmp_path):
    meta(tmp_path / "gt", v=["1"])
    shown = [1, 1, 1, 0, 0, 1, 1, 1, 1]
    one, none, dot = (page(*boxes, size=LARGE) for boxes in ([ONE], [], [(1, 0, 1, 0, 1)]))
    write(tmp_path / "gt/Annotations", "v", [one if s else none for s in shown])
    write(tmp_path / "pred", "v", [one if t != 4 and t != 6 else dot for t in range(9)])
    row = evaluate_mose_v2(tmp_path / "gt", tmp_path / "pred").objects["v/1"]
    assert row["disappear_J"] == pytest.approx((1 / 41 + 1 / 2) / 2)  # 40 pixels, then one
    assert row["disappear_F_new"] == 0
    assert row["reappear_J"] == pytest.approx((1 + 1 / 42 + 1) / 3)
    assert row["reappear_F_new"] == pytest.approx(2 / 3)


def test_objects_that_stay_are_left_out_of_both_means(tmp_path):
    meta(tmp_path / "gt", v=["1", "2"], w=["1"])
    write(tmp_path / "gt/Annotations", "v", [page(ONE, (2, 12, 20, 3, 8)), *[page(ONE)] * 3])
    write(tmp_path / "gt/Annotations", "w", [page(ONE), page(ONE), page(), page(ONE)])
    for video in "vw":
        write(tmp_path / "pred", video, [page(ONE)] * 4)
    report = evaluate_mose_v2(tmp_path / "gt", tmp_path / "pred")
    assert report.scores["reappear_J&F_new"] is None
    assert report.scores["disappear_J&F_new"] == pytest.approx(1 / 41 / 2)
    assert report.objects["v/1"]["disappear_J"] is None
    assert report.scores["J&F"] == (report.scores["J"] + report.scores["F"]) / 2


def test_perfect_is_one(tmp_path):
    meta(tmp_path, a=["1", "2"], b=["1", "2"])
    for n, video in enumerate("ab"):
        write(tmp_path / "Annotations", video, wander(12, n, size=LARGE))
    assert set(evaluate_mose_v2(tmp_path, tmp_path / "Annotations").scores.values()) == {1.0}


def test_parts_of_a_set_pooled_are_the_set(tmp_path):
    meta(tmp_path, a=["1", "2"], b=["1"], c=["2"])
    for n, video in enumerate("abc"):
        write(tmp_path / "Annotations", video, wander(12, n, size=LARGE))
        write(tmp_path / "pred", video, wander(12, n + 9, size=LARGE))
    whole, *parts = (evaluate_mose_v2(tmp_path, tmp_path / "pred", videos=v) for v in (None, ["a"], ["b", "c"]))
    assert parts[0].objects | parts[1].objects == whole.objects
    assert whole.scores["J"] == pytest.approx(np.mean([p.scores["J"] for p in parts]))
    assert any("meta.json does not have" in w for w in whole.warnings)


def test_version_1_is_davis(tmp_path):
    for side, seed in (("gt/Annotations", 0), ("pred", 5)):
        write(tmp_path / side, "v", wander(6, seed))
    one, davis = (m(tmp_path / "gt", tmp_path / "pred") for m in (evaluate_mose_v1, evaluate_davis_semi))
    assert one.objects == davis.objects and one.metric == "mose-v1"


def test_bad_input_is_named(tmp_path):
    meta(tmp_path, v=["1"], w=["one"])
    for side in ("Annotations", "pred"):
        write(tmp_path / side, "v", [page(ONE)] * 2)
        write(tmp_path / side, "w", [page(ONE)] * 4)
    with pytest.raises(InputError, match=r"Annotations/v: too few annotations"):
        evaluate_mose_v2(tmp_path, tmp_path / "pred", videos=["v"])
    with pytest.raises(InputError, match=r"meta.json: videos: w: 'one' is no id of an object"):
        evaluate_mose_v2(tmp_path, tmp_path / "pred", videos=["w"])
    with pytest.raises(InputError, match=r"'x' is missing"):
        (tmp_path / "Annotations/x").mkdir()
        (tmp_path / "pred/x").mkdir()
        evaluate_mose_v2(tmp_path, tmp_path / "pred", videos=["x"])
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(InputError, match=r"meta.json: not JSON"):
        evaluate_mose_v2(tmp_path, tmp_path / "pred")
