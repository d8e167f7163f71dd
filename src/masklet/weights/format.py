"""The form of every weight file of ours: safetensors that say of themselves what they are and how they are built.

The file's metadata hold `kind`, and each thing that is told of it under its name, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.files import write_atomically

QUERY_HEADS = "query-heads"
OLDER = {"masklet-query-heads/1": QUERY_HEADS}  # files of before told all under one such name


@dataclass(frozen=True)
class DescribedWeights:
    """What a file of ours holds."""

    about: Mapping[str, Any]
    tensors: dict[str, Tensor]


def copy_module_weights(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """A module's weights on the host, each in memory of its own, as `dtype` where one is given."""
    held = module.state_dict().items()
    return {key: value.detach().to("cpu", dtype, copy=True).contiguous() for key, value in held}


def write_described(path: Path, kind: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes a file of this form, whole or not at all.

    Args:
        path: of the file.
        kind: what it is.
        tensors: by name, in memory of their own.
        about: what else is told of it, by name; values as JSON has them.

    Raises:
        InputError: it cannot be written.
    """
    metadata = {"kind": kind, **{name: json.dumps(value) for name, value in about.items()}}
    with write_atomically(path) as file:
        file.write(save(dict(tensors), metadata))


def read_kind(path: Path) -> str:
    """What a safetensors file says that it is; "" where it says nothing. Raises InputError on damage."""
    metadata = read_safetensors_metadata(path)
    return metadata.get("kind") or next((kind for name, kind in OLDER.items() if name in metadata), "")


def is_of_kind(path: Path, kind: str) -> bool:
    """Whether it is a file of this form and `kind`. Raises InputError where it is a damaged safetensors file."""
    return path.suffix == ".safetensors" and path.is_file() and read_kind(path) == kind


def read_described(path: Path, kind: str, what: str) -> DescribedWeights:
    """A file of this form, or of what was before it.

    Args:
        path: of the file.
        kind: that it must be of.
        what: that is in words, for errors.

    Raises:
        InputError: it is damaged, or of another kind.
    """
    metadata = read_safetensors_metadata(path)
    if (found := read_kind(path)) != kind:
        raise InputError(f"{path}: not weights of {what}" + (f", but of {found}" if found else ""))
    with explain_damage(path):
        older: Mapping[str, Any] = next((json.loads(metadata[name]) for name in OLDER if name in metadata), {})
        about = {name: json.loads(value) for name, value in metadata.items() if name not in ("kind", "format", *OLDER)}
        if not isinstance(older, dict):
            raise TypeError("what is told of it is no table")
        return DescribedWeights({**older, **about}, load_file(path))


def read_safetensors_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself. Raises InputError on damage."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged or cut off ({reason}); fetch or copy it again") from None


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Raises InputError in place of what goes wrong while a network is built of what the file `path` tells of it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # what a damaged file tells makes anything go wrong
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged ({reason}); train or copy it again") from None
