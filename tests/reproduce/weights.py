"""Slim networks with random weights in the form of official files, as the recipes name them, in a weights folder."""

from __future__ import annotations

from pathlib import Path

import torch
from golden import mask2former_fixtures, sam2_fixtures
from torch import Tensor

SLIM, WHOLE = "mask2former_slim", "e2e_slim"


def has_fixtures() -> bool:
    """Whether the shapes of official tensors are here."""
    return bool(mask2former_fixtures.found("e2e_*")) and (sam2_fixtures.FOLDER / "model.json").is_file()


def put_sam2(folder: Path, name: str) -> None:
    """A slim SAM 2 as transformers saves it, under a name of `masklet weights list` that has no sha256."""
    (folder / name).mkdir(parents=True)
    sam2_fixtures.network("w1").save_pretrained(folder / name)


def put_query_weights(path: Path, kind: str, classes: int) -> None:
    """A slim MinVIS, DVIS online or DVIS offline in the official form, with so many classes."""
    state = mask2former_fixtures.official(mask2former_fixtures.table(WHOLE)["state_dict"])
    left_out = {"minvis": ("refiner.", "tracker."), "online": ("refiner.",), "offline": ()}[kind]
    kept = {k: set_classes(k, v, classes) for k, v in state.items() if not k.startswith(left_out)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": kept}, path)


def set_classes(key: str, value: Tensor, classes: int) -> Tensor:
    """A tensor of an official file with another number of classes, where it is a class head's."""
    if "class_embed" not in key and key != "criterion.empty_weight":
        return value
    times = -(-(classes + 1) // len(value))
    return torch.cat([value * (1 + 0.01 * n) for n in range(times)])[: classes + 1].contiguous()
