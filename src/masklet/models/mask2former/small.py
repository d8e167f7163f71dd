"""A small Mask2Former: transformers' decoders, few and narrow, over the packaged MobileNetV2.

A million parameters, to be trained on a CPU; trackers are trained on it here. It is not to compete with the large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.models.transformers_output import drop_transformers_output
from masklet.nn.mobilenet import MobileNetV2
from masklet.weights.format import copy_module_weights, explain_damage, is_of_kind, read_described, write_described
from masklet.weights.store import ZOO, read_packaged
from masklet.weights.strict import load_exactly

if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation

KIND = "small-mask2former"  # in the metadata of its files
PACKAGED = "mobilenetv2"
STRIDED = 7  # the block that halves the image from stride 8 to 16


@dataclass(frozen=True)
class SmallMask2FormerSettings:
    """Sizes. The published network has 256, 6, 9, 100, 8, 1024 and 2048."""

    hidden: int = 64  # channels of features, queries and masks; a multiple of 32
    encoder_layers: int = 2  # of deformable attention over strides 8, 16, 32
    decoder_layers: int = 3  # of masked attention, one for each stride
    queries: int = 24
    heads: int = 4
    encoder_width: int = 192  # inner channels of the feed-forward layers
    decoder_width: int = 256


@dataclass(frozen=True)
class BackboneMaps:
    """What transformers expects of a backbone."""

    feature_maps: tuple[Float[Tensor, "b _ _ _"], ...]  # of strides 4, 8, 16, 32


class StridedMobileNet(nn.Module):
    """The packaged MobileNetV2 with the stride at block 7 that the paper has, and one more layer down to stride 32.

    Its first two maps, before that block, are what the packaged encoder gives. Batch norms are folded into the
    convolutions, so training and use are the same.
    """

    channels = (24, 32, 96, 96)

    def __init__(self) -> None:
        super().__init__()
        self.net = MobileNetV2()
        for number, block in enumerate(self.net.blocks, start=1):
            if number >= STRIDED:
                filters: Any = block.depth
                filters.stride = (2, 2) if number == STRIDED else (1, 1)
                filters.dilation = filters.padding = (1, 1)
        last = self.channels[-1]
        self.down = nn.Sequential(nn.Conv2d(96, last, 3, 2, 1, bias=False), nn.GroupNorm(8, last), nn.ReLU())

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> BackboneMaps:
        """Maps of RGB in ImageNet's normalisation, height and width multiples of 32."""
        # Filters of single channels are twice as fast with the channels last.
        x = nn.functional.hardtanh_(self.net.stem(images.contiguous(memory_format=torch.channels_last)), 0.0, 6.0)
        taps = []
        for number, block in enumerate(self.net.blocks, start=1):
            x = block(x)
            if number in self.net.TAPS:
                taps.append(x)
        return BackboneMaps((*taps, self.down(x)))


def create_blank_small(
    settings: SmallMask2FormerSettings, categories: Sequence[str]
) -> Mask2FormerForUniversalSegmentation:
    """The network with random weights throughout (torch's generator decides), float32 on the CPU."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, MobileNetV2Config, ResNetConfig

    like_resnet: Any = ResNetConfig  # stands in for the backbone until it is there

    with drop_transformers_output():
        config = Mask2FormerConfig(
            backbone_config=like_resnet(
                embedding_size=8,
                hidden_sizes=list(StridedMobileNet.channels),
                depths=[1, 1, 1, 1],
                layer_type="basic",
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
            feature_size=settings.hidden,
            mask_feature_size=settings.hidden,
            hidden_dim=settings.hidden,
            encoder_layers=settings.encoder_layers,
            encoder_feedforward_dim=settings.encoder_width,
            decoder_layers=settings.decoder_layers + 1,  # it counts the queries' own prediction
            dim_feedforward=settings.decoder_width,
            num_queries=settings.queries,
            num_attention_heads=settings.heads,
            id2label=dict(enumerate(categories)),
        )
        net = Mask2FormerForUniversalSegmentation(config)
    parts: Any = net.model.pixel_level_module
    parts.encoder = StridedMobileNet()
    net.config.backbone_config = MobileNetV2Config()  # read by nothing but descriptions
    return net


def create_small_mask2former(
    settings: SmallMask2FormerSettings, categories: Sequence[str], seed: int = 0
) -> Mask2FormerForUniversalSegmentation:
    """The network as training begins: the packaged weights in its backbone, the rest random, the same for a `seed`.

    `settings` are its widths and depths, `categories` the names of its classes.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = create_blank_small(settings, categories)
    encoder: Any = net.model.pixel_level_module.encoder
    encoder.net.load_state_dict({name: value.float() for name, value in read_packaged(ZOO[PACKAGED]).items()})
    initialize_likeness(net)
    return net


