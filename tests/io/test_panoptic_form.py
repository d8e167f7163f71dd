"""VIPSeg's panoptic form, both ways."""

from __future__ import annotations

import json
import os
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forms import apart, by_id, drafts, frame, made, masklet, pixels, told, video
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from masklet.core.errors import InputError
from masklet.io.formats.panoptic import read_panoptic, read_panoptic_split, write_panoptic

GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", Path(__file__).parents[2] / "../shared/golden")) / "metrics/vps"
IDS = st.integers(1, (1 << 24) - 1)


def read(folder: Path, **more):
    return list(read_panoptic(folder / "pred.json", folder / "pan_pred", **more))


@given(st.tuples(drafts("a", IDS), drafts("b", IDS)))
def test_things_survive(tmp_path_factory, pair):
    pair, folder = [apart(made(d)) for d in pair], tmp_path_factory.mktemp("p")
    write_panoptic(pair, folder / "one")
    back = read(folder / "one")
    assert [frame(r) for r in back] == [frame(r) for r in pair]
    assert [by_id(r) for r in back] == [by_id(r) for r in pair]
    assert [told(r) for r in back] == [told(r) for r in pair]
    write_panoptic(back, folder / "two", categories=dict(enumerate(back[0].categories)))
    for path in sorted((folder / "one").rglob("*.*")):  # what was read is written the same
        assert (folder / "two" / path.relative_to(folder / "one")).read_bytes() == path.read_bytes()


@given(drafts("v", IDS, things=st.booleans()))
def test_stuff_of_one_category_is_one_segment_and_nothing_overlaps(tmp_path_factory, draft):
    result, folder = made(draft), tmp_path_factory.mktemp("p")
    write_panoptic([result], folder / "p")
    [back] = read(folder / "p")
    kinds = [back.name_of(m) for m in back.masklets if not m.is_thing]
    assert len(kinds) == len(set(kinds))
    for t in range(result.length):
        things = covered(result, t, lambda m: m.is_thing)
        assert (things == covered(back, t, lambda m: m.is_thing)).all()  # nothing lies over a thing
        stuff = covered(back, t, lambda m: not m.is_thing)
        assert (stuff == covered(result, t, lambda m: not m.is_thing) & ~things).all()
        assert sum(s.mask.area for _, s in back.at(t)) == (things | stuff).sum()  # no overlap
        for kind in kinds:
            here, there = (covered(r, t, partial(stuff_called, r, kind)) for r in (back, result))
            assert not (here & ~there).any()


def stuff_called(result, name, m):
    return not m.is_thing and result.name_of(m) == name


def covered(result, t, which):
    """The pixels of the objects that are meant."""
    seen = [s.mask.decode().numpy() for m, s in result.at(t) if which(m)]
    return np.any(seen, axis=0) if seen else np.zeros(result.size, bool)


