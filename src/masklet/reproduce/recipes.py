"""Recipes: what a row of a paper's table is made of, and the figure that the paper has for it.

A table is a toml file in `tables/`: `[all]` is true of every row that says nothing else, a `[[row]]` is a recipe. A
recipe's name is that of the file and the row's own, such as "sam2long-5/paths-3".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.wording import name_setting

TABLES = Path(str(resources.files("masklet") / "reproduce" / "tables"))
PARTS = ("segmenter", "propagator", "size")  # what `--set` replaces of a recipe, besides settings


@dataclass(frozen=True)
class NeededWeights:
    """A weight file that a recipe needs.

    Attributes:
        name: a name of `masklet weights list`, or a file in the weights folder.
        sha256: where it is known.
        how: how it is to be had, of one that `masklet weights` does not know.
    """

    name: str
    sha256: str = ""
    how: str = ""


@dataclass(frozen=True)
class Recipe:
    """One row of a table.

    Attributes:
        name: what it is called on the command line.
        paper, table, row: which one it is; `title` is that of the table.
        source: where it is published.
        quote: how the row reads on the page from which it was taken; or several pieces of it.
        system: what runs: a system of `masklet run`, "track", or of a table of costs the part that is counted.
        segmenter, propagator: parts by name. "{size}" in them is `size`, "{weights:FILE}" a file in the weights folder,
            "{detections:FOLDER}" a folder of detections beside the data.
        settings: of the system, and with "segmenter." or "propagator." before their names of the parts.
        weights: that are needed.
        size: pixels of what the networks see: the short side of frames, of SAM 2 the side of its square.
        data, split: which videos, by a name of `reproduce.datasets`.
        protocol: how they are run and what is written: vis, vos, panoptic, burst, referring, salient, unsupervised; or
            cost, of which no data is needed.
        metric: of `masklet eval`; several are joined by "+".
        figures: the published ones, by our metric's names of them; of several metrics, and of parts of a report, with
            "NAME: " before.
        beside: what the paper says in the row and nobody measures here, such as its speed.
        reason: why inference cannot repeat the row; "" where it can.
    """

    name: str
    paper: str
    table: str
    row: str
    title: str = ""
    covers: str = ""
    source: str = ""
    quote: Sequence[str] = ()
    system: str = ""
    segmenter: str = ""
    propagator: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Sequence[NeededWeights] = ()
    size: int = 0
    data: str = ""
    split: str = ""
    protocol: str = "vis"
    metric: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def metrics(self) -> Sequence[str]:
        """The metrics that score it."""
        return self.metric.split("+") if self.metric else ()

    def override(self, settings: Mapping[str, Any]) -> Recipe:
        """The same with other `settings`, or another segmenter, propagator or size; a part of another kind takes none
        of the recipe's settings for it. Raises InputError where one of these is not of its kind.
        """
        parts = {name: value for name, value in settings.items() if name in PARTS}
        for name, value in parts.items():
            if not isinstance(value, int if name == "size" else str) or isinstance(value, bool):
                kind = "pixels" if name == "size" else "the name of a part"
                raise InputError(f"{name_setting(name, value)}: give {kind}")
        rest = {name: value for name, value in settings.items() if name not in PARTS}
        gone = [
            f"{part}."
            for part, name in parts.items()
            if part != "size" and get_kind(name) != get_kind(getattr(self, part))
        ]
        kept = {name: value for name, value in self.settings.items() if not name.startswith(tuple(gone))}
        return replace(self, **parts, settings={**kept, **rest})


def get_kind(part: str) -> str:
    """A part's name without what stands behind it: a folder, a file, a size."""
    return re.split("[:@]", part)[0]


@cache
def read_recipes() -> Mapping[str, Recipe]:
    """All recipes by their names, in the order of the tables' files and rows."""
    return {recipe.name: recipe for path in sorted(TABLES.glob("*.toml")) for recipe in read_table(path)}


def read_table(path: Path) -> list[Recipe]:
    """The recipes in the toml file of one table."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    shared = {key: value for key, value in content.items() if key not in ("all", "row")} | content["all"]
    return [make_recipe(path.stem, {**shared, **row}) for row in content["row"]]


def make_recipe(table: str, told: Mapping[str, Any]) -> Recipe:
    """The recipe of what a row of the file `table` is `told` to be. Raises InputError for a key that no recipe has."""
    for key in told:
        check_choice(f"key of {table}/{told['name']}", key, [f.name for f in fields(Recipe)])
    quote = told.get("quote", ())
    return Recipe(
        **{
            **told,
            "name": f"{table}/{told['name']}",
            "quote": (quote,) if isinstance(quote, str) else tuple(quote),
            "weights": tuple(NeededWeights(**one) for one in told.get("weights", ())),
        }
    )


def find_recipe(name: str) -> Recipe:
    """The recipe of a name. Raises InputError with the nearest one where there is none."""
    recipes = read_recipes()
    table = [one for one in recipes if one.startswith(f"{name}/")]
    if table:
        raise InputError(f"{name} is a table; name one of its rows: {', '.join(table)}")
    if name not in recipes:
        from difflib import get_close_matches

        near = get_close_matches(name, recipes, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no recipe {name!r}; {hint}`masklet reproduce list` has all {len(recipes)}")
    return recipes[name]
