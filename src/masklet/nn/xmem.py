"""The propagation network of DEVA (Cheng et al. 2023): XMem (Cheng and Schwing 2022), modified.

One image encoder for all objects; a mask encoder that turns a frame and one object's mask into values to be remembered;
a decoder that turns what was read of the memory into a mask. Beside the memory, every object has a sensory state:
a gated recurrent state at stride 16 that is changed whenever a mask is decoded, and changed deeply, from what the mask
encoder saw, whenever a mask is remembered. The parameters have the names that the published file has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor, nn

from masklet.nn.quick_convolution import apply_convolution

STRIDE = 16  # pixels of the image per cell of keys, values and sensory states
KEY, VALUE = 64, 512  # channels
SURE = 1e-7  # probabilities are held this far from 0 and 1 before they become log odds


@dataclass(frozen=True, eq=False)
class XmemQuery:
    """What a frame asks of the memory, and under what it is remembered: one row a cell (XMem, section 3.2)."""

    keys: Float[Tensor, "p c"]
    shrinkage: Float[Tensor, " p"]  # at least 1: how far a remembered cell's influence does not reach
    selection: Float[Tensor, "p c"]  # 0 to 1: which channels the asking cell compares


@dataclass(frozen=True)
class Canvas:
    """Where a frame lies in what the network sees: resized, then padded to a multiple of the stride."""

    size: tuple[int, int]  # of the frame: h, w
    inner: tuple[int, int]  # resized

    @staticmethod
    def of(size: tuple[int, int], short: int | None) -> Canvas:
        """Resized so that the shorter side is `short`; None: not at all.

        >>> Canvas.of((720, 1280), 480).inner, Canvas.of((720, 1280), 480).outer
        ((480, 853), (480, 864))
        """
        least = min(size)
        if short is None:
            return Canvas(size, size)
        return Canvas(size, (size[0] * short // least, size[1] * short // least))

    @property
    def pads(self) -> tuple[int, int, int, int]:
        """Left, right, top, bottom; of an odd number of pixels more go to the right and the bottom."""
        h, w = (-n % STRIDE for n in self.inner)
        return w // 2, w - w // 2, h // 2, h - h // 2

    @property
    def outer(self) -> tuple[int, int]:
        """What the network sees: h, w."""
        left, right, top, bottom = self.pads
        return self.inner[0] + top + bottom, self.inner[1] + left + right

    def pad(self, maps: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n y x"]:
        """With a border of zeros."""
        return nnf.pad(maps, self.pads)

    def crop(self, maps: Tensor) -> Tensor:
        """Cuts off the border that `pad` adds."""
        left, _, top, _ = self.pads
        return maps[..., top : top + self.inner[0], left : left + self.inner[1]]

    def fit(self, masks: Bool[Tensor, "n y0 x0"]) -> Bool[Tensor, "n y1 x1"]:
        """Masks of the frame's size resized, each pixel going by the nearest (as Pillow finds it)."""
        rows, columns = (find_nearest_pixels(n, m) for n, m in zip(self.size, self.inner, strict=True))
        return masks[:, rows][:, :, columns]


def find_nearest_pixels(n: int, m: int) -> Int64[Tensor, " m"]:
    """The pixels out of n that a line of m is made of; on ties as Pillow rounds."""
    line = Image.fromarray(np.arange(n, dtype=np.int32)[None]).resize((m, 1), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(line)[0]).long()


class Bottleneck(nn.Module):
    """ResNet-50's block."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = build_skip_projection(inputs, 4 * width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = apply_convolution(self.conv1, x, self.bn1, relu=True)
        y = apply_convolution(self.conv2, y, self.bn2, relu=True)
        return apply_convolution(self.conv3, y, self.bn3, apply_skip(self.downsample, x), relu=True)


class BasicBlock(nn.Module):
    """ResNet-18's block."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = build_skip_projection(inputs, width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = apply_convolution(self.conv1, x, self.bn1, relu=True)
        return apply_convolution(self.conv2, y, self.bn2, apply_skip(self.downsample, x), relu=True)


