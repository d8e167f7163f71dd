"""The notebooks of examples/ run as they stand, on a tiny clip; what they show is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masklet.io.video.encode import VideoWriter

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHOWN = {  # by notebook: how often it shows a strip, a chart, a video and bars
    "first_video": (1, 1, 1, 2),
    "click_and_correct": (2, 0, 1, 2),
    "tables_and_exports": (1, 1, 0, 0),
}


def write_clip(path: Path) -> None:
    """A textured square that moves over a textured ground."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 90, (72, 96, 3), np.uint8)
    thing = rng.integers(150, 250, (24, 24, 3), np.uint8)
    with VideoWriter(path, (72, 96), 10, crf=10) as writer:
        for t in range(8):
            image = ground.copy()
            image[12:36, 10 + 4 * t : 34 + 4 * t] = thing
            writer.write(image)


def list_shown(notebook: Any) -> Iterator[dict[str, Any]]:
    """What the cells show, by its kind."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.get("data", {"text/plain": output.get("text", "")})


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    write_clip(tmp_path / "clip.mp4")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # pictures stay out of the repository
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = list(list_shown(notebook))
    pages = [data.get("text/html", "") for data in shown]
    marks = ('type="range"', None, "<video", "<progress")
    found = [sum(mark in page for page in pages) if mark else sum("image/png" in d for d in shown) for mark in marks]
    assert tuple(found) == SHOWN[name]
    assert not any("Warning" in str(data.get("text/plain")) for data in shown)
    if name == "tables_and_exports":
        assert "coco/annotations.json" in str(shown[-1]["text/plain"])


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SHOWN)
