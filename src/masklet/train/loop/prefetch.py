"""What the next step is computed on, drawn while this one computes: up to a third of the time of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

D = TypeVar("D")
T = TypeVar("T")


class PrefetchableTask(ABC, Generic[D]):
    """The loss of a `Task` in two parts, the first of which needs no weights and no GPU.

    Both take their random numbers from one generator, the second goes on where the first left it: so it does not
    matter when, and in which thread, the first part is done.
    """

    @abstractmethod
    def draw(self, random: np.random.Generator) -> D:
        """The clips of an item, on the CPU. May run while the step before is computed: it changes nothing."""

    @abstractmethod
    def loss_of(self, step: int, drawn: D, random: np.random.Generator) -> dict[str, Tensor]:
        """The weighted losses, by name, of the clips `drawn` for the training step of number `step`; `random` is as
        `draw` left it.
        """

    def loss(self, step: int, random: np.random.Generator) -> dict[str, Tensor]:
        """The weighted losses of one item, as `Task.loss`: `draw` and `loss_of` one after the other."""
        return self.loss_of(step, self.draw(random), random)


def prefetch(work: Callable[[int], T], numbers: Sequence[int], workers: int = 1) -> Generator[T, None, None]:
    """The work of each number in turn; so many threads (`workers`) do that of the next ones while the last one's result
    is in use.

    What the work raises is raised where its result would come. `close` waits for the pieces in work, no other is begun.
    """
    pool = ThreadPoolExecutor(workers, "ahead")
    try:
        coming = deque(pool.submit(work, number) for number in numbers[:workers])
        for following in numbers[workers:]:
            now = coming.popleft()
            coming.append(pool.submit(work, following))
            yield now.result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
