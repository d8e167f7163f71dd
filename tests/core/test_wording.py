"""Messages name arguments to who calls from Python, and options to who types a command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import masklet
from masklet.cli import COMMANDS, app, import_command
from masklet.core.budget import parse_memory
from masklet.core.errors import InputError
from masklet.core.wording import get_reader, name_argument, write_messages_for
from masklet.evaluate.ground_truth import check_ground_truth

SOURCE = Path(masklet.__file__).parent
BELOW = sorted(p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts[0] != "cli")
OPTION = re.compile(r"(?<![\w-])--[a-z]")
WHOLE_COMMANDS = re.compile(
    r"`(masklet|hf) [^`]*`|^rocovis --set row=queries$"
)  # the last stands behind `masklet train`
OTHER_PROGRAMS = ("weights/fetch.py",)  # puts together a command of `hf`
WORDING = "core/wording.py"


def list_docstrings(tree: ast.Module) -> set[int]:
    """The nodes of all docstrings."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    bodies = [node.body[0] for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    return {id(first.value) for first in bodies if isinstance(first, ast.Expr)}


def find_typed_options(text: str) -> list[str]:
    """The texts of a module, but for docstrings, that name an option by themselves."""
    tree = ast.parse(text)
    docs, inner = list_docstrings(tree), set[int]()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner.update(id(part) for part in node.values)
            whole = "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | inner):
            whole = node.value
        else:
            continue
        if OPTION.search(WHOLE_COMMANDS.sub("", whole)):
            found.append(whole)
    return found


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_below_the_command_line_types_its_options(path: Path) -> None:
    if path.relative_to(SOURCE).as_posix() not in (WORDING, *OTHER_PROGRAMS):
        assert find_typed_options(path.read_text()) == [], "say it by core.wording.name_argument"


def test_typed_options_are_found() -> None:
    assert find_typed_options('"""With --gt."""\nf"{x}: add --overwrite"\ny = "--out"') == [
        "{}: add --overwrite",
        "--out",
    ]
    assert find_typed_options('f"{x}: run `masklet train --from nano`, or --lr"') != []
    assert find_typed_options('f"{x}: run `masklet train --from nano`"') == []


def iterate_named_arguments() -> Iterator[tuple[str, str, str]]:
    """Each argument that a message names, with its option, and the file."""
    for path in BELOW:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "name_argument":
                name = node.args[0]
                option = next((word.value for word in node.keywords if word.arg == "option"), name)
                if isinstance(name, ast.Constant) and isinstance(option, ast.Constant):
                    yield str(name.value), str(option.value).replace("_", "-"), path.name


def list_options() -> set[str]:
    """The options of all commands."""
    commands: list[Any] = [import_command(name) for name in COMMANDS]
    commands += [one for group in commands for one in getattr(group, "commands", {}).values()]
    return {option.removeprefix("--") for one in commands for parameter in one.params for option in parameter.opts}


def test_what_messages_name_exists_on_both_sides() -> None:
    options, text = list_options(), "\n".join(path.read_text() for path in BELOW)
    named = list(iterate_named_arguments())
    assert len(named) > 40
    for name, option, file in named:
        assert option in options, f"{file}: no command has --{option}"
        assert re.search(rf"^\s*(def )?{name}: |[(\s]{name}: |def {name}\(", text, re.MULTILINE), f"{file}: {name}"


def test_one_message_in_two_wordings(tmp_path: Path) -> None:
    gt = tmp_path / "gt.txt"
    with pytest.raises(InputError, match=re.escape(f"gt='{gt}': vpq takes")):
        check_ground_truth("vpq", gt)
    with write_messages_for("command line"), pytest.raises(InputError, match=re.escape(f"--gt {gt}: vpq takes")):
        check_ground_truth("vpq", gt)


def test_results_that_are_there_as_both_read_it(tmp_path: Path) -> None:
    """A caller in Python cannot add --overwrite."""
    made = masklet.VideoResult("a", (4, 6), 1, 25.0, (), (), masklet.Provenance("x"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="add overwrite=True to replace them"):
        made.export("davis", tmp_path / "out")
    made.save(tmp_path / "masklets.json")
    call = ["export", "davis", str(tmp_path / "masklets.json"), "-o", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, call)
    assert answer.exit_code == 2 and "add --overwrite to replace them" in answer.stderr
    assert get_reader() == "python", "what comes after a command in one process is worded for Python"


def test_a_value_with_blanks_is_one_word_of_a_command() -> None:
    with write_messages_for("command line"):
        assert name_argument("text", "dog. red car.") == "--text 'dog. red car.'"


def test_commands_side_by_side_end_in_any_order() -> None:
    """As pages that are served in threads do."""
    first, second = write_messages_for("command line"), write_messages_for("command line")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert get_reader() == "command line"
    second.__exit__(None, None, None)
    assert get_reader() == "python"


def test_the_wording_ends_with_an_error() -> None:
    with pytest.raises(InputError, match=r"^--memory 1X: "), write_messages_for("command line"):
        parse_memory("1X")
    with pytest.raises(InputError, match=r"^memory='1X': "):
        parse_memory("1X")
