"""What containers, streams and pipes say of frames beside their pixels: how they are turned, when they are shown, whether
they are as they were written.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from clips import H, W, picture, write_clip
from PIL import Image, ImageOps

from masklet.core.errors import InputError
from masklet.core.image_files import open_image
from masklet.io.video.image_pipe import iterate_piped_images
from masklet.io.video.matroska_sums import CLUSTER, find_damaged_parts
from masklet.io.video.mp4_tables import describe_contradictions
from masklet.io.video.picture_order import PictureOrder
from masklet.io.video.pixels import read_frame_rate
from masklet.io.video.sources import open_video
from masklet.io.video.spool import open_pipe
from masklet.io.video.value_range import RunningRange


def read_pipe(data: bytes) -> tuple[list[np.ndarray], str]:
    with open_pipe(BytesIO(data)) as video:
        return [frame.image for frame in video], " ".join(video.notes)


# Images in pipes


def make_image(n: int, form: str, orientation: int | None = None) -> bytes:
    file, more = BytesIO(), {} if form == "PNG" else {"quality": 95, "subsampling": 0}
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        more["exif"] = exif
    Image.fromarray(picture(n)).save(file, form, **more)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_piped_images_are_upright_as_their_exif_says(form: str, orientation: int) -> None:
    data = [make_image(n, form, orientation) for n in range(2)]
    truth = [np.array(ImageOps.exif_transpose(Image.open(BytesIO(d)))) for d in data]
    live = [f.image for f in iterate_piped_images(BytesIO(b"".join(data)), 10.0)]
    for found in (read_pipe(b"".join(data))[0], live):
        assert [f.shape for f in found] == [t.shape for t in truth]
        assert max(np.abs(f.astype(int) - t).mean() for f, t in zip(found, truth, strict=True)) < 6  # another decoder
    assert all(map(np.array_equal, live, truth))


def test_an_image_without_exif_is_not_turned_as_the_one_before(tmp_path: Path) -> None:
    found, _ = read_pipe(make_image(0, "PNG", 3) + make_image(1, "PNG"))
    assert np.array_equal(found[0], picture(0)[::-1, ::-1]) and np.array_equal(found[1], picture(1))


def make_deep_png(values: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


def test_piped_images_of_16_bits_have_one_range_and_the_result_says_which() -> None:
    grey = picture(0)[..., 0].astype(int)
    data = make_deep_png(grey * 16 * (grey < 99)) + make_deep_png(grey * 16)
    truth = [grey * (grey < 99), grey]
    found, notes = read_pipe(data)
    live = [f.image for f in iterate_piped_images(BytesIO(data), 10.0)]
    for images in (found, live):
        assert all(np.abs(image[..., 0].astype(int) - t).max() <= 1 for image, t in zip(images, truth, strict=True))
    assert "from 0 (black) to 4095 (white)" in notes


def test_a_later_image_widens_the_range() -> None:
    values = RunningRange()
    assert values.describe() == "" and values.squeeze(np.array([0, 4095], np.uint16)).tolist() == [0, 255]
    assert values.squeeze(np.array([0, 2047], np.uint16)).tolist() == [0, 127]
    assert values.squeeze(np.array([0, 65535], np.uint16)).tolist() == [0, 255] and "65535" in values.describe()


def test_transparency_and_other_streams_in_a_pipe_are_noted(tmp_path: Path) -> None:
    cut = Image.fromarray(np.dstack([picture(0), np.full((H, W), 0, np.uint8)]))
    file = BytesIO()
    cut.save(file, "PNG")
    found, notes = read_pipe(file.getvalue())
    assert (found[0] == 255).all() and "in front of white" in notes
    with av.open(str(tmp_path / "two.mkv"), "w") as out:
        streams = [out.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream, size in zip(streams, ((24, 32), (48, 64)), strict=True):
            stream.height, stream.width, stream.pix_fmt = *size, "bgr0"
        for stream in streams:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0, (stream.height, stream.width)))))
            out.mux(stream.encode())
    assert "several video streams: number 1" in read_pipe((tmp_path / "two.mkv").read_bytes())[1]


def test_a_cut_off_jpeg_and_line_ends_cost_no_other_image() -> None:
    images = [make_image(n, "JPEG") for n in range(4)]
    images[1] = images[1][:-200]
    found = list(iterate_piped_images(BytesIO(b"\n".join(images) + b"\n"), 10.0))
    assert [isinstance(f.image, str) for f in found] == [False, True, False, False]


# How frames are turned


def write_turned_stream(path: Path, orientation: str) -> Path:
    """A clip whose H.264 says at its first frame how it is to be shown."""
    plain = write_clip(path.with_name("plain.mp4"), frames=30)
    with av.open(str(plain)) as file, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        told = av.BitStreamFilterContext(
            f"h264_metadata=display_orientation=insert:{orientation}", file.streams.video[0]
        )
        packets = [q for p in file.demux(video=0) if p.size for q in told.filter(p)] + list(told.filter(None))
        for packet in packets:
            packet.stream = stream
            out.mux(packet)
    return path


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        ("flip=horizontal", lambda image: image[:, ::-1]),
        ("rotate=90", lambda image: np.rot90(image)),
        ("rotate=180", lambda image: image[::-1, ::-1]),
    ],
)
def test_an_orientation_that_one_frame_says_holds_for_those_after_it(
    orientation: str, turn: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    path = write_turned_stream(tmp_path / "turned.mp4", orientation)
    truth = [turn(f.image) for f in open_video(tmp_path / "plain.mp4")]
    with open_video(path) as video:
        assert all(np.array_equal(f.image, t) for f, t in zip(video, truth, strict=True))
        for n in (5, 17, 29):  # in windows that begin elsewhere
            assert np.array_equal(video.read(n, n + 1)[0].image, truth[n])


def test_what_pyav_has_no_name_for_is_passed_over(tmp_path: Path) -> None:
    """Images of cameras have their EXIF beside them, in a video too."""
    path = tmp_path / "camera.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = H, W, "yuvj444p"
        for t in range(3):
            packet = av.Packet(make_image(t, "JPEG", 3 if t < 2 else None))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, t, t, Fraction(1, 10)
            file.mux(packet)
    truth = [picture(0)[::-1, ::-1], picture(1)[::-1, ::-1], picture(2)]
    with open_video(path) as video:
        found = [f.image for f in video]
        assert all(np.abs(f.astype(int) - t).mean() < 6 for f, t in zip(found, truth, strict=True))
        assert all(np.array_equal(video.read(t, t + 1)[0].image, found[t]) for t in range(3))


# When frames are shown


def test_a_rate_that_is_the_unit_of_time_is_none(tmp_path: Path) -> None:
    class Stream:
        average_rate, guessed_rate = Fraction(60000), Fraction(25)

    assert read_frame_rate(Stream(), 25) == 25  # type: ignore[arg-type]
    Stream.average_rate, Stream.guessed_rate = Fraction(15), Fraction(30)
    assert read_frame_rate(Stream(), 25) == 15  # type: ignore[arg-type]
    Stream.average_rate = Stream.guessed_rate = None  # type: ignore[assignment]
    assert read_frame_rate(Stream(), 25) == 25  # type: ignore[arg-type]


def make_packet(number: int, kind: int, group: int | None = None) -> memoryview:
    """A picture of that number and kind, maybe the first of a group that begins with the picture `group` of the stream."""
    start = b"" if group is None else b"\0\0\1\xb8" + struct.pack(">I", group // 10 << 13 | group % 10 << 7)
    return memoryview(start + b"\0\0\1\0" + struct.pack(">H", number << 6 | kind << 3) + bytes(9))


def test_the_numbers_of_pictures_tell_which_are_missing() -> None:
    order = [(0, 1), (3, 2), (1, 3), (2, 3), (6, 2), (4, 3), (5, 3)]
    whole = PictureOrder(10)
    assert [whole.take(make_packet(n, kind, None if n else 5)) for n, kind in order] == [None] + [False] * 6
    for begin, told in ((12, False), (13, True), (5, None)):  # the next group, of which two come later
        assert deepcopy(whole).take(make_packet(2, 1, begin)) is told
    for gone in range(1, 7):
        some = PictureOrder(10)
        told = [
            some.take(make_packet(n, kind, None if n else 5)) for n, kind in [*order[:gone], *order[gone + 1 :], (9, 2)]
        ]
        assert True in told
    assert PictureOrder(10).take(memoryview(bytes(30))) is None


def replace_number(path: Path, table: bytes, word: int, value: int) -> Path:
    """A copy of an MP4 with another number in one of its tables."""
    data = bytearray(path.read_bytes())
    at = data.index(table) + 8 + 4 * word
    data[at : at + 4] = struct.pack(">I", value)
    copy = path.with_name("copy.mp4")
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize(
    ("table", "word", "value", "told"),
    [
        (b"stts", 1, 20, "is of 20 frames, the file of 30"),
        (b"stts", 2, 2048, "lasts 6.00 s, by its header it is 3.00 s long"),
        (b"ctts", 1, 4, "the order of frames is of"),
        (b"mdhd", 2, 20480, "lasts 1.50 s, and is to be shown for 3.00 s"),
        (b"mdhd", 3, 99, "by its header it is 0.01 s long"),
    ],
)
def test_tables_of_an_mp4_that_contradict_one_another(
    table: bytes, word: int, value: int, told: str, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=30)
    with open_video(path) as video:
        list(video)
        assert video.notes == []
    damaged = replace_number(path, table, word, value)
    with open_video(damaged) as video:
        list(video)
        assert told in " ".join(video.notes)
    with pytest.raises(InputError, match="`strict`"):
        list(open_video(damaged, strict=True))


def test_times_that_go_back_and_frames_that_are_not_to_be_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=30)
    with open_video(replace_number(path, b"ctts", 12, 9 * 1024)) as video:
        list(video)
        assert "times go back at frame" in " ".join(video.notes)
    trimmed = replace_number(replace_number(path, b"elst", 2, 4 * 1024), b"elst", 1, 2600)
    with open_video(trimmed) as video:
        found = list(video)
        assert len(found) < 30 and f"30 frames are in the file, {len(found)} of which it asks" in " ".join(video.notes)


def test_files_without_tables_contradict_nothing(tmp_path: Path) -> None:
    for content in (b"", b"moov", struct.pack(">I4s", 8, b"moov"), struct.pack(">I4s", 99, b"moov") + bytes(40)):
        (tmp_path / "odd.mp4").write_bytes(content)
        assert describe_contradictions(tmp_path / "odd.mp4", 1) == []
    pieces = write_clip(tmp_path / "pieces.mp4", container={"movflags": "frag_keyframe+empty_moov"})
    assert describe_contradictions(pieces, 1) == []


# Whether frames are as they were written


def test_checksums_of_matroska_tell_of_bytes_that_decode_all_the_same(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", "ffv1", frames=30)
    assert find_damaged_parts(path) == []
    data = bytearray(path.read_bytes())
    begins = [n for n in range(len(data)) if data[n : n + 4] == CLUSTER.to_bytes(4, "big")]
    assert len(begins) > 1
    data[begins[1] + 900] ^= 1
    path.write_bytes(data)
    [part] = find_damaged_parts(path)
    assert (part.kind, part.start) == (CLUSTER, begins[1])
    with open_video(path) as video:
        found = list(video)
        assert len(found) == 30 and "by its checksums it is damaged within frames 12 to 23" in " ".join(video.notes)
    with pytest.raises(InputError, match="`strict`"):
        list(open_video(path, strict=True))
    path.write_bytes(data[: begins[1]] + b"\0junk" + data[begins[1] + 5 :])  # what cannot be read is passed over
    assert find_damaged_parts(path) == []


def test_a_png_whose_checksum_is_wrong_is_a_gap_and_no_mask(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for t in range(3):
        Image.fromarray(picture(t)).save(folder / f"{t}.png")
    data = bytearray((folder / "1.png").read_bytes())
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    pixels = bytearray(zlib.decompress(data[at + 4 : at + 4 + size]))
    pixels[99] ^= 1
    packed = zlib.compress(pixels)  # as it would be after damage that the packing does not see
    data[at - 4 : at + 4 + size] = struct.pack(">I", len(packed)) + b"IDAT" + packed
    (folder / "1.png").write_bytes(data)
    with open_video(folder) as video:
        assert len(list(video)) == 3 and "checksum" in video.lost[1] and len(video.lost) == 1
    with pytest.raises(InputError, match="checksum"):
        open_image(folder / "1.png")
    shutil.copy(folder / "0.png", folder / "1.png")
    assert not open_video(folder, strict=True).lost
