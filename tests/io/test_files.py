from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import picture
from PIL import Image
from toys import H, W, square

from masklet.core.errors import InputError
from masklet.core.files import read_json, read_text, write_atomically
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.davis import write_davis
from masklet.io.formats.ytvis import write_ytvis
from masklet.io.output_folder import OutputFolder
from masklet.io.video.encode import VideoWriter


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with write_atomically(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one" and path.stat().st_mode & 0o777 == 0o666 & ~umask()
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), write_atomically(path) as file:
            file.write(b"two")
            raise error
    assert path.read_bytes() == b"one" and left(tmp_path) == ["a.json"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_disk_without_rights_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a USB stick, on which no file's mode can be changed."""

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with write_atomically(tmp_path / "a") as file:
        file.write(b"all of it")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"all of it")]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "disk is full"), (errno.EROFS, "Read-only")]
)
def test_what_the_disk_refuses_is_said_in_words(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=words), write_atomically(path):
        raise OSError(code, os.strerror(code))
    with pytest.raises(InputError, match=words), OutputFolder(tmp_path, "clip", False):
        raise OSError(code, os.strerror(code))
    assert left(tmp_path) == []
    with pytest.raises(InputError, match=r"none/a.json: cannot be written"), write_atomically(tmp_path / "none/a.json"):
        pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out", "clip", False) as there:
        (there / "a").write_text("new")
        assert not (tmp_path / "out" / "clip").exists() and left(tmp_path / "out")[0].startswith(".clip")
    assert left(tmp_path / "out") == ["clip"]
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error), OutputFolder(tmp_path / "out", "other", False) as there:
            (there / "a").write_text("half")
            raise error
    assert left(tmp_path / "out") == ["clip"]


def test_results_are_replaced_on_request_and_only_at_the_end(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "clip", False) as there:
        (there / "old").write_text("old")
    with pytest.raises(InputError, match="overwrite=True"), OutputFolder(tmp_path, "clip", False):
        pass
    with pytest.raises(InputError, match="overwrite=True"), OutputFolder(tmp_path, "late", False) as there:
        (there / "mine").write_text("mine")
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "theirs").write_text("theirs")  # appears meanwhile, and stays
    assert left(tmp_path / "late") == ["theirs"]
    shutil.rmtree(tmp_path / "late")
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path, "clip", True):
        raise KeyboardInterrupt
    assert left(tmp_path / "clip") == ["old"]
    with OutputFolder(tmp_path, "clip", True) as there:
        (there / "new").write_text("new")
        assert left(tmp_path / "clip") == ["old"]
    assert left(tmp_path / "clip") == ["new"] and left(tmp_path) == ["clip"]
    (tmp_path / "empty").mkdir()
    with OutputFolder(tmp_path, "empty", False) as there:  # an empty folder is in nobody's way
        (there / "a").write_text("")
    assert left(tmp_path / "empty") == ["a"]


def test_what_a_killed_process_left_is_removed_and_a_live_ones_is_not(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    here = f"partial-{platform.node() or 'here'}"
    theirs = (f".other.{here}-{os.getppid()}", f".b.partial-elsewhere-{process.pid}", ".mine.partial-copy", ".c.txt")
    for name in (f".clip.{here}-{process.pid}", f".far.{here}-{10**30}", f".d.{here}-{os.getpid()}", *theirs):
        (tmp_path / name).mkdir()
    (tmp_path / f".clip.{here}-{os.getpid()}").mkdir()  # a process of this number was killed here before
    with OutputFolder(tmp_path, "clip", False):
        pass
    assert left(tmp_path) == sorted([*theirs, f".d.{here}-{os.getpid()}", "clip"])


def test_a_link_is_replaced_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clip").symlink_to(tmp_path / "elsewhere")
    with OutputFolder(tmp_path / "out", "clip", True) as there:
        (there / "a").write_text("")
    assert left(tmp_path / "out") == ["clip"] and left(tmp_path / "out" / "clip") == ["a"]
    assert left(tmp_path / "elsewhere") == ["mine"]


def test_what_cannot_take_its_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with pytest.raises(InputError, match="Permission denied"), OutputFolder(tmp_path, "clip", False):
        monkeypatch.setattr(Path, "replace", refuse)
    assert left(tmp_path) == []


def test_a_name_as_long_as_a_file_may_have(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "n" * 250, False):
        pass
    assert left(tmp_path) == ["n" * 250]


def test_a_reader_that_went_away_is_no_fault_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), OutputFolder(tmp_path, "clip", False):
        raise BrokenPipeError
    assert left(tmp_path) == []


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out"), OutputFolder(tmp_path / "out", "clip", False):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_folder_of_results_is_not_replaced_by_one(tmp_path: Path, overwrite: bool) -> None:
    """`-o /dev/null` made a folder of the device, for who has the right to; `-o clip.mp4 --overwrite` of the video."""
    (tmp_path / "clip.mp4").write_text("a film")
    os.mkfifo(tmp_path / "pipe")
    for name in ("clip.mp4", "pipe"):
        with pytest.raises(InputError, match="is there and no folder"), OutputFolder(tmp_path, name, overwrite):
            pass
    assert (tmp_path / "clip.mp4").read_text() == "a film" and (tmp_path / "pipe").is_fifo()


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(InputError, match="is there and no file"), write_atomically(tmp_path / name) as file:
            file.write(b"results")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink() and (tmp_path / "folder").is_dir()
    assert left(tmp_path) == ["folder", "link", "pipe"]


