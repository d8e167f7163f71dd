"""Decoding by the graphics card. None is there: the CPU plays it, or PyAV's decoder for it fails as it does here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_clip

from masklet.io.video import hardware, video_file
from masklet.io.video.decode import LostFrame, decode_frames
from masklet.io.video.frame_source import DamagedSourceError
from masklet.io.video.hardware import find_hardware_decoder, is_like
from masklet.io.video.sources import open_video
from masklet.io.video.video_file import VideoFile

Frames = Iterator[Any]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("hardware") / "clip.mp4")


def read_all(video: VideoFile) -> tuple[list[Any], list[str], dict[int, str]]:
    """Images and times of all frames, notes, and what was lost."""
    frames = [(frame.image.tobytes(), frame.time) for frame in video]
    assert video.read(7, 9)[1].image.tobytes() == frames[8][0] and len(video) == len(frames)
    return frames, video.notes, video.lost


def test_a_decoder_is_looked_for_where_networks_compute_on_a_card_that_the_build_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["cuda", "vaapi"])
    assert find_hardware_decoder("cpu") is None and find_hardware_decoder("mps") is None
    made: list[Any] = []
    monkeypatch.setattr(hardware, "HWAccel", lambda *at, **more: made.append((at, more)))
    for device in ("cuda", "cuda:1"):
        make = find_hardware_decoder(device)
        assert make is not None and make() is None
    assert made == [(("cuda", n), {"allow_software_fallback": True}) for n in (None, "1")]
    monkeypatch.setattr(hardware, "hwdevices_available", lambda: ["vaapi"])
    assert find_hardware_decoder("cuda") is None


@pytest.mark.parametrize("strict", [False, True])
def test_the_door_gives_files_the_decoder_of_the_device_unless_damage_is_refused(
    clip: Path, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    opened: list[str] = []

    def make(device: str) -> None:
        opened.append(device)

    monkeypatch.setattr(
        hardware, "find_hardware_decoder", lambda device: partial(make, device) if device != "cpu" else None
    )
    with open_video(clip, device="cuda:1", strict=strict) as video:
        frames, notes, _ = read_all(video)  # type: ignore[arg-type]
    assert (set(opened) == {"cuda:1"}) != strict and not notes
    assert frames == read_all(VideoFile(clip))[0]


def test_what_the_card_decodes_alike_is_left_to_it(clip: Path) -> None:
    """Also windows; what is counted is not decoded."""
    made: list[None] = []
    video = VideoFile(clip, make_decoder=lambda: made.append(None))
    want = read_all(VideoFile(clip))
    before = len(made)
    assert video.said() == 30 and len(made) == before  # no decoder for that
    assert read_all(video) == want and len(made) == before + 2  # all frames, and a window


def test_where_there_is_no_card_the_cpu_gives_the_same_frames_and_a_note(clip: Path) -> None:
    """PyAV's own decoder, which cannot be had here."""
    make = find_hardware_decoder("cuda")
    if make is None:
        pytest.skip("this build of PyAV has no CUDA")
    frames, notes, lost = read_all(VideoFile(clip, make_decoder=make))
    assert (frames, lost) == (read_all(VideoFile(clip))[0], {})
    if notes:  # where there is a card, there is none
        assert len(notes) == 1 and "the CPU decoded it, for the graphics card did not" in notes[0]


def fail_first(times: int, after: int, failure: Any) -> Callable[..., Frames]:
    """In place of `decode_frames`: the first so many times frames end `after` some with a `failure`."""
    left = [times]

    def decode(*args: Any) -> Frames:
        left[0] -= 1
        for n, frame in enumerate(decode_frames(*args)):
            if left[0] < 0 or n < after:
                yield frame
            elif isinstance(failure, LostFrame):
                yield failure
                return
            else:
                raise failure

    return decode


@pytest.mark.parametrize("failure", [LostFrame(None, "no frame"), DamagedSourceError("no frame")])
@pytest.mark.parametrize("after", [0, 11])
def test_from_the_first_frame_on_that_the_card_loses_the_cpu_decodes(
    clip: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, after: int
) -> None:
    want = read_all(VideoFile(clip))[0]
    video = VideoFile(clip, make_decoder=lambda: None)
    monkeypatch.setattr(video_file, "decode_frames", fail_first(1, after, failure))
    frames, notes, lost = read_all(video)
    assert (frames, lost) == (want, {}) and video.damage is None
    assert notes == [f"{clip}: the CPU decoded it, for the graphics card did not (no frame)"]


def test_what_is_damaged_is_what_the_cpu_says(clip: Path, tmp_path: Path) -> None:
    """A file that is cut off: the same frames, the same sentence, and who decoded."""
    cut = write_clip(tmp_path / "cut.mkv")
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) * 3 // 4])
    plain, card = VideoFile(cut), VideoFile(cut, make_decoder=lambda: None)
    assert read_all(plain)[0] == read_all(card)[0]
    assert plain.damage and card.damage == plain.damage
    assert set(card.notes) - set(plain.notes) == {card.notes[-1]} and "the CPU decoded it" in card.notes[-1]


def test_a_card_that_gives_another_first_frame_is_not_believed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "is_like", lambda *images: False)
    video = VideoFile(clip, make_decoder=lambda: None)
    assert video.notes == [
        f"{clip}: the CPU decoded it, for the graphics card did not (its first frame is another one)"
    ]
    assert read_all(video)[0] == read_all(VideoFile(clip))[0]


def test_frames_are_alike_up_to_rounding() -> None:
    image = np.full((4, 6, 3), 100, np.uint8)
    assert is_like(image, image + 2) and is_like(image, image - 2)
    assert not is_like(image, image + 3) and not is_like(image, image[:, :5])
    wide = np.array([[[0, 0, 0]]], np.uint8), np.array([[[255, 255, 255]]], np.uint8)
    assert not is_like(*wide)  # no overflow
