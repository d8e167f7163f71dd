"""Reading on in a video file gives the frames that decoding all of it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip
from PIL import Image

import masklet
from masklet.core.frames import Frame
from masklet.io.video.packet_index import ForwardReader, learn_frames, read_packet_marks
from masklet.io.video.selection import SelectedFrames
from masklet.io.video.sources import open_video
from masklet.io.video.video_file import VideoFile

UNEVEN = [0, 100, 150, 300, 600, 601, 1000]  # thousandths of a second
WINDOWS = [(0, 3), (3, 8), (27, 40), (14, 15), (15, 30), (5, 6), (40, 50), (13, 13)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b.mp4", "libx264", {"bf": "3"}),
        ("mpeg4.mp4", "mpeg4", {"bf": "2"}),
        ("vp9.webm", "libvpx-vp9", {}),
        ("mjpeg.mkv", "mjpeg", {}),
    ],
)
def test_windows_in_any_order_are_the_frames_themselves(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    video = VideoFile(write_clip(tmp_path / name, codec, options=options, pixels=pixels))
    frames = list(video)
    reader = ForwardReader(VideoFile(tmp_path / name), len(frames))
    monkeypatch.setattr(VideoFile, "read", None)  # nothing is decoded from the beginning
    for start, stop in WINDOWS:
        found = reader.read(start, stop)
        assert [frame.index for frame in found] == list(range(start, min(stop, 30)))
        assert all((frame.image == frames[frame.index].image).all() for frame in found)


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_uneven_times_are_known_before_a_frame_is_decoded(tmp_path: Path, name: str) -> None:
    """So that what is begun by hand in a recording of a screen lasts as long as it."""
    clip = write_clip(tmp_path / name, times=UNEVEN)
    read, fresh = open_video(clip), open_video(clip)
    learn_frames(fresh)
    assert fresh.times == ((*(f.time for f in read),) and read.times) != ()
    with masklet.open(clip, propagator="flow") as session:
        assert session.result.times == read.times
    even = open_video(write_clip(tmp_path / "even.mp4", frames=5))
    learn_frames(even)
    assert even.times == ()


SELECTIONS = (
    {"fps": 10.0},
    {"stride": 3},
    {"start": "0.5s"},
    {"start": 5, "end": "1.1s", "fps": 9.0},
    {"max_frames": 4},
)


def make_timed_source(name: str, folder: Path) -> Any:
    """What a source is called is what it is: pages of an image, images or frames in memory, else a file."""
    images = [np.full((8, 8, 3), 12 * n, np.uint8) for n in range(20)]
    if name == "images":
        return images
    if name == "frames":
        return [Frame(n, image, n * n / 100) for n, image in enumerate(images)]
    if name.startswith("pages"):
        first, *others = map(Image.fromarray, images)
        first.save(folder / name, save_all=True, append_images=others, duration=[10 * (2 * n + 1) for n in range(20)])
        return folder / name
    return write_clip(folder / name, times=[10 * n * n for n in range(20)])


@pytest.mark.parametrize("name", ["uneven.mkv", "pages.png", "pages.webp", "pages.gif", "frames", "images"])
def test_a_session_has_the_times_of_a_run(tmp_path: Path, name: str) -> None:
    source = make_timed_source(name, tmp_path)
    with open_video(source) as video:
        mask = np.ones(video.size, bool)
    tracked = masklet.track(source, {0: {1: mask}}, propagator="flow")
    with masklet.open(source, propagator="flow") as session:
        begun = session.result
    assert (begun.length, begun.times, begun.rate) == (tracked.length, tracked.times, tracked.rate)
    assert bool(begun.times) == (name != "images")


@pytest.mark.parametrize("chosen", SELECTIONS, ids=str)
@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv", "pages.png", "frames", "images"])
def test_which_frames_are_chosen_is_known_before_they_are_decoded(
    tmp_path: Path, name: str, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of uneven times nobody can say by the rate how many are taken by seconds."""
    source = make_timed_source(name, tmp_path)
    read = open_video(source, **chosen)
    frames = list(read)
    foreseen = open_video(source, **chosen)
    with monkeypatch.context() as patch:
        patch.setattr(SelectedFrames, "frames", None)
        learn_frames(foreseen)
        last = foreseen.read(len(frames) - 1, len(frames) + 5)
    assert (len(foreseen), foreseen.times) == (len(frames), read.times)
    assert [(f.index, f.time) for f in last] == [(len(frames) - 1, pytest.approx(frames[-1].time))]
    assert (last[0].image == frames[-1].image).all()
    assert [f.time for f in foreseen] == [f.time for f in frames]
    with masklet.open(open_video(source, **chosen), propagator="flow") as session:
        assert (session.frames, session.result.times) == (len(frames), read.times)


