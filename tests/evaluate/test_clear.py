"""CLEAR and IDF1 against numbers recorded from TrackEval 1.3.0, and the metric `tracking` over files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.prediction_form import convert_predictions
from masklet.evaluate.tracking.clear_measures import ClearCounts, count_clear
from masklet.evaluate.tracking.measures import TrackFrame
from masklet.evaluate.tracking.metrics import evaluate_tracking
from masklet.evaluate.vos.davis import evaluate_davis_semi
from masklet.io.formats.burst import write_burst
from masklet.io.formats.cocovid import write_cocovid
from masklet.io.formats.davis import write_davis, write_davis16
from masklet.io.formats.mots import write_mots
from masklet.io.formats.ytvis import write_ytvis_truth

RECORDED = {  # TP, FP, FN, switches, fragments, sum of similarity, MT, PT, ML, IDTP, IDFP, IDFN: of `frames_of(seed)`
    0: (16, 8, 14, 6, 5, 12.548636103, 1, 3, 1, 9, 15, 21),
    1: (15, 19, 10, 8, 8, 10.519629736, 0, 3, 0, 8, 26, 17),
    2: (4, 2, 6, 0, 0, 3.012148418, 1, 3, 1, 2, 4, 8),
    3: (2, 0, 18, 0, 0, 1.392229362, 0, 1, 4, 2, 0, 18),
    4: (18, 26, 12, 10, 8, 14.870989985, 0, 4, 0, 9, 35, 21),
    5: (8, 0, 1, 3, 0, 6.661810455, 3, 1, 0, 5, 3, 4),
    6: (10, 14, 11, 6, 2, 8.312840582, 0, 3, 0, 6, 18, 15),
    7: (18, 15, 19, 9, 9, 13.057465941, 0, 5, 0, 11, 22, 26),
    8: (4, 5, 13, 1, 1, 3.415818868, 0, 3, 1, 3, 6, 14),
    9: (15, 43, 10, 8, 6, 11.674325873, 0, 3, 0, 7, 51, 18),
    10: (10, 17, 8, 5, 3, 8.395475448, 0, 3, 1, 6, 21, 12),
    11: (2, 8, 7, 0, 1, 1.336205310, 0, 1, 0, 2, 8, 7),
}
RATES = {0: (0.066667, -0.048379, 0.333333), 5: (0.555556, 0.406868, 0.588235)}  # MOTA, sMOTA, IDF1


def frames_of(seed: int) -> list[TrackFrame]:
    r = np.random.default_rng(seed)
    true, predicted, frames = r.integers(1, 6), r.integers(1, 7), r.integers(3, 15)
    made = []
    for _ in range(frames):
        g, p = np.flatnonzero(r.random(true) < 0.7), np.flatnonzero(r.random(predicted) < 0.7)
        s = r.random((len(g), len(p)))
        made.append(TrackFrame(g, p, np.where(r.random(s.shape) < 0.5, s, 0)))
    return made


def counted(frames: list[TrackFrame]) -> tuple[float, ...]:
    c, _ = count_clear(frames)
    return (c.tp, c.fp, c.fn, c.switches, c.fragments, c.similarity, c.mostly_tracked, c.partly_tracked, c.mostly_lost,
            c.id_tp, c.id_fp, c.id_fn)  # fmt: skip


@pytest.mark.parametrize("seed", RECORDED)
def test_counts_are_those_of_the_program(seed: int) -> None:
    assert counted(frames_of(seed)) == pytest.approx(RECORDED[seed], abs=1e-8)


@pytest.mark.parametrize("seed", RATES)
def test_rates_are_those_of_the_program(seed: int) -> None:
    scores = count_clear(frames_of(seed))[0].scores
    assert [scores[n] for n in ("MOTA", "sMOTA", "IDF1")] == pytest.approx(RATES[seed], abs=1e-6)


def test_a_switch_is_told_with_its_frame_and_both_tracks() -> None:
    one = np.array([0])
    seen = [TrackFrame(one, np.array([p]), np.array([[0.9]])) for p in (3, 3, 5, 5, 3)]
    counts, switches = count_clear(seen)
    assert [(s.frame, s.before, s.after) for s in switches] == [(2, 3, 5), (4, 5, 3)]
    assert counts.scores["IDF1"] == pytest.approx(3 / 5) and counts.fragments == 0


def test_who_had_it_in_the_frame_before_keeps_it_though_another_is_more_alike() -> None:
    one, both = np.array([0]), np.array([0, 1])
    seen = [TrackFrame(one, np.array([0]), np.array([[0.6]])), TrackFrame(one, both, np.array([[0.6, 0.9]]))]
    counts, switches = count_clear(seen)
    assert not switches and counts.similarity == pytest.approx(1.2) and counts.fp == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_what_predicted_tracks_are_numbered_does_not_matter(seed: int, random: object) -> None:
    frames = frames_of(seed)
    numbers = np.random.default_rng(seed + 1).permutation(7)
    assert counted([replace(f, found=numbers[f.found]) for f in frames]) == pytest.approx(counted(frames))


def test_counts_of_videos_add_up() -> None:
    parts = [count_clear(frames_of(seed))[0] for seed in range(3)]
    total = sum(parts, start=ClearCounts.none())
    assert total.tp == sum(p.tp for p in parts) and total.scores["switches"] == sum(p.switches for p in parts)


def video(ids: tuple[int, ...] = (1, 2), swap: int | None = None, name: str = "clip") -> VideoResult:
    """Two squares in six frames; from frame `swap` on each has the other's id."""
    seen: dict[int, dict[int, Sighting]] = {id: {} for id in ids}
    for t in range(6):
        for n, _ in enumerate(ids):
            pixels = np.zeros((24, 40), bool)
            pixels[4:14, 2 + 20 * n + t : 12 + 20 * n + t] = True
            id = ids[1 - n] if swap is not None and t >= swap else ids[n]
            seen[id][t] = Sighting(Rle.encode_pixels(pixels), Source.PROMPTED)
    masklets = tuple(Masklet(id, s, label=0, score=1.0) for id, s in seen.items())
    return VideoResult(name, (24, 40), 6, 25.0, masklets, ("car",), Provenance("track"))


