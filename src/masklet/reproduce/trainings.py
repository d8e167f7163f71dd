"""What is trained for the rows of the papers' tables, in `trainings.toml`: the released configurations, and what a row
varies of one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.wording import name_setting
from masklet.reproduce.datasets import SETS
from masklet.reproduce.places import explain_fetch, fill_part_name, find_needed_weights
from masklet.reproduce.recipes import find_recipe
from masklet.weights.catalog import CHECKPOINTS
from masklet.weights.store import get_weights_folder

FILE = Path(str(resources.files("masklet") / "reproduce" / "trainings.toml"))
COCO = ("coco", "COCO", "coco2017")  # what the folder of COCO is called


@dataclass(frozen=True)
class PublishedTraining:
    """The training of one row.

    Attributes:
        row: its recipe's name.
        what: a training of `builtins.TRAININGS`.
        data: names of `datasets.SETS`, or "coco", trained on together.
        segmenter: as of `masklet train`.
        start: likewise, or the row whose weights it begins with; "{weights:FILE}" is a file in the weights folder.
        frames, steps, batch, lr, settings: likewise.
        config: what the official program calls the configuration.
    """

    row: str
    what: str
    data: Sequence[str]
    frames: int
    steps: int
    batch: int
    lr: float
    segmenter: str = ""
    start: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""

    @property
    def file(self) -> str:
        """The file in the weights folder under which the row looks for what is trained."""
        return name_trained_file(self.row)

    def override(self, told: Mapping[str, Any]) -> PublishedTraining:
        """The same with what the user has `told` of its own values and its settings. Raises InputError where one is not
        of its kind.
        """
        own = {f.name for f in fields(self)} - {"row", "what", "data", "settings", "config"}
        changed = {name: value for name, value in told.items() if name in own}
        for name, value in changed.items():
            kind = type(getattr(self, name))
            if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
                raise InputError(f"{name_setting(name, value)}: give {'text' if kind is str else 'a number'}")
        rest = {name: value for name, value in told.items() if name not in own}
        return replace(self, **changed, settings={**self.settings, **rest})

    def resolve_start(self) -> str:
        """The weights that it begins with: those of another row by their file. Raises InputError where that is not
        trained yet.
        """
        if self.start not in read_trainings():
            return fill_part_name(self.start, 0)
        path = get_weights_folder() / name_trained_file(self.start)
        if not path.is_file():
            raise InputError(f"{self.row}: begins with {path}; first `masklet reproduce train {self.start}`")
        return str(path)

    def resolve_data(self, folder: Path) -> tuple[str, ...]:
        """The folders of its data sets in `folder`. Raises InputError naming those that are not there."""
        found = {name: find_training_set(name, folder) for name in self.data}
        missing = [f"no {' or '.join(list_folder_names(n))} in {folder}" for n, path in found.items() if path is None]
        if missing:
            raise InputError(f"{self.row}: {'; '.join(missing)}")
        return tuple(str(path) for path in found.values())


def list_folder_names(name: str) -> Sequence[str]:
    """What the folder of a data set is called when it is unpacked."""
    return COCO if name == "coco" else SETS[name].folders


def find_training_set(name: str, folder: Path) -> Path | None:
    """The folder of a data set in `folder`; None where it is not there."""
    return next((folder / one for one in list_folder_names(name) if (folder / one).is_dir()), None)


def list_awaited_files(row: str) -> list[str]:
    """The files in the weights folder under which a row's recipe looks for weights that are to be trained."""
    return [one.name for one in find_recipe(row).weights if one.how.startswith("to be trained")]


def name_trained_file(row: str) -> str:
    """The file for a row's trained weights in the weights folder: the one that its recipe looks for; of a row that
    takes published weights, a name of its own.
    """
    return next(iter(list_awaited_files(row)), f"{row.replace('/', '-')}.safetensors")


def explain_use(training: PublishedTraining, path: Path) -> str:
    """What is to be said of the trained weights in `path`: how the row is run over them, where it takes others."""
    if list_awaited_files(training.row):
        return f"the weights are in {path}"
    name = f"{training.segmenter}+{path}" if training.segmenter else str(path)
    return (
        f"the weights are in {path}; the row takes the published ones, and these with "
        f"`masklet reproduce run {training.row} --set segmenter={name}`"
    )


@cache
def read_trainings() -> Mapping[str, PublishedTraining]:
    """All trainings by the rows that they are for."""
    content = tomllib.loads(FILE.read_text(encoding="utf-8"))
    found: dict[str, PublishedTraining] = {}
    for told in content["training"]:
        base = content["config"][told["config"]]
        for row, value in told["rows"].items():
            own = {told["vary"]: value}
            varied = own if told["vary"] == "frames" else {}
            settings = {**base["settings"], **told.get("settings", {}), **({} if varied else own)}
            more = {key: told[key] for key in ("segmenter", "start", "config") if key in told}
            found[row] = PublishedTraining(row, **{**base, **more, **varied, "settings": settings})
    return found


@cache
def read_open_rows() -> Mapping[str, str]:
    """The rows that cannot be trained as published, each with what nobody says."""
    found: dict[str, str] = tomllib.loads(FILE.read_text(encoding="utf-8"))["open"]
    return found


def find_training(row: str) -> PublishedTraining:
    """The training of a row. Raises InputError where there is none."""
    trainings = read_trainings()
    if row not in trainings:
        find_recipe(row)
        if row in read_open_rows():
            awaited = list_awaited_files(row)
            use = (
                f"put the weights into the weights folder as {awaited[0]}"
                if awaited
                else f"run the row over it by {name_setting('segmenter', 'FILE')}"
            )
            raise InputError(
                f"{row}: {read_open_rows()[row]}; train it by `masklet train` with a schedule of your own, and {use}"
            )
        raise InputError(f"{row}: nothing is trained for it here; there are trainings for {', '.join(trainings)}")
    return trainings[row]


def list_missing_weights(training: PublishedTraining) -> list[str]:
    """What is to be said of a segmenter and a start of `masklet weights list` that are not on this machine."""
    names = [name.partition("@")[0] for name in (training.segmenter, training.start)]
    return [explain_fetch(name) for name in names if name in CHECKPOINTS and find_needed_weights(name) is None]
