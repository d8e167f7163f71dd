"""transformers' deformable attention of Mask2Former's pixel decoder, in a fraction of the time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as DeformableAttention,
)

from masklet.nn.deformable_attention import average_sampled_values
from masklet.nn.quick_linear import is_computed_quickly


class QuickDeformableAttention(DeformableAttention):
    """The same parameters and, but for rounding, the same answers."""

    def forward(  # type: ignore[override]  # transformers gives all but the first by name
        self, hidden_states: Float[Tensor, "b q c"], **told: Any
    ) -> tuple[Tensor, Tensor]:
        """What the queries `hidden_states` see, and the weights of where they looked; `told` as transformers does."""
        if not is_computed_quickly(self.value_proj, hidden_states):
            found: tuple[Tensor, Tensor] = super().forward(hidden_states=hidden_states, **told)
            return found
        position, hidden_cells = told["position_embeddings"], told["attention_mask"]
        asking = hidden_states if position is None else hidden_states + position
        values, shapes = self.value_proj(told["encoder_hidden_states"]), told["spatial_shapes_list"]
        if hidden_cells is not None:
            values = values.masked_fill(hidden_cells[..., None], 0.0)
        each = (self.n_heads, self.n_levels, self.n_points)
        steps = self.sampling_offsets(asking).unflatten(-1, (*each, 2))
        weights = self.attention_weights(asking).unflatten(-1, (self.n_heads, -1)).softmax(-1).unflatten(-1, each[1:])
        cells = told["reference_points"] * torch.tensor([(w, h) for h, w in shapes])
        places = steps + cells[..., None, :].expand(-1, -1, -1, self.n_points, -1).contiguous()[:, :, None]
        seen = average_sampled_values(values.unflatten(-1, (self.n_heads, -1)), shapes, places, weights)
        return self.output_proj(seen), weights


def quicken_deformable_attention(net: nn.Module) -> None:
    """Lets the deformable attention in a network of transformers compute so, on a CPU and where it does not learn."""
    for part in net.modules():
        if type(part) is DeformableAttention:
            part.__class__ = QuickDeformableAttention
