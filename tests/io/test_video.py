from __future__ import annotations

import gc
import io
import os
import tempfile
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from clips import H, W, picture, write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.frames import Frame, Video
from masklet.io.video.frame_source import FrameSource
from masklet.io.video.sources import iterate_live_frames, list_video_sources, make_unique_names, name_source, open_video
from masklet.io.video.spool import SpooledFrames, open_pipe

CLIPS = {
    "b-frames.mp4": dict(container={"movflags": "faststart"}),
    "index-last.mp4": {},
    "fragmented.mp4": dict(container={"movflags": "frag_keyframe+empty_moov"}),
    "b-frames.mkv": {},
    "open-gop.mkv": dict(options={"x264-params": "open-gop=1:bframes=3:keyint=9:scenecut=0"}),
    "transport.ts": {},
    "mpeg4.avi": dict(codec="mpeg4"),
    "mpeg4.mp4": dict(codec="mpeg4", container={"movflags": "faststart"}),
    "mpeg2.mpg": dict(codec="mpeg2video", options={"bf": "2"}),
    "vp9.webm": dict(codec="libvpx-vp9"),
    "ten-bit.mkv": dict(pixels="yuv420p10le"),
    "one.mp4": dict(frames=1),
    "odd-times.mkv": dict(times=[7, 40, 45, 300, 301, 333, 800, 801, 1400, 1401, 1402, 2000, 2600, 2601, 2603, 4000]),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: write_clip(folder / name, **how) for name, how in CLIPS.items()}


def save(folder: Path, names: list[str], size: tuple[int, int] = (H, W)) -> Path:
    folder.mkdir(exist_ok=True)
    for t, name in enumerate(names):
        Image.fromarray(picture(t, size)).save(folder / name)
    return folder


def same(a: list[Frame], b: list[Frame]) -> bool:
    return [(f.index, f.time) for f in a] == [(f.index, f.time) for f in b] and all(
        np.array_equal(x.image, y.image) for x, y in zip(a, b, strict=True)
    )


def windows_are_the_iteration(video: FrameSource, step: int = 1) -> list[Frame]:
    once = list(video)
    assert len(video) == len(once) and [f.index for f in once] == list(range(len(once)))
    for start in range(0, len(once), step):
        for stop in {start, start + 1, start + 5, len(once), len(once) + 3}:
            assert same(video.read(start, stop), once[start:stop]), (start, stop)
    assert same(list(video), once)
    return once


@pytest.mark.parametrize("name", CLIPS)
def test_any_window_of_a_file_is_that_of_the_iteration(clips: dict[str, Path], name: str) -> None:
    video = open_video(clips[name])
    assert isinstance(video, Video) and video.size == (H, W)
    once = windows_are_the_iteration(video, step=4)
    assert len(once) == (1 if name == "one.mp4" else 16 if name == "odd-times.mkv" else 30) and video.damage is None
    off = np.abs(once[0].image.astype(int) - picture(0)).mean()
    assert off < 30, off  # lossy, but the picture


@pytest.mark.parametrize("name", CLIPS)
def test_a_window_can_be_read_before_any_iteration(clips: dict[str, Path], name: str) -> None:
    assert same(open_video(clips[name]).read(0, 4), list(open_video(clips[name]))[:4])
    assert same(open_video(clips[name]).read(14, 15), list(open_video(clips[name]))[14:15])


@pytest.mark.parametrize("name", ["b-frames.mp4", "b-frames.mkv", "transport.ts", "mpeg4.avi", "vp9.webm"])
def test_the_container_says_how_many_frames(clips: dict[str, Path], name: str) -> None:
    video = open_video(clips[name])
    assert len(video) == 30 and video.rate == 10


def test_times_are_those_of_the_file(clips: dict[str, Path]) -> None:
    wanted = [(t - 7) / 1000 for t in CLIPS["odd-times.mkv"]["times"]]
    assert [f.time for f in open_video(clips["odd-times.mkv"])] == pytest.approx(wanted)
    assert [f.time for f in open_video(clips["b-frames.mp4"])] == pytest.approx([n / 10 for n in range(30)])


