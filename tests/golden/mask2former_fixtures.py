"""The Mask2Former fixtures: networks rebuilt from official names, and what the official code made of their inputs."""

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

from masklet.models.mask2former.tensor_names import convert_mask2former_state, split_checkpoint
from masklet.models.mask2former.weights import fill_mask2former, infer_mask2former_config

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("MASKLET_GOLDEN", REPOSITORY / "../shared/golden")) / "dvis"


def found(pattern: str) -> list[str]:
    """Fixtures that have both their files, by their names without an ending."""
    return sorted(p.stem for p in FOLDER.glob(f"{pattern}.npz") if p.with_suffix(".json").is_file())


@cache
def table(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def arrays(name: str) -> Any:
    return np.load(FOLDER / f"{name}.npz")


@cache
def recipe() -> Any:
    if not (FOLDER / "recipe.py").is_file():
        pytest.skip(f"no recipe.py under {FOLDER}: set MASKLET_GOLDEN")
    spec = importlib.util.spec_from_file_location("dvis_recipe", FOLDER / "recipe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Every tensor from its official name."""
    return {name: torch.from_numpy(recipe().tensor(name, tuple(shape))) for name, shape in shapes.items()}


@cache
def network(name: str) -> Any:
    """The network of a fixture, by way of our conversion."""
    state = split_checkpoint(official(table(name)["state_dict"])).segmenter
    path = FOLDER / f"{name}.json"
    return fill_mask2former(infer_mask2former_config(state, path), convert_mask2former_state(state), path)
