"""A slim SAM 3 with drawn weights: detector, tracker and both necks, as transformers saves them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from masklet.models.transformers_output import drop_transformers_output

SIDE, PATCH, HIDDEN, MEMORY = 112, 14, 128, 64  # transformers has no other size of a memory
FEW = {"hidden_size": HIDDEN, "num_attention_heads": 2, "intermediate_size": 32, "dropout": 0.0}
WORDS = 57  # of the toy vocabulary of tests/models/test_text.py
TEXT = {
    "vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


def build_vision_config(side: int = SIDE) -> dict[str, Any]:
    """A trunk of two blocks, one of which looks at all."""
    grid = side // PATCH
    vit = {
        "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": side, "patch_size": PATCH, "window_size": 4, "global_attn_indexes": [1],
        "pretrain_image_size": 56,
    }  # fmt: skip
    sizes = [[grid * n] * 2 for n in (4, 2, 1)]
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": vit,
        "fpn_hidden_size": HIDDEN,
        "backbone_feature_sizes": sizes,
    }


def build_detector_config(side: int = SIDE, **more: Any) -> dict[str, Any]:
    """The detector's: few queries, one or two layers of each."""
    return {
        "vision_config": build_vision_config(side),
        "text_config": {"model_type": "clip_text_model", **TEXT, "bos_token_id": 55, "eos_token_id": 56},
        "geometry_encoder_config": {**FEW, "num_layers": 1},
        "detr_encoder_config": {**FEW, "num_layers": 1},
        "detr_decoder_config": {**FEW, "num_layers": 2, "num_queries": 12},
        "mask_decoder_config": {"hidden_size": HIDDEN, "num_attention_heads": 2, "num_upsampling_stages": 2},
        **more,
    }


def build_tracker_config(side: int = SIDE) -> dict[str, Any]:
    """The tracker's: SAM 2's shapes, narrower."""
    return {
        "vision_config": build_vision_config(side),
        "prompt_encoder_config": {"hidden_size": HIDDEN, "image_size": side, "patch_size": PATCH},
        "mask_decoder_config": {"hidden_size": HIDDEN, "mlp_dim": 64, "iou_head_hidden_dim": HIDDEN},
        "image_size": side,
        "memory_attention_hidden_size": HIDDEN,
        "memory_attention_num_layers": 2,
        "memory_attention_feed_forward_hidden_size": 48,
        "memory_attention_rope_feat_sizes": [side // PATCH] * 2,
        "memory_encoder_hidden_size": HIDDEN,
        "memory_encoder_output_channels": MEMORY,
        "mask_downsampler_embed_dim": HIDDEN,
        "memory_fuser_embed_dim": HIDDEN,
        "memory_fuser_intermediate_dim": 48,
    }


@cache
def draw_small_sam3() -> Any:
    """transformers' whole model, `Sam3VideoModel`, with drawn weights, all of them at work."""
    from transformers import Sam3Config, Sam3TrackerVideoConfig, Sam3VideoConfig, Sam3VideoModel

    config = Sam3VideoConfig(
        detector_config=Sam3Config(**build_detector_config()),
        tracker_config=Sam3TrackerVideoConfig(**build_tracker_config()),
        low_res_mask_size=4 * SIDE // PATCH,
    )
    with drop_transformers_output():
        net = Sam3VideoModel(config).eval().requires_grad_(False)
    draw_weights(net, 7)
    net.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias += 2
    for layer, gain in zip(net.tracker_neck.fpn_layers, (0.03, 0.03, 0.2, 1.0), strict=True):
        layer.proj2.weight.mul_(gain)  # else the picture outshouts the memory
    for head in net.tracker_model.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.mul_(0.3)  # logits of about 1
    return net


def build_whole_tracker() -> Any:
    """The slim tracker with its image encoder, as transformers' own session takes it: a `Sam3TrackerVideoModel`."""
    from transformers import Sam3TrackerVideoModel

    whole = draw_small_sam3()
    net = Sam3TrackerVideoModel(whole.config.tracker_config).eval().requires_grad_(False)
    neck, trunk = whole.tracker_neck.state_dict(), whole.detector_model.vision_encoder.backbone.state_dict()
    state = {f"vision_encoder.neck.{k}": v for k, v in neck.items()}
    state |= {f"vision_encoder.backbone.{k}": v for k, v in trunk.items()}
    net.load_state_dict({**whole.tracker_model.state_dict(), **state})
    return net


def draw_weights(net: nn.Module, seed: int) -> None:
    """Fills all of a network's parameters with noise that neither dies out nor explodes."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if not value.is_floating_point() or "running" in name:
            continue
        noise = torch.randn(value.shape, generator=draw)
        if value.ndim > 1:
            value.copy_(noise * (0.5 if "embed" in name or "query" in name else 1.0 / value[0].numel() ** 0.5))
        else:
            value.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")) + name.endswith("scale"))


def save_small_sam3(folder: Path, net: Any = None, config: Any = None) -> Path:
    """The slim model in a `folder`, as the hub has the large one: config, tensors by official key, a tokenizer."""
    from models.test_text import clip_letters
    from transformers import AutoTokenizer

    net = draw_small_sam3() if net is None else net
    clip_letters.__wrapped__(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (config or net.config).save_pretrained(folder)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, folder / "model.safetensors")
    return folder