@pytest.mark.parametrize("name", [n for n in CLIPS if n not in ("one.mp4", "odd-times.mkv")])
def test_a_file_cut_off_anywhere_gives_the_frames_before_it(clips: dict[str, Path], name: str, tmp_path: Path) -> None:
    whole, data = list(open_video(clips[name])), clips[name].read_bytes()
    cut = tmp_path / f"cut-{name}"
    kept = 0
    for end in np.linspace(1, len(data) - 1, 24).astype(int):
        cut.write_bytes(data[:end])
        try:
            video = open_video(cut)
        except InputError as error:
            assert str(cut) in str(error) and "\n" not in str(error)
            continue
        found = windows_are_the_iteration(video, step=9)
        assert same(found, whole[: len(found)]), end
        if len(found) < 29 and name not in ("fragmented.mp4", "transport.ts"):  # made to be cut between packets
            assert video.damage and str(cut) in video.damage and f"frame {len(found)}" in video.damage
        kept = max(kept, len(found))
    assert kept > 15 or name == "index-last.mp4"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), value=st.integers(0, 255), n=st.integers(1, 40))
def test_a_damaged_file_never_ends_in_anything_but_a_sentence(
    clips: dict[str, Path], tmp_path: Path, at: float, value: int, n: int
) -> None:
    for name in ("b-frames.mp4", "b-frames.mkv", "mpeg4.avi"):
        data = bytearray(clips[name].read_bytes())
        start = int(at * (len(data) - n))
        data[start : start + n] = bytes([value]) * n
        path = tmp_path / name
        path.write_bytes(data)
        try:
            video = open_video(path)
            once = list(video)
            assert len(once) == len(video) and same(video.read(3, 6), once[3:6])
        except InputError as error:
            assert str(path) in str(error)


def test_a_phones_video_is_turned_upright(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "flat.mp4", frames=4)
    for degrees, quarters in ((90, 1), (180, 2), (-90, 3)):
        turned = tmp_path / f"turned{degrees}.mp4"
        with av.open(str(source)) as a, av.open(str(turned), "w") as b:
            stream = b.add_stream_from_template(a.streams.video[0])
            stream.set_display_rotation(degrees)
            for packet in a.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    b.mux(packet)
        flat, upright = list(open_video(source)), list(open_video(turned))
        assert np.array_equal(upright[2].image, np.rot90(flat[2].image, quarters)), degrees


def test_nothing_is_printed_by_the_decoder(
    clips: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clips["b-frames.mp4"].read_bytes()[:-900])
    assert 0 < len(list(open_video(cut))) < 30
    assert capfd.readouterr() == ("", "")


def test_frames_whose_size_changes_are_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "mixed", ["1.png", "2.png"])
    save(folder, ["3.png"], (H, W + 8))
    with pytest.raises(InputError, match=r"mixed: 3.png is 72x48, the others 64x48"):
        list(open_video(folder))
    with pytest.raises(InputError, match="frame 1 is 72x48"):
        list(open_video([picture(0), picture(1, (H, W + 8))]))
    joined = tmp_path / "joined.mjpeg"
    joined.write_bytes(encoded("JPEG", 3) + encoded("JPEG", 2, (H, W + 16)))
    with pytest.raises(InputError, match=r"frame 3 is 80x48, the first one 64x48"):
        list(open_video(joined))


# pictures


def test_a_folder_in_the_order_people_count(tmp_path: Path) -> None:
    folder = save(tmp_path / "frames", ["1.png", "2.png", "10.png"])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".3.png").write_text("hidden")
    video = open_video(folder)
    assert len(video) == 3 and video.name == "frames"
    once = windows_are_the_iteration(video)
    assert all(np.array_equal(f.image, picture(t)) for t, f in enumerate(once))
    assert video.frame_names == ("1", "2", "10")
    assert same(list(open_video(str(folder / "*.png"))), once)
    assert open_video(str(folder / "*.png")).name == "frames"


