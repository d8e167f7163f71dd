"""What a result is made by: source, system, parts, settings, weights, version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from masklet.core.part_facts import collect_part_weights, describe_part
from masklet.version import __version__

FILE = "recipe.json"  # beside a video's masklets.json
UNKNOWN = "unknown"  # a source of which nothing can be told before it is read
PARTS = ("segmenter", "propagator", "bystanders")


def describe_recipe(files: Sequence[Path], system: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of one video's result, as json has it.

    Args:
        files: of the source.
        system: that is run.
        more: what else decides the result, such as prompts and the formats that are written.
    """
    parts = {name: getattr(system, name, None) for name in PARTS}
    settings = getattr(system, "settings", None)
    return {
        "version": __version__,
        "source": identify_files(files),
        "system": type(system).__name__,
        "settings": asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else {},
        "parts": {name: describe_part(part) for name, part in parts.items() if part is not None},
        "weights": {n: sha for p in parts.values() if p is not None for n, sha in collect_part_weights(p).items()},
        **more,
    }


def compute_recipe_hash(recipe: Mapping[str, Any]) -> str:
    """A short name of a recipe: equal recipes have equal ones."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()[:16]


def list_source_files(source: str | tuple[str, ...]) -> list[Path]:
    """The files of a source, as far as they are files: one, those of a folder or of a list, or those of a glob."""
    if isinstance(source, tuple):
        return [Path(path) for path in source]
    path = Path(source)
    if path.is_dir():
        return sorted(path.iterdir())
    return [path] if path.is_file() or not has_magic(source) else sorted(map(Path, glob(source)))


def identify_files(files: Sequence[Path]) -> str:
    """What tells a source from another one of its name: sizes and times of its `files`; `UNKNOWN` for a pipe."""
    try:
        facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.is_file()]
    except OSError:
        facts = []
    return f"{files[0].name} {hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}" if facts else UNKNOWN


def compare_recipes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, a phrase each.

    >>> compare_recipes({"settings": {"conf": 0.5}, "version": "1"}, {"settings": {"conf": 0.6}, "version": "1"})
    ['settings.conf was 0.5, now 0.6']
    """
    was, new = _flatten(before), _flatten(now)
    return [
        f"{key} was {was.get(key, 'not there')}, now {new.get(key, 'not there')}"
        for key in dict.fromkeys((*was, *new))
        if was.get(key) != new.get(key)
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, held in value.items():
        if isinstance(held, Mapping):
            flat |= _flatten(held, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(held) if isinstance(held, tuple) else held
    return flat
