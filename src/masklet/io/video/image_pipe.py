"""Images one after the other in a pipe, each as soon as its last byte is there: FFmpeg would wait for the next one."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Protocol

import numpy as np
from PIL import Image

from masklet.core.image_files import check_png_sums
from masklet.core.limits import LARGEST_JSON, check_frame_size
from masklet.io.video.frame_source import DamagedSourceError, ReadFrame
from masklet.io.video.images import IMAGE_ERRORS, convert_image, explain_image_error, turn_upright
from masklet.io.video.value_range import RunningRange

PADDING = b"\n\r\0"  # what some programs write between images
RESTARTS = range(0xD0, 0xD8)  # JPEG's markers within a scan
PNM_HEADER = re.compile(rb"P([56])\s(?:#[^\n]*\n|\s)*(\d+)\s(?:#[^\n]*\n|\s)*(\d+)\s(?:#[^\n]*\n|\s)*(\d+)\s")


class Readable(Protocol):
    """Gives up to so many bytes, those that are there; none at its end."""

    def read(self, n: int) -> bytes: ...


class ByteReader:
    """A stream of which exactly as many bytes are taken as are asked for."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._held = bytearray()

    def _fill(self, size: int) -> None:
        while len(self._held) < size:
            piece = self._stream.read(1 << 16)
            if not piece:
                raise EOFError
            self._held += piece

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay. Raises EOFError where there are fewer."""
        self._fill(size)
        return bytes(self._held[:size])

    def take(self, size: int) -> bytes:
        """The next bytes. Raises EOFError where there are fewer."""
        found = self.peek(size)
        del self._held[:size]
        return found

    def take_to(self, mark: bytes) -> bytes:
        """The next bytes up to the end of a mark. Raises EOFError where it does not come."""
        since = 0
        while (at := self._held.find(mark, since)) < 0:
            since = max(len(self._held) - len(mark) + 1, 0)
            self._fill(len(self._held) + 1)
        return self.take(at + len(mark))

    def give_back(self, data: bytes) -> None:
        """Puts bytes before those that come next."""
        self._held[:0] = data

    def is_at_end(self, padding: bytes = b"") -> bool:
        """Whether nothing more comes but the `padding`, bytes that are passed over."""
        try:
            while self.peek(1) in padding and padding:
                self.take(1)
        except EOFError:
            return True
        return False


def iterate_piped_images(stream: Readable, rate: float) -> Iterator[ReadFrame]:
    """The images (PNG, JPEG, BMP, PPM, PGM) in a `stream` of such, at a constant `rate` in frames per second; one that
    cannot be decoded says why. Raises DamagedSourceError where something else comes, or the last is cut off.
    """
    reader, values, n = ByteReader(stream), RunningRange(), 0
    while not reader.is_at_end(PADDING):
        try:
            data = take_image(reader)
        except (EOFError, struct.error):
            raise DamagedSourceError("the stream is cut off there") from None
        yield decode_piped_image(data, n / rate, values)
        n += 1


def decode_piped_image(data: bytes, time: float, values: RunningRange) -> ReadFrame:
    """The pixels of an image, upright as its EXIF says, or why there are none; shown at `time` in seconds, its `values`
    in the range of those before it.
    """
    try:
        with Image.open(BytesIO(data)) as opened:
            check_png_sums(opened)
            image = turn_upright(opened)
            if image.mode[0] in "IF":
                return ReadFrame(np.repeat(values.squeeze(np.asarray(image))[..., None], 3, axis=2), time)
            return ReadFrame(convert_image(image)[0], time)
    except IMAGE_ERRORS as error:
        return ReadFrame(explain_image_error(error), time)


def take_image(reader: ByteReader) -> bytes:
    """The bytes of the next image. Raises DamagedSourceError where it is none that is known."""
    start = reader.peek(2)
    takers = {b"\x89P": take_png, b"\xff\xd8": take_jpeg, b"BM": take_bmp, b"P5": take_pnm, b"P6": take_pnm}
    if start not in takers:
        raise DamagedSourceError("what follows is no image")
    return takers[start](reader)


def take_png(reader: ByteReader) -> bytes:
    """The next bytes up to the end of a PNG: chunks, each with its length."""
    parts = [reader.take(8)]
    while parts[-1][4:8] != b"IEND":
        [size] = struct.unpack(">I", reader.peek(4))
        parts.append(reader.take(size + 12))
    return b"".join(parts)


def take_jpeg(reader: ByteReader) -> bytes:
    """The next bytes up to the end of a JPEG: segments with their lengths, and scans, which end at a marker."""
    parts = [reader.take(2)]
    while True:
        parts.append(reader.take_to(b"\xff"))
        while (kind := reader.take(1)) == b"\xff":  # filling
            pass
        parts.append(kind)
        if kind == b"\xd9":
            return b"".join(parts)
        if kind == b"\xd8":  # the next image begins: this one is cut off
            reader.give_back(b"\xff\xd8")
            return b"".join(parts[:-1])
        if kind[0] in (0x00, 0x01, *RESTARTS):  # within a scan
            continue
        [size] = struct.unpack(">H", reader.peek(2))
        parts.append(reader.take(size))


def take_bmp(reader: ByteReader) -> bytes:
    """The next bytes up to the end of a BMP, which says its length."""
    [size] = struct.unpack("<I", reader.peek(6)[2:])
    return reader.take(max(min(size, LARGEST_JSON), 26))


def take_pnm(reader: ByteReader) -> bytes:
    """The next bytes up to the end of a PPM or PGM, whose header says its size in text."""
    size = 16
    while not (head := PNM_HEADER.match(reader.peek(size))):
        size += 1
        if size > 4096:
            raise DamagedSourceError("what follows is no image")
    kind, width, height, most = (int(text) for text in head.groups())
    check_frame_size("an image in the pipe", height, width)
    return reader.take(head.end() + width * height * (3 if kind == 6 else 1) * (1 + (most > 255)))
