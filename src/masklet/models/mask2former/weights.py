"""Mask2Former with its weights, by name, folder or file; official files of Mask2Former, MinVIS, DVIS and GenVIS are
converted.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from masklet.core.errors import InputError
from masklet.models.mask2former.networks import CLASSES, EOMT, EOMT_DINOV3
from masklet.models.mask2former.networks import MASK2FORMER as MODEL_TYPE
from masklet.models.mask2former.small import KIND as SMALL
from masklet.models.mask2former.small import is_small, load_small
from masklet.models.mask2former.tensor_names import (
    GENVIS,
    HEAD,
    MASK2FORMER,
    NEWER,
    PIXELS,
    UNREAD,
    VIPSEG,
    convert_mask2former_state,
    infer_checkpoint_kind,
    rename_mask2former_key,
    split_checkpoint,
    update_state_names,
)
from masklet.models.transformers_output import drop_transformers_output
from masklet.weights.catalog import CONFIG, QUERIES, TENSORS
from masklet.weights.categories import find_categories, read_category_names
from masklet.weights.reading import locate_weights, read_network_config, read_tensors
from masklet.weights.store import HUB_ID, compute_hash
from masklet.weights.strict import check_tensors, format_keys, load_exactly

if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation

CHECKPOINTS = (".pth", ".pt", ".pkl", ".safetensors")  # official ones; the last, our small ones too
STAGES = ["stage1", "stage2", "stage3", "stage4"]


@dataclass(frozen=True)
class LoadedMask2Former:
    """A Mask2Former (float32, eval, no gradients, CPU), and what else its file held."""

    net: Mask2FormerForUniversalSegmentation
    kind: str  # as `infer_checkpoint_kind` tells it
    weights: Mapping[str, str]  # {file: sha256}
    tracker: Mapping[str, Tensor] = field(default_factory=dict)  # of DVIS, by its own names within the module
    refiner: Mapping[str, Tensor] = field(default_factory=dict)  # of DVIS offline, likewise
    objects: Mapping[str, Tensor] = field(default_factory=dict)  # of GenVIS, likewise
    trained_at: int | None = None  # pixels of the short side, where the file tells

    @property
    def shortest(self) -> int:
        """Pixels of the short side of training, else at which the official code looks at frames with such weights."""
        if self.trained_at is not None:
            return self.trained_at
        if self.kind == MASK2FORMER:
            return 800
        if self.net.config.num_labels == VIPSEG:
            return 720
        backbone: Any = self.net.config.backbone_config
        return 360 if backbone.model_type == "resnet" else 448 if self.kind == GENVIS else 480


def build_mask2former(name: str | Path, categories: str = "") -> LoadedMask2Former:
    """Mask2Former with its weights, and the parts of DVIS or GenVIS that come with them. Nothing is fetched.

    Args:
        name: a name of `masklet weights list`, a hub id ("facebook/mask2former-swin-tiny-coco-instance"), a folder as
            transformers saves it, an official checkpoint (.pth; .pkl of numpy arrays; .safetensors with its keys), or
            a small Mask2Former that was trained here (.safetensors).
        categories: names of its classes, as `weights.categories.read_category_names` takes them; "": those that come
            with the weights, of official files those of the data set that the name or the number of classes tells.

    Raises InputError where the weights are not on this machine, damaged, of another network or not what they must be.
    """
    loaded = load_named_mask2former(name)
    name_classes(loaded, str(name), categories)
    return loaded


def name_classes(loaded: LoadedMask2Former, name: str, categories: str) -> None:
    """Names the classes of a network in its config: as `build_mask2former` is told. Raises InputError where there are
    not as many names as classes.
    """
    config: Any = loaded.net.config
    classes = config.num_labels
    known: Sequence[str] | None = None
    if categories:
        known = read_category_names(categories)
        if len(known) != classes:
            raise InputError(f"categories {categories}: {len(known)} names, but {name} has {classes} classes")
    elif has_numbered_classes(config):
        known = find_categories(" ".join((name, *loaded.weights)), classes)
    if known:
        config.id2label = dict(enumerate(known))


def has_numbered_classes(config: Any) -> bool:
    """Whether nothing has named the classes of a network, so that its config counts them from 1."""
    return dict(config.id2label) == {n: str(n + 1) for n in range(config.num_labels)}


def name_numbered_classes(loaded: LoadedMask2Former, categories: Sequence[str]) -> bool:
    """Gives a network whose classes nothing has named these `categories`, where they are as many; whether it did."""
    config: Any = loaded.net.config
    if not has_numbered_classes(config) or len(categories) != config.num_labels:
        return False
    config.id2label = dict(enumerate(categories))
    return True


def load_named_mask2former(name: str | Path) -> LoadedMask2Former:
    """As `build_mask2former`, its classes called as its file calls them."""
    path, files = locate_mask2former(name)
    if path.name == TENSORS and path.with_name(CONFIG).is_file():
        return load_mask2former_folder(path, files)
    if is_small(path):
        small = load_small(path)
        return LoadedMask2Former(small.net, SMALL, files, trained_at=min(small.size))
    state = read_detectron2(path) if path.suffix == ".pkl" else read_tensors(path)
    kind = resolve_kind(str(name), state, path)
    split = split_checkpoint(state)
    own = split.segmenter
    net = fill_mask2former(infer_mask2former_config(own, path), convert_mask2former_state(own), path)
    return LoadedMask2Former(net, kind, files, split.tracker, split.refiner, split.objects)


def load_mask2former_folder(path: Path, files: Mapping[str, str]) -> LoadedMask2Former:
    """What transformers saved in a folder, of which `path` is the file of tensors and `files` its sha256 by name.

    Raises InputError where it is damaged or of another network.
    """
    told = read_network_config(path.with_name(CONFIG))
    if told.get("model_type") in (EOMT, EOMT_DINOV3):
        net = load_eomt(path, told)
        return LoadedMask2Former(net, EOMT, files, trained_at=int(net.config.image_size))
    config = read_mask2former_config(path.with_name(CONFIG))
    return LoadedMask2Former(fill_mask2former(config, update_state_names(read_tensors(path)), path), MASK2FORMER, files)


def load_eomt(path: Path, told: Mapping[str, Any]) -> Any:
    """An EoMT, also over DINOv3 (float32, eval, no gradients), of the tensors of `path` and what its config has `told`.

    Raises InputError where either is damaged or they do not fit.
    """
    net = build_vit_network(path, told, CLASSES[told["model_type"]])
    return load_exactly(net, add_unread_tensors(net, read_tensors(path)), path, "the EoMT that its config describes")


def build_vit_network(path: Path, told: Mapping[str, Any], kind: str) -> Any:
    """A segmenter of a plain ViT of transformers, of the class that begins with `kind`, as its config has `told`; its
    weights are yet to come. Raises InputError, which names the config beside `path`, where it is damaged.
    """
    import transformers
    from transformers.initialization import no_init_weights

    try:
        config = getattr(transformers, f"{kind}Config").from_dict(dict(told))
        with no_init_weights(), drop_transformers_output():
            return getattr(transformers, f"{kind}ForUniversalSegmentation")(config)
    except Exception as error:  # of many kinds, from what the file holds
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path.with_name(CONFIG)}: damaged ({reason}); fetch or copy it again") from None


def add_unread_tensors(net: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors `state`, and those of `net` that only a loss or a training reads where `state` lacks them."""
    own = net.state_dict()
    unread = ("criterion.empty_weight", "attn_mask_probs")  # masks of attention are off once a training is over
    return {name: torch.zeros_like(own[name]) for name in unread if name in own} | dict(state)


