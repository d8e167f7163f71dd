"""`masklet reproduce list`, `show` and `check`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from masklet.cli import app
from masklet.reproduce.check import list_missing_for
from masklet.reproduce.recipes import read_recipes


def say(*words: str) -> tuple[int, str, str]:
    told = CliRunner().invoke(app, ["reproduce", *words])
    return told.exit_code, told.stdout, told.stderr


def test_the_list_has_every_row_with_its_figures() -> None:
    code, told, _ = say("list")
    assert code == 0 and all(f"  {name} " in told for name in read_recipes())
    assert "sam2long-5/paths-3                           J&F 80.8\n" in told and told.count("[not repeated]") == sum(
        bool(r.reason) for r in read_recipes().values()
    )
    assert "sam2bmp-main: SAM2BMP, Table Main (Tables 1 and 2)" in told


def test_the_list_of_a_paper_or_a_table() -> None:
    _, told, _ = say("list", "deva")
    assert "deva-6/short-track" in told and "dvis" not in told
    _, told, _ = say("list", "dvis-ii")
    assert told.count("\n") == 8
    code, _, told = say("list", "dvis-3")
    assert code == 2 and "no table or paper 'dvis-3'; there are: deva, deva-1" in told


def test_a_row_is_shown_with_all_that_it_is_made_of() -> None:
    _, told, _ = say("show", "deva-6/short-track")
    for part in (
        "system:      deva\n",
        "propagator:  short:deva\n",
        "settings:    clip=1 every=1 backward=false",
        "data:        VIPSeg, converted to 720p, val",
        "metric:      vipseg",
        "published:   VPQ^1 40.6",
        "weights:     deva",
    ):
        assert part in told, part
    _, told, _ = say("show", "dvis-8/full")
    assert (
        "training:    refiner over minvis-r50-ovis@360 from dvis-6/matched on ovis: 20,000 steps of 8 clips of 21, rate "
        "0.0001\n" in told
    )
    _, told, _ = say("show", "dvis-9/swin-l")
    assert "not repeated: operations of Swin-L are not counted here" in told
    code, _, told = say("show", "dvis-i/tracker-4")
    assert code == 2 and "did you mean dvis-i/tracker-" in told


@pytest.mark.parametrize("row", [n for n, r in read_recipes().items() if not r.reason and r.protocol != "cost"][::29])
def test_on_an_empty_folder_everything_is_named_at_once(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    recipe = read_recipes()[row]
    code, _, told = say("check", row, "--data", str(tmp_path))
    lines = told.splitlines()
    assert code == 2 and all(line.startswith(f"masklet: {row}: ") for line in lines)
    for weights in recipe.weights:
        assert any(f"weights {weights.name}" in line for line in lines), weights.name
    assert any(line.startswith(f"masklet: {row}: data {recipe.data}") for line in lines)
    assert ("detections:" in told) == ("{detections:" in recipe.segmenter)


def test_every_row_names_all_that_is_missing_on_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data, each of its weights by name and how they are had, and its detections; of a row that is not repeated why."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name, recipe in read_recipes().items():
        told = list_missing_for(recipe, tmp_path)
        if recipe.reason:
            assert told == [f"cannot be repeated by inference: {recipe.reason}"]
            continue
        wanted = [f"weights {one.name}" for one in recipe.weights]
        wanted += [f"data {recipe.data} ("] if recipe.protocol != "cost" else []
        wanted += ["detections: no folder "] if "{detections:" in recipe.segmenter else []
        assert len(told) == len(wanted), (name, told)
        assert all(any(one.startswith(start) for one in told) for start in wanted), (name, told)
        for one in (line for line in told if line.startswith("weights ")):
            assert any(way in one for way in ("masklet weights fetch", "by hand only: see http", "no such file in")), (
                one
            )


def test_what_needs_vit_l_says_what_is_missing(tmp_path: Path) -> None:
    rows = [name for name in read_recipes() if "vit-l" in name]
    assert len(rows) == 6
    for row in rows:
        code, _, told = say("check", row, "--data", str(tmp_path))
        assert code == 2 and "no list of the released files' tensors was to be had" in told


def test_settings_that_do_not_exist_are_named_with_all_else(tmp_path: Path) -> None:
    _, _, told = say(
        "check", "sam2bmp-5/all", "--data", str(tmp_path), "--set", "conff=0.5", "--set", "propagator.path=2"
    )
    assert "did you mean conf?" in told and "no setting propagator. 'path'" in told and "data ytvis21" in told
    _, _, told = say("check", "sam2bmp-5/all", "--data", str(tmp_path), "--set", "propagator=nanno")
    assert "no propagator 'nanno'; did you mean nano?" in told and "weights sam2-large" not in told


def test_it_loads_no_torch() -> None:
    script = "import masklet.cli.reproduce, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
