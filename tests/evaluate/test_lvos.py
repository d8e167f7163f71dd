from __future__ import annotations

import json
import math

import numpy as np
import pytest
from vos_folders import page, wander, write

from masklet.core.errors import InputError
from masklet.evaluate.vos.lvos import evaluate_lvos

ONE = (1, 2, 10, 3, 8)
HALF = (1, 2, 6, 3, 8)
TWO = (2, 12, 20, 3, 8)


def span(start, end, count):
    return {"frame_range": {"start": str(start), "end": str(end), "frame_nums": str(count)}}


def meta(folder, **videos):
    folder.mkdir(exist_ok=True)
    listed = {name: {"objects": objects} for name, objects in videos.items()}
    (folder / "valid_meta.json").write_text(json.dumps({"videos": listed}))


def put(folder, video, pages):
    write(folder, video, pages, step=5, digits=8)


@pytest.fixture
def one_video(tmp_path):
    """Five frames; object 2 is asked for in the last four alone."""
    meta(tmp_path / "gt", v={"1": span(0, 21, 5), "2": span(5, 21, 4)})
    put(tmp_path / "gt/Annotations", "v", [page(ONE)] + [page(ONE, TWO)] * 4)
    put(tmp_path / "pred", "v", [page(HALF)] * 2 + [page(HALF, TWO), page(ONE, TWO), page()])
    return tmp_path / "gt", tmp_path / "pred"


def test_each_object_has_its_range(one_video):
    report = evaluate_lvos(*one_video, unseen=["v"])
    assert report.objects["v/1"]["J"] == pytest.approx((0.5 + 0.5 + 1) / 3)  # frames 5 10 15
    assert report.objects["v/2"] == {
        "J": 1, "F": 1, "V": 0, "J-Recall": 1, "J-Decay": 0, "F-Recall": 1, "F-Decay": 0,
    }  # fmt: skip


def test_v_is_rounded_before_the_root(tmp_path):
    meta(tmp_path, v={"1": span(0, 21, 5)})
    put(tmp_path / "Annotations", "v", [page(ONE)] * 5)
    put(tmp_path / "pred", "v", [page()] * 2 + [page(ONE)] * 3)
    assert evaluate_lvos(tmp_path, tmp_path / "pred", unseen=[]).objects["v/1"]["V"] == math.sqrt(
        0.2222
    )  # of 0 1 1: 2/9


def test_the_end_is_no_frame(tmp_path):
    meta(tmp_path, v={"1": span(0, 20, 4)})
    put(tmp_path / "Annotations", "v", [page(ONE)] * 5)
    put(tmp_path / "pred", "v", [page(ONE)] * 4 + [page()])
    assert evaluate_lvos(tmp_path, tmp_path / "pred", unseen=[]).objects["v/1"]["J"] == 1  # frames 5 and 10


def test_the_four_means_and_their_mean(tmp_path):
    meta(tmp_path / "gt", a={"1": span(0, 16, 4)}, b={"1": span(0, 16, 4)}, c={"1": span(0, 16, 4)})
    for video, found in (("a", ONE), ("b", HALF), ("c", HALF)):
        put(tmp_path / "gt/Annotations", video, [page(ONE)] * 4)
        put(tmp_path / "pred", video, [page(found)] * 4)
    report = evaluate_lvos(tmp_path / "gt", tmp_path / "pred", unseen=["b", "c", "of another set"])
    scores = report.scores
    assert (scores["J-seen"], scores["J-unseen"], scores["V-unseen"]) == (1, 0.5, 0)
    four = [scores[k] for k in ("J-seen", "J-unseen", "F-seen", "F-unseen")]
    assert scores["J&F-Mean"] == pytest.approx(np.mean(four))
    assert report.parts["unseen"] == {"J": scores["J-unseen"], "F": scores["F-unseen"], "V": scores["V-unseen"]}
    assert not report.warnings


