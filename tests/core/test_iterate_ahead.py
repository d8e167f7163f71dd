"""Pieces of work made on a thread, ahead of their use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.core import ahead
from masklet.core.ahead import iterate_ahead, read_ahead, start_beside


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Iterator[None]:
    """Those of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_one_thread_stays_alone() -> None:
    torch.set_num_threads(1)
    names = list(iterate_ahead(threading.current_thread().name for _ in range(2)))
    torch.set_num_threads(2)
    assert names == ["MainThread"] * 2
    assert list(iterate_ahead(threading.current_thread().name for _ in range(2))) == ["ahead"] * 2


def test_what_is_made_ahead_of_what_is_made_ahead_has_a_thread_of_its_own() -> None:
    def pass_on(items: Iterator[set[int]]) -> Iterator[set[int]]:
        return (item | {threading.get_ident()} for item in items)

    first = iterate_ahead(pass_on(iter([set[int]()] * 3)))
    seen = list(iterate_ahead(pass_on(first)))
    assert len(seen) == 3
    assert all(len(idents | {threading.get_ident()}) == 3 for idents in seen)
    assert torch.get_num_threads() == 2


@given(st.lists(st.integers()), st.integers(1, 4))
def test_the_same_items_in_the_same_order(items: list[int], depth: int) -> None:
    assert list(iterate_ahead(iter(items), depth)) == items


@given(st.integers(0, 6), st.integers(1, 4))
def test_an_error_comes_in_the_place_of_its_item(before: int, depth: int) -> None:
    def work() -> Iterator[int]:
        yield from range(before)
        raise ValueError("a damaged frame")

    got = []
    with pytest.raises(ValueError, match="a damaged frame"):
        for item in iterate_ahead(work(), depth):
            got.append(item)
    assert got == list(range(before))


def test_no_more_than_the_depth_are_made_ahead() -> None:
    made: list[int] = []

    def work() -> Iterator[int]:
        for n in range(20):
            made.append(n)
            yield n

    ahead = iterate_ahead(work(), 2)
    for used in range(1, 21):
        next(ahead)
        time.sleep(0.01)
        assert len(made) <= used + 3  # in use, two that wait, one that finds no place
    assert next(ahead, None) is None


def test_what_is_not_wanted_ends_the_thread_and_closes_its_source() -> None:
    closed = threading.Event()

    def work() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    threads = torch.get_num_threads()
    ahead = iterate_ahead(work())
    assert next(ahead) == 0
    ahead.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed.wait(5) and torch.get_num_threads() == threads
    assert not [t for t in threading.enumerate() if t.name == "ahead"]


def test_a_piece_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklet.core.ahead.PATIENCE", 0.05)
    release = threading.Event()

    def work() -> Iterator[int]:
        yield 0
        release.wait(30)

    ahead = iterate_ahead(work())
    assert next(ahead) == 0
    began = time.monotonic()
    ahead.close()  # type: ignore[attr-defined]  # it is a generator
    release.set()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("on", [True, False])
def test_gradients_are_on_or_off_as_outside(on: bool) -> None:
    with torch.set_grad_enabled(on):
        assert list(iterate_ahead(torch.is_grad_enabled() for _ in range(2))) == [on, on]


def test_without_torch_the_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "get_torch", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert list(iterate_ahead(threading.current_thread().name for _ in range(2))) == ["MainThread"] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert list(iterate_ahead(threading.current_thread().name for _ in range(2))) == ["ahead"] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(ahead, "count_usable_cores", lambda: 1)
    assert list(iterate_ahead(threading.current_thread().name for _ in range(2))) == ["MainThread"] * 2


def test_reading_ahead_leaves_torch_its_threads() -> None:
    seen = [(torch.get_num_threads(), name) for name in read_ahead(threading.current_thread().name for _ in range(3))]
    assert seen == [(2, "ahead")] * 3
    assert [torch.get_num_threads() for _ in iterate_ahead(range(2))] == [1, 1]
    torch.set_num_threads(1)
    assert list(read_ahead(threading.current_thread().name for _ in range(2))) == ["MainThread"] * 2
    torch.set_num_threads(2)


def test_work_beside_runs_meanwhile_and_gives_its_result_or_its_error() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> tuple[bool, str]:
        begun.set()
        assert go_on.wait(10)
        return torch.is_grad_enabled(), threading.current_thread().name

    with torch.no_grad():
        result = start_beside(work)
    assert begun.wait(10), "it does not wait to be asked"
    go_on.set()
    assert result() == (False, "beside")
    assert result() == (False, "beside")

    def fail() -> None:
        raise ValueError("a damaged frame")

    with pytest.raises(ValueError, match="a damaged frame"):
        start_beside(fail)()


def test_work_beside_is_done_here_where_one_thread_is_allowed() -> None:
    done: list[int] = []
    torch.set_num_threads(1)
    result = start_beside(lambda: done.append(threading.get_ident()))
    torch.set_num_threads(2)
    assert not done
    for _ in range(2):
        result()
        assert done == [threading.get_ident()], "once"
    for _ in iterate_ahead(range(1)):  # which shares two threads: each has one, and yet two may be busy
        assert torch.get_num_threads() == 1
        assert start_beside(threading.get_ident)() != threading.get_ident()
