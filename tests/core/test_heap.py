"""Freed memory is given back, but not so often that fetching it anew takes the time."""

from __future__ import annotations

import pytest

from masklet.core import heap


def test_memory_is_given_back_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, now = list[int](), [100.0]
    monkeypatch.setattr(heap, "_find_trim", lambda: calls.append)
    monkeypatch.setattr(heap, "monotonic", lambda: now[0])
    monkeypatch.setattr(heap, "_last_times", [0.0])
    for now[0] in (100.0, 100.5, 101.9, 102.1, 103.0, 110.0):
        heap.return_freed_memory()
    assert calls == [0, 0, 0]


def test_a_c_library_that_cannot_give_back_is_none_the_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_find_trim", lambda: None)
    heap.return_freed_memory()
