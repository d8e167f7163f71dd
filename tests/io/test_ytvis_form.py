"""YouTube-VIS's and OVIS's forms, both ways."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from forms import NAMES, bits, drafts, frame, made, masklet, pixels, told, video
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.errors import InputError
from masklet.io.formats.ytvis import read_ytvis, read_ytvis_split, read_ytvis_truth, write_ytvis, write_ytvis_truth

GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", Path(__file__).parents[2] / "../shared/golden")) / "metrics/vis"
PAIRS = st.tuples(drafts("a"), drafts("b"))


@given(PAIRS)
def test_truth_keeps_all_but_ids_and_scores(tmp_path_factory, pair):
    pair, path = [made(d) for d in pair], tmp_path_factory.mktemp("y") / "gt.json"
    write_ytvis_truth(pair, path)
    read = read_ytvis_truth(path)
    assert [frame(r) for r in read] == [frame(r) for r in pair]
    for r, was in zip(read, pair, strict=True):
        assert told(r) == [(name, 1.0, seen) for name, _, seen in told(was)]
        assert all(m.is_thing for m in r.masklets)
    ids = [m.id for r in read for m in r.masklets]
    assert ids == list(range(1, len(ids) + 1))  # numbered over all videos


@given(PAIRS)
def test_results_keep_all_but_ids(tmp_path_factory, pair):
    pair, folder = [made(d) for d in pair], tmp_path_factory.mktemp("y")
    write_ytvis_truth(pair, folder / "gt.json")
    split = read_ytvis_split(folder / "gt.json")
    write_ytvis(pair, folder / "pred.json", split)
    read = read_ytvis(folder / "pred.json", split)
    assert [frame(r) for r in read] == [frame(r) for r in pair]
    assert [told(r) for r in read] == [told(r) for r in pair]
    assert [[m.id for m in r.masklets] for r in read] == [[*range(1, len(r.masklets) + 1)] for r in pair]


def test_results_read_without_a_split_are_called_by_their_ids(tmp_path):
    one = video(masklet(7, {1: "100 000"}, label=1, score=0.25))
    write_ytvis([one], tmp_path / "p.json")
    [read] = read_ytvis(tmp_path / "p.json")
    assert (read.name, read.size, read.length) == ("1", (2, 3), 3)
    assert told(read) == [("2", 0.25, pixels(one.masklets[0]))]


def test_any_mask_of_a_video_says_its_size(tmp_path):
    row = {"video_id": 4, "category_id": 1, "score": 0.5}
    nowhere, somewhere = {**row, "segmentations": [None]}, {**row, "segmentations": [{"size": [2, 3], "counts": "06"}]}
    for rows in ([nowhere, somewhere], [somewhere, nowhere]):
        (tmp_path / "p.json").write_text(json.dumps(rows))
        assert [(r.size, len(r.masklets)) for r in read_ytvis(tmp_path / "p.json")] == [((2, 3), 1)]


def test_the_three_ways_to_write_a_mask(tmp_path):
    content = truth()
    content["annotations"][0]["segmentations"] = [
        {"size": [4, 4], "counts": [5, 2, 2, 2, 5]},
        {"size": [4, 4], "counts": bits("0000 0110 0110 0000").counts.decode()},
        [[1, 1, 3, 1, 3, 3, 1, 3]],
        {"size": [4, 4], "counts": [16]},
    ]
    [read] = read_ytvis_truth(put(tmp_path, content))
    seen = read.masklets[0].sightings
    assert [seen[t].mask.counts for t in seen] == [bits("0000 0110 0110 0000").counts] * 3
    assert list(seen) == [0, 1, 2]  # an empty mask is as good as null
    assert (read.name, read.masklets[0].id, read.name_of(read.masklets[0])) == ("v", 0, "dog")


def test_an_object_without_a_pixel_is_left_out(tmp_path):
    content = truth()
    content["annotations"][0]["segmentations"] = [None, {"size": [4, 4], "counts": [16]}, None, None]
    [read] = read_ytvis_truth(put(tmp_path, content))
    assert read.masklets == ()


def test_a_file_written_again_says_the_same(tmp_path):
    path = put(tmp_path, truth())
    write_ytvis_truth(read_ytvis_truth(path), tmp_path / "again.json", {"v": ["00000", "00005", "00010", "00015"]})
    again, was = json.loads((tmp_path / "again.json").read_text()), truth()
    assert again["videos"] == [{**was["videos"][0], "id": 1}]
    for key in ("areas", "bboxes"):
        assert again["annotations"][0][key] == was["annotations"][0][key]
    listed = {"size": [4, 4], "counts": [5, 2, 2, 2, 5]}  # as in the official files
    assert again["annotations"][0]["segmentations"] == [
        None if s is None else listed for s in was["annotations"][0]["segmentations"]
    ]


def truth():
    mask = {"size": [4, 4], "counts": bits("0000 0110 0110 0000").counts.decode()}
    names = [f"v/{n:05d}.jpg" for n in (0, 5, 10, 15)]
    return {
        "videos": [{"id": 9, "height": 4, "width": 4, "length": 4, "file_names": names}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [
            {
                "id": 0, "video_id": 9, "category_id": 3, "segmentations": [mask, None, None, mask],
                "areas": [4, None, None, 4], "bboxes": [[1, 1, 2, 2], None, None, [1, 1, 2, 2]],
            }
        ],
    }  # fmt: skip


def put(folder: Path, content) -> Path:
    path = folder / "gt.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def annotation(**changes):
    return lambda c: c["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (annotation(video_id=8), r"annotations\[0\]: video 8 is not in"),
        (annotation(category_id=2), r"annotations\[0\]: video 9: category 2 is not in"),
        (annotation(segmentations=[None]), "1 segmentations for 4 frames"),
        (annotation(segmentations=[None, {"size": [4, 5], "counts": "`0"}, None, None]), r"video 9, frame 1.*\[4, 5\]"),
        (annotation(segmentations=[{"size": [4, 4], "counts": "zz"}, None, None, None]), "frame 0: .* no COCO run"),
        (annotation(segmentations=[{"size": [4, 4], "counts": [3]}, None, None, None]), "frame 0: .* do not fill"),
        (annotation(segmentations=[{"size": [4, 4]}, None, None, None]), "frame 0: a mask must be run lengths"),
        (annotation(segmentations=[{"size": [4, 4], "counts": 5}, None, None, None]), "frame 0: 'counts' must be"),
        (annotation(segmentations=[[[1, 1, 2, 2]], None, None, None]), "frame 0: a polygon needs three points"),
        (annotation(segmentations=[[], None, None, None]), "frame 0: a polygon needs three points"),
        (annotation(segmentations=[[[0, 0, 1e9, 0, 1, 1]], None, None, None]), "frame 0: a polygon lies far outside"),
        (annotation(segmentations=[["text"], None, None, None]), "frame 0: a polygon needs"),
        (annotation(id="x"), "'id' must be a whole number"),
        (annotation(id=True), "'id' must be a whole number"),
        (lambda c: c["annotations"].append(c["annotations"][0]), r"annotations\[1\]: the annotation id 0 is given twice"),
        (lambda c: c["annotations"].append(3), r"annotations\[1\]: must be an object"),
        (lambda c: c["videos"].append(c["videos"][0]), "the video name 'v' is given twice"),
        (lambda c: c["categories"].append({"id": 1, "name": "cow"}), r"categories\[2\]: .*'cow', id 1, is given twice"),
        (lambda c: c["videos"][0].update(length=3), "4 file_names for a length of 3"),
        (lambda c: c["videos"][0].update(height=0), "has no pixel"),
        (lambda c: c["videos"][0].pop("width"), "'width' is missing"),
        (lambda c: c.update(videos={}), "'videos' must be a list"),
        (lambda c: c.pop("categories"), "holds no 'categories', so it is not"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_truth_is_named(tmp_path, damage, words):
    content = truth()
    damage(content)
    path = put(tmp_path, content)
    with pytest.raises(InputError, match=rf"gt\.json.*{words}"):
        read_ytvis_truth(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ("[]", "holds no 'videos'"), ('{"a": 1, "a": 2}', "holds no 'videos'"), ("[" * 100_000, "not JSON")],
)  # fmt: skip
def test_what_is_no_truth_is_said(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_ytvis_truth(put(tmp_path, text))
    with pytest.raises(InputError, match="cannot be read"):
        read_ytvis_truth(tmp_path / "none.json")


def test_a_key_given_twice_is_named(tmp_path):
    text = json.dumps(truth()).replace('"id": 0', '"id": 0, "id": 1')
    with pytest.raises(InputError, match=r"annotations\[0\]: 'id' is given twice"):
        read_ytvis_truth(put(tmp_path, text))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video_id": 2}, r"\[0\]: video 2 is not in"),
        ({"score": None}, r"\[0\]: 'score' must be a number"),
        ({"score": float("nan")}, r"\[0\]: 'score' must be a number"),
        ({"category_id": "dog"}, r"\[0\]: 'category_id' must be a whole number"),
    ],
)
def test_a_mistake_in_results_is_named(tmp_path, changes, words):
    split = read_ytvis_split(put(tmp_path, truth()))
    row = {"video_id": 9, "category_id": 3, "score": 0.5, "segmentations": [None] * 4} | changes
    (tmp_path / "p.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=rf"p\.json: {words}"):
        read_ytvis(tmp_path / "p.json", split)


def test_results_that_say_no_size_are_refused(tmp_path):
    (tmp_path / "p.json").write_text('[{"video_id": 4, "category_id": 1, "score": 1, "segmentations": [null]}]')
    with pytest.raises(InputError, match="video 4 has no mask that says its size"):
        read_ytvis(tmp_path / "p.json")
    (tmp_path / "p.json").write_text('{"videos": []}')
    with pytest.raises(InputError, match="holds no list of objects"):
        read_ytvis(tmp_path / "p.json")


def test_what_a_split_does_not_have_is_not_written(tmp_path):
    split = read_ytvis_split(put(tmp_path, truth()))
    with pytest.raises(InputError, match=r"clip: no video of .*gt\.json"):
        write_ytvis([video()], tmp_path / "p.json", split)
    with pytest.raises(InputError, match="v: object 2 is called 'bird'; the categories there are dog, cat"):
        write_ytvis([video(masklet(2, {0: "1"}, 2), name="v", size=(1, 1))], tmp_path / "p.json", split)
    with pytest.raises(InputError, match="'clip' is given twice"):
        write_ytvis_truth([video(), video()], tmp_path / "gt2.json")
    with pytest.raises(InputError, match="clip: 1 different names for 3 frames"):
        write_ytvis_truth([video()], tmp_path / "gt2.json", {"clip": ["a", "a", "a"]})
    assert [p.name for p in tmp_path.iterdir()] == ["gt.json"]


def test_fixtures_survive(tmp_path):
    sets = sorted(GOLDEN.glob("*/gt.json"))
    if not sets:
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    for gt in sets:
        split, truth = read_ytvis_split(gt), read_ytvis_truth(gt)
        found = read_ytvis(gt.parent / "pred.json", split)
        for read, name in ((truth, "gt"), (found, "pred")):
            write_ytvis(read, tmp_path / name, split)
            again = read_ytvis(tmp_path / name, split)
            assert [(frame(r), told(r)) for r in again] == [(frame(r), told(r)) for r in read]
        write_ytvis_truth(truth, tmp_path / "gt2")
        assert [(frame(r), told(r)) for r in read_ytvis_truth(tmp_path / "gt2")] == [(frame(r), told(r)) for r in truth]


def test_categories_come_in_the_order_of_their_ids(tmp_path):
    assert read_ytvis_split(put(tmp_path, truth())).names == ("cat", "dog")
    assert NAMES == ("cat", "dog", "bird")
