"""SAM 2's image encoder, over transformers' network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from masklet.core.frames import Frame
from masklet.models.sam2.core import Sam2Features

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in 0 to 1


@runtime_checkable
class FrameEncoder(Protocol):
    """Makes of frames what the core takes."""

    def prepare_pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """The network's input."""
        ...

    def encode_frame(self, frame: Frame) -> Sam2Features:
        """The frame as the core takes it."""
        ...


class Sam2ImageEncoder:
    """Makes the features of a frame; `net` is the network, whose image encoder is changed: it serves one size."""

    def __init__(self, net: Any) -> None:
        self.net, self.side = net, int(net.image_size)
        like = net.no_memory_embedding
        mean, std = (torch.tensor(v, device=like.device, dtype=like.dtype).view(3, 1, 1) for v in (MEAN, STD))
        self._scale, self._shift = 1 / (255 * std), mean / std
        with torch.no_grad():
            freeze_position_encodings(net.vision_encoder, net.backbone_feature_sizes[-1][0] * 4)

    def prepare_pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """SAM 2's input: squeezed into a square, bicubic as Pillow does it."""
        square = np.array(Image.fromarray(frame.image).resize((self.side, self.side), Image.Resampling.BICUBIC))
        image = torch.from_numpy(square).to(self._scale.device).permute(2, 0, 1).to(self._scale.dtype)
        return (image * self._scale - self._shift)[None]

    def encode_frame(self, frame: Frame) -> Sam2Features:
        """The frame as the core takes it."""
        fine, medium, coarse = self.net.vision_encoder(self.prepare_pixels(frame)).fpn_hidden_states
        decoder = self.net.mask_decoder
        return Sam2Features(decoder.conv_s0(fine)[0], decoder.conv_s1(medium)[0], coarse[0], frame.size)


class UnreadPositions(nn.Module):
    """In the place of position encodings that nobody reads."""

    def forward(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype, mask: None = None) -> Tensor:
        return torch.zeros(0, device=device, dtype=dtype)


def freeze_position_encodings(encoder: Any, cells: int) -> None:
    """Changes an image encoder so that it does not compute anew, for every image, what is the same for all: its
    position encodings for `cells` x `cells` patches.
    """
    encoder.neck.position_encoding = UnreadPositions()
    if hasattr(encoder.backbone, "_get_pos_embed"):
        position = encoder.backbone._get_pos_embed((cells, cells))
        encoder.backbone._get_pos_embed = lambda size: position
