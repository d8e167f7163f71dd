"""`masklet export` and `masklet edit`, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source


def make_result(name: str = "clip", length: int = 3) -> VideoResult:
    masks = [np.zeros((8, 10), bool) for _ in range(2)]
    masks[0][1:4, 1:5] = masks[1][5:, 6:] = True
    seen = [
        {t: Sighting(Rle.encode_pixels(m), Source.DETECTED, 0.5, n) for t in range(length)} for n, m in enumerate(masks)
    ]
    objects = Masklet(1, seen[0], 0, 0.5), Masklet(2, seen[1], 1, 0.75)
    return VideoResult(name, (8, 10), length, 25.0, objects, ("cat", "dog"), Provenance("hand"))


def write_frames(folder: Path, length: int = 3) -> Path:
    folder.mkdir(parents=True)
    for t in range(length):
        Image.fromarray(np.full((8, 10, 3), 50 * t, np.uint8)).save(folder / f"f{t}.png")
    return folder


def run(*words: Any) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "out" / name).mkdir(parents=True)
        make_result(name).save(tmp_path / "out" / name / "masklets.json")
        write_frames(tmp_path / "videos" / name)
    return tmp_path


def test_several_results_with_their_videos(saved: Path) -> None:
    code, text = run(
        "export", "coco", saved / "out", "--frames", saved / "videos", "-o", saved / "coco", "--set", "polygons=true"
    )
    assert code == 0, text
    assert len(list((saved / "coco" / "images").glob("*/f*.jpg"))) == 6
    content = json.loads((saved / "coco" / "annotations.json").read_text())
    assert content["annotations"][0]["segmentation"] == [[1, 1, 5, 1, 5, 4, 1, 4]]
    videos = [w for name in ("b", "a") for w in ("--frames", saved / "videos" / name)]
    results = [saved / "out" / name for name in ("b", "a")]
    assert run("export", "davis", *results, *videos, "-o", saved / "davis", "-q")[0] == 0
    assert (saved / "davis" / "a" / "davis" / "f2.png").is_file()
    assert (saved / "davis" / "a" / "images" / "a" / "f2.jpg").is_file()


def test_frames_are_read_as_the_run_read_them(saved: Path) -> None:
    make_result("a", 2).save(saved / "half.json")
    words = ("export", "cocovid", saved / "half.json", "--frames", saved / "videos" / "a", "-o", saved / "x")
    code, text = run(*words)
    assert code == 2 and "has 3 frames, the result a 2" in text.replace("\n", " ")
    assert run(*words, "--stride", "2")[0] == 0
    assert [p.name for p in sorted((saved / "x" / "a" / "images" / "a").iterdir())] == ["f0.jpg", "f2.jpg"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["export", "coco", "out", "-o", "out"], "would replace what they are made from"),
        (["export", "coco", "out", "--frames", "videos/a", "-o", "videos", "--overwrite"], "would replace what they are made from"),
        (["export", "coco", "out", "--frames", "videos/a", "-o", "x"], "0 videos called a there"),
        (["export", "coco", "out", "--frames", "videos/a", "--frames", "videos/b", "--frames", "videos", "-o", "x"], "3 videos for 2 results"),
        (["export", "coco", "out/a", "--frames", "nowhere", "-o", "x"], "nowhere"),
        (["export", "coco", "out/a", "-o", "x", "--set", "tolerance"], "write it as NAME=VALUE"),
        (["export", "coco", "out/a", "out/a", "-o", "x"], "a: two results of this name"),
        (["export", "coco", "empty", "-o", "x"], "no masklets.json there"),
        (["edit", "out/a", "--do", "drop 1"], "no folder to write to"),
        (["edit", "out", "--do", "drop 1", "-o", "x"], "holds 2 results; edit one"),
        (["edit", "out/a", "--do", "drop 5", "-o", "x"], "no object 5; there are: 1, 2"),
        (["edit", "out/a", "--do", "drop 1", "-o", "out/a", "--overwrite"], "would replace what they are made from"),
        (["edit", "out/a", "--undo", "1", "-o", "x"], "0 edits can be taken back, not 1; undo needs the unedited.json"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_changes_nothing(
    words: list[str], text: str, saved: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(saved)
    (saved / "empty").mkdir()
    before = {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    code, told = run(*words)
    assert code == 2 and text in told and told.count("masklet:") == 1
    assert {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()} == before


def test_nothing_is_replaced_unasked(saved: Path) -> None:
    words = ("export", "mot", saved / "out", "-o", saved / "x")
    assert run(*words)[0] == 0
    code, text = run(*words)
    assert code == 2 and "add --overwrite" in text
    assert run(*words, "--overwrite")[0] == 0


def test_edits_and_their_undo(saved: Path) -> None:
    original = VideoResult.load(saved / "out" / "a" / "masklets.json")
    code, _ = run("edit", saved / "out" / "a", "--do", "rename 1 big cat", "--do", "split 2 1", "-o", saved / "one")
    assert code == 0
    one = VideoResult.load(saved / "one" / "masklets.json")
    assert [(m.id, one.name_of(m)) for m in one.masklets] == [(1, "big cat"), (2, "dog"), (3, "dog")]
    assert run("edit", saved / "one")[1].splitlines() == ["rename 1 'big cat'", "split 2 1"]
    assert run("edit", saved / "out" / "a")[1] == "no edits\n"
    assert run("edit", saved / "one", "--undo", "1", "--do", "drop 1", "-o", saved / "two")[0] == 0
    two = VideoResult.load(saved / "two" / "masklets.json")
    assert two.provenance.edits == ("rename 1 'big cat'", "drop 1") and [m.id for m in two.masklets] == [2]
    assert run("edit", saved / "two", "--undo", "2", "-o", saved / "three")[0] == 0
    assert VideoResult.load(saved / "three" / "masklets.json") == original
    assert run("edit", saved / "two", "--undo", "3", "-o", saved / "four")[0] == 2
    replace(original, name="other").save(saved / "two" / "unedited.json")
    code, text = run("edit", saved / "two", "--undo", "1", "-o", saved / "four")
    assert code == 2 and "is not what" in text and not (saved / "four").exists()


def test_exports_and_edits_load_no_torch(saved: Path) -> None:
    commands: list[list[Any]] = [
        ["export", form, saved / "out", "--frames", saved / "videos", "-o", saved / form]
        for form in ("cocovid", "coco", "cvat-video", "overlay", "table")
    ]
    commands += [["export", "coco", "--help"], ["edit", saved / "out" / "a", "--do", "smooth", "-o", saved / "e"]]
    calls = "".join(f"    call({[str(w) for w in words]!r})\n" for words in commands)
    code = (
        "import sys\nfrom masklet.cli import app\ndef call(words):\n    try:\n        app(words, standalone_mode=False)\n"
        f"    except SystemExit as end:\n        assert not end.code, words\nif True:\n{calls}print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["False"], done.stderr
    assert (saved / "overlay" / "a.mp4").is_file()


def test_help_says_the_settings() -> None:
    code, text = run("export", "overlay", "--help")
    assert code == 0 and "--set opacity=0.4" in text and "--set side_by_side=false" in text
    assert all(name in run("export", "--help")[1] for name in ("cvat-images", "label-studio-video", "davis", "table"))
    assert "fill-gaps" in run("edit", "--help")[1] and "min_frames=N" in run("edit", "--help")[1].replace("\n", "")


def test_a_form_that_is_not_there_names_those_that_are() -> None:
    answer = CliRunner().invoke(app, ["export", "cvat", "r", "-o", "x"])
    assert answer.exit_code == 2 and "no form 'cvat'; did you mean cvat" in answer.stderr
