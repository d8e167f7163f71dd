from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from toys import H, W

from masklet.core.result import Provenance, VideoResult
from masklet.view.progress import BarReporter, BatchProgress, FinishedVideo


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


def test_a_video_that_is_done_is_called_as_its_folder_is() -> None:
    result = VideoResult("set/sequence", (H, W), 2, 10.0, (), (), Provenance("test"))
    assert FinishedVideo.describe(Path("out/sequence"), result, 1.0).name == "sequence"


def test_a_batch_has_a_bar_of_its_own_and_one_for_each_video_at_work() -> None:
    bars = BarReporter()
    bars.console = Console(file=io.StringIO(), width=200, markup=False, force_terminal=True)
    with bars.batch(3):
        shown = bars._bars
        assert shown is not None
        with bars.video("one\x1b", 4) as watch, bars.video("two", 4):
            watch("forward", 2, 4, 1)
            assert [(t.description, t.completed, t.total) for t in shown.tasks] == [
                ("videos", 0, 3),
                (r"one\x1b forward", 2, 4),
                ("two", 0, None),
            ]
        bars.count("one", "done", 4, True)
        [total] = shown.tasks
        assert (total.completed, total.total) == (1, 3) and total.fields["figures"].startswith("4 frames, 0:00:0")
    assert bars._bars is None


def test_the_time_left_is_that_of_videos_that_were_worked_on() -> None:
    now = [100.0]
    batch = BatchProgress(12, lambda: now[0])
    for _ in range(8):
        batch.count(0, False)
    assert batch.seconds_left is None
    now[0] = 130.0
    batch.count(50, True)
    assert (batch.seconds_left, batch.frames, batch.ended) == (90.0, 50, 9)
