from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ToyPropagator, World, moving, square

from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Point
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.session.history import MOST_UNDO
from masklet.session.saved_session import RESULT, SESSION, load_history
from masklet.session.session import Session

WORLD = World([moving(4, 0, 0, 1), moving(20, 24, 0, -1)], length=10)
EMPTY = Rle.encode_pixels(np.zeros((32, 32), bool))
CHANGES: dict[str, Callable[[Session], Any]] = {
    "click": lambda s: s.prompt(3, 1, Clicks((Point(5, 5),))),
    "box": lambda s: s.prompt(9, 2, Clicks((Point(18, 22),), Box(15, 20, 21, 26))),
    "mask": lambda s: s.prompt(4, None, square(1, 20)),
    "paint": lambda s: s.paint(6, 1, Rle.encode(square(7, 7))),
    "erase": lambda s: s.paint(7, 1, EMPTY),
    "confirm": lambda s: s.confirm(2, 2),
    "propagate": lambda s: s.propagate(1),
    "range": lambda s: s.propagate(2, 3, 6),
    "rename": lambda s: s.edit("rename", id=1, name="a cat"),
    "split": lambda s: s.edit("split", id=2, frame=8),
    "merge": lambda s: s.edit("merge", ids=[1, 2]),
    "drop": lambda s: s.edit("drop", ids=[2]),
    "smooth": lambda s: s.edit("smooth"),
    "undo": lambda s: s.undo(),
    "redo": lambda s: s.redo(),
}


def begin() -> Session:
    session = Session(WORLD, ToyPropagator())
    session.prompt(0, None, Point(2, 6))
    session.prompt(0, None, Point(26, 22))
    session.propagate(1)
    session.propagate(2)
    return session


def walk(session: Session) -> list[tuple[VideoResult, Any]]:
    """All states of a session, from the first on."""
    while session.undo():
        pass
    states = [(session.result, session.anchors)]
    while session.redo():
        states.append((session.result, session.anchors))
    return states


def change(session: Session, names: list[str]) -> None:
    for name in names:
        with suppress(InputError):  # of an object that is gone by now
            CHANGES[name](session)


@settings(max_examples=12)
@given(st.lists(st.sampled_from(sorted(CHANGES)), min_size=2, max_size=8))
def test_a_saved_session_is_the_same_with_all_that_can_be_undone(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("saved") / "session"
    session = begin()
    change(session, names)
    session.save(folder)
    again = Session(WORLD, ToyPropagator(), load_history(folder))
    assert again.result == session.result and again.anchors == session.anchors
    assert (again.can_undo, again.can_redo) == (session.can_undo, session.can_redo)
    again.save(folder)  # over the file that its masks lie in
    third = Session(WORLD, ToyPropagator(), load_history(folder))
    assert walk(third) == walk(session)


def test_what_can_be_undone_is_bounded() -> None:
    session = begin()
    for n in range(MOST_UNDO + 5):
        session.edit("rename", id=1, name=f"name {n}")
    assert len(walk(session)) == MOST_UNDO + 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    session = begin()
    change(session, ["click", "propagate", "undo"])
    session.save(folder)
    return folder


def copy(saved: Path, folder: Path, damage: Callable[[dict[str, Any]], Any]) -> Path:
    (folder / RESULT).write_bytes((saved / RESULT).read_bytes())
    content = json.loads((saved / SESSION).read_text())
    damage(content)
    (folder / SESSION).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("done"), "'done' is missing"),
        (lambda c: c.update(format="x"), "no saved session"),
        (lambda c: c.update(result="0"), "is not as the session left it"),
        (lambda c: c["anchors"][0].pop("mask"), "an anchor without a mask"),
        (lambda c: c["anchors"][0].update(mask="??"), "run lengths fill"),
        (lambda c: c["anchors"][0].update(spread="far"), "is not a valid Spread"),
        (lambda c: c["done"][0]["video"].update(length=3), "of another video"),
        (lambda c: c["done"][0].update(ids=[77]), "77 is missing"),
        (lambda c: c.update(undone=[3]), "session.json"),
    ],
)
def test_damage_is_told(saved: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], Any], message: str) -> None:
    assert load_history(copy(saved, tmp_path, lambda c: None)).undone
    with pytest.raises(InputError, match=message):
        load_history(copy(saved, tmp_path, damage))


def test_a_folder_without_a_session_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"session\.json: cannot be read"):
        load_history(tmp_path)
    (tmp_path / SESSION).write_bytes((saved / SESSION).read_bytes())
    with pytest.raises(InputError, match=r"masklets\.json: cannot be read"):
        load_history(tmp_path)
