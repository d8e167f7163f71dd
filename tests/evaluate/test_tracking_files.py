from __future__ import annotations

import json

import pytest
import torch

from masklet.core.errors import InputError
from masklet.core.rle import Rle
from masklet.evaluate.tracking.burst import evaluate_burst, evaluate_burst_masks

SIZE = (20, 30)
AIRPLANE, SALAD, CAP, HAT, PLASTIC = 4, 918, 207, 554, 912  # common, uncommon, part of hat, a distractor
FRAMES = [f"frame{n:04d}.jpg" for n in range(4)]


def rle(y, x, h=4, w=5, corner=False):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[y : y + h, x : x + w] = True
    if corner:  # the box stays, the mask is an L
        mask[y : y + h - 1, x + 1 : x + w] = False
    return Rle.encode(mask).counts.decode()


def sequence(tracks, name="one", frames=FRAMES, score=None, **more):
    """Tracks: {id: (category, {frame: rle})}."""
    shapes = [
        {str(i): {"rle": m[t]} | ({"score": score} if score else {}) for i, (_, m) in tracks.items() if t in m}
        for t in range(len(frames))
    ]
    return {
        "id": 1, "dataset": "BDD", "seq_name": name, "height": SIZE[0], "width": SIZE[1],
        "annotated_image_paths": frames, "segmentations": shapes,
        "track_category_ids": {str(i): c for i, (c, _) in tracks.items()},
        "neg_category_ids": [], "not_exhaustive_category_ids": [], **more,
    }  # fmt: skip


def score(tmp_path, truth, found, measure=evaluate_burst, **options):
    tmp_path.mkdir(exist_ok=True)
    for split in ("all", "common", "uncommon"):
        kept = [
            s | {"segmentations": [{i: m for i, m in f.items() if belongs(s, i, split)} for f in s["segmentations"]]}
            for s in truth
        ]
        (tmp_path / f"{split}_classes.json").write_text(json.dumps({"split": "val", "sequences": kept}))
    (tmp_path / "pred.json").write_text(json.dumps({"split": "val", "sequences": found}))
    return measure(tmp_path, tmp_path / "pred.json", **options)


def belongs(sequence, id, split):
    return split == "all" or (sequence["track_category_ids"][id] == AIRPLANE) == (split == "common")


PLANE = {t: rle(2, 3 * t) for t in range(4)}
FOOD = {t: rle(12, 3 * t) for t in (1, 2)}
TRUTH = {1: (AIRPLANE, PLANE), 2: (SALAD, FOOD)}


def test_a_perfect_prediction(tmp_path):
    report = score(tmp_path, [sequence(TRUTH)], [sequence({7: TRUTH[1], 3: TRUTH[2]})])
    hundred = dict.fromkeys(report.scores, pytest.approx(100))
    assert report.scores == hundred | {"open-world HOTA": pytest.approx(100)}
    assert report.parts["class 918"]["AP"] == pytest.approx(100)
    assert report.parts["common"]["class-guided HOTA"] == pytest.approx(100)
    assert report.parts["common"]["open-world OWTA"] == pytest.approx(100)
    assert report.parts["common"]["open-world HOTA"] < 90  # the food is wrong there, only recall is fair
    assert report.objects["BDD/one/2"] == {"category": SALAD, "frames": 2, "missed frames": 0, "IoU": 1.0}
    assert report.videos["BDD/one"]["HOTA"] == pytest.approx(100)
    assert report.warnings == ()


def test_an_empty_prediction_and_none(tmp_path):
    for found in ([sequence({})], []):
        report = score(tmp_path, [sequence(TRUTH)], found)
        assert report.scores == dict.fromkeys(report.scores, 0)
        assert report.objects["BDD/one/1"]["missed frames"] == 4
        assert bool(report.warnings) == (not found)
    assert report.warnings[0].startswith("1 of 1 sequences have no prediction (BDD/one)")


