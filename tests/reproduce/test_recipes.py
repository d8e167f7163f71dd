"""The recipes are the rows of the papers' tables, with the published figures, and name parts that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from masklet.builtins import METRICS, PROPAGATORS, QUERY_SYSTEMS, SYSTEMS
from masklet.core.errors import InputError
from masklet.core.part_request import parse_part_name
from masklet.registry import import_object, list_part_settings
from masklet.reproduce.datasets import SETS
from masklet.reproduce.recipes import Recipe, find_recipe, make_recipe, read_recipes
from masklet.weights.catalog import CHECKPOINTS

PAGE = Path(__file__).parents[2] / "../shared/systems/tables.md"
NUMBER = re.compile(r"\d+\.\d+")
RECIPES = read_recipes()
# Of a cell of the page: what it says besides figures of rows.
LABELS = {
    ("SAM2BMP", "4"): {0.60, 0.80, 0.93, 0.95, 0.97},
    ("SAM2Long", "6"): {0.3, 0.7, 0.9},
    ("SAM2Long", "7"): {0.5},
    ("SAM2Long", "8"): {0.95, 1.05, 0.9, 1.1},
}


def read_page() -> dict[tuple[str, str], str]:
    """The cell of each table on the page, by paper and table."""
    if not PAGE.is_file():
        pytest.skip(f"no {PAGE}")
    cells: dict[tuple[str, str], str] = {}
    paper = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            paper = line[3:].split(" ")[0].strip("(")
        elif found := re.match(r"\| ([0-9]+|I+)\b([^|]*)\|(.*)\|$", line):
            cells[paper, found[1]] = found[3]
        elif line.startswith("Main"):
            cells[paper, "Main"] = line
    return cells


def test_every_table_of_the_page_has_recipes_and_no_other_has() -> None:
    cells = read_page()
    assert len(cells) == 28
    assert {(r.paper, r.table) for r in RECIPES.values()} == set(cells)


def test_every_figure_on_the_page_is_that_of_a_row() -> None:
    for key, cell in read_page().items():
        told = {
            n for r in RECIPES.values() if (r.paper, r.table) == key for n in (*r.figures.values(), *r.beside.values())
        }
        on_page = {float(n) for n in NUMBER.findall(cell.replace("SAM 2.1", ""))}
        assert on_page - told - LABELS.get(key, set()) == set(), key


def test_a_row_reads_as_on_the_page_and_has_its_figures() -> None:
    cells = read_page()
    for recipe in RECIPES.values():
        cell = cells[recipe.paper, recipe.table]
        assert recipe.quote and all(quote in cell for quote in recipe.quote), recipe.name
        quoted = {float(n) for quote in recipe.quote for n in re.findall(r"\d+(?:\.\d+)?", quote)}
        assert {*recipe.figures.values(), *recipe.beside.values()} <= quoted, recipe.name


def test_rows_of_one_cell_are_as_many_as_their_figures() -> None:
    """No figure is told twice: a recipe that was copied keeps the other one's."""
    for key in {(r.paper, r.table) for r in RECIPES.values()}:
        rows = [r for r in RECIPES.values() if (r.paper, r.table) == key]
        made = [
            (r.system, r.segmenter, r.propagator, repr(r.settings), r.size, r.data, r.split)
            for r in rows
            if not r.reason
        ]
        assert len(set(made)) >= len(made) - 1, key  # DEVA's default is in Table 5 twice


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda r: r.name)
def test_a_recipe_names_what_there_is(recipe: Recipe) -> None:
    assert (recipe.source and recipe.figures) or recipe.reason
    if recipe.reason or recipe.protocol == "cost":
        return
    assert recipe.data in SETS and set(recipe.metrics) <= set(METRICS.names)
    assert recipe.system in (*SYSTEMS.names, *QUERY_SYSTEMS, "track")
    check_settings(recipe)
    for one in recipe.weights:
        model = CHECKPOINTS.get(one.name)
        assert model or one.how, f"{one.name}: how is it to be had?"
        assert not one.sha256 or one.sha256 in (model.sha256, model.original and model.original.sha256)
        assert not (model and not one.sha256 and (model.sha256 or model.original)), "its sha256 is known"


def check_settings(recipe: Recipe) -> None:
    """Settings exist, of the system and of the propagator."""
    own = {k: v for k, v in recipe.settings.items() if "." not in k}
    if recipe.system == "track":
        assert not own
    else:
        entry = QUERY_SYSTEMS.get(recipe.system) or SYSTEMS.find(recipe.system)
        assert set(own) <= list_part_settings(entry).keys(), recipe.name
        import_object(entry.settings)(**own)
    of_part = {k.removeprefix("propagator.") for k in recipe.settings if k.startswith("propagator.")}
    if recipe.propagator:
        base = parse_part_name(recipe.propagator).base
        assert base in PROPAGATORS.names
        assert of_part <= list_part_settings(PROPAGATORS.find(base)).keys(), recipe.name


def test_names_that_are_none() -> None:
    with pytest.raises(InputError, match="did you mean sam2long-5/paths-3"):
        find_recipe("sam2long-5/path-3")
    with pytest.raises(InputError, match=r"is a table; name one of its rows: sam2bmp-5/none, sam2bmp-5/backward"):
        find_recipe("sam2bmp-5")
    with pytest.raises(InputError, match="no key of t/x 'sise'; did you mean size"):
        make_recipe("t", {"name": "x", "sise": 3})


def test_what_is_overridden() -> None:
    recipe = find_recipe("sam2bmp-5/all").override({"conf": 0.5, "segmenter": "nano", "size": 64})
    assert (recipe.segmenter, recipe.size, recipe.settings) == ("nano", 64, {"conf": 0.5})
    for wrong in ({"size": "large"}, {"segmenter": 3}, {"size": True}):
        with pytest.raises(InputError, match="="):
            recipe.override(wrong)


def test_a_part_of_another_kind_takes_none_of_the_recipe_s_settings() -> None:
    recipe = read_recipes()["deva-3/ref-ytvos"]
    assert recipe.override({"propagator": "deva:mine.pth"}).settings["propagator.size"] == 720
    other = recipe.override({"propagator": "affinity", "propagator.half": 1})
    assert other.settings == {"frames": 10, "lost": "denies", "propagator.half": 1}
