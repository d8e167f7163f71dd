"""What a user gets who installs the wheel: the package's types, for their own scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RIGHT = """
import masklet
from masklet import Detections, Frame

model = masklet.load(segmenter="nano", max_objects=8)
for result in model.segment(["a.mp4", "b.mp4"]):
    reveal_type(result)
result = masklet.track("a.mp4", {0: {1: masklet.Box(1, 2, 3, 4), 2: masklet.Point(5, 6)}})
size: tuple[int, int] = result.size
for masklet_ in result.masklets:
    for frame, sighting in masklet_.sightings.items():
        area: int = sighting.mask.area
with masklet.open_video("a.mp4") as video:
    reveal_type(video)
    for one in masklet.load("deva").stream(video):
        ids: tuple[int, ...] = one.ids
reveal_type(masklet.segment("a.mp4"))
"""
WRONG = """
import masklet

masklet.track("a.mp4", prompts={0: 5})
masklet.segment("a.mp4").masklet
masklet.segmnt("a.mp4")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and what it depends on from this one."""
    folder = tmp_path_factory.mktemp("user")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False)
    [site] = (folder / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(next(folder.glob("masklet-*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env" / "bin" / "python"


def test_a_users_script_is_type_checked(python: Path, tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    if (ROOT / ".mypy_cache").is_dir():  # what it knows of torch and others: half a minute
        shutil.copytree(ROOT / ".mypy_cache", tmp_path / ".mypy_cache")
    # The package's own options, or what is known of supervision and cv2 is not taken: 20 s.
    options = ["--strict", "--config-file", str(ROOT / "pyproject.toml"), "--python-executable", str(python)]
    command = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert "right.py" not in "".join(line for line in said.splitlines() if "error:" in line), said
    assert said.count("masklet.core.result.VideoResult") == 2 and "frame_source.FrameSource" in said
    assert 'no attribute "masklet"' in said and "segmnt" in said and said.count("wrong.py") == 3, said


def test_the_wheel_holds_what_runs_need(python: Path) -> None:
    [package] = python.parents[1].glob("lib/python*/site-packages/masklet")
    assert (package / "py.typed").is_file()
    assert {p.name for p in (package / "weights" / "files").iterdir()} == {
        p.name for p in (ROOT / "src/masklet/weights/files").iterdir()
    }
    done = subprocess.run([python, "-m", "masklet", "weights", "list"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "nano-propagator" in done.stdout, done.stderr
