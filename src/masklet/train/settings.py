"""What can be set of a training with `--set`, besides what its task has of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from masklet.core.errors import InputError
from masklet.core.settings import check_setting
from masklet.train.loop.loop import TrainingPlan

S = TypeVar("S")


@dataclass(frozen=True)
class ScheduleSettings:
    """How a training goes; none: as the training has it of its own."""

    weight_decay: float | None = None  # not of norms and embeddings
    clip_norm: float | None = None  # of all gradients together; DVIS and GenVIS: 0.01
    warm_up: int | None = None  # steps in which the rate rises from nothing
    milestones: tuple[float, ...] | None = None  # where the rate falls to a tenth: steps, or below 1 shares of them
    accumulate: int = 1  # parts of a batch that go through the network one after the other
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 on a GPU, of query heads float32
    workers: int = 1  # threads that draw the clips of the next steps
    validate_every: int | None = None  # steps
    save_every: int | None = None  # steps


@dataclass(frozen=True)
class SamplingSettings:
    """What clips are made of, and what it is validated on."""

    ratio: tuple[float, ...] = ()  # how often each --data is drawn from, in their order; none: equally often
    reach: int | None = (
        None  # frames on either side of a random one, of which clips are; none: frames follow each other
    )
    reverse: float | None = None  # share of the clips that run backward; none: as published, the refiner's half
    val_clips: int | None = None  # clips that it is validated on
    val_frames: int | None = None  # frames of each; none: as many as those of training


def read_training_settings(
    kinds: Sequence[type[Any]], told: Mapping[str, Any], name: str, but: Sequence[str] = ()
) -> dict[str, Any]:
    """What was `told` by name, checked against the fields of the dataclasses `kinds` of the training `name`, those in
    `but` left out; text with commas is a list where one is asked for.

    Raises InputError where there is no such setting, or a value is not of its kind.
    """
    known = {f.name: hint for kind in kinds for f, hint in list_field_kinds(kind) if f.name not in but}
    for setting in told:
        if setting not in known:
            raise InputError(f"{name} has no setting {setting!r}; there are: {', '.join(known) or 'none'}")
    return {key: check_setting("", key, split_list(value, known[key]), known[key]) for key, value in told.items()}


def list_field_kinds(kind: type[Any]) -> list[tuple[Any, Any]]:
    """The fields of a dataclass, each with its kind."""
    hints = get_type_hints(kind)
    return [(f, hints[f.name]) for f in fields(kind)]


def split_list(value: Any, kind: Any) -> Any:
    """A setting's value; of text, or a single number, the list that it stands for where the `kind` is one.

    >>> split_list("240,360", tuple[int, ...]), split_list(0.7, tuple[float, ...] | None), split_list("240", int)
    ([240, 360], [0.7], '240')
    """
    wanted = [k for k in (get_args(kind) if get_origin(kind) is UnionType else (kind,)) if get_origin(k) is tuple]
    if not wanted or value is None or isinstance(value, list | tuple | bool):
        return value
    if not isinstance(value, str):
        return [value]
    inner = get_args(wanted[0])[0]
    try:
        return [inner(part) for part in value.split(",")]
    except ValueError:
        return value


def choose_settings(kind: type[S], told: Mapping[str, Any]) -> S:
    """An object of the dataclass `kind` with those of its fields that were `told`."""
    return kind(**{f.name: told[f.name] for f in fields(kind) if f.name in told})  # type: ignore[arg-type]


def apply_schedule(plan: TrainingPlan, told: ScheduleSettings) -> TrainingPlan:
    """The plan with what was `told` in the place of its own. Raises InputError where a milestone is beyond its end."""
    given = {
        name: getattr(told, name)
        for name in ("weight_decay", "clip_norm", "warm_up", "validate_every", "save_every")
        if getattr(told, name) is not None
    }
    if told.milestones is not None:
        given["milestones"] = tuple(resolve_milestone(m, plan.steps) for m in told.milestones)
    return replace(plan, precision=told.precision, workers=told.workers, **given)


def resolve_milestone(told: float, steps: int) -> int:
    """The step of a milestone, which may be a share of all `steps`. Raises InputError where it is beyond them.

    >>> resolve_milestone(0.7, 20_000), resolve_milestone(14_000, 20_000)
    (14000, 14000)
    """
    step = round(told * steps) if told < 1 else round(told)
    if step > steps:
        raise InputError(f"milestones = {told:g}: there are {steps} steps; give a step below that, or a share below 1")
    return step
