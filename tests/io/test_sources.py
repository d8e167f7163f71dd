"""What docs/sources.md says of each property of an input is so: applied, noted or refused."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import test_avi
import test_file_end
import test_live
import test_seams
from clips import H, W, picture, write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from masklet.core import limits
from masklet.core.errors import InputError
from masklet.core.frames import Gap, describe_gaps
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.video import image_sequence, network, source_names
from masklet.io.video.encode import VideoWriter
from masklet.io.video.frame_source import FrameSource
from masklet.io.video.images import FramesInMemory, read_image_header
from masklet.io.video.orientation import read_orientation
from masklet.io.video.selection import FrameSelection
from masklet.io.video.source_names import (
    check_one_series,
    describe_missing_numbers,
    name_source,
    read_plain_counter,
    sort_naturally,
)
from masklet.io.video.sources import group_video_sources, open_video
from masklet.io.video.spool import open_pipe
from masklet.io.video.value_range import EXIF_ORIENTATIONS, choose_range
from masklet.systems.common import build_video_result

DOCS = Path(__file__).parents[2] / "docs" / "sources.md"


def save(folder: Path, names: list[str], size: tuple[int, int] = (H, W), first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names, first):
        Image.fromarray(picture(t, size)).save(folder / name)
    return folder


def numbered(folder: Path, n: int = 6, suffix: str = "png") -> Path:
    return save(folder, [f"{t:03d}.{suffix}" for t in range(n)])


def reads_the_same(video: FrameSource) -> list[np.ndarray]:
    """The images of an iteration, after a look at all windows of one and three frames."""
    once = list(video)
    for start, n in itertools.product(range(len(once)), (1, 3)):
        again = video.read(start, start + n)
        assert [(f.index, f.time, f.name) for f in again] == [
            (f.index, f.time, f.name) for f in once[start : start + n]
        ]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(again, once[start : start + n], strict=True))
    return [f.image for f in once]


def words(video: FrameSource) -> str:
    list(video)
    return " ".join(video.notes)


# Geometry


def box_places(data: bytes, wanted: bytes, start: int, end: int) -> list[int]:
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        if kind == wanted:
            return [start]
        if kind in (b"moov", b"trak") and (found := box_places(data, wanted, start + 8, start + size)):
            return found
        start += size
    return []


def with_matrix(source: Path, target: Path, a: int, b: int, c: int, d: int) -> Path:
    data = bytearray(source.read_bytes())
    at = box_places(data, b"tkhd", 0, len(data))[0] + 12 + 20 + 16
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


MATRICES = [(sx, 0, 0, sy) for sx in (1, -1) for sy in (1, -1)] + [(0, sx, sy, 0) for sx in (1, -1) for sy in (1, -1)]


def shown_through(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The image of which every pixel went where a display matrix sends it, one by one."""
    h, w = image.shape[:2]
    at = {(y, x): (b * x + d * y, a * x + c * y) for y in range(h) for x in range(w)}
    top, left = (min(v[k] for v in at.values()) for k in (0, 1))
    out = np.zeros((h, w, 3) if a else (w, h, 3), np.uint8)
    for (y, x), (row, column) in at.items():
        out[row - top, column - left] = image[y, x]
    return out


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_a_video_is_shown_through_its_display_matrix(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    plain = write_clip(tmp_path / "plain.mp4", frames=3)
    flat = open_video(plain).read(2, 3)[0].image
    turned = open_video(with_matrix(plain, tmp_path / "turned.mp4", *matrix))
    assert np.array_equal(reads_the_same(turned)[2], shown_through(flat, *matrix))


def test_an_angle_that_is_no_quarter_is_noted(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", frames=2)
    data = bytearray(plain.read_bytes())
    at = box_places(data, b"tkhd", 0, len(data))[0] + 48
    turn = [round(n * (1 << 16)) for n in (0.9, 0.43, 0, -0.43, 0.9, 0)]
    data[at : at + 24] = struct.pack(">6i", *turn)
    (tmp_path / "oblique.mp4").write_bytes(data)
    assert "no quarter of a turn" in words(open_video(tmp_path / "oblique.mp4"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_an_image_is_upright_as_its_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(picture(0))
    image.save(tmp_path / f"0.{suffix}", exif=exif, quality=95)
    with Image.open(tmp_path / f"0.{suffix}") as again:
        wanted = np.array(ImageOps.exif_transpose(again).convert("RGB"))
    found = open_video(tmp_path)
    assert found.size == wanted.shape[:2] == ((W, H) if orientation >= 5 else (H, W))
    assert np.array_equal(next(iter(found)).image, wanted)
    plain = Image.fromarray(picture(0))
    exif_image = image.copy()
    exif_image.info["exif"] = exif.tobytes()
    assert np.array_equal(
        EXIF_ORIENTATIONS[orientation].apply(np.array(plain)), np.array(ImageOps.exif_transpose(exif_image))
    )


def write_wide(path: Path, aspect: float) -> Path:
    with VideoWriter(path, (H, W), 10, aspect) as writer:
        for t in range(4):
            writer.write(picture(t))
    return path


def test_the_shape_of_pixels_is_carried_into_result_and_overlay(tmp_path: Path) -> None:
    video = open_video(write_wide(tmp_path / "wide.mp4", 4 / 3))
    assert video.pixel_aspect == pytest.approx(4 / 3)
    turned = with_matrix(tmp_path / "wide.mp4", tmp_path / "turned.mp4", 0, 1, -1, 0)
    assert open_video(turned).pixel_aspect == pytest.approx(3 / 4)
    list(video)
    result = build_video_result(video, (), (), "test", {}, [])
    assert result.pixel_aspect == video.pixel_aspect
    with av.open(str(write_wide(tmp_path / "again.mp4", result.pixel_aspect))) as file:
        assert float(file.streams.video[0].sample_aspect_ratio or 1) == pytest.approx(4 / 3)


# Time


UNEVEN = [0, 40, 80, 120, 520, 920, 1320]


def test_uneven_times_are_carried_and_the_overlay_has_them(tmp_path: Path) -> None:
    video = open_video(write_clip(tmp_path / "screen.mkv", times=UNEVEN))
    list(video)
    assert video.times == pytest.approx([t / 1000 for t in UNEVEN])
    result = build_video_result(video, (), (), "test", {}, [])
    with VideoWriter(tmp_path / "overlay.mp4", video.size, video.rate, timed=True) as writer:
        for frame, time in zip(video, result.times, strict=True):
            writer.write(frame.image, time)
    again = open_video(tmp_path / "overlay.mp4")
    assert [f.time for f in again] == pytest.approx(result.times, abs=0.001)
    with av.open(str(tmp_path / "overlay.mp4")) as file:
        assert file.duration / av.time_base == pytest.approx(1.72, abs=0.05)  # the last as long as the one before


def test_a_constant_rate_has_no_list_of_times(tmp_path: Path) -> None:
    for name in ("steady.mp4", "steady.mkv", "steady.ts"):
        video = open_video(write_clip(tmp_path / name, frames=12))
        list(video)
        assert (video.times, video.rate) == ((), 10)
    folder = open_video(numbered(tmp_path / "frames"), rate=5)
    assert [f.time for f in folder] == [n / 5 for n in range(6)] and folder.times == () and folder.rate == 5
    assert open_video(tmp_path / "frames").rate == 25


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=9), aspect=st.floats(0.1, 10).map(float))
def test_times_and_aspect_survive_the_file(tmp_path: Path, steps: list[float], aspect: float) -> None:
    times = tuple(itertools.accumulate(steps))
    result = VideoResult("clip", (H, W), len(times), 25.0, (), (), Provenance("test"), times, aspect)
    result.save(tmp_path / "masklets.json")
    assert VideoResult.load(tmp_path / "masklets.json") == result


def test_a_constant_result_has_neither_entry_and_bad_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "masklets.json"
    VideoResult("clip", (H, W), 2, 25.0, (), (), Provenance("test")).save(path)
    plain = path.read_text()
    assert "times" not in plain and "pixel_aspect" not in plain
    for bad in ('"times":[0.0]', '"times":[1.0,0.5]', '"times":["a","b"]', '"times":5', '"pixel_aspect":0'):
        path.write_text(plain.replace('"name"', f'{bad},"name"', 1))
        with pytest.raises(InputError, match=r"masklets.json: .*(time|pixel_aspect|float|iterable)"):
            VideoResult.load(path)


# Colour and depth


def test_transparent_pixels_are_white_and_that_is_noted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 4), np.uint8)
    noise[..., 3] = np.where(np.arange(W) < 10, 0, np.where(np.arange(W) < 20, 128, 255))
    (tmp_path / "rgba").mkdir()
    Image.fromarray(noise).save(tmp_path / "rgba" / "0.png")
    video = open_video(tmp_path / "rgba")
    [image] = reads_the_same(video)
    assert (image[:, :10] == 255).all() and np.array_equal(image[:, 20:], noise[:, 20:, :3])
    half = (noise[:, 10:20, :3].astype(int) * 128 + 255 * 127 + 127) // 255
    assert np.array_equal(image[:, 10:20], half) and "in front of white" in words(video)
    noise[..., 3] = 255
    Image.fromarray(noise).save(tmp_path / "rgba" / "0.png")
    assert words(open_video(tmp_path / "rgba")) == ""  # opaque: nothing was done
    indexed = Image.fromarray(picture(0)).convert("P")
    indexed.save(tmp_path / "rgba" / "0.png", transparency=int(np.array(indexed)[0, 0]))
    assert (next(iter(open_video(tmp_path / "rgba"))).image[0, 0] == 255).all()


