"""Whether a file ends where its kind does, for those that FFmpeg just stops reading where they are cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

SYNC = 0x47  # with what a packet of a transport stream begins
PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and where in it that is
PAGE, LAST_PAGE = b"OggS", 0x04
LONGEST_PAGE = 65_307  # bytes
EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B  # with what the blocks of a GIF begin
LARGEST_GIF = 1 << 28  # bytes that are looked through


def is_cut_file(name: str, kind: str, read: int) -> bool:
    """Whether a file is cut off.

    Args:
        name: of the file, with or without "file:"; what is none is not cut off.
        kind: what FFmpeg calls its container.
        read: bytes up to the end of the last packet.
    """
    path = Path(name.removeprefix("file:"))
    if kind not in CHECKS or not path.is_file():
        return False
    return CHECKS[kind](path, read)


def _is_cut_transport(path: Path, read: int) -> bool:
    """Whether it ends in the middle of a packet."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(256)
    lengths = [n for n, at in PACKETS if len(head) > n + at and head[at] == head[n + at] == SYNC]
    return (bool(lengths) or len(head) <= PACKETS[0][0]) and all(size % n for n in lengths or (PACKETS[0][0],))


def _is_cut_ogg(path: Path, read: int) -> bool:
    """Whether its last page is not called the last, or not whole."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2 * LONGEST_PAGE, 0))
        tail = file.read()
    at = tail.rfind(PAGE)
    if at < 0 or at + 27 > len(tail) or not tail[at + 5] & LAST_PAGE:
        return True
    lengths = tail[at + 27 : at + 27 + tail[at + 26]]
    return at + 27 + tail[at + 26] + sum(lengths) > len(tail)


def _has_rest(path: Path, read: int) -> bool:
    """Whether bytes come after the last packet, which are part of another."""
    return 0 < read < path.stat().st_size


def _is_cut_gif(path: Path, read: int) -> bool:
    """Whether its blocks do not end with the one that is the last."""
    if path.stat().st_size > LARGEST_GIF:
        return False
    data = path.read_bytes()
    if len(data) < 13:
        return True
    at = 13 + _measure_colours(data[10])
    while at < len(data) and data[at] in (EXTENSION, IMAGE):
        if data[at] == IMAGE and at + 9 < len(data):
            at += 11 + _measure_colours(data[at + 9])
        else:
            at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return at >= len(data)


def _measure_colours(flags: int) -> int:
    """Bytes of the table of colours of which a GIF's flags tell."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


CHECKS: Mapping[str, Callable[[Path, int], bool]] = {
    "mpegts": _is_cut_transport,
    "ogg": _is_cut_ogg,
    "yuv4mpegpipe": _has_rest,
    "dv": _has_rest,
    "gif": _is_cut_gif,
}
