"""The official DVIS program's answers, and weights made from parameter names as its fixtures' recipe says."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

REPOSITORY = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "dvis"


def told(name: str) -> dict[str, Any]:
    """The json beside the arrays; empty where it is not there."""
    path = GOLDEN / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def arrays(name: str) -> dict[str, Tensor]:
    """The arrays of one file."""
    path = GOLDEN / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here: set MASKLET_GOLDEN")
    with np.load(path) as file:
        return {k: torch.from_numpy(file[k]) for k in file.files}


def sets(prefix: str) -> list[str | None]:
    """Names of the sets `<prefix>_<name>.npz`; [None], which a test skips, where there is none."""
    return sorted(p.stem.removeprefix(f"{prefix}_") for p in GOLDEN.glob(f"{prefix}_*.npz")) or [None]


def cases(file: str, ending: str) -> list[str | None]:
    """Names of the cases in one file: those with an array `<case>__<ending>`."""
    path = GOLDEN / f"{file}.npz"
    if not path.exists():
        return [None]
    with np.load(path) as held:
        return sorted(k.removesuffix(f"__{ending}") for k in held.files if k.endswith(f"__{ending}")) or [None]


def needed(name: str | None) -> str:
    """The set's name, or a skip."""
    if name is None:
        pytest.skip(f"no such fixtures under {GOLDEN}: set MASKLET_GOLDEN")
    return name


def recipe(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that a parameter's name stands for."""
    spec = importlib.util.spec_from_file_location("dvis_recipe", GOLDEN / "recipe.py")
    if not (GOLDEN / "recipe.py").exists():
        pytest.skip(f"{GOLDEN / 'recipe.py'} is not here")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return torch.from_numpy(np.asarray(module.tensor(name, shape)))


def filled(module: nn.Module, shapes: dict[str, list[int]] | None = None, prefix: str = "") -> nn.Module:
    """A module with the recipe's weights, after a check that names and shapes are the released ones."""
    own = {name: list(p.shape) for name, p in module.state_dict().items()}
    if shapes is not None:
        assert own == shapes
    module.load_state_dict({name: recipe(prefix + name, tuple(shape)) for name, shape in own.items()})
    return module.eval()


def config(told_of_set: dict[str, Any]) -> dict[str, int]:
    """A network's sizes, in our words."""
    at = told_of_set["config"]
    return {
        "classes": at["class_num"],
        "width": at["hidden_channel"],
        "heads": at["num_head"],
        "hidden": at["feedforward_channel"],
        "layers": at["decoder_layer_num"],
        "mask_width": at["mask_dim"],
    }


def with_inputs(prefix: str, name: str, key: str) -> dict[str, Tensor]:
    """A set's arrays; one that says "same inputs" borrows those of a set that differs in the classes alone."""
    own = arrays(f"{prefix}_{name}")
    if key in own:
        return own
    alike = {k: v for k, v in config(told(prefix)[name]).items() if k != "classes"}
    for other in sets(prefix):
        held = arrays(f"{prefix}_{needed(other)}")
        if key in held and alike.items() <= config(told(prefix)[other]).items():
            return {k: v for k, v in held.items() if k in INPUTS} | own
    pytest.skip(f"{prefix}_{name}: no set beside it has its inputs")


INPUTS = ("frame_embeds", "instance_embeds", "mask_features")