def build_skip_projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The skip of a ResNet block from `inputs` to `outputs` channels: the identity, or where these differ or `stride`
    is not 1, a 1 x 1 convolution with batch norm.
    """
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def apply_skip(skip: nn.Module, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
    """What the skip of a ResNet block, as `build_skip_projection` makes it, does with `x`."""
    if isinstance(skip, nn.Identity):
        return x
    conv, norm = skip.children()
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return apply_convolution(conv, x, norm)


def build_resnet_stage(
    kind: type[Bottleneck | BasicBlock], inputs: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    """A ResNet stage of `blocks` blocks of one `kind` and `width`; the first one takes `inputs` channels and has the
    `stride`.
    """
    outputs = 4 * width if kind is Bottleneck else width
    return nn.Sequential(kind(inputs, width, stride), *(kind(outputs, width, 1) for _ in range(blocks - 1)))


class PreActivationResidual(nn.Module):
    """A residual block with its activations first and no norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        skip = x if isinstance(self.downsample, nn.Identity) else apply_convolution(self.downsample, x)
        y = apply_convolution(self.conv1, nnf.relu(x), relu=True)
        return apply_convolution(self.conv2, y, other=skip)


class ChannelGate(nn.Module):
    """CBAM's channel attention (Woo et al. 2018, section 3): which channels matter in this image."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        narrow = channels // reduction
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        out: Tensor = x * gate.sigmoid()[:, :, None, None]
        return out


class SpatialGate(nn.Module):
    """CBAM's spatial attention: which cells matter."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, 1, 3)})

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        gate: Tensor = self.spatial["conv"](pooled)
        out: Tensor = x * gate.sigmoid()
        return out


