"""GenVIS (Heo et al. 2023): object queries that look at the queries of each frame, and live through the video.

An encoder lets a clip's frame queries look at each other; a decoder lets the object queries look at them. Before that,
each object query reads its own memory of the frames so far. Parameters have the released weights' names and shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.query_layers import FeedForward, Mlp, SelfAttention, initialize_xavier


@dataclass(frozen=True)
class ObjectDecoderSettings:
    """What encoder and decoder are built of."""

    classes: int
    width: int = 256
    heads: int = 8
    hidden: int = 2048  # of the feed-forward layers
    encoder_layers: int = 6
    decoder_layers: int = 3
    queries: int = 100  # of objects
    frame_queries: int = 100
    feature_width: int = 256  # channels of the pixel features that come in
    mask_width: int = 256  # of those that masks are made of


@dataclass(frozen=True)
class ObjectMemory:
    """All that the next clip needs of those before it; it grows with every clip, as published."""

    queries: Float[Tensor, "n c"]  # the decoder's last output, before its norm
    keys: Float[Tensor, "t n c"]
    values: Float[Tensor, "t n c"]

    def detached(self) -> ObjectMemory:
        """The same, from which no gradient goes back further."""
        return ObjectMemory(self.queries.detach(), self.keys.detach(), self.values.detach())


class PositionalSelfAttention(SelfAttention):
    """Self-attention with positions on queries and keys."""

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "n c"], places: Float[Tensor, "n c"]
    ) -> Float[Tensor, "n c"]:
        """`places` are learnt, one for each vector."""
        placed = x + places
        normed: Tensor = self.norm(x + self.self_attn(placed, placed, x, need_weights=False)[0])
        return normed


class PositionalCrossAttention(nn.Module):
    """Cross-attention with positions on queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Float[Tensor, "n c"],
        seen: Float[Tensor, "m c"],
        places: Float[Tensor, "n c"],
        seen_places: Float[Tensor, "m c"],
    ) -> Float[Tensor, "n c"]:
        """Lets `x` look at `seen`, and adds what it finds to `x`. `places` and `seen_places` are the positions of both,
        added to queries and keys alone.
        """
        found = self.multihead_attn(x + places, seen + seen_places, seen, need_weights=False)[0]
        normed: Tensor = self.norm(x + found)
        return normed


class ObjectDecoder(nn.Module):
    """The network."""

    def __init__(self, settings: ObjectDecoderSettings) -> None:
        super().__init__()
        at = self.settings = settings
        times, c = range(at.decoder_layers), at.width
        self.transformer_self_attention_layers = nn.ModuleList(PositionalSelfAttention(c, at.heads) for _ in times)
        self.transformer_cross_attention_layers = nn.ModuleList(PositionalCrossAttention(c, at.heads) for _ in times)
        self.transformer_ffn_layers = nn.ModuleList(FeedForward(c, at.hidden) for _ in times)
        self.enc_self_attn = nn.ModuleList(SelfAttention(c, at.heads) for _ in range(at.encoder_layers))
        self.enc_ffn = nn.ModuleList(FeedForward(c, at.hidden) for _ in range(at.encoder_layers))
        initialize_xavier(self)
        self.vita_mask_features = nn.Conv2d(at.feature_width, at.mask_width, 1)
        self.decoder_norm = nn.LayerNorm(c)
        self.query_feat, self.query_embed = nn.Embedding(at.queries, c), nn.Embedding(at.queries, c)
        self.fq_pos = nn.Embedding(at.frame_queries, c)
        self.input_proj_dec = nn.Linear(c, c)
        self.class_embed = nn.Linear(c, at.classes + 1)
        self.mask_embed = Mlp(c, at.mask_width)
        self.sim_embed_frame, self.sim_embed_clip = nn.Linear(c, c), nn.Linear(c, c)  # of a loss of training
        self.pre_memory_embed_k, self.pre_memory_embed_v = nn.Linear(c, c), nn.Linear(c, c)
        self.pre_query_embed_k, self.pre_query_embed_v = nn.Linear(c, c), nn.Linear(c, c)

    def forward(self, memory: ObjectMemory | None, frame_queries: Float[Tensor, "t m c"]) -> list[Float[Tensor, "n c"]]:
        """One clip: each layer's output, before the norm. A memory of None begins a video."""
        seen = self.encoded(frame_queries)
        x, places = self.recalled(memory), self.query_embed.weight
        seen_places = self.fq_pos.weight.repeat(len(frame_queries), 1)
        outputs = []
        layers = (
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
        )
        for cross, own, feed in zip(*layers, strict=True):
            x = feed(own(cross(x, seen, places, seen_places), places))
            outputs.append(x)
        return outputs

    def encoded(self, frame_queries: Float[Tensor, "t m c"]) -> Float[Tensor, "tm c"]:
        """The object encoder: all frame queries of a clip look at each other."""
        x: Tensor = self.input_proj_dec(frame_queries).flatten(0, 1)
        for own, feed in zip(self.enc_self_attn, self.enc_ffn, strict=True):
            x = feed(own(x))
        return x

    def recalled(self, memory: ObjectMemory | None) -> Float[Tensor, "n c"]:
        """The object queries with which a clip begins: each has read its own memory."""
        if memory is None:
            first: Tensor = self.query_feat.weight + self.pre_query_embed_v(self.query_feat.weight)
            return first
        asked = self.pre_query_embed_k(memory.queries)
        weights = torch.einsum("nc,tnc->tn", asked, memory.keys).softmax(0)
        read = torch.einsum("tn,tnc->nc", weights, memory.values)
        begun: Tensor = memory.queries + self.pre_query_embed_v(memory.queries) + read
        return begun

    def remembered(self, memory: ObjectMemory | None, queries: Float[Tensor, "n c"]) -> ObjectMemory:
        """After a clip, of which `queries` are the decoder's last output, before its norm."""
        normed = self.decoder_norm(queries)
        keys, values = self.pre_memory_embed_k(normed)[None], self.pre_memory_embed_v(normed)[None]
        if memory is not None:
            keys, values = torch.cat([memory.keys, keys]), torch.cat([memory.values, values])
        return ObjectMemory(queries, keys, values)

    def classify(self, normed: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b n k1"]:
        """Class logits, the last class being no object."""
        logits: Tensor = self.class_embed(normed)
        return logits

    def pixels(self, features: Float[Tensor, "t c h w"]) -> Float[Tensor, "t d h w"]:
        """The segmenter's pixel features, made into its own."""
        own: Tensor = self.vita_mask_features(features)
        return own

    def masks(self, normed: Float[Tensor, "n c"], pixels: Float[Tensor, "d h w"]) -> Float[Tensor, "n h w"]:
        """Mask logits in one frame, of which `pixels` are its own features."""
        return torch.einsum("nd,dhw->nhw", self.mask_embed(normed), pixels)