def test_the_program_compares_boxes_and_the_paper_masks(tmp_path):
    found = [sequence({1: (AIRPLANE, {t: rle(2, 3 * t, corner=True) for t in range(4)}), 2: TRUTH[2]})]
    assert score(tmp_path, [sequence(TRUTH)], found).parts["class 4"]["HOTA"] == pytest.approx(100)
    masks = score(tmp_path, [sequence(TRUTH)], found, evaluate_burst_masks).parts["class 4"]
    assert masks["HOTA"] == pytest.approx(100 * 8 / 19)  # an L of 8 of the 20 pixels reaches the alphas up to 0.4
    assert masks["AP"] == 0


@pytest.mark.parametrize(
    "labels, guided, exemplar",
    [({}, 100, 50), ({"neg_category_ids": [SALAD]}, 50, 50), ({"not_exhaustive_category_ids": [SALAD]}, 100, 50)],
)
def test_predictions_of_which_the_labels_say_nothing(tmp_path, labels, guided, exemplar):
    """Food is predicted in all four frames, it is there in two of them. DetPr shows what is left."""
    extra = {t: rle(12, 3 * t) for t in range(4)}
    report = score(tmp_path, [sequence(TRUTH, **labels)], [sequence({1: TRUTH[1], 2: (SALAD, extra)})])
    assert report.parts["class 918"]["DetPr"] == pytest.approx(guided)
    assert report.parts["class 918 exemplar-guided"]["DetPr"] == pytest.approx(exemplar)


def test_a_class_that_is_not_labelled_exhaustively(tmp_path):
    """What matches no food, or less than half of one, is set aside there; elsewhere it is wrong."""
    apart, less = ({t: rle(y, 3 * t) for t in FOOD} for y in (2, 15))  # 15: shares 5 of 35 pixels
    rows = []
    for labels in ([], [SALAD]):
        truth = [sequence(TRUTH, not_exhaustive_category_ids=labels)]
        both = score(tmp_path, truth, [sequence({2: (SALAD, FOOD), 3: (SALAD, apart)})])
        weak = score(tmp_path, truth, [sequence({3: (SALAD, less)})])
        rows.append((both.parts["class 918"]["DetPr"], weak.parts["class 918"]["DetRe"]))
    assert rows == [(pytest.approx(50), pytest.approx(100 * 2 / 19)), (pytest.approx(100), 0)]


def test_the_open_world_has_the_id_of_acorns(tmp_path):
    apart = {t: rle(15, 20) for t in range(4)}
    found = [sequence({**TRUTH, 3: (SALAD, apart)})]
    assert score(tmp_path, [sequence(TRUTH)], found).scores["open-world HOTA"] < 90
    acorns = [sequence(TRUTH, not_exhaustive_category_ids=[1])]
    assert score(tmp_path, acorns, found).scores["open-world HOTA"] == pytest.approx(100)


def test_tracks_of_a_class_that_is_not_there_are_wrong_only_where_that_is_known(tmp_path):
    found = [sequence(TRUTH, score=0.5), sequence({1: TRUTH[1], 4: (SALAD, FOOD)}, "two", score=0.9)]
    for absent, ap in (([], 100), ([SALAD], 50)):
        truth = [sequence(TRUTH), sequence({1: TRUTH[1]}, "two", neg_category_ids=absent)]
        assert score(tmp_path, truth, found).parts["class 918"]["AP"] == pytest.approx(ap)


def test_a_track_is_as_sure_as_its_frames_on_average_and_of_equal_ones_the_first_in_the_file_leads(tmp_path):
    apart = {t: rle(2, 3 * t) for t in FOOD}
    truth = [sequence({2: (SALAD, FOOD)})]
    found = sequence({3: (SALAD, FOOD), 9: (SALAD, apart)}, score=0.6)
    assert score(tmp_path, truth, [found]).parts["class 918"]["AP"] == pytest.approx(100)
    found["segmentations"][1]["9"]["score"], found["segmentations"][2]["9"]["score"] = 0.9, 0.1
    assert score(tmp_path, truth, [found]).parts["class 918"]["AP"] == pytest.approx(100)
    found = sequence({9: (SALAD, apart), 3: (SALAD, FOOD)}, score=0.6)
    assert score(tmp_path, truth, [found]).parts["class 918"]["AP"] == pytest.approx(50)


