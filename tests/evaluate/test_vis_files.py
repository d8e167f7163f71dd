from __future__ import annotations

import json

import numpy as np
import pytest
from evaluate.vis_sets import SIZE, code, content, found, random_set, square, truth, written
from reference import vis as plain

from masklet.core.errors import InputError
from masklet.evaluate import json_stream as lifted
from masklet.evaluate.vis import metrics as vis_metrics

LEFT, RIGHT, NONE = square(0, 6, 0, 6), square(6, 12, 8, 16), square(0, 0, 0, 0)
OURS = {  # by the name of the twin
    "youtube_vis": vis_metrics.evaluate_youtube_vis,
    "youtube_vis_class_agnostic": vis_metrics.evaluate_class_agnostic,
    "ovis": vis_metrics.evaluate_ovis,
    "tube_boundary": vis_metrics.evaluate_tube_boundary,
    "ap_pool_video": vis_metrics.evaluate_ap_pool_video,
}
METRICS = [name for name in OURS if name != "ap_pool_video"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(12))
def test_random_sets_score_as_the_twin_says(metric, seed, tmp_path):
    gt, pred = random_set(seed)
    if metric == "ovis":  # which wants lists as long as the video
        pred = [p for p in pred if len(p["segmentations"]) == 3]
    report = OURS[metric](*written(tmp_path, gt, pred))
    wanted = getattr(plain, metric)(gt, pred)
    assert report.scores == pytest.approx(wanted, abs=1e-12)
    assert list(report.scores) == list(wanted)


def perfect(gt):
    keys = ("video_id", "category_id", "segmentations")
    return [{k: a[k] for k in keys} | {"score": 1 - n / 100} for n, a in enumerate(gt["annotations"])]


def two_videos():
    return content(
        [truth(1, [LEFT, RIGHT]), truth(2, [RIGHT, None], category=2), truth(5, [LEFT, LEFT], video=2)], videos=2
    )


@pytest.mark.parametrize("metric", [*METRICS, "ap_pool_video"])
def test_the_truth_itself_is_perfect_and_nothing_scores_nothing(metric, tmp_path):
    gt = two_videos()
    report = OURS[metric](*written(tmp_path, gt, perfect(gt)))
    assert report.scores["AP"] == report.scores["APs"] == report.scores["AP75"] == pytest.approx(1)
    assert (
        report.metric == metric and [p.name for p in report.inputs] == ["gt.json", "pred.json"] and not report.warnings
    )
    assert report.videos["2"] == {"AP": pytest.approx(1), "missed": 0, "wrong": 0}
    assert report.objects["2/5"]["IoU"] == 1
    report.save(tmp_path / "report.json", "0")
    nothing = OURS[metric](*written(tmp_path, gt, []))
    assert nothing.scores["AP"] == 0 and nothing.videos["1"] == {"AP": 0, "missed": 2, "wrong": 0}
    assert nothing.objects["1/2"] == {"IoU": 0, "score": None}


@pytest.mark.parametrize("metric", [*METRICS, "ap_pool_video"])
def test_order_does_not_matter_where_scores_differ(metric, tmp_path):
    gt, pred = random_set(3)
    rng = np.random.default_rng(0)
    pred = [
        p | {"score": s}
        for p, s in zip(pred, rng.permutation(len(pred)).tolist(), strict=True)
        if len(p["segmentations"]) == 3
    ]
    first = OURS[metric](*written(tmp_path, gt, pred))
    second = OURS[metric](*written(tmp_path, gt, [pred[n] for n in rng.permutation(len(pred))]))
    assert (first.scores, first.parts, first.videos, first.objects) == (
        second.scores,
        second.parts,
        second.videos,
        second.objects,
    )


def test_what_each_video_lacks_adds_up(tmp_path):
    gt, pred = random_set(5)
    paths = written(tmp_path, gt, pred)
    whole = vis_metrics.evaluate_youtube_vis(*paths)
    parts = [vis_metrics.evaluate_youtube_vis(*paths, videos=[v]) for v in ("1", 2, "3")]
    assert whole.videos == {name: row for part in parts for name, row in part.videos.items()}
    assert whole.objects == {name: row for part in parts for name, row in part.objects.items()}


