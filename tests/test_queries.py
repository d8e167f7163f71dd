"""Systems of queries by name, from files that were trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import masklet
from masklet.builtins import QUERY_SYSTEMS
from masklet.cli import app
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.query_video.heads import save_heads
from masklet.models.query_video.rocovis import RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_weights import save_slot_model
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner

CLIP = np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), np.uint8)
NAMES = ("disc", "square")
SIZES = SmallMask2FormerSettings(hidden=32, encoder_layers=1, decoder_layers=1, queries=6, heads=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Mask2Former, heads over it, heads over other ones, and a RoCoVIS, all of random weights."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    net = create_small_mask2former(SIZES, NAMES)
    save_small(folder / "small.safetensors", net, SIZES, (40, 64))
    for file, names, width in (("heads", NAMES, 32), ("others", ("disc", "ring"), 32), ("wide", NAMES, 64)):
        at = {"classes": 2, "width": width, "heads": 4, "hidden": 32, "layers": 1, "mask_width": 32}
        tracker, refiner = ReferringTracker(TrackerSettings(**at)), TemporalRefiner(RefinerSettings(**at))
        save_heads(folder / f"{file}.safetensors", names, tracker=tracker, refiner=refiner)
    alone = ReferringTracker(TrackerSettings(**{**at, "width": 32}))
    save_heads(folder / "tracker.safetensors", NAMES, tracker=alone)
    save_slot_model(
        folder / "rocovis.safetensors", "rocovis", RocovisNet(net, RocovisNetSettings(width=32, heads=4)), 40
    )
    return folder


@pytest.mark.parametrize(
    ("system", "files"),
    [("minvis", "small"), ("dvis", "small+heads"), ("dvis-offline", "small@64+heads"), ("rocovis", "rocovis@64")],
)
def test_what_was_trained_here_runs(system: str, files: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    base, *heads = files.split("+")
    name, at, side = base.partition("@")
    given = "+".join([f"{name}.safetensors{at}{side}", *(f"{h}.safetensors" for h in heads)])
    result = masklet.segment(CLIP, system=system, segmenter=given, window=2)
    assert result.length == 3 and result.provenance.system == system
    assert {*result.provenance.weights} == {f"{f}.safetensors" for f in (name, *heads)}
    live = {"clip": 2} if system == "dvis-offline" else {}
    assert [a.index for a in masklet.stream(CLIP, system=system, segmenter=given, **live)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("system", "given", "words"),
    [
        (
            "dvis",
            "small.safetensors",
            "small.safetensors: weights of small-mask2former, this needs those of dvis-online",
        ),
        ("dvis", "small.safetensors+others.safetensors", "trained over a segmenter of 2 categories"),
        ("dvis", "small.safetensors+wide.safetensors", "width 64, but .*small.safetensors has 2 and 32"),
        ("dvis", "small.safetensors+none.safetensors", "none.safetensors: no such file; pass a file of query heads"),
        ("dvis", "small.safetensors@tall+heads.safetensors", "small.safetensors@tall"),
        ("dvis-offline", "small.safetensors+tracker.safetensors", "tracker.safetensors: holds no refiner"),
        ("rocovis", "small.safetensors", "not weights of a rocovis.*, but of small-mask2former"),
        ("genvis", "rocovis.safetensors", "not weights of a genvis.*, but of rocovis"),
        ("rocovis", "none.safetensors", "none.safetensors: no such file; .*masklet train rocovis"),
    ],
)
def test_what_does_not_go_together_is_refused(
    system: str, given: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(masklet.InputError, match=words):
        masklet.load(system, segmenter=given)


@pytest.mark.parametrize("system", QUERY_SYSTEMS)
def test_a_system_of_queries_takes_no_detections(system: str, tmp_path: Path) -> None:
    for name in ("found.json", "found.xml", "found.txt"):
        (tmp_path / name).write_text("[]")
        with pytest.raises(masklet.InputError, match=rf"{name}: {system} takes no detections; take system='sam2bmp'"):
            masklet.load(system, segmenter=str(tmp_path / name))


@pytest.mark.parametrize("system", ["sam2bmp", "deva"])
def test_a_window_is_for_systems_that_have_one(system: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "clip", "--system", system, "--window", "5", "-o", str(tmp_path / "out")])
    assert f"--window 5: {system} sees one frame after the other; leave it out" in " ".join(done.output.split())
    done = CliRunner().invoke(
        app, ["run", "clip", "--system", "minvis", "--segmenter", "small", "--window", "0", "-o", "out"]
    )
    assert done.exit_code == 2 and "window = 0" in done.output
