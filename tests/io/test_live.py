"""Sources without an end: images from pipes, connections that break."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from masklet.core.errors import InputError
from masklet.io.video import live
from masklet.io.video.frame_source import DamagedSourceError, ReadFrame
from masklet.io.video.image_pipe import iterate_piped_images
from masklet.io.video.live import LiveFrames

FORMS = ("PNG", "JPEG", "BMP", "PPM")


def draw(n: int, form: str = "PNG", size: tuple[int, int] = (6, 9), **more: Any) -> bytes:
    file = BytesIO()
    noise = np.random.default_rng(n).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(noise).save(file, form, **more)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


class Drip:
    """Gives a stream in pieces, and notes how much was asked for."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece, self.given = data, piece, 0

    def read(self, n: int) -> bytes:
        found = self.data[self.given : self.given + min(n, self.piece)]
        self.given += len(found)
        return found


@given(st.lists(st.tuples(st.sampled_from(FORMS), st.integers(0, 99)), max_size=5), st.integers(1, 500))
def test_images_of_all_kinds_are_taken_apart_wherever_the_pieces_end(kinds: list[Any], piece: int) -> None:
    images = [draw(n, form) for form, n in kinds]
    found = list(iterate_piped_images(Drip(b"".join(images), piece), 10.0))
    assert [f.time for f in found] == [n / 10 for n in range(len(images))]
    assert all(np.array_equal(f.image, decode(data)) for f, data in zip(found, images, strict=True))


@pytest.mark.parametrize(
    "more",
    [
        {"form": "JPEG", "progressive": True},
        {"form": "JPEG", "restart_marker_blocks": 1},
        {"form": "JPEG", "comment": b"\xff\xd9"},
    ],
)
def test_jpegs_with_scans_restarts_and_what_looks_like_an_end(more: dict[str, Any]) -> None:
    images = [draw(n, size=(40, 40), **more) for n in range(3)]
    found = list(iterate_piped_images(Drip(b"".join(images), 7), 10.0))
    assert all(np.array_equal(f.image, decode(data)) for f, data in zip(found, images, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_there_with_its_last_byte(form: str) -> None:
    first = draw(1, form)
    stream = Drip(first + draw(2, form), 1)
    next(iterate_piped_images(stream, 10.0))
    assert stream.given == len(first)


@given(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(FORMS))
def test_a_damaged_stream_gives_what_is_whole_and_says_why_it_ends(place: int, byte: int, form: str) -> None:
    data = bytearray(draw(1, form) + draw(2, form))
    data[place % len(data)] = byte
    try:
        for found in iterate_piped_images(Drip(bytes(data[: len(data) - place % 3]), 64), 10.0):
            assert isinstance(found.image, str) or found.image.shape[2] == 3
    except (DamagedSourceError, InputError) as error:
        assert str(error)


class Connection:
    """Stands for an address that hangs up: what each connection gives, or why there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *connections: list[int] | str) -> None:
        self.left, self.slept = list(connections), list[float]()
        monkeypatch.setattr(live, "open_live", lambda source, options: self.left.pop(0) if self.left else "gone")
        monkeypatch.setattr(LiveFrames, "_decode", lambda own, given: self.give(given))
        monkeypatch.setattr(live.time, "sleep", self.slept.append)

    def give(self, given: list[int] | str) -> Iterator[Any]:
        if isinstance(given, str):
            raise InputError(f"rtsp://x: {given}")
        for t, value in enumerate(given):
            if value < 0:
                raise DamagedSourceError("broken")
            yield live.Frame(t, np.full((4, 6, 3), value, np.uint8), t / 10)


def test_a_connection_is_opened_again_and_frames_count_on(monkeypatch: pytest.MonkeyPatch) -> None:
    network, told = Connection(monkeypatch, [1, 2], "no answer", "no answer", [3, -1], [4]), list[str]()
    frames = LiveFrames("rtsp://x", 3, told.append)
    found = list(frames)
    assert [(f.index, int(f.image[0, 0, 0])) for f in found] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert all(a.time < b.time for a, b in pairwise(found))
    assert network.slept[:4] == [1, 2, 4, 1]
    assert told[:2] == [
        "rtsp://x: the connection ended; it is opened again (3 tries left)",
        "rtsp://x: no answer; it is opened again (2 tries left)",
    ]
    assert frames.damage == "rtsp://x: gone" and len(network.slept) == 7


def test_without_reconnecting_the_first_end_is_the_last_and_nothing_at_first_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Connection(monkeypatch, [1, -1])
    frames = LiveFrames("rtsp://x")
    assert len(list(frames)) == 1 and frames.damage == "rtsp://x: broken"
    Connection(monkeypatch, "no answer")
    with pytest.raises(InputError, match="no answer"):
        LiveFrames("rtsp://x", 5)


def test_what_has_an_end_is_not_opened_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Connection(monkeypatch, [1, 2])
    frames = LiveFrames("https://x/clip.mp4", 3)
    assert len(list(frames)) == 2 and frames.damage is None
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(draw(n))
    assert [f.index for f in LiveFrames(str(tmp_path))] == [0, 1, 2]


def test_frames_of_another_size_end_it_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw(0) + draw(1, size=(4, 4))
    monkeypatch.setattr(live, "open_pipe_stream", lambda: live.PipeStream(BytesIO(data)))
    with pytest.raises(InputError, match=r"-: frame 1 is 4x4, the first one 9x6; give frames of one size"):
        list(LiveFrames("-"))


def test_a_read_frame_that_is_lost_is_noted_nowhere() -> None:
    lost = live._Unnoted()
    frames = list(live.fill_gaps([ReadFrame(decode(draw(0)), 0.0), ReadFrame("why", 0.1)], lost))
    assert len(frames) == 2 and not lost