def test_a_subset_is_a_set_of_its_own(tmp_path):
    gt, pred = random_set(7)
    some = vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, pred), videos={1, 3}).scores
    kept = [[e for e in entries if e["video_id"] != 2] for entries in (gt["annotations"], pred)]
    videos = [v for v in gt["videos"] if v["id"] != 2]
    assert (
        some
        == vis_metrics.evaluate_youtube_vis(
            *written(tmp_path, gt | {"videos": videos, "annotations": kept[0]}, kept[1])
        ).scores
    )


def test_videos_go_by_the_folder_of_their_frames(tmp_path):
    gt = two_videos()
    for video, name in zip(gt["videos"], ("goose", "duck"), strict=True):
        video["file_names"] = [f"{name}/{t}.jpg" for t in range(2)]
    paths = written(tmp_path, gt, perfect(gt))
    assert list(vis_metrics.evaluate_youtube_vis(*paths, videos=["duck"]).videos) == ["duck"]
    with pytest.raises(InputError, match=r"gt.json: no video 'swan'; there are goose, duck"):
        vis_metrics.evaluate_youtube_vis(*paths, videos=["swan"])


def test_every_form_of_a_mask_is_read(tmp_path):
    gt = two_videos()
    gt["annotations"][0]["segmentations"] = [[[0, 0, 6, 0, 6, 6, 0, 6]], code(RIGHT, compressed=False)]
    pred = perfect(two_videos())
    (tmp_path / "gt.json").write_text(json.dumps(gt, indent=2))  # spaces between everything
    (tmp_path / "pred.json").write_text(json.dumps(pred).replace("\\\\", "\\u005c"))
    assert vis_metrics.evaluate_youtube_vis(tmp_path / "gt.json", tmp_path / "pred.json").scores["AP"] == pytest.approx(
        1
    )


@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 20])
def test_entries_are_found_wherever_the_file_is_cut(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(lifted, "CHUNK", chunk)
    content = [{"a": 'é, "b": } [', "masks": [None, {"counts": "\\]x"}]}, 12345, [], "\u00e9", None, {"last": 1.5e3}]
    (tmp_path / "pred.json").write_text(json.dumps(content, ensure_ascii=False) + " ", encoding="utf-8")
    with (tmp_path / "pred.json").open("rb") as file:
        read = [
            (entry, lifted.read_entry_at(file.fileno(), span))
            for entry, span in lifted.stream_json_entries(tmp_path / "pred.json")
        ]
    assert [again for _, again in read] == content
    assert [entry for entry, _ in read][1:3] == content[1:3] and read[0][0]["masks"] == content[0]["masks"]


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"id": 0},
            r"gt.json: annotations\[0\]: id 0; as in the official program, what finds this object counts as wrong",
        ),
        ({"areas": [40, 50]}, r"gt.json: annotations\[0\]: 'areas' does not agree with the masks"),
        ({"segmentations": [None, None]}, r"gt.json: annotations\[0\]: no pixel in any frame"),
        ({"segmentations": [code(LEFT)], "areas": [36]}, r"gt.json: annotations\[0\]: 1 masks for 2 frames"),
    ],
)
def test_what_the_program_accepts_in_silence_is_a_warning(change, said, tmp_path):
    gt = two_videos()
    gt["annotations"][0] |= change
    pred = perfect(two_videos())
    report = vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, pred))
    assert report.scores == pytest.approx(plain.youtube_vis(gt, pred))
    assert len(report.warnings) == 1
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(report.warnings[0])


def test_warnings_of_predictions(tmp_path):
    gt = two_videos()
    many = [found(0.5 + n / 1000, [LEFT, RIGHT]) for n in range(101)]
    report = vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, many))
    assert report.warnings[0].endswith("pred.json: no prediction for video 2")
    assert "only the best 100 count" in report.warnings[1] and "video 1, 101 predictions" in report.warnings[1]
    assert report.videos["1"] == {"AP": pytest.approx(0.5), "missed": 1, "wrong": 99}
    short = [found(0.5, [LEFT]), found(0.4, [RIGHT]), found(0.3, [LEFT, LEFT], video=2)]
    (warning,) = vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, short)).warnings
    assert "pred.json: [0]: 1 masks for 2 frames" in warning and "(1 more like it)" in warning


