"""MPEG transport streams: whether packets are missing between two places."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PACKET, SYNC = 188, 0x47  # bytes of a packet, and the first of them


def has_lost_transport_packets(name: str, start: int | None, stop: int | None) -> bool:
    """Whether the counters of a stream's packets jump between two of its packets.

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
    if (packets[:, 0] != SYNC).any():  # packets of another length
        return False
    stream = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    ours = packets[(stream == stream[-1]) & (packets[:, 3] & 0x10 > 0)]  # with a payload, which alone are counted
    counters = ours[:, 3].astype(int) & 0x0F
    return bool(((np.diff(counters) % 16) > 1).any())


def is_cut_transport_file(name: str) -> bool:
    """Whether a file `name`, with or without "file:", of transport packets ends in the middle of one."""
    path = Path(name.removeprefix("file:"))
    if not path.is_file() or path.stat().st_size % PACKET == 0:
        return False
    with path.open("rb") as file:
        head = file.read(PACKET + 1)
    return len(head) <= PACKET or head[0] == head[PACKET] == SYNC
