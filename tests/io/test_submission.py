"""`masklet export submission`: server-ready zips, and what is said about results that do not fit."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from forms import by_id, masklet, told, video
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.errors import InputError
from masklet.io.formats.davis import read_davis
from masklet.io.formats.panoptic import read_panoptic
from masklet.io.formats.submission import PARTS, Submission, SubmissionTarget, find_result_files, read_dataset_split
from masklet.io.formats.ytvis import read_ytvis

NAMES = ("00000", "00005", "00010")
VOS = ("youtube-vos", "mose", "lvos")


@app.command("other")
def other() -> None:
    """So that the app has two commands, as the whole one."""


def export(*arguments):
    return CliRunner().invoke(app, ["export", "submission", *map(str, arguments)])


def one(name, **more):
    seen = masklet(2, {0: "110 110", 2: "011 011"}, 1, 0.5), masklet(7, {1: "100 000"}, 0, 0.25, is_thing=False)
    return replace(video(*seen, name=name), **more)


@pytest.fixture
def there(tmp_path):
    """Results of two videos as masklet run leaves them, their frames, and lists of the split."""
    for name in ("b", "a"):
        put(tmp_path, one(name))
        (tmp_path / "frames" / name).mkdir(parents=True)
        for frame in NAMES:
            Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "frames" / name / f"{frame}.jpg")
    (tmp_path / "val.txt").write_text("a\nb\n")
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {"a": {"objects": {}}, "b": {}}}))
    (tmp_path / "ytvis.json").write_text(json.dumps(ytvis()))
    (tmp_path / "vipseg.json").write_text(json.dumps(vipseg()))
    return tmp_path


def put(folder, result):
    (folder / "out" / result.name).mkdir(parents=True, exist_ok=True)
    result.save(folder / "out" / result.name / "masklets.json")


def ytvis():
    files = {n: [f"{n}/{f}.jpg" for f in NAMES] for n in "ab"}
    return {
        "videos": [{"id": i, "file_names": files[n], "height": 2, "width": 3, "length": 3} for n, i in (("b", 4), ("a", 9))],
        "categories": [{"id": 20, "name": "cat"}, {"id": 10, "name": "dog"}, {"id": 30, "name": "cow"}],
    }  # fmt: skip


def vipseg():
    images = [{"id": f, "file_name": f"{f}.jpg", "height": 2, "width": 3} for f in NAMES]
    categories = [{"id": 0, "name": "cat", "isthing": 0}, {"id": 5, "name": "dog", "isthing": 1}]
    return {"videos": [{"video_id": n, "images": images} for n in "ab"], "annotations": [], "categories": categories}


LISTS = {"ytvis": "ytvis.json", "ovis": "ytvis.json", "vipseg": "vipseg.json"} | dict.fromkeys(VOS, "val.txt")


def arguments(there, form, out="x.zip"):
    return form, there / "out", "--out", there / out, "--videos", there / LISTS[form], "--frames", there / "frames"


@pytest.mark.parametrize("form", list(PARTS))
def test_the_same_results_give_the_same_bytes(there, form):
    assert export(*arguments(there, form)).exit_code == 0
    time.sleep(2.1 if form == "vipseg" else 0)  # a zip counts in two seconds
    rest = arguments(there, form, "y.zip")[2:]
    assert export(form, there / "out" / "b" / "masklets.json", there / "out" / "a", *rest).exit_code == 0
    assert (there / "x.zip").read_bytes() == (there / "y.zip").read_bytes()
    with ZipFile(there / "x.zip") as archive:
        assert archive.testzip() is None
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.external_attr >> 16 for i in archive.infolist()} == {0o644}
        assert not any(i.extra for i in archive.infolist())  # no 64 bit form where none is needed


@pytest.mark.parametrize("form", ["ytvis", "ovis"])
def test_ytvis_has_the_splits_ids(there, form):
    assert export(*arguments(there, form)).exit_code == 0
    with ZipFile(there / "x.zip") as archive:
        assert archive.namelist() == ["results.json"]
        rows = json.loads(archive.read("results.json"))
    assert [(r["video_id"], r["category_id"], r["score"]) for r in rows] == [
        (9, 10, 0.5), (9, 20, 0.25), (4, 10, 0.5), (4, 20, 0.25),
    ]  # fmt: skip
    (there / "results.json").write_text(json.dumps(rows))
    back = read_ytvis(there / "results.json", read_dataset_split(there / "ytvis.json"))
    assert [(r.name, told(r)) for r in back] == [(n, told(one(n))) for n in "ba"]


@pytest.mark.parametrize("form", VOS)
@pytest.mark.parametrize("videos", ["val.txt", "meta.json", "ytvis.json"])
def test_vos_has_palette_images_under_the_frames_names(there, form, videos):
    result = export(
        form, there / "out", "-o", there / "x.zip", "--videos", there / videos, "--frames", there / "frames"
    )
    assert result.exit_code == 0 and result.stdout == f"{there / 'x.zip'}\n"
    with ZipFile(there / "x.zip") as archive:
        assert archive.namelist() == [f"Annotations/{v}/{f}.png" for v in "ab" for f in NAMES]
        assert Image.open(BytesIO(archive.read(archive.namelist()[0]))).mode == "P"
        archive.extractall(there / "unpacked")
    assert by_id(read_davis(there / "unpacked" / "Annotations" / "b")) == by_id(one("b"))


def test_a_video_without_a_result_is_a_problem_unless_it_is_allowed(there):
    shutil.rmtree(there / "out" / "b")
    words = arguments(there, "ytvis")
    told = export(*words)
    assert told.exit_code == 2 and not (there / "x.zip").exists()
    assert export(*words, "--allow-missing").exit_code == 0 and (there / "x.zip").is_file()


def test_vipseg_has_pages_and_their_segments(there):
    assert export(*arguments(there, "vipseg")).exit_code == 0
    with ZipFile(there / "x.zip") as archive:
        assert archive.namelist() == [*(f"pan_pred/{v}/{f}.png" for v in "ab" for f in NAMES), "pred.json"]
        archive.extractall(there / "u")
    assert json.loads((there / "u" / "pred.json").read_text()).keys() == {"annotations"}
    split = read_dataset_split(there / "vipseg.json")
    back = list(read_panoptic(there / "u" / "pred.json", there / "u" / "pan_pred", split))
    assert [(r.name, told(r)) for r in back] == [(n, told(one(n))) for n in "ab"]
    assert [m.is_thing for m in back[0].masklets] == [True, False]


def test_frames_names_come_from_the_source_where_nothing_else_says_them(there):
    for name in "ab":
        result = one(name)
        put(there, replace(result, provenance=replace(result.provenance, source=str(there / "frames" / name))))
    assert export("mose", there / "out", "-o", there / "x.zip").exit_code == 0
    with ZipFile(there / "x.zip") as archive:
        assert archive.namelist()[1] == "Annotations/a/00005.png"


def problems(there, form, videos=None, frames=True, **more):
    target = SubmissionTarget(
        form, read_dataset_split(there / (videos or LISTS[form])), there / "frames" if frames else None
    )
    return list(Submission.check(target, find_result_files([there / "out"]), **more).problems)


def test_every_problem_is_one_sentence(there):
    put(there, one("c"))
    put(there, replace(one("a"), length=4))
    (there / "val.txt").write_text("a b d e")
    said = problems(there, "mose")
    assert said == [
        "a: 4 frames, not the 3 of the split; run it anew",
        f"c: not a video of {there / 'val.txt'}; leave it out",
        f"d: no result for this video of {there / 'val.txt'}; run it too",
        f"e: no result for this video of {there / 'val.txt'}; run it too",
    ]
    assert problems(there, "mose", allow_missing=True) == said[:2]
    run = export(*arguments(there, "mose"))
    assert run.exit_code == 2 and run.stderr.splitlines() == [f"masklet: {s}" for s in said]
    assert not (there / "x.zip").exists()


@pytest.mark.parametrize("form", ["mose", "ytvis", "vipseg"])
def test_a_size_that_differs_is_named(there, form):
    put(there, replace(video(name="a", size=(3, 3))))
    assert problems(there, form) == ["a: 3x3, not the 3x2 of the split; run it anew"]


def test_missing_videos_can_be_allowed(there):
    (there / "val.txt").write_text("a b d")
    assert export(*arguments(there, "lvos")).exit_code == 2
    assert export(*arguments(there, "lvos"), "--allow-missing").exit_code == 0


def test_two_results_of_one_video_are_named(there):
    (there / "again").mkdir()
    one("a").save(there / "again" / "masklets.json")
    target = SubmissionTarget("mose", read_dataset_split(there / "val.txt"), there / "frames")
    checked = Submission.check(target, find_result_files([there / "out", there / "again"]))
    assert checked.problems == (
        f"a: two results, {there / 'out/a/masklets.json'} and {there / 'again/masklets.json'}; leave one out",
    )
    with pytest.raises(InputError, match="a: two results"):
        checked.write(there / "x.zip")


@pytest.mark.parametrize("form", ["ytvis", "vipseg"])
def test_a_category_that_the_split_does_not_have_is_named(there, form):
    put(there, replace(one("a"), categories=("cat", "gnu", "bird")))
    assert problems(there, form) == [
        f"a: objects are called gnu, which is no category of {there / LISTS[form]}; rename them, such as by `masklet edit`",
    ]


def test_an_id_that_does_not_fit_is_named(there):
    put(there, video(masklet(300, {0: "111 111"}), name="a"))
    assert problems(there, "lvos") == ["a: object 300 does not fit into a palette PNG, which holds ids 1 to 255"]
    put(there, video(masklet(1 << 24, {0: "111 111"}), name="a"))
    assert problems(there, "vipseg") == ["a: object 16777216 does not fit; panoptic ids are 1 to 16777215"]


def test_names_of_frames_are_asked_for(there, monkeypatch):
    monkeypatch.chdir(there / "frames" / "a")  # whose pictures are not meant
    assert problems(there, "mose", frames=False) == [
        f"{n}: no frames in '' that say their names; give the folder by `frames`" for n in "ab"
    ]
    (there / "frames" / "a" / "00000.jpg").write_bytes(b"no picture")
    assert "a/00000.jpg: not an image that can be read" in problems(there, "mose")[0]


@pytest.mark.parametrize("form", ["ytvis", "ovis", "vipseg"])
def test_ids_are_asked_for(there, form):
    for videos in ([], ["--videos", there / "val.txt"]):
        run = export(form, there / "out", "-o", there / "x.zip", *videos)
        assert run.exit_code == 2 and f"{form} needs the ids of videos and categories" in run.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ("{}", "'videos' is missing"),
        ('{"videos": []}', "lists no video|holds no 'categories'"),
        ('{"videos": [{"id": 1}], "categories": []}', "'file_names' is missing"),
        ('{"videos": 3}', "'videos' must be a list"),
    ],
)
def test_a_list_that_is_none_is_named(there, text, words):
    (there / "list.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_dataset_split(there / "list.json")


def test_a_txt_list_that_is_none_is_named(there):
    for text, words in (("", "lists no video"), ("a b a", "the video name 'a' is given twice")):
        (there / "list.txt").write_text(text)
        with pytest.raises(InputError, match=words):
            read_dataset_split(there / "list.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset_split(there / "none.txt")


def test_nothing_is_replaced_or_left_half_done(there, monkeypatch):
    given = arguments(there, "mose")
    assert export(*given).exit_code == 0
    before = (there / "x.zip").read_bytes()
    run = export(*given)
    assert run.exit_code == 2 and "is there already; add --overwrite" in run.stderr
    monkeypatch.setattr("masklet.io.formats.submission.encode_davis_pngs", lambda result: 1 / 0)
    run = export(*given, "--overwrite")
    assert isinstance(run.exception, ZeroDivisionError)
    assert (there / "x.zip").read_bytes() == before
    assert not [p for p in there.iterdir() if p.name.endswith(".partial")]


def test_results_that_are_not_there_are_named(there):
    (there / "empty").mkdir()
    for path in ("empty", "nowhere"):
        run = export("mose", there / path, "-o", there / "x.zip")
        assert run.exit_code == 2 and f"{path}: no masklets.json there" in run.stderr
    (there / "empty" / "masklets.json").write_text("{}")
    assert "not a masklet result" in export("mose", there / "empty", "-o", there / "x.zip").stderr


def test_one_video_is_in_memory_at_a_time(there, monkeypatch):
    from masklet.core.result import VideoResult

    loaded = []
    load = VideoResult.load
    monkeypatch.setattr(VideoResult, "load", staticmethod(lambda path: loaded.append(path.parent.name) or load(path)))
    written = []
    part = PARTS["mose"]
    add = lambda result, *rest: written.append((result.name, list(loaded))) or part.add(result, *rest)  # noqa: E731
    monkeypatch.setattr("masklet.io.formats.submission.PARTS", {**PARTS, "mose": replace(part, add=add)})
    target = SubmissionTarget("mose", read_dataset_split(there / "val.txt"), there / "frames")
    checked = Submission.check(target, find_result_files([there / "out"]))
    loaded.clear()
    checked.write(there / "x.zip")
    assert written == [("a", ["a"]), ("b", ["a", "b"])]  # each is read when it is its turn
