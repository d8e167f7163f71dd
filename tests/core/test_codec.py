from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import square

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.result_index import IndexedFile
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source


def drawn_sighting(draw: np.random.Generator) -> Sighting:
    mask = Rle.encode(torch.from_numpy(draw.random((32, 32)) < draw.random()) | square(4, 4))
    source = list(Source)[draw.integers(4)]
    return Sighting(mask, source, draw.random(), int(draw.integers(-1, 2)), draw.normal())


def drawn_result(seed: int, name: str, notes: list[str]) -> VideoResult:
    """Any result: up to three masklets of up to four sightings."""
    draw = np.random.default_rng(seed)
    masklets = []
    for id in range(1, 1 + int(draw.integers(4))):
        frames = sorted(draw.permutation(8)[: 1 + draw.integers(4)].tolist())
        seen = {t: drawn_sighting(draw) for t in frames}
        masklets.append(Masklet(id, seen, int(draw.integers(-1, 2)), draw.random(), bool(draw.integers(2))))
    made = Provenance("test", {"a": None, "b": [1]}, {"w": "00"}, "1", "x", tuple(notes))
    return VideoResult(name, (32, 32), 8, 29.97, tuple(masklets), ("cat", "dög"), made)


part = st.text(min_size=1, max_size=9).filter(lambda t: not set("/\\\0") & set(t) and t not in (".", ".."))
names = st.lists(part, min_size=1, max_size=3).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), names, st.lists(st.text(max_size=9), max_size=2))
def test_what_is_saved_is_loaded(tmp_path: Path, seed: int, name: str, notes: list[str]) -> None:
    result = drawn_result(seed, name, notes)
    result.save(tmp_path / "r.json")
    assert VideoResult.load(tmp_path / "r.json") == result


def saved(folder: Path) -> tuple[Path, dict[str, Any]]:
    sighting = Sighting(Rle.encode(square(4, 4)), Source.DETECTED, 0.9, 0, 2.0)
    result = VideoResult("toy", (32, 32), 8, 10.0, (Masklet(1, {3: sighting}, 0, 0.9),), ("cat",), Provenance("test"))
    result.save(folder / "r.json")
    return folder / "r.json", json.loads((folder / "r.json").read_text())


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda c: c.update(format="masklet/9"), "not a masklet result .*masklet/9"),
    "no size": (lambda c: c.pop("size"), "r.json: 'size' is missing"),
    "no sightings": (lambda c: c["masklets"][0].pop("sightings"), "masklet 0: 'sightings' is missing"),
    "empty": (lambda c: c["masklets"][0].update(sightings=[]), "masklet 0: is seen in no frame"),
    "frame": (
        lambda c: c["masklets"][0]["sightings"][0].__setitem__(0, 8),
        "masklet 0: .*frame 8 .*frames are 0 to 7, labels -1 .none. to 0",
    ),
    "source": (lambda c: c["masklets"][0]["sightings"][0].__setitem__(1, "guess"), "masklet 0: 'guess'"),
    "label": (
        lambda c: c["masklets"][0]["sightings"][0].__setitem__(3, 1),
        "masklet 0: .*label 1; .*labels -1 .none. to 0",
    ),
    "masklet's label": (lambda c: c["masklets"][0].update(label=4), "masklet 0: .*label 4; labels -1 .none. to 0"),
    "mask": (lambda c: c["masklets"][0]["sightings"][0].__setitem__(5, "Pd0"), "masklet 0: run lengths"),
    "no mask": (lambda c: c["masklets"][0]["sightings"][0].__setitem__(5, None), "masklet 0: "),
    "short": (lambda c: c["masklets"][0]["sightings"][0].pop(), "masklet 0: "),
    "other size": (lambda c: c.update(size=[30, 32]), "masklet 0: run lengths fill 1024"),
    "provenance": (lambda c: c["provenance"].update(mood="good"), "r.json: .*mood"),
    "no entry": (lambda c: c["masklets"].append(7), "masklet 1: "),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_malformed_entry_is_named(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        VideoResult.load(path)


def test_an_empty_mask_says_that_an_object_is_not_in_sight(tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    empty = Rle.encode_pixels(np.zeros((32, 32), bool)).counts.decode()
    [seen] = content["masklets"][0]["sightings"]
    content["masklets"][0]["sightings"] = [seen, [5, *seen[1:5], empty]]
    path.write_text(json.dumps(content))
    [masklet] = VideoResult.open(path).masklets
    assert list(masklet.sightings) == [3]
    content["masklets"][0]["sightings"] = [[5, *seen[1:5], empty]]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="masklet 0: is seen in no frame; leave it out"):
        VideoResult.open(path)


def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 17):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"r\.json: not JSON, or cut off"):
            VideoResult.load(path)


