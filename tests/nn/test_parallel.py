"""Work side by side: the same answers in the same order, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.nn.parallel import run_on_threads


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("items", range(8))
def test_answers_are_in_the_order_of_the_items(threads: int, items: int) -> None:
    def slow(n: int) -> int:
        time.sleep(0.002 * (items - n))  # the first is done last
        return n * n

    assert run_on_threads(slow, range(items)) == [n * n for n in range(items)]
    assert torch.get_num_threads() == threads


@given(st.lists(st.integers()))
def test_it_is_map(items: list[int]) -> None:
    assert run_on_threads(repr, items) == [repr(n) for n in items]


def test_what_fills_the_threads_has_one_each_and_the_rest_has_all(threads: int) -> None:
    def look(n: int) -> tuple[int, bool]:
        return torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    seen = run_on_threads(look, range(7))
    even = 7 // threads * threads if threads > 1 else 0
    assert seen == [(1, False)] * even + [(threads, True)] * (7 - even)


def test_gradients_are_off_in_every_thread_and_on_again_afterwards(threads: int) -> None:
    weight = torch.ones(2, requires_grad=True)
    assert not any(x.requires_grad for x in run_on_threads(lambda n: weight * n, range(5)))
    assert torch.is_grad_enabled()


def test_an_error_is_raised_and_the_threads_are_given_back(threads: int) -> None:
    def fail(n: int) -> int:
        if n == 1:
            raise ValueError("item 1")
        return n

    with pytest.raises(ValueError, match="item 1"):
        run_on_threads(fail, range(5))
    assert torch.get_num_threads() == threads
    assert run_on_threads(abs, range(5)) == [0, 1, 2, 3, 4]
