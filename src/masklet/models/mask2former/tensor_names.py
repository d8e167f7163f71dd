"""What the tensors of a Mask2Former are called, in the official code and in transformers, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from masklet.core.errors import InputError
from masklet.weights.strict import format_keys

# -- what a checkpoint is of

MASK2FORMER, MINVIS, ONLINE, OFFLINE = "mask2former", "minvis", "dvis-online", "dvis-offline"
GENVIS, OBJECTS = "genvis", "vita_module"  # what its object encoder and decoder are called in its checkpoints
VIPSEG = 124  # classes
VIDEO = (25, 40, VIPSEG)  # classes of the data sets of video: OVIS, YouTube-VIS, VIPSeg
LOSSES = ("vita_criterion", "genvis_criterion")
HEAD, PIXELS = "sem_seg_head.predictor.", "sem_seg_head.pixel_decoder."


def infer_checkpoint_kind(state: Mapping[str, Tensor], where: str = "these weights") -> str:
    """Of what a table of tensors is: "mask2former", "minvis", "dvis-online", "dvis-offline" or "genvis".

    MinVIS has the keys of Mask2Former, and is told by the number of classes of a video data set. Raises InputError
    naming `where` for anything else.
    """
    starts = {key.split(".")[0] for key in state}
    if OBJECTS in starts:
        if f"{OBJECTS}.pre_memory_embed_k.weight" not in state or not {"backbone", "sem_seg_head"} <= starts:
            raise InputError(
                f"{where}: weights of VITA, or of GenVIS without its Mask2Former; those of GenVIS are read whole"
            )
        return GENVIS
    if starts == {"model", "class_predictor", "criterion"}:
        return MASK2FORMER
    if not {"backbone", "sem_seg_head"} <= starts:
        raise InputError(
            f"{where}: not weights of Mask2Former, MinVIS, DVIS or GenVIS (its keys begin with {format_keys(state)})"
        )
    if starts & {"refiner", "offline_tracker"}:
        if "tracker" not in starts:
            raise InputError(f"{where}: a refiner of DVIS without its tracker; give the whole checkpoint")
        return OFFLINE
    if "tracker" in starts:
        return ONLINE
    return MINVIS if len(state.get(f"{HEAD}class_embed.bias", ())) - 1 in VIDEO else MASK2FORMER


def require_kind(kind: str, wanted: str, where: str) -> None:
    """Raises InputError unless weights are of the `kind` that is `wanted`; `where` (their file) begins the message."""
    if kind != wanted:
        raise InputError(f"{where}: weights of {kind}, this needs those of {wanted}")


@dataclass(frozen=True)
class SplitCheckpoint:
    """The parts of an official checkpoint, each by its own names (of today); those that it does not have are empty."""

    segmenter: dict[str, Tensor] = field(default_factory=dict)
    tracker: dict[str, Tensor] = field(default_factory=dict)  # of DVIS
    refiner: dict[str, Tensor] = field(default_factory=dict)  # of DVIS offline
    objects: dict[str, Tensor] = field(default_factory=dict)  # of GenVIS: its object encoder and decoder


def split_checkpoint(state: Mapping[str, Tensor]) -> SplitCheckpoint:
    """Takes an official checkpoint apart. What only its losses need is left out of GenVIS's."""
    split = SplitCheckpoint()
    parts = {"tracker": split.tracker, "refiner": split.refiner, OBJECTS: split.objects}
    for key, value in state.items():
        part, _, name = rename_mask2former_key(key, EARLY).partition(".")
        if part in parts:
            parts[part][name] = value
        elif part not in LOSSES:
            split.segmenter[f"{part}.{name}"] = value
    return split


# -- names

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
ENCODER, DECODER = "model.pixel_level_module.encoder.", "model.pixel_level_module.decoder."
QUERIES = "model.transformer_module."


def _make_rules(*pairs: tuple[str, str | Callable[[re.Match[str]], str]]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), to) for pattern, to in pairs)