@pytest.mark.parametrize("content", ["[]", "3", "{}", "null"])
def test_other_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match="not a masklet result"):
        VideoResult.load(tmp_path / "r.json")


@pytest.mark.parametrize("read", [VideoResult.open, VideoResult.load])
def test_a_result_is_read_from_its_folder_or_a_pipe_too(read: Callable[[Path], VideoResult], tmp_path: Path) -> None:
    result = drawn_result(3, "clip", [])
    result.save(tmp_path / "masklets.json")
    assert read(tmp_path) == result
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "masklets.json").read_bytes()), daemon=True
    )
    writer.start()
    assert read(tmp_path / "pipe") == result
    (tmp_path / "masklets.json").unlink()
    for path in (tmp_path, tmp_path / ("x" * 5000), tmp_path / "a\0b"):
        with pytest.raises(InputError, match=r"give a masklets\.json"):
            read(path)


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    _, _ = saved(tmp_path)
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        VideoResult.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be written"):
        VideoResult.load(tmp_path / "r.json").save(tmp_path / "none" / "r.json")


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    before = path.read_bytes()
    result = VideoResult.load(path)
    with pytest.raises(InputError, match="frames per second must be a number"):
        VideoResult(result.name, result.size, 8, float("nan"), (), (), result.provenance).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def seen(size: tuple[int, int] = (32, 32), score: float = 0.5, label: int = -1) -> Sighting:
    return Sighting(Rle.encode_pixels(np.ones(size, bool)), Source.FORWARD, score, label)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": (0.0, 1.0)}, "times: 2 for 8 frames"),
        ({"pixel_aspect": 0.0}, "pixel_aspect 0"),
        ({"name": ""}, "not empty"),
        ({"masklets": (Masklet(-1, {0: seen()}),)}, "object -1: the id must be"),
        ({"masklets": (Masklet(3, {0: seen()}), Masklet(3, {1: seen()}))}, "the id 3 is given twice"),
        ({"masklets": (Masklet(3, {0: seen()}, label=7),)}, "object 3: has label 7"),
        ({"masklets": (Masklet(3, {0: seen(label=2)}),)}, "object 3: seen in frame 0 under label 2"),
        ({"masklets": (Masklet(3, {8: seen()}),)}, "object 3: seen in frame 8"),
        ({"masklets": (Masklet(3, {0: seen((32, 31))}),)}, "object 3: its mask in frame 0 is 31x32, the video 32x32"),
        ({"masklets": (Masklet(3, {0: seen(score=float("nan"))}),)}, "the score must be a number"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        replace(drawn_result(3, "clip", []), **change).save(tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_a_line_of_the_log_may_name_all_objects(tmp_path: Path) -> None:
    few = replace(drawn_result(3, "clip", []), masklets=tuple(Masklet(id, {0: seen()}) for id in range(1, 3_000)))
    for edited in (few.merge(*range(1, 3_000)), few.drop(*range(2, 3_000)), few.rename(1, "x" * 10_000)):
        edited.save(tmp_path / "r.json")
        assert VideoResult.load(tmp_path / "r.json") == edited


@pytest.mark.parametrize(
    "damage",
    [{"size": [-32, -32]}, {"size": [0, 32]}, {"length": float("inf")}, {"masklets": [{"id": 1}]}],
)
def test_numbers_that_no_video_has_are_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    path, content = saved(tmp_path)
    path.write_text(json.dumps({**content, **damage}))
    with pytest.raises(InputError, match=r"r\.json"):
        VideoResult.load(path)


def test_a_file_nested_without_end(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json: not JSON"):
        VideoResult.load(tmp_path / "deep.json")


# -- results that stay in their file


@cache
def long_result(length: int = 700) -> VideoResult:
    """Two masklets of several blocks each, one with holes."""
    made = [Sighting(Rle.encode(square(y, 4)), Source.FORWARD, y / 40, 0, 1.5) for y in range(24)]
    seen = {t: made[t % 24] for t in range(length)}
    masklets = (Masklet(1, seen, 0, 0.9), Masklet(5, {t: s for t, s in seen.items() if t % 7}, -1, 0.2, False))
    return VideoResult("long", (32, 32), length, 10.0, masklets, ("cat",), Provenance("test"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), names, st.lists(st.text(max_size=9), max_size=2))
def test_what_is_saved_is_opened(tmp_path: Path, seed: int, name: str, notes: list[str]) -> None:
    result = drawn_result(seed, name, notes)
    result.save(tmp_path / "r.json")
    opened = VideoResult.open(tmp_path / "r.json")
    assert opened == result and [opened.at(t) for t in range(8)] == [result.at(t) for t in range(8)]
    opened.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "r.json").read_bytes()


def test_a_window_is_read_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, read = long_result(1500), list[int]()
    result.save(tmp_path / "r.json")
    own = IndexedFile.read
    monkeypatch.setattr(IndexedFile, "read", lambda self, a, b: (read.append(b - a), own(self, a, b))[1])
    opened = VideoResult.open(tmp_path / "r.json")
    assert opened.read_window(600, 610) == result.read_window(600, 610)
    assert sum(read) < (tmp_path / "r.json").stat().st_size / 2
    assert [len(m.sightings) for m in opened.masklets] == [len(m.sightings) for m in result.masklets]
    assert all(list(a.sightings) == list(b.sightings) for a, b in zip(opened.masklets, result.masklets, strict=True))
    assert 1500 not in opened.masklets[0].sightings and -1 not in opened.masklets[1].sightings
    assert pickle.loads(pickle.dumps(opened.masklets)) == result.masklets


def test_a_file_without_an_index_or_with_that_of_another_file_is_read_as_a_whole(tmp_path: Path) -> None:
    result, path = long_result(), tmp_path / "r.json"
    result.save(path)
    content = json.loads(path.read_text())
    index = path.read_bytes().index(b',"index":')
    shorter = path.read_bytes().replace(b'"name":"long"', b'"name":"lon"')
    earlier = path.read_bytes()[:index] + b"}"
    for data in (
        json.dumps(content).encode(),
        json.dumps(content, separators=(",", ":")).encode()[:-1] + b" }",
        earlier,
    ):
        path.write_bytes(data)
        assert VideoResult.open(path) == result == VideoResult.load(path)
    path.write_bytes(shorter)
    assert VideoResult.open(path).name == "lon" and VideoResult.open(path).masklets == result.masklets


@cache
def long_file(folder: Path) -> bytes:
    long_result(300).save(folder / "long.json")
    return (folder / "long.json").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**9), st.integers(0, 255))
