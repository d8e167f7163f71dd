"""MinVIS and DVIS from checkpoints of the official form, through the library's door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mask2former_fixtures import FOLDER, found, official, table

import masklet

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
    return folder


@pytest.mark.parametrize(("system", "file"), [("minvis", "minvis"), ("dvis", "online"), ("dvis-offline", "offline")])
def test_a_checkpoint_runs(system: str, file: str, folder: Path) -> None:
    result = masklet.segment(CLIP, system=system, segmenter=f"{folder / file}.pth@64", window=2)
    assert result.length == 3 and result.masklets
    assert result.provenance.system == system and result.provenance.settings["window"] == 2
    assert [len(sha) for sha in result.provenance.weights.values()] == [64]


@pytest.mark.parametrize(
    ("system", "file"), [("dvis", "minvis"), ("dvis-offline", "minvis"), ("dvis-offline", "online")]
)
def test_a_checkpoint_of_less_is_refused(system: str, file: str, folder: Path) -> None:
    with pytest.raises(masklet.InputError):
        masklet.load(system, segmenter=f"{folder / file}.pth")


def test_a_stream_of_queries(folder: Path) -> None:
    answers = list(masklet.stream(CLIP, system="dvis", segmenter=f"{folder / 'online'}.pth@64"))
    assert [a.index for a in answers] == [0, 1, 2]
