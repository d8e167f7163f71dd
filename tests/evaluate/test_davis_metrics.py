from __future__ import annotations

import numpy as np
import pytest
from reference import vos as plain
from vos_folders import page, save, wander, write

from masklet.core.errors import InputError
from masklet.evaluate.vos.davis import (
    compute_eight_bit_quarters,
    evaluate_davis16,
    evaluate_davis_semi,
    evaluate_davis_unsupervised,
)
from masklet.evaluate.vos.measures import compute_quarters
from masklet.evaluate.vos.mose import evaluate_mose_v1
from masklet.evaluate.vos.sav import evaluate_vos_benchmark

METRICS = [evaluate_davis_semi, evaluate_davis_unsupervised, evaluate_mose_v1]
VIDEOS = {"a": wander(7, 0), "b": wander(5, 1, objects=3), "c": wander(6, 2)}


@pytest.fixture
def sets(tmp_path):
    """Truth and predictions of three videos."""
    for n, (video, pages) in enumerate(VIDEOS.items()):
        write(tmp_path / "gt", video, pages)
        found = [np.where(p > 0, p, q * (q <= p.max())) for p, q in zip(pages, wander(len(pages), 9 + n), strict=True)]
        write(tmp_path / "pred", video, found)
    return tmp_path / "gt", tmp_path / "pred"


@pytest.mark.parametrize("evaluate", METRICS)
def test_perfect_is_one(sets, evaluate):
    report = evaluate(sets[0], sets[0])
    assert {k: v for k, v in report.scores.items() if "Decay" not in k} == dict.fromkeys(
        ("J&F-Mean", "J-Mean", "J-Recall", "F-Mean", "F-Recall"), 1.0
    )
    assert report.objects.keys() == {"a/1", "a/2", "b/1", "b/2", "b/3", "c/1", "c/2"}


@pytest.mark.parametrize("evaluate", METRICS)
def test_nothing_is_zero_where_objects_are_always_there(tmp_path, evaluate):
    write(tmp_path / "gt", "a", [page((1, 2, 9, 3, 8), (2, 12, 20, 3, 8))] * 4)
    write(tmp_path / "pred", "a", [page()] * 4)
    assert set(evaluate(tmp_path / "gt", tmp_path / "pred").scores.values()) == {0.0}


def test_it_is_the_plain_twin(sets):
    report = evaluate_davis_semi(*sets)
    for video in VIDEOS:
        j, f = plain.semi_supervised(*(sorted((side / video).iterdir()) for side in sets))
        for i in range(len(j)):
            row = report.objects[f"{video}/{i + 1}"]
            assert row["J-Mean"] == pytest.approx(j[i].mean(), abs=1e-12)
            assert row["F-Mean"] == pytest.approx(f[i].mean(), abs=1e-12)
            assert row["J-Recall"] == (j[i] > 0.5).mean()


@pytest.mark.parametrize("evaluate", METRICS)
def test_parts_of_a_set_pooled_are_the_set(sets, evaluate):
    whole, parts = evaluate(*sets), [evaluate(*sets, videos=v) for v in (["a"], ["c", "b"])]
    assert parts[0].objects | parts[1].objects == whole.objects
    assert parts[0].videos | parts[1].videos == whole.videos
    weights = [len(p.objects) for p in parts]
    for key, value in whole.scores.items():
        assert np.average([p.scores[key] for p in parts], weights=weights) == pytest.approx(value, abs=1e-12)
    rows = [row for name, row in whole.objects.items() if name.startswith("b/")]
    assert whole.videos["b"]["J-Mean"] == pytest.approx(np.mean([row["J-Mean"] for row in rows]))


def test_ends_do_not_count_and_need_not_be_there(sets):
    truth, found = sets
    before = evaluate_davis_semi(truth, found)
    save(found / "a/00000.png", page((1, 0, 1, 0, 1)))
    (found / "a/00006.png").unlink()
    assert evaluate_davis_semi(truth, found).scores == before.scores
    with pytest.raises(InputError, match=r"pred/a: no 00006.png, of 7 frames"):
        evaluate_davis_unsupervised(truth, found)


