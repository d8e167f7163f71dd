"""`masklet weights`, driven as a user would drive it, and once as a process against a hub on this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models.test_zoo_fetch import FakeHub, hub  # noqa: F401
from typer.testing import CliRunner, Result

from masklet.cli import app
from masklet.weights import fetch as fetching
from masklet.weights.catalog import CHECKPOINTS, TENSORS
from masklet.weights.store import ZOO


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty weights folder, and an empty hub cache."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["weights", *words])


def put(folder: Path, content: bytes = b"tensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / TENSORS).write_bytes(content)
    return folder / TENSORS


def test_list_says_what_there_is_and_what_is_here(weights: Path) -> None:
    path = put(weights / "sam2-small")
    other = put(weights / "someone" / "model")
    said = call("list")
    lines = {line.split()[0]: line for line in said.stdout.splitlines()}
    assert said.exit_code == 0 and [*lines] == ["NAME", *ZOO, *CHECKPOINTS, "someone/model"]
    assert " ".join(lines["mobilenetv2"].split()[1:5]) == "1 MB MIT packaged"
    assert " ".join(lines["sam2.1-large"].split()[1:]) == "898 MB Apache-2.0 not here"
    assert lines["sam2-small"].endswith(f" here            {path}")
    assert lines["someone/model"].endswith(f"see the hub here            {other}")
    assert call("list", "--quiet").output == ""


def test_where_prints_one_path(weights: Path) -> None:
    assert call("where").output == f"{weights}\n"
    assert call("where", "sam2.1-tiny").output == f"{weights / 'sam2.1-tiny'}\n"
    assert call("where", "mobilenetv2").output == f"{ZOO['mobilenetv2'].path}\n"
    path = put(weights / "sam2.1-tiny")
    assert call("where", "sam2.1-tiny").output == f"{path}\n"


@pytest.mark.parametrize("command", ["where", "fetch", "verify"])
def test_an_unknown_name_ends_in_one_sentence_and_code_2(command: str) -> None:
    said = call(command, "sam2.1-tni")
    assert said.exit_code == 2 and said.stdout == ""
    assert said.stderr.startswith(
        "masklet: no weights 'sam2.1-tni'; did you mean sam2.1-tiny? `masklet weights list` has all"
    )
    assert said.stderr.count("\n") == 1


def test_verify_checks_what_is_here_and_goes_on_after_a_wrong_one(weights: Path) -> None:
    packaged = [f"{name}: right, sha256 {one.sha256}" for name, one in ZOO.items()]
    assert call("verify").output.splitlines() == packaged
    put(weights / "sam2.1-tiny")
    put(weights / "someone" / "model")
    sha256 = hashlib.sha256(b"tensors").hexdigest()
    said = call("verify")
    assert said.exit_code == 2
    assert said.stdout.splitlines()[len(packaged) :] == [
        f"someone/model: no sha256 to compare with, noted for later, sha256 {sha256}"
    ]
    assert f"sam2.1-tiny/model.safetensors has sha256 {sha256} in 7 bytes, expected 48c1446" in said.stderr
    assert call("verify", "someone/model").output == f"someone/model: right, sha256 {sha256}\n"
    assert call("verify", "someone/model", "--quiet").output == ""


def test_verify_of_a_model_that_is_not_here_says_how_to_get_it() -> None:
    said = call("verify", "sam2.1-tiny")
    assert said.exit_code == 2 and "run `masklet weights fetch sam2.1-tiny` (156 MB)" in said.stderr


def test_verify_looks_at_every_tensor_of_devas_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose sha256 its authors do not publish: one that has the right one and other tensors would be told."""
    path = weights / "deva/DEVA-propagation.pth"
    path.parent.mkdir(parents=True)
    torch.save({"pixel_encoder.x": torch.zeros(1)}, path)
    told = call("verify", "deva")
    assert told.exit_code == 2 and "expected 5273748214" in told.stderr
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(CHECKPOINTS, "deva", replace(CHECKPOINTS["deva"], sha256=sha256))
    told = call("verify", "deva")
    assert told.exit_code == 2 and "not the weights of DEVA's propagation network: it lacks" in told.stderr


def test_fetch_without_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(fetching, "describe_remote", unreachable)
    said = call("fetch", "sam2.1-tiny")
    assert said.exit_code == 2 and said.stderr.count("\n") == 1
    assert "cannot be fetched (no route)" in said.stderr and "`hf download facebook/sam2.1-hiera-tiny" in said.stderr


def test_a_process_fetches_from_the_endpoint_and_not_twice(hub: FakeHub, tmp_path: Path) -> None:  # noqa: F811
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}
    env = {**os.environ, **home, "MASKLET_WEIGHTS": str(tmp_path / "weights")}

    def fetch(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "masklet", "weights", "fetch", "owner/toy", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True)

    first = fetch()
    path = tmp_path / "weights" / "owner" / "toy" / TENSORS
    assert path.stat().st_size == 2_560_000 and first.stdout == ""
    assert f"owner/toy: 3 MB from owner/toy to {path.parent}" in first.stderr
    assert f"owner/toy: here and right, {path}" in first.stderr and "model.safetensors" in first.stderr
    asked = len(hub.asked)
    assert fetch("--quiet").stderr == "" and len(hub.asked) == asked


def test_fetch_of_what_comes_with_the_package_has_nothing_to_do() -> None:
    assert call("fetch", "mobilenetv2").exit_code == 0


def test_packaged_weights_are_listed_under_their_own_licences() -> None:
    """As the cards and the README have them: MobileNetV2's is MIT, the others' Apache-2.0."""
    lines = {line.split()[0]: line for line in CliRunner().invoke(app, ["weights", "list"]).stdout.splitlines()}
    assert {name: " MIT " in lines[name] for name in ZOO} == {name: name.startswith("mobilenetv2") for name in ZOO}
    assert all("Apache-2.0" in lines[name] for name in ZOO if not name.startswith("mobilenetv2"))