def resolve_kind(name: str, state: Mapping[str, Tensor], path: Path) -> str:
    """The kind of model that the tensors `state` of the file `path` are, by their keys (`infer_checkpoint_kind`).

    Raises InputError where `name`, what the user gave, is one of ours and says something else.
    """
    kind = infer_checkpoint_kind(state, str(path))
    if name in QUERIES and not name.startswith(kind):
        raise InputError(f"{path}: weights of {kind}, but {name} is meant to be another model: bring the right file")
    return kind


def check_kind(name: str, path: Path) -> None:
    """Raises InputError where the file of a name of ours is of another kind of model."""
    if QUERIES[name].alone:
        resolve_kind(name, read_tensors(path), path)


def locate_mask2former(name: str | Path) -> tuple[Path, Mapping[str, str]]:
    """The weight file that a name stands for, and {name: sha256} of it."""
    path = Path(name).expanduser()
    if path.suffix != ".pkl":
        return locate_weights(name)
    return path, {path.name: compute_hash(path).sha256}


def is_mask2former(name: str) -> bool:
    """Whether a name means weights for `build_mask2former`: a name with "mask2former" or "eomt" in it, a folder with a
    config, or a file.
    """
    if name in QUERIES:
        return True
    path = Path(name).expanduser()
    try:
        if path.suffix in CHECKPOINTS or (path / CONFIG).is_file():
            return True
    except OSError:  # no file can have such a name
        return False
    told = any(kind in name for kind in (MODEL_TYPE, EOMT))
    return told and not path.exists() and (bool(HUB_ID.fullmatch(name)) or "/" not in name)


