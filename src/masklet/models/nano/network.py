"""SAM 2's network at nano size, over the features of the packaged MobileNetV2: its sizes, its parts and its file.

It is transformers' `Sam2VideoModel`, small, with two parts exchanged. In the place of the image encoder is a neck over
features that the segmenter has computed anyway. And a frame's guess, the mask that the training-free propagation
expects there, is given to the mask decoder as a mask prompt and at its finer levels: what the decoder answers is what
is wrong with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from masklet.models.encoder import MEAN, STD, EncoderFeatures
from masklet.models.transformers_output import drop_transformers_output
from masklet.weights.format import copy_module_weights, explain_damage, read_described, write_described
from masklet.weights.strict import load_exactly

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig

KIND = "nano-propagator"  # in the metadata of its files
HIDDEN = 128  # channels of tokens: as many as the encoder's keys have, which they begin as
MEMORY = 64  # channels of memories, fixed in transformers' memory attention
FINE, MEDIUM = HIDDEN // 8, HIDDEN // 4  # channels at strides 4 and 8, fixed in transformers' mask decoder
STEM = 24  # channels of colours at stride 4
TRUNK = 64  # channels of features at stride 8
EXTENT = 24  # what the sides of the square count in rotary position encodings, however many cells they have
SURE = 4.0  # about the largest logit of a guess


@dataclass(frozen=True)
class NanoSettings:
    """What is chosen of the network."""

    side: int = 384  # of the square that features are squeezed into, pixels; a multiple of 32
    layers: int = 2  # of memory attention
    width: int = 256  # inner channels of the feed-forward layers


class NanoNeck(nn.Module):
    """The encoder's features, squeezed into a square, at strides 4, 8 and 16 of it."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GELU(), nn.Conv2d(16, STEM, 3, 2, 1), nn.GELU())
        self.trunk = nn.Sequential(
            nn.Conv2d(128 + 24 + STEM, TRUNK, 1), nn.GELU(), nn.Conv2d(TRUNK, TRUNK, 3, 1, 1), nn.GELU()
        )
        self.fine = nn.Conv2d(STEM + TRUNK // 2, FINE, 3, 1, 1)
        self.lift = nn.Conv2d(TRUNK, TRUNK // 2, 1)
        self.medium = nn.Conv2d(TRUNK, MEDIUM, 1)
        self.coarse = nn.Conv2d(TRUNK, HIDDEN, 3, 2, 1)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        self.mean, self.std = nn.Buffer(mean, persistent=False), nn.Buffer(std, persistent=False)

    def forward(
        self, features: EncoderFeatures, side: int
    ) -> tuple[Float[Tensor, "1 e h4 w4"], Float[Tensor, "1 d h2 w2"], Float[Tensor, "1 c h w"]]:
        """The three maps of one frame."""
        square = cv2.resize(features.guide.numpy(), (side, side), interpolation=cv2.INTER_LINEAR)
        image = torch.from_numpy(square).to(self.mean).permute(2, 0, 1)[None] / 255
        colours = self.colours((image - self.mean) / self.std)
        keys, detail = (
            nnf.interpolate(x.to(self.mean)[None], (side // 8, side // 8), mode="bilinear")
            for x in (features.keys, features.detail)
        )
        keys, detail = keys * (HIDDEN / 2) ** 0.5, detail * 24**0.5  # from unit length to about 1 in each channel
        trunk = self.trunk(torch.cat([keys, detail, nnf.avg_pool2d(colours, 2)], 1))
        lifted = nnf.interpolate(self.lift(trunk), scale_factor=2, mode="bilinear")
        fine = self.fine(torch.cat([colours, lifted], 1))
        return fine, self.medium(trunk), nnf.avg_pool2d(keys, 2) + self.coarse(trunk)


class MaskHints(nn.Module):
    """A guess at the finer levels of the mask decoder, and how much it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, FINE, 5, 1, 2)
        self.fine = nn.Conv2d(FINE, FINE, 3, 1, 1)
        self.medium = nn.Conv2d(FINE, MEDIUM, 3, 2, 1)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(
        self, guess: Float[Tensor, "b 1 h4 w4"]
    ) -> tuple[Float[Tensor, "b e h4 w4"], Float[Tensor, "b d h2 w2"]]:
        """What is added to the frame's own maps, for each object."""
        told = torch.cat([guess / SURE, guess.sigmoid()], 1)
        x = nnf.gelu(self.first(told))
        return self.fine(x), self.medium(x)


def build_nano_config(settings: NanoSettings) -> Sam2VideoConfig:
    """The config with which transformers builds the SAM 2 video network of these settings."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    side = settings.side
    # transformers makes an image encoder, which is not used: the smallest.
    ones = [1, 1, 1, 1]
    hiera = Sam2HieraDetConfig(
        hidden_size=4,
        blocks_per_stage=ones,
        embed_dim_per_stage=[4, 8, 16, 32],
        num_attention_heads_per_stage=ones,
        window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[],
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[32, 16, 8, 4],
        fpn_hidden_size=HIDDEN,
        backbone_feature_sizes=[[side // n] * 2 for n in (4, 8, 16)],
    )
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=HIDDEN, image_size=side),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=HIDDEN, mlp_dim=settings.width, iou_head_hidden_dim=HIDDEN
        ),
        image_size=side,
        memory_attention_hidden_size=HIDDEN,
        memory_attention_num_layers=settings.layers,
        memory_attention_feed_forward_hidden_size=settings.width,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_encoder_hidden_size=HIDDEN,
        memory_encoder_output_channels=MEMORY,
        mask_downsampler_embed_dim=HIDDEN,
        memory_fuser_embed_dim=HIDDEN,
        memory_fuser_intermediate_dim=settings.width,
    )


def create_blank_nano(settings: NanoSettings) -> Any:
    """The network with random weights throughout (torch's generator decides), float32 on the CPU."""
    from transformers import Sam2VideoModel

    with drop_transformers_output():
        net: Any = Sam2VideoModel(build_nano_config(settings))
    net.vision_encoder, net.hints = NanoNeck(), MaskHints()
    net.mask_decoder.conv_s0 = net.mask_decoder.conv_s1 = nn.Identity()  # the neck's maps are that narrow already
    cells = settings.side // 16
    net.memory_attention.position_ids = net.memory_attention.position_ids * (EXTENT / cells)
    return net


def create_nano(settings: NanoSettings | None = None, seed: int = 0) -> Any:
    """The network as training begins: it compares what it sees with what it remembers, and leaves guesses alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = create_blank_nano(settings or NanoSettings())
        _initialize_weights(net)
        with torch.no_grad():
            _initialize_attention(net)
            _initialize_outputs(net)
    return net


def _initialize_weights(net: nn.Module) -> None:
    """transformers' own initial weights are for wide networks."""
    for part in net.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            part.reset_parameters()
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.5)


def _initialize_attention(net: Any) -> None:
    """Memory attention begins as the likeness of features: its keys are the remembered features, but fewer of them."""
    encoder = net.memory_encoder
    fewer = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN))[0][:MEMORY]
    nn.init.zeros_(encoder.feature_projection.bias)
    encoder.feature_projection.weight.copy_(torch.eye(HIDDEN)[:, :, None, None])
    encoder.projection.weight.copy_(fewer[:, :, None, None])
    nn.init.normal_(net.memory_temporal_positional_encoding, std=0.02)
    nn.init.normal_(net.occlusion_spatial_embedding_parameter, std=0.02)
    nn.init.normal_(net.no_object_pointer, std=0.02)
    nn.init.normal_(net.no_memory_embedding, std=0.02)
    for layer in encoder.memory_fuser.layers:
        nn.init.constant_(layer.scale, 0.1)
    for layer in net.memory_attention.layers:
        part = layer.cross_attn_image
        part.q_proj.weight.copy_(torch.eye(HIDDEN))
        part.k_proj.weight.copy_(fewer.T)
        nn.init.zeros_(part.q_proj.bias)
        nn.init.zeros_(part.k_proj.bias)


def _initialize_outputs(net: Any) -> None:
    """Small answers, and objects that are there."""
    for head in net.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.mul_(0.1)
        head.proj_out.bias.mul_(0.1)
    head = net.mask_decoder.pred_obj_score_head
    head.proj_out.weight.mul_(0.3)
    nn.init.constant_(head.proj_out.bias, 3.0)


# -- files


def save_nano(path: Path, net: Any, settings: NanoSettings) -> None:
    """Writes a network `net` and its `settings` to one safetensors file at `path`, in float16, for `read_nano`.

    Raises InputError where it cannot be written.
    """
    write_described(path, KIND, copy_module_weights(net, torch.float16), {"settings": asdict(settings)})


def read_nano(path: Path) -> tuple[Any, NanoSettings]:
    """The network of a file that `save_nano` wrote: float32, eval, no gradients, CPU.

    Raises InputError where the file is of something else or damaged.
    """
    held = read_described(path, KIND, "a nano propagator, as masklet train propagator writes them")
    with explain_damage(path):
        told = held.about["settings"]
        settings = NanoSettings(**{f.name: int(told[f.name]) for f in fields(NanoSettings)})
        net = create_blank_nano(settings)
    return load_exactly(net, held.tensors, path, "the nano propagator that it says it is"), settings
