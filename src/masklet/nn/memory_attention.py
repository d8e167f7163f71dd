"""SAM 2's memory attention over modules of our own or transformers', for several objects at once.

What all objects have in common is computed once: until the first cross-attention they look at the same frame. The
memories' values have a quarter of the keys' width, so they are averaged first and projected afterwards, which is the
same (the weights of an average sum to 1) at five eighths of the multiplications.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Complex, Float, Shaped
from torch import Tensor, nn

from masklet.nn.half_weights import has_matrix_tiles
from masklet.nn.sam2_layers import AttentionProjections

ROWS = 256  # queries that attend at a time: their scores fit into the cache
ALIGNED = 8  # keys are padded to a multiple of this: a twentieth of the time


class MemoryAttentionLayer(nn.Module):
    """The layers of one round: the frame looks at itself, then at memories of `memory` channels."""

    def __init__(self, width: int, hidden: int, memory: int) -> None:
        super().__init__()
        self.self_attn = AttentionProjections(width, width, width)
        self.cross_attn_image = AttentionProjections(width, width, memory)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.layer_norm1, self.layer_norm2, self.layer_norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.activation = nn.ReLU()


class RotaryFrequencies(nn.Module):
    """The frequencies `inv_freq` of rotary encodings of `width` channels, half of them for each axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        steps = torch.arange(0, width // 2, 2, dtype=torch.float32) / (width // 2)
        self.inv_freq = nn.Buffer(1 / 10000**steps, persistent=False)


class MemoryAttentionLayers(nn.Module):
    """The layers that `MemoryAttention` runs; names and shapes of parameters are those of transformers'.

    Frames have `cells` x `cells` tokens; a step from one to the next counts `step` in their positions.
    """

    def __init__(self, layers: int, width: int, hidden: int, memory: int, cells: int, step: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(width, hidden, memory) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)
        self.rotary_emb = RotaryFrequencies(width)
        line = torch.arange(cells)
        positions = torch.stack([line.repeat(cells), line.repeat_interleave(cells)], dim=1) * step
        self.position_ids = nn.Buffer(positions, persistent=False)


class MemoryAttention:
    """`net` is the module; `compute_rotary_encodings` are its rotary position encodings of one frame's tokens."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.rotations = compute_rotary_encodings(net.position_ids, net.rotary_emb.inv_freq)
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
        if k.is_cuda or k.requires_grad or (k.dtype == torch.bfloat16 and has_matrix_tiles()):
            v = part.v_proj(values)
            mixed = nnf.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            mixed = part.v_proj(compute_attention_average(q / math.sqrt(q.shape[2]), k, values.to(k.dtype)))
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


def compute_rotary_encodings(
    positions: Shaped[Tensor, "p 2"], frequencies: Float[Tensor, " quarter"]
) -> Complex[Tensor, "p half"]:
    """The rotary position encodings (Su et al. 2021, along both axes) of a frame's tokens, as complex numbers."""
    angles = (positions[..., None].float() * frequencies).flatten(1)
    return torch.complex(angles.cos(), angles.sin())


def rotate_tokens(x: Float[Tensor, "b m c"], by: Complex[Tensor, "p half"]) -> Float[Tensor, "b m c"]:
    """The tokens of m / p frames, rotated by where they are."""
    pairs = torch.view_as_complex(x.float().reshape(len(x), -1, len(by), by.shape[1], 2))
    return torch.view_as_real(pairs * by).flatten(3).flatten(1, 2).to(x.dtype)
