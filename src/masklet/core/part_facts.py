"""What a result tells of the parts that made it: what they are, from which weights, and where they computed.

What a part may say of itself is in `core.protocols`; parts of other packages need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from masklet.core.errors import InputError
from masklet.core.protocols import DescribedPart, EncodingPart, NotingPart, PlacedPart, WeightedPart

CPU = torch.device("cpu")


def check_part_facts(kind: str, part: Any) -> None:
    """Raises InputError where a part of this `kind` says of itself what no result can hold: before work, not after."""
    wrong = []
    if isinstance(part, WeightedPart) and not isinstance(part.weights, Mapping):
        wrong.append("`weights` must be a mapping from names to sha256")
    if isinstance(part, PlacedPart) and not isinstance(part.device, torch.device | str):
        wrong.append("`device` must be a torch.device or its name")
    if isinstance(part, NotingPart) and (isinstance(part.notes, str) or not isinstance(part.notes, Sequence)):
        wrong.append("`notes` must be a list of sentences")
    if wrong:
        raise InputError(f"{kind}: {type(part).__name__}: {'; '.join(wrong)}; or name them otherwise")


def collect_parts(*makers: Callable[[], Any]) -> list[Any]:
    """What the `makers` make. Raises one InputError for all that cannot: who lacks two weights hears of both."""
    made, wrong = [], []
    for make in makers:
        try:
            made.append(make())
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("; ".join(dict.fromkeys(wrong)))
    return made


def describe_part(part: Any) -> str:
    """What a part is called in a result's provenance."""
    return part.description if isinstance(part, DescribedPart) else type(part).__name__.lower()


def collect_part_weights(part: Any) -> Mapping[str, str]:
    """The sha256 of a part's weight files by name, or of the encoder that it looks through."""
    own = part.weights if isinstance(part, WeightedPart) else {}
    return own or (collect_part_weights(part.encoder) if isinstance(part, EncodingPart) else {})


def find_device(part: Any) -> torch.device:
    """Where a part computes: its own device, or that of the encoder that it looks through; the CPU where it says
    neither.
    """
    if isinstance(part, PlacedPart):
        return torch.device(part.device)
    return find_device(part.encoder) if isinstance(part, EncodingPart) else CPU


def list_part_notes(part: Any) -> Sequence[str]:
    """What a part has to say in results."""
    return part.notes if isinstance(part, NotingPart) else ()


def describe_device(device: torch.device) -> str:
    """A device as a result's provenance names it.

    >>> describe_device(CPU)
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
