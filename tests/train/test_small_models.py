"""The small trained models that are kept with the benchmarks: they are those of their card, and do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from masklet.models.mask2former.segmenter import Mask2FormerSettings, load_mask2former
from masklet.models.query_video.slot_weights import load_slot_model
from masklet.train.data.clips import seed_item_generator
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.scoring import compute_image_scores
from masklet.train.tasks.propagator import make_propagator_frames
from masklet.weights.store import compute_hash

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "weights"
CPU = torch.device("cpu")


def test_the_files_are_those_of_the_card() -> None:
    [line] = re.findall(r"^\| sha256 .*$", (ROOT / "cards" / "small-rocovis.md").read_text(), re.M)
    files = ("small-segmenter", "small-rocovis")
    assert re.findall(r"[0-9a-f]{64}", line) == [compute_hash(FOLDER / f"{name}.safetensors").sha256 for name in files]


def test_the_segmenter_finds_what_it_was_trained_on() -> None:
    segmenter = load_mask2former(
        FOLDER / "small-segmenter.safetensors", CPU, settings=Mask2FormerSettings(threshold=0.05)
    )
    settings = SyntheticSettings(
        size=(64, 96), categories=segmenter.categories, objects=(2, 4), radius=(0.18, 0.32), blur=0.0, noise=2.0
    )
    clips = [SyntheticClips(settings).clip(seed_item_generator(99, n), 1) for n in range(20)]
    found = [segmenter.segment(None, make_propagator_frames(clip), [])[0] for clip in clips]
    assert compute_image_scores(clips, found, segmenter.categories)["AP50"] > 40  # 54.8 on a hundred pictures


def test_rocovis_is_one_that_run_loads() -> None:
    assert load_slot_model(FOLDER / "small-rocovis.safetensors", "rocovis", CPU).categories == (
        "star",
        "ring",
        "square",
    )