def test_every_kind_of_picture_becomes_rgb(tmp_path: Path) -> None:
    grey = picture(0)[..., 0]
    wide = grey.astype(np.uint16) * 257
    rgba = Image.fromarray(np.dstack([picture(0), grey]))
    for n, image in enumerate([Image.fromarray(grey), Image.fromarray(wide), rgba, Image.fromarray(grey).convert("P")]):
        path = tmp_path / f"{n}.png"
        image.save(path)
        found = open_video(path.parent / f"{n}*.png").read(0, 1)[0].image
        opacity = grey[..., None].astype(int)
        over_white = (picture(0) * opacity + 255 * (255 - opacity) + 127) // 255
        assert np.array_equal(found, over_white if n == 2 else np.repeat(grey[..., None], 3, 2)), n
    Image.fromarray(picture(0)).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert open_video(str(tmp_path / "cmyk.ti*")).read(0, 1)[0].image.shape == (H, W, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(tmp_path / "side.png", exif=exif)
    assert np.array_equal(open_video(str(tmp_path / "side.p*")).read(0, 1)[0].image, np.rot90(picture(0), -1))


def test_a_large_picture_is_no_attack(tmp_path: Path) -> None:
    Image.new("1", (10_000, 9_500)).save(tmp_path / "large.png")
    assert open_video(str(tmp_path / "*.png")).size == (9_500, 10_000)


def test_a_damaged_picture_is_a_gap(tmp_path: Path) -> None:
    folder = save(tmp_path / "frames", [f"{t}.png" for t in range(4)])
    whole = (folder / "2.png").read_bytes()
    for bad in (b"", b"text", whole[:40], whole[: len(whole) // 2]):
        (folder / "2.png").write_bytes(bad)
        video = open_video(folder)
        assert len(list(video)) == 4 == len(video)
        assert video.damage is None and [(g.start, g.stop) for g in video.gaps] == [(2, 3)]
        assert video.gaps[0].cause.startswith("2.png: ")
    for path in folder.iterdir():
        path.write_bytes(b"text")
    with pytest.raises(InputError, match=r"damaged before its first frame \(0.png"):
        open_video(folder)


# pipes and memory


def pipe(data: bytes) -> SpooledFrames:
    """A video piped in by somebody else, who stops when all is written."""
    end, start = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(start, "wb") as file:
            file.write(data)

    threading.Thread(target=feed, daemon=True).start()
    with os.fdopen(end, "rb") as file:
        video = open_pipe(file)
        list(video)
        return video


def encoded(form: str, frames: int = 5, size: tuple[int, int] = (H, W)) -> bytes:
    out = io.BytesIO()
    for t in range(frames):
        Image.fromarray(picture(t, size)).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "PPM", "BMP"])
def test_pictures_piped_one_after_the_other(form: str) -> None:
    with pipe(encoded(form)) as video:
        once = windows_are_the_iteration(video)
        assert (video.name, video.size, len(once), video.damage) == ("stdin", (H, W), 5, None)
        assert all(np.array_equal(f.image, picture(t)) for t, f in enumerate(once))


def test_jpegs_and_containers_can_be_piped_too(clips: dict[str, Path]) -> None:
    with pipe(encoded("JPEG")) as video:
        assert len(video) == 5 and np.abs(video.read(0, 1)[0].image.astype(int) - picture(0)).mean() < 30
    with pipe(clips["b-frames.mkv"].read_bytes()) as video:
        assert [f.image.tobytes() for f in video] == [f.image.tobytes() for f in open_video(clips["b-frames.mkv"])]


def test_an_mp4_whose_index_comes_last_is_not_called_damaged(tmp_path: Path) -> None:
    """As cameras write it: what comes through a pipe cannot be read back."""
    late = write_clip(tmp_path / "late.mp4", frames=3)
    with pytest.raises(InputError, match="an MP4 whose index comes after its frames cannot be read from a pipe"):
        open_pipe(io.BytesIO(late.read_bytes()))
    early = write_clip(tmp_path / "early.mp4", frames=3, container={"movflags": "+faststart"})
    with pipe(early.read_bytes()) as video:
        assert len(video) == 3


def test_a_pipe_that_breaks_off() -> None:
    data = encoded("PNG")
    with pipe(data[: int(len(data) * 0.9)]) as video:
        assert len(video) == 4 and str(video.damage).startswith("stdin: damaged after frame 4 (")
        assert np.array_equal(video.read(3, 9)[0].image, picture(3))
    for bad in (b"", b"nothing at all " * 99):
        with pytest.raises(InputError, match=r"^stdin: "):
            pipe(bad)


def test_a_one_shot_iterator_is_kept_and_its_folder_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken: list[int] = []

    def live():
        for t in range(6):
            taken.append(t)
            yield picture(t)

    with open_video(live(), rate=5) as video:
        assert taken == [0] and len(video) == 0  # one at a time, and no claim to a length
        assert next(iter(video)).index == 0 and taken == [0]
        assert [f.index for f in video.read(1, 3)] == [1, 2] and taken == [0, 1, 2]
        once = windows_are_the_iteration(video)
        assert all(np.array_equal(f.image, picture(t)) for t, f in enumerate(once)) and once[5].time == 1.0
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a folder left to the garbage collector
        held = open_video(live())
        assert list(tmp_path.iterdir())
        del held
        gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_frames_in_memory() -> None:
    array = np.stack([picture(t) for t in range(4)])
    images = [Image.fromarray(a) for a in array]
    frames = [Frame(9, a, t / 10) for t, a in enumerate(array)]
    for given_ in (array, list(array), images, frames, tuple(array)):
        once = windows_are_the_iteration(open_video(given_, rate=10))
        assert np.array_equal(np.stack([f.image for f in once]), array)
        assert [f.time for f in once] == [0, 0.1, 0.2, 0.3]
    for bad in ([np.zeros((4, 4))], [np.zeros((4, 4, 3))], [], np.zeros((0, 4, 4, 3), np.uint8), 7, iter([]), b"x"):
        with pytest.raises(InputError):
            open_video(bad)


def test_live_frames_are_checked_as_they_come() -> None:
    live = iterate_live_frames(iter([picture(0), picture(1), picture(2, (H, 8))]))
    assert [next(live).index, next(live).index] == [0, 1]
    with pytest.raises(InputError, match="frame 2 is 8x48, the first one 64x48"):
        next(live)


# names and mistakes


def test_every_mistake_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "notes.txt").write_text("no video\n" * 99)
    (tmp_path / "folder").mkdir()
    with av.open(str(tmp_path / "sound.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
    with av.open(str(tmp_path / "none.mkv"), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        file.start_encoding()
    wanted = {
        "missing.mp4": "no such file",
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video",
        "notes.txt": "no video stream|not a video",
        "folder": "a folder without images",
        "*.none": "matches no file",
        "sound.wav": "no video stream",
        "none.mkv": "holds no frame|not a video|no video stream",
        "text.mp4/inside.mp4": "cannot be read|no such file|[Nn]ot a directory",
    }
    for name, words in wanted.items():
        with pytest.raises(InputError, match=words) as caught:
            open_video(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=1)
    path.chmod(0)
    with pytest.raises(InputError, match=r"[Pp]ermission denied"):
        open_video(path)


def test_odd_names_are_no_obstacle(clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = clips["one.mp4"].read_bytes()
    for name in ("-dash.mp4", "a b ü 視.mp4", "a:b.mp4", "clip[1].mp4", "100%d.mp4", "none"):
        Path(name).write_bytes(data)
        assert list_video_sources(name) == [name]
        assert len(list(open_video(name))) == 1
    Path("link.mp4").symlink_to("-dash.mp4")
    assert open_video("link.mp4").name == "link" and open_video("-dash.mp4").name == "dash"


def test_one_argument_may_mean_several_videos(clips: dict[str, Path], tmp_path: Path) -> None:
    for name in ("10.mp4", "2.mp4"):
        (tmp_path / name).write_bytes(clips["one.mp4"].read_bytes())
    assert list_video_sources(str(tmp_path / "*.mp4")) == [str(tmp_path / "2.mp4"), str(tmp_path / "10.mp4")]
    assert list_video_sources("-") == ["-"] and list_video_sources("missing.mp4") == ["missing.mp4"]
    folder = save(tmp_path / "street", ["1.png"])
    assert list_video_sources(str(folder / "*.png")) == [str(folder / "*.png")]
    with pytest.raises(InputError, match="images and other"):
        (folder / "clip.mp4").write_bytes(b"")
        list_video_sources(str(folder / "*"))
    with pytest.raises(InputError, match="matches no file"):
        list_video_sources(str(tmp_path / "*.none"))


def test_names_are_told_apart(tmp_path: Path) -> None:
    assert make_unique_names(["a/clip.mp4", "b/clip.mkv", "-", "clip-2.mp4", "-"]) == [
        "clip", "clip-2", "stdin", "clip-2-2", "stdin-2",
    ]  # fmt: skip
    assert name_source(str(tmp_path / "street" / "*.png")) == "street"
    assert name_source(str(tmp_path / "street" / "[0-9]" / "*.png")) == "street"
