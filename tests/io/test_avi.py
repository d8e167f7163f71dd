"""AVI has no times: where pieces of it are lost, its index says which frames they were."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import H, W, picture, write_clip

from masklet.io.video.avi import AviIndex, read_avi_index
from masklet.io.video.sources import open_video

Edit = Callable[[bytearray, int, int], None]  # of a file, in which a chunk with its header lies from the one byte


def write_with_sound(path: Path, skipped: tuple[int, ...] = ()) -> Path:
    """An AVI of MJPEG and sound, without some frames: those before them are shown on."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=Fraction(10))
        stream.height, stream.width, stream.pix_fmt = H, W, "yuvj420p"
        sound = file.add_stream("pcm_s16le", rate=8000)
        sound.layout = "mono"
        for t in (t for t in range(30) if t not in skipped):
            frame = av.VideoFrame.from_ndarray(picture(t))
            frame.pts, frame.time_base = t, Fraction(1, 10)
            file.mux(stream.encode(frame))
            heard = av.AudioFrame.from_ndarray(np.full((1, 800), t, np.int16), format="s16", layout="mono")
            heard.rate, heard.pts, heard.time_base = 8000, t * 800, Fraction(1, 8000)
            file.mux(sound.encode(heard))
        file.mux([*stream.encode(), *sound.encode()])
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "mpeg4": lambda path: write_clip(path, "mpeg4"),
    "mpeg4-reordered": lambda path: write_clip(path, "mpeg4", options={"bf": "2"}),
    "h264-reordered": lambda path: write_clip(path, "libx264", frames=40),
    "ffv1": lambda path: write_clip(path, "ffv1"),
    "mjpeg-sound": write_with_sound,
    "mjpeg-shown-on": lambda path: write_with_sound(path, (4, 5, 20)),
}


def cut_out(data: bytearray, start: int, stop: int) -> None:
    del data[start:stop]


def cut_header_out(data: bytearray, start: int, stop: int) -> None:
    del data[start : start + 12]


def cut_bytes_out(data: bytearray, start: int, stop: int) -> None:
    del data[start + 12 : start + 20]


def zero(data: bytearray, start: int, stop: int) -> None:
    data[start:stop] = bytes(stop - start)


def put_in(data: bytearray, start: int, stop: int) -> None:
    data[start:start] = b"\xff" * 30


def put_inside(data: bytearray, start: int, stop: int) -> None:
    middle = (start + stop) // 2
    data[middle:middle] = b"\xff" * 30