# formats


def seen(*places: tuple[int, int, int], side: int = 6) -> dict[int, Sighting]:
    return {t: Sighting(Rle.encode(square(y, x, side)), Source.FORWARD) for t, y, x in places}


def result(*masklets: Masklet) -> VideoResult:
    return VideoResult("toy", (H, W), 3, 10.0, masklets, ("cat", "dog"), Provenance("test"))


def test_davis_holds_the_ids_with_the_smallest_on_top(tmp_path: Path) -> None:
    made = result(Masklet(255, seen((0, 2, 2), (2, 9, 9))), Masklet(7, seen((0, 0, 0), side=12)))
    write_davis(made, tmp_path / "davis")
    assert left(tmp_path / "davis") == ["00000.png", "00001.png", "00002.png"]
    images = [Image.open(tmp_path / "davis" / f"{t:05d}.png") for t in range(3)]
    assert all(i.mode == "P" and i.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] for i in images)
    wanted = np.where(square(2, 2), 255, np.where(square(0, 0, 12), 7, 0))
    assert np.array_equal(np.asarray(images[0]), wanted)
    assert not np.asarray(images[1]).any() and np.array_equal(np.asarray(images[2]) == 255, square(9, 9))


def test_davis_names_an_id_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="256"):
        write_davis(result(Masklet(256, seen((0, 2, 2)))), tmp_path / "davis")


def test_ytvis_has_a_mask_or_null_for_every_frame(tmp_path: Path) -> None:
    made = result(Masklet(4, seen((0, 2, 2), (2, 9, 9)), label=1, score=0.5), Masklet(5, seen((1, 0, 0))))
    write_ytvis([made, made], tmp_path / "y.json")
    rows = json.loads((tmp_path / "y.json").read_text())
    assert [(r["video_id"], r["category_id"], r["score"]) for r in rows] == [
        (1, 2, 0.5), (1, 1, 0.0), (2, 2, 0.5), (2, 1, 0.0),
    ]  # fmt: skip
    first = rows[0]["segmentations"]
    assert first[1] is None and len(first) == 3
    mask = Rle(tuple(first[2]["size"]), first[2]["counts"].encode()).decode()
    assert torch.equal(mask, square(9, 9))


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (2, 2), (1, 1)])
def test_an_overlay_plays_everywhere_whatever_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "o.mp4"
    with VideoWriter(path, size, 30000 / 1001) as writer:
        for t in range(6):
            writer.write(picture(t, size))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == Fraction(30000, 1001)
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(stream)]
    h, w = size
    assert len(frames) == 6 and frames[0].shape == (h + h % 2, w + w % 2, 3)
    if h > 8:
        assert np.abs(frames[3][:h, :w].astype(int) - picture(3, size)).mean() < 30


def test_davis_numbers_the_frames_where_their_names_would_collide(tmp_path: Path) -> None:
    made = result(Masklet(1, seen((0, 2, 2))))
    write_davis(made, tmp_path / "own", ["b", "a", "c"])
    write_davis(made, tmp_path / "numbers", ["a", "b", "a"])  # such as of a glob over two folders
    assert left(tmp_path / "own") == ["a.png", "b.png", "c.png"]
    assert left(tmp_path / "numbers") == ["00000.png", "00001.png", "00002.png"]


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_text_is_read_as_editors_and_shells_write_it(tmp_path: Path, code: str) -> None:
    """Windows' programs begin a file with a mark, which would else be part of the first name."""
    mark = "\ufeff" if code in ("utf-16-le", "utf-16-be") else ""
    path = tmp_path / "list.txt"
    path.write_bytes(f"{mark}cafe\u0301.mp4\r\nb.mp4\r\n".encode(code))
    assert read_text(path, "a list").splitlines() == ["cafe\u0301.mp4", "b.mp4"]


def test_what_is_no_text_is_not_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\x00\x00\x00\x20ftypisom\xff\xfe")
    with pytest.raises(InputError, match=r"clip\.mp4: not a text in UTF-8; give a list"):
        read_text(path, "a list")
    with pytest.raises(InputError, match=r"clip\.mp4: not JSON, or cut off; give a json$"):
        read_json(path, "a json")
