"""Runs over several videos: the same command finishes what is missing, any failure costs one video."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import odd
import pytest
from commands import call_masklet
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.io.output_folder import OutputFolder
from masklet.io.video.datasets import DatasetVideo
from masklet.run.batch import Job, process_video
from masklet.run.claims import FOLDER, Claim, ClaimedError, get_claim_path
from masklet.run.outcome import read_manifest
from masklet.run.recipe import UNKNOWN, compare_recipes, compute_recipe_hash, identify_files
from masklet.run.video_list import OWN_NAMES, list_dataset_entries
from masklet.view.progress import QuietReporter

H, W = 24, 32


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clips, and detections for all of them."""
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate("abc"):
        Path(name).mkdir()
        for t in range(3):
            Image.fromarray(np.full((H, W, 3), 40 * n + t, np.uint8)).save(f"{name}/{t}.png")
    counts = masklet.Rle.encode_pixels(np.eye(H, W) > 0).counts.decode()
    one = {"category_id": 1, "score": 0.99, "segmentation": {"size": [H, W], "counts": counts}}
    entries = [{"frame": t, "video": v, **one} for v in "abc" for t in range(3)]
    Path("d.json").write_text(json.dumps(entries))
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", *words, "-o", "out", "--segmenter", "d.json", "--no-overlay", "-q"])
    return done.exit_code, done.output


def times() -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in Path("out").glob("*/masklets.json")}


def states() -> list[tuple[str, str]]:
    return [(str(line["video"]), str(line["state"])) for line in read_manifest(Path("out"))]


def test_the_same_command_finishes_what_is_missing(clips: Path) -> None:
    assert run("a", "b")[0] == 0
    before = times()
    assert run("a", "b", "c")[0] == 0
    assert times().items() > before.items() and set(times()) == set("abc")
    assert states() == [("a", "done"), ("b", "done"), ("a", "kept"), ("b", "kept"), ("c", "done")]
    result = masklet.VideoResult.load("out/a/masklets.json")
    assert result.provenance.recipe == compute_recipe_hash(json.loads(Path("out/a/recipe.json").read_text()))


def test_one_video_leaves_its_folder_and_nothing_else(clips: Path) -> None:
    assert run("a")[0] == 0 and [p.name for p in Path("out").iterdir()] == ["a"]
    assert run("b", "c")[0] == 0 and {p.name for p in Path("out").iterdir()} == {"a", "b", "c", "manifest.jsonl"}
    assert run("a")[0] == 0 and states() == [("b", "done"), ("c", "done"), ("a", "kept")]


