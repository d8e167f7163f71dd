"""JSON lists that are written row by row, so that an hour of video is never in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from masklet.core.files import write_atomically


def write_json_rows(path: Path, facts: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """Writes a JSON object with some `facts`, at least one, and `lists` whose rows are made one by one."""
    with write_atomically(path) as file:
        file.write(json.dumps(facts).encode()[:-1])
        for name, rows in lists.items():
            file.write(f",\n{json.dumps(name)}: ".encode())
            write_json_list(file, rows)
        file.write(b"}")


def write_json_list(file: IO[bytes], rows: Iterable[Any]) -> None:
    """Writes a JSON list, a row a line."""
    file.write(b"[")
    for n, row in enumerate(rows):
        file.write(b",\n" * (n > 0) + json.dumps(row).encode())
    file.write(b"]")
