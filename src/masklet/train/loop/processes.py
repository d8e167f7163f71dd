"""Several processes that train one network: each computes its items of a step, and their gradients are added up.

A step's items are the same however many processes share them, so that two processes with a batch of two take the step
of one process with that batch. Who starts them (torchrun, Slurm) says how many there are in RANK and WORLD_SIZE.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from masklet.core.errors import InputError

T = TypeVar("T")
PATIENCE = timedelta(hours=3)  # that others wait while the first one validates


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes, validates and talks."""
        return self.rank == 0

    def select_own(self, items: Sequence[T]) -> list[T]:
        """The items that this process computes.

        >>> Processes(1, 2).select_own("abcd")
        ['b', 'd']
        """
        return list(items[self.rank :: self.count])

    def sum_gradients(self, module: nn.Module) -> None:
        """Adds up the gradients of all processes; a parameter that has one in none of them keeps none."""
        if self.count == 1:
            return
        trained = [p for p in module.parameters() if p.requires_grad]
        has = self.sum_values([float(p.grad is not None) for p in trained], trained[0].device)
        given = [p for p, times in zip(trained, has, strict=True) if times]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in given]
        if not grads:
            return
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for parameter, part in zip(given, torch.split(flat, [g.numel() for g in grads]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def sum_values(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sum of each value over all processes, in float64; the numbers travel through `device`."""
        if self.count == 1:
            return [*values]
        held: Tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(held)
        found: list[float] = held.tolist()
        return found

    def share_first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in all of them. Raises InputError in all where it raises it there."""
        if self.count == 1:
            return work()
        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = work()
            except InputError as error:
                told[1] = str(error)
        dist.broadcast_object_list(told)
        if told[1] is not None:
            raise InputError(told[1])
        result: T = told[0]
        return result


ALONE = Processes()


def find_processes() -> Processes:
    """This process among those that were started together, as the environment has it; alone where it says nothing.

    Raises InputError where RANK and WORLD_SIZE are not numbers that go together.
    """
    rank, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        raise InputError(f"RANK = {rank}, WORLD_SIZE = {count}: these count the processes of a training; unset them")
    return Processes(int(rank), int(count))


def join_processes(processes: Processes, device: torch.device) -> None:
    """Lets the processes of a training find each other: over NCCL on GPUs, else gloo."""
    if processes.count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def leave_processes() -> None:
    """Leaves the group of processes that `join_processes` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def find_own_gpu() -> str:
    """The device of a process among several on one machine, where there are GPUs: "cuda:N" of its number there."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
