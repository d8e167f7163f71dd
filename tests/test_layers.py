"""Imports lean one way: core <- nn, weights <- models <- train; core <- io <- evaluate <- train; core <- systems, view; the rest
on top.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import masklet

ROOT = Path(masklet.__file__).parent
ALLOWED = {
    "core": {"core"},
    "nn": {"core", "nn"},
    "weights": {"core", "weights"},
    "models": {"core", "nn", "weights", "models"},
    "systems": {"core", "systems"},
    "evaluate": {"core", "evaluate", "io"},
    "io": {"core", "io"},
    "view": {"core", "view"},
    "session": {"core", "systems", "session"},
    "train": {"core", "nn", "weights", "models", "io", "evaluate", "train"},
}
ON_TOP = ("cli", "run", "reproduce")


def imported(text: str) -> set[str]:
    """The parts of masklet that a module imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{a.name}" for a in node.names]
    return {n.split(".")[1] if "." in n else "" for n in names if n.split(".")[0] == "masklet"}


@pytest.mark.parametrize(
    "path",
    sorted(p for p in ROOT.glob("*/**/*.py") if p.relative_to(ROOT).parts[0] not in ON_TOP),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_lean_one_way(path: Path) -> None:
    assert imported(path.read_text()) <= ALLOWED[path.relative_to(ROOT).parts[0]]


def test_files_of_tests_have_names_of_their_own() -> None:
    """Or pytest collects none of the suite; those who run a folder alone would not see it."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)) and len(names) > 100


def test_the_check_sees_what_it_must() -> None:
    text = "import masklet\ndef f():\n    from masklet.weights.store import ZOO\nfrom masklet import core"
    assert imported(text) == {"", "weights", "core"}


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_torch_sleep_while_they_wait_unless_somebody_wants_otherwise(own: str | None, expected: str) -> None:
    """Set before torch is loaded, which reads it once; that torch is loaded later on, test_doors.py tells."""
    script = "import sys, os, masklet\nprint('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    set_by_user = {} if own is None else {"OMP_WAIT_POLICY": own}
    others = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    told = subprocess.run([sys.executable, "-c", script], env=others | set_by_user, capture_output=True, text=True)
    assert told.stdout.split() == ["False", expected], told.stderr
