"""What Grounding DINO samples of its maps, in a fraction of the time on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.deformable_attention import Shapes, average_sampled_values

PLAIN = "MultiScaleDeformableAttention"  # transformers' class, of which every kind of network has one of its own


class QuickSampling(nn.Module):
    """In the place of such a module, which has no parameters: the same answers but for rounding."""

    def __init__(self, plain: nn.Module) -> None:
        """`plain` answers on other devices, and where gradients flow."""
        super().__init__()
        self.plain = plain

    def forward(
        self,
        value: Float[Tensor, "b n h d"],
        sizes: Tensor,
        shapes: Shapes,
        starts: Tensor,
        places: Float[Tensor, "b q h l p 2"],
        weights: Float[Tensor, "b q h l p"],
        step: int,
    ) -> Float[Tensor, "b q hd"]:
        """What is seen of the maps `value`, of `shapes` (h, w), at `places` (x and y, 0 to 1), by `weights`; the rest
        is for the plain one.
        """
        learns = torch.is_grad_enabled() and value.requires_grad
        if learns or value.device.type != "cpu" or value.dtype != torch.float32:
            found: Tensor = self.plain(value, sizes, shapes, starts, places, weights, step)
            return found
        sides = torch.tensor([(w, h) for h, w in shapes])[:, None]
        cells = places * sides.expand(-1, places.shape[4], -1).contiguous()  # laid out alike: a third of the time
        return average_sampled_values(value, shapes, cells, weights)


def quicken_sampling(net: Any) -> None:
    """Puts `QuickSampling` in the place of all that samples maps in a network of transformers."""
    for part in list(net.modules()):
        if type(getattr(part, "attn", None)).__name__ == PLAIN:
            part.attn = QuickSampling(part.attn)
