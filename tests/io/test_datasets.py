"""Data sets as they are unpacked: their videos, and what they say of objects in first frames."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.annotations import VideoFrames
from masklet.core.errors import InputError
from masklet.io.prompts import read_dataset_prompts
from masklet.io.video.datasets import LAYOUTS, guess_layouts, list_dataset_videos, list_prompted_videos
from masklet.io.video.sources import open_video

H, W = 16, 24


def put_frames(folder: Path, count: int = 3, step: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(0, count * step, step):
        image = np.full((H, W, 3), 40, np.uint8)
        image[4:10, 3 + t % 5 : 11 + t % 5] = 200
        Image.fromarray(image).save(folder / f"{t:05d}.jpg", quality=95)


def put_labels(path: Path, *ids: int, mode: str = "P") -> None:
    """A label image in which objects stand beside one another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((H, W), np.uint8)
    for n, id in enumerate(ids):
        values[4:10, 3 + 8 * n : 9 + 8 * n] = id
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(path)


PLACES = {  # where tiny roots have a video, with what is to be given for its part
    "davis": "JPEGImages/480p/{}",
    "ytvos": "valid/JPEGImages/{}",
    "mose": "valid/JPEGImages/{}",
    "lvos": "JPEGImages/{}",
    "sav": "JPEGImages_24fps/{}",
    "ytvis": "valid/JPEGImages/{}",
    "ovis": "valid/{}",
    "vipseg": "imgs/{}",
    "vost": "JPEGImages/{}",
    "pumavos": "JPEGImages/{}",
    "vspw": "data/{}/origin",
    "ref-ytvos": "valid/JPEGImages/{}",
    "burst": "frames/val/YFCC100M/{}",
    "kitti-mots": "training/image_02/{}",
}


def test_every_layout_has_a_place() -> None:
    assert set(PLACES) == set(LAYOUTS)


@pytest.mark.parametrize("dataset", PLACES)
def test_the_videos_of_a_root(dataset: str, tmp_path: Path) -> None:
    for name in ("b10", "b9"):
        put_frames(tmp_path / PLACES[dataset].format(name))
    (tmp_path / PLACES[dataset].split("{}")[0] / "readme.txt").write_text("no video")
    found = [Path(video.source) for video in list_dataset_videos(dataset, tmp_path)]
    assert found == [tmp_path / PLACES[dataset].format(name) for name in ("b9", "b10")]
    assert dataset in guess_layouts(tmp_path) or LAYOUTS[dataset].frames == ("JPEGImages",)
    with pytest.raises(InputError, match=r"or, as it may be .* the root with dataset="):
        open_video(tmp_path)


def test_a_list_says_which_videos_are_meant(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put_frames(tmp_path / "JPEGImages/480p" / name, 1)
    lists = tmp_path / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("c\nb\n")
    (lists / "train.txt").write_text("a\n")
    (tmp_path / "own.txt").write_text("b\nx\ny\n")
    for dataset, names in (("davis", "cb"), ("davis:train", "a")):
        assert [Path(v.source).name for v in list_dataset_videos(dataset, tmp_path)] == list(names)
    for dataset, words in (
        (f"davis:{tmp_path / 'own.txt'}", "no frames of x, y"),
        ("davis:nowhere", "no ImageSets/2017/nowhere.txt or"),
        ("davies", "no such data set; there are: davis, ytvos"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            list_dataset_videos(dataset, tmp_path)
    (lists / "val.txt").write_text("../../elsewhere\n")
    with pytest.raises(InputError, match="leads out of its folder"):
        list_dataset_videos("davis", tmp_path)


def test_one_of_several_parts_is_asked_for(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        put_frames(tmp_path / part / "JPEGImages" / part, 1)
    with pytest.raises(InputError, match=r"several parts of MOSE.*: dataset='mose:valid', dataset='mose:train'"):
        list_dataset_videos("mose", tmp_path)
    assert [Path(v.source).name for v in list_dataset_videos("mose:train", tmp_path)] == ["train"]
    with pytest.raises(InputError, match="holds no JPEGImages_24fps, as SA-V has it"):
        list_dataset_videos("sav", tmp_path)


def told(dataset: str, root: Path, count: int = 3, step: int = 1) -> dict[int, list[int]]:
    """Frames in which objects are given."""
    [video] = list_prompted_videos(dataset, root)
    frames = VideoFrames("v", count, [f"{t:05d}" for t in range(0, count * step, step)])
    return {t: sorted(marks) for t, marks in read_dataset_prompts(video).select(frames).items()}


@pytest.mark.parametrize(("dataset", "expected"), [("mose", {0: [1, 3]}), ("ytvos", {0: [1, 3], 2: [2]})])
def test_objects_are_given_in_the_first_image_or_where_they_first_appear(
    dataset: str, expected: dict[int, list[int]], tmp_path: Path
) -> None:
    put_frames(tmp_path / "JPEGImages/v", step=5)
    put_labels(tmp_path / "Annotations/v/00000.png", 1, 3)
    put_labels(tmp_path / "Annotations/v/00010.png", 1, 2)
    assert told(dataset, tmp_path, step=5) == expected


def test_objects_of_sa_v_have_a_folder_each_and_ids_from_1(tmp_path: Path) -> None:
    put_frames(tmp_path / "JPEGImages_24fps/v", 9)
    for object, first in (("000", 0), ("001", 4)):
        for t in range(0, 9, 4):
            put_labels(tmp_path / f"Annotations_6fps/v/{object}/{t:05d}.png", *([255] if t >= first else []), mode="L")
    assert told("sav", tmp_path, 9) == {0: [1], 4: [2]}


def test_the_one_object_of_davis_2016_is_object_1(tmp_path: Path) -> None:
    put_frames(tmp_path / "JPEGImages/480p/v")
    for mode in ("L", "P"):
        put_labels(tmp_path / "Annotations/480p/v/00000.png", 255, mode=mode)
        assert told("davis", tmp_path) == {0: [1]}


def test_every_video_without_annotations_is_named_before_any_work(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put_frames(tmp_path / "JPEGImages" / name, 1)
    put_labels(tmp_path / "Annotations/b/00000.png", 1)
    with pytest.raises(InputError, match="no Annotations of a, c, of 3 videos"):
        list_prompted_videos("mose", tmp_path)
    with pytest.raises(InputError, match=r"no annotations of first frames of a, b and 1 more|no annotations of first"):
        list_prompted_videos("ytvis", tmp_path)


def test_track_and_run_take_a_root(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put_frames(tmp_path / "set/JPEGImages" / name, 2)
        put_labels(tmp_path / f"set/Annotations/{name}/00000.png", 2)
    plan = CliRunner().invoke(
        app,
        ["run", str(tmp_path / "set"), "--dataset", "mose", "-o", str(tmp_path), "--dry-run", "--segmenter", "motion"],
    )
    assert plan.exit_code == 0 and re.findall(r"(\w): to be done", plan.output) == ["a", "b"]
    words = ["track", str(tmp_path / "set"), "--dataset", "mose", "-o", str(tmp_path / "out"), "--no-overlay"]
    done = CliRunner().invoke(app, [*words, "--propagator", "affinity"])
    assert done.exit_code == 0, done.output
    for name in ("a", "b"):
        [masklet] = json.loads((tmp_path / "out" / name / "masklets.json").read_text())["masklets"]
        assert masklet["id"] == 2
    twice = CliRunner().invoke(app, [*words, "--prompt", "0:1:point=3,3"])
    assert twice.exit_code == 2 and "leave out --prompt" in twice.output
