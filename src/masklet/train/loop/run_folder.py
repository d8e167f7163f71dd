"""The folder of a training run: whose it is, how far it came, and what it said."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from masklet.core.errors import InputError
from masklet.core.files import explain_write_error, write_atomically
from masklet.models.transformers_output import drop_transformers_output
from masklet.train.loop.events import EventFile, list_scalars

if TYPE_CHECKING:
    from masklet.train.loop.loop import TrainingPlan

RUN, LOG, CHECKPOINT, WEIGHTS = "run.json", "log.jsonl", "checkpoint.pt", "weights.safetensors"
UNTOLD = ("categories", "weights")  # what older versions do not tell of a run
FREE = ("workers",)  # of a plan: what does not change the run
LENGTHENED = "lengthened"  # in run.json: what `OF_LENGTH` was before
OF_LENGTH = ("steps", "milestones", "warm_up", "validate_every")  # of a plan: what follows from how long it is


@dataclass(frozen=True)
class RunProgress:
    """How far a run is."""

    step: int = 0  # steps done
    skipped: int = 0  # of the last steps, in a row


class RunFolder:
    """Files of one run. Whatever was interrupted, they can be gone on from."""

    def __init__(self, path: Path, plan: TrainingPlan, about: Mapping[str, object]) -> None:
        """Makes the folder or claims it again. Raises InputError where it holds a run of another task or plan."""
        self.path, self.weights = path, path / WEIGHTS
        self._events: EventFile | None = None
        told = {**about, **{name: value for name, value in asdict(plan).items() if name not in FREE}}
        run = json.loads(json.dumps(told))  # tuples become lists
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_write_error(path, error) from None
        if (path / RUN).exists():
            self._claim(self._read(RUN), run, asdict(type(plan)(plan.steps)))
        elif found := sorted(one.name for one in path.iterdir() if not one.name.startswith(".")):
            held = next((name for name in (LOG, CHECKPOINT, WEIGHTS) if name in found), found[0])
            raise InputError(f"{path}: holds {held}, but no {RUN} that says of what run; choose a new folder")
        else:
            self._write(run)

    def _write(self, run: Mapping[str, object]) -> None:
        with write_atomically(self.path / RUN) as file:
            file.write(json.dumps(run, indent=1).encode())

    def _claim(self, found: Any, wanted: dict[str, object], defaults: Mapping[str, object]) -> None:
        """Checks that the run that was `found` is the one that is `wanted`, or that one with fewer steps, which is then
        made longer. What older versions do not tell of their plan was as in `defaults`.
        """
        untold = {name: wanted[name] for name in UNTOLD if name in wanted}
        there = {**defaults, **untold, **found} if isinstance(found, dict) else {}
        there = {name: value for name, value in there.items() if name not in FREE and name != LENGTHENED}
        longer = isinstance(there.get("steps"), int) and there["steps"] < wanted["steps"]
        self._same({**there, **{name: wanted[name] for name in OF_LENGTH}} if longer else there, wanted)
        if longer:
            before = [*found.get(LENGTHENED, ()), {name: found.get(name) for name in OF_LENGTH}]
            self._write({**wanted, LENGTHENED: before})

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            raise InputError(f"{self.path / name}: damaged; choose another folder, or remove the folder") from None

    def _same(self, found: Any, wanted: Mapping[str, object]) -> None:
        there = found if isinstance(found, dict) else {}
        for name in [*wanted, *there]:
            if (old := there.get(name)) != (new := wanted.get(name)):
                raise InputError(
                    f"{self.path}: holds a run with {name} {format_setting(old)}, not {format_setting(new)}; "
                    "choose another folder, or ask for the same"
                )

    # -- going on

    def restored(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> RunProgress:
        """Fills both from the checkpoint, if there is one, and cuts the log to where it was then."""
        path, at = self.path / CHECKPOINT, RunProgress()
        if path.exists():
            state = load_run_checkpoint(path)
            try:
                module.load_state_dict(state["module"])
                optimiser.load_state_dict(state["optimiser"])
                at = RunProgress(state["step"], state["skipped"])
            except (RuntimeError, ValueError, KeyError, TypeError):
                raise InputError(f"{path}: of another network; choose another folder, or remove the folder") from None
        kept = [line for line in self.lines() if line["step"] <= at.step]
        with write_atomically(self.path / LOG) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in kept)
        return at

    def keep(self, module: nn.Module, optimiser: torch.optim.Optimizer, at: RunProgress) -> None:
        """Writes the checkpoint, whole or not at all: state of `module` and `optimiser`, and the progress `at`."""
        state = {"module": module.state_dict(), "optimiser": optimiser.state_dict(), **asdict(at)}
        with write_atomically(self.path / CHECKPOINT) as file:
            torch.save(state, file)

    # -- the log

    def write_events(self, first: int) -> None:
        """From now on TensorBoard's file is written, too; the next step is number `first`."""
        self._events = EventFile(self.path, first)

    def log(self, step: int, facts: Mapping[str, object]) -> None:
        """Appends one line to log.jsonl, and to TensorBoard's file where one is written: `step` and `facts` by name,
        numbers that are not finite as null. Raises InputError where it cannot be written.
        """
        if self._events is not None and (scalars := list_scalars(replace_non_finite(facts))):
            self._events.write(step, scalars)
        try:
            with (self.path / LOG).open("a") as file:
                file.write(json.dumps({"step": step, **replace_non_finite(facts)}) + "\n")
        except OSError as error:
            raise explain_write_error(self.path / LOG, error) from None

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; without the last line where it was cut off."""
        path = self.path / LOG
        return list(parse_log_lines(path.read_text(errors="replace"))) if path.exists() else []


def save_network(net: Any, path: Path) -> None:
    """Writes a network of transformers as the folder that `from_pretrained` reads, each file whole or not at all."""
    try:
        path.mkdir(exist_ok=True)
        with drop_transformers_output(), TemporaryDirectory(prefix=".", suffix=".partial", dir=path) as made:
            net.save_pretrained(made)
            for file in sorted(Path(made).iterdir()):
                file.replace(path / file.name)
    except OSError as error:
        raise explain_write_error(path, error) from None


def read_last_scores(path: Path) -> dict[str, float]:
    """The last validation of the run in a folder."""
    lines = [line for line in parse_log_lines((path / LOG).read_text()) if "validation" in line]
    return dict(lines[-1]["validation"]) if lines else {}


def load_run_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, without running anything that it holds. Raises InputError on damage."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError):
        raise InputError(f"{path}: damaged; remove the folder to train anew") from None
    return state if isinstance(state, dict) else {}


def parse_log_lines(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a text with one a line."""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield found


def replace_non_finite(facts: Mapping[str, object]) -> dict[str, object]:
    """None for numbers that JSON does not have."""
    return {
        name: replace_non_finite(value)
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in facts.items()
    }


def format_setting(value: object) -> str:
    """A setting as a sentence shows it."""
    return "none" if value is None or value == "" else str(value)[:80]
