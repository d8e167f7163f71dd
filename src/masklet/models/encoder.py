"""Frames to features: one pass of the backbone, shared by everything that looks at the same frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from weakref import WeakKeyDictionary

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor, nn

from masklet.core.frames import Frame
from masklet.core.identity_cache import IdentityCache
from masklet.core.part_facts import CPU
from masklet.nn.flow import compute_dense_flow, shrink_for_flow
from masklet.nn.fused_convolution import fuse_convolutions, leave_weights_undrawn
from masklet.nn.mobilenet import DeepMobileNet, MobileNetV2
from masklet.weights.store import ZOO, read_packaged
from masklet.weights.strict import lay_out_for_convolution

MOBILENET, DEEP = "mobilenetv2", "mobilenetv2-deep"  # in the zoo
STRIDE = 8  # pixels of the working image per feature cell
SMALL = 192  # pixels of the short side from which a frame is looked at without being enlarged
LEAST = 2  # cells across: optical flow needs 16 pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in 0 to 1


@dataclass(frozen=True)
class EncoderFeatures:
    """One frame as the models see it, and what is kept of it for the backward sweep: 1.4 MiB at 480p."""

    keys: Float16[Tensor, "128 h w"]  # blocks 6 and 13, each of unit length at every cell
    detail: Float16[Tensor, "24 h w"]  # block 3 averaged over the cell, of unit length before
    strength: Float16[Tensor, "1 h w"]  # the length of block 6's vector, before
    guide: UInt8[Tensor, "h8 w8 3"]  # RGB at the working resolution, STRIDE pixels a cell
    size: tuple[int, int]  # of the frame: h, w

    @cached_property
    def grey(self) -> UInt8[Tensor, "h8 w8"]:
        """The working image without colour, for optical flow."""
        return torch.from_numpy(cv2.cvtColor(self.guide.numpy(), cv2.COLOR_RGB2GRAY))


def compute_working_size(
    size: tuple[int, int], short: int, least: int = SMALL, largest: float = 2.0, aspect: float = 3.0
) -> tuple[int, int]:
    """The size (h, w) at which a frame is looked at, multiples of the stride.

    The short side becomes `short`, unless that gives a very long frame more pixels than one of `aspect` : 1. A smaller
    frame stays as it is, unless its short side is below `least`: then it is enlarged to that, `largest` times at most.

    >>> [compute_working_size(size, 320) for size in ((480, 854), (1920, 1080), (240, 432), (48, 48))]
    [(320, 568), (568, 320), (240, 432), (96, 96)]
    """
    h, w = size
    enlarged = min(max(least / min(h, w), 1), largest)
    scale = min(short / min(h, w), enlarged, sqrt(aspect * short * short / (h * w)))
    return max(round(h * scale / STRIDE), LEAST) * STRIDE, max(round(w * scale / STRIDE), LEAST) * STRIDE


def normalize_cells(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Every cell's vector at length 1."""
    return nn.functional.normalize(x, dim=1)


class DenseBackbone(nn.Module):
    """ImageNet's MobileNetV2 as a dense feature extractor for batches of images of one size, frozen."""

    def __init__(self) -> None:
        """Raises InputError on damaged weights."""
        super().__init__()
        with leave_weights_undrawn():
            self.net = MobileNetV2().requires_grad_(False).eval()
        self.net.load_state_dict(lay_out_for_convolution(read_packaged(ZOO[MOBILENET])), assign=True)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
        self.mean, self.std = nn.Buffer(mean, persistent=False), nn.Buffer(std, persistent=False)

    @torch.no_grad()
    def forward(
        self, frames: UInt8[Tensor, "b 3 h w"]
    ) -> tuple[
        Float[Tensor, "b 3 h w"], Float[Tensor, "b 128 h8 w8"], Float[Tensor, "b 24 h8 w8"], Float[Tensor, "b 1 h8 w8"]
    ]:
        """The images in ImageNet's normalisation, and what `EncoderFeatures` calls their keys, detail and strength."""
        images = frames.to(torch.float32, memory_format=torch.channels_last).sub_(self.mean).div_(self.std)
        three, six, thirteen = self.net(images)
        keys, detail = (
            torch.cat([normalize_cells(six), normalize_cells(thirteen)], dim=1),
            nn.functional.avg_pool2d(normalize_cells(three), 2),
        )
        return images, keys, detail, six.norm(dim=1, keepdim=True)