# From what the first official checkpoints have to what the official code has now.
EARLY = _make_rules(
    (r"^offline_tracker\.", "refiner."),
    (r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", PIXELS),
    (r"^sem_seg_head\.predictor\.static_query\.", f"{HEAD}query_feat."),
)
# From an official key to transformers', one after the other. "qkv" stands for three tensors in one.
RULES = _make_rules(
    # ResNet
    (r"^backbone\.stem\.conv1\.norm\.", f"{ENCODER}embedder.embedder.normalization."),
    (r"^backbone\.stem\.conv1\.", f"{ENCODER}embedder.embedder.convolution."),
    (r"^backbone\.res(\d)\.", lambda m: f"{ENCODER}encoder.stages.{int(m[1]) - 2}.layers."),
    (r"(\.stages\..*)\.conv(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}."),
    (r"(\.stages\..*\.(?:shortcut|layer\.\d))\.norm\.", r"\1.normalization."),
    (r"(\.stages\..*\.(?:shortcut|layer\.\d))\.weight$", r"\1.convolution.weight"),
    # Swin
    (r"^backbone\.patch_embed\.proj\.", f"{ENCODER}swin.embeddings.patch_embeddings.projection."),
    (r"^backbone\.patch_embed\.norm\.", f"{ENCODER}swin.embeddings.norm."),
    (r"^backbone\.norm(\d)\.", lambda m: f"{ENCODER}hidden_states_norms.stage{int(m[1]) + 1}."),
    (r"^backbone\.layers\.", f"{ENCODER}swin.encoder.layers."),
    (r"(\.swin\..*)\.norm1\.", r"\1.layernorm_before."),
    (r"(\.swin\..*)\.norm2\.", r"\1.layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.attn\.relative_position_bias_table$", ".attention.relative_position_bias.relative_position_bias_table"),
    # pixel decoder
    (r"^sem_seg_head\.pixel_decoder\.input_proj\.", f"{DECODER}input_projections."),
    (r"^sem_seg_head\.pixel_decoder\.mask_features\.", f"{DECODER}mask_projection."),
    (r"^sem_seg_head\.pixel_decoder\.((?:adapter|layer)_\d)\.norm\.", rf"{DECODER}\1.1."),
    (r"^sem_seg_head\.pixel_decoder\.((?:adapter|layer)_\d)\.weight$", rf"{DECODER}\1.0.weight"),
    (r"^sem_seg_head\.pixel_decoder\.transformer\.", DECODER),
    (r"(\.encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(\.encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(\.encoder\.layers\.\d+)\.linear(\d)\.", r"\1.fc\2."),
    # transformer decoder
    (
        r"^sem_seg_head\.predictor\.transformer_(self|cross)_attention_layers\.(\d+)\.norm\.",
        rf"{QUERIES}decoder.layers.\2.\1_attn_layer_norm.",
    ),
    (r"^sem_seg_head\.predictor\.transformer_self_attention_layers\.", f"{QUERIES}decoder.layers."),
    (r"(decoder\.layers\.\d+\.self_attn)\.in_proj_", r"\1.qkv."),
    (
        r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d+)\.multihead_attn\.",
        rf"{QUERIES}decoder.layers.\1.cross_attn.",
    ),
    (
        r"^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\.norm\.",
        rf"{QUERIES}decoder.layers.\1.final_layer_norm.",
    ),
    (r"^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\.linear(\d)\.", rf"{QUERIES}decoder.layers.\1.fc\2."),
    (r"^sem_seg_head\.predictor\.decoder_norm\.", f"{QUERIES}decoder.layernorm."),
    (r"^sem_seg_head\.predictor\.query_feat\.", f"{QUERIES}queries_features."),
    (r"^sem_seg_head\.predictor\.query_embed\.", f"{QUERIES}queries_embedder."),
    (r"^sem_seg_head\.predictor\.level_embed\.", f"{QUERIES}level_embed."),
    (r"^sem_seg_head\.predictor\.input_proj\.", f"{QUERIES}input_projections."),
    (r"^sem_seg_head\.predictor\.mask_embed\.layers\.(\d)\.", rf"{QUERIES}decoder.mask_predictor.mask_embedder.\1.0."),
    (r"^sem_seg_head\.predictor\.class_embed\.", "class_predictor."),
)
# From the names of transformers 4, which the hub's checkpoints have, to those of transformers 5.
NEWER = _make_rules(
    (r"^(model\.pixel_level_module\.encoder)\.(embeddings|encoder\.layers)\.", r"\1.swin.\2."),
    (r"\.attention\.self\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\.blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (
        r"\.attention\.self\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
)
COMPUTED = "relative_position_index"  # kept in some files; the network makes its own
UNREAD = re.compile(r"(\.num_batches_tracked|\.swin\.layernorm\.(weight|bias)|^criterion\.empty_weight)$")


def rename_mask2former_key(key: str, rules: tuple[Rule, ...] = RULES) -> str:
    """transformers' name of an official parameter, or its newer name of one of its own."""
    for pattern, to in rules:
        key = pattern.sub(to, key)
    return key


def convert_mask2former_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official segmenter's tensors under transformers' names; queries, keys and values are taken apart."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        name = rename_mask2former_key(key)
        if ".qkv." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                out[name.replace(".qkv.", f".{part}_proj.")] = third
        elif not name.endswith(COMPUTED):
            out[name] = value
    return out


def update_state_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' tensors under the names that it gives them now."""
    return {rename_mask2former_key(key, NEWER): value for key, value in state.items() if not key.endswith(COMPUTED)}
