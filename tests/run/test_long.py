"""Long videos through the command line: what a killed run has saved is gone on from, with the equal result."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from commands import fork_masklet
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet.cli import app
from masklet.core.checkpoint import Checkpoints
from masklet.run.claims import FOLDER

H, W, FRAMES, FOUND, EVERY = 24, 32, 18, 12, 5
RUN = ["run", "clip", "--segmenter", "d.json", "--no-overlay", "--checkpoint", str(EVERY)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a square that is detected from frame FOUND on, so that it is carried back to the first."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "clip").mkdir()
    entries = []
    for t in range(FRAMES):
        image, mask = np.full((H, W, 3), 30, np.uint8), np.zeros((H, W), bool)
        mask[6:16, 2 + t // 2 : 14 + t // 2] = True
        image[mask] = (200, 40 + 4 * t, 60)
        Image.fromarray(image).save(folder / f"clip/{t:02}.png")
        counts = masklet.Rle.encode_pixels(mask).counts.decode()
        one = {"category_id": 1, "score": 0.99, "segmentation": {"size": [H, W], "counts": counts}}
        entries += [{"frame": t, **one}] if t >= FOUND else []
    (folder / "d.json").write_text(json.dumps(entries))
    return folder


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*RUN, *words])
    return done.exit_code, done.output


def kill_after(frames: int, out: str) -> None:
    """Runs the command until so many frames of both phases are done, and ends it at once."""
    whole, left = Checkpoints.count_frame, frames

    def count(self: Checkpoints) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "count_frame", count)
        code, *said = fork_masklet(*RUN, "-o", out, "-q").finish()
    assert code == -signal.SIGKILL, said


@pytest.fixture
def whole(clip: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The result of an undisturbed run."""
    monkeypatch.chdir(clip)
    if not Path("whole").exists():
        assert run("-o", "whole", "-q")[0] == 0
    assert not list(Path("whole").glob(f"{FOLDER}/checkpoints"))
    return Path("whole/clip/masklets.json").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
@pytest.mark.parametrize(("frames", "saved"), [(14, "frame 10 (forward)"), (FRAMES + 8, "frame 6 (backward)")])
def test_a_killed_run_goes_on_with_the_equal_result(frames: int, saved: str, whole: bytes) -> None:
    out = f"out{frames}"
    kill_after(frames, out)
    assert list(Path(out).glob(f"{FOLDER}/checkpoints/clip/*/state.safetensors"))
    shutil.copytree(out, f"{out}b")
    code, said = run("-o", out)
    assert code == 0 and f"clip: goes on from {saved}" in said
    assert Path(out, "clip/masklets.json").read_bytes() == whole
    assert not list(Path(out).glob(f"{FOLDER}/checkpoints")) and not list(Path(out).glob(".clip*"))
    code, said = run("-o", f"{out}b", "--set", "conf=0.6", "--json-log")
    notices = [event["message"] for line in said.splitlines() if (event := json.loads(line))["event"] == "notice"]
    assert code == 0
    assert notices == ["a checkpoint of other settings or another source was removed; the video is begun anew"]
