"""Settings: values of plain kinds in dataclasses and keyword arguments, checked where users hand them in."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from masklet.core.errors import InputError
from masklet.core.limits import (
    LARGEST_NUMBER,
    LONGEST_TEXT,
    MOST_OF_SETTINGS,
    SHARES,
    convert_number,
    quote_value,
)

PLAIN: Mapping[Any, str] = {
    float: "a number from 0 on",
    bool: "true or false",
    int: "a whole number from 0 on",
    str: "text",
    NoneType: "none",
}


def check_setting(where: str, name: str, value: Any, kind: Any, default: Any = None) -> Any:
    """A value of its kind.

    Args:
        where: whose setting, such as "" of a system or "segmenter." of a part.
        name: of the setting.
        value: as it was handed in.
        kind: its type.
        default: of the setting, if it has one: where that is above 1, it is in units of its own.

    Returns:
        The value, a list as a tuple.

    Raises:
        InputError: the value is not of this kind, or above what is taken (`limits.MOST_OF_SETTINGS`, `limits.SHARES`).
    """
    value = convert_number(value)
    if not is_setting_value(value, kind):
        raise InputError(f"setting {where}{name} = {quote_value(value)} must be {describe_setting_kind(kind)}")
    most = MOST_OF_SETTINGS.get(name)
    if most is not None and isinstance(value, int) and value > most:
        raise InputError(f"setting {where}{name} = {value} is too much; at most {most:,} is taken")
    has_units = isinstance(default, int | float) and default > 1
    if name in SHARES and not has_units and isinstance(value, int | float) and value > 1:
        raise InputError(f"setting {where}{name} = {value} is above 1; give a number from 0 to 1")
    return tuple(value) if isinstance(value, list) else value


def is_setting_kind(kind: Any) -> bool:
    """Whether values of a type can be handed in as a setting.

    >>> is_setting_kind(int | None), is_setting_kind(dict)
    (True, False)
    """
    if get_origin(kind) is UnionType:
        return all(is_setting_kind(k) for k in get_args(kind))
    return kind in PLAIN or get_origin(kind) in (Literal, tuple)


def is_setting_value(value: Any, kind: Any) -> bool:
    """Whether a value is of a setting's kind; an int is a number too, a bool is not."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(is_setting_value(value, k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(is_setting_value(v, get_args(kind)[0]) for v in value)
    if isinstance(value, bool) or kind in (bool, str):
        longest = len(value) <= LONGEST_TEXT if isinstance(value, str) else True
        return isinstance(value, kind) and isinstance(value, bool) == (kind is bool) and longest
    return isinstance(value, int | float if kind is float else kind) and (value is None or 0 <= value <= LARGEST_NUMBER)


def describe_setting_kind(kind: Any) -> str:
    """A setting's kind as a reader would say it."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is UnionType:
        return " or ".join(describe_setting_kind(k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        if get_args(kind)[0] is str:
            return 'a list of names, such as ["sky", "road"]'
        return "a list of numbers, such as [240, 360]"
    return PLAIN[kind]
