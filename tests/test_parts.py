"""Parts by name."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from masklet import InputError, parts
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.sam2_memory import RecentFrames, ReliableFrames
from masklet.systems.sam2long import MemoryTree


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be loaded: (name, image size, policy, device)."""
    calls: list[Any] = []

    class Net:
        config = SimpleNamespace(model_type="sam2_video")

        def to(self, device: torch.device) -> Any:
            calls[-1] += [str(device)]
            return self

    monkeypatch.setattr(parts, "build", lambda name: calls.append([name]) or (Net(), {"file": "sha"}))
    monkeypatch.setattr(parts, "resized", lambda net, side: calls[-1].append(side) or net)
    monkeypatch.setattr(parts, "Sam2", lambda net, policy, weights: calls[-1].append(policy) or (policy, weights))
    return calls


def test_a_size_by_name(made: list[Any]) -> None:
    assert parts.load_propagator("sam2.1-tiny", Encoder(), "cpu") == (RecentFrames(), {"file": "sha"})
    assert made == [["sam2.1-tiny", "cpu", RecentFrames()]]


@pytest.mark.parametrize(
    ("name", "base", "side"), [("sam2.1-large@512", "sam2.1-large", 512), ("me/net@1280", "me/net", 1280)]
)
def test_another_image_size(made: list[Any], name: str, base: str, side: int) -> None:
    parts.load_propagator(name, Encoder(), "cpu")
    assert made == [[base, side, "cpu", RecentFrames()]]


@pytest.mark.parametrize(
    ("name", "quality", "uncertainty"), [("sam2long", 0.1, 2), ("sam2long-paper", 0.3, 2), ("sam2long-cli", 0.3, 1)]
)
def test_sam2long_presets(made: list[Any], name: str, quality: float, uncertainty: float) -> None:
    tree: Any = parts.load_propagator(f"{name}:sam2-small", Encoder(), "cpu")
    assert isinstance(tree, MemoryTree) and tree.paths == 3 and tree.uncertainty == uncertainty
    assert made == [["sam2-small", "cpu", ReliableFrames(quality)]]


def test_a_tree_over_the_default() -> None:
    tree: Any = parts.load_propagator("sam2long:affinity", Encoder())
    assert isinstance(tree.propagator, Affinity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sam2.1-tinny", "no propagator 'sam2.1-tinny'; did you mean sam2.1-tiny?"),
        ("afinity", "did you mean affinity?"),
        ("sam2long:", "no propagator ''"),
        ("tree:sam2.1-tiny", "no propagator 'tree:sam2.1-tiny'"),
        ("sam2.1-tiny@500", "must be a multiple of 32 from 128 to 4096"),
        ("sam2.1-tiny@", "must be a multiple of 32"),
        ("sam2.1-tiny@64", "must be a multiple of 32 from 128"),
    ],
)
def test_names_that_are_none(made: list[Any], name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parts.load_propagator(name, Encoder())


def test_weights_that_are_not_here_are_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match="masklet weights fetch sam2-large"):
        parts.load_propagator("sam2-large", Encoder())
    assert list(tmp_path.iterdir()) == []


def test_devices() -> None:
    assert parts.found_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no device 'gpu'"):
        parts.found_device("gpu")
    if not torch.cuda.is_available():
        assert parts.found_device("auto") == torch.device("cpu")
        with pytest.raises(InputError, match="device cuda: not on this machine"):
            parts.found_device("cuda")
