"""Garbage is not looked for while a module is imported, and as before afterwards."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from masklet.core.imports import import_uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fine", raising=False)
    (tmp_path / "fine.py").write_text("import gc\nWAS = gc.isenabled()\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    try:
        (gc.enable if enabled else gc.disable)()
        assert import_uncollected("fine").WAS is False
        assert gc.isenabled() is enabled
        with pytest.raises(ZeroDivisionError):
            import_uncollected("broken")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
        sys.modules.pop("fine", None)
