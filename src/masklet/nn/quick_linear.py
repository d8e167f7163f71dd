"""Linear layers and products of matrices as oneDNN computes them, where that is sooner done than what torch takes.

For float32 on a CPU torch hands a linear layer to a library that is slow where the layer is narrow: of 16,384 tokens
from 96 to 384 channels it takes 1.6 times as long as oneDNN, which also does a GELU or ReLU in the same pass. On CPUs
that are not Intel's that library takes twice as long for any product. The weights stay as they are; answers differ by
rounding at most. Elsewhere, and where gradients flow, it is torch's layer.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

ACTIVATIONS: dict[str, Any] = {"none": lambda x: x, "gelu": nnf.gelu, "relu": nnf.relu}
ALGORITHM = {"none": "", "gelu": "none", "relu": ""}  # of a GELU: the exact one, not the one by tanh


def apply_linear(layer: nn.Linear, x: Float[Tensor, "*n c"], activation: str = "none") -> Float[Tensor, "*n d"]:
    """The `activation` of what the `layer` makes of `x`.

    Args:
        layer: whose weights are read anew at every call.
        x: in float32 on a CPU, for the quick way.
        activation: "none", "gelu" (the exact one) or "relu".

    >>> layer, x = nn.Linear(4, 3).requires_grad_(False), torch.ones(2, 4)
    >>> torch.allclose(apply_linear(layer, x, "relu"), layer(x).relu(), atol=1e-6)
    True
    """
    if not is_computed_quickly(layer, x):
        found: Tensor = ACTIVATIONS[activation](nnf.linear(x, layer.weight, layer.bias))
        return found
    run: Any = torch.ops.mkldnn._linear_pointwise
    quick: Tensor = run(x, layer.weight, layer.bias, activation, [], ALGORITHM[activation])
    return quick


def multiply_by_transposed(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"]) -> Float[Tensor, "n m"]:
    """`a @ b.T`, of matrices written row by row, whose rows are not empty.

    >>> multiply_by_transposed(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
    tensor([[11., 17.]])
    """
    learns = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    if learns or not _suits_onednn(a, b):
        return a @ b.T
    quick: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return quick


def is_computed_quickly(layer: nn.Linear | nn.Conv2d, x: Tensor) -> bool:
    """Whether oneDNN can take the `layer` and its input `x`."""
    learns = torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)
    return not learns and _suits_onednn(x, layer.weight)


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # a build without oneDNN has none


class QuickLinear(nn.Linear):
    """The same parameters and, but for rounding, the same answers."""

    def forward(self, input: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """What the layer makes of `input`."""
        return apply_linear(self, input)


def quicken_linear_layers(net: nn.Module) -> None:
    """Lets the linear layers of a network compute by oneDNN where that is possible (`apply_linear`)."""
    for part in net.modules():
        if type(part) is nn.Linear:
            part.__class__ = QuickLinear
