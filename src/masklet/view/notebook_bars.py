"""How far a run is, shown in a notebook without widgets: rich needs ipywidgets there, and says nothing without them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from time import monotonic
from typing import Any

from masklet.core.errors import escape_control_characters
from masklet.core.progress import Watch

PERIOD = 0.2  # seconds between two changes of a bar


def is_in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


@contextmanager
def show_notebook_bars(name: str, clock: Callable[[], float] = monotonic) -> Iterator[Watch]:
    """A bar for each phase of the video `name`, below one another; `clock` tells seconds."""
    ipython = import_module("IPython.display")  # there is one: this is a notebook

    bars: dict[str, tuple[Any, float, int]] = {}  # the display, when and at which frame it began
    told: dict[str, float] = {}

    def watch(phase: str, done: int, total: int | None, objects: int) -> None:
        now = clock()
        if phase not in bars:
            bars[phase] = ipython.display(ipython.HTML(""), display_id=True), now, done
        if phase in told and now - told[phase] < PERIOD and done != total:
            return
        shown, since, first = bars[phase]
        told[phase], rate = now, (done - first) / (now - since) if now > since else 0.0
        shown.update(ipython.HTML(format_bar(name, phase, done, total, rate, objects)))

    yield watch


def format_bar(name: str, phase: str, done: int, total: int | None, rate: float, objects: int) -> str:
    """One bar as HTML: of the video `name` in a `phase`, `done` frames of `total`, at a `rate` a second, with so many
    `objects`; of work without a known end, one that only moves.

    >>> format_bar("<a>", "forward", 3, 4, 1.5, 2)[:70]
    '<div style="font:12px/1.6 monospace;white-space:pre">&lt;a&gt; forward'
    """
    from html import escape  # and the names of all letters, which a terminal does not need

    ends = f' value="{done}" max="{total}"' if total else ""
    figures = f"{done}{f'/{total}' if total else ''}, {rate:.1f} frames/s, {objects} object{'s' * (objects != 1)}"
    said = escape(escape_control_characters(f"{name} {phase}"))
    return f'<div style="font:12px/1.6 monospace;white-space:pre">{said} <progress{ends}></progress> {figures}</div>'
