"""Files of trained query heads: DVIS's tracker and refiner, what they are built of, and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from masklet.core.errors import InputError
from masklet.nn.query_layers import load_dvis_weights
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.weights.format import QUERY_HEADS, copy_module_weights, is_of_kind, read_described, write_described

S = TypeVar("S")
HEADS = "query heads, as `masklet train` writes them for DVIS"


@dataclass(frozen=True)
class HeadsOrigin:
    """What heads were trained over."""

    weights: Mapping[str, str] = field(default_factory=dict)  # the segmenter's files by name: sha256; none: not told
    side: int | None = None  # pixels of the short side at which the segmenter looks at frames


UNTOLD = HeadsOrigin()


def save_heads(
    path: Path,
    categories: Sequence[str],
    origin: HeadsOrigin = UNTOLD,
    **heads: ReferringTracker | TemporalRefiner,
) -> None:
    """Writes heads into one safetensors file.

    Args:
        path: of the file.
        categories: names of the classes.
        origin: what they were trained over.
        heads: networks, named `tracker` and `refiner`.

    Raises InputError where it cannot be written.
    """
    about = {
        "categories": [*categories],
        "segmenter": dict(origin.weights),
        "side": origin.side,
        **{name: asdict(head.settings) for name, head in heads.items()},
    }
    state = {f"{name}.{key}": held for name, head in heads.items() for key, held in copy_module_weights(head).items()}
    write_described(path, QUERY_HEADS, state, about)


def is_heads(path: str | Path) -> bool:
    """Whether a file is one that `save_heads` has written."""
    try:
        return is_of_kind(Path(path), QUERY_HEADS)
    except InputError:
        return False


def read_heads_origin(path: str | Path) -> HeadsOrigin:
    """What the heads of a file were trained over, as far as it tells: older files do not. Raises InputError where it is
    no file of heads, or damaged.
    """
    about = read_described(Path(path), QUERY_HEADS, HEADS).about
    weights, side = about.get("segmenter") or {}, about.get("side")
    if not isinstance(weights, dict) or not isinstance(side, int | None):
        raise InputError(f"{path}: damaged (what it says of its segmenter is no table); train or copy it again")
    return HeadsOrigin(weights, side)


def has_head(path: str | Path, part: str) -> bool:
    """Whether a file of heads holds a `part`, "tracker" or "refiner". Raises InputError where it is none or damaged."""
    return part in read_described(Path(path), QUERY_HEADS, HEADS).about


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


def read_head(path: Path, part: str) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """What a file says of itself, and the weights of one of its heads."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; pass a file of query heads, as `masklet train` writes them")
    held = read_described(path, QUERY_HEADS, HEADS)
    about = held.about
    if "categories" not in about:
        raise InputError(f"{path}: damaged (it names no categories); train or copy it again")
    state = {n.removeprefix(f"{part}."): value for n, value in held.tensors.items() if n.startswith(f"{part}.")}
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
