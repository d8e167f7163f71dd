"""What `make release` would stop at, on made-up wheels and changelogs."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from masklet.core.deprecation import warn_of_deprecation

ROOT = Path(__file__).resolve().parent.parent
GOOD = ("masklet/py.typed", "masklet/weights/files/nano-propagator.safetensors", "masklet-1.dist-info/licenses/LICENSE")


def load_script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def release() -> Any:
    return load_script(ROOT / "tools" / "release.py")


@pytest.fixture(scope="module")
def long_description() -> Any:
    return load_script(ROOT / "packaging" / "long_description.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# Changelog\n\n## 1.0 (2026-11-28)\n\nwhat\n", ""),
        ("# Changelog\n\n## 1.0 (unreleased)\n\nwhat\n", "give the day"),
        ("# Changelog\n\n## 0.9 (2026-11-28)\n\nwhat\n", "begins with 0.9"),
        ("# Changelog\n\n## 1.0 (2026-11-28)\n\n## 0.9 (2026-01-01)\nold\n", "nothing under 1.0"),
        ("nothing", "no heading"),
    ],
)
def test_the_changelog_is_of_the_version(release: Any, text: str, words: str) -> None:
    said = "; ".join(release.check_changelog(text, "1.0"))
    assert words in said and bool(said) == bool(words)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (GOOD, ""),
        (GOOD[1:], "no masklet/py.typed"),
        (GOOD[:2], "no LICENSE"),
        ((*GOOD, "tests/test_x.py"), "does not belong"),
        ((*GOOD, "masklet/weights/files/net.safetensors"), "without a licence"),
        ((*GOOD, "masklet/weights/files/net.safetensors", "masklet/weights/files/net.LICENSE"), ""),
    ],
)
def test_a_wheel_is_whole_and_licensed(release: Any, tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with zipfile.ZipFile(tmp_path / "masklet-1.whl", "w") as wheel:
        for name in names:
            wheel.writestr(name, "")
    said = "; ".join(release.check_wheel(tmp_path / "masklet-1.whl"))
    assert words in said and bool(said) == bool(words)


def test_a_file_that_is_too_large_is_named(release: Any, tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"0" * 2048)
    assert "x.whl: 0.0 MB" in "".join(release.check_size(tmp_path / "x.whl", 1024))
    assert not list(release.check_size(tmp_path / "x.whl", 4096))


def test_the_version_stands_in_one_place(release: Any) -> None:
    version = release.read_version(ROOT / "pyproject.toml")
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'version: "{version}"' in (ROOT / "packaging/conda/recipe.yaml").read_text()
    assert not [p for p in (ROOT / "src").rglob("*.py") if f'"{version}"' in p.read_text()]


def test_what_goes_is_said_at_the_users_line() -> None:
    def old() -> None:
        unwrap(warn_of_deprecation)("old()", "new()", "1.0")

    with pytest.warns(FutureWarning, match=r"old\(\) goes with masklet 1.0; use new\(\)") as said:
        old()
    assert said[0].filename == __file__


# -- what PyPI shows


def read_description() -> str:
    """The description of the package as it is built."""
    return str(ProjectMetadata(str(ROOT), PluginManager()).core.readme)


def test_the_description_leads_nowhere_that_pypi_has_not() -> None:
    text = read_description()
    assert "# masklet" in text and "masklet run clip.mp4 -o out" in text and "![" not in text
    assert not [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")]


def test_pictures_lead_into_the_repository_where_one_is_known(long_description: Any) -> None:
    text = "A [page](docs/a.md#b) and ![a picture](docs/a.jpg), [out](https://x.org).\n"
    made = long_description.make_long_description(text, "https://example.org/masklet/")
    assert made == (
        "A [page](https://example.org/masklet/blob/HEAD/docs/a.md#b) and "
        "![a picture](https://example.org/masklet/raw/HEAD/docs/a.jpg), [out](https://x.org).\n"
    )
    assert long_description.make_long_description(text) == "A page and , [out](https://x.org).\n"


# -- what runs elsewhere


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_ci_takes_the_steps_of_ci_run_on_three_systems_and_every_python() -> None:
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    assert matrix == {
        "os": ["ubuntu-latest", "macos-latest", "windows-latest"],
        "python": ["3.11", "3.12", "3.13", "3.14"],
    }
    commands = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    assert commands["Linux and macOS"] == ".ci/run"
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == ["make check", "make test"]
    recipes = dict(re.findall(r"^(\w+): \$\(READY\)\n\t@(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in [*re.findall(r"\$\(BIN\)/([^&|]+)", recipes["check"]), "python -m pytest -n 2"]:  # Windows has no make
        assert f".venv/Scripts/{step.strip()}" in commands["Windows"]
    assert all(set(read_yaml(path)) for path in (".github/dependabot.yml", ".github/ISSUE_TEMPLATE/fault.yml"))


def test_hooks_are_local_and_those_of_make_check_are_of_the_environment() -> None:
    """So that they need no other host than PyPI, and agree with `make check`."""
    [repository] = read_yaml(".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert repository["repo"] == "local" and {"ruff", "ruff-format", "codespell", "mypy", "layers"} < hooks.keys()
    for hook in hooks.values():
        assert hook["entry"].startswith(".venv/bin/") == (hook["language"] == "system")
        assert hook["language"] == "system" or all("==" in one for one in hook["additional_dependencies"])
        re.compile(hook.get("exclude", ""))
