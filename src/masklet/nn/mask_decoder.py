"""SAM 2's mask decoder (Ravi et al. 2024, section 4 and appendix D): tokens and cells look at each other, then every
mask token says what belongs to its mask.

Names and shapes of parameters are those of transformers' `Sam2VideoMaskDecoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from masklet.nn.sam2_layers import ChannelNorm, MultiHeadAttention, Perceptron

BLOCKS = 2
HYPOTHESES = 3
DELTA = 0.05  # a mask is stable where few pixels have logits as near to 0:
STABLE = 0.98  # of those above -`DELTA`, the share above `DELTA`


class TwoWayBlock(nn.Module):
    """Tokens look at the cells, then the cells at the tokens; before it, the tokens at each other by `self_attn`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(width, width)
        self.layer_norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = MultiHeadAttention(width, width // 2)
        self.layer_norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width, hidden, width, between=0)
        self.layer_norm3, self.layer_norm4 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross_attn_image_to_token = MultiHeadAttention(width, width // 2)

    def forward(
        self,
        tokens: Float[Tensor, "b t c"],
        cells: Float[Tensor, "b p c"],
        marks: Float[Tensor, "b t c"],
        places: Float[Tensor, "1 p c"],
    ) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b p c"]]:
        """Tokens and cells after the block.

        Args:
            tokens: after they looked at each other.
            cells: of the image.
            marks: tell the tokens apart, as `places` do with the cells.
            places: position encodings of the cells.
        """
        tokens, placed = self.layer_norm1(tokens), cells + places
        tokens = self.layer_norm2(tokens + self.cross_attn_token_to_image(tokens + marks, placed, cells))
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        cells = self.layer_norm4(cells + self.cross_attn_image_to_token(placed, tokens + marks, tokens))
        return tokens, cells


class TwoWayTransformer(nn.Module):
    """Tokens and cells, which learn of each other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, hidden) for _ in range(BLOCKS))
        self.final_attn_token_to_image = MultiHeadAttention(width, width // 2)
        self.layer_norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, marks: Float[Tensor, "b t c"], cells: Float[Tensor, "b p c"], places: Float[Tensor, "1 p c"]
    ) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b p c"]]:
        """What becomes of the tokens, which begin as `marks`, and of the cells, which are at `places`."""
        first, *others = cast("list[TwoWayBlock]", list(self.layers))
        tokens, cells = first(first.self_attn(marks, marks, marks), cells, marks, places)
        for layer in others:
            marked = tokens + marks
            tokens, cells = layer(tokens + layer.self_attn(marked, marked, tokens), cells, marks, places)
        seen = self.final_attn_token_to_image(tokens + marks, cells + places, cells)
        return self.layer_norm_final_attn(tokens + seen), cells


class Sam2MaskDecoder(nn.Module):
    """Masks of an object, of cells with `width` channels; `hidden` are those inside of the blocks.

    `dynamic_multimask_via_stability`: a single mask that is not stable gives way to the best of three, but in training.
    """

    dynamic_multimask_via_stability = True

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        masks = HYPOTHESES + 1  # the first is the single one
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(masks, width)
        self.transformer = TwoWayTransformer(width, hidden)
        self.upscale_conv1 = nn.ConvTranspose2d(width, width // 4, 2, 2)
        self.upscale_conv2 = nn.ConvTranspose2d(width // 4, width // 8, 2, 2)
        self.upscale_layer_norm = ChannelNorm(width // 4)
        self.output_hypernetworks_mlps = nn.ModuleList(Perceptron(width, width, width // 8) for _ in range(masks))
        self.iou_prediction_head = Perceptron(width, width, masks)
        self.obj_score_token = nn.Embedding(1, width)
        self.pred_obj_score_head = Perceptron(width, width, 1)

    def forward(
        self,
        image_embeddings: Float[Tensor, "b c h w"],
        image_positional_embeddings: Float[Tensor, "1 c h w"],
        sparse_prompt_embeddings: Float[Tensor, "b 1 s c"],
        dense_prompt_embeddings: Float[Tensor, "#b c h w"],
        multimask_output: bool,
        high_resolution_features: Sequence[Tensor],
    ) -> tuple[Float[Tensor, "b 1 k h4 w4"], Float[Tensor, "b 1 k"], Float[Tensor, "b 1 k c"], Float[Tensor, "b 1 1"]]:
        """Mask logits, predicted mask IoU and tokens of each mask, and the object score.

        Args:
            image_embeddings: cells, conditioned on each object's memory.
            image_positional_embeddings: where they are.
            sparse_prompt_embeddings: tokens of each object's points.
            dense_prompt_embeddings: tokens of each object's mask prompt.
            multimask_output: three hypotheses; else one mask.
            high_resolution_features: of the image, at four times and twice the cells' resolution.
        """
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        marks = torch.cat([own.expand(len(image_embeddings), -1, -1), sparse_prompt_embeddings[:, 0]], dim=1)
        cells = (image_embeddings + dense_prompt_embeddings).flatten(2).transpose(1, 2)
        places = image_positional_embeddings.flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(marks, cells, places)
        tokens = tokens[:, : len(own)]
        logits = self._draw(tokens[:, 2:], cells.transpose(1, 2).view_as(image_embeddings), *high_resolution_features)
        quality = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        chosen = slice(1, None) if multimask_output else slice(1)
        masks = logits[:, chosen], quality[:, chosen]
        if self.dynamic_multimask_via_stability and not (multimask_output or self.training):
            masks = prefer_stable(logits, quality)
        presence = self.pred_obj_score_head(tokens[:, 0])
        return masks[0][:, None], masks[1][:, None], tokens[:, 2:][:, None, chosen], presence[:, None]

    def _draw(
        self,
        tokens: Float[Tensor, "b k c"],
        cells: Float[Tensor, "b c h w"],
        fine: Float[Tensor, "#b e h4 w4"],
        medium: Float[Tensor, "#b d h2 w2"],
    ) -> Float[Tensor, "b k h4 w4"]:
        """The logits of each token's mask."""
        x = nnf.gelu(self.upscale_layer_norm(self.upscale_conv1(cells) + medium))
        x = nnf.gelu(self.upscale_conv2(x) + fine)
        weights = [mlp(token) for mlp, token in zip(self.output_hypernetworks_mlps, tokens.unbind(1), strict=True)]
        return torch.einsum("bke,beyx->bkyx", torch.stack(weights, dim=1), x)


def prefer_stable(
    logits: Float[Tensor, "b k h w"], quality: Float[Tensor, "b k"]
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1"]]:
    """The first mask and its quality, where it is stable; else of the others the one of the best quality."""
    sure, maybe = ((logits[:, 0] > limit).flatten(1).sum(1).float() for limit in (DELTA, -DELTA))
    stable = (maybe == 0) | (sure / maybe >= STABLE)
    row = torch.where(stable, 0, quality[:, 1:].argmax(1) + 1)[:, None]
    return logits.take_along_dim(row[..., None, None], 1), quality.take_along_dim(row, 1)
