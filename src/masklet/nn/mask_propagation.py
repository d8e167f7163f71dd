"""RoCoVIS's instance mask propagation (Heo et al.): where every instance was calibrates the pixels of the next frame.

At the entrance of the pixel decoder a frame's features look at those of the last frames (keys), to whose values each
pixel's spatial identity was added: the sum of the queries, weighted by their masks. Readings of the open points:
docs/rocovis.md.
"""

from __future__ import annotations

from functools import lru_cache
from math import pi

import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float
from torch import Tensor, nn

ASSIGNED = 0.5  # mask probability from which on a pixel is an object's
MATCHED = 0.5  # foreground probability above which a query counts as matched when nobody knows the truth


def compute_foreground_probability(class_logits: Float[Tensor, "*b k1"]) -> Float[Tensor, "*b"]:
    """1 - p(no object), the last class being no object."""
    return 1 - class_logits.softmax(-1)[..., -1]


def estimate_query_trust(class_logits: Float[Tensor, "*b k1"]) -> Float[Tensor, "*b"]:
    """Which queries are trusted at inference: 1 or 0."""
    return (compute_foreground_probability(class_logits) > MATCHED).to(class_logits.dtype)


def weigh_masks_by_trust(masks: Float[Tensor, "b n h w"], trust: Float[Tensor, "b n"]) -> Float[Tensor, "b n h w"]:
    """Mask probabilities times how far each query is trusted: those of queries without an object are zero (UVLA++)."""
    return masks * trust[..., None, None]


def resize_by_area(masks: Float[Tensor, "b n h w"], size: tuple[int, int]) -> Float[Tensor, "b n h2 w2"]:
    """The mean probability of what lies in each pixel of a coarser level."""
    return nnf.interpolate(masks, size=size, mode="area")


def find_assigned_pixels(masks: Float[Tensor, "b n h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels that an object has: those where the largest probability is a half or more."""
    return masks.amax(1) >= ASSIGNED


def compute_spatial_identity(
    queries: Float[Tensor, "b n c"], masks: Float[Tensor, "b n h w"]
) -> Float[Tensor, "b c h w"]:  # RoCoVIS: Z = Q^T M
    """Each pixel gets the sum of the queries, weighted by their mask probabilities. Those below a half are left out,
    so a pixel's sum is empty exactly where it is not assigned.
    """
    return torch.einsum("bnc,bnhw->bchw", queries, masks * (masks >= ASSIGNED))


def add_background_identity(
    identity: Float[Tensor, "b c h w"], background: Float[Tensor, " c"], assigned: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:  # RoCoVIS eq. 2: Z' = Z + B 1{no object}
    """The `identity` of each pixel, with the `background` vector added where it is not `assigned` to an object."""
    return identity + background[:, None, None] * ~assigned[:, None]


def fill_with_background(
    background: Float[Tensor, " c"], features: Float[Tensor, "b d h w"]
) -> Float[Tensor, "b c h w"]:
    """The first frame's identity E: nothing has been seen, all is background."""
    b, _, h, w = features.shape
    return background[None, :, None, None].expand(b, -1, h, w)


@lru_cache(maxsize=8)
def encode_sine_positions(size: tuple[int, int], width: int, device: torch.device) -> Float[Tensor, "hw c"]:
    """2-D sine positions of a map of `size` (h, w) as Mask2Former has them, on `device`: half of `width` channels for
    y, half for x, each over one turn.
    """
    half = width // 2
    steps = torch.arange(half, device=device).div(2, rounding_mode="floor")
    wavelength = 10000 ** (2 * steps / half)
    parts = []
    for length in size:
        angle = (torch.arange(1, length + 1, device=device) / (length + 1e-6) * 2 * pi)[:, None] / wavelength
        parts.append(torch.where(torch.arange(half, device=device) % 2 == 0, angle.sin(), angle.cos()))
    y, x = parts
    return torch.cat([y[:, None].expand(-1, len(x), -1), x[None].expand(len(y), -1, -1)], -1).flatten(0, 1)


def flatten_to_tokens(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hw c"]:
    """The pixels of feature maps as tokens, row by row."""
    return maps.flatten(2).transpose(1, 2)


class MaskPropagation(nn.Module):
    """The cross-attention CA(F_t, F_{t-1}, F_{t-1} + Z') at one level of the backbone's features.

    Pre-norm; 2-D sine positions on queries and keys, none on values. The output projection begins at zero, so that a
    segmenter that was trained on images is unchanged at first.
    """

    def __init__(self, channels: int, query_width: int, width: int = 256, heads: int = 8) -> None:
        """
        Args:
            channels: of the level's features; a multiple of 4.
            query_width: of the object queries. Where it differs from `channels`, a linear map takes identities there.
            width: of the attention; a multiple of `heads`.
        """
        super().__init__()
        self.heads = heads
        self.background = nn.Parameter(torch.randn(query_width) * 0.02)  # B
        same = query_width == channels
        self.to_features = nn.Identity() if same else nn.Linear(query_width, channels, bias=False)
        self.norm, self.value_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query_proj = nn.Linear(channels, width)
        self.key_proj = nn.Linear(channels, width, bias=False)  # the softmax would not feel a bias
        self.value_proj = nn.Linear(channels, width)
        self.out_proj = nn.Linear(width, channels)
        nn.init.zeros_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, features: Float[Tensor, "b c h w"], keys: Float[Tensor, "b m e"], values: Float[Tensor, "b m e"]
    ) -> Float[Tensor, "b c h w"]:
        """F'_t, which is added to F_t: what the pixels of `features` find in frames made into `keys` and `values`."""
        queries = self.query_proj(self._placed(features))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (queries, keys, values))
        found = nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(found)
        return out.transpose(1, 2).reshape(features.shape)

    def keys(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hw e"]:
        """What is looked at, in the attention's width: kept instead of the features, it is smaller."""
        keys: Tensor = self.key_proj(self._placed(features))
        return keys

    def values(self, features: Float[Tensor, "b c h w"], identity: Float[Tensor, "b q h w"]) -> Float[Tensor, "b hw e"]:
        """What is found there: F + Z'."""
        values: Tensor = self.value_proj(
            self.value_norm(flatten_to_tokens(features) + self.to_features(flatten_to_tokens(identity)))
        )
        return values

    def first_values(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hw e"]:
        """The first frame's: F_0 + E."""
        return self.values(features, fill_with_background(self.background, features))

    def identity(
        self, queries: Float[Tensor, "b n q"], masks: Float[Tensor, "b n h w"], size: tuple[int, int]
    ) -> Float[Tensor, "b q h2 w2"]:
        """Z' at the level's `size` (h, w): spatial identities of `queries` by their `masks` (probabilities, already
        weighed by trust), and the background's.
        """
        small = resize_by_area(masks, size)
        return add_background_identity(
            compute_spatial_identity(queries, small), self.background, find_assigned_pixels(small)
        )

    def _placed(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hw c"]:
        h, w = features.shape[2:]
        normed: Tensor = self.norm(flatten_to_tokens(features))
        return normed + encode_sine_positions((h, w), features.shape[1], features.device)
