"""MinVIS and DVIS from checkpoints of the official form, through the library's door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.mask2former_fixtures import FOLDER, found, network, official, table
from typer.testing import CliRunner

import masklet
from masklet.cli.weights import app as weights
from masklet.core.frames import Frame

CLIP = np.random.default_rng(0).integers(0, 256, (3, 60, 84, 3), np.uint8)
NAME = next(iter(found("e2e_*")), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints with all parts, without the refiner, and of the segmenter alone."""
    if NAME is None:
        pytest.skip(f"no e2e fixtures under {FOLDER}: set MASKLET_GOLDEN")
    state, folder = official(table(NAME)["state_dict"]), tmp_path_factory.mktemp("weights")
    for file, without in {"offline": (), "online": ("refiner.",), "minvis": ("refiner.", "tracker.")}.items():
        torch.save({"model": {k: v for k, v in state.items() if not k.startswith(without)}}, folder / f"{file}.pth")
    objects = table("genvis_module")["small"]["state_dict"]
    made = {k: v for k, v in state.items() if not k.startswith(("refiner.", "tracker."))} | official(
        {f"vita_module.{k}": shape for k, shape in objects.items()}
    )
    losses = {f"{name}_criterion.empty_weight": torch.ones(6) for name in ("vita", "genvis")}
    torch.save({"model": made | losses}, folder / "genvis.pth")
    return folder


@pytest.mark.parametrize(
    ("system", "file"), [("minvis", "minvis"), ("dvis", "online"), ("dvis-offline", "offline"), ("genvis", "genvis")]
)
def test_a_checkpoint_runs(system: str, file: str, folder: Path) -> None:
    own = {"min_score": 0.0} | ({"top": 7} if system == "genvis" else {"window": 2})
    result = masklet.segment(CLIP, system=system, segmenter=f"{folder / file}.pth@64", **own)
    assert result.length == 3 and result.masklets
    assert result.provenance.system == system and own.items() <= result.provenance.settings.items()
    assert [len(sha) for sha in result.provenance.weights.values()] == [64]


@pytest.mark.parametrize(
    ("system", "file"),
    [
        ("dvis", "minvis"),
        ("dvis-offline", "minvis"),
        ("dvis-offline", "online"),
        ("genvis", "minvis"),
        ("dvis", "genvis"),
    ],
)
def test_a_checkpoint_of_less_is_refused(system: str, file: str, folder: Path) -> None:
    with pytest.raises(masklet.InputError):
        masklet.load(system, segmenter=f"{folder / file}.pth")


@pytest.mark.parametrize(("system", "file"), [("dvis", "offline"), ("dvis-offline", "online")])
def test_online_and_offline_weights_are_not_mixed_up(system: str, file: str, folder: Path) -> None:
    with pytest.raises(masklet.InputError, match=f"weights of dvis-{file}"):
        masklet.load(system, segmenter=f"{folder / file}.pth")


def test_genvis_is_its_mask2former_and_its_object_decoder(folder: Path) -> None:
    """The parts of the file, by hand: class logits and masks of two frames."""
    model: Any = masklet.load("genvis", segmenter=f"{folder / 'genvis.pth'}@64").system.segmenter
    given = torch.load(folder / "genvis.pth")["model"]
    assert all(torch.equal(v, given[f"vita_module.{k}"]) for k, v in model.net.objects.state_dict().items())
    frames = [Frame(t, image) for t, image in enumerate(CLIP[:2])]
    memory, before = model.empty(), None
    for frame in frames:
        [features] = model.encode([frame])
        slots = model.predict(memory, features)
        memory = model.commit(memory, features, slots, model.trust(slots))
        alone = network(NAME).model(model._look.pixels([frame])[0], output_hidden_states=True)
        queries = alone.transformer_decoder_intermediate_states[-1].transpose(0, 1)
        output = model.net.objects(before, queries)[-1]
        before = model.net.objects.remembered(before, output)
        normed = model.net.objects.decoder_norm(output)
        torch.testing.assert_close(slots.class_logits[0], model.net.objects.classify(normed), atol=1e-4, rtol=0)
        pixels = model.net.objects.pixels(alone.pixel_decoder_last_hidden_state)[0]
        torch.testing.assert_close(slots.mask_logits[0], model.net.objects.masks(normed, pixels), atol=1e-3, rtol=0)


def test_names_of_ours_are_files_in_the_weights_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    name = "dvis-online-r50-ovis"
    with pytest.raises(masklet.InputError, match="by hand only"):
        masklet.load("dvis", segmenter=name)
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.pth").symlink_to(folder / "online.pth")
    assert masklet.load("dvis", segmenter=f"{name}@64")
    (tmp_path / name / f"{name}.pth").unlink()
    (tmp_path / name / f"{name}.pth").symlink_to(folder / "offline.pth")
    (tmp_path / name / "record.json").unlink()
    with pytest.raises(masklet.InputError, match=f"weights of dvis-offline, but {name} is meant"):
        masklet.load("dvis", segmenter=f"{name}@64")
    told = CliRunner().invoke(weights, ["verify", name])
    assert told.exit_code == 2 and "weights of dvis-offline" in told.stderr


def test_a_stream_of_queries(folder: Path) -> None:
    answers = list(masklet.stream(CLIP, system="dvis", segmenter=f"{folder / 'online'}.pth@64"))
    assert [a.index for a in answers] == [0, 1, 2]
