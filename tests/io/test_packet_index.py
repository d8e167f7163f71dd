"""Reading on in a video file gives the frames that decoding all of it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import write_clip

import masklet
from masklet.io.video.packet_index import ForwardReader, read_frame_times, read_packet_marks
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
    assert read_frame_times(fresh) == ((*(f.time for f in read),) and read.times) != ()
    with masklet.open(clip, propagator="flow") as session:
        assert session.result.times == read.times
    assert read_frame_times(open_video(write_clip(tmp_path / "even.mp4", frames=5))) == ()
    assert read_frame_times(open_video([np.zeros((4, 4, 3), np.uint8)])) == ()


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
