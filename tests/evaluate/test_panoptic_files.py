from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from masklet.core.errors import InputError
from masklet.evaluate.ground_truth import check_ground_truth
from masklet.evaluate.panoptic.metrics import evaluate_stq, evaluate_vipseg, evaluate_vpq
from masklet.evaluate.prediction_form import get_prediction_target

CATEGORIES = [
    {"id": 0, "name": "sky", "isthing": 0},
    {"id": 5, "name": "cat", "isthing": 1},
    {"id": 124, "name": "dog", "isthing": 1},
]
TRUE = np.array([[1, 1, 1, 1, 70000, 70000], [1, 1, 1, 1, 70000, 0]])
SEGMENTS = {1: 0, 70000: 5}


def png(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(path)


def side(folder, file, pngs, videos, extra=None):
    """Videos: {name: [(ids, {id: category})]}."""
    annotations = []
    for name, frames in videos.items():
        listed = []
        for t, (ids, categories) in enumerate(frames):
            png(folder / pngs / name / f"{t:05d}.png", ids)
            segments = [
                {"id": i, "category_id": c, "isthing": 1, "iscrowd": 0, "area": int((ids == i).sum())}
                for i, c in categories.items()
            ]
            listed.append({"file_name": f"{t:05d}.png", "segments_info": segments})
        annotations.append({"video_id": name, "annotations": listed})
    (folder / file).write_text(json.dumps({"annotations": annotations, **(extra or {})}))


@pytest.fixture
def data(tmp_path):
    """Two videos of three frames and one, found without fault."""
    videos = {"a": [(TRUE, SEGMENTS)] * 3, "b": [(TRUE, SEGMENTS)]}
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
    side(tmp_path / "gt", "panoptic_gt.json", "panomasksRGB", videos, {"categories": CATEGORIES})
    side(tmp_path / "pred", "pred.json", "pan_pred", videos)
    return tmp_path / "gt", tmp_path / "pred"


def test_the_ground_truth_may_have_the_data_set_s_own_name(data):
    """At every door: the folder is looked at, the predictions converted, and the metric read."""
    gt, pred = data
    images = {"images": [{"id": "0", "file_name": "00000.png", "width": 4, "height": 3}]}
    edit(gt / "panoptic_gt.json", lambda c: c.update(videos=[{"video_id": name, **images} for name in "ab"]))
    expected = evaluate_vipseg(gt, pred).scores
    (gt / "panoptic_gt.json").rename(gt / "panoptic_gt_VIPSeg_val.json")
    check_ground_truth("vipseg", gt)
    assert get_prediction_target("vipseg", gt).split.videos.keys() == {"a", "b"}
    assert evaluate_vipseg(gt, pred).scores == expected


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def segments(content, video=0, frame=0):
    return content["annotations"][video]["annotations"][frame]["segments_info"]


def test_a_perfect_prediction(data):
    report = evaluate_vipseg(*data)
    assert report.scores["VPQ bar"] == report.scores["VPQ^1"] == report.scores["VPQ^whole"] == 100
    assert report.scores["STQ"] == report.scores["AQ"] == report.scores["SQ"] == 1
    assert report.parts["category 5 cat"]["TP^1"] == 4
    assert report.parts["category 124 dog"]["VPQ^1"] is None
    assert report.videos.keys() == {"a", "b"}
    assert report.objects["a/70000"] == {"category": 5, "frames": 3, "missed frames": 0, "IoU": 1.0}
    assert report.warnings == (
        "of 2 videos have fewer frames: 1 than 2, 2 than 4, 2 than 6, 2 than 8, 2 than 10; such a video is one window "
        "of VPQ^k here and none in the parts named VIPSeg",
    )
    assert report.parts["VIPSeg"]["VPQ^2"] == 100
    assert report.parts["VIPSeg"]["VPQ^4"] is None


def test_an_empty_prediction(data):
    side(data[1], "pred.json", "pan_pred", {"a": [(TRUE * 0, {})] * 3, "b": [(TRUE * 0, {})]})
    report = evaluate_vipseg(*data)
    assert report.scores == dict.fromkeys(report.scores, 0)
    assert report.objects["a/70000"]["missed frames"] == 3


def test_things_and_stuff_apart(data):
    sky = (TRUE * (TRUE == 1), {1: 0})
    side(data[1], "pred.json", "pan_pred", {"a": [sky] * 3, "b": [sky]})
    report = evaluate_vpq(*data)
    assert (report.parts["stuff"]["VPQ^1"], report.parts["things"]["VPQ^1"]) == (100, 0)
    assert (report.parts["VIPSeg stuff"]["VPQ^2"], report.parts["VIPSeg things"]["VPQ^2"]) == (100, 0)
    assert report.scores["VPQ^1"] == 50


def test_some_videos(data):
    said = []
    report = evaluate_vpq(*data, videos=["b"], watch=lambda *news: said.append(news))
    assert report.videos.keys() == {"b"}
    assert said == [("vpq", 1, 1, 2)]
    with pytest.raises(InputError, match=r"panoptic_gt.json: no video c; it has a, b"):
        evaluate_vpq(*data, videos=["c"])


def test_the_crowd_by_listing_is_told(data):
    """Frame by frame the cat keeps its id only if it is not listed first."""
    edit(data[0] / "panoptic_gt.json", lambda c: [segments(c, v, t).reverse() for v, t in ((0, 0), (0, 1), (0, 2))])
    side(data[1], "pred.json", "pan_pred", {"a": [(TRUE * (TRUE == 1), {1: 0})] * 3, "b": [(TRUE, SEGMENTS)]})
    report = evaluate_stq(*data)
    assert report.scores["AQ"] == 1.0
    assert report.parts["STQ without the crowd by listing"]["AQ"] == 0.5
    assert "AQ 1.000000 instead of the definition's" in report.warnings[-1]
    assert (
        f"(STQ {report.scores['STQ'] - report.parts['STQ without the crowd by listing']['STQ']:+.6f})"
        in report.warnings[-1]
    )


def test_what_is_accepted_with_a_warning(data):
    edit(data[0] / "panoptic_gt.json", lambda c: segments(c).pop(0))
    edit(data[0] / "panoptic_gt.json", lambda c: segments(c, 0, 1)[0].update(area=3))
    edit(data[1] / "pred.json", lambda c: c["annotations"].append({"video_id": "z", "annotations": []}))
    edit(
        data[1] / "pred.json",
        lambda c: c["annotations"][1]["annotations"].append({"file_name": "9.png", "segments_info": []}),
    )
    warnings = evaluate_vpq(*data).warnings
    assert "predicted videos without ground truth: ignored (1)" in warnings
    assert "predicted frames without ground truth: ignored (1)" in warnings
    assert "true segments in a png that its list does not name: never matched (1)" in warnings
    assert "areas in panoptic_gt.json that contradict the png: VPQ uses them as they are (1)" in warnings


def test_jpg_names_mean_the_png(data):
    edit(data[1] / "pred.json", lambda c: c["annotations"][0]["annotations"][0].update(file_name="00000.jpg"))
    assert evaluate_vpq(*data).scores["VPQ^1"] == 100


BAD_PRED = {
    "video a has no frame 00002": lambda c: c["annotations"][0]["annotations"].pop(),
    "no video b": lambda c: c["annotations"].pop(),
    "segment 70000 is in the png but not in the list": lambda c: segments(c).pop(),
    "segment 9 is in the list but not in the png": lambda c: segments(c).append({"id": 9, "category_id": 5}),
    "segment 1: no category 77": lambda c: segments(c)[0].update(category_id=77),
    "segment 1: is listed twice": lambda c: segments(c).append(segments(c)[0]),
    "'id' must be a whole number": lambda c: segments(c)[0].update(id="x"),
    "video 'a' is listed twice": lambda c: c["annotations"].append(c["annotations"][0]),
    "a frame is listed twice": lambda c: c["annotations"][0]["annotations"].append(
        c["annotations"][0]["annotations"][0]
    ),
    "holds no 'annotations'": lambda c: c.clear(),
    "'segments_info' is missing": lambda c: c["annotations"][0]["annotations"][0].pop("segments_info"),
}


@pytest.mark.parametrize("words", BAD_PRED)
def test_bad_predictions_are_named(data, words):
    edit(data[1] / "pred.json", BAD_PRED[words])
    with pytest.raises(InputError, match=words) as error:
        evaluate_vipseg(*data)
    assert str(data[1] / "pred.json") in str(error.value)
    assert "\n" not in str(error.value)


BAD_GT = {
    "'area' is missing": lambda c: segments(c)[0].pop("area"),
    "category's id is given twice": lambda c: c["categories"].append(c["categories"][0]),
    "'isthing' is missing": lambda c: c["categories"][0].pop("isthing"),
    "holds no 'categories'": lambda c: c.pop("categories"),
    "no frame in any video": lambda c: c["annotations"].clear(),
}


@pytest.mark.parametrize("words", BAD_GT)
def test_bad_ground_truth_is_named(data, words):
    edit(data[0] / "panoptic_gt.json", BAD_GT[words])
    with pytest.raises(InputError, match=words) as error:
        evaluate_vipseg(*data)
    assert str(data[0] / "panoptic_gt.json") in str(error.value)


def test_bad_pngs_are_named(data):
    path = data[1] / "pan_pred" / "a" / "00001.png"
    good = path.read_bytes()
    path.write_bytes(good[:40])
    with pytest.raises(InputError, match=r"00001.png: not an image that can be read"):
        evaluate_vipseg(*data)
    path.unlink()
    with pytest.raises(InputError, match=r"00001.png: no such file"):
        evaluate_vipseg(*data)
    Image.new("L", (6, 2)).save(path)
    with pytest.raises(InputError, match=r"00001.png: a png of mode L"):
        evaluate_vipseg(*data)
    png(path, TRUE[:1])
    with pytest.raises(InputError, match=r"00001.png: .* the ground truth has"):
        evaluate_vipseg(*data)
