"""Importing what is large."""

from __future__ import annotations

import gc
from importlib import import_module
from types import ModuleType


def import_uncollected(name: str) -> ModuleType:
    """Imports a module, without a look for garbage meanwhile: all that torch and its like make while they are loaded
    stays, and the collector would go through it again and again, for a seventh of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(name)
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # among the old objects, which the collector seldom goes through
        if was_enabled:
            gc.enable()