def test_a_damaged_file_is_opened_as_it_was_or_refused_in_a_sentence(tmp_path: Path, place: int, byte: int) -> None:
    path = tmp_path / "r.json"
    data = bytearray(long_file(tmp_path))
    tail = len(data) - data.index(b',"index":')
    place = place % len(data) if byte % 2 else len(data) - 1 - place % tail
    data[place] = byte
    path.write_bytes(data)
    try:
        opened = VideoResult.open(path)
        for m in opened.masklets:
            assert all(m.sightings[t].mask.size == (32, 32) for t in list(m.sightings)[::37])
    except InputError as error:
        assert str(error).startswith(str(path))


EDITS: dict[str, Callable[[VideoResult], VideoResult]] = {
    "nothing": lambda r: r,
    "rename": lambda r: r.rename(5, "dog"),
    "drop": lambda r: r.drop(1),
    "trim": lambda r: r.trim(10, 690, 1),
    "split": lambda r: r.split(5, 300),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_was_opened_is_saved_as_what_was_loaded_is(
    edit: Callable[[VideoResult], VideoResult], tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    long_result().save(path)
    edit(VideoResult.load(path)).save(tmp_path / "loaded.json")
    opened = edit(VideoResult.open(path))
    opened.save(path)  # over the file that it reads
    assert path.read_bytes() == (tmp_path / "loaded.json").read_bytes()
    opened.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_masks_that_stay_are_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_result().save(tmp_path / "r.json")
    looked, own = list[bytes](), Rle.checked
    monkeypatch.setattr(Rle, "checked", lambda size, counts: (looked.append(counts), own(size, counts))[1])
    VideoResult.open(tmp_path / "r.json").rename(1, "dog").save(tmp_path / "again.json")
    assert VideoResult.load(tmp_path / "again.json") == long_result().rename(1, "dog")
    assert len(looked) < 100  # those that the check of types looks at in tests


ROW = b'[299,"forward",0.275,0,1.5,"'
DAMAGE: dict[str, tuple[bytes, bytes]] = {
    "frame": (ROW, ROW.replace(b"299", b"300")),
    "frame far off": (ROW, ROW.replace(b"299", b"999")),
    "source": (ROW, ROW.replace(b"forward", b"forword")),
    "score": (ROW, ROW.replace(b"0.275", b"  NaN")),
    "label": (ROW, ROW.replace(b",0,", b",7,")),
    "no label": (ROW, ROW.replace(b"275,0,1.5", b"2,true,15")),
    "presence": (ROW, ROW.replace(b"1.5", b'"1"')),
    "mask": (b'0"],[300,', b'1"],[300,'),
    "run lengths": (b'0"],[300,', b' "],[300,'),
    "json": (ROW, ROW.replace(b"[", b"{")),
}


@pytest.mark.parametrize(("was", "now"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_since_is_not_saved(was: bytes, now: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    long_result().save(path)
    opened, data = VideoResult.open(path), path.read_bytes()
    assert data.count(was) == 2 and len(was) == len(now)
    path.write_bytes(data.replace(was, now, 1))
    with pytest.raises(InputError, match=r"object 1: |masklet 0: "):
        opened.rename(5, "dog").save(tmp_path / "again.json")
    assert list(tmp_path.iterdir()) == [path]


def test_an_opened_result_of_another_size_is_not_saved(tmp_path: Path) -> None:
    long_result().save(tmp_path / "r.json")
    with pytest.raises(InputError, match="its mask in frame 0 is 32x32, the video 64x16"):
        replace(VideoResult.open(tmp_path / "r.json"), size=(16, 64)).save(tmp_path / "again.json")


def test_runs_of_no_pixel_are_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    long_result().save(path)
    row = path.read_bytes()[path.read_bytes().index(ROW) :].split(b"]")[0]
    path.write_bytes(path.read_bytes().replace(row, (ROW + b'0P`000"').ljust(len(row))))  # 0, 512, 0, 512
    VideoResult.open(path).save(tmp_path / "again.json")
    assert VideoResult.load(tmp_path / "again.json") == VideoResult.load(path)
    assert VideoResult.load(path).masklets[0].sightings[299].mask == Rle.encode_pixels(np.ones((32, 32), bool))
    assert b"0P`000" in path.read_bytes() and b"0P`000" not in (tmp_path / "again.json").read_bytes()