def test_a_track_without_a_score_is_sure(tmp_path):
    found = sequence({3: (SALAD, FOOD), 9: (SALAD, {t: rle(2, 3 * t) for t in FOOD})})
    for t in FOOD:
        found["segmentations"][t]["3"]["score"] = 0.6
    assert score(tmp_path, [sequence({2: (SALAD, FOOD)})], [found]).parts["class 918"]["AP"] == pytest.approx(50)


def test_of_equally_sure_tracks_those_of_the_first_sequence_by_name_lead(tmp_path):
    truth = [sequence({2: (SALAD, FOOD)}, name) for name in ("b1", "a2")]
    apart = {t: rle(2, 3 * t) for t in FOOD}
    found = [sequence({1: (SALAD, apart)}, "b1"), sequence({1: (SALAD, FOOD)}, "a2")]
    assert score(tmp_path, truth, found).parts["class 918"]["AP"] == pytest.approx(100 * 51 / 101)


def test_part_of_a_distractor_is_an_object_but_no_class(tmp_path):
    """Shopping bags (967) are grocery bags, and those are a distractor."""
    truth = {1: TRUTH[1], 2: (967, FOOD)}
    report = score(tmp_path, [sequence(truth)], [sequence({1: TRUTH[1]})])
    assert [name for name in report.parts if name.startswith("class") and "exemplar" not in name] == ["class 4"]
    assert report.scores["open-world DetRe"] == pytest.approx(100 * 4 / 6)


def test_frames_without_truth_do_not_count(tmp_path):
    truth = {2: (SALAD, FOOD), 5: (PLASTIC, PLANE)}  # the distractor is nothing
    extra = {t: rle(12, 3 * t) for t in range(4)}
    report = score(tmp_path, [sequence(truth)], [sequence({2: (SALAD, extra)})])
    assert report.scores["open-world HOTA"] == pytest.approx(100)
    assert report.parts["class 918 exemplar-guided"]["HOTA"] == pytest.approx(100)
    assert report.parts["class 918"]["AP"] == pytest.approx(10)  # at an IoU of 0.5 alone
    assert report.objects["BDD/one/2"]["IoU"] == 0.5  # tracks are compared in all annotated frames


def test_parts_of_a_category_are_that_category(tmp_path):
    report = score(tmp_path, [sequence({1: (CAP, PLANE)})], [sequence({1: (HAT, PLANE)})])
    assert report.parts["class 554"]["HOTA"] == pytest.approx(100)
    assert "class 207" not in report.parts


def test_frames_between_the_annotated_ones_are_skipped(tmp_path):
    frames = [name for t in range(4) for name in (f"frame{t:04d}.jpg", f"between{t}.jpg")]
    twice = {2 * t + n: mask for t, mask in PLANE.items() for n in (0, 1)}
    report = score(tmp_path, [sequence({1: (AIRPLANE, PLANE)})], [sequence({1: (AIRPLANE, twice)}, frames=frames)])
    assert report.scores["class-guided HOTA"] == pytest.approx(100)


def test_the_surest_300_of_a_frame_count(tmp_path):
    many = {n: (AIRPLANE, {0: rle(12, n % 20)}) for n in range(1, 301)}
    found = sequence({**many, 500: (AIRPLANE, PLANE)}, score=0.5)
    found["segmentations"][0]["500"]["score"] = 0.4
    truth = [sequence({1: (AIRPLANE, PLANE)})]
    assert score(tmp_path, truth, [found]).parts["class 4"]["DetRe"] == pytest.approx(75)
    found["segmentations"][0]["500"]["score"] = 0.6
    assert score(tmp_path, truth, [found]).parts["class 4"]["DetRe"] == pytest.approx(100)


def test_a_track_zero_is_matched_without_taking_the_true_track(tmp_path):
    truth = [sequence({1: (AIRPLANE, PLANE)}), sequence({1: (AIRPLANE, PLANE)}, "two")]
    twice = {0: (AIRPLANE, PLANE), 3: (AIRPLANE, {t: PLANE[t] for t in range(3)})}
    lone = score(tmp_path, truth, [sequence(twice), sequence({1: (AIRPLANE, PLANE)}, "two")])
    assert "BDD/one: a predicted track 0" in lone.warnings[0]
    both = score(tmp_path, truth, [sequence(twice), sequence({0: (AIRPLANE, PLANE)}, "two")])
    assert both.warnings == ()  # the program numbers anew what occurs in two sequences
    assert lone.parts["class 4"]["AP"] > both.parts["class 4"]["AP"]


