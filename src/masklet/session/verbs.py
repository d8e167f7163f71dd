"""The edits of `core.edits` by name, with arguments by name: as a page or another program hands them in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, get_type_hints

import numpy as np

from masklet.core import edits
from masklet.core.errors import InputError
from masklet.core.limits import is_finite_number, is_whole_number, quote_value
from masklet.core.result import VideoResult

EDITS: Mapping[str, Callable[..., VideoResult]] = {
    "rename": edits.rename_object,
    "relabel": edits.relabel_objects,
    "merge": edits.merge_objects,
    "split": edits.split_object,
    "drop": edits.drop_objects,
    "trim": edits.trim_objects,
    "smooth": edits.smooth_masks,
    "fill_gaps": edits.fill_gaps,
    "filter": edits.filter_objects,
}
IDS = "ids"  # the argument of a verb that takes any number of objects


def apply_verb(result: VideoResult, verb: str, arguments: Mapping[str, Any]) -> VideoResult:
    """The `result` after the edit that `verb` names, with `arguments` by name; ids of any number are `ids`, a list.
    Raises InputError where there is no such verb, an argument is missing, unknown or of another kind, or the edit
    cannot be done.
    """
    function = EDITS.get(verb)
    if function is None:
        raise InputError(f"edit {quote_value(verb)}: there is no such verb; there are: {', '.join(EDITS)}")
    known = list_verb_arguments(verb)
    unknown = [name for name in arguments if name not in known]
    missing = [name for name, (_, needed) in known.items() if needed and name not in arguments]
    if unknown or missing:
        what = f"no argument {quote_value(unknown[0])}" if unknown else f"{missing[0]!r} is missing"
        raise InputError(f"edit {verb}: {what}; it takes: {', '.join(known)}")
    checked = {name: check_argument(verb, name, value, known[name][0]) for name, value in arguments.items()}
    many = checked.pop(IDS, ())
    if not len(many):
        return function(result, **checked)
    before = [p.name for p in list_parameters(verb) if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    defaults = {p.name: p.default for p in list_parameters(verb)}
    return function(result, *(checked.get(name, defaults[name]) for name in before), *many)


def list_parameters(verb: str) -> list[Parameter]:
    """The parameters of a verb's function but for the result."""
    return list(signature(EDITS[verb]).parameters.values())[1:]


def list_verb_arguments(verb: str) -> dict[str, tuple[Any, bool]]:
    """The arguments of a verb: kind, and whether it must be given."""
    kinds = get_type_hints(EDITS[verb])
    return {
        p.name: (list[int], verb in ("merge", "drop"))
        if p.kind is Parameter.VAR_POSITIONAL
        else (kinds[p.name], p.default is Parameter.empty)
        for p in list_parameters(verb)
    }


CHECKS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number from 0 on", is_whole_number),
    float: ("a number", is_finite_number),
    str: ("text", lambda value: isinstance(value, str)),
    list[int]: ("a list of ids", lambda value: is_list_of(value, is_whole_number)),
    Collection[str]: ("a list of names", lambda value: is_list_of(value, lambda one: isinstance(one, str))),
}


def check_argument(verb: str, name: str, value: Any, kind: Any) -> Any:
    """The `value` of an argument `name`. Raises InputError where it is not of its `kind`."""
    told, is_right = CHECKS[kind]
    if not is_right(value):
        raise InputError(f"edit {verb}: {name} = {quote_value(value)} must be {told}")
    return value


def is_list_of(value: Any, is_right: Callable[[Any], bool]) -> bool:
    """Whether a value is a list, tuple or array of what is right."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes) and all(map(is_right, value))