def damage_source(name: str, folder: Path) -> Path:
    """A file or folder with a frame, or some, that cannot be read; a file that begins with "cut" ends early instead."""
    if name == "images":
        for n in range(20):
            Image.fromarray(np.full((8, 8, 3), 12 * n, np.uint8)).save(folder / f"{n}.png")
        (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:40])
        return folder
    codec = "mjpeg" if name.endswith("avi") else "libx264"
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    faststart = {"movflags": "faststart"} if name.endswith("mp4") else {}
    options = {} if codec == "mjpeg" else {"g": "5", "bf": "0"}
    write_clip(folder / name, codec, frames=40, options=options, pixels=pixels, container=faststart)
    data = bytearray((folder / name).read_bytes())
    if name.startswith("cut"):
        del data[len(data) * 2 // 3 :]
    else:
        middle = range(len(data) // 2, len(data) // 2 + 300)
        data[middle.start : middle.stop] = bytes(255 - data[n] for n in middle)
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("chosen", [{}, {"start": 1, "stride": 2}], ids=str)
@pytest.mark.parametrize("name", ["images", "hit.ts", "hit.avi", "hit.mp4", "cut.mkv", "cut.ts", "cut.mp4", "cut.avi"])
def test_of_damage_a_session_says_and_does_what_a_run_does(tmp_path: Path, name: str, chosen: dict[str, int]) -> None:
    """Before, a session had as many frames as a file that is cut off says, and ended in its middle without a mask."""
    source = damage_source(name, tmp_path)
    with open_video(source, **chosen) as video:
        mask = np.ones(video.size, bool)
    tracked = masklet.track(open_video(source, **chosen), {0: {1: mask}}, propagator="flow")
    with masklet.open(open_video(source, **chosen), propagator="flow") as session:
        session.prompt(0, 1, mask)
        session.propagate(1)
        drawn = session.result
    assert drawn.length == tracked.length and drawn.masklets[0].sightings.keys() == set(tracked.masklets[0].sightings)
    assert set(drawn.provenance.notes) == set(tracked.provenance.notes) != set()


def test_what_a_session_says_of_its_video_is_said_once(tmp_path: Path) -> None:
    source = damage_source("images", tmp_path)
    with masklet.open(source, propagator="flow") as session:
        session.prompt(7, 1, np.ones((8, 8), bool))  # where a copy stands in: somebody vouches for it
        session.prompt(6, 1, np.ones((8, 8), bool))
        session.propagate(1)
        session.save(tmp_path / "session")
        assert list(session.result.masklets[0].sightings) == list(range(20))
    with masklet.open(source, propagator="flow", session=tmp_path / "session") as again:
        again.prompt(3, 1, np.ones((8, 8), bool))
        [told] = again.result.provenance.notes
        assert "frame 7 could not be read" in told


def test_images_of_several_sizes_are_refused_by_a_session_too(tmp_path: Path) -> None:
    images = [np.zeros((8, 8, 3), np.uint8), np.zeros((6, 8, 3), np.uint8)]
    for n, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    with pytest.raises(masklet.InputError, match="give frames of one size"):
        masklet.open(tmp_path, propagator="flow")
    with masklet.open(images, propagator="flow") as session, pytest.raises(masklet.InputError, match="of one size"):
        session.read_frame(1)


def test_a_choice_of_a_file_that_is_cut_off_is_of_what_is_left(tmp_path: Path) -> None:
    whole = write_clip(
        tmp_path / "whole.mp4", options={"g": "5"}, frames=60, container={"movflags": "faststart"}
    ).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    frames = list(open_video(tmp_path / "cut.mp4", stride=2))
    assert 5 < len(frames) < 30
    with masklet.open(open_video(tmp_path / "cut.mp4", stride=2), propagator="flow") as session:
        assert session.frames == len(frames)
        assert session.video.read(len(frames) - 1, len(frames) + 9)[0].index == len(frames) - 1


def test_a_file_whose_packets_are_not_its_frames_is_decoded_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = list[int](), VideoFile.read
    monkeypatch.setattr(VideoFile, "read", lambda self, a, b: asked.append(a) or read(self, a, b))
    video = VideoFile(write_clip(tmp_path / "a.mp4"))
    reader = ForwardReader(video, 29)  # as a result says that was made of a damaged copy
    assert [frame.index for frame in reader.read(5, 9)] == [5, 6, 7, 8]
    raw = VideoFile(write_clip(tmp_path / "b.h264"))  # no times at all
    assert read_packet_marks(raw) is None
    assert [frame.index for frame in ForwardReader(raw, 30).read(5, 9)] == [5, 6, 7, 8]
    assert asked == [5, 5]
