"""The training loop: AdamW over a task's losses, and going on after any interruption as if there had been none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from masklet.core.errors import InputError
from masklet.train.data.clips import seed_item_generator
from masklet.train.loop.curve import draw_curve
from masklet.train.loop.prefetch import PrefetchableTask, prefetch
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
    task: Task, out: Path, plan: TrainingPlan, about: Mapping[str, object], watch: TrainingWatch | None = None
) -> int:
    """Trains, from the beginning or from where a run in `out` was left; the number of steps that are done.

    Fewer than the plan's are done where SIGINT or SIGTERM asked it to stop; the step in work is finished, and the same
    call goes on from there. `out` holds log.jsonl (a line a step and a line a validation), curve.png, checkpoint.pt
    (to go on from) and weights.safetensors (what `task.save` writes).

    Args:
        task: what is trained; on a GPU in bfloat16 where its device can.
        out: a folder, new or with a run of the same task and plan.
        plan: how long and how fast.
        about: what tells this task from others: data, sizes; as JSON has it.
        watch: is told of each step and validation.

    Raises InputError where `out` holds another run or damaged files, or the loss stays not finite.
    """
    watch = watch or SilentWatch()
    folder = RunFolder(out, plan, about)
    optimiser = torch.optim.AdamW(group_parameters(task.module, plan), lr=plan.lr, fused=is_fusible(task.module))
    at = folder.restored(task.module, optimiser)
    if at.step < plan.steps:
        steps = prefetch(partial(prepare_step_items, task, plan), range(at.step, plan.steps))
        with (
            detect_stop_signals() as asked,
            torch.random.fork_rng(find_module_gpus(task.module)),
            closing(steps) as coming,
        ):
            while at.step < plan.steps and not asked():
                at = take_training_step(task, plan, optimiser, at, coming, folder, watch)
                if at.step % plan.save_every == 0 or at.step == plan.steps or asked():
                    task.save(folder.weights)  # before the checkpoint: a run that counts as done has its weights
                    folder.keep(task.module, optimiser, at)
    draw_curve(folder.lines(), folder.path / "curve.png")
    return at.step


def prepare_step_items(task: Task, plan: TrainingPlan, number: int) -> list[Losses]:
    """The items of step `number`, as many as the batch of `plan`, with what `task` can do of them before the weights
    are known: no matter in which thread.
    """
    return [draw_item_losses(task, number, seed_item_generator(plan.seed, number, item)) for item in range(plan.batch)]


def draw_item_losses(task: Task, number: int, random: np.random.Generator) -> Losses:
    """The losses of one item of step `number` of `task`, still to be computed: a `PrefetchableTask`'s clips are drawn
    here already, with `random`; another task draws its own when called.
    """
    if isinstance(task, PrefetchableTask):
        return partial(task.loss_of, number, task.draw(random), random)
    return partial(task.loss, number, random)


def take_training_step(
    task: Task,
    plan: TrainingPlan,
    optimiser: torch.optim.Optimizer,
    at: RunProgress,
    coming: Iterator[list[Losses]],
    folder: RunFolder,
    watch: TrainingWatch,
) -> RunProgress:
    """One step of `task` with `optimiser` on the next items of `coming`, and a validation where `plan` has it due; both
    are logged in `folder` and told to `watch`. `at` is how far the run is before the step, the result how far after it.

    Raises InputError where the losses of `PATIENCE` steps in a row were not finite.
    """
    started = monotonic()
    task.module.train()
    rate = plan.lr * compute_rate_factor(plan, at.step)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    losses, norm = run_optimiser_step(task, plan, optimiser, at.step, next(coming))
    done = at.step + 1
    finite = math.isfinite(norm)
    line = {"lr": rate, "norm": norm, "seconds": round(monotonic() - started, 4)}
    folder.log(done, {**losses, **line} if finite else {**line, "norm": None, "skipped": True})
    watch.stepped(done, plan.steps, losses)
    at = RunProgress(done, 0 if finite else at.skipped + 1)
    if at.skipped == PATIENCE:
        raise InputError(
            f"{folder.path}: the loss was not finite in {PATIENCE} steps in a row, the last is {done}; "
            "train anew with a smaller --lr"
        )
    if done == plan.steps or (plan.validate_every and done % plan.validate_every == 0):
        task.module.eval()
        with torch.no_grad():
            scores = task.validate()
        folder.log(done, {"validation": scores})
        watch.validated(done, scores)
    return at


def run_optimiser_step(
    task: Task, plan: TrainingPlan, optimiser: torch.optim.Optimizer, number: int, items: list[Losses]
) -> tuple[dict[str, float], float]:
    """One step of `optimiser` for `task`; the losses (means over `items`, by name) and the norm of their gradient
    before it is clipped as `plan` says. The step's `number` seeds what the network itself draws.

    Where that norm is not finite, the weights stay as they are.
    """
    torch.manual_seed(
        int(seed_item_generator(plan.seed, number, plan.batch).integers(2**62))
    )  # dropout's, if there is any
    optimiser.zero_grad()
    losses: dict[str, float] = {}
    for item in items:
        with autocast_for(task.module):
            parts = item()
            total = torch.stack([*parts.values()]).sum()
        (total / plan.batch).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": total, **parts}.items():
            losses[name] = losses.get(name, 0.0) + float(value.detach()) / plan.batch
    norm = float(nn.utils.clip_grad_norm_(task.module.parameters(), plan.clip_norm))
    if not math.isfinite(losses["loss"]):
        norm = math.nan
    if math.isfinite(norm):
        optimiser.step()
    return losses, norm


def is_fusible(module: nn.Module) -> bool:
    """Whether one kernel can do the optimiser's whole step."""
    return next(module.parameters()).device.type in ("cpu", "cuda")


def find_module_gpus(module: nn.Module) -> list[torch.device]:
    """The GPU that a module is on, if it is on one."""
    device = next(module.parameters()).device
    return [device] if device.type == "cuda" else []


def autocast_for(module: nn.Module) -> AbstractContextManager[Any]:
    """bfloat16 on a GPU that has it."""
    device = next(module.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda" and torch.cuda.is_bf16_supported())


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