# -- numpy arrays in a pickle

ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy.core.multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
    ("numpy.core.numeric", "_frombuffer"): np._core.numeric._frombuffer,  # type: ignore[attr-defined]
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): str.encode,  # how old protocols spell bytes; knows encodings of text only
    ("collections", "OrderedDict"): OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads tables of numpy arrays, and refuses anything else that a pickle can make or call."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle means by `module.name`. Raises UnpicklingError unless it is in `ADMITTED`."""
        known = module.replace("numpy._core", "numpy.core"), name
        if known not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ADMITTED[known]


def read_detectron2(path: Path) -> dict[str, Tensor]:
    """The tensors of a detectron2 .pkl, without running anything that it holds. Raises InputError on damage."""
    try:
        with path.open("rb") as file:
            told = _ArrayUnpickler(file).load()
    except Exception as error:  # a damaged pickle can fail in any way
        reason = str(error).splitlines()[0][:120] if str(error) else "it ends too early"
        raise InputError(f"{path}: damaged, or holds more than numpy arrays, which is not read ({reason})") from None
    table = told.get("model", told) if isinstance(told, dict) else None
    if not isinstance(table, dict) or not all(
        isinstance(v, np.ndarray) and v.dtype.kind in "fiub" for v in table.values()
    ):
        raise InputError(f'{path}: holds no table of arrays, neither as it is nor under "model"')
    return {key: torch.from_numpy(np.require(value, requirements=["C", "W"])) for key, value in table.items()}


# -- networks


def read_mask2former_config(path: Path) -> Any:
    """The config in a folder that transformers saved. Raises InputError where it is damaged or of another network."""
    from transformers import Mask2FormerConfig

    told = read_network_config(path)
    if told.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"{path}: of a network {told.get('model_type')!r}; this needs {MODEL_TYPE!r}, {EOMT!r} or {EOMT_DINOV3!r}"
        )
    backbone = told.get("backbone_config") or {}
    if told.get("use_timm_backbone") or backbone.get("model_type", "swin") not in ("swin", "resnet"):
        raise InputError(f"{path}: a backbone that transformers does not have itself; this needs swin or resnet")
    try:
        with drop_transformers_output():  # of ResNet, it doubts
            return Mask2FormerConfig.from_dict(told)
    except Exception as error:  # of many kinds, from what the file holds
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged ({reason}); fetch or copy it again") from None


def infer_mask2former_config(state: Mapping[str, Tensor], path: Path) -> Any:
    """The config of an official checkpoint, from its keys and shapes; its classes are numbered from 1.

    Raises InputError where it is of another network.
    """
    from transformers import Mask2FormerConfig

    try:
        queries, hidden = state[f"{HEAD}query_feat.weight"].shape
        mask, feature = state[f"{PIXELS}mask_features.weight"].shape[:2]
        offsets = f"{PIXELS}transformer.encoder.layers.0.self_attn.sampling_offsets.bias"
        backbone = infer_backbone_config(state, path)
        with drop_transformers_output():
            return Mask2FormerConfig(
                backbone_config=backbone,
                feature_size=feature,
                mask_feature_size=mask,
                hidden_dim=hidden,
                num_queries=queries,
                num_attention_heads=len(state[offsets]) // 24,  # three levels, four points, x and y
                encoder_layers=count_indices(state, rf"{re.escape(PIXELS)}transformer\.encoder\.layers\."),
                encoder_feedforward_dim=len(state[f"{PIXELS}transformer.encoder.layers.0.linear1.bias"]),
                decoder_layers=count_indices(state, rf"{re.escape(HEAD)}transformer_ffn_layers\.") + 1,
                dim_feedforward=len(state[f"{HEAD}transformer_ffn_layers.0.linear1.bias"]),
                enforce_input_projection=f"{HEAD}input_proj.0.weight" in state,
                id2label={n: str(n + 1) for n in range(len(state[f"{HEAD}class_embed.bias"]) - 1)},
            )
    except KeyError as error:
        raise InputError(f"{path}: not weights of a Mask2Former: it lacks {error.args[0]}") from None