class Cbam(nn.Module):
    """Both attentions, one after the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate, self.SpatialGate = ChannelGate(channels), SpatialGate()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        out: Tensor = self.SpatialGate(self.ChannelGate(x))
        return out


class FeatureFuser(nn.Module):
    """What the frame looks like, and what is known of each object in it, into one feature for each object."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block1, self.attention, self.block2 = (
            PreActivationResidual(inputs, outputs),
            Cbam(outputs),
            PreActivationResidual(outputs, outputs),
        )

    def forward(self, frame: Float[Tensor, "1 c h w"], each: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        """Fuses the features of one `frame` with those of `each` object."""
        g = self.block1(torch.cat([frame.expand(len(each), -1, -1, -1), each], 1))
        out: Tensor = self.block2(g + self.attention(g))
        return out


def update_sensory_state(
    change: Float[Tensor, "b c3 h w"], sensory: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """The sensory state after a change: gates of forgetting and of updating, and a new value."""
    forget, update, new = change.float().chunk(3, 1)
    kept = forget.sigmoid() * sensory * (1 - update.sigmoid())
    return kept + update.sigmoid() * new.tanh()


class DeepUpdate(nn.Module):
    """The change of the sensory state when a mask is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Conv2d(2 * VALUE, 3 * VALUE, 3, 1, 1)

    def forward(self, g: Float[Tensor, "b c h w"], sensory: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The `sensory` states, changed by the mask encoder's values `g`."""
        return update_sensory_state(apply_convolution(self.transform, torch.cat([g, sensory], 1)), sensory)


class SensoryUpdate(nn.Module):
    """The change of the sensory state when a mask is decoded: from the decoder's features at three strides."""

    def __init__(self) -> None:
        super().__init__()
        self.g16_conv = nn.Conv2d(512, VALUE, 1)
        self.g8_conv = nn.Conv2d(256, VALUE, 1)
        self.g4_conv = nn.Conv2d(256 + 1, VALUE, 1)
        self.transform = nn.Conv2d(2 * VALUE, 3 * VALUE, 3, 1, 1)

    def forward(
        self,
        g16: Float[Tensor, "b c h w"],
        g8: Float[Tensor, "b d h2 w2"],
        g4: Float[Tensor, "b e h4 w4"],
        sensory: Float[Tensor, "b f h w"],
    ) -> Float[Tensor, "b f h w"]:
        """The `sensory` states, changed by the decoder's features at strides 16, 8 and 4: `g16`, `g8` and `g4`."""
        g = apply_convolution(self.g16_conv, g16)
        g = apply_convolution(self.g8_conv, nnf.avg_pool2d(g8, 2), other=g)
        g = apply_convolution(self.g4_conv, nnf.avg_pool2d(g4, 4), other=g)
        return update_sensory_state(apply_convolution(self.transform, torch.cat([g, sensory], 1)), sensory)


class ImageEncoder(nn.Module):
    """ResNet-50 to stride 16, and two projections of that: for masks, and for keys."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.res2 = build_resnet_stage(Bottleneck, 64, 64, 3, 1)
        self.layer2 = build_resnet_stage(Bottleneck, 256, 128, 4, 2)
        self.layer3 = build_resnet_stage(Bottleneck, 512, 256, 6, 2)
        self.proj1, self.proj2 = nn.Conv2d(1024, 512, 1), nn.Conv2d(1024, 512, 1)

    def forward(self, image: Float[Tensor, "b 3 y x"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features at stride 4 [b 256 ..] and 8 [b 512 ..], and the two projections at stride 16 [b 512 ..]."""
        x = nnf.max_pool2d(apply_convolution(self.conv1, image, self.bn1, relu=True), 3, 2, 1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        f16 = self.layer3(f8)
        return f4, f8, apply_convolution(self.proj1, f16), apply_convolution(self.proj2, f16)


class KeyProjection(nn.Module):
    """Keys, and how they are to be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.key_proj, self.d_proj, self.e_proj = (nn.Conv2d(512, n, 3, 1, 1) for n in (KEY, 1, KEY))

    def forward(self, f16: Float[Tensor, "1 c h w"]) -> XmemQuery:
        """What a frame asks of the memory, from `f16`, the encoder's projection for keys."""
        keys, shrinkage, selection = (conv(f16)[0].flatten(1).T for conv in (self.key_proj, self.d_proj, self.e_proj))
        return XmemQuery(keys.float().contiguous(), shrinkage[:, 0].float() ** 2 + 1, selection.float().sigmoid())


class MaskEncoder(nn.Module):
    """ResNet-18 over a frame and one object's mask, fused with the frame's feature: the values to be remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3 + 1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = build_resnet_stage(BasicBlock, 64, 64, 2, 1)
        self.layer2 = build_resnet_stage(BasicBlock, 64, 128, 2, 2)
        self.layer3 = build_resnet_stage(BasicBlock, 128, 256, 2, 2)
        self.fuser = FeatureFuser(512 + 256, VALUE)
        self.sensory_update = DeepUpdate()

    def forward(
        self,
        image: Float[Tensor, "1 3 y x"],
        f16: Float[Tensor, "1 c h w"],
        masks: Float[Tensor, "b y x"],
        sensory: Float[Tensor, "b v h w"],
    ) -> tuple[Float[Tensor, "b v h w"], Float[Tensor, "b v h w"]]:
        """The values of each of `masks` (0 to 1) in `image`, of which `f16` is the encoder's projection for masks, and
        the `sensory` states after their deep update.
        """
        x = torch.cat([image.expand(len(masks), -1, -1, -1), masks[:, None]], 1)
        x = nnf.max_pool2d(apply_convolution(self.conv1, x, self.bn1, relu=True), 3, 2, 1)
        values = self.fuser(f16, self.layer3(self.layer2(self.layer1(x))))
        return values, self.sensory_update(values, sensory)


class DecoderSkips(nn.Module):
    """What the decoder adds of the frame at strides 8 and 4; the same for all objects."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms = nn.ModuleList([nn.Conv2d(512, 512, 1), nn.Conv2d(256, 256, 1)])


class Upsampler(nn.Module):
    """To twice the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.out_conv = PreActivationResidual(inputs, outputs)

    def forward(self, skip: Float[Tensor, "1 c h2 w2"], g: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Enlarges each object's features `g` to the resolution of `skip`, the frame's, and adds that."""
        out: Tensor = self.out_conv(scale_up_bilinear(g, 2) + skip)
        return out


class SensoryPrediction(nn.Module):
    """Only of use in training: a mask, linearly of the sensory state. Here for its parameters' names."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(512, VALUE + 1, 1)


class MaskDecoder(nn.Module):
    """A mask from what was read of the memory, the sensory state and the last mask."""

    def __init__(self) -> None:
        super().__init__()
        self.fuser = FeatureFuser(512 + VALUE, 512)
        self.sensory_compress = nn.Conv2d(VALUE + 1, VALUE, 1)
        self.sensory_update = SensoryUpdate()
        self.decoder_feat_proc = DecoderSkips()
        self.up_16_8, self.up_8_4 = Upsampler(512, 256), Upsampler(256, 256)
        self.pred = nn.Conv2d(256, 1, 3, 1, 1)
        self.sensory_linear_pred = SensoryPrediction()

    def skips(self, f8: Float[Tensor, "1 c h2 w2"], f4: Float[Tensor, "1 d h4 w4"]) -> tuple[Tensor, Tensor]:
        """What of the frame is added at strides 8 and 4."""
        eight, four = self.decoder_feat_proc.transforms
        assert isinstance(eight, nn.Conv2d) and isinstance(four, nn.Conv2d)
        return apply_convolution(eight, f8), apply_convolution(four, f4)

    def forward(
        self,
        f16: Float[Tensor, "1 c h w"],
        skips: tuple[Tensor, Tensor],
        readout: Float[Tensor, "b v h w"],
        sensory: Float[Tensor, "b v h w"],
        last: Float[Tensor, "b y x"],
    ) -> tuple[Float[Tensor, "b h4 w4"], Float[Tensor, "b v h w"]]:
        """Logits at stride 4, each object by itself, and the `sensory` states after their update. `f16`, `skips`,
        `readout` and `last` are as in `look`.
        """
        logits, scales = self.look(f16, skips, readout, sensory, last)
        return logits, self.sensory_update(*scales, sensory)

    def look(
        self,
        f16: Float[Tensor, "1 c h w"],
        skips: tuple[Tensor, Tensor],
        readout: Float[Tensor, "b v h w"],
        sensory: Float[Tensor, "b v h w"],
        last: Float[Tensor, "b y x"],
    ) -> tuple[Float[Tensor, "b h4 w4"], tuple[Tensor, Tensor, Tensor]]:
        """Logits alone, and what the sensory states are updated from: a quarter of the time is spared.

        `f16` is the encoder's projection for masks, `skips` are those of `skips()`; of each object `readout` was read
        of the memory, `sensory` is its state, `last` its last mask (0 to 1) at the size of the image.
        """
        before = nnf.avg_pool2d(last[:, None], STRIDE)
        g16 = self.fuser(f16, readout + self.sensory_compress(torch.cat([sensory, before], 1)))
        g8 = self.up_16_8(skips[0], g16)
        g4 = self.up_8_4(skips[1], g8)
        logits = self.pred(nnf.relu(g4))
        return logits[:, 0].float(), (g16, g8, torch.cat([g4, logits], 1))


class XmemNet(nn.Module):
    """The network; for inference. 69 million parameters, of which 0.26 million are only of use in training."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel_encoder, self.mask_encoder = ImageEncoder(), MaskEncoder()
        self.key_proj, self.mask_decoder = KeyProjection(), MaskDecoder()


def scale_up_bilinear(maps: Float[Tensor, "b c h w"], by: int) -> Float[Tensor, "b c h2 w2"]:
    """Enlarges `maps` by the factor `by`, bilinear, pixel centres aligned."""
    return nnf.interpolate(maps, scale_factor=by, mode="bilinear", align_corners=False)


def aggregate_probabilities(p: Float[Tensor, "n h w"]) -> Float[Tensor, "m h w"]:
    """Log odds of the background and of n objects that were looked at one by one (STM's soft aggregation, Oh et al.
    2019); a softmax over them makes them exclude each other. The background is where no object is.
    """
    every = torch.cat([(1 - p).prod(0, keepdim=True), p])
    return torch.logit(every, eps=SURE)


def compute_margins(odds: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """By how much each map is above the best of the others."""
    two, which = odds.topk(2, 0)
    channels = torch.arange(len(odds), device=odds.device)[:, None, None]
    return odds - torch.where(channels == which[0], two[1], two[0])
