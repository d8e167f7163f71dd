"""Given objects as the programs of benchmarks track them: forward alone, overlapping or by the greatest logit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sam2long import Scripted, film_of, mask, silent
from torch import Tensor
from toys import Place, ToyPropagator, World, moving, square, still

from masklet.core.errors import InputError
from masklet.core.instances import Branches, Prediction
from masklet.core.rle import Rle
from masklet.core.tracks import Source
from masklet.systems.sam2long import MemoryTree
from masklet.systems.track import Track
from masklet.systems.vos import LogitsBook, VosTrack, exclude_by_logits, keep_apart

PLACES: list[Place] = [moving(4, 0, 0, 1), moving(20, 24, 0, -1)]


def test_objects_begin_where_they_are_given_and_nothing_is_before() -> None:
    world = World(PLACES)
    result = VosTrack(ToyPropagator(), {0: {3: world.truth(0)[0]}, 5: {7: world.truth(5)[1]}}).run(world, silent)
    first, second = result.masklets
    assert (first.id, second.id) == (3, 7)
    assert list(first.sightings) == list(range(16)) and list(second.sightings) == list(range(5, 16))
    for m, o in ((first, 0), (second, 1)):
        assert all(torch.equal(s.mask.decode(), world.truth(t)[o]) for t, s in m.sightings.items())
    assert [second.sightings[t].source for t in (5, 6)] == [Source.PROMPTED, Source.FORWARD]
    assert result.provenance.system == "vos" and result.provenance.settings["overlaps"] is False


def test_an_object_is_given_beyond_the_end() -> None:
    with pytest.raises(InputError, match=r"prompt in frame 16, but toy has 16 frames"):
        VosTrack(ToyPropagator(), {16: {1: square(4, 4)}}).run(World([still(4, 4)]), silent)


LOGITS = torch.tensor([[[[1.0, 3.0, -1.0, 2.0]]], [[[2.0, 1.0, -2.0, 2.0]]]])


def test_a_pixel_goes_to_the_greatest_logit_or_to_all_that_claim_it() -> None:
    """On a tie the first id has it; what is below 0 everywhere is nobody's."""
    size, pages = (1, 4), [LOGITS[0, 0], LOGITS[1, 0]]
    apart, alone = keep_apart([4, 9], pages, size), exclude_by_logits([4, 9], pages, size)
    assert {id: m.decode().int().tolist() for id, m in apart.items()} == {4: [[1, 1, 0, 1]], 9: [[1, 1, 0, 1]]}
    assert {id: m.decode().int().tolist() for id, m in alone.items()} == {4: [[0, 1, 0, 1]], 9: [[1, 0, 0, 0]]}


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_by_logits_no_pixel_is_taken_twice_and_none_is_lost(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    pages = [torch.randn(h, w, generator=draw) for h, w in ((4, 6), (8, 12), (16, 24))]
    apart, alone = (how([1, 2, 3], pages, (16, 24)) for how in (keep_apart, exclude_by_logits))
    claimed, taken = (torch.stack([m.decode() for m in one.values()]) for one in (apart, alone))
    assert taken.sum(0).max() <= 1 and torch.equal(taken.any(0), claimed.any(0))
    assert not (taken & ~claimed).any()


def test_a_given_mask_is_as_sure_as_sam_2_holds_it() -> None:
    """Where another object is surer of a pixel than 10, it has that pixel."""
    given_mask = torch.ones(1, 2).float() * 20 - 10
    other = torch.tensor([[11.0, 9.0]])
    assert exclude_by_logits([1, 2], [given_mask, other], (1, 2))[1].decode().tolist() == [[False, True]]


@given(st.lists(st.integers(0, 255), min_size=2, max_size=9), st.integers(1, 4))
@settings(max_examples=15)
def test_over_a_tree_masks_are_those_of_the_pathway_that_wins(numbers: list[int], paths: int) -> None:
    """As `Track` writes them, which has the official answers (test_sam2long)."""
    made = {}
    for system in (
        Track(MemoryTree(Scripted(), paths, 1.0), {0: {6: mask(6)}}),
        VosTrack(MemoryTree(Scripted(), paths, 1.0), {0: {6: mask(6)}}, keep_apart),
    ):
        found = system.run(film_of(numbers), silent).masklets
        made[type(system)] = {t: s.mask for m in found for t, s in m.sightings.items()}
    assert made[Track] == made[VosTrack]


def belief_of(*values: float, origins: list[int] | None = None) -> Prediction:
    """A belief about object 1 with these logits, one hypothesis or several pathways."""
    logits = torch.tensor(values).view(1, -1, 1, 1)
    k = logits.shape[1]
    facts: list[Tensor] = [torch.linspace(1, 0.5, k)[None], torch.ones(1, k)]
    if origins is None:
        return Prediction((1,), logits, *facts)
    own = {
        "origins": torch.tensor([origins]),
        "hypotheses": torch.arange(k)[None],
        "totals": torch.zeros(1, k).double(),
    }
    return Branches((1,), logits, *facts, **own)


def read(book: LogitsBook, frames: int) -> list[float]:
    return [float(page[0, 0]) for t in range(frames) for _, _, page in book.read(t)]


def test_the_book_follows_the_winner_back() -> None:
    book = LogitsBook()
    book.note(0, belief_of(1.0, 2.0, origins=[0, 1]))
    book.note(1, belief_of(3.0, 4.0, origins=[1, 0]))  # the best goes on from the second of frame 0
    assert read(book, 2) == []
    book.note(2, belief_of(5.0, 6.0, origins=[1, 1]))  # all from the second of frame 1: it is decided
    assert read(book, 2) == [1.0, 4.0]
    book.settle()
    assert read(book, 3) == [1.0, 4.0, 5.0]
    plain = LogitsBook()
    plain.note(0, belief_of(7.0, 8.0))
    assert read(plain, 1) == [7.0]  # of one hypothesis each, the best


def test_an_absent_object_has_no_pixel_and_takes_none() -> None:
    class Absent(ToyPropagator):
        def predict(self, memory, features):  # type: ignore[no-untyped-def]
            belief = super().predict(memory, features)
            presence = belief.presence.clone()
            presence[[r for r, id in enumerate(belief.ids) if id == 1]] = -1.0
            return Prediction(belief.ids, belief.logits + 500, belief.quality, presence)

    world = World(PLACES)
    result = VosTrack(Absent(), {0: {1: world.truth(0)[0], 2: world.truth(0)[1]}}).run(world, silent)
    assert list(result.masklets[0].sightings) == [0]
    assert result.masklets[1].sightings[1].mask == Rle.encode_pixels(np.ones((32, 32), bool))