def test_some_sequences(tmp_path):
    said = []
    truth = [sequence(TRUTH), sequence(TRUTH, "two")]
    report = score(tmp_path, truth, [sequence(TRUTH)], videos=["BDD/one"], watch=lambda *news: said.append(news))
    assert report.scores["open-world OWTA"] == pytest.approx(100)
    assert said == [("burst", 4, 4, 2)]
    with pytest.raises(InputError, match="no sequence BDD/three; name them as dataset/sequence"):
        score(tmp_path, truth, [], videos=["BDD/three"])


def test_a_split_must_be_the_same(tmp_path):
    score(tmp_path, [sequence(TRUTH)], [])
    (tmp_path / "pred.json").write_text(json.dumps({"split": "test", "sequences": []}))
    with pytest.raises(InputError, match="of the split 'test', the ground truth is of 'val'"):
        evaluate_burst(tmp_path, tmp_path / "pred.json")


BAD = {
    r"pred.json: sequences\[0\]: segmentations\[0\]: track 1: .* are no COCO run lengths": lambda s: s["segmentations"][
        0
    ]["1"].update(rle="\x01"),
    "run lengths fill .* pixels, not the 30x20": lambda s: s["segmentations"][0]["1"].update(rle="00"),
    "track 1: 'rle' is missing": lambda s: s["segmentations"][0]["1"].clear(),
    "'1' is missing": lambda s: s["track_category_ids"].pop("1"),
    "a track's name must be a whole number": lambda s: s["segmentations"][0].update(x={"rle": PLANE[0]}),
    "a track is named twice": lambda s: s["segmentations"][0].update({"01": {"rle": PLANE[0], "category_id": 4}}),
    "'score' must be a number": lambda s: s["segmentations"][0]["1"].update(score="high"),
    "4 different annotated_image_paths, 3 segmentations": lambda s: s["segmentations"].pop(),
    "'dataset' is missing": lambda s: s.pop("dataset"),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_predictions_are_named(tmp_path, words):
    found = sequence(TRUTH)
    BAD[words](found)
    with pytest.raises(InputError, match=words) as error:
        score(tmp_path, [sequence(TRUTH)], [found])
    assert str(tmp_path / "pred.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_predictions_of_another_size_are_refused(tmp_path):
    """Turned by a quarter they have as many pixels, so that their run lengths would decode."""
    turned = sequence(TRUTH, height=SIZE[1], width=SIZE[0])
    with pytest.raises(InputError, match=r"sequences\[0\]: 30 x 20 pixels \(h, w\), the ground truth has 20 x 30"):
        score(tmp_path, [sequence(TRUTH)], [turned])


def test_bad_ground_truth_is_named(tmp_path):
    with pytest.raises(InputError, match=r"all_classes.json: cannot be read"):
        evaluate_burst(tmp_path, tmp_path / "pred.json")
    with pytest.raises(InputError, match=r"all_classes.json: no sequence at all"):
        score(tmp_path, [], [])
    with pytest.raises(InputError, match=r"all_classes.json: sequences\[1\]: the sequence BDD/one is listed twice"):
        score(tmp_path, [sequence(TRUTH)] * 2, [])
    bad = sequence(TRUTH, neg_category_ids="none")
    with pytest.raises(InputError, match=r"'neg_category_ids' must be a list"):
        score(tmp_path, [bad], [])


def test_images_that_are_called_differently_are_refused_and_those_that_lack_are_warned_of(tmp_path):
    truth = [sequence(TRUTH)]
    with pytest.raises(InputError, match=r"none of its images is annotated; in BDD/one the first is '0001\.jpg'"):
        score(tmp_path, truth, [sequence(TRUTH, frames=[f"{n:04d}.jpg" for n in range(1, 5)])])
    late = [sequence(TRUTH, frames=[*FRAMES[1:], "frame0004.jpg"])]
    [warning] = score(tmp_path, truth, late).warnings
    assert warning.startswith("1 sequences have annotated images without prediction (BDD/one)")
