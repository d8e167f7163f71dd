"""Files of trained query heads: DVIS's tracker and refiner, what they are built of, and the names of the classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.nn.query_layers import load_dvis_weights
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner

FORMAT = "masklet-query-heads/1"

S = TypeVar("S")


def save_heads(path: Path, categories: Sequence[str], **heads: ReferringTracker | TemporalRefiner) -> None:
    """Writes heads, named `tracker` and `refiner`, into one safetensors file. Raises InputError where it cannot be
    written.
    """
    about = {"categories": [*categories], **{name: asdict(head.settings) for name, head in heads.items()}}
    state = {f"{name}.{key}": held for name, head in heads.items() for key, held in copy_module_weights(head).items()}
    with write_atomically(path) as file:
        file.write(packed(state, {FORMAT: json.dumps(about)}))


def copy_module_weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights on the host, each in memory of its own."""
    return {key: held.detach().cpu().clone().contiguous() for key, held in module.state_dict().items()}


def is_heads(path: str | Path) -> bool:
    """Whether a file is one that `save_heads` has written."""
    try:
        with safe_open(str(path), "pt") as file:
            return FORMAT in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_tracker(path: str | Path) -> tuple[ReferringTracker, tuple[str, ...]]:
    """The tracker of a file, on the CPU in eval mode, and its categories.

    Raises InputError where the file is damaged, or none that holds a tracker.
    """
    about, state = read_head(Path(path), "tracker")
    network = ReferringTracker(make_head_settings(TrackerSettings, about["tracker"], path))
    return load_dvis_weights(network, state, "tracker"), tuple(about["categories"])


def load_refiner(path: str | Path) -> tuple[TemporalRefiner, tuple[str, ...]]:
    """The refiner of a file, on the CPU in eval mode, and its categories.

    Raises InputError where the file is damaged, or none that holds a refiner.
    """
    about, state = read_head(Path(path), "refiner")
    network = TemporalRefiner(make_head_settings(RefinerSettings, about["refiner"], path))
    return load_dvis_weights(network, state, "refiner"), tuple(about["categories"])


def read_head(path: Path, part: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says of itself, and the weights of one of its heads."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; pass a file of query heads, as `masklet train` writes them")
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
            names = [name for name in file.keys() if name.startswith(f"{part}.")]  # noqa: SIM118  # no mapping
            state = {name.removeprefix(f"{part}."): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged, or no safetensors file ({reason}); copy it again") from None
    if not isinstance(about, dict) or "categories" not in about:
        raise InputError(f"{path}: no query heads of masklet; pass a file that `masklet train` wrote for DVIS")
    if part not in about:
        raise InputError(f"{path}: holds no {part} of DVIS; train one, or pass the file of one that was trained")
    return about, state


def make_head_settings(settings: type[S], told: Any, path: str | Path) -> S:
    """An object of the dataclass `settings` with the values `told` by the file `path`.

    Raises InputError where they are not those that `settings` has.
    """
    try:
        return settings(**told)
    except TypeError:
        raise InputError(f"{path}: query heads of another version of masklet; train them with this one") from None
