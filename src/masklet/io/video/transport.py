"""MPEG transport streams: whether packets are missing between two places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

PACKET, SYNC = 188, 0x47  # bytes of a packet, and the first of them
START = b"\0\0\1"


def has_lost_transport_packets(name: str, start: int | None, stop: int | None) -> bool:
    """Whether the counters of a stream's packets jump between two of its packets, or one of them is damaged.

    Args:
        name: of the file, with or without "file:"; False where it is none.
        start, stop: where in the file the two packets begin, in bytes.
    """
    path = Path(name.removeprefix("file:"))
    if start is None or stop is None or stop <= start or not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(stop - start + PACKET)
    packets = np.frombuffer(data[: len(data) // PACKET * PACKET], np.uint8).reshape(-1, PACKET)
    is_whole = packets[:, 0] == SYNC
    if is_whole.mean() <= 0.5 or not is_whole[-1]:  # packets of another length
        return False
    if not is_whole.all():
        return True
    stream = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    ours = packets[(stream == stream[-1]) & (packets[:, 3] & 0x10 > 0)]  # with a payload, which alone are counted
    counters = ours[:, 3].astype(int) & 0x0F
    return bool(((np.diff(counters) % 16) > 1).any()) or any(map(_has_no_start_code, ours))


def _has_no_start_code(packet: UInt8[np.ndarray, " n"]) -> bool:
    """Whether a packet says that a frame begins in it, and does not begin with the start code that this takes."""
    extra = 1 + int(packet[4]) if packet[3] & 0x20 else 0
    payload = packet[4 + extra :]
    return bool(packet[1] & 0x40) and len(payload) >= 3 and payload[:3].tobytes() != START
