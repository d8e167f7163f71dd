"""The small Mask2Former: its backbone, its files, and its place among the segmenters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.protocols import Segmenter, SlotSegmenter
from masklet.models.mask2former.segmenter import Mask2Former, load_mask2former
from masklet.models.mask2former.small import (
    SmallMask2FormerSettings,
    create_small_mask2former,
    is_small,
    load_small,
    save_small,
)
from masklet.models.mask2former.weights import build_mask2former, is_mask2former
from masklet.nn.mobilenet import MobileNetV2
from masklet.weights.format import read_safetensors_metadata
from masklet.weights.store import ZOO, read_packaged

TINY = SmallMask2FormerSettings(32, 1, 1, 5, 2, 32, 32)
NAMES = ("cat", "dog")


@cache
def network() -> Any:
    return create_small_mask2former(TINY, NAMES).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_small(path, network(), TINY, (64, 96))
    return path


def picture(h: int = 64, w: int = 96) -> torch.Tensor:
    return torch.randn(1, 3, h, w, generator=torch.Generator().manual_seed(0))


# -- the backbone


def test_the_first_two_maps_are_the_packaged_encoders() -> None:
    packaged = MobileNetV2().eval()
    packaged.load_state_dict(read_packaged(ZOO["mobilenetv2"]))
    with torch.no_grad():
        four, eight, _ = packaged(picture())
        maps = network().model.pixel_level_module.encoder(picture()).feature_maps
    torch.testing.assert_close(maps[0], four, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps[1], eight, atol=1e-5, rtol=1e-5)


def test_strides_and_channels() -> None:
    with torch.no_grad():
        maps = network().model.pixel_level_module.encoder(picture(128, 160)).feature_maps
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 32, 40), (32, 16, 20), (96, 8, 10), (96, 4, 5)]


def test_every_weight_learns_and_training_is_no_other_mode() -> None:
    net = create_small_mask2former(TINY, NAMES).train()
    encoder = net.model.pixel_level_module.encoder
    maps = encoder(picture()).feature_maps
    with torch.no_grad():
        used = encoder.eval()(picture()).feature_maps
    assert all(torch.equal(a, b) for a, b in zip(maps, used, strict=True))
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert not any("running_mean" in name for name in net.state_dict())


# -- the network


def test_a_seed_is_a_network_and_others_random_numbers_do_not_matter() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    state = create_small_mask2former(TINY, NAMES).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[k], v) for k, v in network().state_dict().items())
    other = create_small_mask2former(TINY, NAMES, seed=1).state_dict()
    assert not torch.equal(other["class_predictor.weight"], state["class_predictor.weight"])


def test_a_new_network_grows_masks_by_likeness() -> None:
    """The mask head passes on what follows a norm; cross-attention passes on what it reads."""
    decoder = network().model.transformer_module.decoder
    normed = nn.functional.layer_norm(torch.randn(7, 3, 32, generator=torch.Generator().manual_seed(1)), (32,))
    with torch.no_grad():
        torch.testing.assert_close(decoder.mask_predictor.mask_embedder(normed), 0.2 * normed, atol=1e-5, rtol=1e-5)
        one = torch.randn(1, 1, 32).expand(9, 1, 32)  # wherever it looks it reads the same
        read, _ = decoder.layers[0].cross_attn(normed[:, :1], one, one)
    torch.testing.assert_close(read, one[:7], atol=1e-5, rtol=1e-5)


def test_settings_are_the_networks_sizes() -> None:
    net: Any = create_small_mask2former(SmallMask2FormerSettings(), NAMES)
    assert net.model.transformer_module.queries_features.weight.shape == (24, 64)
    assert len(net.model.transformer_module.decoder.layers) == 3
    assert len(net.model.pixel_level_module.decoder.encoder.layers) == 2
    assert sum(p.numel() for p in net.parameters()) < 1_000_000


def test_it_is_a_segmenter_and_gives_slots() -> None:
    made = Mask2Former(network(), shortest=64, threshold=0.0)
    assert isinstance(made, Segmenter) and isinstance(made, SlotSegmenter) and made.categories == NAMES
    assert "mobilenet_v2" in made.description
    noise = np.random.default_rng(0)
    frames = [Frame(t, noise.integers(0, 256, (60, 84, 3), dtype=np.uint8)) for t in range(2)]
    [first, _], _ = made.segment(None, frames, [])
    assert 0 < len(first) <= 5 and first.masks.shape[1:] == (60, 84)
    slots = made.slots(frames)
    assert slots.queries.shape == (2, 5, 32) and slots.class_logits.shape == (2, 5, 3)
    assert slots.mask_logits.shape == (2, 5, 16, 24)


# -- files


def test_a_file_gives_back_all_that_it_was_given(file: Path) -> None:
    held = load_small(file)
    assert held.settings == TINY and held.size == (64, 96)
    assert [held.net.config.id2label[n] for n in range(2)] == [*NAMES]
    assert all(torch.equal(held.net.state_dict()[k], v) for k, v in network().state_dict().items())
    assert not held.net.training and not any(p.requires_grad for p in held.net.parameters())


def test_it_is_loaded_by_its_path_at_its_size(file: Path) -> None:
    assert is_mask2former(str(file)) and is_small(file)
    built = build_mask2former(str(file))
    assert built.shortest == 64 and built.kind == "small-mask2former" and list(built.weights) == [file.name]
    made = load_mask2former(file, torch.device("cpu"))
    assert made.shortest == 64 and made.categories == NAMES
    assert load_mask2former(file, torch.device("cpu"), shortest=128).shortest == 128


def test_a_damaged_file_is_told(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(file.read_bytes()[:-9])
    for reader in (load_small, build_mask2former):
        with pytest.raises(InputError, match=r"short\.safetensors: damaged"):
            reader(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", "{"),
        ("settings", '{"hidden": 32}'),
        ("settings", '{"hidden": 33, "encoder_layers": 1}'),
        ("categories", '["one"]'),
        ("categories", "7"),
        ("size", "[1]"),
        ("size", None),
    ],
)
def test_metadata_that_do_not_fit_are_told(file: Path, tmp_path: Path, name: str, value: str | None) -> None:
    path, told = tmp_path / "odd.safetensors", read_safetensors_metadata(file)
    changed = {**told, name: value} if value is not None else {k: v for k, v in told.items() if k != name}
    save_file(load_file(file), path, changed)
    with pytest.raises(InputError, match=r"odd\.safetensors: (damaged|not the weights of the small Mask2Former)"):
        load_small(path)


def test_missing_weights_are_told(file: Path, tmp_path: Path) -> None:
    path, state = tmp_path / "less.safetensors", load_file(file)
    del state["class_predictor.bias"]
    save_file(state, path, read_safetensors_metadata(file))
    with pytest.raises(
        InputError, match=r"less\.safetensors: not the weights of the small Mask2Former that it says it is: it lacks"
    ):
        load_small(path)


def test_another_kind_of_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    assert not is_small(path)
    with pytest.raises(InputError, match="not weights of a small Mask2Former"):
        load_small(path)
    with pytest.raises(InputError, match=r"not weights of Mask2Former, MinVIS, DVIS or GenVIS"):
        build_mask2former(path)
