"""Convolutions of networks that keep their published names, with what follows them in one pass of oneDNN.

A batch norm is a factor and a shift for each channel, so that it goes into the weights of the convolution before it:
that is done anew at every call, which costs a pass over the weights and spares several over the maps. Elsewhere than
for float32 on a CPU, and where gradients flow, layers are computed one by one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.quick_linear import is_computed_quickly
from masklet.nn.winograd import convolve_by_winograd, suits_winograd


def apply_convolution(
    conv: nn.Conv2d,
    x: Float[Tensor, "b c h w"],
    norm: nn.BatchNorm2d | None = None,
    other: Float[Tensor, "b d h2 w2"] | None = None,
    relu: bool = False,
) -> Float[Tensor, "b d h2 w2"]:
    """What a convolution makes of `x`, with what follows it.

    Args:
        conv: of zero padding.
        x: in float32 on a CPU, for the quick way.
        norm: a batch norm in eval mode that follows; None: none.
        other: added after that; None: nothing.
        relu: whether a ReLU comes last.

    >>> conv, x = nn.Conv2d(2, 3, 3).requires_grad_(False), torch.ones(1, 2, 4, 4)
    >>> torch.allclose(apply_convolution(conv, x, relu=True), conv(x).relu(), atol=1e-6)
    True
    """
    if not is_computed_quickly(conv, x) or (norm is not None and norm.training):
        y = conv(x) if norm is None else norm(conv(x))
        y = y if other is None else y + other
        return nnf.relu(y) if relu else y
    weight, bias = fold_batch_norm(conv, norm) if norm else (conv.weight, conv.bias)
    if suits_winograd(conv, x):
        y = convolve_by_winograd(x, weight, bias)
        y = y if other is None else y.add_(other)
        return nnf.relu_(y) if relu else y
    shape = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
    run: Any = torch.ops.mkldnn._convolution_pointwise
    if other is None:
        quick: Tensor = run(x, weight, bias, *shape, "relu" if relu else "none", [], "")
        return quick
    summed: Tensor = run.binary(x, other, weight, bias, *shape, "add", 1.0, "relu" if relu else None, [], "")
    return summed


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Float[Tensor, "d c kh kw"], Float[Tensor, " d"]]:
    """Weight and bias of one convolution that does what `conv` and `norm` (in eval mode) do."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * factor
    return conv.weight * factor[:, None, None, None], shift if conv.bias is None else shift + conv.bias * factor
