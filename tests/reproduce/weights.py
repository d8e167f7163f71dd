"""Slim networks with random weights in the form of official files, as the recipes name them, in a weights folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from golden import mask2former_fixtures, sam2_fixtures
from torch import Tensor

from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.query_video.heads import save_heads
from masklet.models.query_video.rocovis import RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_weights import save_slot_model
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.weights.categories import OVIS

WHOLE = "e2e_slim"


def has_fixtures() -> bool:
    """Whether the shapes of official tensors are here."""
    return bool(mask2former_fixtures.found("e2e_*")) and (sam2_fixtures.FOLDER / "model.json").is_file()


def put_sam2(folder: Path, name: str) -> None:
    """A slim SAM 2 as transformers saves it, under a name of `masklet weights list` that has no sha256."""
    (folder / name).mkdir(parents=True)
    sam2_fixtures.network("w1").save_pretrained(folder / name)


@cache
def make_whole_state() -> dict[str, Tensor]:
    """The tensors of a slim DVIS offline."""
    return mask2former_fixtures.official(mask2former_fixtures.table(WHOLE)["state_dict"])


def put_query_weights(path: Path, kind: str, classes: int) -> None:
    """A slim MinVIS, DVIS online or offline, or GenVIS in the official form, with so many classes."""
    alone = ("refiner.", "tracker.")
    left_out = {"minvis": alone, "genvis": alone, "online": ("refiner.",), "offline": ()}[kind]
    state = {k: v for k, v in make_whole_state().items() if not k.startswith(left_out)}
    if kind == "genvis":
        shapes = mask2former_fixtures.table("genvis_module")["small"]["state_dict"]
        state |= mask2former_fixtures.official({f"vita_module.{k}": shape for k, shape in shapes.items()})
        state |= {"genvis_criterion.empty_weight": torch.ones(classes + 1)}
    kept = {k: set_classes(k, v, classes) for k, v in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": kept}, path)


def put_trained(folder: Path) -> None:
    """What is trained here, of random weights: heads over a small Mask2Former with OVIS's categories, and a RoCoVIS."""
    sizes = SmallMask2FormerSettings(hidden=32, encoder_layers=1, decoder_layers=1, queries=6, heads=4)
    torch.manual_seed(0)
    net = create_small_mask2former(sizes, OVIS)
    save_small(folder / "small-ovis.safetensors", net, sizes, (48, 64))
    at = {"classes": 25, "width": 32, "heads": 4, "hidden": 32, "layers": 1, "mask_width": 32}
    refiner = TemporalRefiner(RefinerSettings(**at))
    for name, more in {"zero": {"initial": "zero"}, "standard": {"attention": "standard"}, "full": {}}.items():
        tracker = ReferringTracker(TrackerSettings(**at, **more))  # type: ignore[arg-type]
        file = "dvis-refiner-full" if name == "full" else f"dvis-tracker-{name}"
        save_heads(folder / f"{file}.safetensors", OVIS, tracker=tracker, refiner=refiner)
    model = RocovisNet(net, RocovisNetSettings(width=32, heads=4))
    save_slot_model(folder / "rocovis-r50-ovis.safetensors", "rocovis", model, 48)


def set_classes(key: str, value: Tensor, classes: int) -> Tensor:
    """A tensor of an official file with another number of classes, where it is a class head's."""
    if "class_embed" not in key and key != "criterion.empty_weight":
        return value
    times = -(-(classes + 1) // len(value))
    return torch.cat([value * (1 + 0.01 * n) for n in range(times)])[: classes + 1].contiguous()