def infer_backbone_config(state: Mapping[str, Tensor], path: Path) -> Any:
    """The backbone of an official checkpoint. Raises InputError, which names the file `path`, where it is another one
    than Swin or ResNet.
    """
    with drop_transformers_output():
        if "backbone.patch_embed.proj.weight" in state:
            return infer_swin_config(state)
        if "backbone.stem.conv1.weight" in state:
            return infer_resnet_config(state)
    own = {key: value for key, value in state.items() if key.startswith("backbone.")}
    raise InputError(
        f"{path}: a Mask2Former with a backbone that masklet does not have (its keys begin with {format_keys(own)}): "
        "ResNet and Swin are read. Of ViT-L (DINOv2 with an adapter) no list of a released file's tensors was to be "
        "had, so that it is not built"
    )


def infer_swin_config(state: Mapping[str, Tensor]) -> Any:
    """The Swin transformer of an official checkpoint."""
    import transformers

    stages = count_indices(state, r"backbone\.layers\.")
    tables = [state[f"backbone.layers.{s}.blocks.0.attn.relative_position_bias_table"] for s in range(stages)]
    config: Any = transformers.SwinConfig
    return config(
        embed_dim=len(state["backbone.patch_embed.proj.weight"]),
        depths=[count_indices(state, rf"backbone\.layers\.{s}\.blocks\.") for s in range(stages)],
        num_heads=[table.shape[1] for table in tables],
        window_size=(isqrt(len(tables[0])) + 1) // 2,
        out_features=STAGES,
    )


def infer_resnet_config(state: Mapping[str, Tensor]) -> Any:
    """The ResNet of bottlenecks (50, 101) of an official checkpoint."""
    import transformers

    stages = range(2, 6)
    config: Any = transformers.ResNetConfig
    return config(
        embedding_size=len(state["backbone.stem.conv1.weight"]),
        hidden_sizes=[len(state[f"backbone.res{s}.0.conv3.weight"]) for s in stages],
        depths=[count_indices(state, rf"backbone\.res{s}\.") for s in stages],
        out_features=STAGES,
    )


def count_indices(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow a prefix."""
    return len({found[1] for key in state if (found := re.match(rf"{prefix}(\d+)\.", key))})


def fill_mask2former(config: Any, state: Mapping[str, Tensor], path: Path) -> Mask2FormerForUniversalSegmentation:
    """A network of a transformers `config` with exactly the tensors `state`, in eval mode and without gradients.

    Raises InputError, which names the file `path`, where the tensors are not the network's own.
    """
    import transformers
    from transformers.initialization import no_init_weights

    classes = len(state.get("class_predictor.bias", ())) - 1
    if classes not in (-1, config.num_labels):
        raise InputError(f"{path}: weights for {classes} classes, but its {CONFIG} names {config.num_labels}")
    with no_init_weights():
        net = transformers.Mask2FormerForUniversalSegmentation(config)
    # Some versions of transformers have the older names themselves.
    own = {rename_mask2former_key(key, NEWER): (key, value) for key, value in net.state_dict().items()}
    given = {key: torch.zeros_like(value) for key, (_, value) in own.items() if UNREAD.search(key)} | dict(state)
    check_tensors({key: value for key, (_, value) in own.items()}, given, path, "this Mask2Former")
    net.load_state_dict({own[k][0]: value.to(own[k][1].dtype) for k, value in given.items()}, assign=True)
    net.requires_grad_(False).eval()  # type: ignore[no-untyped-call]
    return net
