"""The training loop: a run that was interrupted anywhere is the run that was not."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.train.loop.curve import COLOURS, draw_curve
from masklet.train.loop.loop import PATIENCE, Task, TrainingPlan, compute_rate_factor, group_parameters, train
from masklet.train.loop.run_folder import load_run_checkpoint

ABOUT = {"task": "toy", "data": ["synthetic"]}
PLAN = TrainingPlan(8, batch=2, lr=0.05, warm_up=2, milestones=(6,), validate_every=3, save_every=3, clip_norm=0.5)


class Toy:
    """Regression with dropout; at some steps it does something else first."""

    def __init__(self, at: dict[int, object] | None = None, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.at, self.scale, self.seen = at or {}, scale, list[tuple[int, float]]()

    def loss(self, step: int, random: np.random.Generator) -> dict[str, Tensor]:
        if callable(told := self.at.get(step)):
            del self.at[step]  # once, not for each item
            told()
        x = torch.from_numpy(random.standard_normal((16, 4), np.float32))
        self.seen.append((step, float(x[0, 0])))
        off = self.module(x)[:, 0] - x.sum(1)
        scale = told if isinstance(told, float) else self.scale
        return {"square": scale * off.square().mean(), "size": 0.1 * off.abs().mean()}

    def validate(self) -> dict[str, float]:
        assert not self.module.training and not torch.is_grad_enabled()
        return {"error": float(self.module(torch.ones(1, 4)))}

    def save(self, path: Path) -> None:
        path.write_bytes(b"weights so far")


class Killed(Exception):
    pass


def killed() -> None:
    raise Killed


def log(out: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def run(out: Path, task: Toy | None = None, plan: TrainingPlan = PLAN) -> tuple[int, Toy]:
    task = task or Toy()
    assert isinstance(task, Task)
    return train(task, out, plan, ABOUT), task


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """SIGINT does what it does in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    out = tmp_path_factory.mktemp("whole") / "run"
    done, task = run(out)
    assert done == 8
    return out, task


def same(module: nn.Module, other: nn.Module) -> bool:
    mine, its = module.state_dict(), other.state_dict()
    return all(torch.equal(mine[k], its[k]) for k in mine)


# -- going on


