"""Weights in bfloat16, and whether a CPU computes sooner with them. A network that computes under autocast else casts
them anew at every call.
"""

from __future__ import annotations

import torch
from torch import nn

CAST_BY_AUTOCAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def has_bfloat16_matrices() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 in hardware (AMX or AVX-512 BF16)."""
    has_unit = has_matrix_tiles() or torch.cpu._is_avx512_bf16_supported()
    return bool(has_unit) and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_matrix_tiles() -> bool:
    """Whether this CPU has registers for whole tiles of matrices (AMX): of those without, torch's own attention takes
    twice the time of two products of matrices.
    """
    return bool(torch.cpu._is_amx_tile_supported())


def halve_weights(net: nn.Module) -> None:
    """Makes the weights bfloat16 of the layers whose weights autocast would cast to it: the same answers under
    autocast, half the memory. What is learnt stays in float32, as do norms, embeddings and free parameters.
    """
    for layer in net.modules():
        if isinstance(layer, CAST_BY_AUTOCAST) and not layer.weight.requires_grad:
            layer.to(torch.bfloat16)
