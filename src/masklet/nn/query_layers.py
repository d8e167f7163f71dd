"""The layers that DVIS's tracker and refiner are made of: attention and feed-forward, each with a residual and a norm
after it (no dropout, no positions). Names and shapes of parameters are those of the released weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.core.errors import InputError

N = TypeVar("N", bound=nn.Module)


class SelfAttention(nn.Module):
    """Every vector of a set looks at all of them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n c"]:
        """The sets of a batch know nothing of each other."""
        normed: Tensor = self.norm(x + self.self_attn(x, x, x, need_weights=False)[0])
        return normed


class CrossAttention(nn.Module):
    """Vectors look at those of another set: the residual is the query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "*b n c"], seen: Float[Tensor, "*b m c"]) -> Float[Tensor, "*b n c"]:
        """`seen` is what is looked at, row by row of the batch."""
        normed: Tensor = self.norm(x + self.multihead_attn(x, seen, seen, need_weights=False)[0])
        return normed


class FeedForward(nn.Module):
    """Two linear layers on each vector."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Transforms each vector alone, and norms its sum with `x`."""
        normed: Tensor = self.norm(x + self.linear2(self.linear1(x).relu()))
        return normed


class Mlp(nn.Module):
    """Three linear layers: from queries to what is dotted with a pixel's features."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, out)])

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Maps each vector of `x` alone to the output width."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        out: Tensor = self.layers[-1](x)
        return out


def apply_in_place(parts: Callable[..., Tensor], x: Tensor, *others: Tensor, size: int) -> None:
    """x becomes `parts(x, *others)`, which treats every row alone, `size` rows at a time: of a long video neither the
    large hidden layers nor a second x ever exist at once. For inference: gradients cannot go through it.
    """
    for rows in zip(*(torch.split(t, size) for t in (x, *others)), strict=True):
        rows[0].copy_(parts(*rows))


def initialize_xavier(module: nn.Module) -> None:
    """Matrices as Xavier and Glorot draw them; all else as PyTorch does."""
    for weight in module.parameters():
        if weight.dim() > 1:
            nn.init.xavier_uniform_(weight)


def infer_dvis_settings(state: Mapping[str, Tensor], part: str) -> dict[str, Any]:
    """What weights of a tracker or a refiner say of its settings: all but the heads.

    Raises InputError where they are not of such a network; `part` names it.
    """
    ffn, classes, masks = "transformer_ffn_layers.0.linear1.weight", "class_embed.weight", "mask_embed.layers.2.weight"
    missing = [name for name in (ffn, classes, masks) if name not in state]
    if missing:
        raise InputError(
            f"the weights hold no {part} of DVIS ({missing[0]} is missing); use those of a DVIS checkpoint"
        )
    layers = {name.split(".")[1] for name in state if name.startswith("transformer_ffn_layers.")}
    return {
        "classes": len(state[classes]) - 1,
        "width": state[ffn].shape[1],
        "hidden": len(state[ffn]),
        "layers": len(layers),
        "mask_width": len(state[masks]),
    }


def load_dvis_weights(network: N, state: Mapping[str, Tensor], part: str) -> N:
    """Loads the weights `state` into `network`, and returns it in eval mode.

    Raises InputError where a name or a shape is not its own; `part` names the network.
    """
    own = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    given = {name: tuple(weight.shape) for name, weight in state.items()}
    if own != given:
        first = min(set(own.items()) ^ set(given.items()))[0]
        raise InputError(
            f"the weights are not those of a {part} of DVIS: {first} is missing, left over or of another shape"
        )
    network.load_state_dict(dict(state))
    return network.eval()
