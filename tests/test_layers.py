"""Imports lean one way: core <- nn <- models <- train; core <- io <- evaluate <- train; core <- systems, view; the rest
on top.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import masklet

ROOT = Path(masklet.__file__).parent
ALLOWED = {
    "core": {"core"},
    "nn": {"core", "nn"},
    "models": {"core", "nn", "models"},
    "systems": {"core", "systems"},
    "evaluate": {"core", "evaluate", "io"},
    "io": {"core", "io"},
    "view": {"core", "view"},
    "train": {"core", "nn", "models", "io", "evaluate", "train"},
}


def imported(text: str) -> set[str]:
    """The parts of masklet that a module imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{a.name}" for a in node.names]
    return {n.split(".")[1] if "." in n else "" for n in names if n.split(".")[0] == "masklet"}


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/*.py")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_lean_one_way(path: Path) -> None:
    assert imported(path.read_text()) <= ALLOWED[path.parent.name]


def test_the_check_sees_what_it_must() -> None:
    text = "import masklet\ndef f():\n    from masklet.models.zoo import ZOO\nfrom masklet import core"
    assert imported(text) == {"", "models", "core"}
