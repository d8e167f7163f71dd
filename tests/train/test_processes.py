"""Several processes train as one; what else of the loop does not change the run: threads that draw, its length."""

from __future__ import annotations

import io
import json
import multiprocessing
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.train.loop.events import EventFile, compute_masked_checksum
from masklet.train.loop.loop import TrainingPlan, compute_rate_factor, make_autocast, train
from masklet.train.loop.prefetch import PrefetchableTask
from masklet.train.loop.processes import Processes, find_processes, join_processes, leave_processes

PLAN = TrainingPlan(4, batch=2, lr=0.05, weight_decay=0.1, clip_norm=0.5, validate_every=2, save_every=2)
CPU = torch.device("cpu")


class Regression(PrefetchableTask[Tensor]):
    """A task of which one part sees no gradient, and one only with some items."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.ModuleList([nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(2, 2)])
        self.validated = 0

    def draw(self, random: np.random.Generator) -> Tensor:
        return torch.from_numpy(random.standard_normal((16, 4), np.float32))

    def loss_of(self, step: int, drawn: Tensor, random: np.random.Generator) -> dict[str, Tensor]:
        first, second, _ = self.module  # type: ignore[misc]
        hidden = first(drawn).tanh()
        seen = second(hidden)[:, 0] if float(drawn[0, 0]) > 0 else hidden.sum(1)
        return {"square": (seen - drawn.sum(1)).square().mean()}

    def validate(self) -> dict[str, float]:
        self.validated += 1
        return {"error": float(self.module[0](torch.ones(1, 4)).sum())}  # type: ignore[index]

    def save(self, path: Path) -> None:
        torch.save(self.module.state_dict(), path)


def weights(out: Path) -> dict[str, Tensor]:
    return torch.load(io.BytesIO((out / "weights.safetensors").read_bytes()), weights_only=True)


def log(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def one_of(rank: int, count: int, port: int, out: Path, plan: TrainingPlan, told: Any) -> None:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (("RANK", rank), ("WORLD_SIZE", count), ("MASTER_PORT", port), ("MASTER_ADDR", "127.0.0.1")):
            patched.setenv(name, str(value))
        processes, task = find_processes(), Regression()
        join_processes(processes, CPU)
        try:
            done = train(task, out, plan, {"task": "toy"}, processes=processes)
            told.put((rank, done, task.validated, {k: v.numpy() for k, v in task.module.state_dict().items()}))
        except InputError as error:
            told.put((rank, str(error), 0, {}))
        finally:
            leave_processes()


def together(out: Path, plan: TrainingPlan, count: int = 2) -> list[Any]:
    """What each of some processes says that train a plan."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    crew = [fork.Process(target=one_of, args=(rank, count, port, out, plan, told)) for rank in range(count)]
    for one in crew:
        one.start()
    said = sorted((told.get(timeout=120) for _ in crew), key=lambda one: one[0])
    for one in crew:
        one.join(60)
    return said


def test_two_processes_take_the_steps_of_one_with_their_batch(tmp_path: Path) -> None:
    """To the last bit with two items; only the first writes and validates; the run goes on with any number."""
    train(Regression(), tmp_path / "alone", PLAN, {"task": "toy"})
    said = together(tmp_path / "two", PLAN)
    assert [(rank, done, validated) for rank, done, validated, _ in said] == [(0, 4, 2), (1, 4, 0)]
    want = weights(tmp_path / "alone")
    for _, _, _, state in said:
        assert all(np.array_equal(state[k], want[k].numpy()) for k in want)
    assert all(torch.equal(weights(tmp_path / "two")[k], want[k]) for k in want)
    assert log(tmp_path / "two") == log(tmp_path / "alone")
    more = replace(PLAN, steps=6, milestones=())
    train(Regression(), tmp_path / "alone", more, {"task": "toy"})
    assert [one[1] for one in together(tmp_path / "two", more)] == [6, 6]  # the second process gets the first's weights
    assert all(torch.equal(weights(tmp_path / "two")[k], v) for k, v in weights(tmp_path / "alone").items())
    refused = together(tmp_path / "two", replace(more, lr=0.1))
    assert all("holds a run with lr 0.05, not 0.1" in one[1] for one in refused)


def test_items_are_shared_equally(tmp_path: Path) -> None:
    assert [Processes(rank, 3).select_own(range(6)) for rank in range(3)] == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(InputError, match="3 items of a step, 2 processes"):
        train(Regression(), tmp_path, replace(PLAN, batch=3), {}, processes=Processes(0, 2))


