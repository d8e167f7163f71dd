"""The networks of learnt queries behind a segmenter: Mask2Former, and EoMT (Kerssies et al. 2025), a plain ViT through
whose last blocks the queries go together with the patches.

Both are transformers' modules; a `QueryNetwork` brings frames to one, and what it says into one form. `encode` and
`decode` are the two halves of a pass: queries that were decoded from another frame may go into the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.mask2former.query_blocks import DecodedSlots, embed_tokens, run_query_blocks, tap_outputs
from masklet.nn.quick_linear import quicken_linear_layers

Maps = tuple[Tensor, ...]  # what is made of frames without a memory; the first dimension is videos side by side
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0 to 255
SHORTEST = 800  # pixels of Mask2Former's short side, of images
LONGEST = 1333  # pixels of Mask2Former's long side, at most
MULTIPLE = 32  # the sides of Mask2Former's input are multiples of this
STRIDE = 4  # of masks
MASK2FORMER, EOMT, EOMT_DINOV3 = "mask2former", "eomt", "eomt_dinov3"  # as transformers calls them


class QueryAnswers(NamedTuple):
    """What a network says of a batch of images, as it computes it."""

    queries: Float[Tensor, "b n c"]  # after the last norm
    class_logits: Float[Tensor, "b n k1"]
    pixel_features: Float[Tensor, "b d h w"]
    mask_logits: Float[Tensor, "b n h w"]


class HeadSizes(NamedTuple):
    """What a tracker over a network has to fit."""

    width: int  # of the queries
    mask_width: int  # of the pixel features
    heads: int  # of attention
    hidden: int  # of the feed-forward layers
    layers: int  # that the queries go through


@runtime_checkable
class QueryNetwork(Protocol):
    """A network of transformers, in eval mode, and how frames come into it."""

    net: Any
    name: str
    multiple: int  # the sides of its input are multiples of it

    @property
    def square(self) -> int | None:
        """Pixels of a side of its input, where that is a square of one size."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the maps (b c h w) that `encode` gives last, the finest first."""
        ...

    @property
    def backbone(self) -> str:
        """What its backbone is called."""
        ...

    def choose_side(self, wanted: int | None) -> int:
        """Pixels of the side by which frames are scaled, of None its own. Raises InputError where it cannot be."""
        ...

    def prepare(
        self, frames: Sequence[Frame], shortest: int, device: torch.device
    ) -> tuple[Float[Tensor, "b 3 h w"], tuple[int, int]]:
        """The input made of frames of one size, and h, w of what is not padding in it."""
        ...

    def look(self, images: Float[Tensor, "b 3 h w"]) -> QueryAnswers:
        """One pass."""
        ...

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """What is made of images before any query is there."""
        ...

    def decode(self, maps: Maps, queries: Float[Tensor, "b n c"] | None = None, every: bool = False) -> DecodedSlots:
        """What the queries see in `maps`, which are `encode`'s; None: the learnt ones. `every`: all that is supervised
        in training, not the last layer's answer alone.
        """
        ...

    def embed(self, queries: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
        """What is dotted with pixel features, made of queries before the last norm."""
        ...

    def embed_normed(self, normed: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
        """The same, made of queries after it."""
        ...


class Mask2FormerNetwork:
    """Mask2Former: scaled by the short side, padded with grey; the pixel decoder always computes in float32, as in the
    official code.
    """

    name = "Mask2Former"
    multiple = MULTIPLE
    square = None

    def __init__(self, net: Any) -> None:
        from masklet.models.mask2former.quick_attention import quicken_deformable_attention  # with transformers

        self.net = net
        quicken_deformable_attention(net.model.pixel_level_module.decoder)
        quicken_linear_layers(net)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the backbone's maps, the finest first."""
        return tuple(self.net.model.pixel_level_module.decoder.feature_channels)

    @property
    def backbone(self) -> str:
        """What its backbone is called."""
        return str(self.net.config.backbone_config.model_type)

    def choose_side(self, wanted: int | None) -> int:
        """Pixels of the short side: what is `wanted`, or 800."""
        return wanted or SHORTEST

    def prepare(
        self, frames: Sequence[Frame], shortest: int, device: torch.device
    ) -> tuple[Float[Tensor, "b 3 h w"], tuple[int, int]]:
        """The input, padded with grey (the mean) on the right and below; and h, w of what is not padding."""
        size = compute_mask2former_size(frames[0].size, shortest)
        images = normalize_images(resize_frames(frames, size), device)
        return nnf.pad(images, (0, -size[1] % MULTIPLE, 0, -size[0] % MULTIPLE)), size

    def look(self, images: Float[Tensor, "b 3 h w"]) -> QueryAnswers:
        """One pass."""
        decoded = self._decode_pixels(self.encode(images))
        answer = self.net.model.transformer_module(decoded.multi_scale_features, decoded.mask_features)
        queries = answer.intermediate_hidden_states[-1].transpose(0, 1)  # after the decoder's norm
        logits = self.net.class_predictor(queries)
        return QueryAnswers(queries, logits, decoded.mask_features, answer.masks_queries_logits[-1])

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """The backbone's features, the finest first."""
        return tuple(self.net.model.pixel_level_module.encoder(images).feature_maps)

    def decode(self, maps: Maps, queries: Float[Tensor, "b n c"] | None = None, every: bool = False) -> DecodedSlots:
        """Pixel decoder and Transformer decoder, which answers after every layer whatever is `every`; the first answer
        is what queries say before they have looked.
        """
        decoded = self._decode_pixels(maps)
        answer = decode_queries(
            self.net.model.transformer_module, queries, decoded.multi_scale_features, decoded.mask_features
        )
        layers = [normed.transpose(0, 1) for normed in answer.intermediate_hidden_states]
        return DecodedSlots(
            answer.last_hidden_state,
            tuple(self.net.class_predictor(normed) for normed in layers),
            tuple(answer.masks_queries_logits),
            decoded.mask_features,
        )

    def embed(self, queries: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
        """The decoder's norm and its mask head."""
        return self.embed_normed(self.net.model.transformer_module.decoder.layernorm(queries))

    def embed_normed(self, normed: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
        """The mask head."""
        embedded: Tensor = self.net.model.transformer_module.decoder.mask_predictor.mask_embedder(normed)
        return embedded

    def _decode_pixels(self, maps: Maps) -> Any:
        with torch.autocast(maps[0].device.type, enabled=False):
            return self.net.model.pixel_level_module.decoder([m.float() for m in maps])


class EomtNetwork:
    """EoMT: scaled by the long side to the one size that it was trained at, padded with black to a square."""

    name = "EoMT"
    multiple = 1

    def __init__(self, net: Any) -> None:
        """Raises InputError where its masks are not of stride 4."""
        self.net, self.square = net, int(net.config.image_size)
        check_mask_stride(net.config, "an EoMT")
        quicken_linear_layers(net)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the one map that a ViT has."""
        return (int(self.net.config.hidden_size),)

    @property
    def backbone(self) -> str:
        """What its backbone is called."""
        return "dinov3" if self.net.config.model_type == EOMT_DINOV3 else "vit"

    def choose_side(self, wanted: int | None) -> int:
        """Pixels of the square that it looks at. Raises InputError where another one is `wanted`."""
        own = self.square
        if wanted not in (None, own):
            raise InputError(
                f"@{wanted}: an EoMT looks at the one size that it was trained at, {own} pixels; leave it out"
            )
        return own

    def prepare(
        self, frames: Sequence[Frame], shortest: int, device: torch.device
    ) -> tuple[Float[Tensor, "b 3 h w"], tuple[int, int]]:
        """The input, a square whose right or lower part is black; and h, w of what is not padding. Its side is the
        network's own, whatever is `shortest`.
        """
        side = self.square
        h, w = compute_square_size(frames[0].size, side)
        padded = np.pad(resize_frames(frames, (h, w)), ((0, 0), (0, side - h), (0, side - w), (0, 0)))
        return normalize_images(padded, device), (h, w)

    def look(self, images: Float[Tensor, "b 3 h w"]) -> QueryAnswers:
        """One pass. The pixel features are what its own upscale block makes last."""
        with tap_outputs(self.net.upscale_block) as pixels:
            answer = self.net(images)
        queries = answer.last_hidden_state[:, : self.net.config.num_queries]
        return QueryAnswers(queries, answer.class_queries_logits, pixels[-1], answer.masks_queries_logits)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Maps:
        """After the blocks that know nothing of queries: the tokens that are no patches (b p c), and the patches'."""
        tokens = embed_tokens(self.net, images)
        apart, side = self.net.embeddings.num_prefix_tokens, self.square // int(self.net.config.patch_size)
        patches = tokens[:, apart:].transpose(1, 2)
        return tokens[:, :apart], patches.reshape(*patches.shape[:2], side, side)

    def decode(self, maps: Maps, queries: Float[Tensor, "b n c"] | None = None, every: bool = False) -> DecodedSlots:
        """The last blocks, whose attention is not masked; where `every` answer is wanted, those before each of them."""
        apart, patches = maps
        tokens = torch.cat([apart.to(patches), patches.flatten(2).transpose(1, 2)], 1)
        start = self.net.query.weight.expand(len(tokens), -1, -1) if queries is None else queries
        return run_query_blocks(self.net, start, tokens, every)

    def embed(self, queries: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
        """The last norm and the mask head."""
        return self.embed_normed(self.net.layernorm(queries))

    def embed_normed(self, normed: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n d"]:
        """The mask head."""
        embedded: Tensor = self.net.mask_head(normed)
        return embedded


def decode_queries(
    module: Any, queries: Float[Tensor, "b n c"] | None, levels: Sequence[Tensor], pixels: Float[Tensor, "b d h w"]
) -> Any:
    """Mask2Former's Transformer decoder, which begins with given queries instead of the learnt ones (None: these).

    Args:
        module: the `transformer_module` of transformers' network.
        queries: Q_{t-1}. Each keeps the learnt position of its place.
        levels: the pixel decoder's maps, the coarsest first.
        pixels: its embeddings of pixels.
    """
    b = len(pixels)
    start = module.queries_features.weight.expand(b, -1, -1) if queries is None else queries
    places, values = [], []
    for n, maps in enumerate(levels):
        place = module.position_embedder(maps.shape, maps.device, maps.dtype)
        value = module.input_projections[n](maps) + module.level_embed.weight[n][:, None, None]
        places.append(place.flatten(2).permute(2, 0, 1))
        values.append(value.flatten(2).permute(2, 0, 1))
    return module.decoder(
        inputs_embeds=start.transpose(0, 1),
        multi_stage_positional_embeddings=places,
        pixel_embeddings=pixels,
        encoder_hidden_states=values,
        query_position_embeddings=module.queries_embedder.weight[:, None].expand(-1, b, -1),
        feature_size_list=[maps.shape[2:] for maps in levels],
        return_dict=True,
    )


def check_mask_stride(config: Any, what: str) -> None:
    """Raises InputError where the masks of `what`, a ViT of queries with this `config`, are not of stride 4."""
    stride = config.patch_size / 2**config.num_upscale_blocks
    if stride != STRIDE:
        raise InputError(
            f"{what} with patches of {config.patch_size} pixels and {config.num_upscale_blocks} upscale blocks has "
            f"masks of stride {stride:g}; here they are of stride {STRIDE}"
        )


NETWORKS: Mapping[str, Callable[[Any], QueryNetwork]] = {
    MASK2FORMER: Mask2FormerNetwork,
    EOMT: EomtNetwork,
    EOMT_DINOV3: EomtNetwork,
}


CLASSES = {MASK2FORMER: "Mask2Former", EOMT: "Eomt", EOMT_DINOV3: "EomtDinov3"}  # how those of transformers begin


def wrap_query_network(net: Any) -> QueryNetwork:
    """The `QueryNetwork` of a module of transformers, by the type that its config names."""
    return NETWORKS[net.config.model_type](net)


def resize_frames(frames: Sequence[Frame], size: tuple[int, int]) -> np.ndarray:
    """Images of frames at a `size` (h, w), uint8 (t h w 3)."""
    h, w = size
    return np.stack([np.array(Image.fromarray(f.image).resize((w, h), Image.Resampling.BILINEAR)) for f in frames])


def normalize_images(images: np.ndarray, device: torch.device) -> Float[Tensor, "t 3 h w"]:
    """Images (uint8, t h w 3) in ImageNet's normalisation, on a device."""
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    return (torch.from_numpy(images).to(device).permute(0, 3, 1, 2) - mean) / std


def compute_mask2former_size(size: tuple[int, int], shortest: int, longest: int = LONGEST) -> tuple[int, int]:
    """The size (h, w) at which Mask2Former looks at a frame: the short side `shortest`, the long one at most `longest`.

    >>> [compute_mask2former_size(*sizes) for sizes in (((720, 1280), 360), ((1080, 1920), 800), ((427, 240), 480))]
    [(360, 640), (750, 1333), (854, 480)]
    """
    scale = shortest / min(size)
    sides = [shortest if side == min(size) else scale * side for side in size]
    if max(sides) > longest:
        scale = longest / max(sides)
        sides = [side * scale for side in sides]
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def compute_square_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size (h, w) at which EoMT looks at a frame: the long side is `side`.

    >>> compute_square_size((480, 854), 640), compute_square_size((1280, 720), 640), compute_square_size((1, 4000), 64)
    ((360, 640), (640, 360), (1, 64))
    """
    scale = side / max(size)
    h, w = (max(int(scale * s + 0.5), 1) for s in size)
    return h, w


def infer_query_sizes(config: Any) -> HeadSizes:
    """What a tracker over a network with this `config` of transformers has to fit."""
    if config.model_type == MASK2FORMER:
        layers = config.decoder_layers - 1
        return HeadSizes(
            config.hidden_dim, config.mask_feature_size, config.num_attention_heads, config.dim_feedforward, layers
        )
    width = config.hidden_size
    return HeadSizes(width, width, config.num_attention_heads, 2 * width, config.num_blocks)


def list_mask_layers(net: Any) -> list[nn.Linear]:
    """The three linear layers of a network of transformers that make of a query what is dotted with pixel features."""
    head = (
        net.model.transformer_module.decoder.mask_predictor.mask_embedder
        if net.config.model_type == MASK2FORMER
        else net.mask_head
    )
    return [part for part in head.modules() if isinstance(part, nn.Linear)]