def test_a_video_with_transparency_is_shown_over_white_too(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "cut-out.mov"), "w") as file:
        stream = file.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = H, W, "rgba"
        image = np.dstack([picture(0), np.where(np.arange(W) < 10, 0, 255)[None].repeat(H, 0)]).astype(np.uint8)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        file.mux(stream.encode())
    video = open_video(tmp_path / "cut-out.mov")
    [found] = reads_the_same(video)
    assert (found[:, :10] == 255).all() and np.array_equal(found[:, 10:], picture(0)[:, 10:])
    assert "in front of white" in words(video)


GREY = picture(0)[..., 0]
DEEP = {
    "float 0 to 1": (GREY / 255).astype(np.float32),
    "float 0 to 255": GREY.astype(np.float32),
    "float of its own": (GREY / 255 * 70 - 20).astype(np.float32),
    "12 bits in 16": (GREY.astype(np.uint16) * 16 + 8),
    "10 bits in 16": (GREY.astype(np.uint16) * 4),
    "16 bits": GREY.astype(np.uint16) * 257,
    "int32": GREY.astype(np.int32) * 1000 - 5000,
    "int32 of 16 bits": GREY.astype(np.int32) * 257,
}


@pytest.mark.parametrize("kind", DEEP)
def test_values_of_more_than_8_bits_look_as_they_are_meant(tmp_path: Path, kind: str) -> None:
    for t in range(3):
        Image.fromarray(np.roll(DEEP[kind], t, 1)).save(tmp_path / f"{t}.tif")
    video = open_video(tmp_path)
    for t, image in enumerate(reads_the_same(video)):
        low, high = (GREY.min(), GREY.max()) if "own" in kind or kind == "int32" else (0, 255)
        wanted = (np.roll(GREY, t, 1) - float(low)) / float(high - low) * 255
        assert np.abs(image - wanted[..., None]).max() <= 1.5
    assert "brought to 8 bits, as 3 of 3 images tell" in words(video)


def test_one_range_for_the_whole_sequence(tmp_path: Path) -> None:
    for t, peak in enumerate((0.25, 0.5, 4.0)):
        Image.fromarray((GREY / 255 * peak).astype(np.float32)).save(tmp_path / f"{t}.tif")
    dark, half, bright = (f.image.max() for f in open_video(tmp_path))
    assert (dark, half, bright) == (16, 32, 255)


def test_colours_of_16_bits_and_of_floats_are_read(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    deep = picture(0).astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / "0.png"), deep[..., ::-1])
    assert np.abs(next(iter(open_video(tmp_path))).image.astype(int) - picture(0)).max() <= 1
    (tmp_path / "float").mkdir()
    cv2.imwrite(str(tmp_path / "float" / "0.tiff"), (picture(0) / 255).astype(np.float32)[..., ::-1])
    assert np.abs(next(iter(open_video(tmp_path / "float"))).image.astype(int) - picture(0)).max() <= 1


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=9))
def test_no_value_of_16_bits_is_outside_its_range(values: list[int]) -> None:
    found = choose_range([np.array(values, np.uint16)])
    assert found.low == 0 and max(values) <= found.high <= max(4 * max(values), 255)


def test_what_is_no_number_is_black() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], np.float32)
    assert choose_range([values]).squeeze(values).tolist() == [0, 255, 0, 0, 255]


# Pages


@pytest.mark.parametrize("name", ["stack.tif", "move.webp", "move.png", "move.gif"])
def test_pages_are_frames(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(picture(t)) for t in range(7)]
    told = {} if name == "stack.tif" else {"duration": [100, 100, 100, 500, 100, 100, 100], "lossless": True}
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **told)
    video = open_video(tmp_path / name)
    found = reads_the_same(video)
    assert len(video) == len(found) == 7 and video.name == name[:-4].rstrip(".")
    if name != "move.gif":
        assert all(np.array_equal(f, picture(t)) for t, f in enumerate(found))
    if name != "stack.tif":
        assert [f.time for f in video] == pytest.approx([0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0]) == list(video.times)


