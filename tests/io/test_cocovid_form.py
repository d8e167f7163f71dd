"""COCO-VID's form, both ways."""

from __future__ import annotations

import json

import pytest
from forms import bits, by_id, drafts, frame, made, masklet, told, video
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.errors import InputError
from masklet.io.formats.cocovid import read_cocovid, write_cocovid

IDS = st.integers(0, 10**6)


@given(st.tuples(drafts("a", IDS), drafts("b/c", IDS)))
def test_all_but_stuff_survives(tmp_path_factory, pair):
    pair, path = [made(d) for d in pair], tmp_path_factory.mktemp("c") / "c.json"
    write_cocovid(pair, path)
    read = read_cocovid(path)
    assert [frame(r) for r in read] == [frame(r) for r in pair]
    assert [by_id(r) for r in read] == [by_id(r) for r in pair]
    assert [told(r) for r in read] == [told(r) for r in pair]
    again = path.with_name("again.json")
    write_cocovid(read, again)
    ours, theirs = json.loads(again.read_text()), json.loads(path.read_text())
    assert {k: v for k, v in ours.items() if k != "categories"} == {
        k: v for k, v in theirs.items() if k != "categories"
    }


def test_a_worked_example(tmp_path):
    write_cocovid([video(masklet(5, {1: "011 011"}, 1, 0.5, False))], tmp_path / "c.json", {"clip": ["x", "y", "z"]})
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["images"][1] == {
        "id": 2, "video_id": 1, "frame_id": 1, "file_name": "clip/y.jpg", "height": 2, "width": 3,
    }  # fmt: skip
    assert content["annotations"] == [
        {
            "id": 1, "image_id": 2, "video_id": 1, "instance_id": 5, "category_id": 2, "score": 0.5, "iscrowd": 0,
            "area": 4, "bbox": [1, 0, 2, 2],
            "segmentation": {"size": [2, 3], "counts": bits("011 011").counts.decode()},
        }
    ]  # fmt: skip
    [read] = read_cocovid(tmp_path / "c.json")
    assert read.masklets[0].is_thing  # lost


def content():
    image = {"video_id": 4, "height": 2, "width": 3}
    mask = {"size": [2, 3], "counts": bits("011 011").counts.decode()}
    return {
        "videos": [{"id": 4, "name": "v"}, {"id": 5, "name": "unseen"}],
        "categories": [{"id": 7, "name": "car"}, {"id": 3, "name": "bus"}],
        "images": [{"id": 11, "frame_id": 1, **image}, {"id": 10, "frame_id": 0, **image}],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 7, "track_id": 0, "segmentation": mask},
            {"id": 2, "image_id": 10, "category_id": 7, "track_id": 0, "segmentation": [[0, 0, 3, 0, 3, 2, 0, 2]]},
        ],
    }


def put(folder, told):
    path = folder / "cocovid.json"
    path.write_text(json.dumps(told))
    return path


def test_ground_truth_with_track_ids_and_polygons(tmp_path):
    [read] = read_cocovid(put(tmp_path, content()))  # a video without an image has no size
    assert frame(read) == ("v", (2, 3), 2, 25.0)
    assert by_id(read) == {0: {0: bits("111 111").counts, 1: bits("011 011").counts}}
    assert (read.name_of(read.masklets[0]), read.masklets[0].score) == ("car", 1.0)


def change(key, n, **changes):
    return lambda c: c[key][n].update(changes)


def twice(key):
    return lambda c: c[key].append(c[key][0])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change("annotations", 1, image_id=9), r"annotations\[1\]: image 9 is not in 'images'"),
        (change("annotations", 1, category_id=9), r"annotations\[1\]: category 9 is not in 'categories'"),
        (change("annotations", 1, category_id=3), "v, frame 0, object 0 is of category 3, and of another"),
        (change("annotations", 1, segmentation=[[1]]), r"annotations\[1\]: v, frame 0, object 0: a polygon"),
        (change("annotations", 1, segmentation={"size": [2, 3], "counts": "zz"}), "v, frame 0, object 0: .*run lengths"),
        (change("annotations", 1, track_id=-1), "'track_id' must be a whole number"),
        (change("annotations", 1, score="high"), "'score' must be a number"),
        (twice("annotations"), r"annotations\[2\]: v, frame 1, object 0 is given twice"),
        (twice("images"), r"images\[2\]: the image id 11 is given twice"),
        (twice("videos"), "the video name 'v' is given twice"),
        (twice("categories"), r"categories\[2\]: the category 'car', id 7, is given twice"),
        (change("images", 1, video_id=9), r"images\[1\]: video 9 is not in 'videos'"),
        (change("images", 1, frame_id=1), r"images\[1\]: frame 1 of v is given twice"),
        (change("images", 1, height=3), r"images\[1\]: frame 0 of v is \(3, 3\)"),
        (change("images", 1, frame_id=-1), "'frame_id' must be a whole number"),
        (lambda c: c["annotations"][0].pop("track_id"), "'track_id' is missing"),
        (lambda c: c.pop("images"), "holds no 'images', so it is not a COCO-VID json"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path, damage, words):
    told = content()
    damage(told)
    with pytest.raises(InputError, match=rf"cocovid\.json.*{words}"):
        read_cocovid(put(tmp_path, told))


def test_two_results_of_one_name_are_not_written(tmp_path):
    with pytest.raises(InputError, match="'clip' is given twice"):
        write_cocovid([video(), video()], tmp_path / "c.json")
