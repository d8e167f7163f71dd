"""How messages name what was asked for: as an argument of Python, or as an option of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Reader = Literal["python", "command line"]

# Of a whole process, as its language is, for messages arise deep inside and in threads; commands may be side by side.
_readers: list[Reader] = []
_UNSAID = object()


def get_reader() -> Reader:
    """Who reads the messages of this process."""
    return _readers[-1] if _readers else "python"


@contextmanager
def write_messages_for(reader: Reader) -> Iterator[None]:
    """Words messages for a `reader` while it lasts.

    >>> with write_messages_for("command line"):
    ...     name_argument("overwrite", True)
    '--overwrite'
    """
    _readers.append(reader)
    try:
        yield
    finally:
        _readers.remove(reader)


def name_argument(name: str, value: Any = _UNSAID, option: str = "") -> str:
    """An argument as the reader writes it: in Python, or as an option of the command line.

    Args:
        name: of the argument in Python.
        value: that is told with it; without one the name alone is told.
        option: its name on the command line, where it has another one there.

    >>> name_argument("overwrite", True), name_argument("max_side"), name_argument("size", (256, 320))
    ('overwrite=True', '`max_side`', 'size=(256, 320)')
    >>> with write_messages_for("command line"):
    ...     name_argument("max_side"), name_argument("size", (256, 320)), name_argument("start", "x.pth", option="from")
    ('--max-side', '--size 256x320', '--from x.pth')
    """
    if get_reader() == "python":
        plain = str(value) if isinstance(value, Path) else value
        return f"`{name}`" if value is _UNSAID else f"{name}={plain!r}"
    typed = f"--{(option or name).replace('_', '-')}"
    return typed if value is _UNSAID or value is True else f"{typed} {_type_value(value)}"


def name_setting(name: str, value: Any = _UNSAID) -> str:
    """A setting as the reader writes it: `over="any"` in Python, `--set over=any` on the command line; without a
    value the name alone is told.

    >>> name_setting("over", "any"), name_setting("short", (240, 360))
    ("over='any'", 'short=(240, 360)')
    >>> with write_messages_for("command line"):
    ...     name_setting("over", "any"), name_setting("short", (240, 360))
    ('--set over=any', '--set short=240,360')
    """
    if value is _UNSAID:
        return f"`{name}`" if get_reader() == "python" else f"--set {name}"
    if get_reader() == "python":
        return f"{name}={value!r}"
    return f"--set {name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"


def _type_value(value: Any) -> str:
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"'{text}'" if " " in text else text
