"""Several pathways through time: as beliefs, and in the book until one has won."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.instances import Branches
from masklet.core.rle import Rle
from masklet.core.tracks import Fork, Sighting, Source, TrackBook

SIDE = 4


def sighting(number: int, source: Source = Source.FORWARD) -> Sighting:
    """Number n covers pixel n - 1; number 0 is no pixel."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask.flatten()[number - 1 : number] = True
    return Sighting(Rle.encode(mask), source, number / 100)


def fork(frame: int, numbers: tuple[int, ...], origins: tuple[int, ...], source: Source = Source.FORWARD) -> Fork:
    return Fork(frame, tuple(sighting(n, source) for n in numbers), origins)


def numbers(book: TrackBook, id: int = 1) -> dict[int, int]:
    return {t: round(100 * s.score) for t, s in sorted(book.pages[id].items())}


# -- the book


def test_the_pathway_that_wins_in_the_end_is_traced_back() -> None:
    """Slots 0 and 1 cross over in frame 2: the winner was second until then."""
    book = TrackBook()
    for at in (fork(0, (1, 1), (0, 0)), fork(1, (2, 3), (0, 1)), fork(2, (5, 4), (1, 0)), fork(3, (6, 7), (0, 1))):
        book.branch(1, at)
    assert numbers(book) == {0: 1, 1: 2, 2: 5, 3: 6}  # so far: the best of each frame
    book.settle()
    assert numbers(book) == {0: 1, 1: 3, 2: 5, 3: 6}


def test_what_all_pathways_share_is_decided_at_once() -> None:
    book = TrackBook()
    for at in (fork(0, (1, 2, 3), (0, 0, 0)), fork(1, (4, 5, 6), (1, 0, 2)), fork(2, (7, 8, 9), (2, 2, 2))):
        book.branch(1, at)
    assert numbers(book) == {0: 3, 1: 6, 2: 7}
    assert [f.frame for f in book._open[1]] == [2]


def test_a_frame_without_a_mask_on_the_winning_pathway_is_no_sighting_and_the_other_way_round() -> None:
    book = TrackBook()
    for at in (fork(0, (1, 0), (0, 0)), fork(1, (0, 2), (0, 1)), fork(2, (3, 4), (1, 0))):
        book.branch(1, at)
    assert numbers(book) == {0: 1, 2: 3}
    book.settle()
    assert numbers(book) == {1: 2, 2: 3}


def test_a_detection_or_a_prompt_in_place_of_a_pathway_stays() -> None:
    for source in (Source.DETECTED, Source.PROMPTED):
        book = TrackBook()
        book.branch(1, fork(0, (1, 2), (0, 0)))
        book.note(1, 0, sighting(9, source))
        book.branch(1, fork(1, (3, 4), (1, 0)))
        book.settle()
        assert numbers(book) == {0: 9, 1: 3} and book.pages[1][0].source is source


def test_an_object_that_is_nowhere_has_an_empty_page() -> None:
    book = TrackBook()
    book.branch(1, fork(0, (0, 0), (0, 0)))
    book.settle()
    assert book.pages == {1: {}} and book.masklets() == ()