def test_without_unseen_videos_the_mean_is_undefined(one_video):
    report = evaluate_lvos(*one_video, unseen=[])
    assert report.scores["J&F-Mean"] is None and report.scores["J-seen"] is not None
    assert report.warnings == ("unseen: no such video is evaluated, so J&F is undefined",)


def test_the_means_divide_by_what_the_file_says(one_video):
    before = evaluate_lvos(*one_video, unseen=["v"]).objects["v/1"]["J"]
    meta(one_video[0], v={"1": span(0, 21, 8), "2": span(5, 21, 4)})
    report = evaluate_lvos(*one_video, unseen=["v"])
    assert report.objects["v/1"]["J"] == pytest.approx(before * 3 / 6)
    assert "v/1: frame_nums is not the number of frames" in report.warnings[0]


def test_other_ids_are_warned_of(one_video):
    put(one_video[1], "v", [page(ONE, (9, 0, 1, 0, 1))] * 5)
    assert "v: ids that the meta file does not have are not counted" in evaluate_lvos(*one_video, unseen=["v"]).warnings


@pytest.mark.parametrize(
    "objects, words",
    [
        ({"1": span(0, 41, 9)}, r"frame_range: 9 frames from 0 to before 41 are not to be had"),
        ({"1": span(0, 6, 2)}, r"frame_range: 2 frames from 0"),
        ({"1": span("x", 6, 2)}, r"'start' must be a whole number"),
        ({"one": span(0, 21, 5)}, r"'one' is no id"),
        ({"1": {}}, r"videos: v: objects: 1: 'frame_range' is missing"),
    ],
)
def test_a_wrong_meta_file_is_named(one_video, objects, words):
    meta(one_video[0], v=objects)
    with pytest.raises(InputError, match=f"valid_meta.json.*{words}"):
        evaluate_lvos(*one_video, unseen=["v"])


def test_missing_files_are_named(one_video, tmp_path):
    (one_video[1] / "v/00000010.png").unlink()
    with pytest.raises(InputError, match=r"pred/v: no 00000010.png"):
        evaluate_lvos(*one_video, unseen=["v"])
    (one_video[0] / "valid_expression_meta.json").write_text("{}")  # beside it in LVOS v1
    (one_video[0] / "valid_meta.json").unlink()
    with pytest.raises(InputError, match=r"gt: 0 files \*meta.json"):
        evaluate_lvos(*one_video, unseen=["v"])


def test_of_several_meta_files_that_of_the_split_counts(one_video):
    folder = one_video[0]
    want = evaluate_lvos(*one_video, unseen=["v"]).scores
    for other in ("train_meta.json", "valid_expression_meta.json"):  # both are in the archives of some mirrors
        (folder / other).write_text("{}")
    assert evaluate_lvos(*one_video, unseen=["v"]).scores == want
    (folder / "valid_meta.json").rename(folder / "meta.json")
    with pytest.raises(InputError, match=r"gt: 2 files \*meta.json"):
        evaluate_lvos(*one_video, unseen=["v"])


def test_parts_of_a_set_pooled_are_the_set(tmp_path):
    meta(tmp_path / "gt", **{v: {"1": span(0, 26, 6), "2": span(5, 26, 5)} for v in "abc"})
    for n, video in enumerate("abc"):
        put(tmp_path / "gt/Annotations", video, wander(6, n))
        put(tmp_path / "pred", video, wander(6, n + 9))
    whole, *parts = (
        evaluate_lvos(tmp_path / "gt", tmp_path / "pred", unseen="a", videos=v) for v in (None, ["a"], ["b", "c"])
    )
    assert parts[0].objects | parts[1].objects == whole.objects
    assert parts[0].scores["F-unseen"] == whole.scores["F-unseen"]
    assert parts[1].scores["V-seen"] == whole.scores["V-seen"]


def test_two_annotations_of_one_number_are_refused(one_video):
    folder = one_video[0] / "Annotations/v"
    (folder / "5.png").write_bytes((folder / "00000005.png").read_bytes())
    with pytest.raises(InputError, match="two annotations have one number"):
        evaluate_lvos(*one_video, unseen=["v"])
