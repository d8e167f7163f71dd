"""Every test runs with shapes and types checked on the parts that carry tensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))  # the toys
sys.path.insert(1, str(Path(__file__).parent / "plugin"))  # odd parts
install_import_hook(
    ["masklet.core", "masklet.nn", "masklet.weights", "masklet.models", "masklet.train", "masklet.evaluate"],
    "typecheck.beartype",
)

ROOT = Path(__file__).parent.parent
settings.register_profile("masklet", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("masklet")
torch.set_num_threads(1)  # two test processes share two cores
cv2.setNumThreads(1)  # and its threads would not be in the children of `fork_masklet`


def shared(variable: str, default: str) -> Path:
    """A folder of the workplace that is not in the repository."""
    return Path(os.environ.get(variable, ROOT.parent / "shared" / default))


@pytest.fixture(scope="session")
def data() -> Path:
    """Real images and videos (MASKLET_DATA)."""
    folder = shared("MASKLET_DATA", "data")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder
