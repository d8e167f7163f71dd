"""Clips that are drawn while the step before is computed: the same run, only sooner."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.train.loop.loop import Task, TrainingPlan, train
from masklet.train.loop.prefetch import PrefetchableTask, prefetch

PLAN = TrainingPlan(7, batch=2, lr=0.05, validate_every=3, save_every=3)
WAIT = 20.0  # seconds until a test that hangs fails


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    assert not threads()


# -- in turn


def test_the_next_one_is_done_while_the_last_one_is_in_use() -> None:
    begun = [threading.Event() for _ in range(4)]
    with closing(prefetch(lambda n: (begun[n].set(), n)[1], range(4))) as coming:
        for n in range(4):
            assert next(coming) == n
            if n < 3:
                assert begun[n + 1].wait(WAIT)
            assert not any(event.is_set() for event in begun[n + 2 :])
        assert next(coming, None) is None


def test_several_threads_work_at_the_same_time() -> None:
    """Three pieces meet, or none gets past."""
    meeting = threading.Barrier(3)
    assert sorted(prefetch(lambda n: meeting.wait(WAIT), range(6), workers=3)) == [0, 0, 1, 1, 2, 2]


def test_an_error_comes_where_its_result_would() -> None:
    def work(n: int) -> int:
        if n == 2:
            raise InputError("a picture is broken")
        return n

    coming = prefetch(work, range(5))
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(InputError, match="a picture is broken"):
        next(coming)


def test_nothing_more_is_begun_after_it_is_closed() -> None:
    done, going, free = list[int](), threading.Event(), threading.Event()

    def work(n: int) -> int:
        if n == 1:
            going.set()
            assert free.wait(WAIT)
        done.append(n)
        return n

    coming = prefetch(work, range(9))
    assert next(coming) == 0 and going.wait(WAIT)
    threading.Timer(0.05, free.set).start()
    coming.close()
    assert done == [0, 1]


# -- in training


class Plain:
    """A task whose loss draws and computes in one."""

    def __init__(self, broken: int | None = None, then: Callable[[], object] | None = None) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.broken, self.then, self.drawn, self.by = broken, then, 0, list[str]()

    def draw(self, random: np.random.Generator) -> Tensor:
        self.drawn, self.by = self.drawn + 1, [*self.by, threading.current_thread().name]
        if self.drawn == self.broken:
            raise InputError("picture.png: cannot be read as an image")
        return torch.from_numpy(random.standard_normal((16, 4), np.float32))

    def loss_of(self, step: int, drawn: Tensor, random: np.random.Generator) -> dict[str, Tensor]:
        if step == 4 and self.then is not None:
            self.then()
        noise = torch.from_numpy(random.standard_normal(16, np.float32))  # after the clips, from the same numbers
        return {"square": (self.module(drawn)[:, 0] - drawn.sum(1) + noise).square().mean()}

    def loss(self, step: int, random: np.random.Generator) -> dict[str, Tensor]:
        return self.loss_of(step, self.draw(random), random)

    def validate(self) -> dict[str, float]:
        return {"error": float(self.module(torch.ones(1, 4)))}

    def save(self, path: Path) -> None:
        path.write_bytes(b"weights so far")


class Ahead(Plain, PrefetchableTask[Tensor]):
    """The same, drawn ahead."""


def log(out: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def same(one: Plain, other: Plain) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.module.parameters(), other.module.parameters(), strict=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plain, Path]:
    task, out = Plain(), tmp_path_factory.mktemp("plain") / "run"
    assert train(task, out, PLAN, {}) == 7 and set(task.by) == {"MainThread"}
    return task, out


def test_it_is_the_same_run_to_the_last_bit(tmp_path: Path, plain: tuple[Plain, Path]) -> None:
    task = Ahead()
    assert isinstance(task, Task) and train(task, tmp_path, PLAN, {}) == 7
    assert same(task, plain[0]) and log(tmp_path) == log(plain[1])
    assert len(task.by) == 14 and not any(name == "MainThread" for name in task.by)


def test_a_signal_ends_the_step_and_the_thread_and_the_run_goes_on_to_the_same_end(
    tmp_path: Path, plain: tuple[Plain, Path]
) -> None:
    assert train(Ahead(then=raised_once()), tmp_path, PLAN, {}) == 5 and not threads()
    again = Ahead()
    assert train(again, tmp_path, PLAN, {}) == 7 and again.drawn == 4  # of the two steps that were left
    assert same(again, plain[0]) and log(tmp_path) == log(plain[1])


def raised_once() -> Callable[[], None]:
    told: list[int] = []

    def signalled() -> None:
        if not told:
            told.append(1)
            signal.raise_signal(signal.SIGINT)

    return signalled


def test_a_second_signal_ends_it_at_once_and_leaves_no_thread(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(Ahead(then=twice), tmp_path, PLAN, {})


@pytest.mark.parametrize("kind", [Plain, Ahead])
def test_a_broken_picture_is_told_after_the_steps_before_it(kind: type[Plain], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^picture\.png: cannot be read as an image$"):
        train(kind(broken=10), tmp_path, PLAN, {})  # the second item of the fifth step
    assert [line["step"] for line in log(tmp_path) if "loss" in line] == [1, 2, 3, 4]


def test_no_clip_is_drawn_that_no_step_needs(tmp_path: Path) -> None:
    task = Ahead(broken=15)
    assert train(task, tmp_path, PLAN, {}) == 7 and task.drawn == 14
