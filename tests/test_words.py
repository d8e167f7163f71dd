"""What README, docs, messages and docstrings tell users to type exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from masklet.builtins import TRAININGS
from masklet.cli import COMMANDS, import_command

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *ROOT.glob("cards/*.md")])
SOURCES = sorted(ROOT.glob("src/masklet/**/*.py"))
PLACEHOLDER = re.compile(r"\.\.\.|\||\[|<|…|\{")


def find_commands(text: str) -> list[str]:
    """`masklet ...` in backquotes, and lines of code blocks that begin with it or pipe into it."""
    quoted = re.findall(r"`(masklet [a-z][^`\n]*)`", text)
    lines = re.findall(r"^(?:\S[^\n]*\| )?(masklet [a-z][^\n#]*)", text, re.MULTILINE)
    return [one.strip() for one in (*quoted, *lines)]


def written_commands() -> list[Any]:
    """Each once, with the first page that has it."""
    found: dict[str, str] = {}
    for path in (*PAGES, *SOURCES):
        for command in find_commands(path.read_text()):
            words = command.split()
            if len(words) > 1 and words[1] in COMMANDS | {"train": 0} and not PLACEHOLDER.search(command):
                found.setdefault(command, path.name)
    return [pytest.param(command, id=f"{page}: {command}") for command, page in found.items()]


@cache
def build_command(name: str) -> Any:
    """The command of a name, built once for all that is parsed."""
    return import_command(name)


def parse(command: str) -> str:
    """The mistake in a command; nothing where there is none but that something is left out."""
    _, name, *words = shlex.split(command)
    found = build_command(name)
    try:
        if not hasattr(found, "commands"):
            found.make_context(name, words)
        elif words:
            own, command, rest = found.resolve_command(found.make_context(name, list(words)), list(words))
            command.make_context(own, rest)
    except Exception as error:
        left_out = "Missing" in str(error) or type(error).__name__ in ("MissingParameter", "Exit", "NoArgsIsHelpError")
        return "" if left_out else str(error)
    return ""


@pytest.mark.parametrize("command", written_commands())
def test_commands_exist(command: str) -> None:
    assert parse(command) == ""


def test_the_parser_sees_mistakes() -> None:
    assert "--nonsense" in parse("masklet run clip.mp4 -o out --nonsense")
    assert parse("masklet weights fetsh x") != ""
    assert parse("masklet train nano --data synthetic --out x") != ""
    assert len(written_commands()) > 60


def test_messages_name_trainings_that_exist() -> None:
    for path in SOURCES:
        for word in re.findall(r"masklet train ([a-z-]+|\{)", path.read_text()):
            assert word in (*TRAININGS.names, "wrote", "writes", "{"), f"{path.name}: masklet train {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_imports_in_code_exist(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("masklet"):
                for alias in node.names:
                    assert hasattr(import_module(str(node.module)), alias.name), alias.name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_table_of_parts_is_that_of_the_registries() -> None:
    spec = importlib.util.spec_from_file_location("write_parts_table", ROOT / "tools" / "write_parts_table.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (ROOT / "docs" / "parts.md").read_text()
    assert page == tool.insert_table(page), "run python tools/write_parts_table.py"
    assert "| propagator | `dam:NAME[@SIZE]` |" in page
