"""Work that does not wait for its result's use: a thread does the next pieces while the last one is looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from functools import cache
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from masklet.core.cores import count_usable_cores

T = TypeVar("T")

DEPTH = 2  # pieces that wait to be used
POLL = 0.1  # seconds between two looks whether anybody still wants the next piece
PATIENCE = 2.0  # seconds for the piece in work to end when nobody wants it any more: it may hang


class _End:
    """What comes after the last piece: nothing, or what was raised in its place."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


_shared: list[int] = []  # the threads that were allowed where something is made ahead now


def get_torch() -> Any:
    """The module, where it is loaded: who works without it needs not wait for it."""
    return sys.modules.get("torch")


def count_allowed_threads() -> int:
    """How many threads may be busy at a time: torch's, all those that now work side by side together."""
    torch = get_torch()
    own = torch.get_num_threads() if torch else int(os.environ.get("OMP_NUM_THREADS") or count_usable_cores())
    return max([own, *_shared])


def has_idle_cores() -> bool:
    """Whether more threads may be busy than one: whoever allows one means one."""
    return count_allowed_threads() > 1


def iterate_ahead(items: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """The very `items`, in their order, made on a thread of their own; at most `depth` of them wait to be used.

    What making one raises is raised where it would have come. The thread ends with the last item or when the iterator
    is closed; until then the two share the threads that torch may use. Where that is one when this is called, nothing
    is made ahead. Items see gradients on or off as here. What is made ahead may itself be made of what is: three things
    are done at a time then.

    >>> list(iterate_ahead(n * n for n in range(5)))
    [0, 1, 4, 9, 16]
    """
    return _iterate_on_thread(items, depth) if has_idle_cores() else iter(items)


def start_beside(work: Callable[[], T]) -> Callable[[], T]:
    """Begins `work` on a thread of its own; what is returned waits for it and gives its result, or raises what it did.
    Where torch may use one thread, the work is done when it is first asked for. It sees gradients on or off as here.

    >>> result = start_beside(lambda: 6 * 7)
    >>> result()
    42
    """
    if not has_idle_cores():
        return cache(work)
    torch, done = get_torch(), Future[T]()
    gradients = torch.is_grad_enabled() if torch else False

    def do() -> None:
        try:
            with torch.set_grad_enabled(gradients) if torch else nullcontext():
                done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=do, name="beside", daemon=True).start()
    return done.result


def read_ahead(items: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """As `iterate_ahead`, for what is made without torch, such as frames, and used by a network that takes most of the
    time: torch keeps all its threads.
    """
    return _iterate_beside(items, depth) if has_idle_cores() else iter(items)


def _iterate_on_thread(items: Iterable[T], depth: int) -> Iterator[T]:
    """As `iterate_ahead`, always ahead."""
    torch, threads = get_torch(), count_allowed_threads()
    _shared.append(threads)
    if torch:
        torch.set_num_threads(max(threads // 2, 1))
    try:
        yield from _iterate_beside(items, depth)
    finally:
        _shared.remove(threads)
        if torch:
            torch.set_num_threads(threads)


def _iterate_beside(items: Iterable[T], depth: int) -> Iterator[T]:
    """The `items`, made on a thread of their own."""
    waiting: Queue[T | _End] = Queue(depth)
    unwanted, torch = Event(), get_torch()
    gradients = torch.is_grad_enabled() if torch else False
    work = Thread(target=_put_items, args=(items, waiting, unwanted, gradients), name="ahead", daemon=True)
    work.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
            del item  # it may be large: it is not held while the next one is waited for
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        work.join(PATIENCE)


def _put_items(items: Iterable[T], waiting: Queue[T | _End], unwanted: Event, gradients: bool) -> None:
    end, torch = _End(), get_torch()
    try:
        with torch.set_grad_enabled(gradients) if torch else nullcontext():
            for item in items:
                if not _put(item, waiting, unwanted):
                    return
                del item
    except BaseException as error:
        end = _End(error)
    _put(end, waiting, unwanted)


def _put(item: T | _End, waiting: Queue[T | _End], unwanted: Event) -> bool:
    """Puts an item where it waits for its use; False where nobody wants it any more."""
    while not unwanted.is_set():
        try:
            waiting.put(item, timeout=POLL)
        except Full:
            continue
        return True
    return False