def test_pages_of_16_bits_and_pages_in_a_folder(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.roll(GREY, t, 1).astype(np.uint16) * 16) for t in range(3)]
    save(tmp_path / "many", ["0.png"])
    for folder in ("one", "many"):
        (tmp_path / folder).mkdir(exist_ok=True)
        pages[0].save(tmp_path / folder / "stack.tif", save_all=True, append_images=pages[1:])
    video = open_video(tmp_path / "one")
    assert [
        np.abs(f - np.roll(GREY, t, 1)[..., None].astype(int)).max() for t, f in enumerate(reads_the_same(video))
    ] < [2] * 3
    assert "brought to 8 bits, as 3 of 3 pages tell" in words(video) and video.name == "one"
    (tmp_path / "many" / "0.png").unlink()
    pages[0].save(tmp_path / "many" / "more.tif")
    with pytest.raises(InputError, match=r"images of several pages, stack.tif \(3\)"):
        next(iter(open_video(tmp_path / "many")))


# Order and names


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "10"],
        ["clip_0.25", "clip_0.5", "clip_0.75", "clip_1.0", "clip_10.5"],
        ["-10", "-2", "-1", "0", "1"],
        ["t_-1.5", "t_-1", "t_0", "t_2.25"],
        ["shot1.2", "shot1.9", "shot1.10", "shot1.20"],
        ["frame-1", "frame-2", "frame-10"],
        ["v1.2.3", "v1.2.10", "v1.10.1"],
        ["2024-01-02", "2024-01-10", "2024-02-01"],
        ["cam1_9", "cam1_10", "cam2_1"],
    ],
    ids=lambda names: names[0],
)
def test_images_stand_in_the_order_of_their_numbers(names: list[str]) -> None:
    paths = [Path("a") / f"{name}.png" for name in names]
    assert sort_naturally(reversed(paths)) == paths


@given(st.lists(st.integers(-(10**6), 10**6), unique=True, max_size=20), st.integers(0, 3))
def test_fractions_sort_as_numbers(numbers: list[int], places: int) -> None:
    values = sorted(n / 10**places for n in numbers)
    if len({len(str(v).split(".")[1]) for v in values}) > 1 and any(
        str(v).endswith("0") and str(v)[-2] != "." for v in values
    ):
        return  # what looks like a counter after a point
    assert sort_naturally(Path(f"{v}.png") for v in reversed(values)) == [Path(f"{v}.png") for v in values]


@pytest.mark.parametrize(
    ("stems", "said"),
    [
        (["0", "1", "2", "5", "6"], "2 numbers are missing between 2 and 5"),
        (["f00", "f05", "f10", "f20"], "1 number is missing between f10 and f20"),
        (["0.25", "0.5", "1.0", "1.25"], "1 number is missing between 0.5 and 1.0"),
        (["7", "8", "9"], ""),
        (["0", "5", "10"], ""),
        (["17", "4242", "9001", "9999"], ""),  # such as times
        (["1", "2", "4", "9", "15"], ""),
        (["a", "b", "c"], ""),
        (["cam2_1", "cam2_2", "cam2_4", "cam2_5"], "between cam2_2 and cam2_4"),
    ],
)
def test_missing_numbers_are_noted(stems: list[str], said: str) -> None:
    told = " ".join(describe_missing_numbers(stems))
    assert said in told and bool(said) == bool(told)


def test_many_missing_numbers_are_summed_up(tmp_path: Path) -> None:
    stems = [str(n) for n in range(60) if n % 5 != 4]
    told = describe_missing_numbers(stems)
    assert len(told) == 6 and told[-1] == "and 6 more numbers"
    folder = save(tmp_path / "frames", ["1.png", "2.png", "3.png", "6.png"])
    assert "2 numbers are missing between 3 and 6" in words(open_video(folder))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["0.jpg", "0.png", "1.jpg", "1.png"], r"2 jpg \(0.jpg, ...\) and 2 png .* there twice.*\*\.jpg"),
        (["0.jpg", "1.jpg", "cover.png"], r"2 jpg \(0.jpg, ...\) and 1 png \(cover.png.*\*\.jpg"),
        (["0.png", "0_mask.png", "1.png", "1_mask.png"], r"two series .* 2 as 0.png and 2 as 0_mask.png"),
        (["left_0.png", "left_1.png", "right_0.png", "right_1.png"], "two series"),
    ],
)
def test_frames_with_masks_beside_are_asked_about(tmp_path: Path, names: list[str], told: str) -> None:
    folder = save(tmp_path / "clip", names)
    for source in (folder, folder / "*"):
        with pytest.raises(InputError, match=told):
            open_video(source)


def test_kinds_that_differ_in_spelling_are_one(tmp_path: Path) -> None:
    assert len(open_video(save(tmp_path / "clip", ["0.jpg", "1.JPG", "2.jpeg"]))) == 3
    assert len(open_video(save(tmp_path / "mixed", ["IMG_1.jpg", "IMG_2.jpg", "DSC_7.jpg"]))) == 3


def test_a_folder_may_have_brackets_in_its_name(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "clip[1]")
    for source in (folder, f"{folder}/*.png", f"{folder}/00[0-2].png"):
        with open_video(source) as video:
            assert len(list(video)) == (3 if "-" in str(source)[-12:] else 6) and video.name == "clip[1]"


def test_links_keep_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(tmp_path / "store" / "ab12cd")
    (tmp_path / "dogs").symlink_to(tmp_path / "store" / "ab12cd")
    (tmp_path / "cats.png").symlink_to(tmp_path / "store" / "ab12cd" / "000.png")
    assert open_video(tmp_path / "dogs").name == "dogs" and open_video(str(tmp_path / "dogs") + "/").name == "dogs"
    assert open_video(tmp_path / "cats.png").read(0, 1)[0].name == "cats"
    monkeypatch.chdir(tmp_path / "store" / "ab12cd")
    assert (name_source("."), name_source("..")) == ("ab12cd", "store")


def test_frames_have_the_names_of_their_files(tmp_path: Path) -> None:
    assert [f.name for f in open_video(numbered(tmp_path / "frames", 3))] == ["000", "001", "002"]
    assert [f.name for f in open_video(write_clip(tmp_path / "clip.mp4", frames=2))] == ["", ""]