@torch.no_grad()
def initialize_likeness(net: Any) -> None:
    """Sets new weights so that a query's next mask is where pixels are like the mean of those that it attends to.

    Cross-attention hands on what it reads, the mask head and the last convolution of the pixel decoder hand on what
    they get, and the query itself and the other branches start small: learning begins with masks that grow, where from
    weights that are random throughout it takes a few hundred steps to get there.
    """
    queries, pixels = net.model.transformer_module, net.model.pixel_level_module.decoder
    eye = torch.eye(net.config.hidden_dim)
    queries.queries_features.weight.mul_(0.3)
    queries.level_embed.weight.mul_(0.1)
    for layer in queries.decoder.layers:
        layer.cross_attn.in_proj_weight[-len(eye) :] = eye  # values
        layer.cross_attn.out_proj.weight.copy_(eye)
        layer.self_attn.out_proj.weight.mul_(0.1)
        layer.fc2.weight.mul_(0.1)
    steps = [part for part in queries.decoder.mask_predictor.modules() if isinstance(part, nn.Linear)]
    # What follows a norm is hardly below -4: raised by as much, it passes the ReLUs as it is. A fifth of it is enough.
    for linear, bias, scale in zip(steps, (4.0, 0.0, -4.0), (1.0, 1.0, 0.2), strict=True):
        linear.weight.copy_(eye * scale)
        linear.bias.fill_(bias * scale)
    pixels.mask_projection.weight.copy_(eye[:, :, None, None])
    pixels.mask_projection.bias.zero_()
    pixels.layer_1[0].weight.mul_(0.1)[:, :, 1, 1] += eye
    pixels.adapter_1[1].weight.mul_(0.5)


# -- files


def save_small(path: Path, net: Any, settings: SmallMask2FormerSettings, size: tuple[int, int]) -> None:
    """Writes a network `net`, its `settings` and the names of its classes to one safetensors file at `path`, for
    `load_small`. `size`: of the images of training, h and w in pixels. Raises InputError where it cannot be written.
    """
    categories = [net.config.id2label[n] for n in range(net.config.num_labels)]
    told = {"settings": asdict(settings), "categories": categories, "size": size}
    write_described(path, KIND, copy_module_weights(net), told)


@dataclass(frozen=True)
class SmallCheckpoint:
    """What a file holds."""

    net: Mask2FormerForUniversalSegmentation  # float32, eval, no gradients, CPU
    settings: SmallMask2FormerSettings
    size: tuple[int, int]  # h, w of the images of training


def load_small(path: Path) -> SmallCheckpoint:
    """A file that `save_small` wrote. Raises InputError where it is of something else or damaged."""
    held = read_described(path, KIND, "a small Mask2Former, as masklet train segmenter writes them")
    with explain_damage(path):
        told = held.about["settings"]
        settings = SmallMask2FormerSettings(**{f.name: int(told[f.name]) for f in fields(SmallMask2FormerSettings)})
        h, w = (int(side) for side in held.about["size"])
        net = create_blank_small(settings, [str(name) for name in held.about["categories"]])
    load_exactly(net, held.tensors, path, "the small Mask2Former that it says it is")
    return SmallCheckpoint(net, settings, (h, w))


def is_small(path: Path) -> bool:
    """Whether a file is what `save_small` writes. Raises InputError where it is a damaged safetensors file."""
    return is_of_kind(path, KIND)
