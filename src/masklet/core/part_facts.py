"""What a result tells of the parts that made it: what they are, from which weights, and where they computed.

Parts of other packages need none of these attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

CPU = torch.device("cpu")


def describe_part(part: Any) -> str:
    """What a part is called in a result's provenance."""
    return str(getattr(part, "description", type(part).__name__.lower()))


def collect_part_weights(part: Any) -> Mapping[str, str]:
    """The sha256 of a part's weight files by name, or of the encoder that it looks through."""
    found: Mapping[str, str] = getattr(part, "weights", None) or getattr(getattr(part, "encoder", None), "weights", {})
    return found


def find_device(part: Any) -> torch.device:
    """Where a part computes: its own `device`, or that of the encoder that it looks through; the CPU where it says
    neither.
    """
    own = getattr(part, "device", None) or getattr(getattr(part, "encoder", None), "device", None)
    return torch.device(own or CPU)


def describe_device(device: torch.device) -> str:
    """A device as a result's provenance names it.

    >>> describe_device(CPU)
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
