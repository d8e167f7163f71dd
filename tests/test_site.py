"""The site holds all pages of docs/, cards and CONTRIBUTING, and results are as the schema says; their code is run by
`test_docs`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from PIL import Image

import masklet
from masklet import VideoResult
from masklet.core.result import Provenance
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {"sam2": "sam2long"}  # where the page is not called as the system


def test_contributing_shows_a_segmenter_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [text] = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(text, scope)
    Image.fromarray(np.full((32, 32, 3), 250, np.uint8)).save("white.png")
    model = masklet.load(segmenter=scope["Bright"](), conf=0.5)
    [found] = model.segment("white.png").masklets
    assert found.sightings[0].mask.area == 32 * 32


def test_the_readme_is_short_and_its_claims_lead_somewhere() -> None:
    """That the paths exist is seen by `test_words`."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    table = text.partition("## What sets it apart")[2].partition("```")[0]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) >= 10 and all("](" in seen for _, seen in rows)


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
    page = (ROOT / "docs" / f"{paper}.md").read_text()
    table = page.partition("## Where it is")[2]
    rows = dict(re.findall(r"^\| (\w+) \| (.+) \|$", table, re.MULTILINE))
    assert list(rows) == ["system", "networks", "training", "tests", "card", "recipes", "tables"]
    assert "src/masklet/systems" in rows["system"] and "tests/" in rows["tests"]
    assert f"reproduce/tables/{RECIPES.get(paper, paper)}-" in rows["recipes"]
    [figure] = re.findall(r"\]\(figures/(\w+)\.svg\)", page)
    assert figure == RECIPES.get(paper, paper)


def load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_hold_commands_options_and_settings() -> None:
    hooks = load_tool("site_hooks")
    commands, settings = "\n".join(hooks.format_commands()), "\n".join(hooks.format_settings())
    assert "## masklet track" in commands and "`--max-side`" in commands and "### masklet weights fetch" in commands
    assert "| `conf` | `0.95` |" in settings and "## Propagator affinity" in settings


def test_figures_are_as_their_script_draws_them() -> None:
    """And their ink is that of the page: no colour of theirs is black or white but the mark of a prompt."""
    tool = load_tool("draw_figures")
    drawn = {path.stem: path.read_text() for path in (ROOT / "docs" / "figures").glob("*.svg")}
    assert drawn == {name: draw().format() for name, draw in tool.FIGURES.items()}, "run python tools/draw_figures.py"
    hooks = load_tool("site_hooks")
    for name, text in drawn.items():
        shown = hooks.on_page_content(f'<p><img alt="a" src="../figures/{name}.svg" /></p>', None)
        assert shown.startswith('<p><span class="figure"><svg ') and "<style>" in text and "<style>" not in shown
        assert set(re.findall(r"(?:fill|stroke)=\"([^\"]+)", text)) <= {"currentColor", "none", "#fff", *tool.HUES}
    told = json.loads((ROOT / "docs" / "figures" / "bounded.json").read_text())["memories"]
    assert all(told[name][-1] <= 1.05 * told[name][59] for name in ("nano", "affinity"))


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