BROKEN = code(LEFT) | {"counts": code(LEFT)["counts"][:-1]}
SMALL = code(square(0, 2, 0, 2, (4, 4)))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"video_id": 9}, r"video 9 is not in .*gt.json"),
        ({"category_id": 9}, r"category 9 is not in .*gt.json"),
        ({"video_id": "1"}, "'video_id' must be a whole number"),
        ({"score": float("nan")}, "'score' must be a number"),
        ({"score": None}, "'score' must be a number"),
        ({"segmentations": {}}, "'segmentations' must be a list with a mask or null for every frame"),
        ({"segmentations": [None, 17]}, r"frame 1: a mask must be run lengths"),
        ({"segmentations": [None, SMALL]}, r"frame 1: the mask's size is \[4, 4\], the frame's \[12, 16\]"),
        ({"segmentations": [None, BROKEN]}, r"frame 1: "),
        ({"segmentations": [None, code(LEFT) | {"counts": "1 7"}]}, r"frame 1: "),
        ({"segmentations": [None, {"size": list(SIZE), "counts": [3, 4]}]}, r"frame 1: the run lengths do not fill"),
    ],
)
@pytest.mark.parametrize("metric", ["youtube_vis", "tube_boundary"])
def test_bad_predictions_are_named(change, said, metric, tmp_path):
    pred = [found(0.5, [LEFT, RIGHT]), found(0.5, [LEFT, RIGHT]) | change]
    with pytest.raises(InputError, match=rf"pred.json: \[1\]: .*{said}"):
        OURS[metric](*written(tmp_path, two_videos(), pred))


@pytest.mark.parametrize("key", ["video_id", "category_id", "score", "segmentations"])
def test_what_a_prediction_lacks_is_named(key, tmp_path):
    entry = found(0.5, [LEFT, RIGHT])
    del entry[key]
    with pytest.raises(InputError, match=rf"pred.json: \[0\]: '{key}' (is missing|must be a number)"):
        vis_metrics.evaluate_youtube_vis(*written(tmp_path, two_videos(), [entry]))


@pytest.mark.parametrize(
    "number, change, said",
    [
        (1, {"id": 1}, "the annotation id 1 is given twice"),
        (1, {"video_id": 7}, "video 7 is not in"),
        (1, {"category_id": 7}, "category 7 is not in"),
        (1, {"areas": 7}, "'areas' must be numbers"),
        (1, {"areas": ["x"]}, "'areas' must be numbers"),
        (1, {"segmentations": [BROKEN, None]}, "frame 0: "),
        (1, {"segmentations": [[[1, 2]], None]}, "frame 0: a polygon needs three points"),
    ],
)
def test_bad_annotations_are_named(number, change, said, tmp_path):
    gt = two_videos()
    gt["annotations"][number] |= change
    with pytest.raises(InputError, match=rf"gt.json: annotations\[{number}\]: .*{said}"):
        vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, perfect(two_videos())))


@pytest.mark.parametrize("words", [[None, None], ["no_occlusion"], ["no_occlusion", "a bit"]])
def test_levels_of_occlusion_must_be_known(words, tmp_path):
    gt = two_videos()
    gt["annotations"][0]["occlusion"] = words
    with pytest.raises(InputError, match=r"annotations\[0\]: 'occlusion' must be null or one of no_occlusion"):
        vis_metrics.evaluate_ovis(*written(tmp_path, gt, []))
    gt["annotations"][0]["occlusion"] = ["no_occlusion", None]
    with pytest.raises(InputError, match=r"pred.json: \[0\]: 1 masks for 2 frames"):
        vis_metrics.evaluate_ovis(*written(tmp_path, gt, [found(0.5, [LEFT])]))


def test_videos_given_twice_are_named(tmp_path):
    gt = two_videos()
    gt["videos"].append(gt["videos"][0])
    with pytest.raises(InputError, match=r"gt.json: videos\[2\]: the video id 1 is given twice"):
        vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, []))


@pytest.mark.parametrize(
    "text", ["", "{}", "7", "[", "[{}", "[{},", "[{}] x", "[{}[{}]", "[{},]", "[{} {}]", "[" * 100000, '["\xff"]']
)
def test_a_file_that_is_no_list_is_named(text, tmp_path):
    gt, pred = written(tmp_path, two_videos(), [])
    pred.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"pred.json: "):
        vis_metrics.evaluate_youtube_vis(gt, pred)
    gt.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"gt.json: "):
        vis_metrics.evaluate_youtube_vis(gt, pred)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gt.json: cannot be read"):
        vis_metrics.evaluate_youtube_vis(tmp_path / "gt.json", tmp_path / "pred.json")


