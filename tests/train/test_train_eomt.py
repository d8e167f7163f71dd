"""Training over a plain ViT from the command line: EoMT as a segmenter, and RoCoVIS and GenVIS over it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models.test_eomt import frames, network, save
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.models.mask2former.networks import wrap_query_network
from masklet.models.mask2former.weights import build_mask2former
from masklet.train.data.clips import TrainingClip
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.tasks.segmenter import fit_clip_to_network, predict_layers, prepare_images

SMALL = (
    "--data",
    "synthetic",
    "--size",
    "64x64",
    "--steps",
    1,
    "--batch",
    1,
    "--set",
    "val_clips=1",
    "--device",
    "cpu",
)


def call(*words: object) -> str:
    told = CliRunner().invoke(app, [*map(str, words)])
    assert told.exit_code == 0, (told.exception, told.output)
    return " ".join(told.output.split())


def test_clips_are_seen_as_frames_are_in_a_run() -> None:
    """Within the rounding of two ways of scaling; objects stay where they are seen."""
    halves, [frame] = wrap_query_network(network("eomt")), frames((30, 60), 1)
    smooth = np.kron(frame.image[::10, ::10], np.ones((10, 10, 1), np.uint8))
    image = torch.from_numpy(smooth).permute(2, 0, 1)[None]
    masks = torch.zeros(1, 1, 30, 60, dtype=torch.bool)
    masks[0, 0, :15, 30:] = True
    clip = fit_clip_to_network(TrainingClip(image, masks, masks.flatten(2).any(2), torch.tensor([0])), halves)
    want, inside = halves.prepare([type(frame)(0, smooth)], 64, torch.device("cpu"))
    found = prepare_images(clip.images, halves.multiple)
    assert inside == (32, 64) and found.shape == want.shape and (found - want).abs().max() < 3 / 57
    assert clip.masks[0, 0].nonzero().amin(0).tolist() == [0, 32] and int(clip.masks.sum()) == 16 * 32


def test_each_of_the_last_blocks_is_told_what_to_say() -> None:
    made = predict_layers(network("eomt"), torch.randn(2, 3, 64, 64))
    assert made.logits.shape == (3, 2, 6, 4) and made.masks.shape == (3, 2, 6, 16, 16)


@pytest.fixture(scope="module")
def eomt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EoMT for the categories of the generated clips, trained for a step from one for others."""
    at = tmp_path_factory.mktemp("eomt")
    told = call("train", "segmenter", "--from", save(network("eomt"), at / "start"), "-o", at / "out", *SMALL)
    assert "class head: 0 of 10 categories are known by name and kept" in told
    run = json.loads((at / "out/run.json").read_text())
    assert ["net.layers.", 0.1] in run["factors"] and len(run["weights"]) == 1
    return at / "out/weights"


def test_what_was_trained_is_an_eomt_for_the_data(eomt: Path) -> None:
    made = build_mask2former(eomt)
    assert tuple(made.net.config.id2label.values()) == tuple(SyntheticClips().categories)
    moved = {n for n, v in made.net.state_dict().items() if not torch.equal(v, network("eomt").state_dict()[n])}
    assert any(n.startswith("layers.") for n in moved) and {"query.weight", "class_predictor.bias"} <= moved
    clip = np.random.default_rng(0).integers(0, 256, (2, 40, 64, 3), np.uint8)
    assert masklet.segment(clip, system="minvis", segmenter=str(eomt), min_score=0).masklets


@pytest.mark.parametrize(("row", "system"), [("uvla++", "rocovis"), ("queries", "genvis")])
def test_a_slot_model_over_it_is_trained_runs_and_goes_on(row: str, system: str, eomt: Path, tmp_path: Path) -> None:
    at = ("train", "rocovis", *SMALL, "--frames", 2, "--set", f"row={row}")
    call(*at, "--segmenter", eomt, "-o", tmp_path / "a")
    file = tmp_path / "a/weights.safetensors"
    clip = np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), np.uint8)
    found = masklet.segment(clip, system=system, segmenter=str(file), min_score=0)
    assert found.masklets and found.provenance.system == system
    call(*at, "--from", file, "-o", tmp_path / "b")
    assert ["segmenter.layers.", 0.1] in json.loads((tmp_path / "b/run.json").read_text())["factors"]