class DeepBackbone(nn.Module):
    """The rest of ImageNet's MobileNetV2, of what is kept of frames, frozen: only a segmenter needs it."""

    def __init__(self) -> None:
        """Raises InputError on damaged weights."""
        super().__init__()
        with leave_weights_undrawn():
            self.net = DeepMobileNet().requires_grad_(False).eval()
        first = DeepMobileNet.FIRST - 1  # files count blocks from 0
        held = {**read_packaged(ZOO[MOBILENET]), **read_packaged(ZOO[DEEP])}
        named = {tuple(name.split(".", 2)): value for name, value in held.items() if name.startswith("blocks.")}
        state = {f"blocks.{int(n) - first}.{rest}": v for (_, n, rest), v in named.items() if int(n) >= first}
        self.net.load_state_dict(lay_out_for_convolution(state), assign=True)

    @torch.no_grad()
    def forward(
        self, keys: Float[Tensor, "b 128 h w"], strength: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 96 h2 w2"], Float[Tensor, "b 320 h4 w4"]]:
        """The outputs of blocks 13 (stride 16) and 17 (stride 32) as ImageNet's classifier sees them."""
        six = (keys[:, :32] * strength).contiguous(memory_format=torch.channels_last)
        thirteen, last = self.net(six)
        return thirteen, last


class FlowFinder:
    """Optical flow between frames at `FLOW_SCALE` of the working size, computed once for all who ask about a frame."""

    def __init__(self) -> None:
        # Of the frame in use and those ahead of it, either way.
        self._kept: IdentityCache[Float32[np.ndarray, "h w 2"]] = IdentityCache(16)
        self._small: IdentityCache[UInt8[np.ndarray, "h w"]] = IdentityCache(8)

    def find(self, start: UInt8[Tensor, "h8 w8"], end: UInt8[Tensor, "h8 w8"]) -> Float32[np.ndarray, "h w 2"]:
        """Where the pixels of `start` are in `end`, both the grey working images of frames."""
        kept = self._kept.find(start, end)
        if kept is not None:
            return kept
        return self._kept.keep(compute_dense_flow(self.shrink(start), self.shrink(end)), start, end)

    def shrink(self, grey: UInt8[Tensor, "h8 w8"]) -> UInt8[np.ndarray, "h w"]:
        """The grey working image of a frame at the size at which flow is computed."""
        kept = self._small.find(grey)
        return self._small.keep(shrink_for_flow(grey.numpy()), grey) if kept is None else kept


class Encoder:
    """ImageNet's MobileNetV2 as a dense feature extractor.

    A frame is encoded once: the features live as long as their `Frame` does, so a segmenter and a propagator
    given the same encoder share one pass.
    """

    def __init__(self, short: int = 320, device: torch.device = CPU, least: int = SMALL) -> None:
        """
        Args:
            short: short side of the working image, pixels.
            device: where the backbone computes; features are on the CPU.
            least: short side to which smaller frames are enlarged, pixels.

        Raises:
            InputError: the weights are damaged.
        """
        file = ZOO[MOBILENET]
        self.short, self.device, self.least = short, device, least
        self.weights: Mapping[str, str] = {file.name: file.sha256}
        self.flows = FlowFinder()
        self._look = DenseBackbone().to(device)
        fuse_convolutions(self._look)
        self._seen: WeakKeyDictionary[Frame, EncoderFeatures] = WeakKeyDictionary()

    def __call__(self, frame: Frame) -> EncoderFeatures:
        """The features of one frame of any size."""
        if frame not in self._seen:
            self._seen[frame] = self._encode(frame)
        return self._seen[frame]

    def _encode(self, frame: Frame) -> EncoderFeatures:
        h, w = compute_working_size(frame.size, self.short, self.least)
        shrinks = h * w < frame.size[0] * frame.size[1]
        small = cv2.resize(frame.image, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        guide = torch.from_numpy(np.ascontiguousarray(small))
        _, *maps = self._look(guide.permute(2, 0, 1)[None].to(self.device))
        keys, detail, strength = (x[0].half().contiguous().cpu() for x in maps)
        return EncoderFeatures(keys, detail, strength, guide, frame.size)


class EnlargingEncoder(Encoder):
    """An encoder that enlarges small frames to the full working size, for what was trained on them so. Larger frames
    look the same to both, and are encoded by the one that it is made of.
    """

    def __init__(self, shared: Encoder) -> None:
        """`shared`: the encoder of the parts that take small frames as they are."""
        vars(self).update(vars(shared))
        self.least, self._shared, self._seen = shared.short, shared, WeakKeyDictionary()

    def __call__(self, frame: Frame) -> EncoderFeatures:
        """The features of one frame of any size."""
        sizes = {compute_working_size(frame.size, self.short, least) for least in (self.least, self._shared.least)}
        return self._shared(frame) if len(sizes) == 1 else super().__call__(frame)
