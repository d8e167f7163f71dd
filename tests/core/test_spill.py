"""Bytes that outgrow memory, and a track book whose every change is a record among them."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet.core import spill as spill_module
from masklet.core.rle import Rle
from masklet.core.spill import DamagedSpillError, Spill
from masklet.core.tracks import Fork, Sighting, Source, TrackBook

MASKS = [Rle.encode_pixels(np.arange(64).reshape(8, 8) % n == 0) for n in range(2, 6)]
EMPTY = Rle.encode_pixels(np.zeros((8, 8), bool))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.lists(st.binary(max_size=40)), st.integers(0, 60))
def test_what_is_added_is_read_wherever_it_lies(records: list[bytes], room: int) -> None:
    spill = Spill()
    spill._room = room
    places = [spill.append(record) for record in records]
    whole = b"".join(records)
    assert len(spill) == len(whole) and spill.read(0, len(whole) + 5) == whole
    assert [spill.read(at, len(r)) for at, r in zip(places, records, strict=True)] == records


def test_a_file_without_a_name_is_made_late_and_goes_with_the_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill_module, "ROOM", 100)
    gc.collect()
    before = open_files()
    spill = Spill()
    spill.append(b"x" * 90)
    assert open_files() == before
    spill.append(b"y" * 90)
    assert open_files() == before + 1 and spill.read(85, 10) == b"xxxxxyyyyy"
    del spill
    assert open_files() == before


def test_without_a_disk_all_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    spill = Spill()
    spill._room = 10
    monkeypatch.setattr(os, "pwrite", full)
    spill.append(b"a" * 20)
    spill.append(b"b" * 20)
    assert spill.read(15, 10) == b"aaaaabbbbb"


def test_another_process_goes_on_from_what_was_whole(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "f")
    spill.append(b"one")
    length, crc = spill.sync()
    spill.append(b"two")
    spill.sync()
    again = Spill.restore(tmp_path / "f", length, crc)
    assert again.read(0, 99) == b"one" and again.append(b"three") == 3 and again.sync()[0] == 8
    for wrong in ((length, crc + 1), (99, crc)):
        with pytest.raises(DamagedSpillError):
            Spill.restore(tmp_path / "f", *wrong)
    with pytest.raises(OSError, match="none"):
        Spill.restore(tmp_path / "none", 0, 0)


change = st.tuples(
    st.sampled_from(["note", "note", "note", "branch", "remove", "drop", "settle"]),
    st.integers(-1, 2),
    st.integers(0, 9),
    st.integers(0, 4),
    st.integers(0, 1),
)


def make(mask: int, source: Source = Source.FORWARD) -> Sighting:
    return Sighting([*MASKS, EMPTY][mask], source, mask / 3, mask - 1, -mask / 7)


def write(book: TrackBook, changes: list[Any]) -> None:
    for what, id, frame, mask, origin in changes:
        if what == "note":
            book.note(id, frame, make(mask, list(Source)[mask % 4]))
        elif what == "branch":
            book.branch(id, Fork(frame, (make(mask), make((mask + 1) % 5)), (origin, 0)))
        elif what == "remove" and id in book.pages:
            book.remove(id, frame)
        elif what == "drop" and id in book.pages and id not in book.forks:
            book.drop([id])
        elif what == "settle":
            book.settle()


@given(st.lists(change, max_size=25), st.lists(change, max_size=10))
def test_a_book_is_restored_from_its_records_with_all_that_is_open(before: list[Any], after: list[Any]) -> None:
    whole = TrackBook()
    write(whole, before)
    spill = Spill()
    spill.append(whole.spill.read(0, len(whole.spill)))
    again = TrackBook.restore(spill, copy.deepcopy(whole.forks))
    assert again.pages == whole.pages and list(again.pages) == list(whole.pages)
    for book in (whole, again):
        write(book, after)
        book.settle()
    assert again.masklets() == whole.masklets() and again.spill.read(0, 9999) == whole.spill.read(0, 9999)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3))))
def test_a_page_is_a_mapping_by_rising_frames(notes: list[tuple[int, int]]) -> None:
    book, plain = TrackBook(), dict[int, Sighting]()
    for frame, mask in notes:
        book.note(1, frame, make(mask))
        plain[frame] = make(mask)
    page = book.pages.get(1, {})
    assert page == plain and dict(page) == plain and list(page) == sorted(plain) and len(page) == len(plain)
    assert pickle.loads(pickle.dumps(page)) == plain
    assert all((t in page) == (t in plain) and page.get(t) == plain.get(t) for t in range(-2, 45))
