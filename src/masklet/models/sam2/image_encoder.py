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
from masklet.nn.compilation import INDUCTOR, compile_function
from masklet.nn.hiera import Hiera
from masklet.nn.pinned_upload import PinnedUpload

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in 0 to 1


@runtime_checkable
class FrameEncoder(Protocol):
    """Makes of frames what the core takes."""

    def prepare_pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """The pixels of a frame as the network takes them, resized and normalised."""
        ...

    def encode_frame(self, frame: Frame) -> Sam2Features:
        """The frame as the core takes it."""
        ...


@runtime_checkable
class BatchFrameEncoder(FrameEncoder, Protocol):
    """One that is quicker at several frames than at one after the other, on a GPU."""

    def encode_frames(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        """Each frame as the core takes it."""
        ...


class Sam2ImageEncoder:
    """Makes the features of a frame; `net` is the network, whose image encoder is changed: it serves one size."""

    def __init__(self, net: Any) -> None:
        self.net, self.side = net, int(net.image_size)
        like = net.no_memory_embedding
        mean, std = (torch.tensor(v, device=like.device, dtype=like.dtype).view(3, 1, 1) for v in (MEAN, STD))
        self._scale, self._shift = 1 / (255 * std), mean / std
        self._upload = PinnedUpload(like.device)
        encoder = net.vision_encoder
        self._trunk = Hiera(encoder.backbone, self.side) if is_hiera(encoder) else None
        if self._trunk is None:
            encoder.neck.position_encoding = UnreadPositions()
        self._encode = self._encode_by_hiera if self._trunk else self._encode_by_network

    def compile(self, backend: str = INDUCTOR) -> None:
        """Has the network compiled when it is next used, for each number of frames; `backend` is `torch.compile`'s."""
        self._encode = compile_function(self._encode, dynamic=False, backend=backend)

    def prepare_pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """SAM 2's input: squeezed into a square, bicubic as Pillow does it."""
        square = np.array(Image.fromarray(frame.image).resize((self.side, self.side), Image.Resampling.BICUBIC))
        image = self._upload(square).permute(2, 0, 1).to(self._scale.dtype)
        return (image * self._scale - self._shift)[None]

    def encode_frame(self, frame: Frame) -> Sam2Features:
        """The frame as the core takes it."""
        return self._encode_batch([frame])[0]

    def encode_frames(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        """Each frame as the core takes it; on a CPU one by one, for its caches hold no more."""
        if self._scale.device.type == "cpu":
            return [self.encode_frame(frame) for frame in frames]
        return self._encode_batch(frames)

    def _encode_batch(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        """Frames together."""
        pixels = torch.cat([self.prepare_pixels(frame) for frame in frames])
        maps = self._encode(pixels)
        return [Sam2Features(*one, frame.size) for one, frame in zip(zip(*maps, strict=True), frames, strict=True)]

    def _encode_by_network(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8 and 16, as the network makes them."""
        fine, medium, coarse = self.net.vision_encoder(pixels).fpn_hidden_states
        decoder = self.net.mask_decoder
        return decoder.conv_s0(fine), decoder.conv_s1(medium), coarse

    def _encode_by_hiera(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, Tensor, Tensor]:
        """The same over our trunk. Nothing is added to the two finer maps on their way to the decoder, so that two
        layers in a row are one there, with the product of their weights.
        """
        assert self._trunk is not None
        decoder, convs = self.net.mask_decoder, self.net.vision_encoder.neck.convs[::-1]  # of the finest map first
        fine, medium, coarse, last = self._trunk(pixels)
        above = project_tokens(last, *read_weights(convs[3])).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return (
            project_tokens(fine, *chain_weights(convs[0], decoder.conv_s0)),
            project_tokens(medium, *chain_weights(convs[1], decoder.conv_s1)),
            project_tokens(coarse, *read_weights(convs[2])) + above,
        )


def is_hiera(encoder: Any) -> bool:
    """Whether a `vision_encoder` is SAM 2's: a Hiera whose neck adds the coarsest map to the next one, and no other."""
    backbone, neck = encoder.backbone, encoder.neck
    plain = all(conv.kernel_size == (1, 1) and conv.stride == (1, 1) and not any(conv.padding) for conv in neck.convs)
    return hasattr(backbone, "_get_pos_embed") and plain and {3, *neck.fpn_top_down_levels} == {2, 3}


def read_weights(conv: nn.Conv2d) -> tuple[Float[Tensor, "d c"], Float[Tensor, " d"]]:
    """Weight and bias of a 1 x 1 convolution, as a linear layer has them."""
    assert conv.bias is not None
    return conv.weight.flatten(1), conv.bias


def chain_weights(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Float[Tensor, "d c"], Float[Tensor, " d"]]:
    """Weight and bias of one 1 x 1 convolution that does what two do, one after the other."""
    (w, b), (v, a) = read_weights(first), read_weights(second)
    return v @ w, v @ b + a


def project_tokens(
    tokens: Float[Tensor, "b p c"], weight: Float[Tensor, "d c"], bias: Float[Tensor, " d"]
) -> Float[Tensor, "b d h w"]:
    """A linear layer over the tokens of a square map, as a map."""
    side = round(tokens.shape[1] ** 0.5)
    found = torch.baddbmm(bias[:, None], weight.expand(len(tokens), -1, -1), tokens.mT)
    return found.view(len(tokens), -1, side, side)


class UnreadPositions(nn.Module):
    """In the place of position encodings that nobody reads."""

    def forward(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype, mask: None = None) -> Tensor:
        return torch.zeros(0, device=device, dtype=dtype)
