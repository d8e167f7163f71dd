"""A folder in which masklet knows parts that go wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import odd
import pytest

from masklet import builtins
from masklet.registry import Registry


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, in which masklet knows the odd parts."""
    odd.install(tmp_path / "site", Path(odd.__file__).parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    forget_entries()
    yield tmp_path
    forget_entries()


def forget_entries() -> None:
    """What the registries know of other packages."""
    for registry in vars(builtins).values():
        if isinstance(registry, Registry):
            registry.__dict__.pop("entries", None)
