"""SAM 3's networks with their weights, from a folder as the hub has it: config.json and model.safetensors.

A folder holds the detector, the tracker, or both; each part is built by itself, of exactly its own tensors. The image
encoder is one for all parts that are made of the same file on the same device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.models.sam3.trunk import Sam3Trunk
from masklet.models.transformers_output import drop_transformers_output
from masklet.nn.quick_linear import quicken_linear_layers
from masklet.weights.catalog import CONFIG, TENSORS
from masklet.weights.format import explain_damage
from masklet.weights.reading import locate_weights, read_network_config, read_tensors
from masklet.weights.strict import format_keys, load_exactly

DETECTOR, TRACKER, NECK = PARTS = "detector_model.", "tracker_model.", "tracker_neck."  # how official keys begin
TRUNK = "detector_model.vision_encoder.backbone."  # the detector's and the tracker's
KINDS = {  # a config's model_type: transformers' config
    "sam3_video": "Sam3VideoConfig",
    "sam3_tracker_video": "Sam3TrackerVideoConfig",
    "sam3": "Sam3Config",
    "sam3_lite_text": "Sam3LiteTextConfig",
}
DETECTORS = {"sam3": "Sam3Model", "sam3_lite_text": "Sam3LiteTextModel"}
_TRUNKS: WeakValueDictionary[tuple[Any, ...], Sam3Trunk] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Sam3Checkpoint:
    """What a folder holds of SAM 3."""

    path: Path  # of the tensors
    files: Mapping[str, str]  # sha256 by name
    detector: Any  # the config of it, or None
    tracker: Any
    state: Mapping[str, Tensor]  # by official key

    def select(self, *beginnings: str) -> dict[str, Tensor]:
        """The tensors whose keys begin in one of some ways, without that beginning."""
        return {key[len(b) :]: value for b in beginnings for key, value in self.state.items() if key.startswith(b)}


def read_sam3(name: str | Path, side: int | None = None) -> Sam3Checkpoint:
    """What a folder, hub id or name of `masklet weights list` holds, to be looked at with squares of `side` pixels;
    None: those that it was trained with. Nothing is fetched.

    Raises InputError where it is not on this machine, damaged or of another network.
    """
    path, files = locate_weights(name)
    place = path.with_name(CONFIG)
    if path.name != TENSORS or not place.is_file():
        raise InputError(f"{path}: SAM 3 is read from a folder with {CONFIG} and {TENSORS}, as the hub has it")
    told = read_network_config(place)
    if told.get("model_type") not in KINDS:
        raise InputError(f"{place}: of a network {told.get('model_type')!r}; this needs {' or '.join(KINDS)}")
    with explain_damage(place):
        detector, tracker = build_configs(told, side)
    state = {simplify_sam3_key(key, tracker is None): value for key, value in read_tensors(path).items()}
    if strange := [key for key in state if not key.startswith(PARTS)]:
        raise InputError(f"{path}: not weights of SAM 3: it has besides {format_keys(strange)}")
    return Sam3Checkpoint(path, files, detector, tracker, state)


def build_configs(told: Mapping[str, Any], side: int | None) -> tuple[Any, Any]:
    """The configs of detector and tracker, None where there is none, of what a folder's config has `told`."""
    import transformers

    config = getattr(transformers, KINDS[told["model_type"]]).from_dict(dict(told))
    if side is not None:
        config.image_size = side
    if config.model_type == "sam3_video":
        return config.detector_config, config.tracker_config
    return (config, None) if config.model_type in DETECTORS else (None, config)


def simplify_sam3_key(key: str, is_detector: bool) -> str:
    """The official key of a tensor, which a file of a detector alone, or one that transformers wrote, may have
    otherwise.

    >>> simplify_sam3_key("tracker_model.tracker_neck.fpn_layers.0.proj1.bias", False)
    'tracker_neck.fpn_layers.0.proj1.bias'
    """
    rest = key.removeprefix(TRACKER)
    if rest.startswith(PARTS):  # transformers' own saving puts its prefix before the official one
        return rest
    return key if key.startswith(PARTS) or not is_detector else DETECTOR + key


def share_trunk(checkpoint: Sam3Checkpoint, device: torch.device) -> Sam3Trunk:
    """The image encoder of a `checkpoint` on a `device`: the very one that another part has, where one does."""
    config = (checkpoint.detector or checkpoint.tracker).vision_config.backbone_config
    key = (checkpoint.path.resolve(), checkpoint.path.stat().st_mtime_ns, config.image_size, device)
    trunk = _TRUNKS.get(key)
    if trunk is None:
        net = fill_part(checkpoint, "Sam3ViTModel", config, checkpoint.select(TRUNK), "SAM 3's image encoder")
        trunk = _TRUNKS[key] = Sam3Trunk(net.to(device))
    return trunk


def build_detector(checkpoint: Sam3Checkpoint, device: torch.device) -> Any:
    """SAM 3's detector on a `device`, a `Sam3Model` or `Sam3LiteTextModel` of transformers without the trunk of its
    image encoder. Raises InputError where the `checkpoint` has none, or its tensors are not the network's own.
    """
    config = checkpoint.detector
    if config is None:
        raise InputError(f"{checkpoint.path}: holds SAM 3's tracker alone; text needs the detector")
    state = {k: v for k, v in checkpoint.select(DETECTOR).items() if not (DETECTOR + k).startswith(TRUNK)}
    return fill_part(checkpoint, DETECTORS[config.model_type], config, state, "SAM 3's detector").to(device)


def build_tracker(checkpoint: Sam3Checkpoint, device: torch.device) -> tuple[Any, Any]:
    """SAM 3's tracker on a `device`, a `Sam3TrackerVideoModel` of transformers without image encoder, and its neck.
    Raises InputError where the `checkpoint` has none, or its tensors are not the network's own.
    """
    config = checkpoint.tracker
    if config is None:
        raise InputError(f"{checkpoint.path}: holds SAM 3's detector alone; a propagator needs the tracker")
    net = fill_part(checkpoint, "Sam3TrackerVideoModel", config, checkpoint.select(TRACKER), "SAM 3's tracker")
    neck = fill_part(checkpoint, "", config.vision_config, checkpoint.select(NECK), "the neck of SAM 3's tracker")
    return net.to(device), neck.to(device)


def fill_part(checkpoint: Sam3Checkpoint, kind: str, config: Any, state: Mapping[str, Tensor], what: str) -> Any:
    """A part of a `kind`, a class of transformers, with exactly the tensors `state` (float32, eval, no gradients);
    errors call it `what`.
    """
    with explain_damage(checkpoint.path.with_name(CONFIG)):
        net = build_empty_part(kind, config)
    quicken_linear_layers(net)
    return load_exactly(net, state, checkpoint.path, what)


def build_empty_part(kind: str, config: Any) -> Any:
    """The part with its constants, and parameters that hold nothing yet; no `kind`: a neck."""
    import transformers
    from transformers.initialization import no_init_weights
    from transformers.models.sam3.modeling_sam3 import Sam3VisionNeck

    with no_init_weights(), drop_transformers_output():
        if not kind:
            return Sam3VisionNeck(config)
        more = {"remove_vision_encoder": True} if kind == "Sam3TrackerVideoModel" else {}
        net: Any = getattr(transformers, kind)(config, **more)
    if kind in DETECTORS.values():
        net.vision_encoder.backbone = nn.Identity()  # the trunk is shared, and loaded by itself
    return net