@pytest.mark.parametrize("text", ["[]", " [ ]\n"])
def test_no_prediction_at_all_is_a_result(text, tmp_path):
    gt, pred = written(tmp_path, two_videos(), [])
    pred.write_text(text)
    assert vis_metrics.evaluate_youtube_vis(gt, pred).scores["AP"] == 0


def image_set():
    """Two images; category 1 is known everywhere, 2 in the first image only, and there not exhaustively."""
    images = [
        {"id": n, "height": SIZE[0], "width": SIZE[1], "neg_category_ids": [], "not_exhaustive_category_ids": []}
        for n in (1, 2)
    ]
    images[0]["not_exhaustive_category_ids"] = [2]
    kinds = [(1, 1, LEFT), (1, 2, RIGHT), (2, 1, RIGHT)]
    annotations = [
        {"id": n, "image_id": i, "category_id": k, "segmentation": code(m), "area": float(m.sum())}
        for n, (i, k, m) in enumerate(kinds, start=1)
    ]
    named = [{"id": k, "name": f"kind {k}", "frequency": "rc"[k - 1]} for k in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": named}


def seen(image, category, mask, score):
    return {"image_id": image, "category_id": category, "segmentation": code(mask), "score": score}


def test_what_lvis_says_nothing_about_does_not_count(tmp_path):
    right = [seen(1, 1, LEFT, 0.5), seen(1, 2, RIGHT, 0.5), seen(2, 1, RIGHT, 0.5)]
    others = {
        1: [seen(2, 2, LEFT, 0.9)],  # a category that is not verified in the image: dropped
        2: [seen(1, 2, LEFT, 0.9)],  # not annotated exhaustively: excused
    }
    for more in others.values():
        scores = vis_metrics.evaluate_ap_pool_lvis(*written(tmp_path, image_set(), more + right)).scores
        assert scores == {"AP": pytest.approx(1), "APr": pytest.approx(1), "APc": pytest.approx(1), "APf": None}
    gt = image_set()
    gt["images"][1]["neg_category_ids"] = [2]
    worse = vis_metrics.evaluate_ap_pool_lvis(*written(tmp_path, gt, others[1] + right))
    assert worse.scores["AP"] == pytest.approx(0.75) and worse.scores["APc"] == pytest.approx(0.5)
    assert worse.parts["fixed"]["AP"] == pytest.approx((1 + 0.5) / 2)


def test_the_best_of_a_category_are_taken_from_the_whole_set(tmp_path):
    pred = [seen(1, 1, LEFT, 0.5), seen(1, 2, RIGHT, 0.5), seen(2, 1, RIGHT, 0.5), seen(2, 2, LEFT, 0.6)]
    report = vis_metrics.evaluate_ap_pool_lvis(*written(tmp_path, image_set(), pred), best=1)
    # Of category 1 the earlier one stays; of category 2 only one that is dropped afterwards.
    assert report.objects == {
        "1/1": {"IoU": 1.0, "score": 0.5},
        "2/3": {"IoU": 0.0, "score": None},
        "1/2": {"IoU": 0.0, "score": None},
    }
    assert any("more than 1 predictions of kind 1" in w for w in report.warnings)


def test_images_are_named_in_errors(tmp_path):
    with pytest.raises(InputError, match=r"pred.json: \[0\]: image 9 is not in"):
        vis_metrics.evaluate_ap_pool_lvis(*written(tmp_path, image_set(), [seen(9, 1, LEFT, 0.5)]))


def test_progress_is_told(tmp_path):
    said = []
    gt = two_videos()
    vis_metrics.evaluate_youtube_vis(*written(tmp_path, gt, perfect(gt)), watch=lambda *told: said.append(told))
    assert [s[:3] for s in said] == [("scoring", 1, 2), ("scoring", 2, 2)]


def test_lvis_has_objects_to_ignore_and_no_crowds(tmp_path):
    gt = image_set()
    gt["annotations"][0] |= {"ignore": 1}
    pred = [seen(1, 1, LEFT, 0.9), seen(2, 1, RIGHT, 0.5)]
    assert vis_metrics.evaluate_ap_pool_lvis(*written(tmp_path, gt, pred)).scores["APr"] == pytest.approx(1)
    gt["annotations"][0] |= {"ignore": 0, "iscrowd": 1}
    twice = vis_metrics.evaluate_ap_pool_lvis(*written(tmp_path, gt, [seen(1, 1, LEFT, 0.8), *pred]))
    assert twice.scores["APr"] == pytest.approx((51 + 50 * 2 / 3) / 101)  # right, wrong, right