@pytest.mark.parametrize("step", range(8))
def test_a_killed_run_goes_on_to_the_same_end(tmp_path: Path, whole: tuple[Path, Toy], step: int) -> None:
    out, task = whole
    with pytest.raises(Killed):
        run(tmp_path, Toy({step: killed}))
    done, again = run(tmp_path)
    assert done == 8 and same(again.module, task.module)
    assert log(tmp_path) == log(out)
    assert again.seen[0] == task.seen[2 * (step // 3 * 3)]  # at the checkpoint before, on the same data


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_end_and_leaves_a_checkpoint(
    tmp_path: Path, whole: tuple[Path, Toy], number: signal.Signals
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    done, _ = run(tmp_path, Toy({4: lambda: signal.raise_signal(number)}))
    assert done == 5 and (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert (tmp_path / "weights.safetensors").exists() and (tmp_path / "curve.png").exists()
    done, again = run(tmp_path)
    assert done == 8 and again.seen[0][0] == 5 and same(again.module, whole[1].module)
    assert log(tmp_path) == log(whole[0])


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background
    done, _ = run(tmp_path, Toy({4: lambda: signal.raise_signal(signal.SIGINT)}))
    assert done == 8 and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_signals_mean_after_a_run_what_they_meant_before(tmp_path: Path) -> None:
    run(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Toy({4: twice}))
    assert load_run_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_a_finished_run_stays_as_it_is(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    run(tmp_path)
    before = log(tmp_path)
    done, task = run(tmp_path)
    assert done == 8 and not task.seen and log(tmp_path) == before and same(task.module, whole[1].module)


def test_half_a_line_and_what_came_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, Toy({7: killed}))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    run(tmp_path)
    assert [line["step"] for line in log(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_state_of_other_random_numbers_does_not_matter(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    task = Toy()
    torch.manual_seed(77)
    before = torch.get_rng_state()
    run(tmp_path, task)
    assert same(task.module, whole[1].module) and torch.equal(torch.get_rng_state(), before)


def test_another_seed_is_another_run(tmp_path: Path, whole: tuple[Path, Toy]) -> None:
    assert not same(run(tmp_path, plan=replace(PLAN, seed=1))[1].module, whole[1].module)


# -- what it says


def test_a_line_a_step_and_a_line_a_validation(whole: tuple[Path, Toy]) -> None:
    lines = log(whole[0])
    assert [(line["step"], "validation" in line) for line in lines] == [
        (1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (6, False), (6, True),
        (7, False), (8, False), (8, True),
    ]  # fmt: skip
    for line in lines:
        if "loss" in line:
            assert line["loss"] == pytest.approx(line["square"] + line["size"])  # type: ignore[operator]
    assert [line["lr"] for line in lines if "lr" in line] == pytest.approx([0.025] + 5 * [0.05] + 2 * [0.005])


def test_the_items_of_a_step_are_a_mean(tmp_path: Path) -> None:
    """Two items of one step: the gradient step of their mean loss."""
    plan = TrainingPlan(1, batch=2, lr=0.1, weight_decay=0.0, clip_norm=1e9)
    task = Toy()
    task.module = nn.Linear(4, 1)
    twin = nn.Linear(4, 1)
    twin.load_state_dict(task.module.state_dict())
    run(tmp_path, task, plan)
    optimiser = torch.optim.AdamW(twin.parameters(), 0.1, weight_decay=0)
    other = Toy()
    other.module = twin
    items = [other.loss(0, np.random.default_rng((0, 0, item))) for item in range(2)]
    loss = torch.stack([value for parts in items for value in parts.values()]).sum() / 2
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in twin.parameters()]).norm()
    optimiser.step()
    assert log(tmp_path)[0]["norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert torch.allclose(task.module.weight, twin.weight, atol=1e-6)
    assert log(tmp_path)[0]["loss"] == pytest.approx(loss.item())


def test_the_curve_is_a_picture_of_losses_and_validations(whole: tuple[Path, Toy]) -> None:
    with Image.open(whole[0] / "curve.png") as picture:
        colours = {colour for _, colour in picture.getcolors(picture.width * picture.height) or ()}
        assert picture.size == (900, 600) and colours >= set(COLOURS[:3])  # the loss and its two parts


def test_a_curve_of_one_step_and_of_nothing(tmp_path: Path) -> None:
    draw_curve([], tmp_path / "none.png")
    draw_curve([{"step": 1, "loss": 0.0}, {"step": 1, "validation": {"AP": 0.0, "AP/dog": 1.0}}], tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        assert not (tmp_path / "none.png").exists() and picture.size == (900, 600)
        assert COLOURS[1] not in {colour for _, colour in picture.getcolors(picture.width * picture.height) or ()}


# -- what is not finite


def test_a_step_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    task = Toy({3: math.nan})
    assert run(tmp_path, task)[0] == 8
    line = next(line for line in log(tmp_path) if line["step"] == 4)
    assert line["skipped"] is True and line["norm"] is None
    assert all(p.isfinite().all() for p in task.module.parameters())


def test_an_infinite_gradient_leaves_the_weights(tmp_path: Path) -> None:
    task = Toy(scale=1e38)
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    run(tmp_path, task, replace(PLAN, steps=2))
    assert all(torch.equal(v, before[k]) for k, v in task.module.state_dict().items())


def test_it_stops_when_nothing_is_finite_any_more(tmp_path: Path) -> None:
    plan = replace(PLAN, steps=100, save_every=5)
    at = {step: math.inf for step in range(10, 100)}
    with pytest.raises(Killed):
        run(tmp_path, Toy({**at, 17: killed}), plan)  # the count goes on after an interruption, too
    with pytest.raises(
        InputError, match=rf"not finite in {PATIENCE} steps in a row, the last is {10 + PATIENCE}; .*lr"
    ):
        run(tmp_path, Toy(at), plan)


# -- at the door


def test_another_plan_or_task_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match=r"holds a run with lr 0\.05, not 0\.1; choose another folder"):
        run(tmp_path, plan=replace(PLAN, lr=0.1))
    with pytest.raises(InputError, match=r"holds a run with task toy, not another"):
        train(Toy(), tmp_path, PLAN, {**ABOUT, "task": "another"})
    with pytest.raises(InputError, match=r"holds a run with data \['synthetic'\], not none"):
        train(Toy(), tmp_path, PLAN, {"task": "toy"})


@pytest.mark.parametrize("name", ["log.jsonl", "00000.png"])  # of another run; of a video's frames
def test_files_of_something_else_are_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"holds {name}, but no run\.json"):
        run(tmp_path)
    assert (tmp_path / name).read_text() == "mine" and [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["run.json", "checkpoint.pt"])
def test_damaged_files_are_told(tmp_path: Path, name: str) -> None:
    run(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{name}: damaged"):
        run(tmp_path)


def test_a_checkpoint_of_another_network_is_told(tmp_path: Path) -> None:
    run(tmp_path)
    other = Toy()
    other.module = nn.Linear(4, 3)
    with pytest.raises(InputError, match=r"checkpoint\.pt: of another network"):
        run(tmp_path, other)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path / "file" / "run")


# -- rates


def test_norms_and_embeddings_do_not_decay_and_parts_have_their_own_rate() -> None:
    net = nn.ModuleDict(
        {"back": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "words": nn.Embedding(3, 2), "head": nn.Linear(2, 1)}
    )
    net["head"].bias.requires_grad_(False)
    found = group_parameters(net, TrainingPlan(1, weight_decay=0.1, factors=(("back", 0.5),)))
    names = {id(p): name for name, p in net.named_parameters()}
    told = [(g["factor"], g["weight_decay"], [names[id(p)] for p in g["params"]]) for g in found]
    assert told == [
        (0.5, 0.1, ["back.weight", "back.bias"]),
        (1.0, 0.0, ["norm.weight", "norm.bias", "words.weight"]),
        (1.0, 0.1, ["head.weight"]),
    ]
    with pytest.raises(InputError, match="'neck' has a rate of its own, but no parameter is called so"):
        group_parameters(net, TrainingPlan(1, factors=(("neck", 0.5),)))


def test_a_part_with_a_rate_of_zero_stays(tmp_path: Path) -> None:
    task, before = Toy(), Toy().module.state_dict()
    run(tmp_path, task, replace(PLAN, factors=(("0.", 0.0),)))
    after = task.module.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"]) and not torch.equal(after["3.weight"], before["3.weight"])


def test_a_part_with_half_the_rate_goes_half_as_far(tmp_path: Path) -> None:
    """The first step of Adam is as long as the rate, whatever the gradient."""
    task = Toy()
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    run(tmp_path, task, TrainingPlan(1, lr=0.01, weight_decay=0.0, factors=(("3.", 0.5),)))
    gone = {k: float((v - before[k]).abs().max()) for k, v in task.module.state_dict().items()}
    assert gone["0.weight"] == pytest.approx(0.01, rel=0.01) and gone["3.weight"] == pytest.approx(0.005, rel=0.01)


def test_the_rate_warms_up_under_both_schedules() -> None:
    assert [compute_rate_factor(TrainingPlan(100, warm_up=4, milestones=()), n) for n in range(5)] == [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
    ]
    cosine = [compute_rate_factor(TrainingPlan(100, warm_up=4), n) for n in range(100)]
    assert max(cosine) == cosine[3] and cosine[:2] == pytest.approx([0.25, 0.5], rel=1e-3) and cosine[-1] < 1e-3
    assert all(a > b for a, b in pairwise(cosine[3:]))
