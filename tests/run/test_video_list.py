"""Lists of videos: text, and JSON lines that say of each video what is its own."""

from __future__ import annotations

import json
from pathlib import Path

import odd
import pytest
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.run.video_list import TOLD, VideoEntry, choose_shard, list_videos

BOX = {"frame": 0, "id": 3, "box": [4, 6, 14, 16]}


def write_lines(*lines: object) -> Path:
    path = Path("list.jsonl")
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return path


def test_each_line_says_what_is_its_videos_own(place: Path) -> None:
    for name in "abcd":
        odd.write_clip(Path(name), length=4)
    Path("found.json").write_text(json.dumps([{"frame": 0, "category_id": 1, "score": 1, "bbox": [4, 6, 10, 10]}]))
    path = write_lines(
        {"source": "a", "name": "first"},
        {"source": "b", "prompts": [BOX]},
        "",
        {"source": "c", "detections": "found.json", "start": 1, "end": "3"},
        {"source": "d", "stride": 2},
    )
    words = ["run", "a", "--list", str(path), "-o", "out", "--no-overlay", "--segmenter", "odd", "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = {p.parent.name: masklet.VideoResult.load(p) for p in Path("out").glob("*/masklets.json")}
    assert {name: r.length for name, r in found.items()} == {"a": 4, "first": 4, "b": 4, "c": 2, "d": 2}
    assert found["first"].name == "first" and [m.id for m in found["b"].masklets] == [3]
    parts = {name: r.provenance.settings["segmenter"] for name, r in found.items() if name != "b"}
    assert parts == {"a": "odd", "first": "odd", "d": "odd", "c": "detections in found.json"}
    assert found["b"].provenance.system == "track"
    again = CliRunner().invoke(app, [*words, "--dry-run"])
    assert again.output.count(": there\n") == 5
    write_lines({"source": "b", "prompts": [{**BOX, "id": 4}]})
    other = CliRunner().invoke(app, [*words[:1], *words[2:]])
    assert other.exit_code == 2 and "prompts was" in other.output


BAD = {
    "a key that there is not": ({"source": "a", "nmae": "x"}, "line 2: no key 'nmae'; did you mean name?"),
    "no JSON": ("a.mp4", "line 2: not JSON"),
    "no object": ("[1]", "line 2: must be an object"),
    "no source": ({"name": "x"}, "line 2: 'source' is missing"),
    "a key twice": ('{"source": "a", "source": "b"}', "line 2: 'source' is given twice"),
    "two videos": ({"source": "?.mp4"}, "line 2: ?.mp4 matches 2 videos"),
    "nothing marked": ({"source": "a", "prompts": [{"frame": 0, "id": 3}]}, "line 2: prompts: prompt 0: nothing marks"),
    "no prompts": ({"source": "a", "prompts": []}, "line 2: 'prompts' must be a list of prompts"),
    "no file of prompts": ({"source": "a", "prompts": "no.json"}, "line 2: no.json: cannot be read"),
    "no detections": ({"source": "a", "detections": "no.json"}, "line 2: detections no.json: no such file"),
    "both": ({"source": "a", "detections": "a.mp4", "prompts": [BOX]}, "line 2: has prompts and detections"),
    "a name that climbs": ({"source": "a", "name": "../x"}, "line 2: the name '../x' has a separator"),
    "a name of ours": (
        {"source": "a", "name": "manifest.jsonl"},
        "line 2: the name manifest.jsonl is that of masklet's",
    ),
    "a name twice": ({"source": "b", "name": "one"}, "line 2: line 1 has its name, one"),
    "no stride": ({"source": "a", "stride": 0}, "line 2: stride 0"),
    "no place": ({"source": "a", "start": "soon"}, "line 2: 'soon' is no place in a video"),
    "no time": ({"source": "a", "end": [3]}, "line 2: 'end' must be a frame such as 120"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD)
def test_bad_lines_are_refused_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: object, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.mp4").touch()
    Path("b.mp4").touch()
    with pytest.raises(masklet.InputError) as error:
        list_videos([], write_lines({"source": "a", "name": "one"}, line))
    assert f"path='list.jsonl': {said}" in str(error.value) and str(error.value).count("path=") == 1


def test_all_bad_lines_are_told_at_once_and_nothing_is_done(place: Path) -> None:
    odd.write_clip(Path("a"))
    path = write_lines({"source": "a"}, *[{"sorce": n} for n in range(TOLD + 2)])
    done = CliRunner().invoke(app, ["run", "--list", str(path), "-o", "out", "--segmenter", "odd"])
    assert done.exit_code == 2 and not Path("out").exists()
    assert all(f"line {n}: no key 'sorce'" in done.output for n in range(2, TOLD + 2))
    assert "and 2 more bad lines" in done.output


def test_one_json_list_is_no_list_of_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    for text in ('["a"]', '[\n {"source": "a"}\n]'):
        with pytest.raises(masklet.InputError, match="list of JSON; write an object a line"):
            list_videos([], write_lines(text))
    assert [video.source for video in list_videos([], write_lines("[a]"))] == ["a"]


def test_names_of_a_list_are_kept_and_others_go_around_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_lines({"source": "x/a.mp4", "name": "a"}, {"source": "y/a.mp4"}, {"source": "z/a.mp4"})
    assert [video.name for video in list_videos(["a.mp4"], path)] == ["a-2", "a", "a-3", "a-4"]


def test_shards_are_disjoint_and_whole_whatever_the_order() -> None:
    videos = [VideoEntry(name, name) for name in "gbfaced"]
    shards = [{v.name for v in choose_shard(videos[::step], f"{i}/3")} for step in (1, -1) for i in (1, 2, 3)]
    assert shards[:3] == shards[3:] == [set("adg"), set("be"), set("cf")]
    assert choose_shard(videos[:1], "2/2") == []
    for bad in ("0/3", "4/3", "1", "1/x", "-1/2", "1/0"):
        with pytest.raises(masklet.InputError, match="shard="):
            choose_shard(videos, bad)


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16"])
def test_a_list_that_windows_wrote(tmp_path: Path, code: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_bytes('{"source": "a.mp4", "name": "first"}\r\n\r\n{"source": "b.mp4"}\r\n'.encode(code))
    assert [(entry.source, entry.name) for entry in list_videos([], path)] == [("a.mp4", "first"), ("b.mp4", "b")]
