"""transformers' SAM 2 at nano's size: what `NanoNetwork` is measured against, and what tests of SAM 2 train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from masklet.models.nano.network import EXTENT, HIDDEN, MEMORY, NanoNetwork, NanoSettings
from masklet.models.transformers_output import drop_transformers_output

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig


def build_small_config(settings: NanoSettings) -> Sam2VideoConfig:
    """The config with which transformers builds the SAM 2 video network of these settings."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    side = settings.side
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


def rebuild_with_transformers(net: NanoNetwork, settings: NanoSettings) -> Any:
    """A nano network as transformers' model, with its weights: nano's two parts are exchanged in it."""
    from transformers import Sam2VideoModel

    with drop_transformers_output():
        twin: Any = Sam2VideoModel(build_small_config(settings))
    twin.vision_encoder, twin.hints = net.vision_encoder, net.hints
    twin.mask_decoder.conv_s0 = twin.mask_decoder.conv_s1 = nn.Identity()  # the neck's maps are that narrow already
    twin.memory_attention.position_ids = twin.memory_attention.position_ids * (EXTENT / (settings.side // 16))
    twin.load_state_dict(net.state_dict())
    return twin.eval().requires_grad_(False)
