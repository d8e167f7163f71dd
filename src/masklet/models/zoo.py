"""Weights by name: where they lie, and the sha256 they must have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from masklet.core.errors import InputError


@dataclass(frozen=True)
class Weights:
    """One weight file."""

    name: str
    path: Path
    sha256: str


def _packaged(file: str) -> Path:
    return Path(str(resources.files("masklet") / "weights" / file))


ZOO = {
    w.name: w
    for w in (
        Weights(
            "mobilenetv2",
            _packaged("mobilenetv2.safetensors"),
            "9793fd2eebf993a47ec125a23d29228a527c0955b60663a04b2b306b99944e25",
        ),
    )
}


def read(weights: Weights) -> dict[str, Tensor]:
    """The tensors of a weight file, by name.

    Raises InputError where the file is not there or is not the one whose sha256 is on record.
    """
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise InputError(
            f"weights {weights.name}: cannot read {weights.path} ({error.strerror}); install masklet again"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise InputError(
            f"weights {weights.name}: {weights.path} has sha256 {found}, expected {weights.sha256}; "
            "the file is damaged or was replaced: install masklet again"
        )
    return load(content)
