"""The blocks of a plain ViT through which learnt queries go together with the patches (EoMT, VidEoMT), apart from those
before them, and what a decoder of queries says layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROTATION = "rope_embeddings"  # the part of DINOv3 that says where patches are


@dataclass(frozen=True)
class DecodedSlots:
    """What a frame's decoder says, layer by layer."""

    queries: Float[Tensor, "b n c"]  # Q_t, before the decoder's last norm
    class_logits: tuple[Float[Tensor, "b n k1"], ...]
    mask_logits: tuple[Float[Tensor, "b n h w"], ...]
    pixel_features: Float[Tensor, "b d h w"]


@contextmanager
def tap_outputs(part: nn.Module) -> Iterator[list[Tensor]]:
    """What a part of a network gives, in a list that grows with every call of it."""
    outputs: list[Tensor] = []
    tap = part.register_forward_hook(lambda module, given, output: outputs.append(output))
    try:
        yield outputs
    finally:
        tap.remove()


def embed_tokens(net: Any, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p c"]:
    """The tokens of `images` after the blocks of `net` that know nothing of queries."""
    tokens: Tensor = net.embeddings(images)
    where = locate_patches(net, tokens)
    for block in net.layers[: find_first_query_block(net)]:
        tokens = block(tokens, **where)
    return tokens


def run_query_blocks(
    net: Any, queries: Float[Tensor, "b n c"], tokens: Float[Tensor, "b p c"], every: bool = False
) -> DecodedSlots:
    """The last blocks of `net`, into which `queries` go beside the `tokens` of images. Their attention is not masked,
    as at the end of EoMT's training. `every`: answers are made before each of these blocks, too.
    """
    answers: list[Any] = []
    where, tokens = locate_patches(net, tokens), torch.cat([queries, tokens], 1)
    for block in net.layers[find_first_query_block(net) :]:
        if every:
            answers.append(net.predict(net.layernorm(tokens)))
        tokens = block(tokens, **where)
    with tap_outputs(net.upscale_block) as pixels:
        answers.append(net.predict(net.layernorm(tokens)))
    masks, logits = zip(*answers, strict=True)
    return DecodedSlots(tokens[:, : queries.shape[1]], logits, masks, pixels[-1])


def find_first_query_block(net: Any) -> int:
    """The number of the block that the queries join."""
    return int(net.config.num_hidden_layers - net.config.num_blocks)


def locate_patches(net: Any, tokens: Float[Tensor, "b p c"]) -> dict[str, Any]:
    """What the blocks are told of where patches are: nothing, or DINOv3's rotations, in the precision of `tokens`."""
    if not hasattr(net, ROTATION):
        return {}
    side = net.config.image_size
    return {"position_embeddings": getattr(net, ROTATION)(tokens.new_empty(1, 3, side, side))}