@pytest.mark.parametrize(
    ("inside", "other"), [("JPEGImages/480p", "Annotations/480p"), ("JPEGImages", "Annotations"), ("train/img", "gt")]
)
def test_the_root_of_a_data_set_says_which_folder_to_take(tmp_path: Path, inside: str, other: str) -> None:
    for sequence in ("bear", "camel"):
        numbered(tmp_path / "set" / inside / sequence, 2)
        numbered(tmp_path / "set" / other / sequence, 2)
    with pytest.raises(InputError, match=rf"{inside}/bear, or all 2 there as .*{inside}/\*'"):
        open_video(tmp_path / "set")
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", frames=1)
    with pytest.raises(InputError, match=r"but with videos \(a.mp4\)"):
        open_video(tmp_path / "videos")


def test_a_list_of_images_is_one_video_for_each_folder(tmp_path: Path) -> None:
    a = save(tmp_path / "a", ["1.png", "2.png", "10.png"])
    b = numbered(tmp_path / "b", 2)
    clip = str(write_clip(tmp_path / "clip.mp4", frames=1))
    listed = [str(p) for p in sorted(a.iterdir())]  # as a shell does: 1, 10, 2
    groups = group_video_sources([*listed, clip, *map(str, sorted(b.iterdir()))])
    assert [name_source(g) for g in groups] == ["a", "clip", "b"]
    assert [f.name for f in open_video(groups[0])] == ["1", "2", "10"]
    assert group_video_sources([str(a / "1.png")]) == [str(a / "1.png")]


# Streams, pipes and addresses


def write_streams(path: Path, sizes: list[tuple[int, int]], frames: list[int]) -> Path:
    with av.open(str(path), "w") as file:
        streams = []
        for h, w in sizes:
            stream = file.add_stream("mpeg4", rate=10)
            stream.height, stream.width, stream.pix_fmt = h, w, "yuv420p"
            streams.append(stream)
        for t in range(max(frames)):
            for stream, size, n in zip(streams, sizes, frames, strict=True):
                if t < n:
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(t, size))))
        for stream in streams:
            file.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["two.mkv", "two.mp4"])
def test_the_largest_stream_is_the_video_and_others_are_noted(tmp_path: Path, name: str) -> None:
    video = open_video(write_streams(tmp_path / name, [(32, 32), (H, W)], [5, 5]))
    assert video.size == (H, W) and len(list(video)) == 5
    assert "number 1 (64x48) was taken, not 0 (32x32)" in words(video)


def test_a_single_large_image_beside_a_video_is_its_poster(tmp_path: Path) -> None:
    video = open_video(write_streams(tmp_path / "poster.mp4", [(96, 128), (H, W)], [1, 5]))
    assert video.size == (H, W) and len(list(video)) == 5


def feed(path: Path, data: bytes) -> None:
    def write() -> None:
        with suppress(BrokenPipeError), path.open("wb") as file:
            file.write(data)

    threading.Thread(target=write, daemon=True).start()


def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", frames=6)
    os.mkfifo(tmp_path / "pipe")
    feed(tmp_path / "pipe", clip.read_bytes())
    with open_video(tmp_path / "pipe") as video:
        assert video.name == "pipe"
        assert [f.tobytes() for f in reads_the_same(video)] == [f.image.tobytes() for f in open_video(clip)]


def test_a_process_substitution_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        Image.fromarray(picture(0)).save(file, "PNG")
    with open_video(f"/dev/fd/{reading}", rate=5) as video:
        assert (len(list(video)), video.name, video.rate) == (1, "pipe", 5)
    os.close(reading)


def test_nobody_writes_into_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklet.io.video.spool.WAIT", 0.05)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="nobody wrote into this pipe"):
        open_video(tmp_path / "pipe")


def test_uneven_times_pass_through_a_pipe(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", times=UNEVEN)
    os.mkfifo(tmp_path / "pipe")
    feed(tmp_path / "pipe", clip.read_bytes())
    with open_video(tmp_path / "pipe") as video:
        list(video)
        assert video.times == pytest.approx([t / 1000 for t in UNEVEN])


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:3,\nclip.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile clip.ts\n",
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    ],
)
@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4"])
def test_a_playlist_is_refused_unless_allowed(tmp_path: Path, text: str, name: str) -> None:
    write_clip(tmp_path / "clip.ts", frames=6)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="allow_network=True"):
        open_video(tmp_path / name)
    if "EXTM3U" in text and name.endswith("m3u8"):
        assert len(list(open_video(tmp_path / name, allow_network=True))) == 6


def test_a_video_at_an_address(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", frames=6, container={"movflags": "faststart"})

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *told: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert group_video_sources([f"{address}/clip.mp4?key=*"]) == [f"{address}/clip.mp4?key=*"]
        with open_video(f"{address}/clip.mp4") as video:
            assert (len(list(video)), video.name) == (6, "clip")
        with pytest.raises(InputError, match=r"none.mp4: cannot be opened"):
            open_video(f"{address}/none.mp4")
        server.shutdown()


class Server(SimpleHTTPRequestHandler):
    """Gives the files of a folder; /stall says nothing, /half gives half of long.ts."""

    def log_message(self, *told: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/stall"):
            threading.Event().wait(2)
        elif self.path.startswith("/half"):
            data = (Path(self.directory) / "long.ts").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("web")
    secret = write_clip(tmp_path_factory.mktemp("local") / "secret.ts", frames=3)
    write_clip(folder / "clip.ts", frames=6)
    write_clip(folder / "long.ts", frames=120)
    begin, end = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n", "\n#EXT-X-ENDLIST\n"
    for name, inside in (
        ("own.m3u8", "clip.ts"),
        ("local.m3u8", f"file://{secret}"),
        ("local.mp4", f"file://{secret}"),
    ):
        (folder / name).write_text(begin + inside + end)
    (folder / "concat.txt").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder))) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_that_the_user_named_may_be_a_playlist(address: str) -> None:
    with open_video(f"{address}/own.m3u8") as video:
        assert len(list(video)) == 6


