"""Files that are cut off where FFmpeg does not say so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from clips import H, W, picture, write_clip
from PIL import Image

from masklet.core.errors import InputError
from masklet.io.video.file_end import is_cut_file
from masklet.io.video.sources import open_video


def write(path: Path, frames: int = 20) -> Path:
    if path.suffix == ".gif":
        images = [Image.fromarray(picture(t)) for t in range(frames)]
        images[0].save(path, save_all=True, append_images=images[1:], duration=100)
        return path
    if path.suffix == ".y4m":
        head = f"YUV4MPEG2 W{W} H{H} F10:1 C444\n".encode()
        path.write_bytes(head + b"".join(b"FRAME\n" + picture(t).tobytes() for t in range(frames)))
        return path
    codec = {".ogv": "libvpx", ".ts": "mpeg2video"}.get(path.suffix, "libx264")
    return write_clip(path, codec, frames=frames, container={"mpegts_m2ts_mode": "1"} if path.suffix == ".m2ts" else {})


@pytest.mark.parametrize("name", ["a.gif", "a.y4m", "a.ogv", "a.ts", "a.m2ts"])
def test_a_file_that_is_cut_off_is_told_whatever_its_kind(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    with open_video(path) as video:
        assert len(list(video)) == 20 and (video.damage, video.notes, video.gaps) == (None, [], ())
    data = path.read_bytes()
    for share in (0.5, 0.97):
        path.write_bytes(data[: int(len(data) * share) // 12 * 12 + 5])
        with open_video(path) as video:
            found = len(list(video))
            assert f"damaged after frame {found}" in str(video.damage) and found <= 20, share
        with pytest.raises(InputError, match="`strict`"):
            list(open_video(path, strict=True))


def test_what_is_no_file_or_of_another_kind_is_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"GIF89a")
    assert is_cut_file(f"file:{tmp_path / 'a'}", "gif", 6) and not is_cut_file(str(tmp_path / "a"), "matroska", 6)
    assert not is_cut_file(str(tmp_path / "none"), "gif", 6) and not is_cut_file("-", "ogg", 0)
    (tmp_path / "a").write_bytes(b"no page")
    assert is_cut_file(str(tmp_path / "a"), "ogg", 7) and not is_cut_file(str(tmp_path / "a"), "dv", 7)
    assert is_cut_file(str(tmp_path / "a"), "dv", 6)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_packet_without_data_shows_the_frame_before_on(tmp_path: Path) -> None:
    """Theora writes them where nothing changes."""
    for t in range(24):
        image = np.full((H, W, 3), 90, np.uint8)
        image[10:30, min(t, 10) :][:, :20] = (220, 30, 30)
        Image.fromarray(image).save(tmp_path / f"{t:02d}.png")
    source = ["-framerate", "10", "-i", str(tmp_path / "%02d.png")]
    command = ["ffmpeg", "-v", "error", *source, "-c:v", "libtheora", "-g", "6", str(tmp_path / "still.ogv")]
    subprocess.run(command, check=True)
    with av.open(str(tmp_path / "still.ogv")) as file:
        sizes = [p.size for p in file.demux(video=0) if p.dts is not None]
    assert 0 in sizes
    with open_video(tmp_path / "still.ogv") as video:
        times = [f.time for f in video]
        assert (video.damage, video.gaps, video.notes) == (None, (), [])
    assert times == pytest.approx([n / 10 for n, size in enumerate(sizes) if size], abs=0.01)
