"""SAM 2's memory attention over the modules of transformers' `Sam2VideoModel`, for several objects at once.

What all objects have in common is computed once: until the first cross-attention they look at the same frame. The
memories' values have a quarter of the keys' width, so they are averaged first and projected afterwards, which is the
same (the weights of an average sum to 1) at five eighths of the multiplications.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Complex, Float
from torch import Tensor

ROWS = 256  # queries that attend at a time: their scores fit into the cache
ALIGNED = 8  # keys are padded to a multiple of this: a twentieth of the time


class MemoryAttention:
    """`net` is the module; `compute_rotary_encodings` are its rotary position encodings of one frame's tokens."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.rotations = compute_rotary_encodings(net)
        self.memory_rotations = self.rotations  # of one remembered frame's tokens

    def look(self, current: Float[Tensor, "p c"]) -> Float[Tensor, "1 p c"]:
        """What all objects have in common: the frame's tokens, with their position encoding, after looking around."""
        first = self.net.layers[0]
        return current[None] + self._looks_around(first.self_attn, first.layer_norm1(current[None]))

    def __call__(
        self,
        look: Float[Tensor, "1 p c"],
        keys: Float[Tensor, "b m d"],
        values: Float[Tensor, "b m d"],
        pointers: int,
    ) -> Float[Tensor, "b p c"]:
        """The frame's tokens conditioned on each object's memory (SAM 2, section 4).

        Args:
            look: of the frame.
            keys: the memories' tokens with their position encodings: whole frames, then `pointers` pointer tokens.
            values: the memories' tokens alone.
        """
        x = look
        for n, layer in enumerate(self.net.layers):
            if n > 0:
                x = x + self._looks_around(layer.self_attn, layer.layer_norm1(x))
            x = x + self._remembers(layer.cross_attn_image, layer.layer_norm2(x), keys, values, pointers)
            x = x + self._thinks(layer, layer.layer_norm3(x))
        conditioned: Tensor = self.net.layer_norm(x)
        return conditioned

    def _thinks(self, layer: Any, x: Float[Tensor, "b p c"]) -> Float[Tensor, "b p c"]:
        out: Tensor = layer.linear2(layer.activation(layer.linear1(x)))
        return out

    def _looks_around(self, part: Any, x: Float[Tensor, "a p c"]) -> Float[Tensor, "a p c"]:
        q, k = rotate_tokens(part.q_proj(x), self.rotations), rotate_tokens(part.k_proj(x), self.rotations)
        attended = nnf.scaled_dot_product_attention(q[:, None], k[:, None], part.v_proj(x)[:, None])
        out: Tensor = part.o_proj(attended[:, 0])
        return out

    def _remembers(
        self,
        part: Any,
        x: Float[Tensor, "a p c"],
        keys: Float[Tensor, "b m d"],
        values: Float[Tensor, "b m d"],
        pointers: int,
    ) -> Float[Tensor, "b p c"]:
        q, k = rotate_tokens(part.q_proj(x), self.rotations), part.k_proj(keys)
        frames = k.shape[1] - pointers
        k = torch.cat([rotate_tokens(k[:, :frames], self.memory_rotations), k[:, frames:]], dim=1)
        q = q.expand(len(k), -1, -1)
        if k.is_cuda or k.requires_grad:
            v = part.v_proj(values)
            mixed = nnf.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            mixed = part.v_proj(compute_attention_average(q / math.sqrt(q.shape[2]), k, values))
        out: Tensor = part.o_proj(mixed)
        return out


def compute_attention_average(
    q: Float[Tensor, "b p c"], k: Float[Tensor, "b m c"], values: Float[Tensor, "b m d"]
) -> Float[Tensor, "b p d"]:
    """Each query's average of the `values`, weighted by the softmax of its products with the keys `k`; the queries `q`
    are scaled already.
    """
    out, m = values.new_empty(*q.shape[:2], values.shape[2]), k.shape[1]
    k, values = (nnf.pad(x, (0, 0, 0, -m % ALIGNED)) for x in (k, values))
    for queries, keys, remembered, into in zip(q, k, values, out, strict=True):
        for start in range(0, len(queries), ROWS):
            products = queries[start : start + ROWS] @ keys.T
            products[:, m:] = -torch.inf
            torch.mm(products.softmax(dim=1), remembered, out=into[start : start + ROWS])
    return out


def compute_rotary_encodings(net: Any) -> Complex[Tensor, "p half"]:
    """The rotary position encodings (Su et al. 2021, along both axes) of a frame's tokens, as complex numbers."""
    cos, sin = net.rotary_emb(torch.zeros((), device=net.position_ids.device), net.position_ids)
    return torch.complex(cos[0, :, ::2].contiguous(), sin[0, :, ::2].contiguous())


def rotate_tokens(x: Float[Tensor, "b m c"], by: Complex[Tensor, "p half"]) -> Float[Tensor, "b m c"]:
    """The tokens of m / p frames, rotated by where they are."""
    pairs = torch.view_as_complex(x.float().reshape(len(x), -1, len(by), by.shape[1], 2))
    return torch.view_as_real(pairs * by).flatten(3).flatten(1, 2).to(x.dtype)