def test_of_two_runs_over_pipes_the_one_that_is_fed_first_has_the_claim(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has begun but has no frames yet keeps nobody away."""

    class Starved:
        closed = False

        def peek(self, size: int) -> bytes:
            assert not list(Path(".").glob("out/.masklet/claims/*.json"))
            raise BrokenPipeError

    class Standard:
        buffer = Starved()

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", Standard())
    job = Job("-", OutputFolder(Path("out"), "stdin", False), nullcontext, lambda video: None, lambda: None)
    with pytest.raises(BrokenPipeError):
        process_video(job, QuietReporter())


def test_what_another_recipe_made_is_refused_by_what_differs(clips: Path) -> None:
    assert run("a", "b")[0] == 0
    before = times()
    code, said = run("a", "c", "--set", "conf=0.6")
    assert code == 1 and "settings.conf was" in said and "now 0.6" in said and "--overwrite" in said
    assert {**times(), "c": 0} == {**before, "c": 0} and "c" in times()
    assert run("a", "--set", "conf=0.6", "--overwrite")[0] == 0
    assert times()["a"] != before["a"]
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save("b/3.png")
    code, said = run("b")
    assert code == 2 and "source was" in said


def test_a_failure_that_nobody_foresaw_costs_its_video(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, video: masklet.Video, watch: object) -> None:
        raise MemoryError("out of memory") if video.name == "b" else ZeroDivisionError

    whole = masklet.Sam2Bmp.run
    monkeypatch.setattr(masklet.Sam2Bmp, "run", lambda s, v, w: fail(s, v, w) if v.name == "b" else whole(s, v, w))
    code, said = run("a", "b", "c")
    assert code == 1 and "b: MemoryError: out of memory; see out/failed/b.log" in said and "Traceback" not in said
    assert set(times()) == {"a", "c"} and "Traceback" in Path("out/failed/b.log").read_text()
    monkeypatch.undo()
    os.chdir(clips)
    assert run("a", "b", "c")[0] == 0 and set(times()) == set("abc")


def test_a_claim_keeps_others_away_and_a_dead_one_does_not(clips: Path) -> None:
    out = Path("out")
    child = "import sys, time; from pathlib import Path; from masklet.run.claims import Claim\nwith Claim(Path('out'), 'a'):\n    print('has it', flush=True)\n    time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and b"has it" in other.stdout.readline()
        with pytest.raises(ClaimedError, match=f"a: process {other.pid} on "), Claim(out, "a"):
            pass
        code, said = run("a", "b")
        assert code == 1 and "is making these results" in said and set(times()) == {"b"}
        other.kill()
    with Claim(out, "a"):
        assert get_claim_path(out, "a").exists()
    assert not get_claim_path(out, "a").exists()
    assert run("a", "b")[0] == 0 and set(times()) == {"a", "b"}
    assert not list((out / FOLDER).rglob("*.dead*"))


def test_an_overlay_that_is_missing_is_added_without_a_new_run(clips: Path) -> None:
    assert run("a")[0] == 0
    before = times()
    done = CliRunner().invoke(app, ["run", "a", "-o", "out", "--segmenter", "d.json", "-q"])
    assert done.exit_code == 0 and Path("out/a/overlay.mp4").exists() and times() == before
    again = CliRunner().invoke(app, ["run", "a", "-o", "out", "--segmenter", "d.json"])
    assert again.exit_code == 0 and "a: was done before" in again.output


def test_a_format_that_is_missing_is_added_without_a_new_run(clips: Path) -> None:
    assert run("a", "--format", "ytvis")[0] == 0
    before = times()
    assert "a: there, but for davis\n" in run("a", "--format", "davis", "--dry-run")[1]
    assert run("a", "--format", "davis")[0] == 0 and times() == before
    made = {p.name for p in Path("out/a").iterdir()}
    assert (
        made == {"masklets.json", "recipe.json", "ytvis.json", "davis"}
        and len(list(Path("out/a/davis").iterdir())) == 3
    )
    assert run("a", "b")[0] == 0 and {p.name for p in Path("out/a").iterdir()} == made
    assert states() == [("a", "kept"), ("b", "done")]


def test_what_was_removed_or_damaged_is_not_taken_for_done(clips: Path) -> None:
    words = ["--format", "davis", "--format", "ytvis"]
    assert run("a", *words)[0] == 0
    shutil.rmtree("out/a/davis")
    assert "a: there, but for davis\n" in run("a", *words, "--dry-run")[1]
    before = times()
    assert run("a", *words)[0] == 0 and Path("out/a/davis/0.png").exists() and times() == before
    Path("out/a/ytvis.json").unlink()
    assert run("a", *words)[0] == 0 and Path("out/a/ytvis.json").exists() and times() == before
    whole = Path("out/a/masklets.json").read_bytes()
    for broken in (b"", whole[:-40]):  # by a disk
        Path("out/a/masklets.json").write_bytes(broken)
        code, said = run("a", *words)
        assert code == 2 and "out/a/masklets.json" in said and "--overwrite" in said
    assert run("a", *words, "--overwrite")[0] == 0 and Path("out/a/masklets.json").read_bytes() == whole


def test_a_format_that_failed_costs_no_masklets_and_is_tried_again(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(result: object, video: object, folder: Path, name: str) -> None:
        (folder / "half.png").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    for _ in range(2):  # the second time the masklets are there
        with monkeypatch.context() as patch:
            patch.setattr("masklet.run.batch.write_format", fill)
            code, said = run("a", "--format", "davis")
        assert code == 2 and "davis" in said and "the disk is full" in said
        assert {p.name for p in Path("out/a").iterdir()} == {"masklets.json", "recipe.json"}
    before = times()
    assert run("a", "--format", "davis")[0] == 0 and Path("out/a/davis").is_dir() and times() == before


def test_the_frames_that_were_used_are_found_again(clips: Path) -> None:
    """By everything that shows a result with its video, without being told."""
    assert run("a", "--start", "1", "--max-frames", "1")[0] == 0
    result = masklet.VideoResult.load("out/a/masklets.json")
    assert result.provenance.settings["reading"] == {"start": "1", "max_frames": 1}
    seen = CliRunner().invoke(app, ["report", "out/a", "-o", "report.html", "-q"])
    assert seen.exit_code == 0 and "only masks" not in seen.output
    [image] = Path(result.export("labelme", "labelme", frames="a")).rglob("*.jpg")
    assert abs(int(np.asarray(Image.open(image))[0, 0, 0]) - 1) < 1 and image.stem == "1"
    odd = replace(result.provenance, settings={"reading": {"stride": "x"}})  # by hand
    with pytest.raises(masklet.InputError, match="has 3 frames"):
        replace(result, provenance=odd).export("labelme", "odd", frames="a")
    Path("cut").mkdir()
    Path("a/1.png").rename("cut/1.png")  # these frames alone are taken as they are
    assert result.export("labelme", "cut-labelme", frames="cut")


def test_a_list_and_a_plan(clips: Path) -> None:
    Path("list.txt").write_text("b\n\nc\n")
    assert run("a")[0] == 0
    code, said = run("a", "--list", "list.txt", "--dry-run")
    assert code == 0 and said.split("\n")[:3] == ["a: there", "b: to be done", "c: to be done"]
    assert "d: would fail: d: no such" in run("a", "d", "--dry-run")[1]
    Path("no.mp4").write_text("none")
    code, said = run("no.mp4", "b", "--dry-run")
    assert code == 0 and "no: would fail: no.mp4: not a video" in said and "\n1 to be done, 3 frames" in said
    assert set(times()) == {"a"}
    assert run("a", "--list", "list.txt")[0] == 0 and set(times()) == set("abc")
    assert "none.txt" in run("a", "--list", "none.txt")[1]


def test_videos_that_are_called_alike_are_two_in_all_that_is_made_of_them(clips: Path) -> None:
    """In the results, their exports, the events, and in detections that say which video they are of."""
    counts = [masklet.Rle.encode_pixels(np.eye(H, W, k) > 0).counts.decode() for k in (0, 5)]
    entries = [
        {"frame": t, "video": v, "category_id": 1, "score": 0.99, "segmentation": {"size": [H, W], "counts": c}}
        for v, c in zip(("cam", "cam-2"), counts, strict=True)
        for t in range(3)
    ]
    Path("d.json").write_text(json.dumps(entries))
    for name in "ab":
        Path("of", name).mkdir(parents=True)
        Path(name).rename(Path("of", name, "cam"))
    words = [
        "run",
        "of/a/cam",
        "of/b/cam",
        "-o",
        "out",
        "--segmenter",
        "d.json",
        "--propagator",
        "still",
        "--no-overlay",
    ]
    words += ["--json-log"]
    said = [json.loads(line) for line in CliRunner().invoke(app, words).stdout.splitlines()]
    assert [event["video"] for event in said if event["event"] == "done"] == ["cam", "cam-2"]
    for name, own in zip(("cam", "cam-2"), counts, strict=True):
        [found] = masklet.VideoResult.load(f"out/{name}/masklets.json").masklets
        assert found.sightings[2].mask.counts.decode() == own
    done = CliRunner().invoke(app, ["export", "cocovid-set", "out", "-o", "set", "-q"])
    assert done.exit_code == 0, done.output
    assert [v["name"] for v in json.loads(Path("set/cocovid.json").read_text())["videos"]] == ["cam", "cam-2"]


def test_what_is_done_is_kept_where_nothing_can_be_written(clips: Path) -> None:
    """As on a disk that is mounted read-only: no claim is needed for what is whole."""
    assert run("a")[0] == 0
    before = times()
    shutil.rmtree("out/.masklet", ignore_errors=True)
    Path("out/.masklet").write_text("no folder: no claim can be written here")
    code, said = run("a", "b")
    assert states() == [("a", "kept"), ("b", "failed")] and code == 1 and "out/.masklet" in said
    assert run("a")[0] == 0 and times() == before
    assert run("a", "--format", "davis")[0] != 0  # there is something to be written


def test_videos_of_two_roots_that_are_called_alike_are_two(clips: Path) -> None:
    """And what several data sets that are one call DATASET/VIDEO stays so."""
    Path("d.json").write_text("[]")
    for name in "abc":
        shutil.copytree(name, Path("roots", name, "JPEGImages", "480p", "cam"))
    assert run("roots/a", "roots/b", "roots/c", "--dataset", "davis")[0] == 0
    names = [masklet.VideoResult.load(f"out/{name}").name for name in ("cam", "cam-2", "cam-3")]
    assert names == ["cam", "cam-2", "cam-3"]
    entries = list_dataset_entries([DatasetVideo("a", name="A/x"), DatasetVideo("b", name="B/x")])
    assert [(e.name, e.title) for e in entries] == [("x", "A/x"), ("x-2", "B/x")]


def test_no_video_takes_the_place_of_what_the_output_folder_holds_beside_videos(clips: Path) -> None:
    for name, own in zip("abc", OWN_NAMES, strict=True):
        Path(name).rename("x" + own if own.startswith(".") else own)
    Path("d.json").write_text("[]")
    assert run("manifest.jsonl", "failed", "x.masklet")[0] == 0
    assert {o["video"] for o in read_manifest(Path("out"))} == {"manifest.jsonl-2", "failed-2", "x.masklet"}


def test_a_plan_and_events_are_json_where_that_is_asked_for(clips: Path) -> None:
    code, said = run("a", "b", "--dry-run", "--json-log")
    events = [json.loads(line) for line in said.splitlines()]
    assert code == 0 and [event["event"] for event in events] == ["plan"] * 3
    assert [event.get("video") for event in events] == ["a", "b", None]


def test_workers_share_the_videos_and_one_that_dies_costs_one(place: Path) -> None:
    for name, how in (("a", 0), ("b", odd.KILLED), ("c", 0)):
        odd.write_clip(Path(name), how)
    words = ("-o", "out", "--segmenter", "odd", "--propagator", "still", "--no-overlay", "--jobs", "2")
    done = call_masklet("run", "a", "b", "c", *words)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert set(times()) == {"a", "c"} and "3 videos: 2 done, 1 failed" in done.stderr
    told = states()
    assert sorted(told) == [("a", "done"), ("b", "failed"), ("c", "done")]
    assert call_masklet("run", "c", *words).returncode == 0


def test_recipes() -> None:
    assert compare_recipes({"a": {"b": 1}}, {"a": {"b": 1}}) == []
    assert compare_recipes({"a": {"b": 1}}, {"c": 2}) == ["a.b was 1, now not there", "c was not there, now 2"]
    assert identify_files([Path("/dev/null/none")]) == UNKNOWN
