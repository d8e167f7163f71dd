"""Images as masks, labels and prompts: what is too large, damaged or no image is refused before its pixels are made."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.image_files import open_image, read_image_size
from masklet.evaluate.vos.label_maps import _unpack_rows, read_labels, read_mask_frame
from masklet.io.annotations.label_image import read_label_image
from masklet.io.prompts import read_prompt


def make_png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + packed


BAD = {
    "bomb.png": make_png(20_000, 20_000, b""),
    "wide.png": make_png(70_000, 2, b""),
    "none.png": make_png(0, 5, b""),
    "large.png": make_png(2**31 - 1, 2**31 - 1, b""),
    "text.png": b"no image at all",
    "empty.png": b"",
    "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "cut.png": make_png(30, 40, np.random.default_rng(0).bytes(31 * 40))[:600],
    "short.png": make_png(30, 40, bytes(10)),
}
READERS = (
    open_image,
    read_label_image,
    read_labels,
    read_mask_frame,
    lambda path: read_prompt(f"0:1:{path}"),
)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("read", READERS, ids=["image", "label", "labels", "mask", "prompt"])
def test_bad_images_are_named(name: str, read: object, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)  # type: ignore[operator]


def test_images_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path, tmp_path / ("x" * 300), Path("a\0b")):
        with pytest.raises(InputError):
            open_image(path)
        with pytest.raises(InputError):
            read_image_size(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "tga", "jp2"])
def test_good_images_are_opened(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / f"a.{suffix}")
    assert np.asarray(open_image(tmp_path / f"a.{suffix}").convert("RGB")).shape == (4, 6, 3)
    assert read_image_size(tmp_path / f"a.{suffix}") == (4, 6)


def test_rows_that_unpack_to_more_than_the_image_has(tmp_path: Path) -> None:
    """A small size in the header, and gigabytes in the rows: as large a piece as the image's is unpacked, no more."""
    rows = np.random.default_rng(0).bytes(1 << 19) + bytes(1 << 20)
    assert len(_unpack_rows(zlib.compress(rows), 20)) == 21
    assert _unpack_rows(zlib.compress(bytes(20)), 20) == bytes(20)
    (tmp_path / "rows.png").write_bytes(make_png(4, 4, rows))
    with pytest.raises(InputError, match=r"rows\.png"):
        read_labels(tmp_path / "rows.png")
