from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from toys import H, W

from masklet.core.result import Provenance, VideoResult
from masklet.view.progress import BarReporter


def test_names_are_shown_as_they_are() -> None:
    bars, name = BarReporter(), "movie [x265] :smile:"
    bars.console.file = out = io.StringIO()
    bars.console.width = 200
    assert isinstance(bars.console, Console)
    with bars.video(name, 2) as watch:
        watch("forward", 2, 2, 1)
    made = Provenance("test", notes=(f"{name}.mp4: damaged after frame 2",))
    bars.done(Path("out[/x]") / name, VideoResult(name, (H, W), 2, 10.0, (), (), made), 1.0)
    assert out.getvalue().count(name) == 4 and f"out[/x]/{name}" in out.getvalue()
