"""SAM 2's networks with their weights, by name, folder or file; the authors' own checkpoints are converted on load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from masklet.core.errors import InputError
from masklet.weights.catalog import CONFIG, TENSORS
from masklet.weights.reading import locate_weights, read_network_config, read_tensors
from masklet.weights.strict import format_keys, load_exactly

if TYPE_CHECKING:
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, Sam2VideoConfig, Sam2VideoModel

    Network = Sam2VideoModel | EdgeTamVideoModel

EDGETAM = "edgetam_video"
KINDS = {"sam2_video": "Sam2Video", EDGETAM: "EdgeTamVideo"}  # a config's model_type: transformers' classes


@dataclass(frozen=True)
class HieraTrunk:
    """What a checkpoint's shapes do not tell of its Hiera trunk."""

    heads: int
    global_blocks: tuple[int, ...]
    windows: tuple[int, ...]


# By channels and blocks per stage; facts from the official configurations.
TRUNKS: Mapping[tuple[int, tuple[int, ...]], HieraTrunk] = {
    (96, (1, 2, 7, 2)): HieraTrunk(1, (5, 7, 9), (8, 4, 14, 7)),  # tiny
    (96, (1, 2, 11, 2)): HieraTrunk(1, (7, 10, 13), (8, 4, 14, 7)),  # small
    (112, (2, 3, 16, 3)): HieraTrunk(2, (12, 16, 20), (8, 4, 14, 7)),  # base-plus
    (144, (2, 6, 36, 4)): HieraTrunk(2, (23, 33, 43), (8, 4, 16, 8)),  # large
}

Rule = tuple[re.Pattern[str], str]

# From an official key to transformers', one after the other.
RULES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_embed$", "no_memory_embedding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
        (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
        (r"((?:pointer_proj|_head|_mlps\.\d+)\.)layers\.0\.", r"\1proj_in."),
        (r"((?:pointer_proj|_head|_mlps\.\d+)\.)layers\.1\.", r"\1layers.0."),
        (r"((?:pointer_proj|_head|_mlps\.\d+)\.)layers\.2\.", r"\1proj_out."),
        (r"\.norm(\d?|_final_attn)\.", r".layer_norm\1."),
        (r"^(memory_attention|mask_decoder)(.*)\.out_proj\.", r"\1\2.o_proj."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"\.pix_feat_proj\.", ".feature_projection."),
        (r"\.fuser\.", ".memory_fuser."),
        (r"(memory_fuser\..*)\.gamma$", r"\1.scale"),
        (r"\.dwconv\.", ".depthwise_conv."),
        (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
        (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
        (r"\.point_embeddings\.(\d)\.weight$", r".point_embed.weight[\1]"),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    )
)
# EdgeTAM's, to be followed by those above.
EDGETAM_RULES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"^image_encoder\.trunk\.body\.", "vision_encoder.backbone.timm_model."),
        (r"^(memory_attention\..*)\.linear1\.", r"\1.mlp.up_proj."),
        (r"^(memory_attention\..*)\.linear2\.", r"\1.mlp.down_proj."),
        (r"^spatial_perceiver\.latents$", "spatial_perceiver.latents_1d"),
        (r"\.attn\.norm_x\.", ".layer_norm_input."),
        (r"\.attn\.norm_latents\.", ".layer_norm_latents."),
        (r"^(spatial_perceiver\..*)\.self_attn\.norm\.", r"\1.layer_norm_self."),
        (r"^(spatial_perceiver\..*)\.self_attn\.", r"\1.self_attention."),
        (r"^(spatial_perceiver\..*)\.attn\.", r"\1.cross_attention."),
        (r"attention\.to_q\.", "attention.q_proj."),
        (r"attention\.to_out\.", "attention.o_proj."),
        (r"\.(self_)?ff\.0\.", r".\1mlp.layer_norm."),
        (r"\.(self_)?ff\.1\.", r".\1mlp.up_proj."),
        (r"\.(self_)?ff\.3\.", r".\1mlp.down_proj."),
    )
)
LATENTS = "spatial_perceiver.latents"  # of EdgeTAM alone
MASK_LAYER = re.compile(r"\.mask_downsampler\.encoder\.(\d+)\.")  # in threes: convolution, norm, activation
PROMPT_PLACES, IMAGE_PLACES = "prompt_encoder.shared_embedding", "shared_image_embedding"
TRUNK = "image_encoder.trunk."


def build_sam2(name: str | Path, config: Sam2VideoConfig | None = None) -> tuple[Network, Mapping[str, str]]:
    """A network with its weights (float32, eval, no gradients, CPU), and {file: sha256} of what it was made from.

    Args:
        name: a name of ours (`sam2.1-tiny`), a hub id, a folder with config.json and model.safetensors as
            transformers saves them, or a file of official weights (.pt, or .safetensors with the same keys).
            Nothing is fetched.
        config: of an official file; None: told from the shapes of its tensors.

    Raises InputError where the weights are not on this machine, damaged, of another network or not what they must be.
    """
    path, files = locate_weights(name)
    if path.name == TENSORS and path.with_name(CONFIG).is_file():
        net = fill_sam2(read_sam2_config(path.with_name(CONFIG)), read_tensors(path), path)
    else:
        state = read_tensors(path)
        net = fill_sam2(config or infer_sam2_config(state, path), convert_sam2_state(state), path)
    return net, files


# -- official checkpoints


def rename_sam2_key(key: str, rules: Sequence[Rule] = RULES) -> str:
    """transformers' name of an official parameter; a row of a tensor as `name[row]`."""
    for pattern, to in rules:
        key = pattern.sub(to, key)
    return MASK_LAYER.sub(_rename_mask_layer, key)


