"""BURST's form, both ways."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import mean

import pytest
from forms import bits, by_id, drafts, frame, made, masklet, told, video
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.errors import InputError
from masklet.io.formats.burst import read_burst, write_burst

GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", Path(__file__).parents[2] / "../shared/golden")) / "metrics/burst"
IDS = st.integers(0, 10**6)


@given(st.tuples(drafts("YFCC100M/a", IDS), drafts("b", IDS)))
def test_all_but_stuff_survives(tmp_path_factory, pair):
    pair, path = [made(d) for d in pair], tmp_path_factory.mktemp("b") / "b.json"
    write_burst(pair, path)
    read = read_burst(path)
    assert [frame(r) for r in read] == [frame(r) for r in pair]
    assert [by_id(r) for r in read] == [by_id(r) for r in pair]
    assert [told(r) for r in read] == [told(r) for r in pair]  # names and scores


def test_stuff_and_sightings_scores_are_lost(tmp_path):
    write_burst([video(masklet(4, {1: "100 000"}, score=0.75, is_thing=False))], tmp_path / "b.json")
    [read] = read_burst(tmp_path / "b.json")
    assert read.masklets[0].is_thing and read.masklets[0].sightings[1].score == 0.75


def content():
    return {
        "split": "val",
        "sequences": [
            {
                "id": 1, "seq_name": "s", "dataset": "HACS", "width": 3, "height": 2, "fps": 5,
                "all_image_paths": ["f1.jpg", "f2.jpg", "f3.jpg"],
                "annotated_image_paths": ["f1.jpg", "f3.jpg"],
                "track_category_ids": {"1": 918, "12": 4},
                "segmentations": [
                    {"1": {"rle": counts("100 000")}, "12": {"rle": counts("011 000"), "score": 0.5}},
                    {"12": {"rle": counts("011 011"), "score": 0.25}},
                ],
            }
        ],
    }  # fmt: skip


def counts(rows):
    return bits(rows).counts.decode()


def put(folder, told):
    path = folder / "burst.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return path


def test_annotated_frames_are_some_of_all(tmp_path):
    [read] = read_burst(put(tmp_path, content()))
    assert frame(read) == ("HACS/s", (2, 3), 3, 5.0)
    assert {m.id: list(m.sightings) for m in read.masklets} == {1: [0], 12: [0, 2]}
    assert {m.id: (read.name_of(m), m.score) for m in read.masklets} == {1: ("918", 1.0), 12: ("4", mean([0.5, 0.25]))}
    [named] = read_burst(put(tmp_path, content()), {4: "acorn", 918: "person", 5: "bus"})
    assert [named.name_of(m) for m in named.masklets] == ["person", "acorn"]
    write_burst([named], tmp_path / "again.json", {"HACS/s": ["f1", "f2", "f3"]}, {4: "acorn", 918: "person"})
    again, was = json.loads((tmp_path / "again.json").read_text())["sequences"][0], content()["sequences"][0]
    assert all(again[k] == was[k] for k in set(was) - {"annotated_image_paths", "segmentations"})
    assert again["segmentations"][1] == {}  # f2, which counts as annotated now
    assert again["segmentations"][0]["1"] == {"rle": counts("100 000"), "score": 1.0}


def sequence(**changes):
    return lambda c: c["sequences"][0].update(changes)


def page(**tracks):
    return lambda c: c["sequences"][0]["segmentations"][1].update(tracks)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (page(**{"12": {"rle": "zz"}}), "HACS/s, f3.jpg, track 12: .*run lengths"),
        (page(**{"12": {"rle": counts("1")}}), "HACS/s, f3.jpg, track 12: run lengths fill 1 pixels"),
        (page(**{"12": {}}), "HACS/s, f3.jpg, track 12: 'rle' is missing"),
        (page(**{"12": {"rle": counts("100 000"), "score": "x"}}), "track 12: 'score' must be a number"),
        (page(**{"13": {"rle": counts("100 000")}}), "f3.jpg, track 13: the track is not in 'track_category_ids'"),
        (sequence(annotated_image_paths=["f1.jpg", "f9.jpg"]), "HACS/s: the annotated image f9.jpg is not in"),
        (sequence(annotated_image_paths=["f1.jpg"]), "HACS/s: 2 segmentations for 1 annotated images"),
        (sequence(annotated_image_paths=["f1.jpg", "f1.jpg"]), "HACS/s: an image is listed twice"),
        (sequence(track_category_ids={"1": "cat", "12": 1}), "track_category_ids: '1' must be a whole number"),
        (sequence(track_category_ids={"a": 1}), "track_category_ids: track a is of category 1"),
        (sequence(fps="fast"), "HACS/s: 'fps' must be a number"),
        (sequence(height=None), "HACS/s: 'height' must be a whole number"),
        (lambda c: c["sequences"].append(c["sequences"][0]), "the video name 'HACS/s' is given twice"),
        (lambda c: c.pop("sequences"), "holds no 'sequences', so it is not a BURST json"),
    ],
)
def test_a_mistake_is_named(tmp_path, damage, words):
    told = content()
    damage(told)
    with pytest.raises(InputError, match=rf"burst\.json.*{words}"):
        read_burst(put(tmp_path, told))


def test_a_track_given_twice_is_named(tmp_path):
    text = json.dumps(content()).replace('"score": 0.25}', '"score": 0.25}, "12": {"rle": "x"}')
    with pytest.raises(InputError, match=r"segmentations\[1\]: '12' is given twice"):
        read_burst(put(tmp_path, text))
    told = content()
    told["sequences"][0]["track_category_ids"]["012"] = 4
    told["sequences"][0]["segmentations"][1]["012"] = {"rle": counts("100 000")}
    with pytest.raises(InputError, match=r"f3\.jpg, track 012: the track is given twice"):
        read_burst(put(tmp_path, told))


def test_a_category_that_the_data_set_does_not_have_is_not_written(tmp_path):
    with pytest.raises(InputError, match="clip: object 4 is called 'cat'; the categories there are acorn"):
        write_burst([video(masklet(4, {1: "100 000"}))], tmp_path / "b.json", categories={4: "acorn"})
    with pytest.raises(InputError, match="'clip' is given twice"):
        write_burst([video(), video()], tmp_path / "b.json")
    with pytest.raises(InputError, match="track 1 is of category 918"):
        read_burst(put(tmp_path, content()), {4: "acorn"})


def test_fixtures_survive(tmp_path):
    files = sorted(GOLDEN.glob("*/**/*.json"))
    if not files:
        pytest.skip(f"no fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    for path in [f for f in files if f.name != "expected.json"]:
        read = read_burst(path)
        write_burst(read, tmp_path / "b.json")
        again = read_burst(tmp_path / "b.json")
        assert [(frame(r), by_id(r), told(r)) for r in again] == [(frame(r), by_id(r), told(r)) for r in read]
