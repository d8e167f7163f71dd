"""The state of every live system of queries is as large after many frames as after few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import masklet
from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.query_video.genvis import GenvisNet, GenvisNetSettings
from masklet.models.query_video.heads import save_heads
from masklet.models.query_video.rocovis import RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_weights import save_slot_model
from masklet.models.transformers_output import drop_transformers_output
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner

SIZES = SmallMask2FormerSettings(hidden=32, encoder_layers=1, decoder_layers=1, queries=6, heads=4)
FRAMES = 16
EARLY = 7  # frames after which nothing grows any more


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights of every kind, all random."""
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    folder = tmp_path_factory.mktemp("streams")
    torch.manual_seed(0)
    net = create_small_mask2former(SIZES, ("disc", "square"))
    save_small(folder / "small.safetensors", net, SIZES, (64, 64))
    at = {"classes": 2, "width": 32, "heads": 4, "hidden": 32, "layers": 1, "mask_width": 32}
    heads = ReferringTracker(TrackerSettings(**at)), TemporalRefiner(RefinerSettings(**at))
    save_heads(folder / "heads.safetensors", ("disc", "square"), tracker=heads[0], refiner=heads[1])
    for kind, made in (
        ("rocovis", RocovisNet(net, RocovisNetSettings(width=32, heads=4))),
        ("genvis", GenvisNet(net, GenvisNetSettings(1, 1, 32, 4, 5))),
    ):
        save_slot_model(folder / f"{kind}.safetensors", kind, made, 64)
    sizes: dict[str, Any] = dict.fromkeys(("hidden_size", "intermediate_size", "image_size"), 32)
    with drop_transformers_output():
        config = VideomtConfig(**sizes, num_hidden_layers=2, num_attention_heads=2, num_blocks=1, num_queries=4)
        VideomtForUniversalSegmentation(config).save_pretrained(folder / "videomt")
    return folder


def list_state_sizes(system: Any) -> list[int]:
    """Bytes of the state after each frame that was answered."""
    noise = np.random.default_rng(0)
    frames = [Frame(t, noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for t in range(FRAMES)]
    stream = system.stream(frames)
    return [count_tensor_bytes(stream.state) for _ in stream]


@pytest.mark.parametrize(
    ("system", "weights", "settings"),
    [
        ("minvis", "small.safetensors", {}),
        ("ctvis", "small.safetensors", {}),
        ("dvis", "small.safetensors+heads.safetensors", {}),
        ("dvis-offline", "small.safetensors+heads.safetensors", {"clip": 2}),
        ("rocovis", "rocovis.safetensors", {}),
        ("genvis", "genvis.safetensors", {"frames": 3}),
        ("videomt", "videomt", {}),
    ],
)
def test_a_stream_does_not_grow(
    system: str, weights: str, settings: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    made = masklet.load(system, segmenter=weights, live=True, **settings).system
    sizes = list_state_sizes(made)
    assert len(sizes) == FRAMES and sizes[-1] > 0 and {*sizes[EARLY:]} == {sizes[-1]}


def test_genvis_forgets_live_and_nothing_in_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    weights = "genvis.safetensors"
    kept = {
        live: masklet.load("genvis", segmenter=weights, live=live).system.segmenter.net.settings.frames
        for live in (True, False)
    }
    assert kept == {True: 100, False: None}
    assert len({*list_state_sizes(masklet.load("genvis", segmenter=weights).system)}) == FRAMES
    with pytest.raises(masklet.InputError, match="frames = 0: it counts from 1 on"):
        masklet.load("genvis", segmenter=weights, frames=0)
