"""RoCoVIS's equations, pixel by pixel and head by head: slow, and nothing shared with src but the numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor


def foreground(logits: Tensor) -> Tensor:
    """1 - p(no object) of each query (n k1)."""
    values = []
    for row in logits:
        exps = [math.exp(float(x) - float(row.max())) for x in row]
        values.append(1 - exps[-1] / sum(exps))
    return torch.tensor(values, dtype=logits.dtype)


def suppress(masks: Tensor, trust: Tensor) -> Tensor:
    """Masks (n h w) of queries that are not matched are set to zero."""
    return torch.stack([m * float(t) for m, t in zip(masks, trust, strict=True)])


def downsample(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean of the pixels of each block; sides that are multiples."""
    n, h, w = masks.shape
    dh, dw = h // size[0], w // size[1]
    out = masks.new_zeros(n, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            out[:, y, x] = masks[:, y * dh : (y + 1) * dh, x * dw : (x + 1) * dw].mean((1, 2))
    return out


def spatial_identity(queries: Tensor, masks: Tensor, background: Tensor) -> Tensor:
    """Z' (c h w): of each pixel the sum of the queries whose probability is a half or more, or B."""
    n, h, w = masks.shape
    out = queries.new_zeros(queries.shape[1], h, w)
    for y in range(h):
        for x in range(w):
            there = [i for i in range(n) if masks[i, y, x] >= 0.5]
            out[:, y, x] = sum(masks[i, y, x] * queries[i] for i in there) if there else background
    return out


def positions(h: int, w: int, c: int) -> Tensor:
    """2-D sine positions (h w c) of Mask2Former: y in the first half of the channels."""
    out = torch.zeros(h, w, c)
    half = c // 2
    for i in range(half):
        wave = 10000 ** (2 * (i // 2) / half)
        turn = math.sin if i % 2 == 0 else math.cos
        for y in range(h):
            out[y, :, i] = turn((y + 1) / (h + 1e-6) * 2 * math.pi / wave)
        for x in range(w):
            out[:, x, half + i] = turn((x + 1) / (w + 1e-6) * 2 * math.pi / wave)
    return out


def cross_attention(part: torch.nn.Module, query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """CA(query, key, value) of maps (c h w), those of several frames one after the other; with a module's weights."""

    def row(x: Tensor) -> Tensor:
        return x.permute(1, 2, 0).reshape(-1, x.shape[0])

    def normed(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias

    c, h, w = query.shape
    place = positions(h, w, c).reshape(-1, c)
    q = (normed(row(query), part.norm) + place) @ part.query_proj.weight.T + part.query_proj.bias
    k = torch.cat([(normed(row(x), part.norm) + place) @ part.key_proj.weight.T for x in keys])
    v = torch.cat([normed(row(x), part.value_norm) @ part.value_proj.weight.T + part.value_proj.bias for x in values])
    wide = q.shape[1] // part.heads
    found = []
    for n in range(part.heads):
        at = slice(n * wide, (n + 1) * wide)
        found.append(nnf.softmax(q[:, at] @ k[:, at].T / math.sqrt(wide), 1) @ v[:, at])
    out = torch.cat(found, 1) @ part.out_proj.weight.T + part.out_proj.bias
    return out.T.reshape(c, h, w)


def to_features(part: torch.nn.Module, identity: Tensor) -> Tensor:
    """The linear map where queries and features differ in width."""
    if not hasattr(part.to_features, "weight"):
        return identity
    return torch.einsum("cq,qhw->chw", part.to_features.weight, identity)


def first(part: torch.nn.Module, features: Tensor) -> Tensor:
    """F'_0 = CA(F_0, F_0, F_0 + E)."""
    _, h, w = features.shape
    e = part.background[:, None, None].expand(-1, h, w)
    return cross_attention(part, features, [features], [features + to_features(part, e)])


def propagated(
    part: torch.nn.Module, features: Tensor, before: list[tuple[Tensor, Tensor, Tensor, Tensor]], kept: int
) -> Tensor:
    """F'_t = CA(F_t, F_{t-1}, F_{t-1} + Z'_{t-1}) over the last `kept` of (features, queries, masks, trust)."""
    keys, values = [], []
    for seen, queries, masks, trust in before[-kept:]:
        small = downsample(suppress(masks, trust), tuple(seen.shape[1:]))
        identity = spatial_identity(queries, small, part.background)
        keys.append(seen)
        values.append(seen + to_features(part, identity))
    return cross_attention(part, features, keys, values)


def video(net, images: Tensor, trusts: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Every frame's class and mask logits: Q_t = D(Q_{t-1}, P(F_t + F'_t)), one level, by Mask2Former's own module
    whose learnt queries are overwritten.
    """
    parts, own = net.segmenter.model, net.segmenter.model.transformer_module.queries_features.weight
    learnt, answers, before = own.detach().clone(), [], []
    [part] = net.propagation
    for image, trust in zip(images, trusts, strict=True):
        features = list(parts.pixel_level_module.encoder(image[None]).feature_maps)
        maps = features[-1][0]
        new = propagated(part, maps, before, net.settings.frames) if before else first(part, maps)
        decoded = parts.pixel_level_module.decoder([*features[:-1], (maps + new)[None]])
        answer = parts.transformer_module(decoded.multi_scale_features, decoded.mask_features)
        queries, masks = answer.last_hidden_state[0], answer.masks_queries_logits[-1][0]
        logits = net.segmenter.class_predictor(answer.intermediate_hidden_states[-1][:, 0])
        answers.append((logits, masks))
        before.append((maps, queries, masks.sigmoid(), trust))
        own.data.copy_(queries)
    own.data.copy_(learnt)
    return answers


def inside(logits: Tensor, foreground: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels whose probability, times the foreground probability, is above a half (n h w)."""
    full = nnf.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    return full.sigmoid() * foreground[:, None, None] > 0.5
