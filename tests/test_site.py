"""The pages of docs/ and CONTRIBUTING: their code runs, the site holds all of them, and results are as the schema says."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet import VideoResult
from masklet.cli import app
from masklet.core.result import Provenance
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.video.encode import VideoWriter

ROOT = Path(__file__).resolve().parent.parent
RUN = ("index", "first-video", "click-and-correct", "your-detector", "memory", "results")  # whose code is run
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SIZE = 144, 192


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the clip that the pages speak of, and detections for it."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    ground = cv2.resize(draw.integers(60, 200, (18, 24, 3), np.uint8), SIZE[::-1])
    thing = cv2.resize(draw.integers(0, 70, (10, 12, 3), np.uint8), (60, 50)) + np.array([185, 20, 10], np.uint8)
    with VideoWriter(Path("clip.mp4"), SIZE, 25.0) as writer:
        for t in range(4):
            frame = ground.copy()
            frame[40:90, 10 + 6 * t : 70 + 6 * t] = thing
            writer.write(frame)
    mask = np.zeros(SIZE, bool)
    mask[40:90, 10:70] = True
    entry = {"image_id": 0, "category_id": 1, "score": 0.99}
    entry["segmentation"] = {"size": list(SIZE), "counts": Rle.encode_pixels(mask).counts.decode()}
    Path("dets.json").write_text(json.dumps([entry]))
    return tmp_path


def run_page(page: str) -> int:
    """Runs a page's commands and Python, in the order in which they stand there, and says how many pieces ran."""
    scope: dict[str, Any] = {"__name__": page}
    count = 0
    if page == "results":  # of the page before
        assert CliRunner().invoke(app, ["run", "clip.mp4", "-o", "out", "--no-overlay"]).exit_code == 0
    for language, text in BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text()):
        if language == "python":
            exec(compile(text, f"docs/{page}.md", "exec"), scope)
            count += 1
            continue
        for line in re.findall(r"^masklet ([^#\n]*)", text, re.MULTILINE):
            done = CliRunner().invoke(app, shlex.split(line))
            assert done.exit_code == 0, (line, done.output, done.exception)
            count += 1
    return count


@pytest.mark.parametrize("page", RUN)
def test_code_of_the_page_runs(page: str, folder: Path) -> None:
    assert run_page(page) >= 1
    if page == "first-video":
        assert {p.name for p in Path("out/clip").iterdir()} >= {"overlay.mp4", "masklets.json"}
        assert VideoResult.load("tidy.json").provenance.edits


def test_contributing_shows_a_segmenter_that_works(folder: Path) -> None:
    [text] = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(text, scope)
    Image.fromarray(np.full((32, 32, 3), 250, np.uint8)).save("white.png")
    model = masklet.load(segmenter=scope["Bright"](), conf=0.5)
    [found] = model.segment("white.png").masklets
    assert found.sightings[0].mask.area == 32 * 32


def read_nav(entries: list[Any]) -> set[str]:
    """Every page that the site's navigation names."""
    found = set()
    for entry in entries:
        for value in entry.values():
            found |= read_nav(value) if isinstance(value, list) else {value}
    return found


def load_site() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return found


def test_every_page_and_card_is_in_the_navigation() -> None:
    pages = {p.name for p in (ROOT / "docs").glob("*.md")} | {f"cards/{p.name}" for p in (ROOT / "cards").glob("*.md")}
    named = read_nav(load_site()["nav"])
    assert pages <= named and named - pages <= {"commands.md", "settings.md", "changelog.md", "contributing.md"}


@pytest.mark.parametrize("paper", ["sam2bmp", "sam2", "deva", "dvis", "rocovis"])
def test_a_papers_page_says_where_everything_is(paper: str) -> None:
    """That the paths exist is seen by `test_words`."""
    table = (ROOT / "docs" / f"{paper}.md").read_text().partition("## Where it is")[2]
    rows = dict(re.findall(r"^\| (\w+) \| (.+) \|$", table, re.MULTILINE))
    assert {"system", "networks", "tests", "tables"} <= rows.keys()
    assert "src/masklet/systems" in rows["system"] and "tests/" in rows["tests"]


def load_hooks() -> Any:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools" / "site_hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_hold_commands_options_and_settings() -> None:
    hooks = load_hooks()
    commands, settings = "\n".join(hooks.format_commands()), "\n".join(hooks.format_settings())
    assert "## masklet track" in commands and "`--max-side`" in commands and "### masklet weights fetch" in commands
    assert "| `conf` | `0.95` |" in settings and "## Propagator affinity" in settings


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Every link and anchor leads somewhere, and nothing is loaded from elsewhere."""
    build = pytest.importorskip("mkdocs.commands.build")
    config = pytest.importorskip("mkdocs.config").load_config(
        str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True
    )
    config.plugins.on_startup(command="build", dirty=False)
    build.build(config)
    page = (tmp_path / "api.html").read_text()
    assert 'id="masklet.api.segment"' in page and "cards/affinity.html" in (tmp_path / "index.html").read_text()
    loaded = {
        address
        for path in tmp_path.rglob("*.html")
        for address in re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", path.read_text())
    }
    assert not loaded


def build_result() -> VideoResult:
    mask = Rle.encode_pixels(np.eye(6, 8, dtype=bool))
    seen = {t: Sighting(mask, source, 0.5, 0, 1.0) for t, source in enumerate(Source)}
    made = Provenance("track", {"a": None}, {"w": "00"}, "1", "clip.mp4", ("a note",), ("rename 1 car",), "recipe")
    times = (0.0, 0.1, 0.3, 0.4, 0.5)
    return VideoResult("clip", (6, 8), 5, 25.0, (Masklet(1, seen, 0, 0.5),), ("car",), made, times, 2.0)


def test_results_are_as_the_schema_says(tmp_path: Path) -> None:
    schema = json.loads((ROOT / "docs" / "result.schema.json").read_text())
    build_result().save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(content, schema)
    for key, value in (("length", -1), ("format", "x"), ("extra", 1), ("masklets", [{"id": 1}])):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, key: value}, schema)
    content["masklets"][0]["sightings"][0][1] = "guessed"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)
