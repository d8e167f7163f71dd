"""Files of slot models' weights: one safetensors file holds the segmenter, what was added, and how both are built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from masklet.core.errors import InputError
from masklet.models.mask2former import small as small_mask2former
from masklet.models.mask2former import weights as mask2former_weights
from masklet.models.mask2former.networks import CLASSES, MASK2FORMER
from masklet.models.query_video.genvis import Genvis, GenvisNet, GenvisNetSettings
from masklet.models.query_video.rocovis import Rocovis, RocovisNet, RocovisNetSettings
from masklet.models.transformers_output import drop_transformers_output
from masklet.weights.format import copy_module_weights, explain_damage, is_of_kind, read_described, write_described
from masklet.weights.store import compute_hash
from masklet.weights.strict import load_exactly

# By kind, as the metadata has it.
SETTINGS: Mapping[str, type[Any]] = {"rocovis": RocovisNetSettings, "genvis": GenvisNetSettings}
NETS: Mapping[str, type[Any]] = {"rocovis": RocovisNet, "genvis": GenvisNet}
MODELS: Mapping[str, type[Any]] = {"rocovis": Rocovis, "genvis": Genvis}
TRAINED_AS = {"rocovis": "rocovis", "genvis": "rocovis --set row=queries"}  # behind `masklet train`


@dataclass(frozen=True)
class ImageTrainedSegmenter:
    """A segmenter that was trained on images (float32, eval, no gradients, CPU): what a slot model begins as."""

    net: Any
    shortest: int  # pixels of the short side at which it looks at frames


def load_image_trained(name: str | Path) -> ImageTrainedSegmenter:
    """A Mask2Former by a name, folder or file, as `--segmenter` takes them, or the file of a small one.

    Raises InputError where the weights are not on this machine, damaged or of another network.
    """
    path = Path(name).expanduser()
    if path.suffix == ".safetensors" and path.is_file() and small_mask2former.is_small(path):
        small = small_mask2former.load_small(path)
        return ImageTrainedSegmenter(small.net, min(small.size))
    built = mask2former_weights.build_mask2former(name)
    return ImageTrainedSegmenter(built.net, built.shortest)


def save_slot_model(path: Path, kind: str, net: Any, shortest: int) -> None:
    """Writes a network `net` of a `kind` of `NETS` (its module holds `segmenter` and `settings`) to `path`, as
    `load_slot_model` reads it; `shortest`: pixels of the short side of the images of training.

    Raises InputError where the file cannot be written.
    """
    told = {"settings": asdict(net.settings), "shortest": shortest, "mask2former": describe_slot_network(net.segmenter)}
    write_described(path, kind, copy_module_weights(net), told)


def is_slot_model(path: Path) -> bool:
    """Whether a file is what `save_slot_model` writes. Raises InputError where it is a damaged safetensors file."""
    return any(is_of_kind(path, kind) for kind in NETS)


def load_slot_model(
    path: str | Path,
    kind: str,
    device: torch.device,
    *,
    shortest: int | None = None,
    categories: Sequence[str] | None = None,
) -> Any:
    """The model of a file that `save_slot_model` wrote, such as a `Rocovis` of kind "rocovis".

    Args:
        path: of the file.
        kind: of `MODELS`.
        device: where it computes.
        shortest: pixels of the short side at which it looks at frames; None: those of its training.
        categories: names of the classes; None: those of its training.

    Raises InputError where it is no such file, damaged, or holds other weights than it says.
    """
    held = read_slot_network(path, kind)
    return MODELS[kind](
        held.net.to(device), shortest=shortest or held.shortest, categories=categories, weights=held.weights
    )


@dataclass(frozen=True)
class SlotNetwork:
    """The network of a file (float32, on the CPU), and what else the file tells."""

    net: Any
    shortest: int  # pixels of the short side of the images of training
    weights: Mapping[str, str]  # {file: sha256}


def read_slot_network(path: str | Path, kind: str) -> SlotNetwork:
    """The network of a `kind` of `NETS` from a file that `save_slot_model` wrote.

    Raises InputError where it is no such file, damaged, or holds other weights than it says.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; bring the weights of a {kind}, as masklet train {TRAINED_AS[kind]} writes them"
        )
    held = read_described(path, kind, f"a {kind}, as masklet train {TRAINED_AS[kind]} writes them")
    with explain_damage(path):
        told = held.about["settings"]
        settings = SETTINGS[kind](**{f.name: told[f.name] for f in fields(SETTINGS[kind])})
        net = NETS[kind](build_blank_segmenter(held.about["mask2former"]), settings)
        side = int(held.about["shortest"])
    load_exactly(net, held.tensors, path, f"the {kind} that it says it is")
    return SlotNetwork(net, side, {path.name: compute_hash(path).sha256})


# -- the segmenter inside


def describe_slot_network(net: Any) -> dict[str, Any]:
    """All that `build_blank_segmenter` needs to build such a network, as JSON has it."""
    config = net.config
    if config.model_type != MASK2FORMER or not isinstance(
        net.model.pixel_level_module.encoder, small_mask2former.StridedMobileNet
    ):
        return {"transformers": json.loads(config.to_json_string(use_diff=False))}
    return {
        "small": {
            "hidden": config.hidden_dim,
            "encoder_layers": config.encoder_layers,
            "decoder_layers": config.decoder_layers - 1,
            "queries": config.num_queries,
            "heads": config.num_attention_heads,
            "encoder_width": config.encoder_feedforward_dim,
            "decoder_width": config.dim_feedforward,
        },
        "categories": [config.id2label[n] for n in range(config.num_labels)],
    }


def build_blank_segmenter(told: Mapping[str, Any]) -> Any:
    """A Mask2Former or EoMT of these sizes, whose weights are still to come."""
    import transformers

    if "small" in told:
        return small_mask2former.create_blank_small(
            small_mask2former.SmallMask2FormerSettings(**told["small"]), told["categories"]
        )
    name = CLASSES[told["transformers"].get("model_type", MASK2FORMER)]
    with drop_transformers_output():
        config = getattr(transformers, f"{name}Config").from_dict(told["transformers"])
        return getattr(transformers, f"{name}ForUniversalSegmentation")(config)
