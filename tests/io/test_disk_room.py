from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.io import disk_room
from masklet.io.disk_room import check_disk_room, measure_free_bytes
from masklet.io.formats.davis import write_davis
from masklet.io.video.images import FramesInMemory
from masklet.io.video.sources import open_video

VIDEO = FramesInMemory([np.zeros((100, 200, 3), np.uint8)] * 50, "clip")  # a million pixels


@pytest.mark.parametrize(
    ("free", "formats", "overlay", "said"),
    [
        (10_000_000, ["davis"], True, None),
        (37_000, [], True, "37 kB are free there, and results of 50 frames of 200x100 may take about 37 kB"),
        (37_000, [], False, None),
        (0, ["ytvis"], False, None),
        (38_000, ["davis"], True, "may take about 38 kB"),
    ],
)
def test_what_results_usually_take_is_warned_of(
    free: int, formats: list[str], overlay: bool, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_room, "measure_free_bytes", lambda folder: free)
    told = check_disk_room(tmp_path, VIDEO, formats, overlay)
    assert told is None if said is None else told is not None and said in told


@pytest.mark.parametrize(
    ("reading", "formats", "overlay", "said"),
    [
        (
            {},
            [],
            True,
            "how many frames will come is not known; 37 kB are free there, enough for about 49 frames of 200x100",
        ),
        ({}, [], False, "how many frames will come is not known; 37 kB are free there"),
        ({"max_frames": 60}, ["davis"], True, "results of at most 60 frames of 200x100 may take about 46 kB"),
        ({"start": 10, "end": 70}, ["davis"], True, "of at most 60 frames of 200x100"),
        ({"max_frames": 20}, ["davis"], True, None),
    ],
)
def test_of_a_pipe_it_is_said_what_is_not_known(
    reading: dict[str, int],
    formats: list[str],
    overlay: bool,
    said: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk_room, "measure_free_bytes", lambda folder: 37_000)
    with open_video((np.zeros((100, 200, 3), np.uint8) for _ in range(15)), **reading) as video:
        told = check_disk_room(tmp_path, video, formats, overlay)
        assert told is None if said is None else said in str(told)


def test_what_images_take_at_least_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_room, "measure_free_bytes", lambda folder: 1000)
    with pytest.raises(InputError, match="1 kB are free there, and the images of 50 frames of 200x100 take 1 kB at"):
        check_disk_room(tmp_path, VIDEO, ["davis", "vipseg"], False)


def test_the_least_is_less_than_the_smallest_images(tmp_path: Path) -> None:
    """Black images pack best."""
    write_davis(VideoResult("a", (1000, 1000), 1, 25.0, (), (), Provenance("")), tmp_path / "a")
    taken = sum(p.stat().st_size for p in (tmp_path / "a").iterdir())
    assert 1000 * 1000 // disk_room.DENSEST < taken < 4 * 1000 * 1000 // disk_room.DENSEST


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert abs(measure_free_bytes(tmp_path / "a" / "b") - measure_free_bytes(tmp_path)) < 2**30
