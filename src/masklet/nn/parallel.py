"""Independent pieces of work on the cores of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")


def iterate_row_groups(count: int, most: int) -> Iterator[Int64[Tensor, " n"]]:
    """The numbers of `count` rows in groups of at most `most`, so that what is made of a group takes bounded memory.

    >>> [rows.tolist() for rows in iterate_row_groups(3, 2)]
    [[0, 1], [2]]
    """
    return (torch.arange(start, min(start + most, count)) for start in range(0, count, most))


def run_on_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` of every item, as many at a time as there are threads, each on one: a small network on one thread is
    done sooner than on all of them in turn. What is left over has all threads. Gradients are off.
    """
    threads = torch.get_num_threads()
    even = len(items) // threads * threads if threads > 1 else 0
    quiet = torch.no_grad()(work)  # whether gradients are on is each thread's own
    if not even:
        return [quiet(item) for item in items]
    try:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads) as pool:
            first = list(pool.map(quiet, items[:even]))
    finally:
        torch.set_num_threads(threads)
    return first + [quiet(item) for item in items[even:]]
