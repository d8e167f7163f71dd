"""The layers that SAM 2's parts have in common, under the names that its weights have in transformers."""

from __future__ import annotations

import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

HEADS = 8  # of the attention between tokens and cells


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every cell of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Norms the map, cell by cell."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class AttentionProjections(nn.Module):
    """The linear layers of an attention: queries have `width` channels, what they look at has `seen`."""

    def __init__(self, width: int, inner: int, seen: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(seen, inner)
        self.v_proj = nn.Linear(seen, inner)
        self.o_proj = nn.Linear(inner, width)


class MultiHeadAttention(AttentionProjections):
    """Attention of eight heads; all that comes in and goes out has `width` channels."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(width, inner, width)

    def forward(
        self, query: Float[Tensor, "b q c"], key: Float[Tensor, "b k c"], value: Float[Tensor, "b k c"]
    ) -> Float[Tensor, "b q c"]:
        """What each query sees of the values."""
        projected = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        seen = nnf.scaled_dot_product_attention(*(x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in projected))
        out: Tensor = self.o_proj(seen.transpose(1, 2).flatten(2))
        return out


class Perceptron(nn.Module):
    """Linear layers with a ReLU between them: one into `hidden` channels, `between` within them, one out of them."""

    def __init__(self, width: int, hidden: int, out: int, between: int = 1) -> None:
        super().__init__()
        self.proj_in = nn.Linear(width, hidden)
        self.proj_out = nn.Linear(hidden, out)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(between))

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Maps each vector of the last dimension by itself."""
        x = self.proj_in(x).relu()
        for layer in self.layers:
            x = layer(x).relu()
        out: Tensor = self.proj_out(x)
        return out
