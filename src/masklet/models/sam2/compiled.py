"""SAM 2 compiled: the image encoder, memory attention, the mask decoder and the memory encoder.

Frames have one size, and objects go through the networks in groups of few sizes (`Sam2Core.split_rows`), so that few
programs are made. What is read of a memory grows in the first frames: memory attention is compiled for all lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from masklet.models.sam2.core import FrameAttention
from masklet.models.sam2.image_encoder import Sam2ImageEncoder
from masklet.models.sam2.propagator import Sam2
from masklet.nn.compilation import INDUCTOR, compile_function, compile_module

P = TypeVar("P", bound=Sam2)


@dataclass(frozen=True)
class CompiledAttention:
    """A `MemoryAttention`, whose two functions are compiled."""

    look: Callable[..., Any]
    condition: Callable[..., Any]

    def __call__(self, *inputs: Any) -> Any:
        """The frame's tokens conditioned on each object's memory."""
        return self.condition(*inputs)


def compile_attention(attention: FrameAttention, backend: str = INDUCTOR) -> CompiledAttention:
    """Memory attention for memories of all lengths, compiled when it is first used. `backend` is `torch.compile`'s."""
    look = compile_function(attention.look, dynamic=False, backend=backend)
    return CompiledAttention(look, compile_function(attention.__call__, dynamic=True, backend=backend))


def compile_sam2(propagator: P, backend: str = INDUCTOR) -> P:
    """Has the networks of a `propagator` compiled when each is first used; in place. `backend` is `torch.compile`'s."""
    core, encoder = propagator.core, propagator.net.memory_encoder
    core.attention = compile_attention(core.attention, backend)
    for part in (propagator.net.mask_decoder, encoder.mask_downsampler, encoder.memory_fuser):
        compile_module(part, backend)
    if isinstance(propagator.images, Sam2ImageEncoder):
        propagator.images.compile(backend)
    return propagator
