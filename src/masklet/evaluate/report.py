"""What an evaluation says: numbers with the protocol, the files and the warnings that belong to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from masklet.core.files import write_atomically

Scores = Mapping[str, float | None]  # None: undefined, such as the AP of a category without ground truth


@dataclass(frozen=True)
class Curve:
    """A number against another one, to be drawn."""

    across: str  # what x is
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """One metric of one set of predictions."""

    metric: str  # its name on the command line
    protocol: str  # whose definition this is and what it does that a reader might not expect, in a sentence
    scores: Scores  # the headline, in printing order; in the official tool's own range, 0 to 1 or 0 to 100
    parts: Mapping[str, Scores] = field(default_factory=dict)  # by category, by level of occlusion, by window
    videos: Mapping[str, Scores] = field(default_factory=dict)
    objects: Mapping[str, Scores] = field(default_factory=dict)  # "video/object"
    warnings: tuple[str, ...] = ()  # what the official tool accepts in silence
    inputs: tuple[Path, ...] = ()  # the files and folders that were read
    events: Mapping[str, Scores] = field(default_factory=dict)  # such as identity switches: "video, frame t"
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def save(self, path: Path, version: str) -> None:
        """Writes all of it as JSON, with masklet's version and the sha256 of every file that was read."""
        with write_atomically(path) as file:
            file.write(json.dumps({"version": version, **self.as_json()}, indent=1).encode())

    def as_json(self) -> dict[str, Any]:
        """What `save` writes, but for the version."""
        return {
            "metric": self.metric,
            "protocol": self.protocol,
            "scores": dict(self.scores),
            "parts": {name: dict(row) for name, row in self.parts.items()},
            "videos": {name: dict(row) for name, row in self.videos.items()},
            "objects": {name: dict(row) for name, row in self.objects.items()},
            "events": {name: dict(row) for name, row in self.events.items()},
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "warnings": list(self.warnings),
            "inputs": {str(path): compute_digest(path) for path in self.inputs},
        }


def compute_digest(path: Path) -> str:
    """sha256 of a file; of a folder, that of its files' names and digests in sorted order."""
    if path.is_dir():
        return _compute_sha256(
            f"{p.relative_to(path)} {compute_digest(p)}\n".encode() for p in sorted(path.rglob("*")) if p.is_file()
        )
    with path.open("rb") as file:
        return _compute_sha256(iter(lambda: file.read(1 << 20), b""))


def _compute_sha256(parts: Iterable[bytes]) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
