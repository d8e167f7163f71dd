"""Where what a recipe names lies: weights in the weights folder, detections beside the data."""

from __future__ import annotations

import re
from pathlib import Path

from masklet.weights.catalog import CHECKPOINTS
from masklet.weights.store import (
    explain_manual_fetch,
    find_checkpoint,
    find_weights,
    format_file_size,
    get_weights_folder,
)

WEIGHTS = re.compile(r"\{weights:([^}]*)\}")
DETECTIONS = re.compile(r"\{detections:([^}]*)\}")


def find_needed_weights(name: str) -> Path | None:
    """The file of weights: by a name of `masklet weights list`, or in the weights folder; None where it is not here."""
    if name in CHECKPOINTS:
        located = find_weights(find_checkpoint(name))
        return located.path if located else None
    path = get_weights_folder() / name
    return path if path.is_file() else None


def explain_fetch(name: str) -> str:
    """What to tell the user of weights of `masklet weights list` that are not here."""
    model = find_checkpoint(name)
    if model.page:
        return explain_manual_fetch(model)
    return f"weights {name}: run `masklet weights fetch {name}` ({format_file_size(model.size)})"


def find_detections_folder(name: str, data: Path) -> list[Path]:
    """Where the detections of a `name` may lie: in `data`, or beside it, in a folder "detections"."""
    return [data / "detections" / name, data.parent / "detections" / name]


def fill_part_name(text: str, size: int, data: Path = Path()) -> str:
    """A part's name with what stands in braces in a recipe: its `size` in pixels, files of weights, and folders of
    detections beside the folder `data`.

    >>> fill_part_name("minvis-r50-ovis@{size}", 360)
    'minvis-r50-ovis@360'
    """
    text = text.replace("{size}", str(size))
    text = WEIGHTS.sub(lambda found: str(get_weights_folder() / found[1]), text)
    for name in DETECTIONS.findall(text):
        places = find_detections_folder(name, data)
        folder = next((place for place in places if place.is_dir()), places[0])
        text = text.replace(f"{{detections:{name}}}", str(folder))
    return text
