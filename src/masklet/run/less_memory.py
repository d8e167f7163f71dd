"""What is done when memory runs out in the middle of a video."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from masklet.core.protocols import BatchingPart

T = TypeVar("T")
DEPTH = 4  # of parts within parts
CPU_SAYS = "can't allocate memory"  # torch's word for it on a CPU, in a plain RuntimeError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a device or of the machine."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or CPU_SAYS in str(error)


def run_with_halved_batches(work: Callable[[], T], system: Any) -> tuple[T, list[str]]:
    """What `work` gives, which runs the `system`. Where memory runs out, all that goes through a network of its parts
    together is halved, which changes no answer, and it is done again.

    Returns:
        What `work` gives, and sentences on what was halved.

    Raises:
        Exception: whatever `work` raises; an error for want of memory where nothing is left to be halved.
    """
    notes: list[str] = []
    while True:
        try:
            return work(), notes
        except Exception as error:
            halved = halve_batches(system) if is_out_of_memory(error) else []
            if not halved:
                raise
            notes += halved
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def halve_batches(system: Any) -> list[str]:
    """Halves what goes through the networks of a `system` together; a sentence for each part of which that is so."""
    told = []
    for part in find_batching_parts(system):
        if part.at_once > 1:
            part.at_once //= 2
            told.append(f"memory ran out: {type(part).__name__} went on with {part.at_once} at once")
    return told


def find_batching_parts(part: Any, depth: int = DEPTH) -> list[BatchingPart]:
    """The parts within a system or a `part`, and itself, that say how much goes through a network together."""
    within = list(getattr(part, "__dict__", {}).values()) if depth else []
    found = [part] if isinstance(part, BatchingPart) else []
    found += [one for inner in within for one in find_batching_parts(inner, depth - 1)]
    return list({id(one): one for one in found}.values())