def test_davis_own_layout_and_list(sets, tmp_path):
    truth, found = sets
    root = tmp_path / "davis"
    for video in VIDEOS:
        write(root / "Annotations/480p", video, VIDEOS[video])
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("a\nc\n")
    assert evaluate_davis_semi(root, found).objects == evaluate_davis_semi(truth, found, videos=["a", "c"]).objects
    assert evaluate_davis_unsupervised(root, found).videos.keys() == {"a", "c"}
    assert evaluate_davis_semi(root, found, videos=["b"]).videos.keys() == {"b"}
    assert evaluate_davis_semi(root, found).warnings[0] == "b: predictions of what has no annotation are not counted"
    assert evaluate_davis_semi(root, found).inputs == (root / "Annotations/480p", found)


def test_progress_is_told(sets):
    told = []
    evaluate_davis_semi(*sets, watch=lambda *words: told.append(words))
    assert told == [("davis-semi", 5, 12, 2), ("davis-semi", 8, 12, 3), ("davis-semi", 12, 12, 2)]


def test_what_is_accepted_is_warned_of(tmp_path):
    one = (1, 2, 9, 3, 8)
    write(tmp_path / "gt", "late", [page(one), page(one, (2, 12, 20, 3, 8)), page(one)])
    write(tmp_path / "gt", "gap", [page(one, (3, 12, 20, 3, 8))] * 3)
    write(tmp_path / "gt", "void", [page(one, (255, 12, 20, 3, 8))] * 3)
    write(tmp_path / "gt", "none", [page()] * 3)
    for video in ("late", "gap", "void", "none"):
        write(tmp_path / "pred", video, [page(one) if video != "none" else page()] * 3)
    report = evaluate_davis_semi(tmp_path / "gt", tmp_path / "pred")
    assert {w.partition(":")[0]: w for w in report.warnings}.keys() == {"late", "gap", "void", "none"}
    assert report.objects.keys() == {"late/1", "gap/1", "gap/2", "gap/3", "void/1"}
    assert report.objects["gap/2"]["J-Mean"] == 1  # an object that is never there, and was never found


def test_a_set_without_an_object_has_no_score(tmp_path):
    write(tmp_path, "a", [page()] * 3)
    assert set(evaluate_davis_semi(tmp_path, tmp_path).scores.values()) == {None}
    assert set(evaluate_davis_unsupervised(tmp_path, tmp_path).scores.values()) == {None}


def test_rows_of_proposals_say_whose_they_are(tmp_path):
    one, two = (1, 2, 9, 3, 8), (2, 12, 20, 3, 8)
    write(tmp_path / "gt", "a", [page(one, two)] * 3)
    write(tmp_path / "pred", "a", [page((5, *one[1:]), (3, *two[1:]))] * 3)
    report = evaluate_davis_unsupervised(tmp_path / "gt", tmp_path / "pred")
    assert report.scores["J&F-Mean"] == 1
    assert [(row["object"], row["proposal"]) for row in report.objects.values()] == [(2, 3), (1, 5)]
    assert "object" not in report.videos["a"]


def test_ids_beyond_the_objects_end_it(sets):
    truth, found = sets
    save(found / "b/00002.png", page((4, 0, 3, 0, 3)))
    with pytest.raises(InputError, match=r"b/00002.png: id 4, but the first annotation of b has 3 objects"):
        evaluate_davis_semi(truth, found)
    assert evaluate_davis_unsupervised(truth, found).scores["J-Mean"] > 0
    save(found / "b/00002.png", page((255, 0, 3, 0, 3)))  # void is for annotations alone
    with pytest.raises(InputError, match=r"b/00002.png: id 255"):
        evaluate_davis_semi(truth, found)
    save(found / "b/00002.png", page((21, 0, 3, 0, 3)))
    with pytest.raises(InputError, match=r"b/00002.png: id 21, but the most that may be proposed is 20"):
        evaluate_davis_unsupervised(truth, found)