def test_a_swap_of_two_objects_is_two_switches_with_their_frames(tmp_path: Path) -> None:
    (tmp_path / "out" / "clip").mkdir(parents=True)
    video((7, 9), swap=4).save(tmp_path / "out" / "clip" / "masklets.json")
    write_ytvis_truth([video()], tmp_path / "gt.json")
    report = evaluate_tracking(tmp_path / "gt.json", tmp_path / "out")
    assert report.scores["switches"] == 2 and report.scores["MOTA"] == pytest.approx(10 / 12)
    assert report.scores["IDF1"] == pytest.approx(8 / 12)
    assert report.events["clip, frame 4, object 1"] == {"frame": 4, "object": 1, "before": 7, "after": 9}
    curve = report.curves["HOTA"]
    assert np.mean(curve.y) == pytest.approx(report.scores["HOTA"]) and curve.across == "alpha"


def test_all_forms_of_one_result_score_alike(tmp_path: Path) -> None:
    truth = video(name="set/clip")
    car = {1: "car"}
    write_burst([truth], tmp_path / "burst.json")
    write_cocovid([truth], tmp_path / "coco.json")
    alone = replace(truth, name="clip")
    alone.save(tmp_path / "gt.json")
    (tmp_path / "davis").mkdir()
    write_davis(replace(alone, name="clip"), tmp_path / "davis" / "clip")
    (tmp_path / "mots").mkdir()
    write_mots(alone, tmp_path / "mots" / "clip.txt", car)
    for form, of in (
        ("burst.json", "burst.json"),
        ("coco.json", "burst.json"),
        ("davis", "gt.json"),
        ("mots", "gt.json"),
    ):
        scores = evaluate_tracking(tmp_path / of, tmp_path / form).scores
        assert scores["HOTA"] == pytest.approx(1) and scores["MOTA"] == scores["IDF1"] == 1, form


