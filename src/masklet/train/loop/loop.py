"""The training loop: AdamW over a task's losses, and going on after any interruption as if there had been none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.core.wording import name_argument
from masklet.train.data.clips import seed_item_generator
from masklet.train.loop.curve import draw_curve
from masklet.train.loop.prefetch import PrefetchableTask, prefetch
from masklet.train.loop.processes import ALONE, Processes
from masklet.train.loop.run_folder import RunFolder, RunProgress
from masklet.train.loop.stopping import detect_stop_signals

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
PATIENCE = 20  # steps in a row whose loss or gradient is not finite

Losses = Callable[[], dict[str, Tensor]]  # of one item, its clips drawn


@runtime_checkable
class Task(Protocol):
    """What is trained, and towards what. Between steps it keeps nothing but the module's weights and buffers.

    One that is `PrefetchableTask`, too, has its clips drawn while the step before is computed.
    """

    @property
    def module(self) -> nn.Module:
        """Exactly what is trained and saved, on the device where it is trained."""
        ...

    def loss(self, step: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Weighted losses whose sum is minimised. All that is random in them comes from `random`."""
        ...

    def validate(self) -> dict[str, float]:
        """Scores on what is not trained on, the same each time for the same weights."""
        ...

    def save(self, path: Path) -> None:
        """Writes the weights so far, as `masklet run` loads them."""
        ...


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast. Two runs of one task, plan and seed are the same run (on a CPU, to the last bit)."""

    steps: int
    batch: int = 1  # items of the task's loss whose gradients make one step
    lr: float = 1e-4
    weight_decay: float = 0.05  # not of norms and embeddings (Mask2Former)
    clip_norm: float = 1.0  # of all gradients together
    warm_up: int = 0  # steps in which the rate rises from nothing
    milestones: tuple[int, ...] | None = None  # steps at which the rate falls to a tenth; None: half a cosine to 0
    factors: tuple[
        tuple[str, float], ...
    ] = ()  # of the rate, by how a parameter's name begins: the first that fits; 0: it stays
    seed: int = 0
    validate_every: int = 0  # steps; 0: at the end only
    save_every: int = 100  # steps
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # of what is computed; auto: bfloat16 on a GPU
    workers: int = 1  # threads that draw the clips of the next steps


@runtime_checkable
class TrainingWatch(Protocol):
    """Is told how training goes."""

    def stepped(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        """After each step: `step` of `total` are done; `losses` are its means by name, their sum as "loss"."""
        ...

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """After each validation: `scores` by name, as of `step` steps."""
        ...


class SilentWatch:
    """Tells nobody."""

    def stepped(self, step: int, total: int, losses: Mapping[str, float]) -> None:
        """Ignores the `losses` of `step`, one of `total`."""

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """Ignores the `scores` of the validation after `step`."""


def train(
    task: Task,
    out: Path,
    plan: TrainingPlan,
    about: Mapping[str, object],
    watch: TrainingWatch | None = None,
    processes: Processes = ALONE,
    events: bool = False,
) -> int:
    """Trains, from the beginning or from where a run in `out` was left; the number of steps that are done.

    Fewer than the plan's are done where SIGINT or SIGTERM asked it to stop; the step in work is finished, and the same
    call goes on from there. A run of fewer steps that is done goes on to the plan's, too. `out` holds log.jsonl (a line
    a step and a line a validation), curve.png, checkpoint.pt (to go on from) and weights.safetensors (what `task.save`
    writes).

    Args:
        task: what is trained; on a GPU in bfloat16 where its device can.
        out: a folder, new or with a run of the same task and plan.
        plan: how long and how fast.
        about: what tells this task from others: data, sizes; as JSON has it.
        watch: is told of each step and validation.
        processes: that train together and have joined; each calls this, the first alone writes and validates.
        events: whether the log is written in TensorBoard's form, too.

    Raises InputError where `out` holds another run or damaged files, the loss stays not finite, or the items of a step
    cannot be shared equally among the processes.
    """
    if plan.batch % processes.count:
        raise InputError(f"{plan.batch} items of a step, {processes.count} processes: give a multiple of them")
    optimiser = torch.optim.AdamW(group_parameters(task.module, plan), lr=plan.lr, fused=is_fusible(task.module))
    run = TrainingRun(task, plan, optimiser, processes, watch or SilentWatch())
    folder, at = run.open(out, about)
    if events and folder is not None and at.step < plan.steps:
        folder.write_events(at.step + 1)
    if at.step < plan.steps:
        numbers = range(at.step, plan.steps)
        steps = prefetch(partial(prepare_step_items, task, plan, processes), numbers, plan.workers)
        with (
            detect_stop_signals() as asked,
            torch.random.fork_rng(find_module_gpus(task.module)),
            closing(steps) as coming,
        ):
            at = run.advance(at, coming, folder, asked)
    if folder is not None:
        draw_curve(folder.lines(), folder.path / "curve.png")
    return at.step


@dataclass(frozen=True)
class TrainingRun:
    """What stays the same through a run, in one process."""

    task: Task
    plan: TrainingPlan
    optimiser: torch.optim.Optimizer
    processes: Processes
    watch: TrainingWatch

    def open(self, out: Path, about: Mapping[str, object]) -> tuple[RunFolder | None, RunProgress]:
        """The folder `out` of the run that is told `about`, in the first process, and how far the run is: weights and
        optimiser are then as they were there.
        """
        found: list[RunFolder] = []

        def restore() -> tuple[RunProgress, Any]:
            folder = RunFolder(out, self.plan, about)
            found.append(folder)
            at = folder.restored(self.task.module, self.optimiser)
            state = self.task.module.state_dict(), self.optimiser.state_dict()
            return at, state if self.processes.count > 1 else None

        at, state = self.processes.share_first(restore)
        if state is not None:
            self.task.module.load_state_dict(state[0])
            self.optimiser.load_state_dict(state[1])
        return (found[0] if found else None), at

    def advance(
        self, at: RunProgress, coming: Iterator[list[Losses]], folder: RunFolder | None, asked: Callable[[], bool]
    ) -> RunProgress:
        """Steps on the items of `coming` from where the run is (`at`) to its end, or until `asked` to stop; `folder`,
        of the first process, is kept up to date.
        """
        while at.step < self.plan.steps:
            at = take_training_step(self, at, coming, folder)
            stop = self.is_asked(asked)
            if folder is not None and (at.step % self.plan.save_every == 0 or at.step == self.plan.steps or stop):
                self.task.save(folder.weights)  # before the checkpoint: a run that counts as done has its weights
                folder.keep(self.task.module, self.optimiser, at)
            if stop:
                break
        return at

    def is_asked(self, asked: Callable[[], bool]) -> bool:
        """Whether any of the processes was `asked` to stop."""
        return self.processes.sum_values([float(asked())], find_module_device(self.task.module))[0] > 0


def prepare_step_items(task: Task, plan: TrainingPlan, processes: Processes, number: int) -> list[Losses]:
    """The items of step `number` that are this process's among `processes`, of as many as the batch of `plan`, with
    what `task` can do of them before the weights are known: no matter in which thread.
    """
    return [
        draw_item_losses(task, number, seed_item_generator(plan.seed, number, item))
        for item in processes.select_own(range(plan.batch))
    ]


def draw_item_losses(task: Task, number: int, random: np.random.Generator) -> Losses:
    """The losses of one item of step `number` of `task`, still to be computed: a `PrefetchableTask`'s clips are drawn
    here already, with `random`; another task draws its own when called.
    """
    if isinstance(task, PrefetchableTask):
        return partial(task.loss_of, number, task.draw(random), random)
    return partial(task.loss, number, random)


def take_training_step(
    run: TrainingRun, at: RunProgress, coming: Iterator[list[Losses]], folder: RunFolder | None
) -> RunProgress:
    """One step of `run` on the next items of `coming`, and a validation where its plan has it due; both are logged in
    `folder` (of the first process; None in others) and told to who watches. `at` is how far the run is before the step,
    the result how far after it.

    Raises InputError where the losses of `PATIENCE` steps in a row were not finite.
    """
    started, plan = monotonic(), run.plan
    run.task.module.train()
    rate = plan.lr * compute_rate_factor(plan, at.step)
    for group in run.optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    losses, norm = run_optimiser_step(run, at.step, next(coming))
    done = at.step + 1
    finite = math.isfinite(norm)
    if folder is not None:
        line = {"lr": rate, "norm": norm, "seconds": round(monotonic() - started, 4)}
        folder.log(done, {**losses, **line} if finite else {**line, "norm": None, "skipped": True})
        run.watch.stepped(done, plan.steps, losses)
    at = RunProgress(done, 0 if finite else at.skipped + 1)
    if at.skipped == PATIENCE:
        where = f"{folder.path}: " if folder is not None else ""
        raise InputError(
            f"{where}the loss was not finite in {PATIENCE} steps in a row, the last is {done}; "
            f"train anew with a smaller {name_argument('lr')}"
        )
    if folder is not None and (done == plan.steps or (plan.validate_every and done % plan.validate_every == 0)):
        validate_run(run, done, folder)
    return at


def validate_run(run: TrainingRun, done: int, folder: RunFolder) -> None:
    """Scores the weights after `done` steps of `run`, logs that in `folder` and tells who watches."""
    run.task.module.eval()
    with torch.no_grad():
        scores = run.task.validate()
    folder.log(done, {"validation": scores})
    run.watch.validated(done, scores)


def run_optimiser_step(run: TrainingRun, number: int, items: list[Losses]) -> tuple[dict[str, float], float]:
    """One step of the optimiser of `run`; the losses (means over the items of all processes, by name) and the norm of
    their gradient before it is clipped as the plan says. `items` are this process's. The step's `number` seeds what the
    network itself draws.

    Where that norm is not finite, the weights stay as they are.
    """
    task, plan = run.task, run.plan
    torch.manual_seed(
        int(seed_item_generator(plan.seed, number, plan.batch).integers(2**62))
    )  # dropout's, if there is any
    run.optimiser.zero_grad()
    losses: dict[str, float] = {}
    for item in items:
        with make_autocast(task.module, plan.precision):
            parts = item()
            total = torch.stack([*parts.values()]).sum()
        (total / plan.batch).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": total, **parts}.items():
            losses[name] = losses.get(name, 0.0) + float(value.detach()) / plan.batch
    run.processes.sum_gradients(task.module)
    device = find_module_device(task.module)
    losses = dict(zip(losses, run.processes.sum_values([*losses.values()], device), strict=True))
    norm = float(nn.utils.clip_grad_norm_(task.module.parameters(), plan.clip_norm))
    if not math.isfinite(losses["loss"]):
        norm = math.nan
    if math.isfinite(norm):
        run.optimiser.step()
    return losses, norm


def find_module_device(module: nn.Module) -> torch.device:
    """The device that a module's parameters are on."""
    return next(module.parameters()).device


