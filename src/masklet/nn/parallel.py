"""Independent pieces of work on the cores of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


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