def test_what_is_missing_or_too_much_is_warned_of_and_counts(tmp_path: Path) -> None:
    write_cocovid([video(name="a"), video(name="b")], tmp_path / "gt.json")
    write_cocovid([video(name="a"), video(name="c")], tmp_path / "pred.json")
    report = evaluate_tracking(tmp_path / "gt.json", tmp_path / "pred.json")
    assert report.scores["FN"] == 12 and report.videos["b"]["MOTA"] == 0
    assert any("no prediction for b" in w for w in report.warnings) and any(" c, which" in w for w in report.warnings)
    assert evaluate_tracking(tmp_path / "gt.json", tmp_path / "pred.json", videos=["a"]).scores["MOTA"] == 1
    told = json.loads((tmp_path / "pred.json").read_text())
    some = [one for one in told["annotations"] if one["video_id"] == told["videos"][0]["id"]]
    (tmp_path / "b.json").write_text(json.dumps({**told, "annotations": some}))  # it lists a video, and finds nothing
    told = evaluate_tracking(tmp_path / "pred.json", tmp_path / "b.json").warnings
    assert any("no prediction for c" in w for w in told)


@pytest.mark.parametrize(
    ("gt", "words"),
    [
        ({"x": 1}, "none of the forms"),
        ({"annotations": 3}, "none of the forms"),
        (None, "there is no such|cannot be read|no "),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, gt: object, words: str) -> None:
    if gt is not None:
        (tmp_path / "gt.json").write_text(json.dumps(gt))
    with pytest.raises(InputError, match=words):
        evaluate_tracking(tmp_path / "gt.json", tmp_path / "gt.json")


def test_another_size_or_an_unknown_video_is_refused(tmp_path: Path) -> None:
    write_cocovid([video()], tmp_path / "gt.json")
    write_cocovid([replace(video(), size=(48, 40), masklets=())], tmp_path / "pred.json")
    with pytest.raises(InputError, match="not the same video"):
        evaluate_tracking(tmp_path / "gt.json", tmp_path / "pred.json")
    with pytest.raises(InputError, match="no video 'x'"):
        evaluate_tracking(tmp_path / "gt.json", tmp_path / "gt.json", videos=["x"])


def test_what_is_wrong_with_a_result_is_told_of_it_and_not_of_what_was_made_of_it(tmp_path: Path) -> None:
    (tmp_path / "out" / "clip").mkdir(parents=True)
    video((7, 9)).save(tmp_path / "out" / "clip" / "masklets.json")
    (tmp_path / "gt").mkdir()
    write_davis(video(), tmp_path / "gt" / "clip")
    pred = tmp_path / "out"
    told = pytest.raises(InputError, match="id 9, but the first annotation of clip has 2 objects")
    with told as error, convert_predictions("davis", tmp_path / "gt", pred) as made:
        evaluate_davis_semi(tmp_path / "gt", made)
    assert str(error.value).startswith(f"{pred} in the form of davis/") and "masklet-eval" not in str(error.value)


def test_white_on_black_is_an_object_and_beside_ids_void(tmp_path: Path) -> None:
    """DAVIS 2016's annotations; and where they are given for ids, it is said which metric scores them."""
    for place in ("gt", "pred"):
        (tmp_path / place).mkdir()
        write_davis16(video(), tmp_path / place / "clip")
    assert evaluate_tracking(tmp_path / "gt", tmp_path / "pred").scores["HOTA"] == 1
    with pytest.raises(InputError, match="what is white on black is scored by davis16"):
        evaluate_davis_semi(tmp_path / "gt", tmp_path / "pred")
