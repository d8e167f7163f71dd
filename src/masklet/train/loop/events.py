"""The log of a run as TensorBoard reads it: an event file of scalars, written without TensorBoard.

A record is its length, a checksum of that, its bytes (a protocol buffer `Event`), a checksum of those; checksums are
CRC-32C, rotated and shifted as TFRecord has it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from masklet.core.files import explain_write_error

POLYNOMIAL = 0x82F63B78  # of CRC-32C, its bits turned round
MASK = 0xA282EAD8
VERSION = b"brain.Event:2"
FOLDER = "tensorboard"


class EventFile:
    """One file in `<run>/tensorboard/`, to which steps are appended. A run that goes on begins a new one."""

    def __init__(self, run: Path, first: int) -> None:
        """`run` is the folder of the training, `first` the number of the step that comes first: what an earlier file
        says from there on is void. Raises InputError where it cannot be written.
        """
        self.path = run / FOLDER / f"events.out.tfevents.{time.time_ns()}.masklet"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_write_error(self.path, error) from None
        self._append(encode_bytes(3, VERSION))
        self._append(encode_number(2, first) + encode_bytes(7, encode_number(1, 1)))  # SessionLog: it starts here

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends scalars of a step by name. Raises InputError where the file cannot be written."""
        summary = b"".join(
            encode_bytes(1, encode_bytes(1, name.encode()) + encode_float(2, value)) for name, value in values.items()
        )
        self._append(encode_number(2, step) + encode_bytes(5, summary))

    def _append(self, event: bytes) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(pack_record(encode_double(1, time.time()) + event))
        except OSError as error:
            raise explain_write_error(self.path, error) from None


def list_scalars(facts: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """The numbers of a line of the log by name, those of a validation under "validation/".

    >>> list_scalars({"loss": 1.5, "norm": None, "skipped": True, "validation": {"AP": 3}})
    {'loss': 1.5, 'validation/AP': 3.0}
    """
    found: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= list_scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + name] = float(value)
    return found


def pack_record(content: bytes) -> bytes:
    """The bytes `content` as a record of TFRecord."""
    length = struct.pack("<Q", len(content))
    return length + compute_masked_checksum(length) + content + compute_masked_checksum(content)


def compute_masked_checksum(content: bytes) -> bytes:
    """The checksum of TFRecord, 4 bytes."""
    found = compute_crc32c(content)
    return struct.pack("<I", ((found >> 15 | found << 17) + MASK) & 0xFFFFFFFF)


def compute_crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli).

    >>> hex(compute_crc32c(b"123456789"))
    '0xe3069283'
    """
    table, found = build_crc_table(), 0xFFFFFFFF
    for byte in content:
        found = table[(found ^ byte) & 0xFF] ^ found >> 8
    return found ^ 0xFFFFFFFF


@cache
def build_crc_table() -> tuple[int, ...]:
    """The checksum of every byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


# -- protocol buffers: field number and kind, then the value


def encode_varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first.

    >>> encode_varint(300)
    b'\\xac\\x02'
    """
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def encode_number(field: int, value: int) -> bytes:
    """A whole number."""
    return encode_varint(field << 3) + encode_varint(value)


def encode_double(field: int, value: float) -> bytes:
    """A number of 8 bytes."""
    return encode_varint(field << 3 | 1) + struct.pack("<d", value)


def encode_bytes(field: int, value: bytes) -> bytes:
    """Bytes, a text or a message."""
    return encode_varint(field << 3 | 2) + encode_varint(len(value)) + value


def encode_float(field: int, value: float) -> bytes:
    """A number of 4 bytes; beyond their range infinity."""
    try:
        held = struct.pack("<f", value)
    except OverflowError:
        held = struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    return encode_varint(field << 3 | 5) + held