@pytest.mark.parametrize("name", ["local.m3u8", "local.mp4", "concat.txt"])
def test_an_address_opens_no_file_of_this_machine(name: str, address: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: cannot be opened"):
        open_video(f"{address}/{name}")


def test_who_does_not_answer_is_not_awaited(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TIMEOUT", 0.3)
    with pytest.raises(InputError, match=r"stall.ts: cannot be opened \(no answer in 0.3 s\)"):
        open_video(f"{address}/stall.ts")


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1:9/a", "http://127.0.0.1:9/a.mp4", "/dev/video99"])
def test_streams_and_cameras_that_are_not_there(source: str) -> None:
    with pytest.raises(InputError, match=f"{source}: (cannot be opened|no such file)"):
        open_video(source)


def test_a_connection_that_ends_early_is_told(address: str) -> None:
    with open_video(f"{address}/half.ts") as video:
        assert 0 < len(list(video)) < 120 and "damaged after frame" in str(video.damage)
    with open_video(f"{address}/half.ts", strict=True) as video, pytest.raises(InputError, match="leave `strict` out"):
        list(video)


# Damage


def lose_packets(source: Path, target: Path, lost: set[int]) -> Path:
    data = source.read_bytes()
    target.write_bytes(b"".join(data[n * 188 : (n + 1) * 188] for n in range(len(data) // 188) if n not in lost))
    return target


def test_a_lost_packet_costs_a_group_of_frames_and_no_number(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.ts", frames=47)
    truth = [f.image for f in open_video(whole)]
    told = 0
    for lost in range(12, 125, 9):  # the last group begins after that
        video = open_video(lose_packets(whole, tmp_path / "lost.ts", {lost}))
        found = reads_the_same(video)
        gone = {t for gap in video.gaps for t in range(gap.start, gap.stop)}
        assert len(found) == 47 and all(np.array_equal(found[t], truth[t]) for t in range(47) if t not in gone), lost
        told += bool(gone)
        for t in gone:
            before = next(n for n in range(t, -1, -1) if n not in gone)
            assert np.array_equal(found[t], found[before])
        assert len(gone) <= 14
    assert told > 3


@pytest.mark.parametrize(
    ("name", "how"),
    [("a.mp4", {}), ("a.mkv", {}), ("a.avi", {"codec": "mpeg4"}), ("a.mov", {"codec": "mjpeg"})],
)
def test_damage_in_the_middle_leaves_the_frames_after_it(tmp_path: Path, name: str, how: dict[str, str]) -> None:
    pixels = "yuvj420p" if how.get("codec") == "mjpeg" else "yuv420p"
    path = write_clip(tmp_path / name, frames=47, pixels=pixels, **how)
    truth = [f.image for f in open_video(path)]
    packets = [p for p in av.open(str(path)).demux(video=0) if p.size]
    hit = max(packets[13:22], key=lambda p: p.size)
    data = bytearray(path.read_bytes())
    data[hit.pos + hit.size // 4 : hit.pos + hit.size] = bytes(hit.size - hit.size // 4)
    path.write_bytes(data)
    video = open_video(path)
    found = reads_the_same(video)
    gone = {t for gap in video.gaps for t in range(gap.start, gap.stop)}
    assert len(found) == 47 and gone and len(gone) < 14 and video.damage is None
    assert all(np.array_equal(found[t], truth[t]) for t in range(47) if t not in gone)
    with pytest.raises(InputError, match=rf"{name}: frame {min(gone)} cannot be read"):
        list(open_video(path, strict=True))


def test_frames_that_refer_to_damaged_ones_across_a_key_frame_are_lost_too(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
    path = write_clip(tmp_path / "a.mkv", frames=47, options=options)
    truth = [f.image for f in open_video(path)]
    packets, data = [p for p in av.open(str(path)).demux(video=0) if p.size], path.read_bytes()
    for hit in (packets[n] for n in (14, 18, 21, 29, 30)):  # whose damage the decoder sees
        broken = bytearray(data)
        broken[hit.pos + hit.size // 3 : hit.pos + hit.size] = bytes(hit.size - hit.size // 3)
        path.write_bytes(broken)
        video = open_video(path)
        found = reads_the_same(video)
        assert len(found) == 47 and all(np.array_equal(found[t], truth[t]) for t in range(47) if t not in video.lost)


def test_a_byte_that_is_missing_costs_the_packet_it_is_missing_in(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.webm", codec="libvpx-vp9", frames=30)
    truth = [f.image for f in open_video(path)]
    hit = [p for p in av.open(str(path)).demux(video=0) if p.size][20]
    data = path.read_bytes()
    path.write_bytes(data[: hit.pos + hit.size // 2] + data[hit.pos + hit.size // 2 + 1 :])
    video = open_video(path)
    found = reads_the_same(video)
    assert 18 <= len(found) <= 20 and video.damage
    assert all(np.array_equal(a, b) for a, b in zip(found, truth, strict=False))


@pytest.mark.parametrize("broken", [[0], [5], [3, 4], [0, 1, 5], [0, 2, 4]])
def test_broken_images_are_stood_in_for(tmp_path: Path, broken: list[int]) -> None:
    folder = numbered(tmp_path / "clip")
    for n in broken:
        path = folder / f"{n:03d}.png"
        path.write_bytes(path.read_bytes()[: 60 if n % 2 else 0])
    video = open_video(folder)
    found = reads_the_same(video)
    good = [n for n in range(6) if n not in broken]
    for t, image in enumerate(found):
        source = max((n for n in good if n <= t), default=good[0])
        assert np.array_equal(image, picture(source))
    assert [t for gap in video.gaps for t in range(gap.start, gap.stop)] == broken
    assert all(f"{gap.start:03d}.png: " in gap.cause for gap in video.gaps) and video.damage is None
    with pytest.raises(InputError, match=r"frame \d cannot be read \(00\d.png: "):
        list(open_video(folder, strict=True))


def test_no_image_is_good(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "clip", 2)
    for path in folder.iterdir():
        path.write_bytes(b"text")
    with pytest.raises(InputError, match="damaged before its first frame"):
        open_video(folder)


def test_no_object_is_told_in_a_gap(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "clip")
    (folder / "003.png").write_bytes(b"")
    video = open_video(folder)
    list(video)
    mask = Rle.encode_pixels(np.ones((H, W), bool))
    seen = {t: Sighting(mask, Source.FORWARD) for t in range(6)}
    only, given_ = Masklet(2, {3: seen[3]}), Masklet(3, {3: Sighting(mask, Source.PROMPTED)})
    result = build_video_result(video, (Masklet(1, seen), only, given_), (), "test", {}, ["more"])
    assert {m.id: sorted(m.sightings) for m in result.masklets} == {1: [0, 1, 2, 4, 5], 3: [3]}
    assert result.provenance.notes[0].startswith("frame 3 could not be read (003.png: ")
    assert result.provenance.notes[-1] == "more" and result.length == 6


def test_many_gaps_are_told_in_few_sentences() -> None:
    told = describe_gaps([Gap(2 * n, 2 * n + 1, "lost") for n in range(9)])
    assert len(told) == 6 and told[-1].startswith("and 4 more gaps, 4 frames")
    assert describe_gaps([]) == []


@pytest.mark.parametrize("share", [0.55, 0.7, 0.85])
@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.webm", "a.mp4"])
def test_a_file_that_is_cut_off_says_so(tmp_path: Path, name: str, share: float) -> None:
    how = {"codec": "libvpx-vp9"} if name == "a.webm" else {}
    path = write_clip(tmp_path / name, frames=47, container={"movflags": "faststart"} if name == "a.mp4" else {}, **how)
    truth, whole = [f.image for f in open_video(path)], open_video(path)
    list(whole)
    assert (whole.damage, whole.notes, whole.gaps) == (None, [], ())
    size = int(path.stat().st_size * share)
    path.write_bytes(path.read_bytes()[: size - size % 188 + 100])
    video = open_video(path)
    found = reads_the_same(video)
    assert 0 < len(found) < 47 and f"damaged after frame {len(found)}" in str(video.damage)
    assert all(np.array_equal(a, b) for a, b in zip(found, truth, strict=False))
    with pytest.raises(InputError, match="`strict`"):
        list(open_video(path, strict=True))


INTACT = {
    "steady.mp4": "-c:v libx264",
    "trimmed.mkv": "-c:v libx264 -g 12 -ss 0.5 -c copy",
    "shifted.mp4": "-c:v libx264 -itsoffset 3 -c copy",
    "refreshed.ts": "-c:v libx264 -x264-params intra-refresh=1:keyint=20",
    "interlaced.mpg": "-c:v mpeg2video -flags +ildct+ilme -bf 2",
    "alternating.webm": "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 10",
    "dropped.avi": "-vf select='not(between(n,11,13)+eq(n,30))' -fps_mode vfr -c:v libx264",
    "uneven.mkv": "-vf setpts='if(lt(N,20),N*0.04,0.8+(N-20)*0.4)/TB' -fps_mode vfr -frames:v 30 -c:v libx264",
    "pausing.flv": "-vf setpts='if(lt(N,29),N*0.04,N*0.04+1)/TB' -fps_mode vfr -frames:v 30 -c:v libx264",
    "pausing.mp4": "-vf setpts='if(lt(N,29),N*0.04,N*0.04+1)/TB' -fps_mode vfr -frames:v 30 -c:v libx264",
    "uneven.mpg": "-vf setpts='if(lt(N,20),N*0.04,0.8+(N-20)*0.4)/TB' -fps_mode vfr -frames:v 30 -c:v mpeg1video",
    "uneven.ts": "-vf setpts='if(lt(N,20),N*0.04,0.8+(N-20)*0.4)/TB' -fps_mode vfr -frames:v 30 -bf 2 -c:v mpeg2video",
    "fast.mkv": "-vf settb=1/1000,setpts=N,fps=1000 -frames:v 30 -c:v libx264",
    "pausing.ts": "-vf setpts='if(lt(N,29),N*0.04,N*0.04+1)/TB' -fps_mode vfr -frames:v 30 -c:v libx264",
}


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", INTACT)
def test_intact_files_are_not_called_damaged(tmp_path: Path, name: str) -> None:
    def ffmpeg(*words: str) -> None:
        subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *words], check=True)

    source = ["-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2"]
    coding, copy, _ = INTACT[name].partition(" -c copy")
    if copy:
        coding, option, value = coding.rsplit(" ", 2)
        ffmpeg(*source, *coding.split(), str(tmp_path / f"base{Path(name).suffix}"))
        source, coding = [option, value, "-i", str(tmp_path / f"base{Path(name).suffix}"), "-c", "copy"], ""
    ffmpeg(*source, *coding.split(), str(tmp_path / name))
    video = open_video(tmp_path / name)
    found = list(video)
    assert (video.damage, video.gaps, video.notes) == (None, (), [])
    assert "-frames:v 30" not in INTACT[name] or len(found) == 30


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mpg", "deep.ts"])
def test_no_frame_of_an_intact_file_is_lost_at_any_length(tmp_path: Path, name: str) -> None:
    how: dict[str, object] = {"codec": "mpeg2video", "options": {"bf": "2"}} if name == "a.mpg" else {}
    if name == "deep.ts":
        how = {"options": {"x264-params": "bframes=16:b-pyramid=normal:keyint=40"}}
    for n in (2, 3, 7, 38, 47):
        video = open_video(write_clip(tmp_path / name, frames=n, **how))  # type: ignore[arg-type]
        assert (len(list(video)), video.damage, video.gaps, video.notes) == (n, None, (), [])


def test_the_header_counts_more_than_are_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", codec="mpeg4", frames=20)
    data = path.read_bytes()
    at = data.index(b"strh") + 8 + 32
    assert struct.unpack("<I", data[at : at + 4]) == (20,)
    path.write_bytes(data[:at] + struct.pack("<I", 25) + data[at + 4 :])
    video = open_video(path)
    list(video)
    assert "25" in f"{video.damage} {video.notes}" and len(video) == 20


# Checks before the work


def test_an_image_of_another_size_is_named_before_any_is_given(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "clip")
    save(folder, ["005.png"], (H, W - 1))
    asked = (
        lambda: open_video(folder, strict=True),
        lambda: open_video(folder, stride=2),
        lambda: open_video(folder).read(0, 1),
        lambda: open_video(folder).check_before_reading(),
        lambda: next(iter(open_video(folder))),
    )
    for ask in asked:
        with pytest.raises(InputError, match=r"clip: 005.png is 63x48, the others 64x48"):
            ask()


def test_headers_are_read_when_frames_are_asked_for_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(image_sequence, "read_image_header", lambda p: read.append(p) or read_image_header(p))
    video = open_video(numbered(tmp_path / "clip"))
    assert len(read) == 1 and video.size == (H, W)
    assert len(list(video)) == len(video.read(0, 6)) == 6 and len(read) == 7


# A part of the frames


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [(20, None, "has no frame from 20 on, of 10;"), (5, 2, "has no frame from 5 to 2, of 10;")],
)
def test_a_part_that_holds_no_frame_is_named(start: int, end: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_video([picture(t) for t in range(10)], start=start, end=end)


@settings(max_examples=40)
@given(
    start=st.integers(0, 8),
    end=st.none() | st.integers(1, 12),
    stride=st.integers(1, 4),
    most=st.none() | st.integers(1, 6),
    live=st.booleans(),
)
def test_frames_are_those_of_a_slice(start: int, end: int | None, stride: int, most: int | None, live: bool) -> None:
    images = [picture(t) for t in range(10)]
    wanted = images[start:end:stride][:most]
    source = iter(images) if live else images
    if not wanted:
        with pytest.raises(InputError, match="has no frame from"):
            open_video(source, start=start, end=end, stride=stride, max_frames=most)
        return
    with open_video(source, rate=10, start=start, end=end, stride=stride, max_frames=most) as video:
        assert live or len(video) == len(wanted)
        found = reads_the_same(video)
        assert len(video) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert video.rate == 10 / stride and video.times == ()


def test_times_and_rates_choose_frames_and_the_result_says_which(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=30)
    truth = [f.image for f in open_video(clip)]
    video = open_video(clip, start="1s", end="0:02.5", fps=5)
    found = reads_the_same(video)
    assert len(found) == len(video) == 8 and video.rate == 5
    assert all(np.array_equal(image, truth[10 + 2 * n]) for n, image in enumerate(found))
    assert "frame 0 here is its frame 10 up to 0:02.5, at most 5 a second" in words(video)
    assert [f.time for f in video] == pytest.approx([n / 5 for n in range(8)])
    assert len(list(open_video(clip, fps=50))) == 30  # none is made up
    uneven = open_video(write_clip(tmp_path / "uneven.mkv", times=UNEVEN), fps=5)
    assert [f.time for f in uneven] == pytest.approx([0, 0.52, 0.92, 1.32])


def test_names_and_gaps_are_those_of_the_frames_that_are_used(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "clip")
    (folder / "004.png").write_bytes(b"")
    video = open_video(folder, start=2, stride=2)
    assert [f.name for f in video] == ["002", "004"] == list(video.frame_names)
    assert [(g.start, g.stop) for g in video.gaps] == [(1, 2)]


def test_large_frames_are_reduced(tmp_path: Path) -> None:
    video = open_video(numbered(tmp_path / "clip", 2), max_side=32)
    assert video.size == (24, 32) and {i.shape for i in reads_the_same(video)} == {(24, 32, 3)}
    assert "reduced from 64x48 to 32x24" in words(video)
    assert open_video(tmp_path / "clip", max_side=100).size == (H, W)


@pytest.mark.parametrize(
    "bad",
    [
        {"start": -1},
        {"start": "x"},
        {"end": "1.5"},
        {"stride": 0},
        {"fps": 0},
        {"max_side": 0},
        {"max_frames": 0},
        {"stride": 2, "fps": 3},
        {"fps": float("nan")},
        {"start": "nans"},
    ],
)
def test_a_selection_that_cannot_be_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        FrameSelection(**bad).check()  # type: ignore[arg-type]


def test_the_orientation_of_nothing_is_upright() -> None:
    assert read_orientation(struct.pack("9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)) == (False, False, False)


def test_every_row_of_the_table_has_its_test() -> None:
    table = DOCS.read_text().partition("| property of the input")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]
    assert len(rows) > 45 and all(len(row) == 3 for row in rows)
    known = {*globals(), *vars(test_avi), *vars(test_seams), *vars(test_live), *vars(test_file_end)}
    for name, what, tests in rows:
        assert any(word in what for word in ("applied", "noted", "refused")), name
        named = re.findall(r"`(\w+)`", tests)
        assert named and known.issuperset(named), f"{name}: {tests}"


def test_names_of_chosen_frames_are_known_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for t in range(9):
        Image.fromarray(np.full((16, 20, 3), 20 * t, np.uint8)).save(tmp_path / "clip" / f"img_{t + 3}.png")
    for words, names in (
        ({}, "3 4 5 6 7 8 9 10 11"),
        ({"start": 2, "stride": 3}, "5 8 11"),
        ({"fps": 12.5}, "3 5 7 9 11"),
    ):
        with open_video(tmp_path / "clip", **words) as video:  # type: ignore[arg-type]
            planned = video.frame_names  # type: ignore[attr-defined]
            assert planned == tuple(f"img_{n}" for n in names.split())
            assert [f.name for f in video] == list(planned) == list(video.frame_names)  # type: ignore[attr-defined]


@given(
    st.lists(st.integers(0, 1200), min_size=1, max_size=30, unique=True),
    st.sampled_from(["", "a", "cam2_", "x.y", "0.", "t-", "-", "shot 1 ", "5"]),
    st.sampled_from(["{}", "{:03d}", "{:02d}"]),
    st.sampled_from([".png", ".JPG"]),
)
def test_plain_series_are_sorted_and_counted_as_all_others_are(
    numbers: list[int], prefix: str, form: str, suffix: str
) -> None:
    """`read_plain_counter` is a short cut: with it and without it the order and the notes are the same."""
    paths = [Path("f9") / f"{prefix}{form.format(n)}{suffix}" for n in numbers]
    quick, found = sort_naturally(paths), read_plain_counter(sort_naturally(paths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_names, "read_plain_counter", lambda paths: None)
        assert quick == sort_naturally(paths)
    stems = [p.stem for p in quick]
    check_one_series(quick, "f9")
    if found is not None:
        assert describe_missing_numbers(stems, found) == describe_missing_numbers(stems)


@pytest.mark.parametrize(
    "names", [["1.png", "2.jpg"], ["a1.png", "b1.png"], ["1.png", "x.png"], ["1_1.png", "1_1b.png"], ["7", "8"]]
)
def test_other_series_are_not_plain(names: list[str]) -> None:
    assert read_plain_counter([Path(name) for name in names]) is None


def test_nothing_is_made_that_cannot_be_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, rates and counts have the limits that results have; an absurd shape of pixels is not believed."""
    frames = [np.zeros((H, W, 3), np.uint8)] * 4
    for rate in (0.0, 1e9, float("nan")):
        with pytest.raises(InputError, match="frames per second"):
            open_video(frames, rate=rate)
    monkeypatch.setattr(limits, "MOST_FRAMES", 3)
    with pytest.raises(InputError, match="the number of frames is 4; at most 3 is taken"):
        list(open_video(frames))
    assert len(list(open_video(frames, max_frames=3))) == 3
    monkeypatch.setattr(limits, "LARGEST_SIDE", W - 1)
    clip = write_clip(tmp_path / "clip.mp4", frames=1, container={"movflags": "+faststart"})
    for source in (frames, numbered(tmp_path / "a", 1), clip):
        with pytest.raises(InputError, match=f"{W}x{H} pixels are too many"):
            open_video(source)
    with clip.open("rb") as file, pytest.raises(InputError, match=f"{W}x{H} pixels are too many"):
        open_pipe(file)


def test_an_absurd_shape_of_pixels_is_not_believed() -> None:
    video = FramesInMemory([np.zeros((H, W, 3), np.uint8)], "a")
    video.pixel_aspect = 1e4
    video.check_limits()
    assert video.pixel_aspect == 1 and "taken as square" in video.notes[0]


@pytest.mark.parametrize("top", [4095, 65535])
def test_pages_of_16_bit_colours_keep_their_low_bits(top: int, tmp_path: Path) -> None:
    """Pillow reads the high byte alone, of which 12 bits fill a sixteenth."""
    pages = [np.random.default_rng(n).integers(0, top + 1, (H, W, 3)).astype(np.uint16) for n in range(3)]
    pages[0][0, 0] = top
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), [page[..., ::-1] for page in pages])
    with open_video(tmp_path / "a.tif") as video:
        found = [frame.image for frame in video]
        assert any(f"0 (black) to {top} (white)" in note for note in video.notes)
        again = video.read(1, 3)
    for page, image in zip(pages, found, strict=True):
        assert np.abs(page * (255 / top) - image).max() <= 0.51
    assert all(np.array_equal(frame.image, image) for frame, image in zip(again, found[1:], strict=True))


def list_packets(path: Path) -> list[tuple[int, int]]:
    """Place and size of each packet of a video, in bytes."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def test_a_packet_that_gives_neither_frame_nor_error_costs_no_number(tmp_path: Path) -> None:
    """Of a kind that decoders pass over, which a damaged byte can make of any."""
    path = write_clip(tmp_path / "a.mp4", "libx265", options={"x265-params": "bframes=0:log-level=none"})
    truth = [f.image for f in open_video(path)]
    place, data = list_packets(path)[15][0], bytearray(path.read_bytes())
    data[place + 4] = 0x7E
    path.write_bytes(data)
    with open_video(path) as video:
        found = [f.image for f in video]
        assert len(found) == 30 and video.gaps and video.gaps[0].start == 15
        assert {gap.cause for gap in video.gaps} == {"a packet gave no frame"}
        assert all(np.array_equal(found[t], truth[t]) for t in range(30) if t not in video.lost)


@pytest.mark.parametrize("damaged", ["sync", "start-code"])
def test_a_damaged_packet_of_a_transport_stream_costs_no_number(damaged: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", options={"bf": "0"})
    truth = [f.image for f in open_video(path)]
    place, data = list_packets(path)[15][0], bytearray(path.read_bytes())
    payload = 4 + (1 + data[place + 4] if data[place + 3] & 0x20 else 0)
    data[place + (payload if damaged == "start-code" else 0)] ^= 0x55
    path.write_bytes(data)
    with open_video(path) as video:
        found = [f.image for f in video]
        assert len(found) == 30 and 15 in video.lost
        assert all(np.array_equal(found[t], truth[t]) for t in range(30) if t not in video.lost)


def test_a_cluster_of_matroska_that_is_passed_over_costs_no_number(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", "ffv1", container={"cluster_time_limit": "500"})
    truth = [f.image for f in open_video(path)]
    data, clusters = bytearray(path.read_bytes()), []
    at = data.find(b"\x1f\x43\xb6\x75")
    while at >= 0:
        clusters.append(at)
        at = data.find(b"\x1f\x43\xb6\x75", at + 1)
    data[clusters[2] : clusters[2] + 12] = bytes(12)
    path.write_bytes(data)
    with open_video(path) as video:
        found = [f.image for f in video]
        assert len(found) == 30 and len(video.lost) >= 5
        assert all(np.array_equal(found[t], truth[t]) for t in range(30) if t not in video.lost)


def test_a_scan_of_mjpeg_that_does_not_decode_to_its_end_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mov", "mjpeg", pixels="yuvj420p")
    truth = [f.image for f in open_video(path)]
    place, size = list_packets(path)[15]
    data = bytearray(path.read_bytes())
    data[place + size // 2 : place + size - 2] = bytes(size - 2 - size // 2)
    path.write_bytes(data)
    with open_video(path) as video:
        found = [f.image for f in video]
        assert set(video.lost) == {15} and len(found) == 30
        assert all(np.array_equal(found[t], truth[t]) for t in range(30) if t != 15)


def test_a_frame_that_is_missing_in_the_even_times_of_mpeg_2_costs_no_number(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mpg", "mpeg2video")
    truth = [f.image for f in open_video(path)]
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(16):
        at = data.find(b"\0\0\1\0", at + 1)  # where a picture starts
    data[at : at + 4] = b"\1\1\1\1"
    path.write_bytes(data)
    with open_video(path) as video:
        found = [f.image for f in video]
        assert len(found) == 30 and 15 in video.lost
        assert all(np.array_equal(found[t], truth[t]) for t in range(30) if t not in video.lost)


def write_recording(path: Path, codec: str, first: int, frames: int, start: int) -> Path:
    """Frames from the `first` on, whose times begin at `start` tenths of a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10, options={"g": "12"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + t))
            frame.pts, frame.time_base = start + t, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("suffix", "codec", "start", "jump"),
    [
        ("ts", "libx264", 0, "back by 2.5 s"),
        ("ts", "mpeg2video", 5, "back by 2."),
        ("ts", "libx264", 3000, "on by 297.3 s"),
        ("mpg", "mpeg2video", 0, "back by 2.5 s"),
        ("mpg", "mpeg2video", 3000, "on by 296.9 s"),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_recordings_one_after_the_other_are_one_video(
    tmp_path: Path, suffix: str, codec: str, start: int, jump: str, is_whole: bool
) -> None:
    one = write_recording(tmp_path / f"one.{suffix}", codec, 0, 25, 0)
    two = write_recording(tmp_path / f"two.{suffix}", codec, 30, 20, start)
    truth = [f.image for path in (one, two) for f in open_video(path)]
    second = two.read_bytes()
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(one.read_bytes() + (second if is_whole else second[len(second) // 188 // 3 * 188 :]))
    with open_video(joined) as video:
        frames = list(video)
        good = [t for t in range(len(frames)) if t not in video.lost]
        behind = 0 if is_whole else 45 - len(frames)  # frames that were cut away, of which nothing is left
        assert len(frames) == 45 if is_whole else 25 + 8 <= len(frames) < 45
        assert all(np.array_equal(frames[t].image, truth[t + behind * (t >= 25)]) for t in good)
        assert [round(f.time * 10) for f in frames] == list(range(len(frames)))
        assert len([t for t in good if t < 25]) >= 23 and (is_whole or 25 in video.lost)
        assert [s for s in video.notes if "another recording begins at frame 25: times jump " in s]
        assert not is_whole or jump in video.notes[0]
    with joined.open("rb") as file, open_pipe(file) as piped:
        assert len(list(piped)) == len(frames) and "another recording begins at frame 25" in piped.notes[0]


def test_a_damaged_tag_of_the_duration_says_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv")
    data = path.read_bytes()
    assert b"00:00:03.0" in data
    path.write_bytes(data.replace(b"00:00:03.0", b"00:00:\xff3.M"))
    with open_video(path) as video:
        assert len(list(video)) == 30 and video.damage is None


@pytest.mark.parametrize("codec", ["libx264", "libvpx", "ffv1"])
def test_a_matroska_file_that_lacks_its_last_frame_is_cut_off(codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", codec, options={"bf": "0"})
    (place, size), data = list_packets(path)[-1], path.read_bytes()
    path.write_bytes(data[:place] + data[place + size + 4 :])
    with open_video(path) as video:
        assert len(list(video)) in (28, 29) and video.damage
