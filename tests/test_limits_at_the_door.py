"""Limits where users meet them: files that are loaded, and commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz.samples import make_result
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet.builtins import PROPAGATORS, QUERY_SYSTEMS, SEGMENTERS, SYSTEMS
from masklet.cli import app
from masklet.core.errors import InputError
from masklet.core.files import read_bytes, read_json, read_text
from masklet.core.limits import MOST_OF_SETTINGS
from masklet.core.memory import load_memory, save_memory
from masklet.core.result import VideoResult
from masklet.core.settings import check_setting
from masklet.io.formats.burst import read_burst, write_burst
from masklet.io.formats.cocovid import read_cocovid, write_cocovid
from masklet.io.formats.davis import write_davis, write_referring
from masklet.io.formats.mots import read_mots
from masklet.io.formats.panoptic import read_panoptic_split, write_panoptic
from masklet.io.formats.submission import create_zip_info, read_dataset_split
from masklet.io.formats.ytvis import read_ytvis, read_ytvis_split, read_ytvis_truth, write_ytvis_truth
from masklet.io.output_folder import OutputFolder
from masklet.registry import list_part_settings
from masklet.view.progress import BarReporter
from masklet.weights.reading import read_network_config, read_tensors

NAN, INF = float("nan"), float("inf")
EVIL = ("../../evil", "/tmp/evil", "..", ".", "", "a\0b", "a/../../b", "..\\..\\evil", "x" * 300)
Change = Callable[[dict[str, Any]], Any]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def save_changed(path: Path, change: Change) -> Path:
    """The sample's masklets.json with a change."""
    make_result().save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def set_row(place: int, value: Any) -> Change:
    return lambda c: c["masklets"][0]["sightings"][0].__setitem__(place, value)


def set_first(**more: Any) -> Change:
    return lambda c: c["masklets"][0].update(more)


RESULTS: dict[str, Change] = {
    **{f"name {n}": lambda c, n=n: c.update(name=n) for n in (*EVIL, 3, None)},  # type: ignore[misc]
    **{f"length {n}": lambda c, n=n: c.update(length=n) for n in (10**9, -1, 4.0, True, NAN, "4", 10**400)},  # type: ignore[misc]
    **{f"rate {n}": lambda c, n=n: c.update(rate=n) for n in (0, -1, NAN, INF, True, "25", 10**400)},  # type: ignore[misc]
    **{
        f"size {n}": lambda c, n=n: c.update(size=n)  # type: ignore[misc]
        for n in ([65536, 65536], [0, 4], [24.0, 32], [True, 768], [24], "24x32", [NAN, 3], None)
    },
    **{f"frame {n}": set_row(0, n) for n in (4, -1, 0.0, True, NAN, "0", 10**30)},
    **{f"score {n}": set_row(2, n) for n in (NAN, INF, True, "1", None, 10**400)},
    **{f"label {n}": set_row(3, n) for n in (2, -2, 0.0, True, NAN)},
    **{f"presence {n}": set_row(4, n) for n in (NAN, -INF, False, None)},
    **{f"counts {n!r}": set_row(5, n) for n in ("", "\u00e9", "\ud800", "zz", [768], 5)},
    **{f"masklet's score {n}": set_first(score=n) for n in (NAN, INF, True)},
    **{f"id {n}": set_first(id=n) for n in (2, -1, 1.5, True, 2**53 + 1, "1")},
    **{f"thing {n}": set_first(is_thing=n) for n in (1, None, "yes")},
    "frame twice": lambda c: c["masklets"][0]["sightings"].append(c["masklets"][0]["sightings"][0]),
    "categories": lambda c: c.update(categories=["cat", 3]),
    "long category": lambda c: c.update(categories=["cat", "x" * 20_000]),
    "settings": lambda c: c["provenance"].update(settings={"a": [NAN]}),
    "notes": lambda c: c["provenance"].update(notes=[3]),
    "notes' text": lambda c: c["provenance"].update(notes="text"),
    "source": lambda c: c["provenance"].update(source=3),
    "masklets": lambda c: c.update(masklets={"a": 1}),
}


@pytest.mark.parametrize("change", RESULTS.values(), ids=list(map(ascii, RESULTS)))
def test_results_are_checked_when_they_are_loaded(change: Change, tmp_path: Path) -> None:
    path = save_changed(tmp_path / "masklets.json", change)
    with pytest.raises(InputError, match=r"masklets\.json"):
        VideoResult.load(path)


