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
from masklet.core.files import unwritable, write_atomically
from masklet.models.text import silently

if TYPE_CHECKING:
    from masklet.train.loop import Plan

RUN, LOG, CHECKPOINT, WEIGHTS = "run.json", "log.jsonl", "checkpoint.pt", "weights.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int = 0  # steps done
    skipped: int = 0  # of the last steps, in a row


class RunFolder:
    """Files of one run. Whatever was interrupted, they can be gone on from."""

    def __init__(self, path: Path, plan: Plan, about: Mapping[str, object]) -> None:
        """Makes the folder or claims it again. Raises InputError where it holds a run of another task or plan."""
        self.path, self.weights = path, path / WEIGHTS
        told = {**about, **asdict(plan)}
        run = json.loads(json.dumps(told))  # tuples become lists
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path, error) from None
        if (path / RUN).exists():
            self._same(self._read(RUN), run)
        elif found := [name for name in (LOG, CHECKPOINT, WEIGHTS) if (path / name).exists()]:
            raise InputError(f"{path}: holds a {found[0]}, but no {RUN} that says of what; choose another --out")
        else:
            with write_atomically(path / RUN) as file:
                file.write(json.dumps(run, indent=1).encode())

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            raise InputError(f"{self.path / name}: damaged; choose another --out, or remove the folder") from None

    def _same(self, found: Any, wanted: Mapping[str, object]) -> None:
        there = found if isinstance(found, dict) else {}
        for name in [*wanted, *there]:
            if (old := there.get(name)) != (new := wanted.get(name)):
                raise InputError(
                    f"{self.path}: holds a run with {name} {brief(old)}, not {brief(new)}; "
                    "choose another --out, or ask for the same"
                )

    # -- going on

    def restored(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
        """Fills both from the checkpoint, if there is one, and cuts the log to where it was then."""
        path, at = self.path / CHECKPOINT, Progress()
        if path.exists():
            state = loaded(path)
            try:
                module.load_state_dict(state["module"])
                optimiser.load_state_dict(state["optimiser"])
                at = Progress(state["step"], state["skipped"])
            except (RuntimeError, ValueError, KeyError, TypeError):
                raise InputError(f"{path}: of another network; choose another --out, or remove the folder") from None
        kept = [line for line in self.lines() if line["step"] <= at.step]
        with write_atomically(self.path / LOG) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in kept)
        return at

    def keep(self, module: nn.Module, optimiser: torch.optim.Optimizer, at: Progress) -> None:
        """Writes the checkpoint, whole or not at all."""
        state = {"module": module.state_dict(), "optimiser": optimiser.state_dict(), **asdict(at)}
        with write_atomically(self.path / CHECKPOINT) as file:
            torch.save(state, file)

    # -- the log

    def log(self, step: int, facts: Mapping[str, object]) -> None:
        """One more line."""
        try:
            with (self.path / LOG).open("a") as file:
                file.write(json.dumps({"step": step, **finite(facts)}) + "\n")
        except OSError as error:
            raise unwritable(self.path / LOG, error) from None

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; without the last line where it was cut off."""
        path = self.path / LOG
        return list(whole(path.read_text(errors="replace"))) if path.exists() else []


def save_network(net: Any, path: Path) -> None:
    """Writes a network of transformers as the folder that `from_pretrained` reads, each file whole or not at all."""
    try:
        path.mkdir(exist_ok=True)
        with silently(), TemporaryDirectory(prefix=".", suffix=".partial", dir=path) as made:
            net.save_pretrained(made)
            for file in sorted(Path(made).iterdir()):
                file.replace(path / file.name)
    except OSError as error:
        raise unwritable(path, error) from None


def scores_of(path: Path) -> dict[str, float]:
    """The last validation of the run in a folder."""
    lines = [line for line in whole((path / LOG).read_text()) if "validation" in line]
    return dict(lines[-1]["validation"]) if lines else {}


def loaded(path: Path) -> dict[str, Any]:
    """A checkpoint, without running anything that it holds. Raises InputError on damage."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError):
        raise InputError(f"{path}: damaged; remove the folder to train anew") from None
    return state if isinstance(state, dict) else {}


def whole(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a text with one a line."""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield found


def finite(facts: Mapping[str, object]) -> dict[str, object]:
    """None for numbers that JSON does not have."""
    return {
        name: finite(value)
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in facts.items()
    }


def brief(value: object) -> str:
    """A setting as a sentence shows it."""
    return "none" if value is None else str(value)[:80]
