"""Parts by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from masklet import InputError, parts
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.nano.network import NanoSettings, create_nano, save_nano
from masklet.models.nano.propagator import Nano
from masklet.models.sam2.memory import RecentFrames, ReliableFrames
from masklet.models.segmenters.prompted import NanoEverything
from masklet.systems.sam2long import MemoryTree
from masklet.weights.catalog import CHECKPOINTS


def replace_sam2(monkeypatch: pytest.MonkeyPatch, build: Any, resize: Any, make: Any) -> None:
    """Puts `build`, `resize` and `make` in the place of SAM 2's reader, its change of image size and its propagator."""
    monkeypatch.setattr("masklet.models.sam2.edgetam.EdgeTam", None)  # which is not to be made
    monkeypatch.setattr("masklet.models.sam2.weights.build_sam2", build)
    monkeypatch.setattr("masklet.models.sam2.propagator.set_image_size", resize)
    monkeypatch.setattr("masklet.models.sam2.propagator.Sam2", make)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be loaded: (name, image size, policy, device)."""
    calls: list[Any] = []

    class Net:
        config = SimpleNamespace(model_type="sam2_video")

        def to(self, device: torch.device) -> Any:
            calls[-1] += [str(device)]
            return self

    replace_sam2(
        monkeypatch,
        lambda name: calls.append([name]) or (Net(), {"file": "sha"}),
        lambda net, side: calls[-1].append(side) or net,
        lambda net, policy, postprocess, weights: calls[-1].append(policy) or (policy, weights),
    )
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
        ("sam2long:", "say over which propagator, such as sam2long:nano"),
        ("affinity@320", "affinity takes nothing after '@'; write affinity"),
        ("affinity:x", "affinity takes nothing after ':'; write affinity"),
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
    assert parts.resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no device 'gpu'"):
        parts.resolve_device("gpu")
    if not torch.cuda.is_available():
        assert parts.resolve_device("auto") == torch.device("cpu")
        with pytest.raises(InputError, match="device cuda: not on this machine"):
            parts.resolve_device("cuda")


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_devas_network_by_name(nothing_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = r"propagator deva: .*`masklet weights fetch deva`, or download https://github.com/.*DEVA-propagation.pth"
    with pytest.raises(InputError, match=told):
        parts.load_propagator("deva", Encoder())
    with pytest.raises(InputError, match="no weight file"):
        parts.load_propagator("deva:elsewhere.pth", Encoder())
    asked: list[Any] = []
    monkeypatch.setattr(
        "masklet.models.xmem.propagator.load_xmem", lambda path, device: asked.append((path, str(device)))
    )
    (nothing_here / "deva").mkdir()
    (nothing_here / "deva" / "DEVA-propagation.pth").touch()
    with pytest.raises(InputError, match=r"has sha256 e3b0.*expected 52737482.*or name a file.*: deva:FILE"):
        parts.load_propagator("deva", Encoder(), "cpu")
    known = replace(CHECKPOINTS["deva"], sha256=None)  # that of the empty file is noted
    monkeypatch.setitem(CHECKPOINTS, "deva", known)
    parts.load_propagator("deva", Encoder(), "cpu")
    parts.load_propagator("deva:other.pth", Encoder(), "cpu")
    assert asked == [(nothing_here / "deva" / "DEVA-propagation.pth", "cpu"), (Path("other.pth"), "cpu")]


def test_everything_by_name(nothing_here: Path) -> None:
    with pytest.raises(InputError, match=r"weights sam2.1-large are not on this machine"):
        parts.load_segmenter("everything:sam2.1-large", Encoder())
    for name in ("everything", "everything:nano"):  # where nothing was fetched, what comes with the package
        assert isinstance(parts.load_segmenter(name, Encoder()), NanoEverything)
    (nothing_here / "sam2.1-tiny").mkdir()
    for file in ("config.json", "model.safetensors"):
        (nothing_here / "sam2.1-tiny" / file).touch()
    with pytest.raises(InputError, match=r"weights sam2.1-tiny"):  # found, and not the right file
        parts.load_segmenter("everything", Encoder())


def test_text_comes_first_and_all_weights_that_are_lacking_are_told(
    nothing_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="names nothing"):
        parts.load_text_segmenter("grounding-dino-tiny", " . ")
    with pytest.raises(
        InputError, match=r"weights grounding-dino-tiny are not .*; weights sam2\.1-large are not on this"
    ):
        parts.load_text_segmenter("grounding-dino-tiny:sam2.1-large@512", "dog.", "cpu")
    monkeypatch.setattr(parts, "load_masker", lambda name, device: name)
    with pytest.raises(InputError, match="weights grounding-dino-tiny are not on this machine"):
        parts.load_text_segmenter("grounding-dino-tiny", "dog.", "cpu")
    with pytest.raises(InputError, match="say what to find"):
        parts.load_segmenter("owlv2-base", Encoder())
    found = nothing_here / "d.json"
    found.write_text("[]")
    with pytest.raises(InputError, match="detections say themselves what was found; leave `text` out"):
        parts.load_text_segmenter(str(found), "dog.", "cpu")


def test_mask2former_by_name(nothing_here: Path) -> None:
    with pytest.raises(InputError, match="weights facebook/mask2former-x are not on this machine"):
        parts.load_segmenter("facebook/mask2former-x", Encoder())
    for side in ("x", "0", "9999"):
        with pytest.raises(InputError, match="the short side after @ must be"):
            parts.load_segmenter(f"facebook/mask2former-x@{side}", Encoder())


def test_the_nano_propagator_of_a_file(tmp_path: Path) -> None:
    settings = NanoSettings(side=64, layers=1, width=32)
    save_nano(tmp_path / "nano.safetensors", create_nano(settings), settings)
    for name in (f"nano:{tmp_path}/nano.safetensors", f"sam2long:nano:{tmp_path}/nano.safetensors"):
        loaded = parts.load_propagator(name, Encoder())
        assert isinstance(getattr(loaded, "propagator", loaded), Nano)
    for tree, uncertainty in (("sam2long", 5.0), ("sam2long-paper", 2.0), ("sam2long-cli", 1.0)):
        over: Any = parts.load_propagator(f"{tree}:nano:{tmp_path}/nano.safetensors", Encoder())
        assert over.uncertainty == uncertainty
    with pytest.raises(InputError, match="no such file; train one"):
        parts.load_propagator(f"nano:{tmp_path}/none.safetensors", Encoder())


@pytest.mark.parametrize(
    ("name", "settings", "policy"),
    [
        ("sam2.1-tiny", {"pointers": 4, "conditioning": 2}, RecentFrames(2, 4)),
        ("sam2long-paper:sam2-large", {"quality": 0.7, "modulation": 0.1}, ReliableFrames(0.7, weights=(0.9, 1.1))),
        ("sam2long:sam2-large", {"modulation": 0.0}, ReliableFrames(0.1, weights=(1.0, 1.0))),
    ],
)
def test_what_is_read_of_the_memory_is_set(made: list[Any], name: str, settings: dict[str, Any], policy: Any) -> None:
    parts.load_propagator(name, Encoder(), "cpu", settings)
    assert made[0][-1] == policy


@pytest.mark.parametrize("name", ["sam2.1-tiny", "sam2long:sam2.1-tiny@512"])
@pytest.mark.parametrize("asked", [True, False])
def test_sam2_goes_without_postprocessing_where_it_is_told_to(
    name: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    class Net:
        config = SimpleNamespace(model_type="sam2_video")

        def to(self, device: Any) -> Any:
            return self

    replace_sam2(
        monkeypatch,
        lambda name: (Net(), {}),
        lambda net, side: net,
        lambda net, policy, postprocess, weights: told.append(postprocess),
    )
    parts.load_propagator(name, Encoder(), "cpu", {} if asked else parts.choose_evaluation_settings(name))
    assert told == [asked]


@pytest.mark.parametrize(
    ("name", "setting"),
    [("sam2long:affinity", "quality"), ("sam2long:nano", "postprocess"), ("sam2long:still", "modulation")],
)
def test_a_tree_refuses_settings_of_what_is_not_below(name: str, setting: str) -> None:
    with pytest.raises(InputError, match=f"has no {setting}"):
        parts.load_propagator(name, Encoder(), "cpu", {setting: False if setting == "postprocess" else 0.5})


def test_a_short_memory_needs_another_propagator() -> None:
    assert parts.load_propagator("short:still", Encoder(), "cpu").description.endswith(
        "over still: masks where they were"
    )
    with pytest.raises(InputError, match="say over which propagator"):
        parts.load_propagator("short", Encoder(), "cpu")