def is_fusible(module: nn.Module) -> bool:
    """Whether one kernel can do the optimiser's whole step."""
    return find_module_device(module).type in ("cpu", "cuda")


def find_module_gpus(module: nn.Module) -> list[torch.device]:
    """The GPU that a module is on, if it is on one."""
    device = find_module_device(module)
    return [device] if device.type == "cuda" else []


def make_autocast(module: nn.Module, precision: str = "auto") -> AbstractContextManager[Any]:
    """What a module's losses are computed in: bfloat16 or float32 as `precision` says; auto: bfloat16 on a GPU that has
    it.
    """
    device = find_module_device(module).type
    half = device == "cuda" and torch.cuda.is_bf16_supported() if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device, torch.bfloat16, enabled=half)


def compute_rate_factor(plan: TrainingPlan, number: int) -> float:
    """The factor of the learning rate at a step.

    >>> [round(compute_rate_factor(TrainingPlan(8, warm_up=2, milestones=(5,)), n), 3) for n in range(8)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1]
    >>> [round(compute_rate_factor(TrainingPlan(4), n), 3) for n in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    warm = min((number + 1) / plan.warm_up, 1.0) if plan.warm_up else 1.0
    if plan.milestones is None:
        return warm * (1 + math.cos(math.pi * number / plan.steps)) / 2
    return warm * float(0.1 ** sum(number >= m for m in plan.milestones))


def group_parameters(module: nn.Module, plan: TrainingPlan) -> list[dict[str, Any]]:
    """The parameters that are trained, by factor of the rate and by whether they decay; always in the same order.

    Raises InputError where a factor is of no parameter.
    """
    names = [name for name, _ in module.named_parameters()]
    for start, _ in plan.factors:
        if not any(name.startswith(start) for name in names):
            raise InputError(f"{start!r} has a rate of its own, but no parameter is called so; one is {names[0]}")
    still = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, (*NORMS, nn.Embedding))
        for parameter in part.parameters(recurse=False)
    }
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((f for start, f in plan.factors if name.startswith(start)), 1.0)
            if factor == 0:
                parameter.requires_grad_(False)
                continue
            decay = 0.0 if id(parameter) in still else plan.weight_decay
            found.setdefault((factor, decay), []).append(parameter)
    return [{"params": p, "factor": factor, "weight_decay": decay} for (factor, decay), p in found.items()]
