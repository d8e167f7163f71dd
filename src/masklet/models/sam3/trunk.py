"""SAM 3's image encoder, over transformers' network: one pass a frame for the detector and the tracker together."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from masklet.core.frames import Frame
from masklet.core.identity_cache import IdentityCache
from masklet.models.sam2.core import Sam2Features, wrap_inference
from masklet.models.sam2.image_encoder import UnreadPositions

HELD = 8  # frames whose features wait for the other part that looks at them


class Sam3Trunk:
    """The vision transformer, without its necks: what detector and tracker have in common.

    Whoever asks about a frame first has it encoded; the others get the same features. Those of the last `HELD` frames
    are kept, so that memory is bounded.
    """

    gradients = False  # it is not trained

    def __init__(self, net: Any) -> None:
        """`net`: a `Sam3ViTModel` of transformers, in eval mode."""
        self.net, self.side = net, int(net.config.image_size)
        weight = net.embeddings.patch_embeddings.projection.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.half = self.device.type == "cuda"
        self._seen: IdentityCache[Float[Tensor, "1 c h w"]] = IdentityCache(HELD)
        self._alone = Lock()  # segmenter and propagator may ask about one frame at the same time

    def prepare_pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """SAM 3's input: squeezed into a square, bilinear, from -1 to 1."""
        square = np.array(Image.fromarray(frame.image).resize((self.side, self.side), Image.Resampling.BILINEAR))
        image = torch.from_numpy(square).to(self.device).permute(2, 0, 1).to(self.dtype)
        return (image / 127.5 - 1)[None]

    def __call__(self, frame: Frame) -> Float[Tensor, "1 c h w"]:
        """The features of a frame, a cell for each patch."""
        with self._alone:
            seen = self._seen.find(frame)
            return self._seen.keep(self._encode(frame), frame) if seen is None else seen

    @wrap_inference
    def _encode(self, frame: Frame) -> Float[Tensor, "1 c h w"]:
        tokens: Tensor = self.net(self.prepare_pixels(frame)).last_hidden_state
        cells = round(tokens.shape[1] ** 0.5)
        return tokens.transpose(1, 2).reshape(1, -1, cells, cells)


class Sam3ImageEncoder:
    """What SAM 3's tracker sees of a frame: the trunk's features through the tracker's own neck."""

    def __init__(self, trunk: Sam3Trunk, neck: Any, decoder: Any) -> None:
        """
        Args:
            trunk: maybe shared with a detector.
            neck: the tracker's `Sam3VisionNeck`; it is changed.
            decoder: the tracker's mask decoder, which makes the fine maps narrower.
        """
        self.trunk, self.neck, self.decoder = trunk, neck, decoder
        neck.position_encoding = UnreadPositions()

    def prepare_pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """SAM 3's input, as the trunk makes it."""
        return self.trunk.prepare_pixels(frame)

    def encode_frame(self, frame: Frame) -> Sam2Features:
        """The frame as the core takes it."""
        (fine, medium, coarse, *_), _ = self.neck(self.trunk(frame))
        return Sam2Features(self.decoder.conv_s0(fine)[0], self.decoder.conv_s1(medium)[0], coarse[0], frame.size)
