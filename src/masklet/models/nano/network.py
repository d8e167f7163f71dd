"""SAM 2's network at nano size, over the features of the packaged MobileNetV2: its sizes, its parts and its file.

It is SAM 2, small, with two parts exchanged. In the place of the image encoder is a neck over features that the
segmenter has computed anyway. And a frame's guess, the mask that the training-free propagation
expects there, is given to the mask decoder as a mask prompt and at its finer levels: what the decoder answers is what
is wrong with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from masklet.models.encoder import MEAN, STD, EncoderFeatures
from masklet.nn.mask_decoder import Sam2MaskDecoder
from masklet.nn.memory_attention import MemoryAttentionLayers
from masklet.nn.memory_encoder import MemoryEncoder
from masklet.nn.prompt_encoder import PlaceEncoding, PromptEncoder
from masklet.nn.sam2_layers import Perceptron
from masklet.weights.format import copy_module_weights, explain_damage, read_described, write_described
from masklet.weights.strict import load_exactly

KIND = "nano-propagator"  # in the metadata of its files
HIDDEN = 128  # channels of tokens: as many as the encoder's keys have, which they begin as
MEMORY = 64  # channels of memories
FRAMES = 7  # remembered ones that are told apart by their age
FINE, MEDIUM = HIDDEN // 8, HIDDEN // 4  # channels at strides 4 and 8, as the mask decoder has them
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


@dataclass(frozen=True)
class Sam2Constants:
    """What `Sam2Core` asks a network's config, as it is in SAM 2.1."""

    enable_temporal_pos_encoding_for_object_pointers: bool = True
    sigmoid_scale_for_mem_enc: float = 20.0
    sigmoid_bias_for_mem_enc: float = -10.0


class NanoNetwork(nn.Module):
    """The parts of transformers' `Sam2VideoModel` that `Sam2Core` runs, with its names, and what nano adds."""

    hidden_dim, mem_dim, config = HIDDEN, MEMORY, Sam2Constants()

    def __init__(self, settings: NanoSettings) -> None:
        super().__init__()
        side, width, cells = settings.side, settings.width, settings.side // 16
        self.image_size, self.backbone_feature_sizes = side, [(side // n, side // n) for n in (4, 8, 16)]
        self.no_memory_embedding = nn.Parameter(torch.zeros(1, 1, HIDDEN))
        self.no_memory_positional_encoding = nn.Parameter(torch.zeros(1, 1, HIDDEN))  # not used, but in all files
        self.memory_temporal_positional_encoding = nn.Parameter(torch.zeros(FRAMES, 1, 1, MEMORY))
        self.no_object_pointer = nn.Parameter(torch.zeros(1, HIDDEN))
        self.occlusion_spatial_embedding_parameter = nn.Parameter(torch.zeros(1, MEMORY))
        self.shared_image_embedding = PlaceEncoding(HIDDEN)
        self.vision_encoder = NanoNeck()
        self.prompt_encoder = PromptEncoder(HIDDEN, side)
        self.mask_decoder = Sam2MaskDecoder(HIDDEN, width)
        self.memory_attention = MemoryAttentionLayers(settings.layers, HIDDEN, width, MEMORY, cells, EXTENT / cells)
        self.memory_encoder = MemoryEncoder(HIDDEN, width, MEMORY)
        self.mask_downsample = nn.Conv2d(1, 1, 4, 4)
        self.object_pointer_proj = Perceptron(HIDDEN, HIDDEN, HIDDEN)
        self.temporal_positional_encoding_projection_layer = nn.Linear(HIDDEN, MEMORY)
        self.hints = MaskHints()

    def get_image_wide_positional_embeddings(self) -> Float[Tensor, "1 c h w"]:
        """Where each cell of the coarse features is, for the mask decoder."""
        cells = self.image_size // 16
        line = (torch.arange(cells, device=self.no_memory_embedding.device) + 0.5) / cells
        places = torch.stack([line.expand(cells, -1), line[:, None].expand(-1, cells)], dim=-1)
        positions: Tensor = self.shared_image_embedding(places).permute(2, 0, 1)[None]
        return positions


def create_nano(settings: NanoSettings | None = None, seed: int = 0) -> NanoNetwork:
    """The network as training begins: it compares what it sees with what it remembers, and leaves guesses alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = NanoNetwork(settings or NanoSettings())
        _initialize_weights(net)
        with torch.no_grad():
            _initialize_attention(net)
            _initialize_outputs(net)
    return net


def _initialize_weights(net: nn.Module) -> None:
    """As PyTorch draws them, embeddings smaller."""
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


def read_nano(path: Path) -> tuple[NanoNetwork, NanoSettings]:
    """The network of a file that `save_nano` wrote: float32, eval, no gradients, CPU.

    Raises InputError where the file is of something else or damaged.
    """
    held = read_described(path, KIND, "a nano propagator, as masklet train propagator writes them")
    with explain_damage(path):
        told = held.about["settings"]
        settings = NanoSettings(**{f.name: int(told[f.name]) for f in fields(NanoSettings)})
        net = NanoNetwork(settings)
    return load_exactly(net, held.tensors, path, "the nano propagator that it says it is"), settings