@pytest.mark.parametrize("evaluate", [*METRICS, evaluate_davis16])
def test_bad_input_is_named(sets, evaluate, tmp_path):
    truth, found = sets
    with pytest.raises(InputError, match=r"nowhere is not here"):
        evaluate(tmp_path / "nowhere", found)
    with pytest.raises(InputError, match=r"gt: no folder x, of 2 videos"):
        evaluate(truth, found, videos=["a", "x"])
    with pytest.raises(InputError, match=r"no video to evaluate"):
        evaluate(truth / "a", found)
    with pytest.raises(InputError, match=r"no video to evaluate"):
        evaluate(truth, found, videos=[])
    (found / "c/00003.png").unlink()
    with pytest.raises(InputError, match=r"pred/c: no 00003.png"):
        evaluate(truth, found)
    (found / "c").rename(found / "d")
    with pytest.raises(InputError, match=r"pred: no folder c, of 3 videos"):
        evaluate(truth, found)
    save(found / "a/00003.png", page(size=(24, 31)))
    with pytest.raises(InputError, match=r"a/00003.png: 31x24 pixels, the video has 32x24"):
        evaluate(truth, found, videos=["a"])
    (found / "a/00003.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a/00003.png: not an image that can be read"):
        evaluate(truth, found, videos=["a"])


@pytest.mark.parametrize("evaluate", [evaluate_davis_semi, evaluate_davis16])
def test_too_few_annotations(tmp_path, evaluate):
    write(tmp_path, "a", [page((1, 0, 2, 0, 2))] * 2)
    with pytest.raises(InputError, match="a: too few annotations"):
        evaluate(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "evaluate, most", [(evaluate_davis_unsupervised, 255), (evaluate_davis_semi, 257), (evaluate_davis16, 257)]
)
def test_long_videos_are_warned_of(tmp_path, evaluate, most):
    for length, undefined in ((most, False), (most + 1, True)):
        write(tmp_path / str(length), "a", [page((1, 0, 2, 0, 2), size=(2, 3))] * length)
        report = evaluate(tmp_path / str(length), tmp_path / str(length))
        assert (report.scores["J-Decay"] is None) == undefined == any("eight bits" in w for w in report.warnings)


def test_quarters_in_eight_bits():
    for frames in (1, 2, 3, 5, 100, 255):
        assert compute_eight_bit_quarters(frames) == compute_quarters(frames)
    assert compute_eight_bit_quarters(256) == (
        slice(0, 65),
        slice(191, 0),
    )  # one frame too many: nothing is in the last
    assert compute_eight_bit_quarters(298) == (slice(0, 75), slice(223, 42))
    assert compute_eight_bit_quarters(1100)[0] == slice(0, 20)


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_davis16_in_any_mode(tmp_path, mode):
    box = (255, 2, 10, 3, 8)
    write(tmp_path / "gt", "a", [page(box)] * 4, mode=mode)
    write(tmp_path / "pred", "a", [page((1, 2, 6, 3, 8))] * 4)
    report = evaluate_davis16(tmp_path / "gt", tmp_path / "pred")
    assert report.scores["J-Mean"] == 0.5 and report.objects.keys() == {"a/1"} and not report.warnings
    assert evaluate_davis16(tmp_path / "gt", tmp_path / "gt").scores["J&F-Mean"] == 1


def test_davis16_warns_of_soft_masks(tmp_path):
    write(tmp_path / "gt", "a", [page((255, 2, 10, 3, 8))] * 3, mode="L")
    write(tmp_path / "pred", "a", [page((255, 2, 6, 3, 8), (9, 6, 10, 3, 8))] * 3, mode="L")
    report = evaluate_davis16(tmp_path / "gt", tmp_path / "pred")
    assert report.scores["J-Mean"] == 1 and "several values" in report.warnings[0]


def test_images_that_are_called_differently_are_warned_of(tmp_path):
    """From 1 where the frames count from 0: the program pairs by name, so every mask is a frame late."""
    pages = wander(6, 1)
    write(tmp_path / "gt", "v", pages)
    write(tmp_path / "late", "v", pages, start=1)
    write(tmp_path / "more", "v", [*pages, pages[0]])
    write(tmp_path / "sparse", "v", pages[::2], step=2)
    for found, words in (("late", "v: not all images are called as"), ("more", "v: predicted images that are of no")):
        [warning] = evaluate_davis_semi(tmp_path / "gt", tmp_path / found).warnings
        assert warning.startswith(words)
    for truth, found in (("gt", "gt"), ("sparse", "more")):
        assert not evaluate_vos_benchmark(tmp_path / truth, tmp_path / found).warnings


def test_names_that_do_not_sort_as_they_count_are_warned_of(tmp_path):
    write(tmp_path, "v", wander(12, 1), digits=1)
    [warning] = evaluate_davis_semi(tmp_path, tmp_path).warnings
    assert "in the order of their names as text" in warning