def _rename_mask_layer(found: re.Match[str]) -> str:
    """Four groups of convolution, norm and activation, then a last convolution."""
    layer, part = divmod(int(found[1]), 3)
    name = "final_conv" if layer == 4 else f"layers.{layer}.{('conv', 'layer_norm')[part]}"
    return f".mask_downsampler.{name}."


def convert_sam2_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors under transformers' names; rows of one tensor are put together."""
    rules = EDGETAM_RULES + RULES if LATENTS in state else RULES
    out: dict[str, Tensor] = {}
    rows: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        name, _, row = rename_sam2_key(key, rules).removesuffix("]").partition("[")
        if name.endswith(".to_kv.weight"):
            for part, half in zip("kv", value.chunk(2), strict=True):
                out[name.replace("to_kv", f"{part}_proj")] = half
        elif row:
            rows.setdefault(name, {})[int(row)] = value
        else:
            out[name] = value
    for name, values in rows.items():
        out[name] = torch.cat([values[row] for row in sorted(values)])
    shared = out.get(f"{PROMPT_PLACES}.positional_embedding")
    return out if shared is None else {**out, f"{IMAGE_PLACES}.positional_embedding": shared.clone()}


def infer_sam2_config(state: Mapping[str, Tensor], path: Path) -> Sam2VideoConfig | EdgeTamVideoConfig:
    """The config of an official checkpoint, from its keys and shapes; its image size is 1024, which they do not tell.

    Raises InputError where it is of another network.
    """
    from transformers import (
        EdgeTamVideoConfig,
        EdgeTamVisionConfig,
        Sam2HieraDetConfig,
        Sam2VideoConfig,
        Sam2VisionConfig,
    )

    if LATENTS in state:
        return EdgeTamVideoConfig(
            vision_config=EdgeTamVisionConfig(),
            enable_temporal_pos_encoding_for_object_pointers=False,
            enable_occlusion_spatial_embedding=False,
        )
    if f"{TRUNK}pos_embed" not in state or "maskmem_tpos_enc" not in state:
        raise InputError(f"{path}: not an official SAM 2 checkpoint (its keys begin with {format_keys(state)})")
    background = state[f"{TRUNK}pos_embed"]
    widths, blocks = infer_stages(state)
    trunk = TRUNKS.get((widths[0], blocks))
    if trunk is None:
        raise InputError(
            f"{path}: a SAM 2 trunk of {widths[0]} channels with {blocks} blocks a stage is none of tiny, small, "
            "base-plus and large; save it as a transformers folder, which has a config"
        )
    hiera = Sam2HieraDetConfig(
        hidden_size=widths[0],
        num_attention_heads=trunk.heads,
        blocks_per_stage=list(blocks),
        embed_dim_per_stage=list(widths),
        num_attention_heads_per_stage=[trunk.heads * 2**s for s in range(len(blocks))],
        window_size_per_stage=list(trunk.windows),
        global_attention_blocks=list(trunk.global_blocks),
        window_positional_embedding_background_size=list(background.shape[2:]),
    )
    return Sam2VideoConfig(
        vision_config=Sam2VisionConfig(backbone_config=hiera, backbone_channel_list=list(widths[::-1])),
        enable_temporal_pos_encoding_for_object_pointers="obj_ptr_tpos_proj.weight" in state,  # 2.1 has both
        enable_occlusion_spatial_embedding="no_obj_embed_spatial" in state,
    )


def infer_stages(state: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and number of blocks of each stage of the trunk: a block that projects begins the next stage."""
    found = {int(m[1]) for key in state if (m := re.match(rf"{re.escape(TRUNK)}blocks\.(\d+)\.", key))}
    projections = {b: state.get(f"{TRUNK}blocks.{b}.proj.weight") for b in sorted(found)}
    starts = [0, *(b for b, p in projections.items() if p is not None), len(found)]
    widths = (state[f"{TRUNK}pos_embed"].shape[1], *(len(p) for p in projections.values() if p is not None))
    return widths, tuple(b - a for a, b in pairwise(starts))


# -- networks


def read_sam2_config(path: Path) -> Any:
    """The config in a folder that transformers saved. Raises InputError where it is damaged or of another network."""
    import transformers

    told = read_network_config(path)
    kind = told.get("model_type")
    if kind not in KINDS:
        raise InputError(f"{path}: of a network {kind!r}; this needs {' or '.join(KINDS)}")
    theta = told.pop("memory_attention_rope_theta", None)  # where the hub's files, of transformers 4, have it
    if theta is not None:
        told["rope_parameters"] = {"rope_theta": theta, **(told.get("rope_parameters") or {})}
    return getattr(transformers, f"{KINDS[kind]}Config").from_dict(told)


def fill_sam2(config: Any, state: Mapping[str, Tensor], path: Path) -> Network:
    """A network of a transformers `config` with exactly the tensors `state`: float32, eval, no gradients.

    Raises InputError, which names the file `path`, where the tensors are not the network's own.
    """
    net = build_empty_sam2(config)
    return load_exactly(net, state, path, f"this {type(net).__name__}")


def build_empty_sam2(config: Any) -> Network:
    """The network with its constants, and parameters that hold nothing yet: making random ones takes longer."""
    import transformers
    from transformers.initialization import no_init_weights

    from masklet.models.sam2.edgetam import build_edgetam

    with no_init_weights():
        net: Network = build_edgetam(config) if config.model_type == EDGETAM else transformers.Sam2VideoModel(config)
    return net
