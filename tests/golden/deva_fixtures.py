"""DEVA's network fixtures: the network rebuilt from names, frames, and what the official program made of them."""

from __future__ import annotations

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from masklet.core.frames import Frame
from masklet.models.xmem.propagator import build_xmem as assembled
from masklet.nn.xmem import XmemNet

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "deva"


def needs(*names: str) -> None:
    """Skips, visibly, where a file is absent."""
    missing = [n for n in names if not (FOLDER / n).is_file()]
    if missing:
        pytest.skip(f"no {missing[0]} under {FOLDER}: set MASKLET_GOLDEN", allow_module_level=True)


@cache
def table(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


@cache
def arrays(run: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"network_{run}.npz") as file:
        return {k: file[k] for k in file.files}


def state() -> dict[str, Tensor]:
    """Every tensor from its name, then adjusted."""
    needs("recipe.py")
    spec = importlib.util.spec_from_file_location("deva_recipe", FOLDER / "recipe.py")
    assert spec and spec.loader
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    gain, out = table("network.json")["gain"], {}
    for entry in table("keys.json")["keys"]:
        shape = tuple(entry["shape"])
        if entry["dtype"] == "int64":
            out[entry["name"]] = torch.zeros(shape, dtype=torch.int64)
        else:
            out[entry["name"]] = torch.from_numpy(np.asarray(recipe.tensor(entry["name"], shape, gain)))
    for change in table("network.json")["adjustments_after_recipe"]:
        tensor = out[change["name"]]
        part = tensor[:, change["column"]] if "column" in change else tensor
        part.mul_(change.get("multiply", 1)).add_(change.get("add", 0))
    return out


@cache
def network() -> XmemNet:
    return assembled(state(), FOLDER / "keys.json")


def frames(run: str) -> list[Frame]:
    return [Frame(t, image, t / 10) for t, image in enumerate(arrays(run)["frames"])]
