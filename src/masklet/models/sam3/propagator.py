"""SAM 3's tracker (Carion et al. 2025, arXiv:2511.16719) as a propagator, over the networks of transformers.

It is SAM 2's tracker behind another image encoder, of patches of 14 pixels: what is computed of objects, their bounded
memory and the policies that read it are SAM 2's (`models.sam2`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

from masklet.core.part_facts import CPU
from masklet.models.sam2.core import Sam2Core
from masklet.models.sam2.memory import MemoryPolicy, RecentFrames, Sam2Settings
from masklet.models.sam2.propagator import Sam2
from masklet.models.sam3.trunk import Sam3ImageEncoder, Sam3Trunk
from masklet.models.sam3.weights import build_tracker, read_sam3, share_trunk

CONDITIONING = 4  # conditioning frames that are read, as in the published configuration
CACHED = 1024  # cells of a frame up to which several objects go through the networks together on a CPU


@dataclass(frozen=True)
class Sam3Settings(Sam2Settings):
    """What can be set of SAM 3's tracker as a propagator."""

    conditioning: int | None = CONDITIONING  # conditioning frames that are read; none: all that are held


class Sam3Core(Sam2Core):
    """What SAM 3's tracker computes: SAM 2's core with patches of 14 pixels.

    A cell of the frame is 14 pixels of the input, but 16 of what the memory encoder takes and a quarter of that in the
    logits.
    """

    def __init__(self, net: Any, *, postprocess: bool = True, gradients: bool = False) -> None:
        """`net`: a `Sam3TrackerVideoModel` of transformers, in eval mode; the rest as for `Sam2Core`."""
        cells = int(net.backbone_feature_sizes[-1][0]) ** 2
        batches = (8, 4, 2, 1) if cells <= CACHED else (1,)
        super().__init__(net, postprocess=postprocess, gradients=gradients, cpu_batches=batches)

    def shrink_masks(self, squares: Float[Tensor, "b 1 y x"]) -> Float[Tensor, "b 1 s s"]:
        """Given masks in the network's square, as `encode_masks` takes them: a quarter of it is too small for that."""
        small = super().shrink_masks(squares)
        return nnf.interpolate(small, (self.mask_side,) * 2, mode="bilinear", align_corners=False, antialias=True)

    def enlarge_for_memory(self, logits: Float[Tensor, "b 1 y x"]) -> Float[Tensor, "b 1 m m"]:
        """Mask logits as the memory encoder takes them: by way of the input's size, as in the published code."""
        large = nnf.interpolate(logits, (self.side,) * 2, mode="bilinear", align_corners=False)
        return nnf.interpolate(large, (4 * self.mask_side,) * 2, mode="bilinear", align_corners=False, antialias=True)


class Sam3(Sam2):
    """SAM 3's tracker as a propagator with three hypotheses for each object."""

    name = "sam3"
    core_type = Sam3Core

    def __init__(
        self,
        net: Any,
        neck: Any,
        trunk: Sam3Trunk,
        policy: MemoryPolicy | None = None,
        *,
        postprocess: bool = True,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            net: a `Sam3TrackerVideoModel` of transformers without its image encoder, in eval mode.
            neck: the tracker's neck.
            trunk: the image encoder, maybe shared with a segmenter: then each frame is encoded once.
            policy, postprocess, weights: as for `Sam2`; no policy: `RecentFrames`, with the last `CONDITIONING`
                conditioning frames.
        """
        super().__init__(
            net,
            policy or RecentFrames(CONDITIONING),
            postprocess=postprocess,
            weights=weights,
            images=Sam3ImageEncoder(trunk, neck, net.mask_decoder),
        )
        self.trunk = trunk


def load_sam3(
    name: str | Path,
    policy: MemoryPolicy | None = None,
    device: torch.device = CPU,
    *,
    postprocess: bool = True,
    side: int | None = None,
) -> Sam3:
    """SAM 3's tracker by a name of `masklet weights list`, a hub id or a folder. Nothing is fetched.

    Args:
        name: of the weights.
        policy, postprocess: as for `Sam3`.
        device: where it computes.
        side: pixels of the square that frames are squeezed into; None: those that it was trained with.

    Raises:
        InputError: it is not on this machine, damaged or of another network.
    """
    found = read_sam3(name, side)
    net, neck = build_tracker(found, device)
    return Sam3(net, neck, share_trunk(found, device), policy, postprocess=postprocess, weights=found.files)
