"""`--set NAME=VALUE`, as every command reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from masklet.core.errors import InputError


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE with VALUE as JSON has it, none for null, or a plain word."""
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: write it as NAME=VALUE, such as --set conf=0.8")
        settings[name.replace("-", "_")] = parse_setting_value(value)
    return settings


def parse_setting_value(text: str) -> Any:
    """What a setting's text means."""
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def format_setting_value(value: Any) -> str:
    """A setting's value as `--set` takes it.

    >>> format_setting_value(True), format_setting_value(None), format_setting_value(0.5)
    ('true', 'none', '0.5')
    """
    return "none" if value is None else json.dumps(value)
