"""README's commands, run as they stand there on clips of a few frames."""

from __future__ import annotations

import json
import re
import shlex
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.rle import Rle
from masklet.io.formats.davis import build_davis_palette
from masklet.io.video.encode import VideoWriter

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
COMMANDS = re.findall(r"^(masklet (?:run|track|eval) [^#\n]*)", README, re.MULTILINE)
LONG, SHORT = 12, 3  # frames of the clip, where prompts are in later ones and where not
SIZE = 240, 320


def draw_frames(length: int) -> np.ndarray:
    frames = np.random.default_rng(0).integers(90, 110, (length, *SIZE, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[60:120, 20 + 3 * t : 90 + 3 * t] = (220, 60, 40)
    return frames


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that README's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    Path("frames").mkdir()
    for n, frame in enumerate(draw_frames(SHORT)):
        Image.fromarray(frame).save(f"frames/{n:05}.png")
    mask = np.zeros(SIZE, bool)
    mask[60:120, 20:90] = True
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(mask.astype(np.uint8) * 3).save("labels.png")
    rle = Rle.encode_pixels(mask)
    entry = {"image_id": 0, "category_id": 1, "score": 0.99}
    entry["segmentation"] = {"size": list(SIZE), "counts": rle.counts.decode()}
    Path("dets.json").write_text(json.dumps([entry]))
    truth = Path("DAVIS/Annotations/480p/clip")
    truth.mkdir(parents=True)
    Path("DAVIS/ImageSets/2017").mkdir(parents=True)
    Path("DAVIS/ImageSets/2017/val.txt").write_text("clip")
    page = Image.fromarray(mask.astype(np.uint8), mode="P")
    page.putpalette(build_davis_palette())
    for n in range(SHORT):
        page.save(truth / f"{n:05}.png")
    return tmp_path


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 10 and any("*.mp4" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command: str, folder: Path) -> None:
    """Or says in a sentence which weights it is that have to be fetched."""
    with VideoWriter(Path("clip.mp4"), SIZE, 25.0) as writer:
        for frame in draw_frames(LONG if "track" in command else SHORT):
            writer.write(frame)
    words = [found for word in shlex.split(command)[1:] for found in (glob(word) if "*" in word else [word])]
    if words[0] == "eval":
        assert (
            CliRunner().invoke(app, ["run", "clip.mp4", "-o", "out", "--preset", "fast", "--no-overlay"]).exit_code == 0
        )
    done = CliRunner().invoke(app, words)
    if done.exit_code:
        assert done.exit_code == 2 and "masklet weights fetch" in done.output, (done.output, done.exception)
        return
    assert words[0] == "eval" or Path("out/clip/masklets.json").is_file()