def list_chunks(path: Path) -> list[tuple[int, int]]:
    """First byte of each video chunk and the one after it."""
    with av.open(str(path)) as container:
        return [(p.pos - 8, p.pos + p.size + p.size % 2) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize("edit", [cut_out, cut_header_out, cut_bytes_out, zero, put_in, put_inside])
@pytest.mark.parametrize("kind", WRITERS)
def test_frames_after_a_lost_chunk_of_an_avi_keep_their_numbers(kind: str, edit: Edit, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / "a.avi")
    truth = list(open_video(path))
    chunks, whole, damaged = list_chunks(path), path.read_bytes(), tmp_path / "b.avi"
    for n in (0, 9, 14):
        data = bytearray(whole)
        edit(data, *chunks[n])
        damaged.write_bytes(data)
        with open_video(damaged) as video:
            found = list(video)
            alike = sum(int(c.split("the ")[1].split()[0]) for c in {*video.lost.values()} if "same size" in c)
            since = min(video.lost, default=0)
            good = [t for t in range(len(found)) if t not in video.lost and not since - alike <= t < since]
            assert len(found) == len(truth) and video.damage is None and not any("too low" in s for s in video.notes)
            assert all(np.array_equal(found[t].image, truth[t].image) for t in good)
            assert all(abs(found[t].time - truth[t].time) < 1e-6 for t in good if t and 0 in good)
            assert len(good) >= 8 and (video.lost or edit is put_in)
            some = good[len(good) // 2]
            assert np.array_equal(video.read(some, some + 1)[0].image, truth[some].image)


def test_frames_of_one_size_leave_open_which_of_them_is_missing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", "rawvideo", frames=12, pixels="bgr24")
    chunks, data = list_chunks(path), bytearray(path.read_bytes())
    cut_out(data, *chunks[5])
    path.write_bytes(data)
    with open_video(path) as video:
        assert len(list(video)) == 11
        assert "here or among the 11 frames before, which are of the same size" in str(video.damage)


def test_without_an_index_it_is_said_from_where_numbers_may_be_wrong(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", "mpeg4")
    (start, stop), data = list_chunks(path)[9], bytearray(path.read_bytes())
    data[data.rfind(b"idx1") :] = b""
    del data[start:stop]
    path.write_bytes(data)
    with open_video(path) as video:
        assert len(list(video)) == 29
        [said] = video.notes
        assert "says 30 frames, 29 are there; it has no index, so frames may be counted too low, by 1 at most" in said


def test_frames_of_reordered_codecs_have_even_times_in_an_avi_and_are_found_again(tmp_path: Path) -> None:
    video = open_video(write_clip(tmp_path / "a.avi", "libx264", frames=40))
    frames = list(video)
    assert video.times == () and [round(f.time, 6) for f in frames] == [n / 10 for n in range(40)]
    for start in range(0, 40, 3):
        again = video.read(start, start + 3)
        assert [f.time for f in again] == [f.time for f in frames[start : start + 3]]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(again, frames[start:], strict=False))


@pytest.mark.parametrize("skipped", [(), (5, 6)])
def test_where_a_frame_is_shown_on_times_are_uneven_and_nothing_is_lost(
    skipped: tuple[int, ...], tmp_path: Path
) -> None:
    video = open_video(write_with_sound(tmp_path / "a.avi", skipped))
    frames = list(video)
    assert len(frames) == 30 - len(skipped) and not video.gaps and not video.notes
    assert [round(f.time * 10) for f in frames] == [t for t in range(30) if t not in skipped]


def edit_index(path: Path, edit: Callable[[np.ndarray], np.ndarray], tail: bytes = b"") -> Path:
    data = path.read_bytes()
    at = data.rfind(b"idx1")
    [length] = struct.unpack_from("<I", data, at + 4)
    entries = edit(np.frombuffer(data, "<u4", length // 4, at + 8).reshape(-1, 4).copy()).tobytes()
    changed = path.with_name("edited.avi")
    changed.write_bytes(data[: at + 4] + struct.pack("<I", len(entries)) + entries + tail)
    return changed


def set_value(entries: np.ndarray, row: int, column: int, value: int) -> np.ndarray:
    entries[row, column] = value
    return entries


@pytest.mark.parametrize(
    "edit",
    [
        lambda entries: entries[:-1],
        lambda entries: entries * 0,
        lambda entries: set_value(entries, 7, 2, 5),
        lambda entries: set_value(entries, 7, 3, 1 << 31),
        lambda entries: set_value(entries, 7, 0, 0),
    ],
)
def test_an_index_that_is_damaged_itself_costs_no_frame(
    edit: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    path = edit_index(write_clip(tmp_path / "a.avi", "mpeg4"), edit)
    assert read_avi_index(str(path), 0, 30) is None
    with open_video(path) as video:
        assert len(list(video)) == 30 and not video.gaps and not video.damage


def test_an_index_in_no_order_is_not_believed(tmp_path: Path) -> None:
    path = edit_index(write_clip(tmp_path / "a.avi", "mpeg4"), lambda entries: entries[::-1])
    assert read_avi_index(str(path), 0, 30) is None


def test_an_index_may_count_from_the_first_byte_and_end_before_the_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", "mpeg4")
    chunks = list_chunks(path)

    def count_from_file(entries: np.ndarray) -> np.ndarray:
        entries[:, 2] = [start for start, _ in chunks]
        return entries

    for edit in (count_from_file, lambda entries: entries[:12]):
        index = read_avi_index(str(edit_index(path, edit, bytes(1 << 15))), 0, 30)
        assert isinstance(index, AviIndex)
        with av.open(str(path)) as container:
            sizes = [packet.size for packet in container.demux(video=0)]
        places = [index.find(start + 8, sizes[n], n) for n, (start, _) in enumerate(chunks)]
        assert [(p.chunk, p.missing, p.is_last_whole) for p in places] == [(n, 0, True) for n in range(30)]
