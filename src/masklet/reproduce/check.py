"""What a recipe needs and is not on this machine: named all at once, before any work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from masklet.builtins import METRICS, PROPAGATORS, QUERY_SYSTEMS, SYSTEMS
from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.part_request import parse_part_name
from masklet.core.wording import name_setting
from masklet.registry import PartEntry, list_part_settings
from masklet.reproduce.datasets import list_missing
from masklet.reproduce.places import (
    DETECTIONS,
    explain_fetch,
    fill_part_name,
    find_detections_folder,
    find_needed_weights,
)
from masklet.reproduce.recipes import NeededWeights, Recipe
from masklet.weights.catalog import CHECKPOINTS
from masklet.weights.store import compute_hash, get_weights_folder


def list_missing_for(recipe: Recipe, data: Path) -> list[str]:
    """Everything that a `recipe` needs and that is not here, a sentence each: its parts and settings, weights, the
    folders, lists and annotations of its data in the folder `data`, and detections beside it.
    """
    if recipe.reason:
        return [f"cannot be repeated by inference: {recipe.reason}"]
    missing = [*iterate_unknown_parts(recipe)]
    missing += [told for one in recipe.weights if (told := describe_missing_weights(recipe, one))]
    if recipe.protocol != "cost":
        missing += list_missing(recipe.data, data, recipe.split) if data.is_dir() else [f"data: no folder {data}"]
    return missing + [told for name in DETECTIONS.findall(recipe.segmenter) if (told := explain_detections(name, data))]


def explain_detections(name: str, data: Path) -> str:
    """What is to be said of the detections of a `name` that are neither in `data` nor beside it; "" where they are."""
    places = find_detections_folder(name, data)
    if any(place.is_dir() for place in places):
        return ""
    told = " or ".join(map(str, places))
    return f"detections: no folder {told}; bring those of {name} there, or say {name_setting('segmenter', 'FOLDER')}"


def iterate_unknown_parts(recipe: Recipe) -> Iterator[str]:
    """What in a recipe names no system, propagator, metric or setting that there is."""
    for metric in recipe.metrics if recipe.protocol != "cost" else ():
        yield from explain_unknown("metric", metric, METRICS.names)
    own = [key for key in recipe.settings if "." not in key]
    if recipe.system in ("track", "segmenter", "tracker", "refiner"):
        yield from (f"setting {key}: {recipe.system} has none of its own" for key in own)
    elif told := list(explain_unknown("system", recipe.system, (*SYSTEMS.names, *QUERY_SYSTEMS))):
        yield from told
    else:
        yield from explain_settings("setting", own, QUERY_SYSTEMS.get(recipe.system) or SYSTEMS.find(recipe.system))
    base = parse_part_name(recipe.propagator).base
    if base in PROPAGATORS.names:
        told_of = [key.removeprefix("propagator.") for key in recipe.settings if key.startswith("propagator.")]
        yield from explain_settings("setting propagator.", told_of, PROPAGATORS.find(base))
    elif base and "/" not in base and not base.startswith("{"):
        yield from explain_unknown("propagator", base, (*PROPAGATORS.names, *CHECKPOINTS))


def explain_settings(kind: str, names: list[str], entry: PartEntry) -> Iterator[str]:
    """What settings a part does not have."""
    known = list_part_settings(entry)
    for name in names:
        yield from explain_unknown(kind, name, known)


def explain_unknown(kind: str, name: str, known: object) -> Iterator[str]:
    """A sentence where a `name` is not among those `known` of a `kind`."""
    try:
        check_choice(kind, name, known)  # type: ignore[arg-type]
    except InputError as error:
        yield str(error)


def describe_missing_weights(recipe: Recipe, one: NeededWeights) -> str:
    """What is to be said of weights that are not here or are other ones; "" where they are, or are not used as the user
    has named another part.
    """
    if not is_used(recipe, one):
        return ""
    path = find_needed_weights(one.name)
    if path is None and one.name in CHECKPOINTS:
        return explain_fetch(one.name)
    if path is None:
        return f"weights {one.name}: no such file in {get_weights_folder()}; {one.how}"
    if one.sha256 and one.name not in CHECKPOINTS and (found := compute_hash(path).sha256) != one.sha256:
        return f"weights {one.name}: {path} has sha256 {found}, expected {one.sha256}"
    return ""


def is_used(recipe: Recipe, one: NeededWeights) -> bool:
    """Whether some part of a recipe is named after these weights."""
    parts = [fill_part_name(part, recipe.size) for part in (recipe.segmenter, recipe.propagator)]
    if one.name in CHECKPOINTS:
        return any(one.name in re.split("[:@+]", part) for part in parts)
    return any(one.name in part for part in parts)
