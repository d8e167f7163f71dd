from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from masklet.core.frames import iterate_windows_backward, iterate_with_future

sizes = st.integers(0, 30)


@given(sizes, sizes)
def test_with_future_gives_every_item_and_what_follows_it(n: int, ahead: int) -> None:
    items = list(range(n))
    assert list(iterate_with_future(items, ahead)) == [(i, tuple(items[i + 1 : i + 1 + ahead])) for i in items]


@given(sizes, sizes)
def test_with_future_reads_no_further_than_it_must(n: int, ahead: int) -> None:
    read: list[int] = []

    def source() -> object:
        for i in range(n):
            read.append(i)
            yield i

    for item, _ in iterate_with_future(source(), ahead):
        assert len(read) <= item + 1 + ahead


@given(sizes, sizes, st.integers(1, 9))
def test_backward_windows_cover_the_span_once_from_its_end(start: int, length: int, window: int) -> None:
    spans = list(iterate_windows_backward(start, start + length, window))
    assert [t for span in spans for t in reversed(span)] == list(range(start, start + length))[::-1]
    assert all(len(span) <= window for span in spans)
