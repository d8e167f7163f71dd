"""Parts of other packages, through entry points, by the command line and the library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import call_masklet
from PIL import Image

import masklet
from masklet import builtins
from masklet.builtins import SEGMENTERS
from masklet.core import memory
from masklet.core.choices import check_choice
from masklet.core.part_request import PartName, parse_part_name
from masklet.registry import Registry

PLUGIN = Path(__file__).parent / "plugin"
POINTS = """[masklet.segmenters]
toy = toy:bright
motion = toy:load_bright
[masklet.propagators]
toystill = toy:load_still
[masklet.systems]
toysystem = toy:build_sam2bmp
[masklet.metrics]
toymetric = toy:count_videos
[masklet.formats]
toyformat = toy:write_count
[masklet.exports]
toyexport = toy:write_index
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The toy package, as pip leaves one."""
    info = tmp_path / "site" / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "site" / "toy.py").write_text((PLUGIN / "toy.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    forget_entries()
    yield tmp_path / "site"
    forget_entries()


def forget_entries() -> None:
    """What the registries know of other packages."""
    for registry in vars(builtins).values():
        if isinstance(registry, Registry):
            registry.__dict__.pop("entries", None)


def make_frames(length: int = 5) -> np.ndarray:
    frames = np.zeros((length, 32, 48, 3), np.uint8)
    frames[:, 8:20, 10:30] = 200
    return frames


def start(*words: str | Path, site: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, to which nothing is known but where the package is."""
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "masklet", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)


def test_a_part_of_another_package_by_the_command_line(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for n, frame in enumerate(make_frames()):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{n:05}.png")
    parts = ("--segmenter", "toy", "--propagator", "toystill", "--system", "toysystem")
    told = (*parts, "--no-overlay", "--format", "toyformat")
    done = start("run", tmp_path / "clip", "-o", tmp_path / "out", *told, site=installed)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "clip" / "masklets.json").read_text())
    assert result["provenance"]["settings"]["segmenter"] == "bright above 128"
    assert (tmp_path / "out" / "clip" / "count.txt").read_text() == "1"
    scored = call_masklet("eval", "toymetric", "--gt", tmp_path, "--pred", tmp_path / "out")
    assert scored.returncode == 0 and "videos" in scored.stdout, scored.stderr
    for name, file, words in (("toyexport", "index.txt", "clip"), ("toyformat", "clip/count.txt", "1")):
        done = call_masklet("export", name, tmp_path / "out", "-o", tmp_path / name)
        assert done.returncode == 0 and (tmp_path / name / file).read_text() == words, done.stderr
        twice = call_masklet("export", name, tmp_path / "out", "-o", tmp_path / name)
        assert twice.returncode == 2 and "--overwrite" in twice.stderr
    assert "toyexport" in start("export", "--help", site=installed).stdout
    again = call_masklet("run", tmp_path / "clip", "-o", tmp_path / "two", *told, "--set", "segmenter.level=250")
    assert again.returncode == 0 and "no object" in again.stderr
    assert "toy" in start("run", "--help", site=installed).stdout  # names are read once, when the options are made
    wrong = call_masklet("run", tmp_path / "clip", "-o", tmp_path / "three", *told, "--set", "segmenter.levl=1")
    assert wrong.returncode == 2 and "did you mean level?" in wrong.stderr


def test_what_ships_is_not_replaced(installed: Path) -> None:
    assert SEGMENTERS.find("motion").loader.startswith("masklet.")
    assert "toy" in SEGMENTERS.names


def test_its_stream_is_saved_and_goes_on(installed: Path, tmp_path: Path) -> None:
    model = masklet.load(segmenter="toy", propagator="toystill")
    frames = [masklet.Frame(n, image) for n, image in enumerate(make_frames())]
    whole = [f.ids for f in model.system.stream(iter(frames))]
    first = model.system.stream(iter(frames[:3]))
    begun = [f.ids for f in first]
    memory.save_memory(first.state, tmp_path / "state")
    rest = model.system.stream(iter(frames[3:]), memory.load_memory(tmp_path / "state"))
    assert begun + [f.ids for f in rest] == whole == [(1,)] * 5
    assert rest.state.sight.frames == 5


def test_names() -> None:
    assert parse_part_name("nano:/a/b@2.st@320") == PartName("nano:/a/b@2.st@320", "nano", "/a/b@2.st", "320")
    assert parse_part_name("sam2long:nano").below == "nano"
    with pytest.raises(masklet.InputError, match="no part 'afinity'; did you mean affinity"):
        check_choice("part", "afinity", ("affinity", "nano"))