def test_an_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_processes() == Processes()
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RANK = 2, WORLD_SIZE = 2"):
        find_processes()


# -- what does not change the run


def test_more_threads_draw_the_same(tmp_path: Path) -> None:
    for workers in (1, 3):
        train(Regression(), tmp_path / str(workers), replace(PLAN, workers=workers), {})
    assert all(torch.equal(v, weights(tmp_path / "3")[k]) for k, v in weights(tmp_path / "1").items())
    assert log(tmp_path / "1") == log(tmp_path / "3")


def test_a_finished_run_is_made_longer(tmp_path: Path) -> None:
    """It goes on from its end, under the schedule of its new length; run.json says what it was."""
    plan = TrainingPlan(2, lr=0.1, milestones=(1,), save_every=1)
    longer = replace(plan, steps=4, milestones=(3,), validate_every=1)
    assert train(Regression(), tmp_path, plan, {"task": "toy"}) == 2
    assert train(Regression(), tmp_path, longer, {"task": "toy"}) == 4
    rates = [line["lr"] for line in log(tmp_path) if "lr" in line]
    assert rates == pytest.approx([0.1, 0.01, 0.1, 0.01])
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["steps"] == 4 and run["lengthened"] == [
        {"steps": 2, "milestones": [1], "warm_up": 0, "validate_every": 0}
    ]
    assert train(Regression(), tmp_path, longer, {"task": "toy"}) == 4  # as it is
    with pytest.raises(InputError, match="holds a run with steps 4, not 2"):
        train(Regression(), tmp_path, plan, {"task": "toy"})
    with pytest.raises(InputError, match="holds a run with task toy, not other"):
        train(Regression(), tmp_path, replace(longer, steps=9), {"task": "other"})


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    about = {"weights": {"a.pth": "1f"}, "categories": ""}
    train(Regression(), tmp_path, PLAN, about)
    run = json.loads((tmp_path / "run.json").read_text())
    del run["precision"], run["weights"], run["categories"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert train(Regression(), tmp_path, PLAN, about) == 4
    with pytest.raises(InputError, match=r"holds a run with weights none, not \{\}"):  # of one that tells them
        (tmp_path / "run.json").write_text(json.dumps({**run, "weights": None}))
        train(Regression(), tmp_path, PLAN, {"weights": {}})


def test_what_is_computed_in() -> None:
    net = nn.Linear(2, 2)
    for precision, kind in (("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with make_autocast(net, precision):
            assert net(torch.ones(1, 2)).dtype == kind


def test_the_rate_falls_at_its_milestones() -> None:
    plan = TrainingPlan(100, milestones=(70,))
    factors = [compute_rate_factor(plan, step) for step in range(100)]
    assert factors == pytest.approx([1.0] * 70 + [0.1] * 30)


# -- TensorBoard


def read_records(path: Path) -> list[bytes]:
    """The records of an event file, their checksums checked."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == compute_masked_checksum(content[:8])
        found.append(content[12 : 12 + length])
        assert content[12 + length : 16 + length] == compute_masked_checksum(found[-1])
        content = content[16 + length :]
    return found


def test_a_file_of_events(tmp_path: Path) -> None:
    """A scalar as the protocol buffer has it: Event.step = 2, Event.summary = 5, Value.tag = 1, simple_value = 2."""
    EventFile(tmp_path, 1).write(300, {"AP": 0.5})
    [path] = (tmp_path / "tensorboard").iterdir()
    version, start, scalar = read_records(path)
    assert path.name.startswith("events.out.tfevents.") and version.endswith(b"\x1a\x0dbrain.Event:2")
    assert start.endswith(b"\x10\x01\x3a\x02\x08\x01")
    assert scalar[9:] == b"\x10\xac\x02\x2a\x0b\x0a\x09\x0a\x02AP\x15" + struct.pack("<f", 0.5)


def test_the_log_of_a_run_is_in_it(tmp_path: Path) -> None:
    train(Regression(), tmp_path, PLAN, {}, events=True)
    [path] = (tmp_path / "tensorboard").iterdir()
    records = read_records(path)
    assert len(records) == 2 + len(log(tmp_path))
    assert sum(b"validation/error" in one for one in records) == 2 and sum(b"square" in one for one in records) == 4
    train(Regression(), tmp_path, replace(PLAN, steps=5), {}, events=True)
    assert len([*(tmp_path / "tensorboard").iterdir()]) == 2