def test_a_worked_example(tmp_path):
    result = video(
        masklet(70000, {0: "111 111"}, 0, 0.5),
        masklet(5, {0: "110 000", 1: "111 111"}, 0, 0.25),
        masklet(9, {0: "111 111", 1: "100 000"}, 1, 0.75, is_thing=False),
        masklet(10, {1: "011 000"}, 1, 0.75, is_thing=False),
        masklet(11, {2: "011 000"}, 1, 0.75, is_thing=False),
    )
    write_panoptic([result], tmp_path, {"clip": ["a", "b", "c"]}, {30: "cat", 40: "dog", 50: "bird"})
    page = np.array(Image.open(tmp_path / "pan_pred" / "clip" / "a.png"))
    assert page[0, 0].tolist() == [5, 0, 0] and page[1, 1].tolist() == [70000 % 256, 70000 // 256 % 256, 1]
    frames = json.loads((tmp_path / "pred.json").read_text())["annotations"][0]["annotations"]
    thing = {"isthing": 1, "category_id": 30}
    assert frames[0] == {
        "file_name": "a.png",
        "segments_info": [
            {**thing, "id": 70000, "score": 0.5, "area": 4},
            {**thing, "id": 5, "score": 0.25, "area": 2},
        ],
    }
    assert [s["id"] for s in frames[1]["segments_info"]] == [5]
    assert frames[2]["segments_info"] == [{"id": 9, "category_id": 40, "isthing": 0, "score": 0.75, "area": 2}]
    [back] = read(tmp_path)
    assert {m.id: (back.name_of(m), m.is_thing, m.score) for m in back.masklets} == {
        5: ("cat", True, 0.25), 9: ("dog", False, 0.75), 70000: ("cat", True, 0.5),
    }  # fmt: skip


def test_an_id_that_changes_its_category_is_two_masklets(tmp_path):
    content = written(tmp_path)
    content["annotations"][0]["annotations"][1]["segments_info"][0]["category_id"] = 1
    (tmp_path / "pred.json").write_text(json.dumps(content))
    [back] = read(tmp_path)
    assert [(m.id, back.name_of(m), list(m.sightings)) for m in back.masklets] == [
        (5, "cat", [0, 2]), (6, "cat", [0]), (7, "dog", [1]),
    ]  # fmt: skip


def test_each_changed_id_gets_another_and_the_categories_say_what_is_stuff(tmp_path):
    content = written(tmp_path)
    content["categories"][1]["isthing"] = 0
    frames = content["annotations"][0]["annotations"]
    for n, category in ((1, 1), (2, 2)):
        segment = frames[n]["segments_info"][0]
        segment["category_id"] = category
        del segment["isthing"]
    (tmp_path / "pred.json").write_text(json.dumps(content))
    [back] = read(tmp_path)
    assert [(m.id, back.name_of(m), m.is_thing, list(m.sightings)) for m in back.masklets] == [
        (5, "cat", True, [0]), (6, "cat", True, [0]), (7, "dog", False, [1]), (8, "bird", True, [2]),
    ]  # fmt: skip


def written(folder):
    write_panoptic(
        [video(masklet(5, dict.fromkeys(range(3), "100 000"), 0, 0.5), masklet(6, {0: "001 000"}, 0, 0.5))], folder
    )
    return json.loads((folder / "pred.json").read_text())


def test_a_prediction_may_leave_frames_and_videos_out_of_the_split(tmp_path):
    split_file = tmp_path / "gt" / "pred.json"
    write_panoptic([video(), video(name="other", size=(1, 1))], tmp_path / "gt")
    content = written(tmp_path / "p")
    bare = {"annotations": [{**content["annotations"][0]}]}
    bare["annotations"][0]["annotations"] = bare["annotations"][0]["annotations"][1:]
    (tmp_path / "p" / "pred.json").write_text(json.dumps(bare))
    back = read(tmp_path / "p", split=read_panoptic_split(split_file))
    assert [frame(r)[:3] for r in back] == [("clip", (2, 3), 3), ("other", (1, 1), 3)]
    assert [{m.id: list(pixels(m)) for m in r.masklets} for r in back] == [{5: [1, 2]}, {}]
    [alone] = read(tmp_path / "p")  # the frames that it has
    assert alone.length == 2 and alone.categories == ("0",)


def first(content):
    return content["annotations"][0]["annotations"][0]


def segment(**changes):
    return lambda c: first(c)["segments_info"][0].update(changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (segment(id=8), "segment 5 is only in the image .*00000.png"),
        (lambda c: first(c)["segments_info"].append({"id": 8, "category_id": 0}), "segment 8 is not in the image"),
        (lambda c: first(c)["segments_info"].append(first(c)["segments_info"][0]), "segment 5 is given twice"),
        (segment(id=0), "segment 0 is void, which is no segment"),
        (segment(category_id=99), r"segments_info\[0\]: segment 5: category 99 is not in"),
        (segment(score="x"), "'score' must be a number"),
        (lambda c: first(c).update(file_name="00009.png"), "frame 00009 is not one of the video"),
        (lambda c: first(c).update(file_name="00001.png"), "frame 00001 is given twice"),
        (lambda c: first(c).update(file_name=3), "'file_name' must be a text"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "video clip is given twice"),
        (lambda c: c["annotations"][0].update(video_id="x"), "video x is not in"),
        (lambda c: c["videos"][0]["images"].append(c["videos"][0]["images"][0]), "3 different images in a list of 4"),
        (lambda c: c["videos"][0]["images"][0].update(width=9), "the images of video clip differ in size"),
        (lambda c: c["videos"].append(c["videos"][0]), "the video name 'clip' is given twice"),
        (lambda c: c.pop("annotations"), "holds no 'annotations', so it is not a panoptic json"),
    ],
)
def test_a_mistake_is_named(tmp_path, damage, words):
    content = written(tmp_path)
    damage(content)
    (tmp_path / "pred.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"pred\.json.*{words}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 3), np.uint8), "00000.png: an image of mode L; give a panoptic image"),
        (np.zeros((2, 4, 3), np.uint8), "00000.png: 4x2 pixels, the video has 3x2"),
        (None, "00000.png: no such file"),
    ],
)
def test_a_png_that_does_not_fit_is_named(tmp_path, image, words):
    written(tmp_path)
    path = tmp_path / "pan_pred" / "clip" / "00000.png"
    path.unlink() if image is None else Image.fromarray(image).save(path)
    with pytest.raises(InputError, match=words):
        read(tmp_path)


def test_what_does_not_fit_is_not_written(tmp_path):
    for id in (0, 1 << 24):
        with pytest.raises(InputError, match=f"clip: object {id} does not fit"):
            write_panoptic([video(masklet(id, {0: "111 111"}))], tmp_path / str(id))
    with pytest.raises(InputError, match="clip: object 1 is called 'cat'; the categories there are dog"):
        write_panoptic([video(masklet(1, {0: "111 111"}))], tmp_path / "c", categories={1: "dog"})


@pytest.fixture(params=sorted(GOLDEN.glob("set*")) or [None], ids=lambda p: p.name if p else "none")
def fixture_set(request, tmp_path):
    if request.param is None:
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    with tarfile.open(request.param / "data.tar.gz") as archive:
        archive.extractall(tmp_path / "data", filter="data")
    return tmp_path / "data"


def test_fixtures_survive(fixture_set, tmp_path):
    split = read_panoptic_split(fixture_set / "panoptic_gt.json")
    truth = list(read_panoptic(fixture_set / "panoptic_gt.json", fixture_set / "panomasksRGB"))
    found = list(read_panoptic(fixture_set / "pred" / "pred.json", fixture_set / "pred" / "pan_pred", split))
    for results, name in ((truth, "gt"), (found, "pred")):
        assert [r.name for r in results] == list(split.videos)
        frames = {n: v.frames for n, v in split.videos.items()}
        write_panoptic(results, tmp_path / name, frames, split.categories)
        again = read(tmp_path / name, split=split)
        if all(m.is_thing for r in results for m in r.masklets):
            assert [by_id(r) for r in again] == [by_id(r) for r in results]
        assert [things(r) for r in again] == [things(r) for r in results]


def things(result):
    return {m.id: (result.name_of(m), m.score, pixels(m)) for m in result.masklets if m.is_thing}