def test_results_that_are_taken_can_be_saved(tmp_path: Path) -> None:
    path = save_changed(tmp_path / "masklets.json", lambda c: c.update(name="BDD/clip 1", rate=30, masklets=[]))
    result = VideoResult.load(path)
    result.save(tmp_path / "again.json")
    assert VideoResult.load(tmp_path / "again.json") == result and type(result.rate) is float


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("form", [("submission", "mose"), ("davis",), ("vipseg",), ("cocovid",), ("ref",)])
def test_no_export_leaves_its_place(form: Sequence[str], name: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = save_changed(tmp_path / "a" / "masklets.json", lambda c: c.update(name=name))
    before = sorted(tmp_path.rglob("*"))
    status, text = run("export", *form, path, "-o", tmp_path / "a" / "b" / "out")
    assert status == 2 and "masklets.json" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_with_a_folder_in_it_is_exported_under_it(tmp_path: Path) -> None:
    path = save_changed(tmp_path / "masklets.json", lambda c: c.update(name="BDD/clip"))
    assert run("export", "davis", path, "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "BDD" / "clip" / "davis" / "00000.png").is_file()


@pytest.mark.parametrize("name", EVIL)
def test_names_in_the_forms_of_data_sets(name: str, tmp_path: Path) -> None:
    result = make_result()

    def changed(file: str, change: Change) -> Path:
        content = json.loads((tmp_path / file).read_text())
        change(content)
        (tmp_path / file).write_text(json.dumps(content))
        return tmp_path / file

    write_cocovid([result], tmp_path / "cocovid.json")
    write_burst([result], tmp_path / "burst.json")
    write_panoptic([result], tmp_path / "p")
    (tmp_path / "p" / "pred.json").rename(tmp_path / "pred.json")
    readers: list[tuple[Callable[[Path], Any], Path]] = [
        (read_cocovid, changed("cocovid.json", lambda c: c["videos"][0].update(name=name))),
        (read_burst, changed("burst.json", lambda c: c["sequences"][0].update(seq_name=name))),
        (read_panoptic_split, changed("pred.json", lambda c: c["videos"][0].update(video_id=name))),
    ]
    for read, path in readers:
        with pytest.raises(InputError, match=path.name):
            read(path)


@pytest.mark.parametrize("file", ["../0.jpg", "clip/..", "clip/\0.jpg", "x" * 300 + "/0.jpg", "clip/" + "x" * 300])
def test_names_of_files_in_youtube_vis(file: str, tmp_path: Path) -> None:
    write_ytvis_truth([make_result()], tmp_path / "truth.json")
    content = json.loads((tmp_path / "truth.json").read_text())
    content["videos"][0]["file_names"][0] = file
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"truth\.json.*the name"):
        read_ytvis_split(tmp_path / "truth.json")


@pytest.mark.parametrize("name", EVIL)
def test_no_writer_takes_such_a_name(name: str, tmp_path: Path) -> None:
    result = make_result()
    frames = [name, "b", "c", "d"]
    writers: list[Callable[[], Any]] = [
        lambda: write_davis(result, tmp_path / "davis", frames),
        lambda: write_referring(result, tmp_path / "ref", frames),
        lambda: write_referring(result, tmp_path / "ref", None, [name, "dog"]),
        lambda: write_panoptic([result], tmp_path / "p", {"clip": frames}),
        lambda: write_cocovid([result], tmp_path / "c.json", {"clip": frames}),
        lambda: create_zip_info(name),
        lambda: OutputFolder(tmp_path, name, False),
        lambda: masklet.segment(np.zeros((1, 8, 8, 3), np.uint8), segmenter=lambda image: None, name=name or "."),
    ]
    for write in writers:
        with pytest.raises(InputError):
            write()
    assert not list(tmp_path.rglob("*.png"))
    with pytest.raises(InputError, match="not UTF-8"):
        create_zip_info("caf\udce9")


@pytest.mark.parametrize("value", [NAN, INF, True, -1, 10**9, 10**400, "1", 2.5])
def test_numbers_in_the_forms_of_data_sets(value: Any, tmp_path: Path) -> None:
    result = make_result()
    write_cocovid([result], tmp_path / "cocovid.json")
    write_ytvis_truth([result], tmp_path / "truth.json")
    write_burst([result], tmp_path / "burst.json")
    changes: list[tuple[Callable[[Path], Any], str, Change]] = [
        (read_cocovid, "cocovid.json", lambda c: c["images"][0].update(frame_id=value)),
        (read_cocovid, "cocovid.json", lambda c: c["images"][0].update(height=value)),
        (read_ytvis_truth, "truth.json", lambda c: c["videos"][0].update(width=value)),
        (read_burst, "burst.json", lambda c: c["sequences"][0].update(width=value)),
    ]
    if value != 2.5:
        changes.append((read_burst, "burst.json", lambda c: c["sequences"][0].update(fps=value)))
    for read, file, change in changes:
        good = (tmp_path / file).read_text()
        content = json.loads(good)
        change(content)
        (tmp_path / file).write_text(json.dumps(content))
        with pytest.raises(InputError, match=file):
            read(tmp_path / file)
        (tmp_path / file).write_text(good)


def test_sizes_that_results_say_of_themselves(tmp_path: Path) -> None:
    rows = [{"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [{"size": [65536, 65536], "counts": "0"}]}]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="too many"):
        read_ytvis(tmp_path / "r.json")
    for line in (f"{10**9} 1001 1 9 9 Q3", "0 1001 1 65536 65536 Q3", f"0 {'9' * 5000} 1 9 9 Q3", "0 1001 1 9 9"):
        (tmp_path / "m.txt").write_text(line)
        with pytest.raises(InputError, match=r"m\.txt: line 1"):
            read_mots(tmp_path / "m.txt")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(b'{"a": "\xff\xfe"}')
    for read in (VideoResult.load, read_cocovid, read_ytvis, read_dataset_split, read_network_config):
        with pytest.raises(InputError, match=r"f\.json"):
            read(path)
    (tmp_path / "f.txt").write_bytes(b"\xff\x00")
    for read in (read_mots, read_dataset_split, lambda p: read_text(p, "names")):
        with pytest.raises(InputError, match=r"f\.txt: not a text in UTF-8"):
            read(tmp_path / "f.txt")


def test_files_that_never_end_or_are_too_large(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a device"):
        VideoResult.load("/dev/zero")
    (tmp_path / "f").write_bytes(bytes(100))
    with pytest.raises(InputError, match="larger than 99"):
        read_bytes(tmp_path / "f", "less", 99)
    assert len(read_bytes(tmp_path / "f", "less", 100)) == 100
    for path in (Path("a\0b"), tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(InputError):
            read_json(path, "a file")


def test_pipes_are_read_like_files() -> None:
    for most, is_enough in ((5, True), (4, False)):
        receive, send = os.pipe()
        os.write(send, b"[1,2]")
        os.close(send)
        if is_enough:
            assert read_bytes(Path(f"/dev/fd/{receive}"), "json", most) == b"[1,2]"
        else:
            with pytest.raises(InputError, match="larger than 4"):
                read_bytes(Path(f"/dev/fd/{receive}"), "json", most)
        os.close(receive)


def test_a_changed_memory_is_refused_wherever_it_is_changed(tmp_path: Path) -> None:
    save_memory({1: torch.ones(6), "n": (3, [0.5])}, tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "m").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            back = load_memory(tmp_path / "m")
        except InputError:
            continue
        assert torch.equal(back[1], torch.ones(6)) and back["n"] == (3, [0.5]), at  # white space of the header


def test_weights_that_are_damaged(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(50)}}, tmp_path / "w.pt")
    whole = (tmp_path / "w.pt").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "w.pt").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"w\.pt"):
            read_tensors(tmp_path / "w.pt")
    torch.save({3: torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="no table of tensors"):
        read_tensors(tmp_path / "w.pt")


def test_nothing_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "clip\x1b[31m\x07"
    path = save_changed(tmp_path / "masklets.json", lambda c: c.update(name=name))
    status, text = run("export", "submission", "mose", path, "-o", tmp_path / "x.zip")
    assert status == 2 and "\x1b" not in text and r"clip\x1b[31m" in text
    status, text = run("eval", "davis", "--gt", "no\x1bfolder", "--pred", "x" * 5000)
    assert status == 2 and "\x1b" not in text
    result = VideoResult.load(path)
    reporter = BarReporter()
    with reporter.video(name, 3) as watch:
        watch("forward\x1b", 1, 3, 0)
    reporter.done(tmp_path / name, result, 1.0)
    assert "\x07" not in capsys.readouterr().err


def test_prompts_and_runs_name_the_image_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (32, 24)).save(tmp_path / "clip" / "0.png")
    from core.test_image_files import BAD

    (tmp_path / "bomb.png").write_bytes(BAD["bomb.png"])
    prompt = f"0:1:{tmp_path / 'bomb.png'}"
    status, text = run("track", tmp_path / "clip", "-o", tmp_path / "out", "--prompt", prompt, "-q")
    assert status == 2 and "bomb.png" in text and not (tmp_path / "out").exists()
    for setting in ("conf=" + "[" * 100_000, "conf=" + "9" * 5000, "conf=NaN", "conf=\x1b[31m"):
        status, text = run("run", tmp_path / "clip", "-o", tmp_path / "out", "--set", setting, "-q")
        assert status == 2 and "\x1b" not in text


@pytest.mark.parametrize(
    "words",
    [
        ["run", "nowhere.mp4", "--propagator", "nothing"],
        ["track", "nowhere.mp4", "--prompt", "0:1:point=1,1", "--propagator", "nothing"],
    ],
)
def test_all_that_is_wrong_with_a_command_is_said_at_once(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--stride", "0", "--format", "gif", "--format", "avi", "-o", "out"]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 2 and not list(tmp_path.iterdir())
    for told in ("nowhere.mp4: no such file", "nothing", "stride 0", "no format 'gif'", "no format 'avi'"):
        assert told in done.output


PARTS = [
    *((prefix, entry) for prefix, parts in (("", SYSTEMS), ("segmenter.", SEGMENTERS), ("propagator.", PROPAGATORS))
      for entry in parts.builtins),
    *(("", entry) for entry in QUERY_SYSTEMS.values()),
]  # fmt: skip


@pytest.mark.parametrize(("prefix", "entry"), PARTS, ids=lambda value: getattr(value, "name", ""))
def test_every_whole_number_that_is_a_setting_has_a_limit(prefix: str, entry: Any) -> None:
    """One that has none could hang or take all memory: decide on it in `limits.MOST_OF_SETTINGS`."""
    for setting in list_part_settings(entry).values():
        if setting.kind not in (int, int | None):
            continue
        most = MOST_OF_SETTINGS[setting.name]
        assert setting.default is None or setting.default <= most
        assert check_setting("", setting.name, most, setting.kind) == most
        with pytest.raises(InputError, match=f"setting {setting.name} = {most + 1} is too much; at most {most:,}"):
            check_setting("", setting.name, most + 1, setting.kind)


NO_SHARES = {  # logits, pixels, weights
    *("again", "anchored", "appearance", "beside", "claim", "colour", "distance", "distractor", "flat", "heed"),
    *("learning", "modulation", "motion", "nested", "offset", "present", "prompt_score", "reach", "revised", "ridge"),
    *("score_gamma", "steady", "trust", "uncertainty"),
}


@pytest.mark.parametrize(("prefix", "entry"), PARTS, ids=lambda value: getattr(value, "name", ""))
def test_every_score_or_share_that_is_a_setting_ends_at_1(prefix: str, entry: Any) -> None:
    """Above it nothing is found, in silence: put it into `limits.SHARES`, or into `NO_SHARES` here."""
    for setting in list_part_settings(entry).values():
        if setting.kind not in (float, float | None) or setting.name in NO_SHARES:
            continue
        assert check_setting("", setting.name, 1, setting.kind) == 1
        with pytest.raises(InputError, match=rf"setting {setting.name} = 1.5 is above 1; give a number from 0 to 1"):
            check_setting("", setting.name, 1.5, setting.kind)


@pytest.mark.parametrize("words", [["conf=2"], ["segmenter.threshold=50", "--segmenter", "nano"]])
def test_a_percentage_is_refused_before_work(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "clip", "-o", str(tmp_path / "out"), "--set", *words])
    assert done.exit_code == 2 and "is above 1; give a number from 0 to 1" in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["run", "clip", "--segmenter", "everything:nano", "--set", "segmenter.points_per_side=1000000"],
        ["run", "clip", "--set", "max_objects=1000000000"],
        ["run", "clip", "--system", "minvis", "--window", "1000000", "--segmenter", "nowhere"],
        [
            "track",
            "clip",
            "--prompt",
            "0:1:point=1,1",
            "--set",
            "propagator.radius=1000000",
            "--propagator",
            "affinity",
        ],
    ],
)
def test_a_huge_setting_is_refused_before_work(words: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")])
    assert done.exit_code == 2 and "is too much; at most" in done.output and not list(tmp_path.iterdir())


def test_a_setting_of_somebody_elses_part_may_be_in_units_of_its_own() -> None:
    assert check_setting("", "threshold", 140.0, float, 128.0) == 140
    with pytest.raises(InputError, match=r"setting threshold = 140.0 is above 1"):
        check_setting("", "threshold", 140.0, float, 0.5)