def test_to_settle_twice_or_nothing_changes_nothing() -> None:
    book = TrackBook()
    book.settle()
    assert book.pages == {}
    book.branch(1, fork(0, (1, 2), (0, 0)))
    book.branch(1, fork(1, (3, 4), (1, 0)))
    book.settle()
    before = numbers(book)
    book.settle()
    assert numbers(book) == before == {0: 2, 1: 3}


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Masks and origins of 1 to 4 pathways over some frames."""
    paths = draw(st.integers(1, 4))
    rows = st.tuples(st.tuples(*[st.integers(0, SIDE * SIDE)] * paths), st.tuples(*[st.integers(0, paths - 1)] * paths))
    return draw(st.lists(rows, max_size=12))


def offline(table: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> dict[int, int]:
    """The answer with the whole table at hand: from slot 0 of the last frame backward."""
    slot, found = 0, {}
    for t in reversed(range(len(table))):
        found[t] = table[t][0][slot]
        slot = table[t][1][slot]
    return {t: n for t, n in sorted(found.items()) if n}


@given(tables(), st.sampled_from([Source.FORWARD, Source.BACKWARD]))
def test_the_book_is_the_trace_over_the_stored_table(
    table: list[tuple[tuple[int, ...], tuple[int, ...]]], source: Source
) -> None:
    """Settled early, wherever all pathways share an origin, it is what it is when settled late."""
    book = TrackBook()
    for t, (masks, origins) in enumerate(table):
        book.branch(1, fork(t, masks, origins, source))
        assert numbers(book) == numbers(book) | ({t: masks[0]} if masks[0] else {})
    book.settle()
    assert not table or numbers(book) == offline(table)


@given(tables(), tables(), st.integers(0, 12))
def test_objects_do_not_disturb_each_other(
    first: list[tuple[tuple[int, ...], tuple[int, ...]]],
    second: list[tuple[tuple[int, ...], tuple[int, ...]]],
    late: int,
) -> None:
    book = TrackBook()
    for t in range(max(len(first), late + len(second))):
        for id, table, start in ((1, first, 0), (2, second, late)):
            if 0 <= t - start < len(table):
                book.branch(id, fork(t, *table[t - start]))
    book.settle()
    assert not first or numbers(book, 1) == offline(first)
    assert not second or numbers(book, 2) == {t + late: n for t, n in offline(second).items()}


def test_open_forks_do_not_pile_up_while_pathways_keep_merging() -> None:
    book = TrackBook()
    for t in range(200):
        book.branch(1, fork(t, (1, 2, 3), (0, 0, 0) if t % 5 == 0 else (0, 1, 0)))
        assert len(book._open[1]) <= 5


# -- the belief


def belief() -> Branches:
    """Two objects, three pathways; the mask of highest quality is not the best pathway's."""
    logits = torch.arange(6.0).view(2, 3, 1, 1).expand(2, 3, 2, 2) - 2.5
    quality = torch.tensor([[0.3, 0.9, 0.5], [0.6, 0.7, 0.8]])
    presence = torch.tensor([[-1.0, 2.0, 3.0], [4.0, -5.0, 6.0]])
    table = torch.tensor([[0, 1, 0], [2, 2, 1]])
    return Branches((5, 8), logits, quality, presence, quality[:, :, None] * 10, origins=table, hypotheses=table + 1, totals=-table.double())  # fmt: skip


def test_the_best_is_the_first_pathway_not_the_mask_of_highest_quality() -> None:
    best = belief().best
    assert best.quality.tolist() == torch.tensor([[0.3], [0.6]]).tolist() and best.presence.tolist() == [[-1.0], [4.0]]
    assert best.tokens is not None and best.tokens[:, 0, 0].tolist() == torch.tensor([3.0, 6.0]).tolist()
    assert belief().masks((2, 2)).flatten(1).all(1).tolist() == [False, True]  # absent on its best pathway


def test_rows_of_branches_are_branches() -> None:
    rows = belief().only([1])
    assert isinstance(rows, Branches) and rows.ids == (8,)
    assert (rows.origins.tolist(), rows.hypotheses.tolist(), rows.totals.tolist()) == ([[2, 2, 1]], [[3, 3, 2]], [[-2.0, -2.0, -1.0]])  # fmt: skip
    none = belief().only([])
    assert isinstance(none, Branches) and none.ids == () and none.origins.shape == (0, 3)


def test_rows_may_be_taken_in_any_order_and_without_tokens() -> None:
    turned = replace(belief(), tokens=None).only([1, 0])
    assert turned.ids == (8, 5) and turned.tokens is None and turned.origins.tolist() == [[2, 2, 1], [0, 1, 0]]


def test_pathways_become_objects() -> None:
    some = belief().pathways((11, 12, 13), [(1, 2), (0, 0), (1, 0)])
    assert not isinstance(some, Branches) and some.ids == (11, 12, 13)
    assert some.presence.tolist() == [[6.0], [-1.0], [4.0]] and some.logits[:, 0, 0, 0].tolist() == [2.5, -2.5, 0.5]
    assert belief().pathways((), []).quality.shape == (0, 1)
